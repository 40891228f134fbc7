"""
A worker's place in a real Airflow: a throw-away database, the API server, and task processes that can be killed.

It does for one task at a time what an executor's worker does: Airflow's own supervisor forks the task runner, and the
API server of the same process keeps the task instance's state, retries and XCom. Only the scheduler's loop is missing:
the suite says which task runs next, so that "two at a time" and "a retry comes at once" happen when they are wanted.
Creating runs, scheduling tries, clearing and backfilling are Airflow's functions.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, cast

from tests.chaos.station import StationError, serve

_NOTICE_SECONDS = 0.2
"""How soon the supervisor notices that its task is gone; five seconds by default."""


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
        self,
        *,
        dag_id: str,
        run_id: str,
        conf: dict[str, Any],
        day: str | None,
        until: str | None = None,
        run_type: str = "manual",
        partition: str | None = None,
        after: str | None = None,
    ) -> list[int]:
        """Create a run and return the map indexes of its tasks."""
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        moment, end, due, part = (
            datetime.fromisoformat(at).replace(tzinfo=UTC) if at else None for at in (day, until, after, partition)
        )
        with self._session() as session:
            run = self._dag(dag_id, session).create_dagrun(
                run_id=run_id,
                logical_date=moment,
                data_interval=(moment, end or moment) if moment else None,
                run_after=end or moment or due or datetime.now(UTC),
                run_type=DagRunType(run_type),
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                conf=conf,
                partition_key=partition,
                partition_date=part,
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
            ti=cast("Any", work.ti), bundle_info=work.bundle_info, dag_rel_path=work.dag_rel_path, token="",
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
                "pause": ti.retry_delay_override if str(ti.state) == "up_for_retry" else None,
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

    def backfill(
        self, *, dag_id: str, day: str, until: str | None = None, behavior: str, conf: dict[str, Any] | None
    ) -> list[str]:
        """Backfill a day, or the days *until* another, and return the runs that are to run because of it."""
        from airflow.models.backfill import ReprocessBehavior, _create_backfill

        first, last = (datetime.fromisoformat(d).replace(tzinfo=UTC) for d in (day, until or day))
        _create_backfill(
            dag_id=dag_id, from_date=first, to_date=last, max_active_runs=4, reverse=False, dag_run_conf=conf,
            triggering_user_name="chaos", reprocess_behavior=ReprocessBehavior(behavior),
        )  # fmt: skip
        return self.start_backfill(dag_id=dag_id)

    def start_backfill(self, *, dag_id: str) -> list[str]:
        """Start the runs that a backfill has queued, as the scheduler does, and return them."""
        from airflow.models.backfill import Backfill, BackfillDagRun
        from airflow.models.dagrun import DagRun
        from airflow.utils.state import DagRunState
        from sqlalchemy import select

        with self._session() as session:
            made = session.scalars(select(Backfill).where(Backfill.dag_id == dag_id, Backfill.completed_at.is_(None)))
            backfill = made.one()
            runs = session.scalars(
                select(DagRun)
                .join(BackfillDagRun, BackfillDagRun.dag_run_id == DagRun.id)
                .where(BackfillDagRun.backfill_id == backfill.id, BackfillDagRun.exception_reason.is_(None))
                .order_by(BackfillDagRun.sort_ordinal)
            ).all()
            for run in runs:
                run.state = DagRunState.RUNNING
            backfill.completed_at = datetime.now(UTC)
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


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        _prepare()
    else:
        for module in sys.argv[3:]:
            import_module(module)
        serve(int(sys.argv[2]), _Airflow())
