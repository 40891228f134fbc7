"""One DAG per scenario of the bench: upload a folder, then wait for its results."""

from __future__ import annotations

import json
import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sensors.amili import AmiliBatchSensor, AmiliFileResultSensor

# The bench says what a scenario needs: {"name": {"kind": "files" | "batch", arguments of the sensor ...}}, or with the
# kind "upload" those of the upload, which then has no sensor.
SCENARIOS = json.loads(os.environ.get("AMILI_BENCH", "{}"))

for name, arguments in SCENARIOS.items():
    kind = arguments.pop("kind")
    if "response_timeout" in arguments:
        arguments["response_timeout"] = timedelta(seconds=arguments["response_timeout"])
    shared = {"poke_interval": 2, "timeout": 600, "amili_conn_id": f"amili_{name}", **arguments}
    with DAG(
        dag_id=f"bench_{name}",
        schedule=None,
        default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
        tags=["amili"],
    ) as dag:
        if kind == "batch":
            AmiliBatchSensor(task_id="wait", batch_uuid="the-batch", **shared)
        else:
            upload = AmiliFileUploadOperator(
                task_id="upload",
                source=f"{os.environ['AMILI_BENCH_FILES']}/{name}/*.csv",
                file_type="InvoiciaFormatDocFile",
                amili_conn_id=f"amili_{name}",
                **(arguments if kind == "upload" else {}),
            )
        if kind == "files":
            AmiliFileResultSensor(task_id="wait", receipts=upload.output, **shared)
    globals()[f"dag_{name}"] = dag
