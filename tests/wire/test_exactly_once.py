"""Never twice, unless somebody says so; and never less than once: the ledger at work between two ends."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amili_provider.command.desk import Desk
from amili_provider.exceptions import (
    AmiliDeliveryIncomplete,
    AmiliDuplicateFiles,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliUploadRejected,
)
from amili_provider.ledger import Ledger
from amili_provider.sandbox.results import Step
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import attempts_in, new_ledger, run_sql, taking_no_outcome
from tests.wire.conftest import FakeTaskInstance, Upload, a_run_that_has_claimed

LOST = {"drop": "reset", "stage": "accepted"}
UNHEARD = {"drop": "reset", "stage": "body"}
SENT = "sent"


def _write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / f"{name}.csv").write_bytes(data)


def _posts(amili: SandboxServer) -> int:
    return sum(r.kind == "upload" for r in amili.requests)


def _accepted(amili: SandboxServer) -> dict[str, int]:
    return dict(Counter(u.name for u in amili.uploads))


def _outcomes(receipts: list[dict[str, Any]]) -> dict[str, str]:
    return {r["name"]: r["outcome"] for r in receipts}


@pytest.fixture(name="elsewhere")
def _elsewhere() -> Iterator[SandboxServer]:
    """Another environment."""
    with SandboxServer() as server:
        yield server


def test_what_was_tried_in_one_environment_is_still_sent_in_another(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, elsewhere: SandboxServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same files, the same ledger: staging's receipts say nothing of production."""
    _write(outbound, a=b"one", b=b"two")
    first = upload()
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", elsewhere.connection_json(ledger=new_ledger(tmp_path)))
    second = upload()
    assert set(_outcomes(second).values()) == {"uploaded"}
    assert {r["file_id"] for r in first}.isdisjoint(r["file_id"] for r in second)
    assert set(_outcomes(upload()).values()) == {"already_uploaded"}
    assert _accepted(amili_sandbox) == _accepted(elsewhere) == {"a.csv": 1, "b.csv": 1}


