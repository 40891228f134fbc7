"""Sensors and triggers against a real server: its connections break, its tokens expire, it goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

import amili_provider.api.transport
import amili_provider.triggers.clients
from amili_provider.exceptions import AmiliConnectionError
from amili_provider.sandbox.server import SandboxServer
from amili_provider.sensors.amili import AmiliBatchSensor, AmiliFileResultSensor
from amili_provider.triggers.amili import MOST_FAILURES, AmiliBatchTrigger, AmiliFileResultTrigger, AmiliTrigger
from amili_provider.triggers.clients import MOST_IN_FLIGHT
from tests.unit.simulated import EPOCH, World, first_event, rebuilt
from tests.wire.loop_guard import BLOCKING, BlockedError, no_blocking


@pytest.fixture(name="hour")
def _hour(monkeypatch: pytest.MonkeyPatch) -> World:
    """Let triggers wait in simulated time; their questions go over real sockets."""
    world = World()
    monkeypatch.setattr(AmiliTrigger, "time", world.time)
    return world


def trigger(*file_ids: str, **changes: Any) -> AmiliFileResultTrigger:
    """Return a trigger in simulated time, as it comes out of the database."""
    arguments: dict[str, Any] = {
        "file_ids": {"2218": list(file_ids or ("a",))},
        "amili_conn_id": "amili_default",
        "poke_interval": 60.0,
        "started_at": EPOCH,
        "deadline": EPOCH + 3600,
        **changes,
    }
    made = rebuilt(AmiliFileResultTrigger(**arguments))
    assert isinstance(made, AmiliFileResultTrigger)
    return made


FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "400": ({"status": 400}, 1, "AmiliRequestError"),
    "401": ({"status": 401}, 2, "AmiliAuthenticationError"),
    "403": ({"status": 403}, 1, "AmiliAuthenticationError"),
    "406": ({"status": 406}, 1, "AmiliRequestError"),
    "422": ({"status": 422}, 1, "AmiliRequestError"),
    "429": ({"status": 429, "headers": {"Retry-After": "30"}}, MOST_FAILURES, "AmiliConnectionError"),
    "500": ({"status": 500}, MOST_FAILURES, "AmiliConnectionError"),
    "503": ({"status": 503}, MOST_FAILURES, "AmiliConnectionError"),
    "html": ({"garbage": "html"}, MOST_FAILURES, "AmiliResponseError"),
    "empty": ({"garbage": "empty"}, MOST_FAILURES, "AmiliResponseError"),
    "truncated": ({"garbage": "truncated"}, MOST_FAILURES, "AmiliResponseError"),
    "deep": ({"garbage": "deep"}, MOST_FAILURES, "AmiliResponseError"),
    "null": ({"garbage": "null"}, MOST_FAILURES, "AmiliResponseError"),
    "huge": ({"garbage": "huge"}, MOST_FAILURES, "AmiliConnectionError"),
    "reset": ({"drop": "reset"}, MOST_FAILURES, "AmiliConnectionError"),
    "closed": ({"drop": "close"}, MOST_FAILURES, "AmiliConnectionError"),
    "cut answer": ({"cut_answer_at": 10}, MOST_FAILURES, "AmiliConnectionError"),
    "slow answer": ({"delay": 30}, MOST_FAILURES, "AmiliConnectionError"),
    "dripping answer": ({"trickle": 0.2}, MOST_FAILURES, "AmiliConnectionError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_questions_over_the_wire_in_a_simulated_hour(
    fault: str, hour: World, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the other end fails for an hour, it is asked as often as documented, and the wait ends by itself."""
    action, questions, error = FAULTS[fault]
    if fault in ("slow answer", "dripping answer"):
        # With a ready-made token, only the questions meet the short time-outs.
        amili_sandbox.tokens.admit("ready-made-token")
        connection = amili_sandbox.connection(answer_timeout=0.3, connect_timeout=1.5, access_token="ready-made-token")
        plain = {key: value for key, value in connection.items() if key not in ("login", "password")}
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(plain))
    amili_sandbox.results.set("a", "queued")
    amili_sandbox.faults.add("result", times=None, **action)
    event = asyncio.run(first_event(trigger()))
    assert (event["ending"], event["error"]) == ("failed", error)
    assert amili_sandbox.count("result") == questions
    assert hour.now <= EPOCH + 3600


