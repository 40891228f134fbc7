"""A task that asks a person about unknown files (``if_unknown="ask"``), with Airflow's side played by the test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_3_PLUS

from amili_provider.command.desk import Desk
from amili_provider.delivery import run
from amili_provider.exceptions import (
    AmiliArgumentError,
    AmiliDeliveryIncomplete,
    AmiliError,
    AmiliLedgerUnavailable,
    AmiliOutcomeUnknown,
    AmiliPermanentError,
    AmiliStorageError,
    AmiliUploadRejected,
)
from amili_provider.operators import amili as amili_operator
from amili_provider.operators import asking as asking_module
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.question import HAS_THEM, LEAVE_UNKNOWN, OPTIONS, SEND_AGAIN
from amili_provider.sandbox.server import SandboxServer
from amili_provider.storage import reading
from tests.ledgers import attempts_in
from tests.wire.conftest import FakeTaskInstance

KARI = {"id": "k.nordmann", "name": "Kari"}
LOST = {"drop": "reset", "stage": "accepted"}
UNHEARD = {"drop": "reset", "stage": "body"}
can_ask = pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow before 3.1 asks nobody")


class Task:
    """One run of an upload task: Airflow starts it, keeps its question, and goes on with it after an answer."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = {"file_type": "InvoiciaFormatDocFile", "if_unknown": "ask", **arguments}
        self.ti = FakeTaskInstance()
        self.questions: list[dict[str, Any]] = []
        self.paused: BaseException | None = None
        self.kept = "{}"

    def begin(self) -> Any:
        """Run it; return the receipts, or None if it asks."""
        return self._run(lambda task: task.execute({"ti": self.ti}))

    def answer(self, option: str, reason: str | None = "seen in the portal", user: Any = KARI) -> Any:
        """Answer the question, in another process as it were; return the receipts, or None if it asks again."""
        event = {
            "chosen_options": [option],
            "params_input": {"reason": reason},
            "responded_at": datetime.now(UTC),
            "responded_by_user": user,
            "timedout": user is None,
        }
        return self.go_on(event)

    def go_on(self, event: dict[str, Any]) -> Any:
        """Go on with an event of Airflow's."""
        return self._run(lambda task: task.execute_complete({"ti": self.ti}, event=event, **json.loads(self.kept)))

    def clear(self) -> None:
        """Have Airflow begin another try, with nothing of the first."""
        self.ti = FakeTaskInstance(max_tries=self.ti.max_tries + 1, try_number=self.ti.try_number + 1)

    def _run(self, step: Callable[[Any], Any]) -> Any:
        self.paused = None
        try:
            receipts = step(AmiliFileUploadOperator(task_id="upload", **self._arguments))
        except BaseException as pause:
            if type(pause).__name__ not in {"TaskAwaitingInput", "TaskDeferred"}:
                raise
            self.paused = pause
            self.kept = json.dumps(pause.kwargs)  # type: ignore[attr-defined]
            return None
        return receipts

    @property
    def published(self) -> dict[str, str]:
        """The outcomes of the receipts that stand in XCom."""
        return _outcomes(self.ti.pushed["return_value"])


@pytest.fixture(name="task")
def _task(
    connect: Callable[..., SandboxServer], outbound: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Task]:
    """Make tasks over the outbound folder, one file a request; what they ask goes to them and not to Airflow."""
    connect(max_files_per_request=1)

    def make(**arguments: Any) -> Task:
        task = Task({"source": f"{outbound}/*", "max_concurrent_requests": 1, **arguments})
        if AIRFLOW_V_3_1_PLUS:
            monkeypatch.setattr(
                "airflow.sdk.execution_time.hitl.upsert_hitl_detail", lambda **asked: task.questions.append(asked)
            )
        return task

    return make


def _write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / f"{name}.csv").write_bytes(data)


def _accepted(amili: SandboxServer) -> dict[str, int]:
    return dict(Counter(u.name for u in amili.uploads))


def _outcomes(receipts: list[dict[str, Any]]) -> dict[str, str]:
    return {r["name"]: r["outcome"] for r in receipts}


