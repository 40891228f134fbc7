"""Many scenarios, one after the other in each of several lanes, and a report."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chaos import station
from tests.chaos.directed import scenario_of
from tests.chaos.play import Lane, Violation

Job = tuple[int | str, str | None]
"""A seed, and the bug to plant."""
Found = tuple[Job, str | None, str, float]
"""A job, what was violated (None: nothing), how it went, and the seconds it took."""


def one(seed: int | str, *, bug: str | None = None) -> int:
    """Play one seed and tell every step."""
    wanted = scenario_of(seed)
    sys.stdout.write(f"{wanted}\n")
    home = station.new_home()
    try:
        with Lane(home) as lane:
            violation, _ = _played(lane, (seed, bug), aloud=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    sys.stdout.write(f"{violation or 'every promise held'}\n")
    return 1 if violation else 0


def many(seeds: Sequence[int | str], *, lanes: int) -> int:
    """Play many seeds and report those that violate a promise."""
    started, bad = time.monotonic(), 0
    for number, ((seed, _), violation, story, _) in enumerate(played(((s, None) for s in seeds), lanes=lanes), 1):
        if violation:
            bad += 1
            sys.stdout.write(f"\n{story}\n{violation}\nagain with: python -m tests.chaos --seed {seed!r}\n\n")
        if not number % 10 or violation:
            minutes = (time.monotonic() - started) / 60
            sys.stdout.write(f"{number} of {len(seeds)} scenarios, {bad} with a broken promise, {minutes:.1f} min\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(seeds)} scenarios: {bad} with a broken promise\n")
    return 1 if bad else 0


def mutations(names: Sequence[str], *, lanes: int) -> int:
    """Plant each bug and play the scenarios that are to catch it; one that is not caught is a failure."""
    from tests.chaos.bugs import BUGS

    jobs = [(seed, name) for name in names or BUGS for seed in BUGS[name].caught_by]
    missed = 0
    for (seed, name), violation, story, seconds in played(jobs, lanes=lanes):
        caught = violation is not None and violation.startswith("Violation")
        missed += not caught
        words = violation.splitlines()[0] if caught and violation else f"NOT CAUGHT\n{story}\n{violation or ''}"
        sys.stdout.write(f"{name}, in {seed!r} ({seconds:.1f} s): {words}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(jobs) - missed} of {len(jobs)} planted bugs caught\n")
    return 1 if missed else 0


def played(jobs: Iterable[Job], *, lanes: int, home: Path | None = None) -> Iterator[Found]:
    """
    Yield what each job came to, in the order in which they end.

    :param jobs: seeds, and the bug to plant in each.
    :param lanes: how many at the same time.
    :param home: a prepared Airflow home, if there is one; lanes copy it.
    """
    context = multiprocessing.get_context("spawn")
    throw_away = None if home else station.new_home()
    todo, done = context.Queue(), context.Queue()
    waiting = list(jobs)
    for job in waiting:
        todo.put(job)
    workers = [
        context.Process(target=_work, args=(str(home or throw_away), todo, done), daemon=False) for _ in range(lanes)
    ]
    for worker in workers:
        todo.put(None)
        worker.start()
    try:
        for _ in waiting:
            yield done.get(timeout=300)
    finally:
        for worker in workers:
            worker.join(20)
            if worker.is_alive():
                worker.terminate()
        if throw_away:
            shutil.rmtree(throw_away, ignore_errors=True)


def _work(home: str, todo: Any, done: Any) -> None:
    lane: Lane | None = None
    parent = multiprocessing.parent_process()
    try:
        while (parent is None or parent.is_alive()) and (job := todo.get()) is not None:
            lane = lane or Lane(Path(home))
            started = time.monotonic()
            violation, story = _played(lane, job)
            done.put((job, violation, story, time.monotonic() - started))
            if violation and not violation.startswith("Violation"):
                # The machinery failed: the next scenario gets another.
                lane.close()
                lane = None
    finally:
        if lane is not None:
            lane.close()


def _played(lane: Lane, job: Job, *, aloud: bool = False) -> tuple[str | None, str]:
    seed, bug = job
    wanted = scenario_of(seed)
    story = [str(wanted)]

    def tell(line: str) -> None:
        story.append(line)
        if aloud:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    try:
        lane.play(wanted, bug=bug, tell=tell)
    except Violation as broken:
        return f"Violation: {broken}", "\n".join(story)
    except Exception:  # noqa: BLE001 - reported like a violation, and told apart by its words
        return f"The suite failed: {traceback.format_exc()}", "\n".join(story)
    return None, "\n".join(story)
