"""Which day a run takes: each daily DAG of examples and documentation, over both changes of the clock in Oslo."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.configuration import conf
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from amili_provider.days import LAST_COMPLETE_DAY
from amili_provider.operators.amili import AmiliFileUploadOperator
from tests.dags.conftest import EXAMPLES, load_dag
from tests.dags.test_documentation import DAGS, skip_if_older, written
from tests.readme import ROOT

_DAY = re.compile(r"/(\d{4})[-/](\d\d)[-/](\d\d)/")
OSLO = ZoneInfo("Europe/Oslo")
CHANGES = {"to summer time": date(2026, 3, 29), "to winter time": date(2026, 10, 25)}
DAYS = [changed + timedelta(days=days) for changed in CHANGES.values() for days in range(-2, 4)]
"""Days on which runs are due or made: the days of the two changes and those around them."""
FILES = {file.stem.replace("after_", ""): file for file in EXAMPLES.glob("*.py")}
"""The examples by their DAGs; the one for after a delivery has the delivery in it."""
CODE = {**{dag_id: file.read_text("utf-8") for dag_id, file in FILES.items()}, **DAGS}
DAILY = [dag_id for dag_id, code in CODE.items() if "LAST_COMPLETE_DAY" in code]

# What tasks get: Airflow 3 has classes of its own for them.
_AIRFLOW_3 = ("airflow.sdk.api.datamodels._generated", "airflow.sdk.execution_time.macros")
_RUNS, _MACROS = map(import_module, _AIRFLOW_3 if AIRFLOW_V_3_0_PLUS else ("airflow.models.dagrun", "airflow.macros"))


class Runs:
    """
    What tasks of a DAG see of their runs in this Airflow: its own class of runs, filled by the DAG's own timetable.

    :param dag: the DAG.
    """

    def __init__(self, dag: Any) -> None:
        self.dag = dag
        self.timetable = dag.timetable
        self._jinja = dag.get_template_env()

    def scheduled(self, first: datetime, last: datetime | None = None) -> Iterator[tuple[datetime, dict[str, Any]]]:
        """Return the runs that are due from *first* on, with the times when they are."""
        done: DataInterval | None = None
        bounds = TimeRestriction(pendulum.instance(first), pendulum.instance(last) if last else None, catchup=True)
        while info := self.timetable.next_dagrun_info(last_automated_data_interval=done, restriction=bounds):
            done = info.data_interval
            yield info.run_after, self._seen("scheduled", done.start, done, info.run_after)

    def backfilled(self, first: str, last: str) -> list[dict[str, Any]]:
        """Return the runs that a backfill from one date to another makes; those without an offset are UTC."""
        dates = [datetime.fromisoformat(text) for text in (first, last)]
        bounds = [at if at.tzinfo else at.replace(tzinfo=UTC) for at in dates]
        runs = [context["dag_run"] for _, context in self.scheduled(*bounds)]
        for run in runs:
            run.run_type = "backfill"
        return [self._context(run) for run in runs]

    def by_hand(self, now: datetime, logical_date: datetime | None = None, **params: str) -> dict[str, Any]:
        """Return a run that a person asks for, with or without a date."""
        if logical_date is None and not AIRFLOW_V_3_0_PLUS:
            logical_date = now
        # Airflow 3's command infers the interval from the moment, 2.11 from the date.
        moment = pendulum.instance(now if AIRFLOW_V_3_0_PLUS or logical_date is None else logical_date)
        interval = logical_date and self.timetable.infer_manual_data_interval(run_after=moment)
        return self._seen("manual", logical_date, interval, now, **params)

    def by_an_asset(self, now: datetime) -> dict[str, Any]:
        """Return a run that an asset starts; on 2.11 it has the interval of the run that made the asset."""
        if AIRFLOW_V_3_0_PLUS:
            return self._seen("asset_triggered", None, None, now)
        long_ago = pendulum.datetime(2025, 5, 5)
        return self._seen("dataset_triggered", now, DataInterval(long_ago, long_ago), now)

    def of_a_partition(self, partition: datetime, now: datetime) -> dict[str, Any]:
        """Return a run of a partition, as Airflow 3.2 and newer make them."""
        context = self._seen("scheduled", None, None, now)
        return {**context, "partition_date": pendulum.instance(partition), "partition_key": "any text"}

    def _seen(self, kind: str, logical_date: Any, interval: Any, run_after: datetime, **params: str) -> dict[str, Any]:
        # Airflow keeps times in UTC.
        logical_date, run_after = (at and at.astimezone(UTC) for at in (logical_date, run_after))
        if not AIRFLOW_V_3_0_PLUS:
            run = _RUNS.DagRun("a_dag", "a_run", execution_date=logical_date, run_type=kind, data_interval=interval)
            assert not hasattr(run, "run_after")
        else:
            run = _RUNS.DagRun.model_construct(
                run_type=kind,
                logical_date=logical_date,
                data_interval_start=interval and interval.start,
                data_interval_end=interval and interval.end,
                run_after=run_after,
            )
        return self._context(run, **params)

    def _context(self, run: Any, **params: str) -> dict[str, Any]:
        macros = SimpleNamespace(timedelta=timedelta, ds_format=_MACROS.ds_format)
        return {"dag": self.dag, "dag_run": run, "params": {**self.dag.params.dump(), **params}, "macros": macros}

    def days(self, context: dict[str, Any]) -> set[str]:
        """Render what the DAG's uploads list, and return the days in it."""
        found = set()
        for task in self.dag.tasks:
            fields = getattr(task, "partial_kwargs", None) or vars(task)
            mapped = getattr(getattr(task, "expand_input", None), "value", None)
            for template in [fields.get("source"), fields.get("archive_to"), *(mapped or [])]:
                if LAST_COMPLETE_DAY not in str(template):
                    continue
                rendered = json.dumps(task.render_template(template, context, self._jinja))
                found |= {"-".join(day) for day in _DAY.findall(rendered)}
        return found


