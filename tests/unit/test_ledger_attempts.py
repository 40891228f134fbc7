"""Attempts: what is written of them, and what cannot be one."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.ledger.attempts import Attempt, AttemptState, Origin, attempt_from, epoch, timestamp
from amili_provider.receipts import Outcome

_GOLDEN = Path(__file__).with_name("golden_attempt.json")
_ATTEMPT = Attempt(
    environment="production",
    client_no="10042",
    file_id="9f" + "0" * 30,
    attempt=2,
    owner="0123456789abcdef0123456789abcdef",
    chain="etl/scheduled__2026-11-22T05:00:00+00:00/upload_invoices/3/2",
    state=AttemptState.SETTLED,
    outcome=Outcome.UPLOADED,
    file_type="InvoiciaFormatDocFile",
    name="Åpne poster.csv",
    source="s3://invoices/outbound/2026-11-22/Åpne poster.csv",
    size=1234,
    sha256="a" * 64,
    status="PROCESSED",
    result="CREATED",
    message="Batch is processed",
    claimed_at="2026-11-22T05:00:01.000Z",
    expires_at="2026-11-22T05:11:01.000Z",
    settled_at="2026-11-22T05:00:03.250Z",
    uploaded_at="2026-11-22T05:00:03.250Z",
    dag_id="etl",
    run_id="scheduled__2026-11-22T05:00:00+00:00",
    task_id="upload_invoices",
    map_index=3,
    try_number=2,
    host="worker-1",
    request="#7",
    resolves=(1,),
)


def _entries(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(_ATTEMPT.as_dict())) | changes  # type: ignore[no-any-return]


def test_an_attempt_is_written_as_it_always_was() -> None:
    """Golden file: what lies in buckets and exports must be readable for ever, by people and by this code."""
    written = json.loads(_GOLDEN.read_text("utf-8"))
    assert list(written.items()) == list(_entries().items())
    assert attempt_from(written) == _ATTEMPT


def test_an_attempt_answers_the_questions_of_an_accountant() -> None:
    """Client, environment, type, name, source, size, hash, when, which run and Amili's words are in it."""
    assert [name for name, value in _entries().items() if value in (None, "", [])] == ["settled_by", "reason"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from([f.name for f in fields(Attempt)]), value=_JSON)
def test_a_wrong_field_is_kept_as_it_is_or_refused(name: str, value: Any) -> None:
    """An attempt that was edited by hand is either whole or none: nothing is made up."""
    entries = _entries(**{name: value})
    try:
        read = attempt_from(entries)
    except ValueError:
        return
    assert json.loads(json.dumps(read.as_dict())) == entries


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": None},
        {"state": "claimed"},
        {"outcome": "skipped"},
        {"outcome": "already_uploaded"},
        {"origin": "rumour"},
        {"expires_at": "2026-11-22T05:11:01"},
        {"claimed_at": "soon"},
        {"size": "12"},
        {"resolves": ["1"]},
        {"attempt": True},
        {"owner": None},
    ],
)
def test_what_contradicts_itself_is_no_attempt(changes: dict[str, Any]) -> None:
    """A claim with an outcome, an outcome that no attempt has, a time without a zone, a number in words."""
    with pytest.raises(ValueError, match=".+"):
        attempt_from(_entries(**changes))


@pytest.mark.parametrize("value", [[], "text", 1, None])
def test_json_of_another_shape_is_no_attempt(value: Any) -> None:
    """Whole JSON is not yet an attempt."""
    with pytest.raises(ValueError, match="not an object"):
        attempt_from(value)


def test_a_missing_field_is_named() -> None:
    """Whoever edits an attempt is told what is wrong with it."""
    entries = _entries()
    del entries["owner"]
    with pytest.raises(ValueError, match="'owner'"):
        attempt_from(entries)


@given(now=st.floats(0, 4e9))
def test_times_survive(now: float) -> None:
    """A written time has one width, and is read back to the millisecond."""
    written = timestamp(now)
    assert len(written) == len("2026-11-22T05:00:01.000Z")
    assert abs(epoch(written) - now) <= 0.001


def test_a_day_that_a_person_named_stays() -> None:
    """When Amili accepted it is what was found out, not when it was written down."""
    for named, expected in (("2026-11-01T00:00:00.000Z", "2026-11-01"), (None, "2026-11-22")):
        attempt = replace(_ATTEMPT, uploaded_at=named)
        attempt.stamp(epoch("2026-11-22T05:00:00.000Z"), 0)
        assert (attempt.uploaded_at or "")[:10] == expected
        assert attempt.settled_at == attempt.claimed_at == attempt.expires_at == "2026-11-22T05:00:00.000Z"


def test_an_attempt_describes_itself() -> None:
    """A message says who, when, which request, and in whose words."""
    text = _ATTEMPT.describe()
    parts = "attempt 2|uploaded|2026-11-22T05:00:01.000Z|DAG etl|map index 3|try 2|host worker-1|request #7"
    assert all(part in text for part in (*parts.split("|"), "PROCESSED/CREATED", "Batch is processed"))
    claimed = replace(_ATTEMPT, state=AttemptState.CLAIMED, outcome=None, status=None, result=None, message=None)
    assert "no answer recorded" in claimed.describe()
    lost = replace(_ATTEMPT, outcome=Outcome.UNKNOWN)
    assert "settled" not in lost.describe()  # nothing is, until a person says so
    settled = replace(_ATTEMPT, origin=Origin.PERSON, settled_by="kari", reason="seen in the portal")
    assert "settled by kari: seen in the portal" in settled.describe()
    assert _ATTEMPT.in_short().startswith("PROCESSED/CREATED: Batch is processed (2026-11-22, DAG etl, run scheduled")
