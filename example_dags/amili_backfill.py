"""
Past days again, as often as you like: ``airflow backfill create`` sends what is missing, and nothing twice.

A backfill ends on the day after its last: ``--from-date 2025-01-01 --to-date 2025-02-01`` is January. What the ledger
says was accepted is reported as ``already_uploaded``; a file that was corrected is another file, and is sent.

A person who starts or clears a run, or backfills with ``--dag-run-conf``, can say what is to become of files whose
outcome is unknown, of files whose bytes Amili has under another name, or that everything is to be sent again; Airflow's
own retries do not repeat it.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from amili_provider.days import LAST_COMPLETE_DAY
from amili_provider.operators.amili import AmiliFileUploadOperator

with DAG(
    dag_id="amili_backfill",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo"),
    start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo"),
    catchup=False,
    # However many days are backfilled, so many are on their way to Amili at once.
    max_active_runs=4,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    params={
        "day": Param(None, type=["null", "string"], format="date", title="Day", description="Empty: the run's own."),
        "if_unknown": Param("fail", enum=["fail", "check", "resend"], title="Files whose outcome is unknown"),
        "if_duplicate": Param("fail", enum=["fail", "skip", "send"], title="Files that Amili has under another name"),
        "force": Param(default=False, type="boolean", title="Send again what was accepted"),
        "dry_run": Param(default=False, type="boolean", title="Only say what would be sent"),
    },
    tags=["amili"],
    doc_md=__doc__,
) as dag:
    AmiliFileUploadOperator(
        task_id="upload_invoices",
        source=f"s3://invoices/outbound/{LAST_COMPLETE_DAY}/*.csv",
        source_conn_id="aws_default",
        file_type="InvoiciaFormatDocFile",
        if_unknown="{{ params.if_unknown }}",
        if_duplicate="{{ params.if_duplicate }}",
        force="{{ params.force }}",
        dry_run="{{ params.dry_run }}",
    )
