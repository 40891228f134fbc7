"""What a sensor is asked to wait for, and what needs no question at all."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from amili_provider.exceptions import AmiliResultFailed
from amili_provider.report_lines import MOST_LINES
from amili_provider.sensors.amili import AmiliBatchSensor, AmiliFileResultSensor
from amili_provider.sensors.arguments import asked_for, checked_uuid
from tests.unit.simulated import ACCEPTED, MODES, World, run, settle_in


def receipt(file_id: str | None = "a", outcome: str = "uploaded", **changes: Any) -> dict[str, Any]:
    """Return a receipt as the upload pushes it."""
    return {
        "file_id": file_id,
        "name": f"{file_id}.csv",
        "source": f"s3://bucket/{file_id}.csv",
        "size": 3,
        "sha256": "0" * 64,
        "client_no": "2218",
        "file_type": "InvoiciaFormatDocFile",
        "outcome": outcome,
        "status": None,
        "result": None,
        "message": None,
        "uploaded_at": None,
        **changes,
    }


class Lazy:
    """A sequence that is neither list nor tuple, as XComs of mapped tasks are."""

    def __init__(self, *entries: Any) -> None:
        self._entries = entries

    def __iter__(self) -> Any:
        return iter(self._entries)


@pytest.mark.parametrize(
    "receipts",
    [
        [receipt("a"), receipt("b")],
        (receipt("a"), receipt("b")),
        [[receipt("a")], [], [receipt("b")]],
        Lazy([receipt("a")], Lazy([receipt("b")])),
        [receipt("a"), receipt("a"), receipt("b")],
        [receipt("a", "already_uploaded"), receipt("b", "unknown")],
        [receipt("a"), receipt("x", "skipped"), receipt("b")],
    ],
    ids=range(7),
)
def test_receipts_of_any_depth_are_read(receipts: Any) -> None:
    """Lists, mapped lists and repeated receipts give each file once, in order, with its own client."""
    asked = asked_for(receipts, None, None)
    assert asked.files == [("2218", "a"), ("2218", "b")]
    assert asked.names == {"a": "a.csv", "b": "b.csv"}
    assert not asked.undeliverable


def test_one_receipt_alone_is_read() -> None:
    """A sensor that is mapped over receipts gets a single one."""
    assert asked_for(receipt("a"), None, None).files == [("2218", "a")]


@pytest.mark.parametrize("ids", [["a", "b"], ("a", "b"), [["a"], ["b"], []], Lazy("a", Lazy("b"))], ids=range(4))
def test_ids_of_any_depth_are_read(ids: Any) -> None:
    """Ids belong to the client that is given, or to the connection's."""
    assert asked_for(None, ids, None).files == [(None, "a"), (None, "b")]
    assert asked_for(None, ids, 4711).files == [("4711", "a"), ("4711", "b")]


@pytest.mark.parametrize("name", ["receipts", "file_ids"])
@pytest.mark.parametrize(
    "given", ["['a', 'b']", "", b"a", 5, [None], [5.5, None], ["a", None], [["a"], None]], ids=repr
)
def test_what_is_no_list_is_refused_with_the_remedy(name: str, given: Any) -> None:
    """Text, None and numbers are a mistake in the DAG, and the message says what to write."""
    arguments = {"receipts": None, "file_ids": None, name: given}
    with pytest.raises(ValueError, match=rf"{name} .*\.output"):
        asked_for(arguments["receipts"], arguments["file_ids"], None)


def test_receipts_that_are_missing_are_counted() -> None:
    """An upload that left None in the list is not passed over: the message counts what is there."""
    with pytest.raises(ValueError, match="those of 2 of 3 uploads; the others left None"):
        asked_for(Lazy([receipt("a")], None, []), None, None)


def test_nothing_at_all_is_refused_with_the_remedy() -> None:
    """Both None, as after a skipped upload, is not the same as nothing to wait for."""
    with pytest.raises(ValueError, match=r"upload\.output.*empty list would succeed"):
        asked_for(None, None, None)


def test_both_at_once_are_refused() -> None:
    """Receipts and ids exclude one another."""
    with pytest.raises(ValueError, match="both given"):
        asked_for([receipt()], ["a"], None)


@pytest.mark.parametrize("outcome", ["arrived", None, "", "UPLOADED"])
def test_an_outcome_nobody_knows_is_refused(outcome: Any) -> None:
    """A receipt with an outcome that is not in the list is never passed over."""
    with pytest.raises(ValueError, match="no receipt"):
        asked_for([receipt(outcome=outcome)], None, None)


@pytest.mark.parametrize("file_id", [None, "", " ", True, "a\nb", "..", "x" * 300])
def test_an_id_that_is_none_is_refused(file_id: Any) -> None:
    """A receipt of a file that was sent has an id that can stand in a path."""
    with pytest.raises(ValueError, match="no file id"):
        asked_for([receipt(file_id)], None, None)


def test_another_client_than_the_receipts_is_refused() -> None:
    """A client number that contradicts a receipt would ask about somebody else's file."""
    with pytest.raises(ValueError, match="client_no is '1'"):
        asked_for([receipt()], None, "1")
    assert asked_for([receipt()], None, "2218").files == [("2218", "a")]


@pytest.mark.parametrize("uuid", [None, "", "  ", 5, "a b", "a\nb", "..", "x" * 300])
def test_a_batch_uuid_that_is_none_is_refused(uuid: Any) -> None:
    """The message says where the uuid comes from."""
    with pytest.raises(ValueError, match="batchUuid"):
        checked_uuid(uuid)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("given", [{"receipts": []}, {"file_ids": []}, {"receipts": [[], [receipt("x", "skipped")]]}])
