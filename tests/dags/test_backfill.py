"""Past days again, on a real Airflow: its backfills, its partitions and its other kinds of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from amili_provider.sandbox.server import SandboxServer
from tests.chaos import station
from tests.dags.conftest import EXAMPLES

if not AIRFLOW_V_3_3_PLUS:
    pytest.skip("these tests run tasks through parts of Airflow 3.3", allow_module_level=True)

DAG_ID, TASK_ID = "amili_backfill", "upload_invoices"
DAYS = ("2025-03-01", "2025-03-02", "2025-03-03")
UNTIL = "2025-03-04"
"""A backfill of plain dates ends on the day after its last."""
_DAILY = 'schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo")'
OTHERS = {
    "amili_partitioned": (
        "CronPartitionTimetable",
        'CronPartitionTimetable("0 6 * * *", timezone="Europe/Oslo", run_offset=-1)',
    ),
    "amili_on_asset": ("Asset", '[Asset("s3://invoices/outbound")]'),
}


@pytest.fixture(scope="module", name="dags")
def _dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, and the same with other schedules."""
    folder = tmp_path_factory.mktemp("dags")
    example = (EXAMPLES / f"{DAG_ID}.py").read_text("utf-8")
    (folder / f"{DAG_ID}.py").write_text(example, "utf-8")
    for dag_id, (imported, schedule) in OTHERS.items():
        assert example.count(_DAILY) == 1
        changed = example.replace(_DAILY, f"schedule={schedule}").replace(f'"{DAG_ID}"', f'"{dag_id}"')
        changed = changed.replace("import pendulum", f"import pendulum\nfrom airflow.sdk import {imported}", 1)
        (folder / f"{dag_id}.py").write_text(changed, "utf-8")
    return folder


@pytest.fixture(scope="module", name="home")
def _home(dags: Path) -> Path:
    """A throw-away Airflow that knows these DAGs."""
    return station.new_home(dags)


