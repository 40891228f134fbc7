"""The measurements that are commands of their own, and the one that measures imports."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile

from tests.suites.benchmarks.measuring import ROOT, Row, Scale, note

_LEDGER = re.compile(
    r"^(?P<store>\w+): (?P<empty>[\d.]+) ms an attempt at 0 older, (?P<full>[\d.]+) ms at (?P<older>\d+): "
    r"ratio (?P<ratio>[\d.]+)",
    re.MULTILINE,
)
_RESUMED = re.compile(r"^sensors +(\d+).*?^resumed with their result +(\d+)", re.MULTILINE | re.DOTALL)
_PER_SENSOR = re.compile(
    r"^memory per waiting sensor +(\d+) KiB; a sleeping trigger of Airflow (\d+) KiB", re.MULTILINE
)
_IMPORTS = """
import dataclasses, difflib, ipaddress, json, logging, time, typing, urllib.request
began = time.process_time()
# What every process of Airflow asks of a provider, and so before any DAG.
from amili_provider.get_provider_info import get_provider_info
get_provider_info()
asked = time.process_time() - began
import airflow.providers.common.compat.sdk as sdk
sdk.BaseOperator, sdk.BaseSensorOperator, sdk.BaseHook, sdk.AirflowSkipException, sdk.task
from airflow.triggers.base import BaseTrigger
began = time.process_time()
import amili_provider.operators.amili, amili_provider.operators.buckets, amili_provider.sensors.amili
print(asked + time.process_time() - began)
"""


def _printed(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"tests.suites.benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    note(done.stdout)
    if not done.stdout:
        raise SystemExit(f"{module} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def ledger_cost(scale: Scale) -> list[Row]:
    """What an attempt costs in an empty ledger and in one with many older attempts."""
    quick = ("--attempts", "500", "--older", "5000", "--rounds", "3") if scale.quick else ()
    return [
        Row(
            "e: cost of an attempt in the ledger",
            f"{found['store']}: with {found['older']} older attempts, by that with none",
            float(found["ratio"]),
            promise=1.2,
            detail={"ms_empty": float(found["empty"]), "ms_full": float(found["full"])},
        )
        for found in _LEDGER.finditer(_printed("ledger_cost", *quick))
    ]


def waiting(scale: Scale) -> list[Row]:
    """What sensors that wait cost one triggerer."""
    part = "f: waiting sensors"
    quick = ("--sensors", "100", "--poke-interval", "5") if scale.quick else ()
    printed = _printed("waiting_sensors", *quick)
    resumed, memory = _RESUMED.search(printed), _PER_SENSOR.search(printed)
    if resumed is None or memory is None:
        raise SystemExit(f"waiting_sensors gave no figures:\n{printed}")
    number, right = int(resumed[1]), int(resumed[2])
    kib = int(memory[1]) - int(memory[2])
    return [
        Row(part, f"of {number}, resumed with their result", right, unit="", promise=number, at_least=True),
        Row(part, "memory of one, above a sleeping trigger of Airflow", kib, unit="KiB", promise=200.0),
    ]


def import_cost(scale: Scale) -> list[Row]:
    """What a DAG file pays for our operators and sensors, above Airflow's own base classes: processor time."""
    taken = []
    for _ in range(max(9, scale.rounds)):
        with tempfile.TemporaryDirectory() as home:
            environment = {"AIRFLOW_HOME": home, "PATH": "/usr/bin:/bin"}
            command = [sys.executable, "-W", "ignore", "-c", _IMPORTS]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
            taken.append(float(done.stdout.splitlines()[-1]) * 1000)
    detail = {"milliseconds": [round(one, 1) for one in taken]}
    part = "g: import at DAG parse"
    return [Row(part, "all operators and sensors", statistics.median(taken), unit="ms", promise=10.0, detail=detail)]