def test_nothing_to_wait_for_succeeds_without_a_question(
    mode: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty lists, and files that were skipped, need nothing: not even the connection."""
    monkeypatch.delenv("AIRFLOW_CONN_AMILI_DEFAULT", raising=False)
    ending = run(mode, World(), AmiliFileResultSensor, **given)
    assert (ending.state, ending.xcom) == ("success", [])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outcome", ["duplicate", "rejected", "not_sent"])
def test_files_that_never_arrived_fail_at_once(mode: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no result to wait for, so nothing is asked; no mode, and no soft_fail, makes that a skip."""
    world = World(scripts={"a": [ACCEPTED]})
    settle_in(world, monkeypatch)
    receipts = [receipt("a"), receipt(None, outcome, source="s3://bucket/b.csv", message="Line 7")]
    assert run(mode, world, AmiliFileResultSensor, receipts=receipts).error == "AmiliResultFailed"
    assert run(mode, world, AmiliFileResultSensor, receipts=receipts, soft_fail=True).error == "AmiliResultFailed"
    assert not world.requests
    assert not world.minted
    with pytest.raises(AmiliResultFailed, match=rf"(?s){outcome}.*Line 7.*s3://bucket/b\.csv") as caught:
        AmiliFileResultSensor(task_id="wait", receipts=receipts).execute({})
    assert [one["outcome"] for one in caught.value.receipts] == [outcome]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail", "silent_fail"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"receipts": None},
        {"file_ids": "a"},
        {"file_ids": ["a"], "client_no": "a/b"},
        {"file_ids": ["a"], "result_path": "/no/id"},
        {"file_ids": ["a"], "accepted_results": 5},
        {"file_ids": ["a"], "amili_conn_id": "wrong"},
    ],
    ids=repr,
)
def test_a_mistake_is_loud_in_every_mode(
    mode: str, flag: str, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong argument or connection is never skipped or waited over, whatever the flags say."""
    world = World()
    settle_in(world, monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", '{"conn_type": "amili", "login": "x", "password": "y"}')
    ending = run(mode, world, AmiliFileResultSensor, **{flag: True, **wrong})
    assert (ending.state, ending.error) == ("failed", "AmiliArgumentError")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail", "silent_fail"])
def test_a_missing_connection_is_loud_and_permanent(mode: str, flag: str) -> None:
    """No flag turns a connection that does not exist into a skip, and no retry creates it."""
    ending = run(mode, World(), AmiliFileResultSensor, file_ids=["a"], amili_conn_id="nowhere", **{flag: True})
    assert (ending.state, ending.error) == ("failed", "AmiliArgumentError")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["timeout", "poke_interval", "max_wait"])
@pytest.mark.parametrize("seconds", [1e12, 367 * 86400, math.inf, math.nan], ids=str)
def test_an_absurd_wait_is_loud(mode: str, name: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval that no date can be added to is a wrong argument, before anything is asked."""

    def make(**arguments: Any) -> AmiliFileResultSensor:
        made = AmiliFileResultSensor(**arguments)
        # Not every Airflow lets these through.
        setattr(made, name, timedelta(seconds=seconds) if name == "max_wait" and seconds == 1e12 else seconds)
        return made

    world = World(scripts={"a": [404]})
    settle_in(world, monkeypatch)
    assert run(mode, world, make, file_ids=["a"]).error == "AmiliArgumentError"
    assert not world.requests


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_batch_argument_is_loud(mode: str) -> None:
    """The same for the batch sensor."""
    for wrong in ({"batch_uuid": None}, {"batch_uuid": "u", "if_partial": "perhaps"}):
        assert run(mode, World(), AmiliBatchSensor, soft_fail=True, **wrong).error == "AmiliArgumentError"


def test_files_of_several_clients_are_asked_for_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts of uploads that were mapped over clients are waited for together."""
    receipts = [[receipt("a", client_no="1")], [receipt("a", client_no="2"), receipt("b", client_no="2")]]
    for mode in MODES:
        world = World(scripts={"*": [404, ACCEPTED, 404, ACCEPTED]})
        with monkeypatch.context() as patch:
            settle_in(world, patch)
            ending = run(mode, world, AmiliFileResultSensor, receipts=receipts)
        assert [(one["client_no"], one["file_id"]) for one in ending.xcom] == [("1", "a"), ("2", "a"), ("2", "b")]


def test_the_skip_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skip is caused by the failure that it stands for."""
    world = World(scripts={"a": [(200, {"fileId": "a", "status": "NOTED"})]})
    settle_in(world, monkeypatch)
    for deferrable in (False, True):
        with pytest.raises(AirflowSkipException) as caught:
            AmiliFileResultSensor(
                task_id="wait", file_ids=["a"], soft_fail=True, timeout=0, deferrable=deferrable
            ).execute({})
        assert "NOTED" in str(caught.value.__cause__)


def test_files_that_never_arrived_are_named_on_one_screen() -> None:
    """Hundreds with one reason are told once, each outcome apart."""
    lost = [receipt(f"f{n}", "rejected", name=f"{n}.csv", message="no such debtor") for n in range(300)]
    lost.append(receipt("g", "not_sent", name="late.csv", message="In flight elsewhere"))
    with pytest.raises(AmiliResultFailed, match="301 file") as caught:
        AmiliFileResultSensor(task_id="wait", receipts=lost).execute({})
    lines = str(caught.value).splitlines()
    assert len(lines) <= MOST_LINES
    assert sum("no such debtor" in line for line in lines) == 1
    assert "  late.csv: In flight elsewhere" in lines
    assert len(caught.value.receipts) == 301
