"""What happens when Airflow reads DAG files with our operators and sensors in them: nothing but imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.dags.conftest import EXAMPLES

_READ = """
import datetime, importlib, json, os, runpy, sys
import airflow.providers.common.compat.sdk as sdk
from airflow.triggers.base import BaseTrigger

# What Airflow does for itself once, when the first DAG, asset or date is made, comes before.
asked = [sdk.BaseOperator, sdk.BaseSensorOperator, sdk.Param, sdk.task, sdk.conf, sdk.mask_secret]
sdk.DAG(dag_id="first", schedule="@daily", start_date=datetime.datetime(2025, 1, 1))
sdk.Asset("s3://bucket/key")

def refuse(*asked, **_):
    raise AssertionError(f"asked for {asked} at parse")

for owner in (sdk.BaseHook, sdk.Connection):
    for name in ("get", "get_connection", "get_connection_from_secrets", "async_get", "aget_connection"):
        if hasattr(owner, name):
            setattr(owner, name, refuse)

def listen(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event.startswith(("socket.", "subprocess.")) or event in ("os.mkdir", "os.rename", "os.remove"):
        done.append([event, repr(arguments)])

done, before = [], set(sys.modules)
sys.addaudithook(listen)
for module in ("operators.amili", "operators.buckets", "sensors.amili", "triggers.amili"):
    importlib.import_module(f"amili_provider.{module}")
ours = set(sys.modules) - before
found = []
for file in sys.argv[1:]:
    values = runpy.run_path(file).values()
    found += [value.dag_id for value in values if isinstance(value, sdk.DAG)]
print(json.dumps({"done": done, "dags": sorted(found), "imported": sorted(ours)}))
"""
_HEAVY = (
    "httpx",
    "pydantic",
    "fsspec",
    "upath",
    "boto3",
    "botocore",
    "google.cloud",
    "azure",
    "sqlalchemy",
    "starlette",
    "amili_provider.api",
    "amili_provider.delivery",
    "amili_provider.hooks",
    "amili_provider.ledger",
    "amili_provider.operators.asking",
    "amili_provider.triggers.polling",
    "amili_provider.storage",
    "amili_provider.triggers.clients",
    "amili_provider.triggers.questions",
)
"""What a task, a wait or a triggerer imports when it begins; it would cost each DAG file."""


def test_reading_the_examples_asks_nobody_and_writes_nothing() -> None:
    """In a fresh process: no socket, no connection looked up, nothing written, no heavy import; every DAG is there."""
    files = sorted(str(file) for file in EXAMPLES.glob("*.py"))
    command = [sys.executable, "-B", "-W", "ignore", "-c", _READ, *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["done"] == []
    assert {Path(file).stem for file in files} <= set(told["dags"])
    assert [name for name in told["imported"] if name.startswith(_HEAVY)] == []
