"""
Every day: upload the day's invoice files from S3 to Amili.

The upload's answer is Amili's documented signal, so this one task is the whole hand-over: it is green only if Amili
accepted every file. A retry, a clear or a second run sends nothing twice: connection ``amili_default`` names a ledger,
which ``amili-ledger create`` has created, once.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from amili_provider.days import LAST_COMPLETE_DAY
from amili_provider.operators.amili import AmiliFileUploadOperator

with DAG(
    dag_id="amili_daily_upload",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo"),
    start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo"),
    catchup=False,
    params={"day": Param(None, type=["null", "string"], format="date")},
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["amili"],
    doc_md=__doc__,
) as dag:
    AmiliFileUploadOperator(
        task_id="upload_invoices",
        source=f"s3://invoices/outbound/{LAST_COMPLETE_DAY}/*.csv",
        source_conn_id="aws_default",
        file_type="InvoiciaFormatDocFile",
    )