def _three(outbound: Path, amili: SandboxServer, **fault: Any) -> None:
    """Let the answer about the first of three files be lost; those of one size are sent in their order."""
    _write(outbound, a=b"one", b=b"two", c=b"six")
    amili.faults.add("upload", **(fault or LOST))


@can_ask
@pytest.mark.parametrize("deferred", [False, True], ids=["as it is here", "by deferral"])
def test_the_others_are_delivered_and_then_a_person_is_asked(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, deferred: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is asked, of whom, and until when is as Airflow's own operators do it, without a default answer."""
    if deferred:
        monkeypatch.setattr(asking_module, "AIRFLOW_V_3_3_PLUS", False)
    _three(outbound, amili_sandbox)
    asks = task(assigned_users=[KARI], response_timeout=timedelta(hours=8))
    assert asks.begin() is None
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}
    assert asks.published == {"a.csv": "unknown", "b.csv": "uploaded", "c.csv": "uploaded"}
    (asked,) = asks.questions
    assert (asked["ti_id"], asked["options"], asked["assigned_users"]) == (asks.ti.id, list(OPTIONS), [KARI])
    assert (asked["defaults"], asked["multiple"]) == (None, False)
    assert set(asked["params"]) == {"reason"}
    assert "a.csv" in asked["body"].replace("\\", "")
    assert "b.csv" not in asked["body"]
    if AIRFLOW_V_3_3_PLUS and not deferred:
        assert type(asks.paused).__name__ == "TaskAwaitingInput"
        assert asks.paused.timeout == timedelta(hours=8)  # type: ignore[union-attr]
    else:
        trigger = asks.paused.trigger  # type: ignore[union-attr]
        assert (trigger.ti_id, trigger.options, trigger.defaults) == (asks.ti.id, list(OPTIONS), None)
        assert timedelta(hours=7) < trigger.timeout_datetime - datetime.now(UTC) < timedelta(hours=9)
        json.dumps(trigger.serialize(), default=str)


@can_ask
def test_what_amili_has_counts_as_delivered_and_is_archived(
    task: Callable[..., Task], outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """The task ends as if it had known: green, every file has its receipt, and nothing is sent again."""
    _three(outbound, amili_sandbox)
    asks = task(archive_to=f"{tmp_path}/archive/")
    asks.begin()
    receipts = asks.answer(HAS_THEM)
    assert _outcomes(receipts) == {"a.csv": "already_uploaded", "b.csv": "uploaded", "c.csv": "uploaded"}
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}
    assert sorted(p.name for p in (tmp_path / "archive").iterdir()) == ["a.csv", "b.csv", "c.csv"]
    first = next(r for r in receipts if r["name"] == "b.csv")
    assert first["request"]
    assert first["uploaded_at"]
    assert first["message"].startswith("File uploaded. Moved to")


