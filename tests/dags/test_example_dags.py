"""The example DAGs, unchanged, on a real Airflow against a local Amili and a local S3."""

from __future__ import annotations

import hashlib
from typing import Any

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import RunDag


def test_daily_upload_delivers_the_day_once(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """Green with a receipt per file; a second run of the same day sends nothing."""
    days = {"2025-03-01": [b"one", b"two"], "2025-03-02": [b"other day"]}
    for day, contents in days.items():
        for number, content in enumerate(contents):
            s3.put_object(Bucket="invoices", Key=f"outbound/{day}/inv {number}.csv", Body=content)
    for expected in ("uploaded", "already_uploaded"):
        outcome = run_dag("amili_daily_upload", day="2025-03-01")
        assert outcome.state == "success"
        receipts = outcome.xcom["upload_invoices"]
        assert [(r["name"], r["outcome"]) for r in receipts] == [("inv 0.csv", expected), ("inv 1.csv", expected)]
    assert sorted(u.sha256 for u in amili.uploads) == sorted(hashlib.sha256(c).hexdigest() for c in days["2025-03-01"])


def test_daily_upload_fails_with_receipts_where_amili_refuses(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """A refused file fails the task at once, whatever its retries, and the receipts are there."""
    s3.put_object(Bucket="invoices", Key="outbound/2025-03-01/good.csv", Body=b"fine")
    s3.put_object(Bucket="invoices", Key="outbound/2025-03-01/bad.csv", Body=b"REJECT: no such debtor")
    outcome = run_dag("amili_daily_upload", day="2025-03-01")
    assert outcome.state == "failed"
    assert outcome.task_states == {"upload_invoices": "failed"}
    assert {r["name"]: r["outcome"] for r in outcome.xcom["upload_invoices"]} == {
        "good.csv": "uploaded",
        "bad.csv": "rejected",
    }
    assert "no such debtor" in outcome.log
    assert len(amili.uploads) == 1


def test_daily_upload_fails_on_a_day_without_files(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """A lost day is red, and the sentence is in the log; where a day without files is right, it is skipped."""

    def once(dag: Any) -> None:
        dag.get_task("upload_invoices").retries = 0

    outcome = run_dag("amili_daily_upload", day="2025-03-01", change=once)
    assert (outcome.state, outcome.task_states) == ("failed", {"upload_invoices": "failed"})
    assert "No files match s3://invoices/outbound/2025-03-01/*.csv." in outcome.log

    def none_is_right(dag: Any) -> None:
        dag.get_task("upload_invoices").if_no_files = "skip"

    outcome = run_dag("amili_daily_upload", day="2025-03-01", change=none_is_right)
    assert outcome.task_states == {"upload_invoices": "skipped"}
    assert "No files match s3://invoices/outbound/2025-03-01/*.csv." in outcome.log


def test_a_bucket_that_does_not_exist_is_never_a_skip(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """A lost bucket must not read as a day without files."""
    s3.delete_bucket(Bucket="invoices")
    outcome = run_dag("amili_daily_upload", day="2025-03-01")
    assert outcome.task_states["upload_invoices"] in ("failed", "up_for_retry")
    assert "invoices" in outcome.log
