"""What the bench plays: each scenario says what its sensor is like, what happens, and what must come of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from amili_provider.operators import question
from amili_provider.operators.question import OPTIONS, SEND_AGAIN
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import attempts_in
from tests.suites.bench.airflow import Airflow, Run, until

FILES = 3
PERSON = ("kari", "a-password-of-this-bench-only")
_QUEUED_FOR_NOW = ("*", "queued")


@dataclass(frozen=True)
class Stage:
    """What a scenario plays on."""

    airflow: Airflow
    amili: SandboxServer
    run: Run
    ledger: str

    def deferred(self, polls: int = FILES) -> None:
        """Wait until the sensor waits in the triggerer, which has asked for everything once."""
        self.run.until("wait", "deferred")
        before = self.amili.count("result") + self.amili.count("batch")
        until("the triggerer asks", lambda: self.asked() >= before + polls, 120)

    def asked(self) -> int:
        """Return how many questions came."""
        return self.amili.count("result") + self.amili.count("batch")


@dataclass(frozen=True)
class Scenario:
    """
    A scenario.

    :param play: what happens, and the checks.
    :param sensor: arguments of the sensor, or of an upload without one.
    :param before: what Amili says from the beginning.
    :param fault: what happens to Amili's first request of a kind.
    """

    play: Callable[[Stage], None]
    sensor: dict[str, Any]
    before: tuple[str, ...] = _QUEUED_FOR_NOW
    fault: dict[str, Any] = field(default_factory=dict)


def _success(stage: Stage) -> None:
    """Upload, defer, resume, success."""
    stage.deferred()
    stage.amili.results.set("*", "queued", "created")
    assert stage.run.until("wait") == "success"
    _whole(stage)


def _at_once(stage: Stage) -> None:
    """What is final at the first question is never deferred."""
    assert stage.run.until("wait") == "success"
    _whole(stage)
    assert stage.asked() == FILES


def _refusal(stage: Stage) -> None:
    """A refusal, after deferral, fails for good and names every file."""
    stage.deferred()
    stage.amili.results.set("*", {"status": "FAILED", "result": "REJECTED", "message": "Line 7 has no amount"})
    assert stage.run.until("wait") == "failed"
    log = stage.run.log("wait")
    assert all(f"{number}.csv" in log for number in range(FILES))
    assert "Line 7 has no amount" in log


def _soft_fail(stage: Stage) -> None:
    """With soft_fail a time-out after deferral skips."""
    assert stage.run.until("wait") == "skipped"


def _time_out(stage: Stage) -> None:
    """The time is up: a sensor time-out, not retried, that says what is assumed."""
    assert stage.run.until("wait") == "failed"
    log = stage.run.log("wait")
    assert "AirflowSensorTimeout" in log
    assert "is an assumption" in log


def _killed_triggerer(stage: Stage) -> None:
    """The triggerer is killed in the middle of a wait, and another one goes on."""
    stage.deferred()
    stage.airflow.stop("triggerer", signal.SIGKILL)
    stage.amili.results.set("*", "queued", "created")
    time.sleep(3)
    quiet = stage.asked()
    time.sleep(3)
    assert stage.asked() == quiet, "nobody asks while there is no triggerer"
    stage.airflow.start("triggerer")
    assert stage.run.until("wait") == "success"
    _whole(stage)


def _expired_token(stage: Stage) -> None:
    """Every token expires in the middle of a wait; the trigger mints another."""
    stage.deferred()
    minted = stage.amili.tokens.minted
    stage.amili.tokens.expire_all()
    until("a new token", lambda: stage.amili.tokens.minted > minted, 60)
    stage.amili.results.set("*", "created")
    assert stage.run.until("wait") == "success"
    _whole(stage)


def _outage(stage: Stage) -> None:
    """Amili is away for a while in the middle of a wait."""
    stage.deferred()
    stage.amili.stop()
    time.sleep(5)
    stage.amili.results.set("*", "queued", "created")
    stage.amili.start()
    assert stage.run.until("wait") == "success"
    _whole(stage)


def _lasting_outage(stage: Stage) -> None:
    """Amili is away for good: the wait ends with an error that Airflow retries, and fails by itself."""
    stage.deferred()
    stage.amili.faults.add("result", times=None, status=503)
    assert stage.run.until("wait", seconds=300) == "failed"
    assert "10 attempts in a row" in stage.run.log("wait")


def _forbidden(stage: Stage) -> None:
    """A 403 in the middle of a wait ends it after one question per worker at most."""
    stage.deferred()
    fault = stage.amili.faults.add("result", times=None, status=403)
    assert stage.run.until("wait") == "failed"
    assert fault.hits <= FILES
    assert "AmiliAuthenticationError" in stage.run.log("wait")


def _poke(stage: Stage) -> None:
    """Poke mode, on a worker."""
    until("the worker asks", lambda: stage.asked() >= 2 * FILES, 180)
    stage.amili.results.set("*", "created")
    assert stage.run.until("wait") == "success"
    _whole(stage)


def _reschedule(stage: Stage) -> None:
    """Reschedule mode: the worker's slot is free between the pokes."""
    stage.run.until("wait", "up_for_reschedule")
    stage.amili.results.set("*", "created")
    assert stage.run.until("wait") == "success"
    _whole(stage)