@can_ask
def test_what_amili_does_not_have_is_sent_in_the_same_try(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Only that file is sent again, and the receipts of the first part stay as they were."""
    _three(outbound, amili_sandbox, **UNHEARD)
    asks = task()
    asks.begin()
    before = {r["name"]: r for r in asks.ti.pushed["return_value"]}
    assert _accepted(amili_sandbox) == {"b.csv": 1, "c.csv": 1}
    receipts = {r["name"]: r for r in asks.answer(SEND_AGAIN)}
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}
    assert {r["outcome"] for r in receipts.values()} == {"uploaded"}
    assert (receipts["b.csv"], receipts["c.csv"]) == (before["b.csv"], before["c.csv"])


@can_ask
def test_the_ledger_says_who_settled_and_why(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path
) -> None:
    """The person's name, login and reason stand in an attempt of its own, with the run in which they said it."""
    _three(outbound, amili_sandbox)
    asks = task()
    asks.begin()
    asks.answer(HAS_THEM, "line 4 of\nthe portal")
    (settled,) = [a for a in attempts_in(f"sqlite:///{tmp_path}/amili-ledger.db") if a.origin == "person"]
    assert settled.settled_by == "Kari (Airflow user k.nordmann)"
    assert (settled.reason, settled.resolves) == ("line 4 of the portal", (1,))
    assert (settled.dag_id, settled.run_id, settled.task_id) == ("dag1", "run1", "upload")


@can_ask
def test_a_reason_shows_no_national_id(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path
) -> None:
    """The ledger keeps reasons for years, so an id that a person typed is masked before it is written."""
    _three(outbound, amili_sandbox)
    asks = task()
    asks.begin()
    asks.answer(HAS_THEM, "asked by debtor 010170 12345")
    (settled,) = [a for a in attempts_in(f"sqlite:///{tmp_path}/amili-ledger.db") if a.origin == "person"]
    assert settled.reason == f"asked by debtor {'*' * 11}"


@can_ask
@pytest.mark.parametrize(("option", "fault"), [(HAS_THEM, LOST), (SEND_AGAIN, UNHEARD)])
def test_force_counts_until_the_question_and_not_after_the_answer(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, option: str, fault: dict[str, Any]
) -> None:
    """What was sent by force before the question is not sent by force again when the task goes on."""
    _write(outbound, a=b"one", b=b"two", c=b"six")
    earlier = task()
    earlier.ti = FakeTaskInstance(run_id="an earlier run")
    earlier.begin()
    amili_sandbox.faults.add("upload", **fault)
    asks = task(force=True)
    assert asks.begin() is None
    asks.answer(option)
    assert _accepted_of(amili_sandbox) == {"a.csv": 2, "b.csv": 2, "c.csv": 2}


@can_ask
@pytest.mark.parametrize("reason", ["", "  \n ", None])
def test_without_a_reason_nothing_is_settled_and_the_question_is_asked_again(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, reason: str | None
) -> None:
    """An accounting trail without a reason is none; the next answer counts."""
    _three(outbound, amili_sandbox)
    asks = task()
    asks.begin()
    assert asks.answer(HAS_THEM, reason) is None
    assert not [a for a in attempts_in(f"sqlite:///{tmp_path}/amili-ledger.db") if a.origin == "person"]
    assert asks.questions[0]["body"] == asks.questions[1]["body"]
    assert _outcomes(asks.answer(HAS_THEM))["a.csv"] == "already_uploaded"


@can_ask
@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"error": "The timeout has passed", "error_type": "timeout"}, "No answer came within 8:00:00"),
        ({"error": "no such <reason>", "error_type": "validation"}, "cannot be taken (no such <reason>)"),
        ({"chosen_options": [LEAVE_UNKNOWN], "params_input": {}, "responded_by_user": KARI}, "Kari answered: Leave"),
        ({"chosen_options": [HAS_THEM], "params_input": {"reason": "x"}, "responded_by_user": None}, "no person"),
        ({"chosen_options": [HAS_THEM, SEND_AGAIN], "params_input": {"reason": "x"}, "responded_by_user": KARI}, ""),
    ],
    ids=["time-out", "invalid", "left unknown", "nobody's", "two answers"],
)
def test_without_a_clear_answer_the_task_fails_as_it_would_have(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, event: dict[str, Any], words: str
) -> None:
    """Red, in the words of an unknown outcome, after a word on the answer; the receipts stay, nothing is settled."""
    _three(outbound, amili_sandbox)
    asks = task(response_timeout=timedelta(hours=8))
    asks.begin()
    published = asks.ti.pushed["return_value"]
    with pytest.raises(AmiliOutcomeUnknown) as failed:
        asks.go_on(event)
    assert words in str(failed.value).splitlines()[0]
    assert "1 of 3 file(s) not delivered to Amili: 1 unknown, 2 uploaded" in str(failed.value)
    assert [r["name"] for r in failed.value.receipts] == ["a.csv"]
    assert asks.ti.pushed["return_value"] == published
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}