def test_a_port_where_nobody_listens_is_an_outage(hour: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is tried again a bounded number of times."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    connection = {
        "conn_type": "amili",
        "host": "http://127.0.0.1",
        "port": port,
        "extra": {"access_token": "ready-made-token", "client_no": "2218"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
    event = asyncio.run(first_event(trigger()))
    assert event["error"] == "AmiliConnectionError"
    assert f"{MOST_FAILURES} attempts" in event["message"]
    assert "refuses connections" in event["message"]


def test_a_server_that_comes_back_is_asked_again(hour: World, amili_sandbox: SandboxServer) -> None:
    """Amili is away for some minutes in the middle of a wait: nothing is lost."""
    amili_sandbox.results.set("a", "queued")
    sleep = hour.time.sleep
    polls = 0

    async def eventful(seconds: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            await asyncio.to_thread(amili_sandbox.stop)
        if polls == 8:
            await asyncio.to_thread(amili_sandbox.start)
            amili_sandbox.results.set("a", "created")
        await sleep(seconds)

    waiting = trigger()
    waiting.time = type(hour.time)(hour.time.now, eventful, hour.time.random)  # type: ignore[misc]
    event = asyncio.run(first_event(waiting))
    assert event["ending"] == "settled"
    assert hour.now - EPOCH < 900


def test_a_token_that_expires_in_the_middle_is_renewed(hour: World, amili_sandbox: SandboxServer) -> None:
    """The token service is asked again exactly when a token is refused."""
    amili_sandbox.results.set("a", "queued", "queued", "queued", "created")
    amili_sandbox.faults.add("result", nth=3, expire_tokens=True)
    event = asyncio.run(first_event(trigger()))
    assert event["ending"] == "settled"
    assert amili_sandbox.tokens.minted == 2


def test_a_token_that_lives_shortly_is_renewed_in_time(hour: World, amili_sandbox: SandboxServer) -> None:
    """With tokens of one second, no question meets a 401 that could be foreseen."""
    amili_sandbox.tokens.lifetime = 0
    amili_sandbox.tokens.numbers_as_text = True
    amili_sandbox.results.set("a", "queued", "created")
    event = asyncio.run(first_event(trigger()))
    assert event["ending"] == "failed"
    assert event["error"] == "AmiliAuthenticationError"
    assert amili_sandbox.count("result") == 2


def test_waiting_leaves_no_connection_open(hour: World, amili_sandbox: SandboxServer) -> None:
    """A wait for one file opens a connection per question and keeps none between them."""
    amili_sandbox.results.set("a", "queued", "queued", "created")
    asyncio.run(first_event(trigger()))
    peers = [record.peer for record in amili_sandbox.requests if record.kind == "result"]
    assert len(set(peers)) == 3


def test_many_questions_share_a_few_connections(hour: World, amili_sandbox: SandboxServer) -> None:
    """A wait for many files does not open a connection for each."""
    ids = [f"file-{n:03}" for n in range(60)]
    amili_sandbox.results.set("*", "created")
    event = asyncio.run(first_event(trigger(*ids)))
    assert len(event["settled"]) == 60
    assert len({record.peer for record in amili_sandbox.requests if record.kind == "result"}) <= MOST_IN_FLIGHT


@pytest.mark.parametrize("kind", ["result", "batch"])
def test_nothing_blocks_the_event_loop(
    kind: str, hour: World, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connection, DNS, files, certificates, token, masking: what blocks is done in a thread, in good and bad polls."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_AMILI_DEFAULT",
        amili_sandbox.connection_json().replace("127.0.0.1", "localhost"),
    )
    amili_provider.api.transport._ssl_context.cache_clear()
    amili_sandbox.results.set("a", "queued", "queued", "created")
    amili_sandbox.batches.set("a", "working", "working", "done")
    amili_sandbox.faults.add(kind, nth=2, expire_tokens=True)
    amili_sandbox.faults.add(kind, nth=3, status=503)
    shared: dict[str, Any] = {"amili_conn_id": "amili_default", "started_at": EPOCH, "deadline": EPOCH + 3600}
    batch = AmiliBatchTrigger(client_no="2218", batch_uuid="a", poke_interval=60.0, **shared)
    waiting = trigger() if kind == "result" else batch
    with no_blocking(monkeypatch) as elsewhere:
        event = asyncio.run(first_event(waiting), debug=True)
    assert event["ending"] == "settled"
    assert elsewhere.count("mask_secret") == 2
    assert {"getaddrinfo", "load_verify_locations"} <= set(elsewhere)


@pytest.mark.parametrize("number", range(len(BLOCKING)), ids=[name for _, name in BLOCKING])
def test_the_guard_against_blocking_sees_each_call(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of the test above is not blind."""
    owner, name = BLOCKING[number]

    async def blocking() -> None:
        getattr(owner, name)(0)

    with no_blocking(monkeypatch), pytest.raises(BlockedError, match=name):
        asyncio.run(blocking())


@pytest.mark.parametrize("read", [Path.read_bytes, lambda path: path.open().read()], ids=["read_bytes", "open"])
def test_the_guard_against_blocking_sees_paths(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it blind to a file that is opened by its path."""

    async def blocking() -> None:
        read(Path(__file__))

    with no_blocking(monkeypatch), pytest.raises(BlockedError, match="open"):
        asyncio.run(blocking())


def test_a_killed_trigger_starts_again_and_nothing_is_posted(hour: World, amili_sandbox: SandboxServer) -> None:
    """A triggerer that dies in the middle of a wait costs questions, not results; nothing but a token is posted."""
    amili_sandbox.results.set("a", *["queued"] * 6, "created")

    async def killed_once() -> Any:
        task = asyncio.create_task(first_event(trigger()))
        while amili_sandbox.count("result") < 3:  # noqa: ASYNC110 - the sandbox lives in another thread
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await first_event(trigger())

    event = asyncio.run(killed_once())
    assert event["ending"] == "settled"
    assert amili_sandbox.uploads == []
    assert {(r.method, r.kind) for r in amili_sandbox.requests} == {("POST", "token"), ("GET", "result")}


def test_a_sensor_pokes_over_the_wire(amili_sandbox: SandboxServer) -> None:
    """In poke mode, one token and one client serve all pokes of a task."""
    amili_sandbox.results.set("a", "queued", "queued", "created")
    amili_sandbox.results.set("b", "created")
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a", "b"], poke_interval=0.05)
    found = sensor.execute({})
    assert [(one["file_id"], one["status"]) for one in found] == [("a", "PROCESSED"), ("b", "PROCESSED")]
    assert amili_sandbox.tokens.minted == 1
    assert amili_sandbox.count("result") == 4


def test_a_batch_is_waited_for_over_the_wire(amili_sandbox: SandboxServer) -> None:
    """202, then 206, then 200."""
    amili_sandbox.batches.set("u-1", "working", "partly", "done")
    sensor = AmiliBatchSensor(task_id="wait", batch_uuid="u-1", poke_interval=0.05)
    assert sensor.execute({})["status"] == "PROCESSED"
    assert amili_sandbox.count("batch") == 3


def test_an_endpoint_that_knows_nothing_times_out(amili_sandbox: SandboxServer) -> None:
    """Where Amili's result endpoint is not what we assume, the wait ends with the reason."""
    amili_sandbox.knows_uploads = False
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a"], poke_interval=0.05, timeout=1)
    with pytest.raises(AirflowSensorTimeout, match="is an assumption"):
        sensor.execute({})


def test_a_deferred_sensor_goes_on_over_the_wire(amili_sandbox: SandboxServer, hour: World) -> None:
    """Worker, triggerer and worker again: the XCom is whole."""
    amili_sandbox.results.set("a", "created")
    amili_sandbox.results.set("b", "queued", "queued", "created")
    arguments: dict[str, Any] = {"task_id": "wait", "file_ids": ["a", "b"], "deferrable": True}
    with pytest.raises(TaskDeferred) as caught:
        AmiliFileResultSensor(**arguments).execute({})
    end: Any = caught.value
    hour.now = end.trigger.started_at
    event = asyncio.run(first_event(rebuilt(end.trigger)))
    found = AmiliFileResultSensor(**arguments).resume_execution(end.method_name, {**end.kwargs, "event": event}, {})
    assert [one["file_id"] for one in found] == ["a", "b"]
    assert amili_sandbox.count("result") == 4


def test_no_secret_is_told_to_anybody(
    hour: World, amili_sandbox: SandboxServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither secret nor token stands in logs, events, trigger arguments or errors."""
    caplog.set_level(0)
    amili_sandbox.results.set("a", "queued", {"status": "FAILED", "message": "born 12345678901"})
    amili_sandbox.faults.add("result", nth=2, status=500)
    waiting = trigger()
    event = asyncio.run(first_event(waiting))
    captured = capfd.readouterr()
    told = "\n".join([caplog.text, captured.out, captured.err, json.dumps(event), repr(waiting)])
    for secret in (amili_sandbox.client_secret, "12345678901", *amili_sandbox.tokens._expiry):
        assert secret not in told


class StoppedError(BaseException):
    """What a signal handler raises."""


@contextlib.contextmanager
def _stopped(when: Callable[[], bool], later: float) -> Iterator[None]:
    """Raise into this thread, by a signal, some seconds after something is so; and expect it to come out soon."""

    def stop(*_: Any) -> None:
        raise StoppedError

    def kill() -> None:
        until = time.monotonic() + 20
        while not when() and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(later)
        struck.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    struck: list[float] = []
    before, killer = signal.signal(signal.SIGUSR1, stop), threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(StoppedError):
            yield
        assert time.monotonic() - struck[0] < 5, "Airflow kills a task that takes longer"
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.01, 0.1])
def test_a_task_that_is_stopped_ends_its_wait(moment: float, amili_sandbox: SandboxServer) -> None:
    """What Airflow raises into a task that it stops, or whose time is up, is never swallowed while the task polls."""
    amili_sandbox.faults.add("result", delay=20, times=None)
    with _stopped(lambda: amili_sandbox.count("result") > 0, moment):
        AmiliFileResultSensor(task_id="wait", file_ids=["a"]).execute({})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("amili-poking")]


def test_a_task_that_is_stopped_while_airflow_takes_its_token_ends(
    amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that waits until its token is masked is told that nobody will do it."""
    masking: list[str] = []

    def slowly(token: str) -> None:
        masking.append(token)
        time.sleep(20)

    monkeypatch.setattr(amili_provider.triggers.clients, "mask_secret", slowly)
    with _stopped(lambda: bool(masking), 0.05):
        AmiliFileResultSensor(task_id="wait", file_ids=[f"{number}" for number in range(20)]).execute({})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("amili-poking")]
    assert not amili_sandbox.count("result")


def test_a_task_that_is_stopped_while_it_connects_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is being made cannot be cut, and is not waited for."""
    with socket.socket() as full, contextlib.ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # so that the next ones wait
            waiting = others.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003
            waiting.connect_ex(full.getsockname())
        address = {"host": "http://127.0.0.1/arm/v1", "port": full.getsockname()[1]}
        extra = {"client_no": "2218", "access_token": "a-ready-made-token"}
        connection = {"conn_type": "amili", **address, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
        with _stopped(lambda: any(t.name.startswith("amili-poking") for t in threading.enumerate()), 0.5):
            AmiliFileResultSensor(task_id="wait", file_ids=["a"]).execute({})


def test_an_outage_in_poke_mode_ends_with_an_error_that_airflow_retries(amili_sandbox: SandboxServer) -> None:
    """Poke mode waits out a short outage by itself, and leaves a long one to Airflow's retries."""
    amili_sandbox.faults.add("result", times=None, status=503)
    world = World()
    sensor = AmiliFileResultSensor(task_id="wait", file_ids=["a"])
    sensor.time = world.time  # type: ignore[misc]
    with pytest.raises(AmiliConnectionError) as caught:
        sensor.execute({})
    assert caught.value.status_code == 503
    assert amili_sandbox.count("result") == MOST_FAILURES


_FIRST_TRIGGER = """
import asyncio, sys, threading, time

class Seen:
    def find_spec(self, name, path=None, target=None):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        if threading.current_thread() is threading.main_thread():
            print("imported on the event loop:", name)

from airflow.jobs.triggerer_job_runner import TriggerRunner

async def first():
    from amili_provider.triggers.amili import AmiliBatchTrigger, AmiliFileResultTrigger
    began = time.time()
    trigger = AmiliFileResultTrigger(
        file_ids={"2218": ["a"]}, amili_conn_id="amili_default", poke_interval=1, started_at=began, deadline=began + 60
    )
    async for event in trigger.run():
        print("ended:", event.payload["ending"])

sys.meta_path.insert(0, Seen())
asyncio.run(first())
"""


def test_the_first_trigger_of_a_process_imports_little_on_the_event_loop(amili_sandbox: SandboxServer) -> None:
    """Models, HTTP library and its library for events are imported in a thread: they take longer than 100 ms."""
    amili_sandbox.results.set("a", "created")
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_TRIGGER], capture_output=True, text=True, check=True, timeout=120, env=os.environ
    )
    assert "ended: settled" in done.stdout
    imported = [line.rpartition(" ")[2] for line in done.stdout.splitlines() if line.startswith("imported")]
    heavy = ("httpx", "httpcore", "anyio", "h11", "pydantic", "tenacity")
    assert not [name for name in imported if name.partition(".")[0] in heavy]
    assert {name for name in imported if name.startswith("amili_provider")} <= {
        "amili_provider",
        "amili_provider.triggers",
        "amili_provider.triggers.amili",
    }
