"""
A huge day: list once, and let many workers upload.

One upload task takes what one worker can and stops at ``max_files``, because its receipts are one XCom. Here a first
task lists the day and returns balanced buckets, Airflow makes one upload task of each, and they run wherever there is a
worker. A bucket that fails is retried alone; the ledger keeps every file from being sent twice, also by two tasks. If
they run on several machines, it is a table of a database or a prefix of a bucket, not a file of SQLite.

The pool ``amili`` bounds what all DAGs together put on Amili. It has to exist, or its tasks wait for ever::

    airflow pools set amili 8 "Uploads to Amili at once, over all DAGs"

Each upload has at most ``max_concurrent_requests`` requests in flight, so that is 8 x 4 here.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task
from airflow.timetables.interval import CronDataIntervalTimetable

from amili_provider.days import LAST_COMPLETE_DAY
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.buckets import AmiliFileBucketsOperator

with DAG(
    dag_id="amili_huge_day",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo"),
    start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo"),
    catchup=False,
    params={"day": Param(None, type=["null", "string"], format="date")},
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["amili"],
    doc_md=__doc__,
) as dag:
    buckets = AmiliFileBucketsOperator(
        task_id="buckets",
        source=f"s3://invoices/outbound/{LAST_COMPLETE_DAY}/**",
        source_conn_id="aws_default",
        max_files_per_bucket=1_000,
        max_bytes_per_bucket=10 * 1024**3,
    )
    upload = AmiliFileUploadOperator.partial(
        task_id="upload",
        source_conn_id="aws_default",
        file_type="InvoiciaFormatDocFile",
        max_concurrent_requests=4,
        pool="amili",
    ).expand(source=buckets.output)

    # Also when some uploads failed: those push their receipts, too.
    @task(trigger_rule="all_done", retries=0)
    def outcomes(receipts: Any) -> dict[str, int]:
        """Count the outcomes over all buckets: *receipts* is one list per bucket, read when it is needed."""
        return dict(Counter(receipt["outcome"] for bucket in receipts for receipt in bucket))

    outcomes(upload.output)