def _batch(stage: Stage) -> None:
    """A batch: 202, 206, 200."""
    stage.deferred(polls=1)
    stage.amili.batches.set("the-batch", "partly", "done")
    assert stage.run.until("wait") == "success"
    assert stage.run.xcom("wait")["status"] == "PROCESSED"


def _ask(stage: Stage) -> None:
    """Answers are lost: the task asks, asks again without a reason, and sends what a person says did not arrive."""
    waiting = stage.run.until("upload", "awaiting_input", "deferred")
    asked = stage.run.question("upload")
    assert asked["options"] == list(OPTIONS)
    assert all(f"{number}.csv" in asked["body"] for number in range(FILES))
    assert not stage.amili.uploads
    stage.run.answer("upload", SEND_AGAIN, asked=1, reason=" ")
    until("the question is asked again", lambda: not stage.run.question("upload")["response_received"], 120)
    stage.run.until("upload", waiting)
    stage.run.answer("upload", SEND_AGAIN, asked=2, reason="not in the portal")
    assert stage.run.until("upload") == "success"
    assert [receipt["outcome"] for receipt in stage.run.xcom("upload")] == ["uploaded"] * FILES
    assert sorted(upload.name for upload in stage.amili.uploads) == [f"{number}.csv" for number in range(FILES)]
    assert "answered: Amili does not have them: send again." in stage.run.log("upload")


def _ask_in_browser(stage: Stage) -> None:
    """A person reads the question in Chromium, types why, and chooses: the task goes on, the ledger has their name."""
    from tests.suites.browser.asking import answered

    stage.run.until("upload", "awaiting_input", "deferred")
    stage.run.heard(1)
    reason = "Ola sees them in the portal"
    asked = {"dag_id": "bench_ask_in_browser", "option": question.HAS_THEM, "reason": reason}
    read = answered(stage.airflow.url, *PERSON, **asked)
    assert all(word in read for word in ("0.csv", "2.csv", *question.OPTIONS)), read
    assert stage.run.until("upload") == "success"
    assert not stage.amili.uploads
    settled = [attempt for attempt in attempts_in(stage.ledger) if attempt.settled_by]
    assert sorted(attempt.name for attempt in settled) == [f"{number}.csv" for number in range(FILES)]
    for attempt in settled:
        assert (attempt.outcome, attempt.reason) == ("uploaded", reason)
        assert PERSON[0] in str(attempt.settled_by)


def _ask_in_vain(stage: Stage) -> None:
    """Nobody answers within the time: red, in words, and nothing is sent again."""
    assert stage.run.until("upload") == "failed"
    log = stage.run.log("upload")
    assert "No answer came within 0:00:08" in log
    assert f"{FILES} of {FILES} file(s) not delivered to Amili: {FILES} unknown" in log
    assert not stage.amili.uploads


def _whole(stage: Stage) -> None:
    """Every file was sent once, its result is in XCom, and nobody but the uploader posted anything."""
    names = [f"{number}.csv" for number in range(FILES)]
    assert [one["name"] for one in stage.run.xcom("wait")] == names
    assert {one["status"] for one in stage.run.xcom("wait")} == {"PROCESSED"}
    assert sorted(upload.name for upload in stage.amili.uploads) == names
    posts = [r for r in stage.amili.requests if r.method == "POST" and r.kind != "token"]
    assert len(posts) == stage.amili.count("upload") == 1


_UNHEARD = {"on": "upload", "drop": "reset", "stage": "body"}
_ASKS = {"kind": "upload", "if_unknown": "ask"}
_DEFERRED = {"kind": "files", "deferrable": True}
SCENARIOS = {
    "success": Scenario(_success, _DEFERRED),
    "at_once": Scenario(_at_once, _DEFERRED, ("*", "created")),
    "refusal": Scenario(_refusal, _DEFERRED),
    "soft_fail": Scenario(_soft_fail, {**_DEFERRED, "soft_fail": True, "timeout": 8}),
    "time_out": Scenario(_time_out, {**_DEFERRED, "timeout": 8}),
    "killed_triggerer": Scenario(_killed_triggerer, _DEFERRED),
    "expired_token": Scenario(_expired_token, _DEFERRED),
    "outage": Scenario(_outage, _DEFERRED),
    "lasting_outage": Scenario(_lasting_outage, {**_DEFERRED, "retries": 0}),
    "forbidden": Scenario(_forbidden, _DEFERRED),
    "poke": Scenario(_poke, {"kind": "files"}),
    "reschedule": Scenario(_reschedule, {"kind": "files", "mode": "reschedule", "poke_interval": 5}),
    "batch": Scenario(_batch, {"kind": "batch", "deferrable": True}, ("the-batch", "working")),
    "ask": Scenario(_ask, _ASKS, fault=_UNHEARD),
    "ask_in_browser": Scenario(_ask_in_browser, _ASKS, fault=_UNHEARD),
    "ask_in_vain": Scenario(_ask_in_vain, {**_ASKS, "response_timeout": 8}, fault=_UNHEARD),
}
FOR_CI = ("success", "refusal", "time_out", "killed_triggerer", "expired_token", "ask")
"""The bounded part: what no other ring can show."""