@pytest.fixture(name="runs", params=DAILY)
def _runs(request: pytest.FixtureRequest, tmp_path: Path) -> Runs:
    """One of the daily DAGs."""
    name = request.param
    skip_if_older(name)
    return Runs(load_dag(name, FILES.get(name) or written(name, tmp_path)))


def yesterday(day: date) -> set[str]:
    """Return the day before."""
    return {str(day - timedelta(days=1))}


def test_every_daily_dag_is_tried() -> None:
    """The first DAG of the README is among them, and none says a day in another way."""
    assert {"invoices_to_amili", "amili_daily_upload", "amili_delivery", "recipe_backfill", "guide_sensor"} <= {*DAILY}
    words = ("{{ ds }}", "logical_date", "data_interval", '"@daily"')
    assert [(name, word) for name, code in CODE.items() for word in words if word in code] == []


def test_a_scheduled_run_takes_yesterday(runs: Runs) -> None:
    """Due on day T, it delivers T - 1 in Oslo; each day has one run, also when the clocks change."""
    for changed in CHANGES.values():
        first = datetime.combine(changed - timedelta(days=3), datetime.min.time(), OSLO)
        for number, (due, context) in zip(range(6), runs.scheduled(first), strict=False):
            assert due.astimezone(OSLO).date() == changed + timedelta(days=number - 2)
            assert runs.days(context) == yesterday(due.astimezone(OSLO).date()), due


def test_a_backfill_takes_its_days(runs: Runs) -> None:
    """From the first day until the day after the last, as plain dates: each day once, and no other."""
    for changed in CHANGES.values():
        days = [str(changed + timedelta(days=number)) for number in range(-2, 4)]
        contexts = runs.backfilled(days[0], days[-1])
        assert [runs.days(context) for context in contexts] == [{day} for day in days[:-1]]


@pytest.mark.parametrize("hour", [0, 5, 23])
def test_a_run_by_hand_takes_yesterday(runs: Runs, hour: int) -> None:
    """Without a date it is the day before now, at any hour; with a date, the day before that."""
    for day in DAYS:
        now = datetime(day.year, day.month, day.day, hour, 30, tzinfo=OSLO)
        assert runs.days(runs.by_hand(now)) == yesterday(day), now
        assert runs.days(runs.by_hand(now + timedelta(days=40), now)) == yesterday(day), now
    on_the_day = datetime(2026, 4, 2, tzinfo=UTC)
    assert runs.days(runs.by_hand(now, on_the_day)) == {"2026-04-01"}


def test_a_run_by_hand_takes_the_day_that_it_is_told(runs: Runs) -> None:
    """The parameter comes first."""
    now = datetime(2026, 3, 29, 12, tzinfo=OSLO)
    assert runs.days(runs.by_hand(now, day="2026-01-31")) == {"2026-01-31"}
    assert runs.days(runs.by_hand(now, now, day="2026-01-31")) == {"2026-01-31"}


def test_a_run_by_an_asset_takes_yesterday(runs: Runs) -> None:
    """The day before the event, whichever run made it."""
    for day in DAYS:
        now = datetime(day.year, day.month, day.day, 0, 15, tzinfo=OSLO)
        assert runs.days(runs.by_an_asset(now)) == yesterday(day)


def test_a_run_of_a_partition_takes_its_day(runs: Runs) -> None:
    """It is the partition's own, in Oslo, whenever the run is made."""
    for day in DAYS:
        midnight = datetime(day.year, day.month, day.day, tzinfo=OSLO).astimezone(UTC)
        assert runs.days(runs.of_a_partition(midnight, midnight + timedelta(days=70))) == {str(day)}


@pytest.mark.parametrize("cron", ["0 0 * * *", "30 2 * * *", "59 23 * * *"])
def test_any_hour_will_do(cron: str, tmp_path: Path) -> None:
    """Another hour in the schedule, also one that a change of the clock leaves out or repeats: each day has one run."""
    timetable = 'CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo")'
    dag = load_dag(
        "recipe_daily", written("recipe_daily", tmp_path, **{timetable: timetable.replace("0 6 * * *", cron)})
    )
    runs = Runs(dag)
    assert isinstance(runs.timetable, CronDataIntervalTimetable)
    for changed in CHANGES.values():
        first = datetime.combine(changed - timedelta(days=3), datetime.min.time(), OSLO)
        days = [runs.days(context) for _, (_, context) in zip(range(6), runs.scheduled(first), strict=False)]
        assert days == [{str(changed + timedelta(days=number))} for number in range(-3, 3)]


