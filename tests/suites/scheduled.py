"""
Which folder does a scheduled run of the README's first DAG deliver? ``python -m tests.suites.scheduled [PYTHON ...]``.

Each PYTHON has an Airflow and this package; by default it is the one that runs this. A real scheduler of each gets the
DAG as it stands in the README, but for the minutes between retries, finds that a run is due, and has it run, against an
S3 server with a folder for each of some days, and a local Amili. What arrives has to be the folder of the day before,
in Oslo, on each Airflow; likewise if the DAG says ``"@daily"``. Where Airflow has partitions, the same DAG with a
timetable of partitions has to deliver the same day.
"""
# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import boto3
from moto.server import ThreadedMotoServer

from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import new_ledger
from tests.readme import README
from tests.suites.bench.airflow import Airflow, BenchError, until

SECONDS = 300
"""How long an Airflow may take on a machine that is busy with other things; one that is not takes under a minute."""
SOURCES = ("outbound", "daily", "partitions")
"""The folders of the DAG's variants."""
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SCHEDULE = re.compile(r'CronDataIntervalTimetable\(("(\d+) (\d+) \* \* \*", timezone="([\w/]+)")\)')
_KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class FirstDag:
    """The first DAG of the README, and when its runs are due."""

    def __init__(self) -> None:
        found = _BLOCK.search(README.read_text("utf-8"))
        schedule = _SCHEDULE.search(found[1]) if found else None
        if not found or not schedule:
            raise BenchError("the README's first block is no DAG with a daily CronDataIntervalTimetable")
        # On a busy machine Airflow itself may fail at its first try; then nobody wants to wait for minutes.
        self.text = found[1].replace("minutes=5", "seconds=5")
        self.cron = schedule[1]
        self._minute, self._hour, self._zone = int(schedule[2]), int(schedule[3]), ZoneInfo(schedule[4])

    def of_partitions(self) -> str:
        """Return the DAG with partitions of days, and a folder of its own."""
        text = self._with(f"CronPartitionTimetable({self.cron}, run_offset=-1)", "partitions")
        text = text.replace("airflow.timetables.interval import CronData", "airflow.sdk import CronData")
        return text.replace("import CronDataIntervalTimetable", "import CronPartitionTimetable")

    def at_midnight(self) -> str:
        """Return the DAG with the schedule that names no timetable, and a folder of its own."""
        return self._with('"@daily"', "daily")

    def _with(self, schedule: str, folder: str) -> str:
        text = _SCHEDULE.sub(schedule, self.text)
        return text.replace("invoices_to_amili", f"{folder}_to_amili").replace("/outbound/", f"/{folder}/")

    def yesterday(self, folder: str) -> date:
        """Return the day before the one on which the latest run of the DAG with this folder was due."""
        now = datetime.now(self._zone)
        hour, minute = (0, 0) if folder == "daily" else (self._hour, self._minute)
        due = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (due if due <= now else due - timedelta(days=1)).date() - timedelta(days=1)


@contextlib.contextmanager
def s3(dag: FirstDag) -> Iterator[str]:
    """Run an S3 server with files of each day around the one that is due; return its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **_KEYS)
        client.create_bucket(Bucket="invoices")
        for days in range(-3, 4):
            for folder in SOURCES:
                day = dag.yesterday(folder) + timedelta(days=days)
                body = f"{folder} of {day}".encode()
                client.put_object(Bucket="invoices", Key=f"{folder}/{day}/{folder} of {day}.csv", Body=body)
        yield url
    finally:
        server.stop()


def delivered(python: str, dag: FirstDag, s3_url: str, folder: Path) -> tuple[str, dict[str, set[str]]]:
    """Run one Airflow until its runs have ended; return its version, and the days that arrived from each folder."""
    version = subprocess.run(
        [python, "-c", "from importlib.metadata import version; print(version('apache-airflow'))"],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.strip()  # fmt: skip
    number = tuple(map(int, re.findall(r"\d+", version)[:2]))
    dags = {"outbound": dag.text, "daily": dag.at_midnight()}
    if number >= (3, 2):
        dags["partitions"] = dag.of_partitions()
    home = folder / version
    (home / "dags").mkdir(parents=True)
    for name, text in dags.items():
        (home / "dags" / f"{name}.py").write_text(text, "utf-8")
    with SandboxServer() as amili:
        aws = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": {"endpoint_url": s3_url}}
        environment = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_AMILI_DEFAULT": amili.connection_json(ledger=new_ledger(home)),
        }
        services: tuple[str, ...] = ("api-server", "dag-processor", "scheduler")
        if number < (3, 0):
            services = ("scheduler",)
            environment["AIRFLOW__CORE__EXECUTOR"] = "SequentialExecutor"
        url = f"sqlite:///{home}/airflow.db?timeout=60"
        airflow = Airflow(home, url, environment, services=services, python=python)
        with airflow.running():
            _wait(airflow, len(dags))
        names = [upload.name.removesuffix(".csv").split(" of ") for upload in amili.uploads]
        return version, {one: {day for kind, day in names if kind == one} for one in dags}


def _wait(airflow: Airflow, number: int) -> None:
    """Wait until so many scheduled runs have succeeded."""
    states: dict[str, str] = {}

    def ended() -> bool:
        airflow.check()
        database = f"file:{airflow.home}/airflow.db?mode=ro"
        with contextlib.closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
            states.update(connection.execute("SELECT dag_id, state FROM dag_run WHERE run_type = 'scheduled'"))
        if "failed" in states.values():
            raise BenchError("a run has failed")
        return list(states.values()) == ["success"] * number

    try:
        until(f"{number} scheduled run(s) have succeeded", ended, SECONDS)
    except BenchError as error:
        logs = "".join(log.read_text("utf-8", "replace")[-3000:] for log in airflow.home.glob("logs/dag_id=*/**/*.log"))
        raise BenchError(f"{error}; they are {states}\n{airflow.said('scheduler')}\n{logs}") from None


def main() -> int:
    """Run each Airflow; 0 if each has delivered the day before, and nothing else."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.scheduled", description=__doc__)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", default=[sys.executable])
    pythons = parser.parse_args().pythons
    signal.signal(signal.SIGTERM, _told_to_end)
    dag = FirstDag()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="amili-scheduled-", ignore_cleanup_errors=True) as folder, s3(dag) as url:
        for python in pythons:
            began, before = time.monotonic(), {source: dag.yesterday(source) for source in SOURCES}
            version, found = delivered(python, dag, url, Path(folder))
            for source, days in found.items():
                # A run may have become due meanwhile.
                right = {str(before[source]), str(dag.yesterday(source))}
                held = bool(days) and days <= right
                wrong += not held
                said = f"s3://invoices/{source}/: {', '.join(sorted(days)) or 'nothing'}"
                print(f"{'held' if held else 'WRONG'}  Airflow {version:8} {said}; the day before is {before[source]}")
            print(f"      {time.monotonic() - began:.0f} s", flush=True)
    return 1 if wrong else 0


def _told_to_end(*_: Any) -> NoReturn:
    """End as after an error, so that nothing that was started stays."""
    sys.exit("told to end")


if __name__ == "__main__":
    sys.exit(main())
