"""Deferring: what is handed over, what comes back, and what is believed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from amili_provider.exceptions import AmiliAuthenticationError, AmiliConnectionError, AmiliError, AmiliResultFailed
from amili_provider.report_lines import LOG_WIDTH, MOST_LINES
from amili_provider.sensors.amili import AmiliBatchSensor, AmiliFileResultSensor
from amili_provider.triggers.polling import Open, Settled, WaitEvent
from tests.unit.simulated import ACCEPTED, EPOCH, QUEUED, REFUSED, World, first_event, rebuilt, says, settle_in
from tests.words import across_lines, one_line


@pytest.fixture(name="world")
def _world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Give simulated time, and an Amili that answers by script."""
    world = World()
    settle_in(world, monkeypatch)
    return world


def sensor(**arguments: Any) -> AmiliFileResultSensor:
    """Return a deferrable sensor for two files."""
    return AmiliFileResultSensor(task_id="wait", **{"deferrable": True, "file_ids": ["a", "b"], **arguments})


def deferred(made: Any) -> Any:
    """Return how a sensor defers."""
    with pytest.raises(TaskDeferred) as caught:
        made.execute({})
    return caught.value


def settled(file_id: str, meaning: str = "accepted") -> Settled:
    """Return a final result."""
    return Settled.model_validate(
        {"client_no": "2218", "id": file_id, "meaning": meaning, "status": "S", "result": "R"}
    )


def test_what_is_final_at_once_is_never_deferred(world: World) -> None:
    """The worker asks once before it defers."""
    world.scripts["*"] = [ACCEPTED]
    assert [one["file_id"] for one in sensor().execute({})] == ["a", "b"]
    assert len(world.requests) == 2


def test_only_what_is_open_is_handed_to_the_trigger(world: World) -> None:
    """The trigger gets ids and numbers; what is settled waits with the task."""
    world.scripts = {"a": [ACCEPTED], "b": [QUEUED]}
    arguments = {"poke_interval": 30, "timeout": timedelta(minutes=10), "exponential_backoff": True, "max_wait": 90}
    end = deferred(sensor(**arguments, refused_results=["LOST"]))
    assert end.trigger.serialize() == (
        "amili_provider.triggers.amili.AmiliFileResultTrigger",
        {
            "file_ids": {"2218": ["b"]},
            "result_path": None,
            "amili_conn_id": "amili_default",
            "poke_interval": 30.0,
            "started_at": EPOCH,
            "deadline": EPOCH + 600,
            "exponential_backoff": True,
            "max_wait": 90.0,
            "silent_fail": False,
            "accepted_results": None,
            "refused_results": ["LOST"],
            "pending_results": None,
        },
    )
    assert end.method_name == "execute_complete"
    assert [one["id"] for one in end.kwargs["settled"]] == ["a"]
    stored = json.dumps([end.kwargs, end.trigger.serialize()])
    assert "secret" not in stored
    assert "token" not in stored


def test_airflow_too_knows_when_the_time_is_up(world: World) -> None:
    """Airflow's time-out stands behind the trigger's own, in case no triggerer runs; by default after an hour."""
    world.scripts["*"] = [QUEUED]
    end = deferred(sensor())
    assert timedelta(hours=1) <= end.timeout <= timedelta(hours=1, minutes=3)


@pytest.mark.parametrize("trouble", [500, 429, "<h1>Gateway</h1>", httpx.ConnectError("refused")], ids=repr)
def test_a_passing_failure_of_the_first_question_is_left_to_the_triggerer(trouble: Any, world: World) -> None:
    """A worker does not wait out an outage; the triggerer does."""
    world.scripts["*"] = [trouble]
    end = deferred(sensor())
    assert world.now == EPOCH
    world.scripts["*"] = [ACCEPTED]
    event = asyncio.run(first_event(rebuilt(end.trigger)))
    assert len(sensor().resume_execution("execute_complete", {**end.kwargs, "event": event}, {})) == 2


def test_a_permanent_failure_of_the_first_question_ends_at_once(world: World) -> None:
    """A 403 is not worth a trigger."""
    world.scripts["*"] = [403]
    with pytest.raises(AmiliAuthenticationError):
        sensor().execute({})