def test_two_amilis_behind_one_gateway_are_two(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host of one's own can have a staging and a production, told apart by base path: what was tried goes out."""
    second = json.loads(amili_sandbox.connection_json(ledger=new_ledger(tmp_path), answer_timeout=30))
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_SECOND", json.dumps({**second, "schema": "production/arm/v1"}))
    _write(outbound, a=b"one")
    upload()
    with pytest.raises(AmiliError, match="404"):  # the sandbox serves one of them only
        upload(amili_conn_id="amili_second")


def test_two_connections_of_one_client_send_once(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the client and the environment that count, not what the connection is called."""
    second = amili_sandbox.connection_json(ledger=new_ledger(tmp_path), answer_timeout=30)
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_SECOND", second)
    _write(outbound, a=b"one")
    upload()
    (receipt,) = upload(amili_conn_id="amili_second", client_no=" 2218 ", file_type="INVOICIAFORMATDOCFILE")
    assert receipt["outcome"] == "already_uploaded"
    assert _posts(amili_sandbox) == 1


def test_another_client_and_another_file_type_are_another_delivery(
    outbound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes may be meant for both."""
    from amili_provider.operators.amili import AmiliFileUploadOperator

    with SandboxServer(clients={"2218": ["Invoices", "Letters"], "4711": ["Invoices"]}) as amili:
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", amili.connection_json(ledger=new_ledger(tmp_path)))
        _write(outbound, a=b"one")
        for client_no, file_type in (("2218", "Invoices"), ("4711", "Invoices"), ("2218", "Letters")) * 2:
            AmiliFileUploadOperator(
                task_id="upload", source=f"{outbound}/*", client_no=client_no, file_type=file_type
            ).execute({})
        assert sorted((u.client_no, u.file_type) for u in amili.uploads) == [
            ("2218", "Invoices"), ("2218", "Letters"), ("4711", "Invoices")
        ]  # fmt: skip


def test_force_sends_again_once_per_clear_and_not_once_per_retry(
    upload: Upload, connect: Callable[..., SandboxServer], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A retry keeps max_tries, and with it the chain of attempts; a clear raises it."""
    connect(max_files_per_request=1)
    _write(outbound, a=b"one", b=b"two")
    upload(FakeTaskInstance(run_id="first"))
    forced = FakeTaskInstance(run_id="second", max_tries=2)
    amili_sandbox.faults.add("upload", nth=2, times=3, status=429, headers={"Retry-After": "0"})
    with pytest.raises(AmiliDeliveryIncomplete):
        upload(forced, force=True, max_concurrent_requests=1)
    assert sorted(_accepted(amili_sandbox).values()) == [1, 2]
    forced.try_number = 2
    assert sorted(_outcomes(upload(forced, force="true")).values()) == ["already_uploaded", "uploaded"]
    forced.try_number = 3
    assert set(_outcomes(upload(forced, force=True)).values()) == {"already_uploaded"}
    assert _accepted(amili_sandbox) == {"a.csv": 2, "b.csv": 2}
    cleared = FakeTaskInstance(run_id="second", max_tries=5, try_number=4)
    assert set(_outcomes(upload(cleared, force=True)).values()) == {"uploaded"}
    assert set(_outcomes(upload(cleared)).values()) == {"already_uploaded"}
    assert _accepted(amili_sandbox) == {"a.csv": 3, "b.csv": 3}


def test_a_mapped_sibling_is_another_chain(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """Each mapped task was told to force, so each of them does, once."""
    _write(outbound, a=b"one")
    for map_index in (0, 1, 0, 1):
        ti = FakeTaskInstance(max_tries=1)
        ti.map_index = map_index
        upload(ti, force=True)
    assert _accepted(amili_sandbox) == {"a.csv": 2}


def test_forced_files_whose_answer_is_lost_are_not_sent_by_the_retry(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """What this chain of attempts sent is not set aside by its own force."""
    _write(outbound, a=b"one")
    upload(FakeTaskInstance(run_id="first"))
    amili_sandbox.faults.add("upload", **LOST)
    forced = FakeTaskInstance(run_id="second", max_tries=2)
    for _ in range(2):
        with pytest.raises(AmiliOutcomeUnknown):
            upload(forced, force=True)
    assert _accepted(amili_sandbox) == {"a.csv": 2}


@pytest.mark.parametrize("if_duplicate", ["fail", "skip"])
@pytest.mark.parametrize("lost", [False, True])
def test_the_retry_of_a_forced_run_sends_no_second_name(
    upload: Upload,
    connect: Callable[..., SandboxServer],
    outbound: Path,
    amili_sandbox: SandboxServer,
    if_duplicate: str,
    lost: bool,
) -> None:
    """The bytes were accepted under a third name before, which force sets aside; the run still knows them."""
    connect(max_files_per_request=1)
    _write(outbound, a=b"same")
    upload(FakeTaskInstance(run_id="first"))
    (outbound / "a.csv").rename(outbound / "b.csv")
    _write(outbound, c=b"other", z=b"same")
    forced = FakeTaskInstance(run_id="second", max_tries=2)
    if lost:
        amili_sandbox.faults.add("upload", **LOST)
    amili_sandbox.faults.add("upload", nth=1 if lost else 2, times=3, status=429, headers={"Retry-After": "0"})
    for forced.try_number in (1, 2):
        with contextlib.suppress(AmiliError):
            upload(forced, force=True, if_duplicate=if_duplicate, max_concurrent_requests=1)
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}


@pytest.mark.parametrize("way", ["request", "run"])
def test_what_arrived_has_the_name_with_which_it_was_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, way: str
) -> None:
    """Of two lost attempts under two names a person names one; the other name is unknown until they name it, too."""
    amili_sandbox.knows_uploads = False
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", times=2, **LOST)
    with pytest.raises(AmiliOutcomeUnknown) as monday:
        upload(FakeTaskInstance(run_id="monday"))
    (outbound / "a.csv").rename(outbound / "b.csv")
    with pytest.raises(AmiliOutcomeUnknown) as tuesday:
        upload(FakeTaskInstance(run_id="tuesday"), if_unknown="resend")
    (receipt,), (second,) = monday.value.receipts, tuesday.value.receipts
    with pytest.raises(ValueError, match=r"sent as 'a.csv' with request .* and as 'b.csv' with request .* its request"):
        Desk().settle("Ola", "asked by mail", arrived=True, file_ids=[receipt["file_id"]])
    said: dict[str, Any] = {"request": receipt["request"]} if way == "request" else {"run": "dag1/monday"}
    Desk().settle("Ola", "asked by mail", arrived=True, **said)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="wednesday"))
    said = {"request": second["request"]} if way == "request" else {"run": "dag1/tuesday"}
    Desk().settle("Ola", "asked by mail", arrived=False, **said)
    with pytest.raises(AmiliDuplicateFiles):
        upload(FakeTaskInstance(run_id="wednesday"))
    (outbound / "b.csv").rename(outbound / "a.csv")
    assert set(_outcomes(upload(FakeTaskInstance(run_id="thursday"))).values()) == {"already_uploaded"}


def test_a_result_is_not_believed_of_bytes_that_were_sent_under_two_names(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Amili knows both by one id, so its acceptance says of neither name that it was that one."""
    amili_sandbox.knows_uploads = False
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", times=2, **LOST)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="monday"))
    (outbound / "a.csv").rename(outbound / "b.csv")
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="tuesday"), if_unknown="resend")
    amili_sandbox.knows_uploads = True
    amili_sandbox.results.set("*", KNOWN)
    with pytest.raises(AmiliOutcomeUnknown) as asked:
        upload(FakeTaskInstance(run_id="wednesday"), if_unknown="check")
    assert "does not tell whether it arrived as 'a.csv' or 'b.csv'" in asked.value.receipts[0]["message"]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_person_settles_what_force_sent_again_without_an_answer(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, arrived: bool
) -> None:
    """It may have arrived twice, so it is listed although Amili has the file; then the retry goes by what was said."""
    _write(outbound, a=b"one")
    upload(FakeTaskInstance(run_id="first"))
    amili_sandbox.faults.add("upload", **(LOST if arrived else UNHEARD))
    forced = FakeTaskInstance(run_id="second", max_tries=2)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(forced, force=True)
    (listed,) = Desk().unknown()
    assert (listed["name"], listed["run_id"]) == ("a.csv", "second")
    (settled,) = Desk().settle("Ola", "asked by mail", arrived=arrived, file_ids=[listed["file_id"]])
    assert settled["note"] == "settled now"
    assert Desk().unknown() == []
    assert set(_outcomes(upload(forced, force=True)).values()) == {"already_uploaded" if arrived else "uploaded"}
    assert _accepted(amili_sandbox) == {"a.csv": 2}
    assert set(_outcomes(upload()).values()) == {"already_uploaded"}


KNOWN = Step("PROCESSED", "CREATED", "File uploaded")
REFUSED = Step("FAILED", "REJECTED", "No such debtor")


@pytest.mark.parametrize(
    ("said", "check", "resend"),
    [
        (KNOWN, "already_uploaded", "already_uploaded"),
        (REFUSED, "rejected", "rejected"),
        (Step("QUEUED", None, "File is queued"), "unknown", "unknown"),
        (Step("ARRIVED", "NOTED", "words that nobody knows"), "unknown", "unknown"),
        (Step("PROCESSED", None, "half the words"), "unknown", "unknown"),
        (Step(http=404), "unknown", SENT),
        (Step(http=403), "unknown", "unknown"),
        (Step(http=500), "unknown", "unknown"),
        (Step(http=503), "unknown", "unknown"),
        (Step(http=202), "unknown", "unknown"),
        (Step(http=204), "unknown", "unknown"),
        (Step(http=400), "unknown", "unknown"),
        (Step(http=409), "unknown", "unknown"),
        (Step(http=410), "unknown", "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.http}-{value.status}-{value.result}",
)
@pytest.mark.parametrize("if_unknown", ["check", "resend"])
def test_what_is_known_later_settles_what_was_unknown(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, said: Step, check: str, resend: str, if_unknown: str
) -> None:  # fmt: skip
    """Positive evidence settles; nothing else does; 'check' never sends, 'resend' only what is answered with 404."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **UNHEARD)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="first"))
    amili_sandbox.results.set("*", said)
    expected = check if if_unknown == "check" else resend
    ti = FakeTaskInstance(run_id="second")
    kind = {"rejected": AmiliUploadRejected, "unknown": AmiliOutcomeUnknown}.get(expected)
    if kind is None:
        receipts = upload(ti, if_unknown=if_unknown)
    else:
        with pytest.raises(kind):
            upload(ti, if_unknown=if_unknown)
        receipts = ti.pushed["return_value"]
    assert [r["outcome"] for r in receipts] == ["uploaded" if expected == SENT else expected]
    assert _posts(amili_sandbox) == (2 if expected == SENT else 1)
    if expected in (SENT, "already_uploaded"):
        # Settled for good: nobody has to ask again.
        asked = amili_sandbox.count("result")
        assert _outcomes(upload(FakeTaskInstance(run_id="third"))) == {"a.csv": "already_uploaded"}
        assert amili_sandbox.count("result") == asked


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404, "garbage": "html"},
        {"status": 404, "body": ""},
        {"status": 404, "body": {"files": [{"fileId": "another", "status": "PROCESSED", "result": "CREATED"}]}},
        {"status": 404, "body": {"status": "PROCESSING"}},
        {"status": 404, "body": {"fileId": "<it>", "status": "ARCHIVED", "result": "DONE"}},
        {"status": 404, "body": {"data": {"fileId": "<it>"}}},
        {
            "status": 200,
            "body": {"status": "FAILED", "files": [{"fileId": "<it>", "status": "PROCESSED", "result": "CREATED"}]},
        },
        {"status": 302, "headers": {"Location": "/log-in"}},
        {"status": 200, "garbage": "html"},
        {"status": 200, "body": []},
        {"status": 200, "body": {"files": []}},
        {"status": 200, "body": {"files": [{"fileId": "another", "status": "PROCESSED", "result": "CREATED"}]}},
        {"status": 202, "body": {"status": "PROCESSING"}},
    ],
    ids=str,
)
def test_nothing_but_amilis_own_404_has_a_file_sent_again(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, fault: dict[str, Any]
) -> None:
    """A gateway's 404, and an answer that is silent about the file or about another one, say nothing of it."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **LOST)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="first"))
    file_id = amili_sandbox.uploads[0].file_id
    amili_sandbox.faults.add("result", times=None, **json.loads(json.dumps(fault).replace("<it>", file_id)))
    for if_unknown in ("check", "resend"):
        with pytest.raises(AmiliOutcomeUnknown, match="Sent before, outcome unknown. Asked now"):
            upload(FakeTaskInstance(run_id=f"to {if_unknown}"), if_unknown=if_unknown)
    assert _posts(amili_sandbox) == 1


@pytest.mark.parametrize("if_unknown", ["check", "resend"])
def test_a_refusal_that_an_earlier_attempt_had_settles_nothing(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, if_unknown: str
) -> None:
    """Refused, corrected at Amili, accepted with the answer lost: Amili may still tell the first answer."""
    _write(outbound, a=b"one")
    amili_sandbox.rules.refuse_name("a.csv", "No such debtor")
    with pytest.raises(AmiliUploadRejected):
        upload(FakeTaskInstance(run_id="first"))
    amili_sandbox.rules.refused_names.clear()
    amili_sandbox.faults.add("upload", **LOST)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="second"))
    amili_sandbox.results.set("*", REFUSED)
    with pytest.raises(AmiliOutcomeUnknown, match="FAILED/REJECTED, which may be about an earlier attempt"):
        upload(FakeTaskInstance(run_id="third"), if_unknown=if_unknown)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="fourth"))
    assert _accepted(amili_sandbox) == {"a.csv": 1}
    amili_sandbox.results.set("*", KNOWN)
    assert _outcomes(upload(FakeTaskInstance(run_id="fifth"), if_unknown=if_unknown)) == {"a.csv": "already_uploaded"}


