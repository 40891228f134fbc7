"""
After each delivery: a DAG that is scheduled on what another DAG delivered.

The upload declares the asset as its outlet, and Airflow starts the second DAG when the upload has succeeded. A failed
or skipped upload emits nothing, nor does one that delivered nothing. The event carries what was delivered: counts,
bytes and the first file ids.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset, Param, get_current_context, task
from airflow.timetables.interval import CronDataIntervalTimetable

from amili_provider.days import LAST_COMPLETE_DAY
from amili_provider.operators.amili import AmiliFileUploadOperator

# Any name will do, as long as both DAGs say the same; this one says where the files went: the host and the client.
# Airflow 2.11 calls it a dataset.
delivered = Asset("amili://api.staging.amili.no/2218")

with DAG(
    dag_id="amili_delivery",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Oslo"),
    start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo"),
    catchup=False,
    params={"day": Param(None, type=["null", "string"], format="date")},
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["amili"],
    doc_md=__doc__,
) as delivery:
    AmiliFileUploadOperator(
        task_id="upload_invoices",
        source=f"s3://invoices/outbound/{LAST_COMPLETE_DAY}/*.csv",
        source_conn_id="aws_default",
        file_type="InvoiciaFormatDocFile",
        outlets=[delivered],
    )

with DAG(
    dag_id="amili_after_delivery",
    schedule=[delivered],
    start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Oslo"),
    catchup=False,
    tags=["amili"],
    doc_md=__doc__,
) as dag:

    @task
    def count_deliveries() -> list[dict[str, Any]]:
        """Return what the deliveries that started this run say of themselves."""
        context: Any = get_current_context()
        events = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        # An event that a person made by hand says nothing of deliveries.
        said = (event.extra.get("amili") for of_asset in events.values() for event in of_asset)
        return [one for one in said if one]

    count_deliveries()
