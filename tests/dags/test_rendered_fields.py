"""What Airflow keeps and shows of a task's arguments."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from airflow.utils.session import create_session

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import RunDag

_DAG = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator

macros = {"signature": "canary%2Fsignature"}
with DAG("signed", schedule=None, start_date=datetime(2025, 1, 1), user_defined_macros=macros) as dag:
    AmiliFileUploadOperator(
        task_id="one", file_type="InvoiciaFormatDocFile", source="{root}/one.csv?se=1&sig={{ signature }}"
    )
    AmiliFileUploadOperator.partial(task_id="many", file_type="InvoiciaFormatDocFile").expand(
        source=["{root}/many.csv?sig={{ signature }}", ["{root}/missing.csv?sig={{ signature }}"]]
    )
"""


class _Pages(BaseHTTPRequestHandler):
    """Files behind signed addresses."""

    def do_GET(self) -> None:
        """Answer only who signs."""
        signed = "sig=canary%2Fsignature" in self.path and "missing" not in self.path
        data = self.path.encode() if signed else b""
        self.send_response(200 if signed else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def test_a_signed_query_is_not_shown(
    tmp_path: Path, amili_sandbox: SandboxServer, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendered fields, receipts and logs of plain and mapped tasks, of good ones and failed ones, hold no signature."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "signed", "classpath": local, "kwargs": {"path": str(tmp_path)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
    file = tmp_path / "signed.py"
    file.write_text(_DAG.replace("{root}", f"http://127.0.0.1:{server.server_address[1]}"), "utf-8")
    try:
        outcome = run_dag("signed", file=file)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    assert outcome.state == "failed"
    assert len(amili_sandbox.uploads) == 2
    with create_session() as session:
        stored = [row.rendered_fields for row in session.query(RenderedTaskInstanceFields).filter_by(dag_id="signed")]
    assert len(stored) == 3
    shown = [json.dumps(stored), json.dumps(outcome.xcom, default=list)]
    if not AIRFLOW_V_3_0_PLUS or AIRFLOW_V_3_1_PLUS:
        # The ``dag.test()`` of 3.0 prints all that a task tells its supervisor, what is to be masked among it.
        shown.append(outcome.log)
    assert all("/many.csv" in text and "/one.csv" in text for text in shown[:2])
    assert not any("canary" in text for text in shown)