def test_a_refusal_of_one_of_two_attempts_settles_neither(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Sent twice by a person's word, both answers lost: a refusal may be that of either."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", times=2, **LOST)
    for arguments in ({}, {"force": True}):
        with pytest.raises(AmiliOutcomeUnknown):
            upload(FakeTaskInstance(run_id=f"with {arguments}"), **arguments)
    amili_sandbox.results.set("*", REFUSED)
    with pytest.raises(AmiliOutcomeUnknown, match="may be about an earlier attempt"):
        upload(FakeTaskInstance(run_id="to check"), if_unknown="check")


def test_resend_does_not_resend_what_amili_knows(
    upload: Upload, connect: Callable[..., SandboxServer], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """One of two requests arrived although both answers were lost: only the other is sent."""
    connect(max_files_per_request=1)
    _write(outbound, a=b"one", b=b"two")
    amili_sandbox.faults.add("upload", **LOST)
    amili_sandbox.faults.add("upload", **UNHEARD)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="first"), max_concurrent_requests=1)
    receipts = upload(FakeTaskInstance(run_id="second"), if_unknown="resend")
    assert sorted(_outcomes(receipts).values()) == ["already_uploaded", "uploaded"]
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1}


def test_the_retry_of_a_resend_does_not_resend(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """The user said it once: what this chain sent with an unknown outcome waits for the next word."""
    amili_sandbox.knows_uploads = False
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", times=2, **LOST)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="first"))
    second = FakeTaskInstance(run_id="second", max_tries=3)
    for _ in range(3):
        with pytest.raises(AmiliOutcomeUnknown):
            upload(second, if_unknown="resend")
    assert _accepted(amili_sandbox) == {"a.csv": 2}


def test_an_endpoint_that_cannot_be_asked_is_not_an_answer(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Neither way sends; the message says why nothing is known."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **LOST)
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="first"))
    for drop in ("reset", "close"):
        amili_sandbox.faults.add("result", times=None, drop=drop)
        for if_unknown in ("check", "resend"):
            with pytest.raises(AmiliOutcomeUnknown, match="Asked now: Amili could not be asked"):
                upload(FakeTaskInstance(run_id=f"{drop} {if_unknown}"), if_unknown=if_unknown)
        amili_sandbox.faults.clear()
    assert _posts(amili_sandbox) == 1


