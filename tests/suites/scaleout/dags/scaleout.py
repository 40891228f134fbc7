"""The shape of ``example_dags/amili_huge_day.py``, with small buckets."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.buckets import AmiliFileBucketsOperator

with DAG(
    dag_id="scaleout",
    schedule=None,
    start_date=datetime(2025, 1, 1),  # noqa: DTZ001 - Airflow reads it in the DAG's time zone
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5)},
) as dag:
    buckets = AmiliFileBucketsOperator(
        task_id="buckets",
        source="s3://day/**",
        source_conn_id="aws_default",
        max_files_per_bucket=int(os.environ["SCALEOUT_FILES_PER_BUCKET"]),
    )
    upload = AmiliFileUploadOperator.partial(
        task_id="upload", source_conn_id="aws_default", file_type="InvoiciaFormatDocFile", pool="amili"
    ).expand(source=buckets.output)

    @task(trigger_rule="all_done", retries=0)
    def outcomes(receipts: Any) -> dict[str, int]:
        """Count the outcomes over all buckets."""
        return dict(Counter(receipt["outcome"] for bucket in receipts for receipt in bucket))

    outcomes(upload.output)
