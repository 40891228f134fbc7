"""The DAGs of the chaos suite: the operator as any DAG author writes it, with a saboteur before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator
from tests.chaos import saboteur

WHAT_AND_HOW: dict[str, Any] = {
    "file_type": "{{ dag_run.conf['file_type'] }}",
    "amili_conn_id": "{{ dag_run.conf['amili_conn_id'] }}",
    "if_unknown": "{{ dag_run.conf['if_unknown'] }}",
    "if_duplicate": "{{ dag_run.conf['if_duplicate'] }}",
    "force": "{{ dag_run.conf['force'] }}",
    # Some scenarios have nothing but an empty file.
    "if_no_files": "succeed",
}

with DAG(
    dag_id="chaos",
    schedule="@daily",
    start_date=datetime(1990, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(0)},
):
    AmiliFileUploadOperator(
        task_id="upload", source="{{ dag_run.conf['sources'][0] }}", pre_execute=saboteur.arm, **WHAT_AND_HOW
    )

with DAG(
    dag_id="chaos_mapped",
    schedule="@daily",
    start_date=datetime(1990, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(0)},
):
    AmiliFileUploadOperator.partial(task_id="upload", pre_execute=saboteur.arm, **WHAT_AND_HOW).expand(
        source=["{{ dag_run.conf['sources'][0] }}", "{{ dag_run.conf['sources'][1] }}"]
    )
