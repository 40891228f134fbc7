"""
Every day: upload the day's invoice files from S3 to Amili, then wait until each has a final result.

The upload itself is green only if Amili accepted every file. The second task asks again later, at an endpoint that is
an assumption (see the README), without holding a worker meanwhile; it fails naming every file that Amili refused.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from amili_provider.days import LAST_COMPLETE_DAY
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sensors.amili import AmiliFileResultSensor

with DAG(
    dag_id="amili_upload_and_check",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo"),
    start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo"),
    catchup=False,
    params={"day": Param(None, type=["null", "string"], format="date")},
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["amili"],
    doc_md=__doc__,
) as dag:
    upload = AmiliFileUploadOperator(
        task_id="upload_invoices",
        source=f"s3://invoices/outbound/{LAST_COMPLETE_DAY}/*.csv",
        source_conn_id="aws_default",
        file_type="InvoiciaFormatDocFile",
    )
    AmiliFileResultSensor(
        task_id="check_results",
        receipts=upload.output,
        deferrable=True,
        poke_interval=60,
        timeout=timedelta(hours=2),
    )
