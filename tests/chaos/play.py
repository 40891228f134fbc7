"""Plays a scenario: writes files and plans, runs tries, lets people re-run, and looks at both ends after each."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from amili_provider.sandbox.server import SandboxServer
from tests.chaos import checks, ledgers, saboteur
from tests.chaos.scenarios import AN_HOUR, ANSWER_TIMEOUT, Scenario, Step
from tests.chaos.station import Station, copy_of

FILE_TYPE = "InvoiciaFormatDocFile"
ROUNDS_TO_GREEN = 6
"""Tries and re-runs that the end may take; three tries of Airflow, then a person."""


class Violation(AssertionError):  # noqa: N818 - what it is
    """A promise was broken."""


@dataclass(eq=False)
class Task:
    """One task of a scenario, and what became of its last try."""

    dag_id: str
    run_id: str
    map_index: int
    day: str
    conn_id: str
    sandbox: SandboxServer
    conf: dict[str, Any]
    state: str | None = None
    max_tries: int = 0
    pause: float | None = None
    killed: bool = False
    receipts: list[dict[str, Any]] | None = None
    log: Path = Path()

    @property
    def key(self) -> dict[str, Any]:
        """Which task it is, for a station."""
        return {"dag_id": self.dag_id, "run_id": self.run_id, "map_index": self.map_index}


class Lane:
    """
    A place to play scenarios, one after the other: two sandboxes and two stations over one Airflow.

    :param home: a prepared Airflow home; it is copied.
    """

    def __init__(self, home: Path) -> None:
        self._stack = ExitStack()
        self.home = copy_of(home)
        self._stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.stations = [Station(self.home, f"station{n}") for n in (0, 1)]
        for station in self.stations:
            self._stack.callback(station.close)
        self.sandboxes = [self._stack.enter_context(SandboxServer()) for _ in (0, 1)]
        self._scenarios = 0

    def next_number(self) -> int:
        """Return a number that no other scenario of this lane has."""
        self._scenarios += 1
        return self._scenarios

    def play(self, scenario: Scenario, *, bug: str | None = None, tell: Callable[[str], None] | None = None) -> None:
        """
        Play a scenario to its end.

        :param bug: one of :mod:`tests.chaos.bugs`, planted in every try.
        :param tell: called with a line for each thing that happens.
        :raises Violation: if a promise is broken.
        """
        with Play(self, scenario, bug=bug, tell=tell or (lambda _: None)) as play:
            play.run()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Play:
    """
    One scenario being played.

    :param lane: where.
    :param scenario: what.
    :param bug: planted in every try.
    :param tell: called with a line for each thing that happens.
    """

    def __init__(self, lane: Lane, scenario: Scenario, *, bug: str | None, tell: Callable[[str], None]) -> None:
        self._lane = lane
        self._scenario = scenario
        self._bug = bug
        self._tell = tell
        self._number = lane.next_number()
        # Choices that depend on how tasks ended; the same as long as they end alike.
        self._rng = random.Random(f"{scenario.seed} again")
        self._clock = 0.0
        self._if_duplicate = scenario.if_duplicate
        self._runs = 0
        self.folder = Path(tempfile.mkdtemp(prefix=f"seed{slug(scenario.seed)}-", dir=lane.home))
        self.files = self.folder / "outbound"
        self.world = checks.World(scenario, self.files, lane.sandboxes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> None:
        """Play it."""
        self._prepare()
        for number, step in enumerate(self._scenario.steps):
            self._round(step)
            undisturbed = not step.faults and not any(deeds.worker for deeds in step.deeds)
            if not number and undisturbed:
                self.world.check_somebody_sent()
        self._end()

    # Beginning

    def _prepare(self) -> None:
        (self.folder / "plans").mkdir()
        self.files.mkdir()
        self._ledger = ledgers.begin(self.folder)
        for name, content in self._scenario.files.items():
            (self.files / name).write_bytes(content)
        self.world.look_at_files()
        for sandbox in self._lane.sandboxes:
            sandbox.reset()
            sandbox.knows_uploads = not self._scenario.blind
        kind = self._scenario.kind
        sources = [f"{self.files}/*", f"{self.files}/f[0-3].csv" if self._scenario.overlap else f"{self.files}/*"]
        if kind == "mapped":
            self.tasks = self._new_run("chaos_mapped", sources)
        elif kind == "alone":
            self.tasks = self._new_run("chaos", sources)
        else:
            other = {"two connections": "amili_second", "two environments": "amili_elsewhere"}.get(
                kind, "amili_default"
            )
            self.tasks = self._new_run("chaos", sources) + self._new_run("chaos", sources[1:], conn_id=other)

    def _new_run(self, dag_id: str, sources: list[str], conn_id: str = "amili_default") -> list[Task]:
        self._runs += 1
        run_id = f"s{slug(self._scenario.seed)}n{self._number}r{self._runs}"
        # Every run of the lane's Airflow has a day of its own.
        serial = self._number * 40 + self._runs
        day = f"{1990 + serial // 336:04d}-{serial // 28 % 12 + 1:02d}-{serial % 28 + 1:02d}"
        conf = {
            "plans": str(self.folder / "plans"), "sources": sources, "file_type": FILE_TYPE, "amili_conn_id": conn_id,
            "if_unknown": "fail", "if_duplicate": self._if_duplicate, "force": False,
        }  # fmt: skip
        indexes = self._lane.stations[0].ask("create", dag_id=dag_id, run_id=run_id, conf=conf, day=day)
        sandbox = self._lane.sandboxes[1 if conn_id == "amili_elsewhere" else 0]
        return [Task(dag_id, run_id, index, day, conn_id, sandbox, conf) for index in indexes]

    # Rounds

    def _round(self, step: Step) -> None:
        if step.later:
            self._let_an_hour_pass()
        for sandbox in self._lane.sandboxes:
            sandbox.faults.clear()
            for fault in step.faults:
                sandbox.faults.add(**fault)
        self._begin_again(step)
        plans = self._plans(step)
        if step.together and len(self.tasks) > 1:
            self._tries(list(zip(self.tasks, plans, strict=False)))
        else:
            for task, plan in zip(self.tasks, plans, strict=False):
                self._tries([(task, plan)])
        for task in self.tasks:
            if step.pause not in (None, task.pause):
                raise Violation(f"{task.run_id}[{task.map_index}] {task.state}: next try in {task.pause} s")

    def _plans(self, step: Step) -> list[dict[str, Any]]:
        """Return what the saboteur does to each task's try, with the places that only this play knows."""
        plans = [{**deeds.worker} for deeds in step.deeds]
        for plan in plans:
            if "change" in plan:
                plan["change"] = {**plan["change"], "path": str(self.files / plan["change"]["path"])}
        if step.sync and step.together and len(self.tasks) > 1:
            # Long enough for a slow machine where nobody is killed, short where somebody may be.
            patience = 1.5 if any("kill" in plan for plan in plans) else 40.0
            folder = tempfile.mkdtemp(dir=self.folder)
            for me, plan in enumerate(plans):
                plan[step.sync] = {"folder": folder, "me": me, "patience": patience}
        return plans

    def _begin_again(self, step: Step) -> None:
        """Let a person re-run what has ended, and say how what has not begun is to run."""
        ended = [task for task in self.tasks if task.state in ("success", "failed")]
        for task in ended:
            if task in self.tasks:  # else replaced together with another task of its run
                self._rerun(task, step)
        for task in self.tasks:
            if task.state is None and task not in ended:
                self._choose(task, step)

    def _choose(self, task: Task, step: Step) -> None:
        task.conf.update(if_unknown=step.if_unknown, if_duplicate=self._if_duplicate, force=step.force)
        self._lane.stations[0].ask("set_conf", dag_id=task.dag_id, run_id=task.run_id, conf=task.conf)

    def _rerun(self, task: Task, step: Step) -> None:
        if task.state not in ("success", "failed"):
            return  # cleared together with another task of its run
        how = step.again
        conf = {
            **task.conf, "if_unknown": step.if_unknown, "if_duplicate": self._if_duplicate, "force": step.force
        }  # fmt: skip
        station = self._lane.stations[0]
        self._tell(f"{task.run_id}[{task.map_index}] {task.state}: {how} with {step.if_unknown}{' force' * step.force}")
        siblings = [t for t in self.tasks if t.run_id == task.run_id]
        if how.startswith("backfill"):
            run_ids = station.ask(
                "backfill", dag_id=task.dag_id, day=task.day, behavior=how.rpartition(" ")[2], conf=conf
            )
            if task.run_id not in run_ids:
                self._tell("  the backfill leaves it alone")
                return
        elif how == "new run":
            fresh = self._new_run(task.dag_id, conf["sources"], task.conn_id)
            for old, new in zip(siblings, fresh, strict=True):
                self.tasks[self.tasks.index(old)] = new
                self._choose(new, step)
            return
        else:
            station.ask("clear", dag_id=task.dag_id, run_id=task.run_id, conf=conf)
        for sibling in siblings:
            sibling.conf, sibling.state = conf, None

    def _tries(self, tasks: list[tuple[Task, dict[str, Any]]]) -> None:
        """Run one try of each of *tasks* at the same time, and look at what came of it."""
        going = [(t, p) for t, p in tasks if t.state in (None, "up_for_retry")]
        if len(going) < 2:
            going = [(t, {k: v for k, v in p.items() if k not in ("meet", "order")}) for t, p in going]
        written: dict[Station, Path] = {}
        for (task, plan), station in zip(going, self._lane.stations, strict=False):
            written[station] = self._write_plan(task, plan)
            self.world.before(task)
            task.log = self.folder / f"{task.run_id}.{task.map_index}.log"
            station.begin("attempt", **task.key, log=str(task.log))
        for (task, plan), station in zip(going, self._lane.stations, strict=False):
            answer = station.answer()
            if (news := saboteur.unarmed(written[station])).exists():
                raise RuntimeError(f"the saboteur could not carry out {plan}:\n{news.read_text()}")
            task.state, task.receipts, task.max_tries = answer["state"], answer["receipts"], answer["max_tries"]
            task.pause = answer["pause"]
            task.killed = answer["exit_code"] < 0
            self._tell(
                f"{task.run_id}[{task.map_index}] try {answer['try_number']}: {task.state}{' (killed)' * task.killed} "
                f"{checks.counted(task.receipts)} {plan or ''}"
            )
            if written[station].with_suffix(".stopped").exists() and not plan.get("kill") and task.receipts is None:
                self.world.fail(f"told to stop, and no receipts within {saboteur.STOP_SECONDS:.0f} seconds")
            if task.conf["force"]:
                # Whoever clears a task with 'force' asks for one more time; Airflow's retries do not.
                self.world.allow_again(task)
        self._wait_for_sandboxes()
        self.world.look_at_files()
        for task, _ in going:
            self.world.check_try(task)

    def _write_plan(self, task: Task, plan: dict[str, Any]) -> Path:
        first, second = self._lane.sandboxes
        extras = {**self._scenario.extras, **self._ledger}
        whole = {
            **self._scenario.always,
            **plan,
            "clock": self._clock,
            "bug": self._bug,
            "environment": {
                "AIRFLOW_CONN_AMILI_DEFAULT": first.connection_json(**extras),
                "AIRFLOW_CONN_AMILI_SECOND": first.connection_json(**extras),
                "AIRFLOW_CONN_AMILI_ELSEWHERE": second.connection_json(**extras),
            },
        }
        path = self.folder / "plans" / saboteur.plan_name(task.dag_id, task.run_id, task.map_index)
        if "storage" in whole:
            (stopped := path.with_suffix(".stopped")).unlink(missing_ok=True)
            whole["storage"] = {**whole["storage"], "stopped": str(stopped)}
        path.write_text(json.dumps(whole))
        return path

    def _let_an_hour_pass(self) -> None:
        self._wait_for_sandboxes()
        self._clock += AN_HOUR

    def _wait_for_sandboxes(self) -> None:
        for sandbox in self._lane.sandboxes:
            if not sandbox.wait_until_idle(10.0):
                raise RuntimeError("the sandbox still serves a request of a task that has ended")

    # The end: faults are over, an hour passes before each round, people follow what the messages say

    def _end(self) -> None:
        if self._if_duplicate == "fail":
            # What the message says: these are the same files once more.
            self._if_duplicate = "skip"
        for number in range(ROUNDS_TO_GREEN):
            for sandbox in self._lane.sandboxes:
                sandbox.faults.clear()
            self._let_an_hour_pass()
            if all(task.state == "success" for task in self.tasks):
                break
            self.world.mend_refused(self.tasks)
            blind = self._scenario.blind
            if number and (blind or self._amili_is_to_be_asked()):
                self._settle_by_hand()
            how = Step(if_unknown="check" if blind else "resend", again="clear")
            self._begin_again(how)
            for task in self.tasks:
                self._tries([(task, {})])
        self._look_once_more()

    def _amili_is_to_be_asked(self) -> bool:
        """Whether what the result endpoint says of a file may be about an earlier attempt: then a person must ask."""
        receipts = [receipt for task in self.tasks for receipt in task.receipts or []]
        return any(r["outcome"] == "unknown" and "Ask Amili" in r["message"] for r in receipts)

    def _settle_by_hand(self) -> None:
        """Do what the message says: ask the other side, and settle what is unknown."""
        for sandbox in self._lane.sandboxes:
            said = self._lane.stations[0].ask(
                "settle",
                ledger=self._ledger,
                url=sandbox.base_url,
                client_no=next(iter(sandbox.rules.clients)),
                there=[(upload.file_id, upload.name) for upload in sandbox.uploads],
                answer_timeout=ANSWER_TIMEOUT,
                ahead=self._clock,
            )
            self._tell(f"settled by hand: {said}")

    def _look_once_more(self) -> None:
        """A last run over everything: all there, nothing sent."""
        self.world.mend_refused(self.tasks)
        self._let_an_hour_pass()
        for task in list(self.tasks):
            if task in self.tasks and task.state == "success":
                self._rerun(task, Step(again="new run"))
        for task in self.tasks:
            self._tries([(task, {})])
        self.world.check_end(self.tasks)


def slug(seed: int | str) -> str:
    """Return *seed* as a part of names."""
    return "".join(c if c.isalnum() else "_" for c in str(seed))