def test_many_threads_meet_the_same_files_and_one_sends(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have looked up before any has claimed; the others find it delivered, or in flight and may retry."""
    _write(outbound, a=b"one", b=b"two", c=b"three")
    threads = 6
    barrier, first = threading.Barrier(threads), threading.Lock()
    arrived: set[str] = set()
    look_up = Ledger.look_up

    def look_up_together(ledger: Ledger, file_ids: Any, *, chain: str | None = None, **more: Any) -> Any:
        histories = look_up(ledger, file_ids, chain=chain, **more)
        with first:
            waits = chain is not None and chain not in arrived
            arrived.add(chain or "")
        if waits:
            barrier.wait(30)
        return histories

    monkeypatch.setattr(Ledger, "look_up", look_up_together)
    receipts: list[list[dict[str, Any]]] = []

    def run(number: int) -> None:
        ti = FakeTaskInstance(run_id=f"run{number}")
        try:
            receipts.append(upload(ti))
        except AmiliDeliveryIncomplete:
            receipts.append(ti.pushed["return_value"])

    workers = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(receipts) == threads
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}
    for name in ("a.csv", "b.csv", "c.csv"):
        outcomes = Counter(_outcomes(r)[name] for r in receipts)
        assert outcomes["uploaded"] == 1
        assert set(outcomes) <= {"uploaded", "already_uploaded", "not_sent"}
    monkeypatch.setattr(Ledger, "look_up", look_up)
    assert set(_outcomes(upload()).values()) == {"already_uploaded"}


@pytest.mark.parametrize("arguments", [{}, {"if_unknown": "resend"}, {"if_unknown": "check"}, {"force": True}], ids=str)
def test_a_live_claim_of_somebody_else_is_respected_whatever_was_asked(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, arguments: dict[str, Any]
) -> None:
    """In flight elsewhere: not sent, retryable; the message says who has it."""
    _write(outbound, a=b"one")
    with a_run_that_has_claimed(upload):
        with pytest.raises(AmiliDeliveryIncomplete, match=r"(?s)In flight elsewhere.*the first run"):
            upload(FakeTaskInstance(run_id="second"), **arguments)
        assert not amili_sandbox.uploads
    assert _accepted(amili_sandbox) == {"a.csv": 1}


def test_an_attempt_changed_by_hand_is_unknown_for_its_file_only(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path
) -> None:
    """It blocks one file and names itself; the others are as they were; resend asks and finds it."""
    _write(outbound, a=b"one", b=b"two")
    upload()
    run_sql(new_ledger(tmp_path), "UPDATE amili_attempts SET outcome = 'sent' WHERE name = 'a.csv'")
    ti = FakeTaskInstance(run_id="second")
    with pytest.raises(AmiliOutcomeUnknown, match=r"a\.csv.*cannot be read"):
        upload(ti)
    assert _outcomes(ti.pushed["return_value"]) == {"a.csv": "unknown", "b.csv": "already_uploaded"}
    assert set(_outcomes(upload(FakeTaskInstance(run_id="third"), if_unknown="resend")).values()) == {
        "already_uploaded"
    }
    assert _posts(amili_sandbox) == 1


def test_a_receipt_says_to_a_person_what_was_delivered_when_and_by_whom(
    upload: Upload, outbound: Path, tmp_path: Path
) -> None:
    """An accounting trail: client, environment, file, hash, time, run, and Amili's words."""
    _write(outbound, a=b"one")
    (receipt,) = upload(FakeTaskInstance(run_id="scheduled__2025-03-01"))
    (attempt,) = attempts_in(new_ledger(tmp_path))
    written = attempt.as_dict()
    for name in (
        "file_id",
        "client_no",
        "file_type",
        "name",
        "source",
        "size",
        "sha256",
        "status",
        "result",
        "message",
    ):
        assert written[name] == receipt[name]
    assert written["outcome"] == "uploaded"
    assert written["environment"].startswith("127.0.0.1:")
    assert (written["dag_id"], written["run_id"], written["task_id"]) == ("dag1", "scheduled__2025-03-01", "upload")
    assert written["claimed_at"] <= written["settled_at"]


def test_an_outcome_that_the_ledger_cannot_be_told_is_never_green(
    upload: Upload,
    connect: Callable[..., SandboxServer],
    outbound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Accepted, but not written down: the task fails for good, sends and moves nothing more, and says the way on."""
    amili_sandbox = connect(max_files_per_request=1)
    _write(outbound, a=b"one", b=b"two", c=b"three")
    monkeypatch.setattr("amili_provider.ledger.ledger.SETTLE_SECONDS", 0.0)
    ti = FakeTaskInstance(run_id="first")
    (tmp_path / "archive").mkdir()
    words = r"(?s)not delivered.*ledger.*was not told.*amili_ledger.*not written to the ledger.*[abc]\.csv"
    with taking_no_outcome(new_ledger(tmp_path)), pytest.raises(AmiliOutcomeUnknown, match=words):
        upload(ti, max_concurrent_requests=1, archive_to=f"{tmp_path}/archive/")
    outcomes = Counter(_outcomes(ti.pushed["return_value"]).values())
    assert outcomes == {"uploaded": 1, "not_sent": 2}
    assert _posts(amili_sandbox) == 1
    assert len(list(outbound.iterdir())) == 3
    with pytest.raises(AmiliDeliveryIncomplete, match="In flight elsewhere"):
        upload(FakeTaskInstance(run_id="second"))
    assert Counter(_accepted(amili_sandbox).values()) == {1: 3}


def test_one_file_accepted_and_not_written_down_fails_the_task(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every file was accepted: the next run will call it unknown, so this one is not green."""
    _write(outbound, a=b"one")
    monkeypatch.setattr("amili_provider.ledger.ledger.SETTLE_SECONDS", 0.0)
    ti = FakeTaskInstance(run_id="first")
    words = r"(?s)1 file\(s\): 1 uploaded.*delivered, but not written to the ledger.*a\.csv"
    with taking_no_outcome(new_ledger(tmp_path)), pytest.raises(AmiliOutcomeUnknown, match=words):
        upload(ti)
    assert _outcomes(ti.pushed["return_value"]) == {"a.csv": "uploaded"}
    assert len(amili_sandbox.uploads) == 1