@pytest.mark.parametrize(
    ("hour", "bounds"),
    [
        (0, ("2026-03-25T00:00+01:00", "2026-03-27T12:00+01:00")),
        (3, ("2026-03-25", "2026-03-28")),
        (3, ("2026-07-25", "2026-07-28")),
        (23, ("2026-03-25", "2026-03-28")),
    ],
)
def test_the_bounds_of_a_backfill_are_those_of_the_guide(hour: int, bounds: tuple[str, str], tmp_path: Path) -> None:
    """Plain dates hold from 03:00 on, in winter and in summer; at midnight times with an offset do."""
    changes = {'"0 6 * * *"': f'"0 {hour} * * *"'}
    runs = Runs(load_dag("recipe_backfill", written("recipe_backfill", tmp_path, **changes)))
    month = bounds[0][:7]
    days = [runs.days(context) for context in runs.backfilled(*bounds)]
    assert days == [{f"{month}-25"}, {f"{month}-26"}, {f"{month}-27"}]


def test_schedules_of_weekdays_take_the_folders_that_the_guide_says() -> None:
    """Of the one that comes to mind, no run takes Friday's folder; the guide's two miss no weekday's."""
    page = (ROOT / "docs" / "which-day.md").read_text("utf-8")
    chapter = page.partition("## Weekdays only")[2].partition("\n## ")[0]
    taken = {}
    for cron in re.findall(r"`(0 6 [^`]+)`", chapter):
        timetable = CronDataIntervalTimetable(cron, timezone="Europe/Oslo")
        with DAG("weekdays", schedule=timetable, start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo")) as dag:
            AmiliFileUploadOperator(task_id="upload", source=f"s3://invoices/{LAST_COMPLETE_DAY}/*.csv", file_type="T")
        runs = Runs(dag)
        first = datetime(2026, 3, 21, tzinfo=OSLO)
        days = [runs.days(run).pop() for _, run in runs.scheduled(first, first + timedelta(days=14))]
        taken[cron] = {f"{date.fromisoformat(day):%a}" for day in days}
    weekdays = {"Mon", "Tue", "Wed", "Thu", "Fri"}
    assert taken == {
        "0 6 * * 1-5": {"Sun", "Mon", "Tue", "Wed", "Thu"},
        "0 6 * * 2-6": weekdays,
        "0 6 * * *": weekdays | {"Sat", "Sun"},
    }


def test_daily_without_a_timetable_backfills_other_days() -> None:
    """A scheduled run takes the day before on each Airflow; a backfill ends a day earlier on 3, as the guide says."""
    # What Airflow makes of "@daily".
    intervals = conf.getboolean("scheduler", "create_cron_data_intervals")
    timetable = (CronDataIntervalTimetable if intervals else CronTriggerTimetable)("@daily", timezone="UTC")
    with DAG("at_midnight", schedule=timetable, start_date=pendulum.datetime(2025, 1, 1, tz="UTC")) as dag:
        AmiliFileUploadOperator(task_id="upload", source=f"s3://invoices/{LAST_COMPLETE_DAY}/*.csv", file_type="T")
    runs = Runs(dag)
    due, context = next(runs.scheduled(datetime(2026, 3, 28, tzinfo=UTC)))
    assert runs.days(context) == yesterday(due.date())
    first = 24 if AIRFLOW_V_3_0_PLUS else 25
    days = [runs.days(context) for context in runs.backfilled("2026-03-25", "2026-03-28")]
    assert days == [{f"2026-03-{day}"} for day in range(first, first + 4)]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs partitions, and their backfills as Airflow 3.3 makes them")
def test_the_partitions_of_the_guide_are_the_days_before() -> None:
    """Due on day T, the partition is that of T - 1; a backfill of plain dates has the days before its last."""
    words = re.findall(r"`(CronPartitionTimetable\(.+?\))`", (ROOT / "docs" / "which-day.md").read_text("utf-8"))
    timetable = eval(words[0], vars(import_module("airflow.timetables.trigger")))
    for changed in CHANGES.values():
        first = pendulum.datetime(changed.year, changed.month, changed.day - 3, tz="Europe/Oslo")
        last = None
        for _ in range(6):
            bounds = TimeRestriction(first, None, catchup=True)
            last = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=bounds)
            due, partition = (at.astimezone(OSLO).date() for at in (last.run_after, last.partition_date))
            assert partition == due - timedelta(days=1)
        earliest, latest = (datetime(changed.year, changed.month, changed.day + n, tzinfo=UTC) for n in (-2, 1))
        infos = timetable.iter_partition_dagrun_infos(earliest=earliest, latest=latest)
        days = [str(info.partition_date.astimezone(OSLO).date()) for info in infos]
        assert days == [str(changed + timedelta(days=number)) for number in (-2, -1, 0)]
