"""
A worker's place in a real Airflow: a throw-away database, the API server, and task processes that can be killed.

A *station* is a process that does for one task at a time what an executor's worker does: Airflow's own supervisor
forks the task runner, and the API server of the same process keeps the task instance's state, retries and XCom.
Only the scheduler's loop is missing: the suite says which task runs next, so that "two at a time" and "a retry
comes at once" happen when they are wanted. Creating runs, scheduling tries, clearing and backfilling are Airflow's
functions. The parent talks to it in lines of JSON over a socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
_ANSWER_SECONDS = 120.0
_NOTICE_SECONDS = 0.2
"""How soon the supervisor notices that its task is gone; five seconds by default."""


class StationError(RuntimeError):
    """The station itself failed: not a finding about the product."""


# The parent's side


def new_home() -> Path:
    """Return a fresh Airflow home whose database is ready."""
    home = Path(tempfile.mkdtemp(prefix="amili-chaos-"))
    with (home / "prepare.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.station", "prepare"],
            env=_environment(home), cwd=REPOSITORY, stdout=log, stderr=log, check=False, timeout=240,
        )  # fmt: skip
    if done.returncode:
        raise StationError((home / "prepare.log").read_text("utf-8", "replace")[-4000:])
    return home


def copy_of(home: Path) -> Path:
    """Return another home, with a copy of the database."""
    copy = Path(tempfile.mkdtemp(prefix="amili-chaos-"))
    for name in ("airflow.db", "airflow.cfg"):
        if (home / name).exists():
            shutil.copyfile(home / name, copy / name)
    return copy


def _environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "AWS_"))}
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{home}/logs",
        "PYTHONPATH": os.pathsep.join(p for p in (str(REPOSITORY), kept.get("PYTHONPATH")) if p),
        "PYTHONWARNINGS": "ignore",
    }


class Station:
    """
    A station, as its parent sees it.

    :param home: the Airflow home; stations may share one.
    :param name: for its log, which lies in the home.
    :param module: what runs there.
    """

    def __init__(self, home: Path, name: str, module: str = "tests.chaos.station") -> None:
        self.log = home / f"{name}.log"
        ours, theirs = socket.socketpair()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", str(theirs.fileno())],
                env=_environment(home), cwd=REPOSITORY, stdout=log, stderr=log, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        theirs.close()
        ours.settimeout(_ANSWER_SECONDS)
        self._socket = ours
        self._lines = ours.makefile("r", encoding="utf-8")

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have something done and return the answer."""
        self.begin(what, **arguments)
        return self.answer()

    def begin(self, what: str, **arguments: Any) -> None:
        """Have something begun."""
        self._socket.sendall(json.dumps([what, arguments]).encode() + b"\n")

    def answer(self) -> Any:
        """Return the answer to what was begun."""
        line = self._lines.readline()
        if not line:
            raise StationError(f"the station ended:\n{self.log.read_text('utf-8', 'replace')[-4000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise StationError(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        """End the station."""
        self._lines.close()
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# The station's side


def _prepare() -> None:
    """Create the database and read the DAGs into it."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import text

    initdb()
    with create_session() as session:
        session.execute(text("PRAGMA journal_mode=WAL"))
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    bundle = next(iter(manager.get_all_dag_bundles()))
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    if bag.import_errors:
        raise StationError(str(bag.import_errors))
    sync_bag_to_db(bag, bundle.name, bundle.version)
    with create_session() as session:
        session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))


