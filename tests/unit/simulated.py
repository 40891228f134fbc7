"""Sensors and triggers in simulated time, against a scripted Amili behind the real client: no socket, no waiting."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    TaskDeferred,
)

from amili_provider.sensors.base import AmiliSensor
from amili_provider.triggers.amili import AmiliTrigger, Time

EPOCH = 1_800_000_000.0
MODES = ("poke", "reschedule", "deferrable")
CONNECTION = {
    "conn_type": "amili",
    "login": "a-client-id",
    "password": "a-client-secret",
    "extra": {"environment": "staging", "client_no": "2218"},
}

Response = httpx.Response | Exception
Step = Callable[[], Response]


def says(status: str | None = None, result: str | None = None, message: str | None = None) -> dict[str, Any]:
    """Return the words of a result."""
    return {"status": status, "result": result, "message": message}


ACCEPTED = says("PROCESSED", "CREATED", "File uploaded")
REFUSED = says("FAILED", "REJECTED", "Line 7 has no amount")
QUEUED = says("QUEUED", None, "In the queue")


@dataclass
class World:
    """
    The time, and an Amili that answers by script.

    Per id a list of steps, the last one for ever: words, a status, text for the body, or an error of the network.
    """

    now: float = EPOCH
    scripts: dict[str, Any] = field(default_factory=dict)
    tokens: list[Any] = field(default_factory=lambda: [200])
    requests: list[tuple[float, str]] = field(default_factory=list)
    minted: int = 0
    random: float = 0.5
    slept: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    together: int = 0
    """How many pauses must have begun before the first ends: waits that are to go on at the same time."""

    @property
    def time(self) -> Time:
        """The clock for sensors and triggers."""
        return Time(lambda: self.now, self._sleep, lambda: self.random, self._pause)

    def _pause(self, seconds: float) -> None:
        assert seconds >= 0, "nobody can wait backwards"
        self.slept += 1
        assert self.slept < 20_000, "nobody waits that often: something spins"
        self.now += seconds

    async def _sleep(self, seconds: float) -> None:
        self._pause(seconds)
        await asyncio.sleep(0)
        while self.slept < self.together:  # noqa: ASYNC110 - an event would belong to one loop, and there are several
            await asyncio.sleep(0.001)

    def pass_time(self, seconds: float) -> None:
        """Wait as a task does."""
        self.now += seconds

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if request.url.path.endswith("/token"):
            self.minted += 1
            step = self.tokens[min(self.minted - 1, len(self.tokens) - 1)]
            if step == 200:
                token = {"access_token": f"token-{self.minted}-of-the-test", "token_type": "Bearer", "expires_in": 3600}
                return _response(200, token)
            return self._as_answer(step, "")
        wanted = request.url.path.rpartition("/")[2]
        self.requests.append((self.now, wanted))
        script = self.scripts.get(wanted, self.scripts.get("*", [404]))
        if callable(script):
            step = script(self.now - EPOCH)
        else:
            count = self.asked[wanted] = self.asked.get(wanted, 0) + 1
            step = script[min(count, len(script)) - 1]
        return self._as_answer(step, wanted)

    def _as_answer(self, step: Any, wanted: str) -> httpx.Response:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, tuple):
            status, content = step
            return _response(status, {}, content) if status >= 400 else _response(status, content)
        if isinstance(step, int):
            return _response(step, {"message": "as the script says"})
        if isinstance(step, str | list):
            return _response(200, step)
        return _response(200, {"clientNo": 2218, "fileId": wanted, **step})


def _response(status: int, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    # A body that is streamed, as it comes from a socket.
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content.encode()))


@dataclass(frozen=True)
class Ending:
    """How a sensor ended: success, skipped, failed (for good), or retry (Airflow may try again)."""

    state: str
    error: str | None = None
    xcom: Any = None


def settle_in(world: World, monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    """Make sensors, triggers and Airflow's own base class live in *world*."""
    connection = {**CONNECTION, "extra": {**CONNECTION["extra"], **extra}}  # type: ignore[dict-item]
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
    for module, client in (("client", "AmiliClient"), ("exchange", "AmiliAsyncClient")):
        path = f"amili_provider.api.{module}.{client}"
        real = getattr(importlib.import_module(f"amili_provider.api.{module}"), client)
        monkeypatch.setattr(path, functools.partial(real, transport=httpx.MockTransport(world.answer)))
    monkeypatch.setattr(AmiliSensor, "time", world.time)
    monkeypatch.setattr(AmiliTrigger, "time", world.time)
    base = sys.modules[BaseSensorOperator.__module__]
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: world.now, sleep=world.pass_time))
    monkeypatch.setattr(base, "timezone", SimpleNamespace(utcnow=lambda: _date(world.now)))


def _date(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def run(mode: str, world: World, make: Callable[..., AmiliSensor], **arguments: Any) -> Ending:
    """Run a sensor in *mode* until it ends, as a worker and a triggerer would."""

    def sensor() -> AmiliSensor:
        chosen = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
        return make(task_id="wait", **{"poke_interval": 60, **chosen, **arguments})

    try:
        xcom = {"poke": _poke, "reschedule": _reschedule, "deferrable": _defer}[mode](world, sensor)
    except AirflowSkipException:
        return Ending("skipped")
    except (AirflowFailException, AirflowSensorTimeout) as error:
        return Ending("failed", type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is how the sensor ended
        return Ending("retry", type(error).__name__)
    return Ending("success", None, json.loads(json.dumps(xcom)))


def _poke(_world: World, sensor: Callable[[], AmiliSensor]) -> Any:
    return sensor().execute({})


def _reschedule(world: World, sensor: Callable[[], AmiliSensor]) -> Any:
    first = None
    while True:
        began = _date(world.now)
        try:
            return sensor().execute(rescheduled(first))
        except Exception as again:
            if type(again).__name__ != "AirflowRescheduleException":
                raise
            first = first or began
            world.now = again.reschedule_date.timestamp()  # type: ignore[attr-defined]


def rescheduled(first: datetime | None) -> Any:
    """Return a context in which Airflow knows the date of the first poke: by the task instance, on 2.11 by a query."""
    base: Any = sys.modules[BaseSensorOperator.__module__]
    if hasattr(base, "_orig_start_date"):
        base._orig_start_date = lambda **_: first
        facts = {"max_tries": 0, "dag_id": "dag", "task_id": "wait", "run_id": "run", "map_index": -1}
        return {"ti": SimpleNamespace(**facts)}
    return {"ti": SimpleNamespace(get_first_reschedule_date=lambda _context: first)}


def _defer(_world: World, sensor: Callable[[], AmiliSensor]) -> Any:
    try:
        return sensor().execute({})
    except TaskDeferred as deferred:
        kwargs = json.loads(json.dumps(deferred.kwargs))
        event = asyncio.run(first_event(rebuilt(deferred.trigger)))
        kwargs["event"] = json.loads(json.dumps(event))
        return sensor().resume_execution(deferred.method_name, kwargs, {})


def rebuilt(trigger: AmiliTrigger) -> AmiliTrigger:
    """Return the trigger as the triggerer makes it from what was stored."""
    path, arguments = json.loads(json.dumps(trigger.serialize()))
    module, _, name = path.rpartition(".")
    made: AmiliTrigger = getattr(importlib.import_module(module), name)(**arguments)
    return made


async def first_event(trigger: AmiliTrigger) -> Any:
    """Return what the trigger's only event says."""
    events = [event.payload async for event in trigger.run()]
    assert len(events) == 1
    return events[0]
