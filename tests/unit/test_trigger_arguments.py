"""What is stored of a trigger, and what its event says: exact, small, plain JSON, nothing secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliRequestError,
    AmiliResponseError,
)
from amili_provider.triggers.amili import AmiliBatchTrigger, AmiliFileResultTrigger
from amili_provider.triggers.polling import Open, Settled, WaitEvent, failed, read_event
from tests.unit.simulated import EPOCH, rebuilt

SHARED: dict[str, Any] = {
    "amili_conn_id": "amili_other",
    "poke_interval": 30.0,
    "started_at": EPOCH,
    "deadline": EPOCH + 600,
    "exponential_backoff": True,
    "max_wait": 120.0,
    "silent_fail": True,
    "accepted_results": ["IMPORTED"],
    "refused_results": "LOST",
    "pending_results": None,
}


def test_a_file_trigger_is_stored_exactly() -> None:
    """The serialized form is this, on every version that shares a database with another."""
    trigger = AmiliFileResultTrigger(file_ids={"2218": ("a", "b")}, result_path="/r/{fileid}", **SHARED)
    expected = (
        "amili_provider.triggers.amili.AmiliFileResultTrigger",
        {"file_ids": {"2218": ["a", "b"]}, "result_path": "/r/{fileid}", **SHARED},
    )
    assert trigger.serialize() == expected
    assert rebuilt(trigger).serialize() == expected


def test_a_batch_trigger_is_stored_exactly() -> None:
    """The same for batches."""
    trigger = AmiliBatchTrigger(client_no="2218", batch_uuid="u-1", if_partial="fail", **SHARED)
    expected = (
        "amili_provider.triggers.amili.AmiliBatchTrigger",
        {"client_no": "2218", "batch_uuid": "u-1", "if_partial": "fail", **SHARED},
    )
    assert trigger.serialize() == expected
    assert rebuilt(trigger).serialize() == expected


def test_defaults_need_not_be_stored() -> None:
    """What an older version did not store has a default."""
    needed = {key: SHARED[key] for key in ("amili_conn_id", "poke_interval", "started_at", "deadline")}
    trigger = AmiliFileResultTrigger(file_ids={"2218": ["a"]}, **needed)
    assert trigger.serialize()[1]["silent_fail"] is False


def test_an_event_survives_the_database() -> None:
    """An event is plain JSON and comes back as it was."""
    event = WaitEvent(
        ending="timed_out",
        settled=[Settled(client_no="2218", id="a", meaning="accepted", status="PROCESSED", result="CREATED")],
        open=[Open(client_no="2218", id="b", said="QUEUED")],
    )
    assert read_event(json.loads(json.dumps(event.payload()))) == event


GOOD = WaitEvent(ending="settled", settled=[Settled(client_no="1", id="a", meaning="accepted")]).payload()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        True,
        {},
        [],
        {"status": "success"},
        {**GOOD, "version": 2},
        {**GOOD, "version": "1"},
        {**GOOD, "ending": "success"},
        {**GOOD, "more": 1},
        {**GOOD, "settled": [{"client_no": "1", "id": "a", "meaning": "unclear"}]},
        {**GOOD, "settled": [{"client_no": 1, "id": "a", "meaning": "accepted"}]},
        {**GOOD, "settled": ["a"]},
        {**GOOD, "error": "SystemExit"},
    ],
    ids=repr,
)
def test_an_event_that_is_not_understood_fails(payload: Any) -> None:
    """Nothing is success but an event of this version that says so; Airflow may retry."""
    with pytest.raises(AmiliError, match="not understood") as caught:
        read_event(payload)
    assert type(caught.value) is AmiliError


@pytest.mark.parametrize(
    "error",
    [
        AmiliAuthenticationError("no", status_code=403),
        AmiliConnectionError("no", status_code=503, retry_after=5),
        AmiliRequestError("no", status_code=400),
        AmiliResponseError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_in_events(error: AmiliError) -> None:
    """An error comes out of the event as it went in: class, message and status."""
    event = read_event(json.loads(json.dumps(failed(error, [], []).payload())))
    with pytest.raises(type(error)) as caught:
        event.raise_error()
    assert type(caught.value) is type(error)
    assert caught.value.message == "no"
    assert getattr(caught.value, "status_code", None) == getattr(error, "status_code", None)


def test_a_failure_without_a_reason_is_still_a_failure() -> None:
    """An event that failed but names no error fails."""
    with pytest.raises(AmiliError, match="without saying why"):
        WaitEvent(ending="failed").raise_error()
