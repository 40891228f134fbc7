"""The button on a task instance that leads to its receipts."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS


class AmiliReceiptsLink(BaseOperatorLink):
    """
    Leads to the tab *Amili receipts* of the task instance; before Airflow 3.1, which has none, to its log.

    The log ends with the same receipts in words.
    """

    name = "Amili receipts"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """
        Return where the receipts are.

        :param operator: not needed.
        :param ti_key: which task instance.
        """
        if not AIRFLOW_V_3_0_PLUS:
            asked = {"dag_run_id": ti_key.run_id, "task_id": ti_key.task_id, "tab": "logs"}
            if ti_key.map_index >= 0:
                asked["map_index"] = ti_key.map_index
            base = conf.get("webserver", "base_url", fallback="")
            return f"{base.rstrip('/')}/dags/{quote(ti_key.dag_id, safe='')}/grid?{urlencode(asked)}"
        dag_id, run_id, task_id = (quote(getattr(ti_key, name), safe="") for name in ("dag_id", "run_id", "task_id"))
        index = -1 if ti_key.map_index is None else ti_key.map_index
        mapped = f"/mapped/{index}" if index >= 0 else ""
        tab = "/plugin/amili-receipts" if AIRFLOW_V_3_1_PLUS else ""
        base = conf.get("api", "base_url", fallback="") or ""
        return f"{base.rstrip('/')}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}{tab}"
