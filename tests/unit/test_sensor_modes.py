"""Poke, reschedule and deferrable mode end alike, whatever Amili does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException, AirflowTaskTimeout

from amili_provider.api.client import AmiliClient
from amili_provider.exceptions import AmiliAuthenticationError, AmiliResultFailed
from amili_provider.sensors.amili import AmiliBatchSensor, AmiliFileResultSensor
from amili_provider.triggers import clients
from amili_provider.triggers.amili import MOST_FAILURES
from amili_provider.triggers.clients import MOST_IN_FLIGHT
from amili_provider.triggers.polling import Wait
from tests.crossed import crossed
from tests.unit.simulated import (
    ACCEPTED,
    EPOCH,
    MODES,
    QUEUED,
    REFUSED,
    Ending,
    World,
    rescheduled,
    run,
    says,
    settle_in,
)

FAILED, RETRY, SUCCESS, SKIPPED = "failed", "retry", "success", "skipped"
FLAGS = ("", "soft_fail", "never_fail", "silent_fail")
TIMEOUT, REFUSAL = "AirflowSensorTimeout", "AmiliResultFailed"
NO_CONNECTION = httpx.ConnectError("refused")
SLOW = httpx.ReadTimeout("slow")
PASSING, BUSY = "AmiliConnectionError", (429, {"Retry-After": "120"})


def after(seconds: float, before: Any, then: Any) -> Callable[[float], Any]:
    """Return a script that changes at a moment."""
    return lambda elapsed: before if elapsed < seconds else then


# Name: (script of file a, script of file b, the end, the error)
FILES: dict[str, tuple[Any, Any, str, str | None]] = {
    "accepted at once": ([ACCEPTED], [ACCEPTED], SUCCESS, None),
    "accepted later": ([QUEUED, QUEUED, ACCEPTED], [ACCEPTED], SUCCESS, None),
    "not found at first": ([404, 404, 404, ACCEPTED], [404, ACCEPTED], SUCCESS, None),
    "answers in a list": ([[{"fileId": "A", **ACCEPTED}]], [[{"fileId": "b", **ACCEPTED}]], SUCCESS, None),
    "202 and 204 are not yet": ([(202, {}), (204, None), ACCEPTED], [ACCEPTED], SUCCESS, None),
    "refused at once": ([REFUSED], [REFUSED], FAILED, REFUSAL),
    "one refused later": ([QUEUED, REFUSED], [QUEUED, QUEUED, ACCEPTED], FAILED, REFUSAL),
    "one refused, one never final": ([REFUSED], [QUEUED], FAILED, REFUSAL),
    "never found": ([404], [ACCEPTED], FAILED, TIMEOUT),
    "unknown words": ([says("ARRIVED", "NOTED")], [ACCEPTED], FAILED, TIMEOUT),
    "half of the accepted words": ([says("PROCESSED", None)], [ACCEPTED], FAILED, TIMEOUT),
    "another file in the list": ([[{"fileId": "other", **ACCEPTED}]], [ACCEPTED], FAILED, TIMEOUT),
    "400": ([400], [ACCEPTED], FAILED, "AmiliRequestError"),
    "401": ([401], [ACCEPTED], FAILED, "AmiliAuthenticationError"),
    "401 once": ([401, ACCEPTED], [ACCEPTED], SUCCESS, None),
    "403": ([403], [ACCEPTED], FAILED, "AmiliAuthenticationError"),
    "403 later": ([QUEUED, QUEUED, 403], [ACCEPTED], FAILED, "AmiliAuthenticationError"),
    "406": ([406], [ACCEPTED], FAILED, "AmiliRequestError"),
    "422": ([422], [ACCEPTED], FAILED, "AmiliRequestError"),
    "302": ([302], [ACCEPTED], FAILED, "AmiliRequestError"),
    "429": ([429], [ACCEPTED], RETRY, PASSING),
    "429 for a while": ([BUSY, BUSY, BUSY, ACCEPTED], [ACCEPTED], SUCCESS, None),
    "500": ([500], [ACCEPTED], RETRY, PASSING),
    "500 for a while": ([500] * 5 + [ACCEPTED], [502, 504, ACCEPTED], SUCCESS, None),
    "503": ([503], [ACCEPTED], RETRY, PASSING),
    "refused connection": ([NO_CONNECTION], [ACCEPTED], RETRY, PASSING),
    "refused connection for a while": ([NO_CONNECTION] * 6 + [ACCEPTED], [ACCEPTED], SUCCESS, None),
    "slow answer": ([SLOW], [ACCEPTED], RETRY, PASSING),
    "garbage": (["<h1>Gateway</h1>"], [ACCEPTED], FAILED, "AmiliResponseError"),
    "garbage once": (["<h1>Gateway</h1>", ACCEPTED], [ACCEPTED], SUCCESS, None),
    "an object that is no result": ([(200, {"hello": "world"})], [ACCEPTED], FAILED, "AmiliResponseError"),
    "contradiction": (
        [[{"fileId": "a", **ACCEPTED}, {"fileId": "a", **REFUSED}]],
        [ACCEPTED],
        FAILED,
        "AmiliResponseError",
    ),
    "refused as a whole": (
        [(200, {**REFUSED, "files": [{"fileId": "a", **ACCEPTED}]})],
        [ACCEPTED],
        FAILED,
        "AmiliResponseError",
    ),
    "refused beside its own entry": (
        [(200, {"fileId": "a", **REFUSED, "files": [{"fileId": "a", **ACCEPTED}]})],
        [ACCEPTED],
        FAILED,
        "AmiliResponseError",
    ),
    "its words stand twice": (
        ['{"fileId":"a","status":"FAILED","status":"PROCESSED","result":"CREATED"}'],
        [ACCEPTED],
        FAILED,
        "AmiliResponseError",
    ),
    "an outage at the very end": (after(3500, QUEUED, 500), [ACCEPTED], FAILED, TIMEOUT),
    "an outage in the middle": (after(600, QUEUED, 500), [ACCEPTED], RETRY, PASSING),
    "many short outages": (
        lambda elapsed: 500 if elapsed % 600 < 150 else (QUEUED if elapsed < 3000 else ACCEPTED),
        [ACCEPTED],
        SUCCESS,
        None,
    ),
}

# Name: (script, the end, the error); the rest is as for files
BATCHES: dict[str, tuple[Any, str, str | None]] = {
    "done": ([(200, ACCEPTED)], SUCCESS, None),
    "done without words": ([(200, {"batchUuid": "a"})], SUCCESS, None),
    "done later": ([(202, {}), (202, {}), (200, ACCEPTED)], SUCCESS, None),
    "partly, then done": ([(206, {"status": "PARTIAL"}), (200, ACCEPTED)], SUCCESS, None),
    "partly for ever": ([(206, {"status": "PARTIAL"})], FAILED, TIMEOUT),
    "200, but partly in its words": ([(200, {"status": "PARTIAL"})], FAILED, TIMEOUT),
    "200, but queued in its words": ([(200, QUEUED)], FAILED, TIMEOUT),
    "200, but refused in its words": ([(200, REFUSED)], FAILED, REFUSAL),
    "206, but refused in its words": ([(206, REFUSED)], FAILED, REFUSAL),
    "200, refused deeper inside": ([(200, {"summary": {"status": "FAILED"}})], FAILED, REFUSAL),
    "200 for a list, one refused": ([(200, [ACCEPTED, REFUSED])], FAILED, REFUSAL),
    **{
        f"200, refused in {where}": ([(200, body)], FAILED, REFUSAL)
        for where, body in {
            "data": {**ACCEPTED, "data": [{"status": "PROCESSED"}, {"status": "FAILED"}]},
            "documents": {"status": "PROCESSED", "documents": [ACCEPTED, {"result": "rejected", "message": "no"}]},
            "a batch": {"batch": {"uuid": "a", "documents": [{"parts": [[{"status": "ERROR"}]]}]}},
            "a bare word": {"status": "SUCCESS", "results": ["OK", "BATCH-REJECTED"]},
            "another field": {"status": "PROCESSED", "postings": [{"resultType": "BATCH-REJECTED"}]},
            "a count": {"FAILED": 3, "PROCESSED": 5},
            "capitals": {"Status": "Failed"},
            "a list of words": {"status": ["PROCESSED", "FAILED"]},
            "a list, though the whole is queued": {**QUEUED, "data": [REFUSED]},
            "a list, though the rest is partial": {"status": "PARTIAL", "data": [{"status": "INVALID"}]},
        }.items()
    },
    **{
        f"200, but {where}": ([(200, body)], FAILED, TIMEOUT)
        for where, body in {
            "an unknown word": {"status": "COMPLETED_WITH_ERRORS"},
            "an unknown result beside its own code": {"status": 200, "result": "NOTED"},
            "queued in a list": {"status": ["QUEUED"]},
            "queued in an object": {"status": {"code": "QUEUED"}},
            "queued in capitals": {"Status": "QUEUED"},
            "an unknown result": {"status": "PROCESSED", "result": "NOTED"},
            "an unknown word deeper inside": {**ACCEPTED, "documents": [{"status": "ODD"}]},
            "a part is queued": {**ACCEPTED, "documents": [ACCEPTED, QUEUED]},
            "a status that is no word": {"status": False},
        }.items()
    },
    **{
        f"200, {where}": ([(200, body)], SUCCESS, None)
        for where, body in {
            "no failure counted": {"FAILED": 0, "error": None, "errors": [], "PROCESSED": 5},
            "success": {"summary": {"status": "SUCCESS"}},
            "half of an upload's words": {"status": "PROCESSED"},
            "its own code": {"status": 200, "result": "CREATED", "message": "fine"},
            "a result that holds the parts": {"status": "PROCESSED", "result": {"documents": [{"status": "CREATED"}]}},
            "all parts accepted": {**ACCEPTED, "documents": [ACCEPTED, {"status": "processed", "errors": []}]},
            "words of other kinds": {"documents": [{"type": "INVOICE", "name": "Error & Sons"}], "tags": ["odd"]},
        }.items()
    },
    "not found for a moment": ([404, 404, (202, {}), (200, ACCEPTED)], SUCCESS, None),
    "never found": ([404], FAILED, "AmiliRequestError"),
    "400": ([400], FAILED, "AmiliRequestError"),
    "403": ([403], FAILED, "AmiliAuthenticationError"),
    "406": ([406], FAILED, "AmiliRequestError"),
    "500": ([500], RETRY, PASSING),
    "201, which nobody documents": ([(201, {})], FAILED, "AmiliResponseError"),
    "garbage": (["<h1>Sign in</h1>"], FAILED, "AmiliResponseError"),
    "an empty list": ([(200, [])], FAILED, "AmiliResponseError"),
    "never done": ([(202, {})], FAILED, TIMEOUT),
}


def ends(
    mode: str, script: dict[str, Any], make: Any, monkeypatch: pytest.MonkeyPatch, **arguments: Any
) -> tuple[Ending, World]:
    """Return how a sensor ends in one mode, and the world it leaves."""
    world = World(scripts=script)
    with monkeypatch.context() as patch:
        settle_in(world, patch)
        return run(mode, world, make, **arguments), world


@pytest.mark.parametrize(("row", "flag"), crossed(FILES, FLAGS, always=[""]))
def test_modes_end_alike_for_files(row: str, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every behaviour of the result endpoint, all modes give one outcome and one XCom, under every flag."""
    script_a, script_b, state, error = FILES[row]
    flags = {flag: True} if flag else {}
    found = {
        mode: ends(
            mode, {"a": script_a, "b": script_b}, AmiliFileResultSensor, monkeypatch, file_ids=["a", "b"], **flags
        )
        for mode in MODES
    }
    assert len({repr(ending) for ending, _ in found.values()}) == 1, found
    _check(found["poke"][0], flag, state, error)
    if state == SUCCESS:
        assert [entry["file_id"] for entry in found["poke"][0].xcom] == ["a", "b"]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_accepted_at_the_first_question_is_told(
    mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sensor that never has to wait does not stay silent: the log says of how many, and in which words."""
    caplog.set_level("INFO")
    script = {"a": [ACCEPTED], "b": [ACCEPTED]}
    ending, _ = ends(mode, script, AmiliFileResultSensor, monkeypatch, file_ids=["a", "b"])
    assert ending.state == SUCCESS
    assert "2 of 2 accepted: a (PROCESSED/CREATED" in caplog.text + capfd.readouterr().out


@pytest.mark.parametrize(("row", "flag"), crossed(BATCHES, FLAGS, always=[""]))
def test_modes_end_alike_for_batches(row: str, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every behaviour of the batch endpoint, all modes give one outcome and one XCom, under every flag."""
    script, state, error = BATCHES[row]
    flags = {flag: True} if flag else {}
    found = {mode: ends(mode, {"a": script}, AmiliBatchSensor, monkeypatch, batch_uuid="a", **flags) for mode in MODES}
    assert len({repr(ending) for ending, _ in found.values()}) == 1, found
    _check(found["poke"][0], flag, state, error)


def _check(ending: Ending, flag: str, state: str, error: str | None) -> None:
    expected = state
    if (flag == "soft_fail" and error == TIMEOUT) or (flag == "never_fail" and state != SUCCESS):
        expected = SKIPPED
    elif flag == "silent_fail" and state == RETRY:
        # Polls that fail for passing causes are passed over, until the time is up.
        expected, error = FAILED, TIMEOUT
    assert (ending.state, ending.error) == (expected, error if expected in (FAILED, RETRY) else None)


@pytest.mark.parametrize(("if_partial", "state", "error"), [("fail", FAILED, REFUSAL), ("succeed", SUCCESS, None)])
@pytest.mark.parametrize("answer", [(206, {"status": "PARTIAL"}), (200, {"status": "PARTIAL"}), (206, {})])
def test_a_batch_done_in_part_means_what_the_user_says(
    if_partial: str, state: str, error: str | None, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With if_partial, a 206, or PARTIAL in the words, ends the wait as told, in all modes."""
    arguments = {"batch_uuid": "a", "if_partial": if_partial}
    found = [ends(mode, {"a": [answer]}, AmiliBatchSensor, monkeypatch, **arguments)[0] for mode in MODES]
    assert {(ending.state, ending.error) for ending in found} == {(state, error)}
    assert len({repr(ending) for ending in found}) == 1


@pytest.mark.parametrize("mode", MODES)
def test_overridden_words_count_in_every_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words and path given to the sensor outweigh the connection's, wherever the asking is done."""
    arguments = {
        "accepted_results": ["IMPORTED"],
        "refused_results": "LOST",
        "pending_results": "NEW",
        "result_path": "/logs/{clientno}/{fileid}",
        "file_ids": ["a"],
    }
    script = {"a": [says("NEW"), says("IMPORTED")]}
    ending, world = ends(mode, script, AmiliFileResultSensor, monkeypatch, **arguments)
    assert ending.state == SUCCESS
    script = {"a": [says("NEW"), says("LOST")]}
    ending, world = ends(mode, script, AmiliFileResultSensor, monkeypatch, **arguments)
    assert ending.error == REFUSAL
    assert len(world.requests) == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("refusal", ["FAILED", "BATCH-REJECTED", "DENIED", "LOST"])
def test_words_of_refusal_are_added_up(mode: str, refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What always refuses, the connection's words and the sensor's all refuse, whatever else is accepted."""
    world = World(scripts={"a": [says("PROCESSED", refusal)]})
    settle_in(world, monkeypatch, refused_results="DENIED", accepted_results="PROCESSED")
    ending = run(mode, world, AmiliFileResultSensor, file_ids=["a"], refused_results=["LOST"])
    assert (ending.state, ending.error) == (FAILED, REFUSAL)


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_word_of_a_batch_is_accepted_as_the_message_says(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a time-out shows the word and the argument that makes it known; then the batch is done."""
    script = {"a": [(200, {"status": "COMPLETED"})]}
    with monkeypatch.context() as patch:
        settle_in(World(scripts=script), patch)
        late = AmiliBatchSensor(task_id="wait", batch_uuid="a", timeout=0.0)
        with pytest.raises(Exception, match=r"(?s)a \(COMPLETED\).*'accepted_results'.* argument") as caught:
            late.execute({})
    assert type(caught.value).__name__ == TIMEOUT
    arguments = {"batch_uuid": "a", "accepted_results": "COMPLETED"}
    assert ends(mode, script, AmiliBatchSensor, monkeypatch, **arguments)[0].state == SUCCESS


@pytest.mark.parametrize("backoff", [False, True])
def test_backoff_slows_every_mode_down(backoff: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exponential back-off makes a wait ask less often in each mode, and about equally often in all."""
    counts = {}
    for mode in MODES:
        arguments = {"file_ids": ["a"], "exponential_backoff": backoff}
        ending, world = ends(mode, {"a": [QUEUED]}, AmiliFileResultSensor, monkeypatch, **arguments)
        assert ending.error == TIMEOUT
        counts[mode] = len(world.requests)
    if backoff:
        assert all(5 <= count <= 10 for count in counts.values()), counts
    else:
        assert all(55 <= count <= 62 for count in counts.values()), counts


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_max_wait_bounds_the_backoff(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """max_wait bounds the intervals of exponential back-off."""
    arguments = {"file_ids": ["a"], "exponential_backoff": True, "max_wait": 300}
    _, world = ends(mode, {"a": [QUEUED]}, AmiliFileResultSensor, monkeypatch, **arguments)
    moments = [moment for moment, _ in world.requests]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert max(gaps) <= 301
    assert len(gaps) >= 12


@pytest.mark.parametrize("mode", MODES)
def test_what_is_settled_is_not_asked_for_again(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A final result is asked for once, except where no memory outlives a poke (reschedule)."""
    script = {"a": [ACCEPTED], "b": [QUEUED, QUEUED, QUEUED, ACCEPTED]}
    ending, world = ends(mode, script, AmiliFileResultSensor, monkeypatch, file_ids=["a", "b"])
    assert ending.state == SUCCESS
    assert sum(wanted == "a" for _, wanted in world.requests) == (4 if mode == "reschedule" else 1)
    assert sum(wanted == "b" for _, wanted in world.requests) == 4


def test_a_wait_that_amili_asks_for_gives_the_slot_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In reschedule mode more than a minute is waited for outside the worker, never shortened, and the wait goes on."""
    script = {"a": [BUSY, (503, {"Retry-After": "7"}), QUEUED, ACCEPTED]}
    ending, world = ends("reschedule", script, AmiliFileResultSensor, monkeypatch, file_ids=["a"])
    assert ending.state == SUCCESS
    assert world.slept == 1
    moments = [moment - EPOCH for moment, _ in world.requests]
    assert moments == [0, 120, 127, 187]


def test_results_that_are_there_are_not_given_back_with_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of questions a minute does not keep a poke of many files from ever ending."""
    busy_at = iter([False, False, True, False, False, True, False])
    script = dict.fromkeys("abcde", lambda _: (429, {"Retry-After": "30"}) if next(busy_at, False) else ACCEPTED)
    monkeypatch.setattr("amili_provider.triggers.clients.MOST_IN_FLIGHT", 1)
    ending, world = ends("reschedule", script, AmiliFileResultSensor, monkeypatch, file_ids=list("abcde"))
    assert ending.state == SUCCESS
    assert len(world.requests) == 7
    assert world.slept == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_wish_beyond_the_time_out_ends_the_wait(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Amili wants to be asked after the time is up, all modes time out without asking; no slot waits for it."""
    script = {"a": [(503, {"Retry-After": "86400"})]}
    ending, world = ends(mode, script, AmiliFileResultSensor, monkeypatch, file_ids=["a"])
    assert ending.error == TIMEOUT
    assert len(world.requests) == 1
    assert (world.now == EPOCH) is (mode == "reschedule")


@pytest.mark.parametrize("mode", MODES)
def test_a_wish_is_kept_in_every_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the worker heard it and the triggerer asks again."""
    script = {"a": [(429, {"Retry-After": "300"}), ACCEPTED]}
    ending, world = ends(mode, script, AmiliFileResultSensor, monkeypatch, file_ids=["a"])
    assert ending.state == SUCCESS
    assert [moment - EPOCH for moment, _ in world.requests] == [0, pytest.approx(300, abs=1)]


HOUR = 3600
AT_ONCE, RENEWED, BOUNDED, WHOLE_HOUR = "at once", "with one new token", "so many attempts", "all the hour"
# Name: (answer, how long a wait for a file asks, how long one for a batch)
ALL_HOUR: dict[str, tuple[Any, str, str]] = {
    "400": (400, AT_ONCE, AT_ONCE),
    "401": (401, RENEWED, RENEWED),
    "403": (403, AT_ONCE, AT_ONCE),
    "404": (404, WHOLE_HOUR, BOUNDED),
    "406": (406, AT_ONCE, AT_ONCE),
    "422": (422, AT_ONCE, AT_ONCE),
    "429": (429, BOUNDED, BOUNDED),
    "500": (500, BOUNDED, BOUNDED),
    "503": (503, BOUNDED, BOUNDED),
    "garbage": ("<h1>Gateway</h1>", BOUNDED, BOUNDED),
    "refused connection": (NO_CONNECTION, BOUNDED, BOUNDED),
    "slow answer": (SLOW, BOUNDED, BOUNDED),
}
QUESTIONS = {
    # Deferrable: the worker asks once before the triggerer does.
    AT_ONCE: {"poke": 1, "reschedule": 1, "deferrable": 1},
    RENEWED: {"poke": 2, "reschedule": 2, "deferrable": 2},
    BOUNDED: {"poke": MOST_FAILURES, "reschedule": MOST_FAILURES, "deferrable": 1 + MOST_FAILURES},
    # One more comes at the very end of the hour, which poke and reschedule mode meet exactly.
    WHOLE_HOUR: {"poke": 60 + 1, "reschedule": 60 + 1, "deferrable": 57 + 1},
}
TOKENS = {
    # Each process mints one: worker and triggerer, and in reschedule mode every poke.
    AT_ONCE: {"poke": 1, "reschedule": 1, "deferrable": 1},
    RENEWED: {"poke": 2, "reschedule": 2, "deferrable": 2},
    BOUNDED: {"poke": 1, "reschedule": 1, "deferrable": 2},
    WHOLE_HOUR: {"poke": 1, "reschedule": 61, "deferrable": 2},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sensor", [AmiliFileResultSensor, AmiliBatchSensor])
@pytest.mark.parametrize("row", ALL_HOUR)
def test_questions_of_a_sensor_in_a_simulated_hour(
    row: str, sensor: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Amili does for an hour, each sensor asks exactly as often as documented, in every mode."""
    answer, for_a_file, for_a_batch = ALL_HOUR[row]
    wanted = {"file_ids": ["a"]} if sensor is AmiliFileResultSensor else {"batch_uuid": "a"}
    how_long = for_a_file if sensor is AmiliFileResultSensor else for_a_batch
    ending, world = ends(mode, {"a": [answer]}, sensor, monkeypatch, timeout=HOUR, **wanted)
    moments = [moment - EPOCH for moment, _ in world.requests]
    assert len(moments) == QUESTIONS[how_long][mode]
    assert sum(moment < HOUR for moment in moments) <= 60
    assert max(moments) <= HOUR
    assert (ending.error == TIMEOUT) is (how_long == WHOLE_HOUR)
    assert world.minted == TOKENS[how_long][mode]


def test_a_bug_of_a_task_comes_out_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in a thread that asks is raised in the task's own, and is no answer of Amili."""
    settle_in(World(), monkeypatch)

    def broken(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(AmiliClient, "ask_for_result", broken)
    with pytest.raises(KeyError, match="a bug"):
        AmiliFileResultSensor(task_id="wait", file_ids=[f"{number}" for number in range(20)]).execute({})


def test_a_task_tells_airflow_its_token_before_it_asks_and_from_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another thread, telling the supervisor of Airflow 3 disturbs what the task itself says to it."""
    world, told = World(scripts={"*": [ACCEPTED]}), []
    settle_in(world, monkeypatch)
    monkeypatch.setattr(
        clients,
        "mask_secret",
        lambda secret: told.append((secret, threading.current_thread(), len(world.requests))),
    )
    AmiliFileResultSensor(task_id="wait", file_ids=[f"{number}" for number in range(20)]).execute({})
    assert told == [("token-1-of-the-test", threading.current_thread(), 0)]
    assert len(world.requests) == 20


def test_no_more_questions_are_begun_once_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred questions to an Amili that refuses us would be a hundred times the same."""
    world = World(scripts={"*": [403]})
    settle_in(world, monkeypatch)
    with pytest.raises(AmiliAuthenticationError):
        AmiliFileResultSensor(task_id="wait", file_ids=[f"{number}" for number in range(100)]).execute({})
    assert len(world.requests) <= MOST_IN_FLIGHT


@pytest.mark.parametrize("mode", MODES)
def test_a_result_after_the_time_out_is_too_late_in_every_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last question comes when the time is up, and not a whole interval later."""
    late = after(7, QUEUED, ACCEPTED)
    ending, world = ends(
        mode, {"a": late}, AmiliFileResultSensor, monkeypatch, file_ids=["a"], timeout=6, poke_interval=4
    )
    assert (ending.state, ending.error) == (FAILED, TIMEOUT)
    assert max(moment for moment, _ in world.requests) == pytest.approx(EPOCH + 6, abs=0.1)


@pytest.mark.parametrize("mode", MODES)
def test_amili_is_never_asked_more_often_than_once_a_second(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever poke_interval says, in every mode."""
    wanted = {"file_ids": ["a"], "timeout": 20, "poke_interval": 0.01}
    ending, world = ends(mode, {"a": [QUEUED]}, AmiliFileResultSensor, monkeypatch, **wanted)
    assert ending.error == TIMEOUT
    assert 15 <= len(world.requests) <= 22


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_intervals_that_grow_for_a_day_end_as_others_do(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own number overflows at the 1,021st poke, whatever max_wait says."""
    wanted = {"file_ids": ["a"], "timeout": 24 * HOUR, "exponential_backoff": True, "max_wait": 60}
    ending, world = ends(mode, {"a": [QUEUED]}, AmiliFileResultSensor, monkeypatch, **wanted)
    assert (ending.state, ending.error) == (FAILED, TIMEOUT)
    assert len(world.requests) > 1021


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("flag", "state"), [("", FAILED), ("silent_fail", FAILED), ("soft_fail", SKIPPED), ("never_fail", SKIPPED)]
)
def test_execution_timeout_strikes_alike_in_every_mode(
    mode: str, flag: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow raises it from a signal, into whatever the task does; here into the first question."""

    def strike(_: Any) -> None:
        raise AirflowTaskTimeout("execution_timeout")

    monkeypatch.setattr(clients.Poller, "poll", strike)
    settle_in(World(), monkeypatch)
    chosen: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    chosen |= {flag: True} if flag else {}
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a"], **chosen)
    with pytest.raises(AirflowTaskTimeout if state == FAILED else AirflowSkipException):
        sensor.execute(rescheduled(None) if mode == "reschedule" else {})


@pytest.mark.parametrize("mode", MODES)
def test_a_limit_of_amili_that_lets_some_through_each_time_ends_no_wait(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten answers a second, then 429: attempts fail in a row only if none of their questions was answered."""
    seconds: Counter[int] = Counter()

    def limited(elapsed: float) -> Any:
        seconds[int(elapsed)] += 1
        return ACCEPTED if seconds[int(elapsed)] <= 10 else (429, {"Retry-After": "1"})

    ids = [f"{number:03}" for number in range(150)]
    scripts = {"*": limited}
    ending, _ = ends(mode, scripts, AmiliFileResultSensor, monkeypatch, file_ids=ids, timeout=HOUR, poke_interval=1)
    assert ending.state == SUCCESS
    assert len(ending.xcom) == len(ids)


@pytest.mark.parametrize("started", [0, 3])
def test_a_poke_that_may_begin_no_thread_is_made_good_by_the_next(
    started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is full for a moment: nothing hangs, and no answer of the next poke is lost."""
    world = World(scripts={"*": [ACCEPTED]})
    settle_in(world, monkeypatch)
    real, begun = threading.Thread.start, [0]

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("amili-poking") and world.now == EPOCH:
            begun[0] += 1
            if begun[0] > started:
                raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    ids = [f"{number}" for number in range(20)]
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=ids, silent_fail=True, poke_interval=1, timeout=60)
    assert len(sensor.execute({})) == len(ids)
    assert len(world.requests) == len(ids)
    assert (world.now > EPOCH) is (started == 0)


def test_the_log_says_by_words_what_is_open_and_what_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Hundreds of files fit a line; a refusal is told when it is known, not when the last file has its result."""
    ids = [f"file-{number:03}" for number in range(200)]
    scripts: dict[str, Any] = {"*": [QUEUED], "file-007": [REFUSED], "file-008": [404], "file-009": [ACCEPTED]}
    ending, _ = ends("poke", scripts, AmiliFileResultSensor, monkeypatch, file_ids=ids, timeout=1)
    assert ending.error == REFUSAL
    told = caplog.text + capsys.readouterr().out
    assert "198 of 200 without a final result, 1 refused: file-000, file-001, file-002 and 194 more (QUEUED:" in told
    assert "file-008 (no result yet, 404)" in told
    assert "Amili refused file-007 (FAILED/REJECTED: Line 7 has no amount). The others are waited for." in told


def test_a_trigger_says_at_each_poll_that_it_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its log is all that a person has to see that a wait is alive."""
    ending, world = ends("deferrable", {"a": [QUEUED]}, AmiliFileResultSensor, monkeypatch, file_ids=["a"])
    assert ending.error == TIMEOUT
    told = caplog.text + capsys.readouterr().out
    assert told.count("1 of 1 without a final result: a (") >= len(world.requests) - 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pause", [2, 70])
def test_a_limit_hides_no_refusal_in_any_mode(mode: str, pause: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten answers in a row, then a pause: what has been heard is not given up for it, so the last file is asked for."""
    monkeypatch.setattr("amili_provider.triggers.clients.MOST_IN_FLIGHT", 1)
    heard = Counter[int]()

    def limited(answer: Any) -> Callable[[float], Any]:
        def script(elapsed: float) -> Any:
            heard[int(elapsed) // pause] += 1
            return answer if heard[int(elapsed) // pause] <= 10 else (429, {"Retry-After": str(pause)})

        return script

    ids = [f"{number:02}" for number in range(20)]
    scripts = {"*": limited(QUEUED), "15": limited(REFUSED)}
    wanted = {"file_ids": ids, "timeout": 600, "poke_interval": 60, "soft_fail": True}
    ending, _ = ends(mode, scripts, AmiliFileResultSensor, monkeypatch, **wanted)
    assert (ending.state, ending.error) == (FAILED, REFUSAL)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("pause", "end"), [("1", PASSING), ("60", PASSING), ("61", TIMEOUT)])
def test_an_outage_that_asks_for_pauses_ends_alike_in_every_mode(
    mode: str, pause: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses of up to a minute count as attempts; longer ones are waited for until the time is up."""
    script = {"a": [(503, {"Retry-After": pause})]}
    ending, _ = ends(mode, script, AmiliFileResultSensor, monkeypatch, file_ids=["a"], timeout=HOUR)
    assert ending.error == end


@pytest.mark.parametrize(("soft_fail", "flags"), [(False, {}), (True, {"soft_fail": True})])
def test_a_time_out_that_airflow_finds_first_hides_no_refusal(
    soft_fail: bool, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at its own clock after a poke, when ours said that there was time left."""
    world = World(scripts={"a": [QUEUED], "b": [REFUSED]})
    settle_in(world, monkeypatch)
    monkeypatch.setattr(Wait, "is_over", property(lambda _: False))
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a", "b"], timeout=3, poke_interval=1, **flags)
    with pytest.raises(AmiliResultFailed, match="refused 1 of 2"):
        sensor.execute({})
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a"], timeout=3, poke_interval=1, **flags)
    with pytest.raises(AirflowSkipException if soft_fail else AirflowSensorTimeout):
        sensor.execute({})


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_what_was_answered_keeps_its_words_when_another_question_failed(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what Amili said of each file last, and the failure only where it was one."""
    world = World(scripts={"a": [QUEUED], "b": [(429, {"Retry-After": "400"})]})
    settle_in(world, monkeypatch)
    monkeypatch.setattr("amili_provider.triggers.clients.MOST_IN_FLIGHT", 1)
    chosen: dict[str, Any] = {"mode": mode}
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a", "b"], timeout=300, **chosen)
    with pytest.raises(AirflowSensorTimeout) as caught:
        sensor.execute(rescheduled(None) if mode == "reschedule" else {})
    assert "a (QUEUED" in str(caught.value)
    assert "b (the last question failed: " in str(caught.value).replace("\n", " ")