def test_no_time_at_all_means_one_question(world: World) -> None:
    """With timeout=0 the sensor asks once and does not defer."""
    world.scripts["*"] = [QUEUED]
    with pytest.raises(AirflowSensorTimeout):
        sensor(timeout=0).execute({})
    assert len(world.requests) == 2


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": "success"},
        WaitEvent(ending="settled").payload(),
        WaitEvent(ending="settled", settled=[settled("a")]).payload(),
        WaitEvent(ending="settled", settled=[settled("a"), settled("c")]).payload(),
        WaitEvent(ending="settled", settled=[settled("a")], open=[Open(client_no="2218", id="b")]).payload(),
        WaitEvent(
            ending="settled", settled=[settled("a"), settled("b")], open=[Open(client_no="2218", id="c")]
        ).payload(),
        {**WaitEvent(ending="settled", settled=[settled("a"), settled("b")]).payload(), "version": 99},
    ],
    ids=range(9),
)
def test_only_results_of_all_files_are_success(event: Any) -> None:
    """An event that is missing, strange, or says nothing of one file, fails; Airflow may retry."""
    with pytest.raises(AmiliError) as caught:
        sensor().resume_execution("execute_complete", {"event": event, "settled": []}, {})
    assert not isinstance(caught.value, AirflowFailException)


def test_a_result_for_another_client_does_not_count() -> None:
    """The same id at another client number is another file."""
    other = Settled(client_no="1", id="a", meaning="accepted")
    event = WaitEvent(ending="settled", settled=[other]).payload()
    with pytest.raises(AmiliError, match="without a result"):
        sensor(file_ids=["a"], client_no="2218").execute_complete({}, event, settled=[])


@pytest.mark.parametrize(
    ("answer", "failure"),
    [(ACCEPTED, None), (REFUSED, AmiliResultFailed), (QUEUED, AmiliError), (500, AmiliConnectionError)],
    ids=str,
)
def test_what_airflow_did_not_keep_is_asked_for_again(
    answer: Any, failure: type[Exception] | None, world: World
) -> None:
    """``dag.test()`` of Airflow 3 resumes a task with its event alone; what was settled before is asked for anew."""
    world.scripts = {"a": [answer]}
    event = WaitEvent(ending="settled", settled=[settled("b")]).payload()
    with pytest.raises(failure) if failure else nullcontext():
        assert [one["file_id"] for one in sensor().execute_complete({}, event)] == ["a", "b"]
    assert len(world.requests) == 1


def test_what_was_known_before_must_be_readable() -> None:
    """What the task itself stored is checked like the trigger's event."""
    event = WaitEvent(ending="settled", settled=[settled("b")]).payload()
    with pytest.raises(AmiliError, match="before it was deferred"):
        sensor().execute_complete({}, event, settled=[{"id": "a"}])


def test_what_was_refused_before_deferral_fails_at_the_end() -> None:
    """A refusal that the worker saw is not forgotten while the trigger waits for the others."""
    event = WaitEvent(ending="settled", settled=[settled("b")]).payload()
    kept = [settled("a", "refused").model_dump()]
    with pytest.raises(AmiliResultFailed, match="1 of 2"):
        sensor().execute_complete({}, event, settled=kept)


def test_a_refusal_weighs_more_than_the_time(world: World) -> None:
    """If the time is up while something was refused, the refusal is what is reported, with what is open."""
    event = WaitEvent(
        ending="timed_out", settled=[settled("a", "refused")], open=[Open(client_no="2218", id="b", said="QUEUED")]
    ).payload()
    with pytest.raises(AmiliResultFailed, match="had no final result yet"):
        sensor().execute_complete({}, event)


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
def test_airflows_own_time_out_is_a_sensor_time_out(error: str) -> None:
    """The framework's time-out, in the words of Airflow 3 and 2, ends as users expect, with our explanation."""
    with pytest.raises(AirflowSensorTimeout, match="is an assumption"):
        sensor().resume_execution("__fail__", {"error": error}, {})
    with pytest.raises(AirflowSkipException):
        sensor(soft_fail=True).resume_execution("__fail__", {"error": error}, {})


@pytest.mark.parametrize(("flag", "expected"), [("soft_fail", Exception), ("never_fail", AirflowSkipException)])
def test_a_trigger_that_broke_is_no_result(flag: str, expected: type[Exception]) -> None:
    """A crash of the trigger fails the task like a crash of poke: soft_fail does not hide it, never_fail does."""
    with pytest.raises(expected) as caught:
        sensor(**{flag: True}).resume_execution("__fail__", {"error": "Trigger failure", "traceback": ["x"]}, {})
    assert isinstance(caught.value, AirflowSkipException) is (flag == "never_fail")


def test_the_time_out_says_that_the_endpoint_is_assumed(world: World) -> None:
    """The message of a time-out shows Amili's last words, names the files, and says what can be changed."""
    world.scripts["*"] = [says("ARRIVED", "NOTED", "In the\nhouse of 12345678901")]
    receipts = [{"outcome": "uploaded", "file_id": "a", "name": "invoices.csv", "client_no": "2218"}]
    with pytest.raises(AirflowSensorTimeout) as caught:
        AmiliFileResultSensor(task_id="wait", receipts=receipts, timeout=600).execute({})
    message = one_line(caught.value)
    for part in ("600 s", "invoices.csv (ARRIVED/NOTED: In the house of ***********)", "assumption", "result_path"):
        assert part in message
    assert max(map(len, str(caught.value).splitlines())) <= LOG_WIDTH


