"""Names that are no text, on a real Airflow: its XCom takes the receipts and the buckets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import RunDag

_DAG = """
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.buckets import AmiliFileBucketsOperator

upload = {"file_type": "InvoiciaFormatDocFile", "retries": 1, "retry_delay": timedelta(0)}
with DAG("odd_names", start_date=datetime(2025, 1, 1), schedule=None) as dag:
    AmiliFileUploadOperator(task_id="upload", source="{folder}/*.csv", **upload)
    buckets = AmiliFileBucketsOperator(task_id="buckets", source="{folder}/*.csv", max_files_per_bucket=1)
    safe = {**upload, "file_name": "{{ file.safe_name }}"}
    AmiliFileUploadOperator.partial(task_id="safe", **safe).expand(source=buckets.output)
"""
_NAMES = (b"good.csv", b"faktura\xe6.csv", b"a\n\x1b[2Jb.csv", b"*.csv")


def test_airflow_takes_what_is_told_of_odd_names(
    amili: SandboxServer, run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receipts are pushed, the task fails once and for good, and mapped uploads deliver each file."""
    folder, dags = tmp_path / "outbound", tmp_path / "dags"
    for new in (folder, dags):
        new.mkdir()
    for name in _NAMES:
        with open(os.fsencode(folder) + b"/" + name, "wb") as out:  # noqa: PTH123 - a name that is no text
            out.write(name)
    # Airflow 3 runs only what it finds in a bundle; 2.11 knows no bundles and runs what it is given.
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "odd", "classpath": local, "kwargs": {"path": str(dags)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
    (dags / "odd_names.py").write_text(_DAG.replace("{folder}", str(folder)), "utf-8")
    run = run_dag("odd_names", file=dags / "odd_names.py")
    assert run.task_states["upload"] == "failed"
    receipts = {r["source"].removeprefix(f"file://{folder}/"): r["outcome"] for r in run.xcom["upload"]}
    odd = {r"faktura\xe6.csv", r"a\x0a\x1b[2Jb.csv"}
    assert receipts == {"good.csv": "uploaded", "*.csv": "uploaded", **dict.fromkeys(odd, "not_sent")}
    assert run.log.count("AmiliDeliveryFailed: 2 of 4") >= 1
    assert "UnicodeEncodeError" not in run.log
    assert sorted(path for [path] in run.xcom["buckets"]) == sorted(
        [f"file://{folder}/good.csv", *(f"exact:file://{folder}/{name}" for name in ("*.csv", *odd))]
    )
    assert run.task_states["safe"] == "success"
    assert sorted(u.size for u in amili.uploads) == sorted(map(len, _NAMES))
