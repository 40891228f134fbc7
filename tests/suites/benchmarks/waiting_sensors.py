"""
What a thousand sensors that wait cost one triggerer: stalls of its event loop, memory, questions, tokens.

One command: ``python -m tests.suites.benchmarks.waiting_sensors`` (some five minutes; Airflow 3). Each trigger is run
by Airflow's own ``TriggerRunner`` in one event loop, against a local Amili in another process; the same number of
Airflow's own triggers that only sleep is the yardstick. Every event is then given to its sensor, as a worker does.

The promises: no stall of more than 100 ms, under 200 KiB of memory per waiting sensor, all resumed with their result.
asyncio's own debug mode reports stalls by the clock: on a busy machine another process may be the cause. So what a
callback took without the wait for a processor decides, whether it computed or was blocked: see ``stalls``.
"""

# ruff: noqa: T201 - what it prints is its result
from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="amili-waiting-"))

from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.triggers.base import BaseTrigger

from tests.suites.benchmarks.stalls import Stalls

MOST_KIB = 200
_SETTLE_AFTER_POLLS = 3
_OWN_STEPS = "run_all()"


def serve(pipe: Any) -> None:
    """Be an Amili in a process of its own: every file is queued at first, and created later."""
    from amili_provider.sandbox.server import SandboxServer

    with SandboxServer(keep_contents=False) as amili:
        amili.results.set("*", *["queued"] * _SETTLE_AFTER_POLLS, "created")
        pipe.send(amili.connection_json())
        pipe.recv()
        pipe.send({"questions": amili.count("result"), "tokens": amili.tokens.minted, "uploads": len(amili.uploads)})


@contextmanager
def amili() -> Iterator[Callable[[], dict[str, int]]]:
    """Run an Amili; yields what tells what it was asked."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    os.environ["AIRFLOW_CONN_AMILI_DEFAULT"] = ours.recv()

    def told() -> dict[str, int]:
        ours.send("tell")
        found: dict[str, int] = ours.recv()
        return found

    yield told
    process.join(20)


def sleeping(seconds: float) -> BaseTrigger:
    """Return a trigger of Airflow's own that only waits."""
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger

    return DateTimeTrigger(moment=datetime.now(UTC) + timedelta(seconds=seconds))


def waiting(number: int, poke_interval: float) -> BaseTrigger:
    """Return a trigger of ours, as it comes out of the database; sensors begin spread over one interval."""
    from amili_provider.triggers.amili import AmiliFileResultTrigger

    began = time.time() - random.random() * poke_interval
    trigger = AmiliFileResultTrigger(
        file_ids={"2218": [f"{number:032x}"]},
        amili_conn_id="amili_default",
        poke_interval=poke_interval,
        started_at=began,
        deadline=began + 3600,
    )
    return AmiliFileResultTrigger(**json.loads(json.dumps(trigger.serialize()[1])))


def memory() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def run_all(runner: TriggerRunner, triggers: list[BaseTrigger], measure_after: float) -> tuple[int, list[Any]]:
    """Run triggers as the triggerer does; return the memory in mid-wait, and the payloads of their events."""
    for number, trigger in enumerate(triggers):
        trigger.trigger_id = number
        details: Any = {"is_watcher": False, "name": f"trigger {number}", "events": 0}
        runner.triggers[number] = details
    tasks = []
    for number, trigger in enumerate(triggers):
        tasks.append(asyncio.create_task(runner.run_trigger(number, trigger)))
        if number % 50 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(measure_after)
    taken = memory()
    await asyncio.wait(tasks)
    by_number = {entry.trigger_id: entry.event.payload for entry in runner.events}
    return taken, [by_number[number] for number in range(len(triggers))]


def run(triggers: list[BaseTrigger], measure_after: float, *, debug: bool) -> tuple[int, list[Any]]:
    """Run triggers in an event loop; return the memory that they took, and their payloads."""
    runner = TriggerRunner()
    gc.collect()
    before = memory()
    taken, events = asyncio.run(run_all(runner, triggers, measure_after), debug=debug)
    return taken - before, events


def resumed(events: list[Any]) -> int:
    """Give each event to its sensor; return how many have the right XCom."""
    from amili_provider.sensors.amili import AmiliFileResultSensor

    right = 0
    for number, event in enumerate(events):
        file_id = f"{number:032x}"
        sensor = AmiliFileResultSensor(task_id=f"wait_{number}", file_ids=[file_id], deferrable=True)
        context: Any = {}
        found = sensor.resume_execution("execute_complete", {"event": json.loads(json.dumps(event))}, context)
        right += [one["file_id"] for one in found] == [file_id]
    return right


def main() -> None:
    """Measure, and say whether the promises held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sensors", type=int, default=1000)
    parser.add_argument("--poke-interval", type=float, default=30.0)
    parser.add_argument(
        "--no-debug", dest="debug", action="store_false", help="without asyncio's debug mode, as in production"
    )
    chosen = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.WARNING)

    warm_up()
    own, ours = Stalls(_OWN_STEPS), Stalls(_OWN_STEPS)
    pause = chosen.poke_interval
    with own.watched():
        own_bytes, _ = run([sleeping(pause) for _ in range(chosen.sensors)], pause / 2, debug=chosen.debug)
    with amili() as told, ours.watched():
        began = time.monotonic()
        our_bytes, events = run([waiting(n, pause) for n in range(chosen.sensors)], pause * 1.5, debug=chosen.debug)
        seconds = time.monotonic() - began
        asked = told()
    right = resumed(events)
    per_sensor, per_sleeper = (taken / chosen.sensors / 1024 for taken in (our_bytes, own_bytes))
    print(f"sensors                    {chosen.sensors}, poke_interval={pause:g} s, {seconds:.0f} s")
    print(f"resumed with their result  {right}")
    print(f"questions, tokens, posts   {asked['questions']}, {asked['tokens']}, {asked['uploads']}")
    print(f"memory per waiting sensor  {per_sensor:.0f} KiB; a sleeping trigger of Airflow {per_sleeper:.0f} KiB")
    print(f"stalls over 100 ms         {ours.summary()}")
    print(f"  with Airflow's triggers  {own.summary()}")
    if not chosen.debug:
        print("  (asyncio reports by the clock in its debug mode only)")
    for one in sorted(ours.held, key=lambda one: -one.clock)[:3]:
        print(f"  {one}: {one.text[:240]}")
    for took, text in sorted(ours.reported, reverse=True)[:3]:
        print(f"  {took * 1000:.0f} ms by the clock: {text[:240]}")
    held = right == chosen.sensors and per_sensor - per_sleeper < MOST_KIB and not ours.stalls and not asked["uploads"]
    print("held" if held else "NOT HELD")
    raise SystemExit(0 if held else 1)


def warm_up() -> None:
    """Import what a triggerer has long imported when the next thousand triggers come."""
    import amili_provider.api.exchange  # noqa: F401
    from amili_provider.triggers import amili as _triggers  # noqa: F401


if __name__ == "__main__":
    main()