def test_a_refusal_names_every_file_in_amilis_words(world: World) -> None:
    """With status, result and message, once for all whom it concerns; the others are counted."""
    ids = [f"file-{n:02}" for n in range(30)]
    world.scripts = {one: [REFUSED] for one in ids}
    world.scripts["file-00"] = [ACCEPTED]
    with pytest.raises(AmiliResultFailed) as caught:
        sensor(file_ids=ids).execute({})
    message = str(caught.value)
    assert "refused 29 of 30" in message
    assert " ".join(message.split()).count("(29 files): Line 7 has no amount [FAILED/REJECTED]") == 1
    assert len(message.splitlines()) <= MOST_LINES
    assert "file-00" not in message
    assert len(caught.value.receipts) == 29


def test_a_batch_gives_its_words(world: World) -> None:
    """The XCom of a batch is small and flat, and the refusal of a batch shows Amili's words."""
    world.scripts = {"u": [(200, ACCEPTED)], "v": [(200, REFUSED)]}
    assert AmiliBatchSensor(task_id="wait", batch_uuid="u").execute({}) == {
        "batch_uuid": "u",
        "client_no": "2218",
        "status": "PROCESSED",
        "result": "CREATED",
        "message": "File uploaded",
    }
    with pytest.raises(AmiliResultFailed, match="batch v: FAILED/REJECTED: Line 7"):
        AmiliBatchSensor(task_id="wait", batch_uuid="v").execute({})
    world.scripts = {"u": [(202, {})]}
    with pytest.raises(AirflowSensorTimeout, match=across_lines("202, still being processed")):
        AmiliBatchSensor(task_id="wait", batch_uuid="u").execute({})


def test_poke_may_be_called_by_itself(world: World) -> None:
    """``poke`` works without ``execute``, as users test their sensors."""
    world.scripts["*"] = [QUEUED, ACCEPTED]
    made = sensor(deferrable=False)
    assert made.poke({}) is False
    assert bool(made.poke({})) is True


def test_arguments_are_templates_and_kept_as_they_are() -> None:
    """Every argument that names what is waited for is a template, and an attribute of the same name."""
    files = AmiliFileResultSensor(task_id="a", receipts="{{ x }}", client_no="{{ y }}", result_path="/{fileid}")
    assert set(files.template_fields) == {"amili_conn_id", "client_no", "receipts", "file_ids", "result_path"}
    assert (files.receipts, files.client_no, files.result_path) == ("{{ x }}", "{{ y }}", "/{fileid}")
    batch = AmiliBatchSensor(task_id="b", batch_uuid="{{ z }}")
    assert set(batch.template_fields) == {"amili_conn_id", "client_no", "batch_uuid", "if_partial"}
    for made in (files, batch):
        assert all(hasattr(made, name) for name in made.template_fields)
        assert (made.timeout, made.poke_interval, made.amili_conn_id) == (3600, 60, "amili_default")


def test_sensors_can_be_mapped() -> None:
    """Sensors expand over receipts and over keyword arguments."""
    with DAG("mapped", schedule=None):
        mapped = AmiliFileResultSensor.partial(task_id="wait", deferrable=True).expand(receipts=[[], []])
        AmiliBatchSensor.partial(task_id="batches", timeout=5).expand(batch_uuid=["a", "b"])
    assert mapped.task_id == "wait"


def test_the_time_out_can_come_from_default_args() -> None:
    """``default_args`` of a DAG reach the sensor's own defaults."""
    with DAG("defaults", schedule=None, default_args={"timeout": 7, "deferrable": True, "poke_interval": 5}):
        made = AmiliFileResultSensor(task_id="wait", file_ids=["a"])
    assert (made.timeout, made.deferrable, made.poke_interval) == (7, True, 5)


@pytest.mark.parametrize("configured", [True, False])
def test_the_configured_default_decides_about_deferring(configured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument, ``[operators] default_deferrable`` decides; an argument outweighs it."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", str(configured))
    # Read when a worker or the dag processor imports the sensors: so they are imported once more, beside the others.
    spec = importlib.util.find_spec("amili_provider.sensors.base")
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    sensor = type("ASensor", (again.AmiliSensor,), dict.fromkeys(again.AmiliSensor.__abstractmethods__))
    assert sensor(task_id="a").deferrable is configured
    assert sensor(task_id="b", deferrable=not configured).deferrable is not configured