class Backfilled:
    """
    Runs of a throw-away Airflow.

    :param worker: the place where tasks run.
    :param home: the Airflow home.
    :param dags: its DAGs folder.
    """

    def __init__(self, worker: station.Station, home: Path, dags: Path) -> None:
        self._worker = worker
        self._home = home
        self._dags = dags
        self.states: list[str] = []

    def by_command(self, *options: str) -> list[dict[str, Any]]:
        """Run ``airflow backfill create`` as the README has it, then its runs; return all receipts."""
        subprocess.run(
            [sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", DAG_ID, "--from-date", DAYS[0],
             "--to-date", UNTIL, *options],
            env=station.environment(self._home, self._dags), check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        return self._run(self._worker.ask("start_backfill", dag_id=DAG_ID))

    def backfill(self, behavior: str, conf: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Do what the command does, faster."""
        arguments = {"day": DAYS[0], "until": UNTIL, "behavior": behavior, "conf": conf}
        return self._run(self._worker.ask("backfill", dag_id=DAG_ID, **arguments))

    def run(self, dag_id: str, run_id: str, **facts: Any) -> list[dict[str, Any]]:
        """Create a run and run its task."""
        self._worker.ask("create", dag_id=dag_id, run_id=run_id, **{"conf": {}, "day": None, **facts})
        return self._run([run_id], dag_id)

    def _run(self, run_ids: list[str], dag_id: str = DAG_ID) -> list[dict[str, Any]]:
        self.states, receipts = [], []
        for run_id in run_ids:
            log = self._home / "task.log"
            ended = self._worker.ask("attempt", dag_id=dag_id, run_id=run_id, map_index=-1, log=str(log))
            self.states.append(ended["state"])
            receipts += ended["receipts"]
        return receipts


@pytest.fixture(scope="module", name="workers")
def _workers() -> Iterator[list[station.Station]]:
    """The worker, once a test has started it: its connections lead to servers that last as long as the session."""
    workers: list[station.Station] = []
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture(name="airflow")
def _airflow(home: Path, dags: Path, workers: list[station.Station], s3: Any, amili: SandboxServer) -> Backfilled:
    """The throw-away Airflow with a worker that knows this test's S3 and Amili."""
    assert s3
    assert amili
    if not workers:
        imports = ("boto3", "airflow.providers.amazon.aws.hooks.s3")
        workers.append(station.Station(home, "worker", dags=dags, imports=imports))
    return Backfilled(workers[0], home, dags)


def _outcomes(receipts: list[dict[str, Any]]) -> dict[str, str]:
    return {r["source"].partition("/outbound/")[2]: r["outcome"] for r in receipts}


@pytest.mark.long
def test_a_month_again_sends_what_is_missing_and_nothing_twice(
    airflow: Backfilled, s3: Any, amili: SandboxServer
) -> None:
    """Each reprocess behaviour: new days, failed days, all days; corrected files go, the others are reported."""

    def put(day: str, name: str, content: bytes) -> None:
        s3.put_object(Bucket="invoices", Key=f"outbound/{day}/{name}", Body=content)

    for day in DAYS:
        put(day, "a.csv", f"invoices of {day}".encode())
    put(DAYS[1], "b.csv", b"REJECT: no such debtor")

    first = airflow.by_command()
    assert airflow.states == ["success", "failed", "success"]
    assert Counter(_outcomes(first).values()) == {"uploaded": 3, "rejected": 1}

    assert airflow.backfill("none") == []

    put(DAYS[1], "b.csv", b"corrected")
    failed_again = airflow.backfill("failed")
    assert airflow.states == ["success"]
    assert _outcomes(failed_again) == {f"{DAYS[1]}/a.csv": "already_uploaded", f"{DAYS[1]}/b.csv": "uploaded"}

    put(DAYS[2], "late.csv", b"came later")
    put(DAYS[0], "renamed.csv", b"invoices of 2025-03-02")
    all_again = airflow.backfill("completed")
    assert airflow.states == ["failed", "success", "success"]
    assert Counter(_outcomes(all_again).values()) == {"already_uploaded": 4, "uploaded": 1, "duplicate": 1}
    assert _outcomes(all_again)[f"{DAYS[2]}/late.csv"] == "uploaded"
    assert _outcomes(all_again)[f"{DAYS[0]}/renamed.csv"] == "duplicate"

    known = airflow.backfill("failed", {"if_duplicate": "skip"})
    assert airflow.states == ["success"]
    assert set(_outcomes(known).values()) == {"already_uploaded"}
    assert all(r["message"] and r["uploaded_at"] for r in known)

    asked = airflow.backfill("completed", {"dry_run": True, "if_duplicate": "skip"})
    assert airflow.states == ["skipped"] * 3
    assert set(_outcomes(asked).values()) == {"already_uploaded"}

    s3.delete_object(Bucket="invoices", Key=f"outbound/{DAYS[0]}/renamed.csv")
    forced = airflow.backfill("completed", {"force": True})
    assert set(_outcomes(forced).values()) == {"uploaded"}
    assert sorted(Counter(u.sha256 for u in amili.uploads).values()) == [2] * 5


def test_the_day_is_known_however_a_run_came_to_be(airflow: Backfilled, s3: Any, amili: SandboxServer) -> None:
    """Scheduled, of a partition, started by an asset, by a person with and without a day: each finds its files."""
    kinds: dict[str, tuple[str, dict[str, Any], str]] = {
        "scheduled": (
            DAG_ID,
            {"day": "2025-04-01T04:00", "until": "2025-04-02T04:00", "run_type": "scheduled"},
            "2025-04-01",
        ),
        "partition": ("amili_partitioned", {"partition": "2025-04-02T04:00", "run_type": "scheduled"}, "2025-04-02"),
        "asset": ("amili_on_asset", {"run_type": "asset_triggered", "after": "2025-04-04T05:00"}, "2025-04-03"),
        "manual": (DAG_ID, {"after": "2025-04-04T22:01"}, "2025-04-04"),
        "dated": (DAG_ID, {"day": "2025-04-06"}, "2025-04-05"),
        "chosen": (DAG_ID, {"conf": {"day": "2025-04-06"}}, "2025-04-06"),
    }
    for name, (_, _, day) in kinds.items():
        s3.put_object(Bucket="invoices", Key=f"outbound/{day}/{name}.csv", Body=name.encode())
    for name, (dag_id, facts, day) in kinds.items():
        receipts = airflow.run(dag_id, f"{name}-run", **facts)
        assert _outcomes(receipts) == {f"{day}/{name}.csv": "uploaded"}, json.dumps(receipts)
    assert sorted(u.name for u in amili.uploads) == sorted(f"{name}.csv" for name in kinds)
