"""An upload of a folder that the environment names."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator

with DAG(dag_id="refused_file", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    AmiliFileUploadOperator(
        task_id="upload",
        source=f"file://{os.environ['REFUSED_FILE_FOLDER']}/**/*.csv",
        file_type="InvoiciaFormatDocFile",
    )