@can_ask
def test_what_earlier_runs_left_unknown_is_asked_about_too(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Found in the ledger before anything was sent: the question names the request and the run that sent it."""
    _three(outbound, amili_sandbox)
    with pytest.raises(AmiliOutcomeUnknown) as lost:
        task(if_unknown="fail").begin()
    asks = task()
    asks.begin()
    assert asks.published == {"a.csv": "unknown", "b.csv": "already_uploaded", "c.csv": "already_uploaded"}
    body = asks.questions[0]["body"].replace("\\", "")
    assert lost.value.receipts[0]["request"] in body
    assert "DAG dag1, run run1" in body
    assert set(_outcomes(asks.answer(HAS_THEM)).values()) == {"already_uploaded"}


@can_ask
def test_a_task_that_is_cleared_while_it_waits_asks_anew(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Another try knows nothing of the first one's question, and asks about the same files."""
    _three(outbound, amili_sandbox)
    asks = task()
    asks.begin()
    asks.clear()
    asks.begin()
    assert [q["ti_id"] == asks.ti.id for q in asks.questions] == [False, True]
    assert _outcomes(asks.answer(HAS_THEM))["a.csv"] == "already_uploaded"


@can_ask
def test_a_task_that_dies_after_the_answer_was_settled_needs_no_second_one(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the ledger and the upload: the next try finds the answer in the ledger, and asks nothing."""
    _three(outbound, amili_sandbox, **UNHEARD)
    asks = task()
    asks.begin()

    def die(name: str) -> None:
        if name == "resolved":
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("amili_provider.fault_points.reached", die)
        with pytest.raises(KeyboardInterrupt):
            asks.answer(SEND_AGAIN)
    asks.clear()
    assert _outcomes(asks.begin()) == {"a.csv": "uploaded", "b.csv": "already_uploaded", "c.csv": "already_uploaded"}
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}


@can_ask
@pytest.mark.parametrize(("settled", "answer"), [(True, HAS_THEM), (False, SEND_AGAIN)])
def test_an_answer_that_was_given_by_command_meanwhile_changes_nothing(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, settled: bool, answer: str
) -> None:
    """Two people say the same: the task goes on as either would have it."""
    _three(outbound, amili_sandbox, **(LOST if settled else UNHEARD))
    asks = task()
    asks.begin()
    Desk().settle("Ola", "asked by mail", arrived=settled, file_ids=json.loads(asks.kept)["file_ids"])
    receipts = asks.answer(answer)
    assert _outcomes(receipts)["a.csv"] == ("already_uploaded" if settled else "uploaded")
    assert _accepted(amili_sandbox) == {"a.csv": 1, "b.csv": 1, "c.csv": 1}


@can_ask
@pytest.mark.parametrize(("settled", "answer"), [(True, SEND_AGAIN), (False, HAS_THEM)])
def test_an_answer_that_contradicts_the_ledger_settles_and_sends_nothing(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, settled: bool, answer: str
) -> None:
    """Two people say different things about one of two files: all or nothing, red, and nothing is sent."""
    _three(outbound, amili_sandbox, **UNHEARD, times=2)
    asks = task(source=[f"{outbound}/a.csv", f"{outbound}/b.csv"])
    asks.begin()
    first, second = json.loads(asks.kept)["file_ids"]
    Desk().settle("Ola", "asked by mail", arrived=settled, file_ids=[first])
    with pytest.raises(AmiliOutcomeUnknown, match="The ledger says otherwise by now") as failed:
        asks.answer(answer)
    assert "1 of 2 file(s) cannot be" in str(failed.value)
    assert second in {row["file_id"] for row in Desk().unknown()}
    assert _accepted(amili_sandbox) == {}


@can_ask
def test_of_two_tasks_that_ask_about_one_file_the_second_goes_by_the_first(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The same answer twice is one; "send again" after the file has been sent again sends nothing a second time."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **UNHEARD)
    first = task()
    first.begin()
    second = task()
    second.ti = FakeTaskInstance(run_id="another run")
    second.begin()
    assert _outcomes(first.answer(SEND_AGAIN)) == {"a.csv": "uploaded"}
    with pytest.raises(AmiliOutcomeUnknown, match="is known to be at Amili"):
        second.answer(SEND_AGAIN)
    assert _outcomes(second.answer(HAS_THEM)) == {"a.csv": "already_uploaded"}
    assert _accepted(amili_sandbox) == {"a.csv": 1}


@can_ask
def test_what_is_unknown_again_after_the_answer_is_not_asked_about_in_the_same_try(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The second try of a file is lost, too: red, with words on how to be asked anew."""
    _three(outbound, amili_sandbox, **UNHEARD)
    asks = task()
    asks.begin()
    amili_sandbox.faults.add("upload", **LOST)
    with pytest.raises(AmiliOutcomeUnknown, match="asked anew"):
        asks.answer(SEND_AGAIN)
    assert len(asks.questions) == 1


@can_ask
def test_refused_files_stay_and_keep_the_task_red_after_the_answer(
    task: Callable[..., Task], outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """An answer about one file does not make a task green in which Amili refused another; that moves at the end."""
    _write(outbound, a=b"accept: row 12", b=b"REJECT: row 14", c=b"accept: row 16")
    amili_sandbox.faults.add("upload", **LOST)
    asks = task(reject_to=f"{tmp_path}/refused/", archive_to=f"{tmp_path}/archive/")
    asks.begin()
    assert (outbound / "b.csv").exists()
    with pytest.raises(AmiliUploadRejected, match="row 14"):
        asks.answer(HAS_THEM)
    assert asks.published == {"a.csv": "already_uploaded", "b.csv": "rejected", "c.csv": "uploaded"}
    assert [p.name for p in (tmp_path / "refused").iterdir()] == ["b.csv"]


@can_ask
@pytest.mark.parametrize(("answer", "outcome"), [(HAS_THEM, "already_uploaded"), (SEND_AGAIN, "not_sent")])
def test_a_file_that_is_gone_when_the_answer_comes_keeps_its_receipt(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, answer: str, outcome: str
) -> None:
    """Amili has it: green all the same; it is to be sent and cannot be: red, and not forgotten."""
    _three(outbound, amili_sandbox)
    asks = task(expect=["a.csv", "b.csv"], min_files=3)
    asks.begin()
    (outbound / "a.csv").unlink()
    if outcome == "not_sent":
        with pytest.raises(AmiliError, match="could not be sent"):
            asks.answer(answer)
        asks_outcomes = asks.published
    else:
        asks_outcomes = _outcomes(asks.answer(answer))
    assert asks_outcomes == {"a.csv": outcome, "b.csv": "uploaded", "c.csv": "uploaded"}


@can_ask
def test_while_airflow_tries_again_anyway_a_person_is_not_asked(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Files that a retry delivers come first; when no try is left, the question comes with what could not be tried."""
    _three(outbound, amili_sandbox)
    amili_sandbox.faults.add("upload", status=429, headers={"Retry-After": "600"})
    asks = task()
    asks.ti = FakeTaskInstance(max_tries=1, try_number=1)
    with pytest.raises(AmiliDeliveryIncomplete):
        asks.begin()
    assert asks.published == {"a.csv": "unknown", "b.csv": "not_sent", "c.csv": "not_sent"}
    amili_sandbox.faults.add("upload", status=429, headers={"Retry-After": "600"})
    asks.ti = FakeTaskInstance(max_tries=1, try_number=2)
    assert asks.begin() is None
    assert asks.published == {"a.csv": "unknown", "b.csv": "not_sent", "c.csv": "not_sent"}
    assert _outcomes(asks.answer(HAS_THEM)) == {"a.csv": "already_uploaded", "b.csv": "uploaded", "c.csv": "uploaded"}


@can_ask
def test_a_ledger_that_is_away_when_the_answer_comes_is_retried(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Nothing is settled, nothing is sent, and the next try asks again."""
    _three(outbound, amili_sandbox, **UNHEARD)
    asks = task()
    asks.begin()
    ledger = tmp_path / "amili-ledger.db"
    ledger.rename(tmp_path / "away.db")
    with pytest.raises(AmiliLedgerUnavailable):
        asks.answer(SEND_AGAIN)
    (tmp_path / "away.db").rename(ledger)
    assert _accepted(amili_sandbox) == {"b.csv": 1, "c.csv": 1}


@can_ask
def test_hundreds_of_odd_names_are_one_short_question_that_shows_them_as_they_are(
    task: Callable[..., Task], connect: Callable[..., SandboxServer], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A row per request with the first names; no name makes a column, a link or a tag; what is kept is ids alone."""
    connect(max_files_per_request=300)
    odd = "a|b<img src=x>[k](http:www.e.no)`*_.csv"
    for number in range(300):
        (outbound / (odd if not number else f"n{number}.csv")).write_text(str(number), "utf-8")
    amili_sandbox.faults.add("upload", **LOST)
    asks = task()
    asks.begin()
    body = asks.questions[0]["body"]
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)
    assert "300 files" in rows[2]
    assert "and 295 more" in rows[2]
    assert r"a\|b\<img src=x\>\[k\]\(http\:www\.e.no\)\`\*\_.csv" in rows[2]
    assert len(body) < 2_000
    assert set(json.loads(asks.kept)) == {"file_ids"}
    assert len(asks.kept) < 300 * 45


@can_ask
def test_a_dry_run_asks_nothing(task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer) -> None:
    """A dry run says that a file would be unknown, and ends as skipped."""
    _three(outbound, amili_sandbox)
    asks = task()
    asks.begin()
    from airflow.providers.common.compat.sdk import AirflowSkipException

    dry = task(dry_run=True)
    with pytest.raises(AirflowSkipException):
        dry.begin()
    assert not dry.questions


@can_ask
def test_an_outcome_that_the_ledger_could_not_be_told_is_not_asked_about(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A ledger that takes no outcome takes no answer: it has to be mended first."""
    from tests.ledgers import taking_no_outcome

    monkeypatch.setattr("amili_provider.ledger.ledger.SETTLE_SECONDS", 0)
    _three(outbound, amili_sandbox)
    asks = task()
    with taking_no_outcome(f"sqlite:///{tmp_path}/amili-ledger.db"), pytest.raises(AmiliOutcomeUnknown, match="Mend"):
        asks.begin()
    assert not asks.questions


def test_before_airflow_3_1_the_task_fails_and_says_why(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Where Airflow has no required actions it is as with ``fail``, in the log and in the error."""
    monkeypatch.setattr(asking_module, "AIRFLOW_V_3_1_PLUS", False)
    _three(outbound, amili_sandbox)
    with pytest.raises(AmiliOutcomeUnknown, match="needs Airflow 3.1 or newer") as failed:
        task().begin()
    assert "1 of 3 file(s) not delivered" in str(failed.value)


def test_without_a_task_of_airflow_it_is_as_fail(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Called with an empty context there is no place for a question."""
    _three(outbound, amili_sandbox)
    operator = AmiliFileUploadOperator(
        task_id="upload", source=f"{outbound}/*", file_type="InvoiciaFormatDocFile", if_unknown="ask"
    )
    with pytest.raises(AmiliOutcomeUnknown, match="if_unknown='ask' needs"):
        operator.execute({})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ledger": None}, "if_unknown='ask' needs a ledger"),
        ({"response_timeout": 60}, "response_timeout must be a timedelta"),
        ({"response_timeout": timedelta(0)}, "response_timeout must be a timedelta"),
        ({"assigned_users": "kari"}, "assigned_users must be a list of users"),
        ({"assigned_users": []}, "assigned_users must be a list of users"),
        ({"assigned_users": [{"id": "kari"}]}, "assigned_users must be a list of users"),
    ],
)
def test_a_wrong_way_to_ask_is_found_before_anything_is_sent(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, wrong: dict[str, Any], words: str
) -> None:
    """Named with a remedy, no retry; Amili hears of nothing."""
    _write(outbound, a=b"one")
    with pytest.raises(AmiliArgumentError, match=words):
        task(**wrong).begin()
    assert not amili_sandbox.requests


def _accepted_of(sandbox: SandboxServer) -> Counter[str]:
    return Counter(upload.name for upload in sandbox.uploads)


@can_ask
@pytest.mark.parametrize("by", ["another question", "another run"])
def test_an_answer_is_about_what_was_asked_not_about_what_was_sent_since(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, by: str
) -> None:
    """A resend whose answer was lost is unknown by itself: "not there" was said of the attempt before it."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **UNHEARD)
    asks = task()
    asks.begin()
    other = task() if by == "another question" else task(if_unknown="resend")
    other.ti = FakeTaskInstance(run_id="another run")
    if by == "another question":
        other.begin()
    amili_sandbox.faults.add("upload", **LOST)
    with pytest.raises(AmiliOutcomeUnknown):
        other.answer(SEND_AGAIN) if by == "another question" else other.begin()
    assert _accepted_of(amili_sandbox) == {"a.csv": 1}
    with pytest.raises(AmiliOutcomeUnknown):
        asks.answer(SEND_AGAIN)
    assert _accepted_of(amili_sandbox) == {"a.csv": 1}


@can_ask
def test_an_answer_without_a_reason_does_not_stand_against_the_ledger(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Somebody has settled it otherwise meanwhile: nothing is sent, and both stories are told."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **LOST)
    asks = task()
    asks.begin()
    Desk().settle("Ola", "asked by mail", arrived=False, file_ids=list(json.loads(asks.kept)["file_ids"]))
    with pytest.raises(AmiliOutcomeUnknown, match="The ledger says otherwise by now"):
        asks.answer(HAS_THEM, "")
    assert _accepted_of(amili_sandbox) == {"a.csv": 1}


@can_ask
@pytest.mark.parametrize("xcom", [True, False])
def test_what_is_to_be_sent_again_and_is_gone_keeps_the_task_red(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, xcom: bool
) -> None:
    """Whether Airflow kept the receipts or not; a retry, which would not find it, is none."""
    _write(outbound, a=b"one", b=b"two")
    amili_sandbox.faults.add("upload", **UNHEARD)
    asks = task(do_xcom_push=xcom)
    asks.begin()
    (outbound / "a.csv").unlink()
    with pytest.raises(AmiliPermanentError, match="(?s)looked for by no later try.*a.csv"):
        asks.answer(SEND_AGAIN)
    assert _accepted_of(amili_sandbox) == {"b.csv": 1}


@can_ask
@pytest.mark.parametrize("chosen", [HAS_THEM, SEND_AGAIN])
def test_a_new_file_never_takes_over_a_receipt(
    task: Callable[..., Task],
    outbound: Path,
    amili_sandbox: SandboxServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: str,
) -> None:
    """It has the path of one that was delivered before the question, and cannot be read: it is not sent, and stays."""
    _three(outbound, amili_sandbox, **(LOST if chosen == HAS_THEM else UNHEARD))
    asks = task(archive_to=f"{tmp_path}/archive/")
    asks.begin()
    (outbound / "b.csv").write_bytes(b"the next day's, never sent")
    read = reading._read_local

    def fail(file: Any, path: str, *more: Any) -> Any:
        if path.endswith("b.csv"):
            raise AmiliStorageError("Cannot read it: input/output error")
        return read(file, path, *more)

    monkeypatch.setattr(reading, "_read_local", fail)
    with pytest.raises(AmiliError):
        asks.answer(chosen)
    assert (outbound / "b.csv").read_bytes() == b"the next day's, never sent"
    assert "not_sent" in [r["outcome"] for r in asks.ti.pushed["return_value"] if r["name"] == "b.csv"]


@can_ask
def test_an_answer_that_was_not_offered_is_nobodys_word(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is a reason that is none."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **LOST)
    asks = task()
    asks.begin()
    with pytest.raises(AmiliOutcomeUnknown, match="none of those offered"):
        asks.answer("Perhaps")


@can_ask
def test_stopped_before_the_second_part_has_listed_it_is_not_green(
    task: Callable[..., Task], outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person said of the first part's files says nothing of those that the second part has not looked for."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", **LOST)
    asking = task(expect=["a.csv", "must-come.csv"])
    assert asking.begin() is None

    def stopped(*_: Any, **__: Any) -> Any:
        raise amili_operator._Stopped

    monkeypatch.setattr(run, "list_files", stopped)
    with pytest.raises(AmiliDeliveryIncomplete, match="told to stop before it had listed the files"):
        asking.answer(HAS_THEM)
    assert asking.published == {"a.csv": "already_uploaded"}