class _Airflow:
    """What a scheduler, an executor and a person do, one call each."""

    def __init__(self) -> None:
        from airflow.sdk.execution_time import supervisor

        # Imported before anything is forked: a task process then starts with everything paid.
        import tests.chaos.saboteur  # noqa: F401

        supervisor.MIN_HEARTBEAT_INTERVAL = _NOTICE_SECONDS  # type: ignore[assignment]
        self._client: Any = None

    def create(
        self, *, dag_id: str, run_id: str, conf: dict[str, Any], day: str | None, run_type: str = "manual"
    ) -> list[int]:
        """Create a run and return the map indexes of its tasks."""
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        moment = datetime.fromisoformat(day).replace(tzinfo=UTC) if day else None
        with self._session() as session:
            run = self._dag(dag_id, session).create_dagrun(
                run_id=run_id,
                logical_date=moment,
                data_interval=(moment, moment) if moment else None,
                run_after=moment or datetime.now(UTC),
                run_type=DagRunType(run_type),
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                conf=conf,
                session=session,
            )
            return sorted(ti.map_index for ti in self._task_instances(run, session))

    def attempt(self, *, dag_id: str, run_id: str, map_index: int, log: str) -> dict[str, Any]:
        """Queue the next try of a task, run it to its end, and tell what became of it."""
        from airflow.executors import workloads
        from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor, supervise_task
        from airflow.utils.state import TaskInstanceState

        with self._session() as session:
            ti = self._task_instance(dag_id, run_id, map_index, session)
            run = ti.dag_run
            run.dag = self._dag(dag_id, session)
            ti.task = run.dag.get_task(ti.task_id)
            if not run.schedule_tis([ti], session=session):
                raise StationError(f"Airflow does not schedule a task that is {ti.state}")
            session.commit()
            session.refresh(ti)
            ti.state = TaskInstanceState.QUEUED
            session.commit()
            work = workloads.ExecuteTask.make(ti)
        self._client = self._client or InProcessTestSupervisor._api_client(self)
        code = supervise_task(
            ti=work.ti, bundle_info=work.bundle_info, dag_rel_path=work.dag_rel_path, token="",
            client=self._client, log_path=log,
        )  # fmt: skip
        self._report_to_scheduler(work.ti.key)
        with self._session() as session:
            run = self._run(dag_id, run_id, session)
            run.dag = self._dag(dag_id, session)
            run.update_state(session=session)
        return {**self.look(dag_id=dag_id, run_id=run_id, map_index=map_index), "exit_code": int(code)}

    def look(self, *, dag_id: str, run_id: str, map_index: int) -> dict[str, Any]:
        """Tell the state of a task and what it pushed."""
        from airflow.models.xcom import XComModel

        with self._session() as session:
            ti = self._task_instance(dag_id, run_id, map_index, session)
            pushed = session.scalars(
                XComModel.get_many(
                    run_id=run_id, dag_ids=dag_id, task_ids=ti.task_id, map_indexes=map_index, key="return_value"
                ).with_only_columns(XComModel.value)
            ).first()
            return {
                "state": None if ti.state is None else str(ti.state),
                "try_number": ti.try_number,
                "max_tries": ti.max_tries,
                "receipts": json.loads(pushed) if isinstance(pushed, str) else pushed,
            }

    def clear(self, *, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> None:
        """Clear all tasks of a run, as a person does; *conf* is what the form said."""
        from airflow.models.taskinstance import clear_task_instances
        from airflow.utils.state import DagRunState

        with self._session() as session:
            run = self._run(dag_id, run_id, session)
            clear_task_instances(self._task_instances(run, session), session, dag_run_state=DagRunState.RUNNING)
            if conf is not None:
                run.conf = conf

    def set_conf(self, *, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Say with which parameters a run that has not begun is to run."""
        with self._session() as session:
            self._run(dag_id, run_id, session).conf = conf

    def backfill(self, *, dag_id: str, day: str, behavior: str, conf: dict[str, Any]) -> list[str]:
        """Backfill one day and return the runs that are to run because of it."""
        from airflow.models.backfill import Backfill, BackfillDagRun, ReprocessBehavior, _create_backfill
        from airflow.models.dagrun import DagRun
        from airflow.utils.state import DagRunState
        from sqlalchemy import select

        moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
        made = _create_backfill(
            dag_id=dag_id, from_date=moment, to_date=moment, max_active_runs=4, reverse=False, dag_run_conf=conf,
            triggering_user_name="chaos", reprocess_behavior=ReprocessBehavior(behavior),
        )  # fmt: skip
        with self._session() as session:
            runs = session.scalars(
                select(DagRun)
                .join(BackfillDagRun, BackfillDagRun.dag_run_id == DagRun.id)
                .where(BackfillDagRun.backfill_id == made.id, BackfillDagRun.exception_reason.is_(None))
            ).all()
            for run in runs:
                run.state = DagRunState.RUNNING
            session.get_one(Backfill, made.id).completed_at = datetime.now(UTC)
            return [run.run_id for run in runs]

    @staticmethod
    def settle(**what: Any) -> dict[str, bool]:
        """Settle unknown files by hand; see :mod:`tests.chaos.by_hand`."""
        from tests.chaos import by_hand

        return by_hand.settle(**what)

    @staticmethod
    def _report_to_scheduler(key: Any) -> None:
        """Do what the scheduler does when an executor says that a task process has ended, however it ended."""
        from airflow.executors.base_executor import BaseExecutor
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dagbag import DBDagBag
        from airflow.utils.session import create_session

        executor = BaseExecutor(parallelism=1)
        executor.success(key)
        with create_session() as session:
            SchedulerJobRunner.process_executor_events(
                executor=executor, job_id=None, scheduler_dag_bag=DBDagBag(), session=session
            )

    @staticmethod
    def _session() -> Any:
        from airflow.utils.session import create_session

        return create_session()

    @staticmethod
    def _dag(dag_id: str, session: Any) -> Any:
        from airflow.models.serialized_dag import SerializedDagModel

        return SerializedDagModel.get_dag(dag_id, session=session)

    @staticmethod
    def _run(dag_id: str, run_id: str, session: Any) -> Any:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        return session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()

    @staticmethod
    def _task_instances(run: Any, session: Any) -> list[Any]:
        return list(run.get_task_instances(session=session))

    def _task_instance(self, dag_id: str, run_id: str, map_index: int, session: Any) -> Any:
        run = self._run(dag_id, run_id, session)
        return next(ti for ti in self._task_instances(run, session) if ti.map_index == map_index)


def serve(descriptor: int, servant: Any) -> None:
    """Answer what is asked over the socket *descriptor* with the methods of *servant*, until it is closed."""
    channel = socket.socket(fileno=descriptor)
    for line in _lines(channel):
        what, arguments = json.loads(line)
        try:
            answer = {"answer": getattr(servant, what)(**arguments)}
        except Exception as error:  # noqa: BLE001 - told to the parent, which judges it
            import traceback

            answer = {"error": f"{what}: {error!r}\n{traceback.format_exc()}"}
        channel.sendall(json.dumps(answer, default=str).encode() + b"\n")
    # The API server's threads would keep the process.
    os._exit(0)


def _lines(channel: socket.socket) -> Iterator[str]:
    with contextlib.suppress(ConnectionError), channel.makefile("r", encoding="utf-8") as lines:
        yield from lines


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        _prepare()
    else:
        serve(int(sys.argv[2]), _Airflow())
