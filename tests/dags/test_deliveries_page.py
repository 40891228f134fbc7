"""The Deliveries page in a real API server of Airflow, to those who are signed in and to those who are not."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from amili_provider.sandbox.server import SandboxServer
from tests.deliveries import HOSTILE, ApiServer, amili_connection, api_server, attempt, date_off, ledger_of, some_weeks
from tests.ledgers import new_ledger

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow shows pages of plugins from 3.1 on")

_DAG = """
import os
from airflow.sdk import DAG
from amili_provider.operators.amili import AmiliFileUploadOperator

with DAG("invoices_to_amili"):
    AmiliFileUploadOperator(
        task_id="upload",
        source=os.environ["DELIVERED"],
        file_type="InvoiciaFormatDocFile",
        amili_conn_id="amili_sandbox",
    )
"""
_DAY = "2026-11-22"
_REFUSED = "row 14: no such <debtor>"


@pytest.fixture(name="server", scope="module", params=["simple", "fab"])
def _server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with a ledger of some weeks, and a task that Amili has refused a file of."""
    if fab := request.param == "fab":
        pytest.importorskip("airflow.providers.fab", reason="FAB's auth manager is a package of its own")
    home, files = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("files")
    (files / "fine.csv").write_text("1")
    (files / "bad.csv").write_text(f"REJECT: {_REFUSED}")
    (home / "dags").mkdir()
    (home / "dags" / "invoices_to_amili.py").write_text(_DAG)
    with SandboxServer() as amili:
        connections = {
            "AIRFLOW_CONN_AMILI_DEFAULT": amili_connection(ledger_of(home / "weeks.db", some_weeks(datetime.now(UTC)))),
            "AIRFLOW_CONN_AMILI_SANDBOX": amili.connection_json(ledger=new_ledger(home)),
            "AIRFLOW_CONN_AMILI_UNNAMED": json.dumps({"conn_type": "amili", "login": "id", "password": "s"}),
            "DELIVERED": str(files),
        }
        with api_server(home, connections, fab=fab) as server:
            command = [sys.executable, "-W", "ignore", "-m", "airflow", "dags", "test", "invoices_to_amili", _DAY]
            # It fails, since Amili refuses a file.
            subprocess.run(command, env=server.environment, check=False, capture_output=True, timeout=300)
            yield server


@pytest.fixture(name="anna", scope="module")
def _anna(server: ApiServer) -> str:
    """An administrator's token."""
    return server.token("anna")


@pytest.fixture(name="vera", scope="module")
def _vera(server: ApiServer) -> str:
    """A viewer's token: she may read DAGs, and no connections."""
    return server.token("vera")


def _run_id(server: ApiServer, token: str) -> str:
    runs = json.loads(server.get("/api/v2/dags/invoices_to_amili/dagRuns", token)[1])["dag_runs"]
    return str(runs[0]["dag_run_id"])


_PATHS = ("/amili/deliveries", "/amili/deliveries.csv", "/amili/deliveries/file/" + "0" * 32, "/amili/task/d/r/t/-1")


@pytest.mark.parametrize("path", _PATHS)
def test_who_is_not_signed_in_sees_nothing(server: ApiServer, path: str) -> None:
    """Without a login every page answers 401, without a file's name and without being kept."""
    status, text, headers = server.get(path)
    assert status == 401
    assert "invoice_" not in text
    assert headers["cache-control"] == "no-store"


def test_an_administrator_sees_everything_and_no_secret(server: ApiServer, anna: str) -> None:
    """The page answers 200 with all deliveries, keeps nothing in caches, loads nothing from elsewhere."""
    status, text, headers = server.get("/amili/deliveries", anna)
    assert status == 200
    assert "invoice_sending_0001.csv" in text
    assert "canary-secret" not in text
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # Neither scripts nor styles but those of files.
    assert re.findall(r"<script(?! src=)|<style| style=| on[a-z]+=", text) == []
    for path in re.findall(r'(?:src|href)="(/amili/static/[^"]+)"', text):
        assert server.get(path)[0] == 200, path


def test_a_viewer_sees_the_runs_of_dags_that_she_may_read(server: ApiServer, vera: str) -> None:
    """Without the right to read connections, only deliveries of DAGs that one may read are listed and counted."""
    status, text, _ = server.get("/amili/deliveries?q=_lost_", vera)
    assert status == 200
    assert "invoice_lost_0001.csv" in text
    assert "invoice_lost_0002.csv" not in text  # of a DAG that is not hers
    assert "1 attempt " in " ".join(text.split())
    assert "weeks.db" not in text
    listed = server.get("/amili/deliveries.csv?q=_lost_", vera)[1]
    assert "invoice_lost_0001.csv" in listed
    assert "invoice_lost_0002.csv" not in listed
    others = attempt("invoice_lost_0002.csv", datetime.now(UTC)).file_id
    assert server.get(f"/amili/deliveries/file/{others}", vera)[0] == 404
    # Of a file whose end a person settled, she sees that it is delivered, but not that person's attempt.
    settled = attempt("invoice_settled_0001.csv", datetime.now(UTC)).file_id
    status, text, _ = server.get(f"/amili/deliveries/file/{settled}", vera)
    assert status == 200
    assert "Amili has accepted this file" in text
    assert "Kari Nordmann" not in text
    assert "1 of them is of DAGs that you may not read" in text


def test_a_file_shows_its_attempts_who_settled_it_and_why(server: ApiServer, anna: str) -> None:
    """A file's page has its attempts in order, Amili's words, who settled and why, and links to run and log."""
    settled = attempt("invoice_settled_0001.csv", datetime.now(UTC)).file_id
    status, text, _ = server.get(f"/amili/deliveries/file/{settled}", anna)
    assert status == 200
    words = ("The connection ended", "PROCESSED/CREATED: Batch is processed", "Kari Nordmann", "case 8123", "attempt 1")
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert "/dags/invoices_to_amili/runs/scheduled__" in text
    assert "/tasks/upload?try_number=1" in text


def test_what_is_not_delivered_is_one_click_and_one_csv(server: ApiServer, anna: str) -> None:
    """The page has a link to all that is not delivered, and the CSV has the same rows."""
    status, text, _ = server.get("/amili/deliveries", anna)
    assert status == 200
    (link,) = re.findall(r'href="(\?[^"]*outcome=not_delivered[^"]*)"', text)
    status, text, _ = server.get(f"/amili/deliveries{link.replace('&amp;', '&')}", anna)
    assert status == 200
    listed = csv.DictReader(io.StringIO(server.get("/amili/deliveries.csv?outcome=not_delivered", anna)[1]))
    rows = list(listed)
    assert {"unknown", "rejected", "being_sent"} == {row["outcome"] for row in rows}
    assert f"{len(rows)} attempts of {len(rows)} files match" in " ".join(text.split())
    assert "invoice_settled_0001.csv" not in text
    assert '<option value="not_delivered" selected>' in text
    assert "Files that no request took (duplicates, unreadable, skipped) are not in the ledger" in text


def test_a_filter_that_hides_what_is_sought_is_said_so(server: ApiServer, anna: str) -> None:
    """Who looks for a delivered file among those not delivered is told of the filter, with a link without it."""
    text = server.get("/amili/deliveries?q=settled_0001&outcome=not_delivered", anna)[1]
    assert "with the outcome <em>Not delivered</em>" in text
    (link,) = re.findall(r'<a href="([^"]*)">Search with any outcome</a>', text)
    assert "invoice_settled_0001.csv" in server.get(f"/amili/deliveries{link.replace('&amp;', '&')}", anna)[1]


def test_the_strip_names_days_and_the_weekday_without_a_delivery(server: ApiServer, anna: str, vera: str) -> None:
    """Each day is told in words, and the weekday on which nothing was delivered stands below the strip."""
    day_off = date_off(datetime.now(UTC))
    for token in (anna, vera):
        status, text, _ = server.get("/amili/deliveries", token)
        assert status == 200
        assert f'aria-label="{day_off:%A, %-d %B %Y}: nothing was sent"' in text
        without = re.findall(r"since=([\d-]+)&amp;until=[\d-]+\">\w{3} \d", text.partition("Weekdays without")[2])
        assert without == ([str(day_off)] if day_off.weekday() < 5 else [])


def test_days_before_the_ledger_are_drawn_as_such(server: ApiServer, anna: str) -> None:
    """Days before the ledger's first attempt are not days without a delivery."""
    text = server.get("/amili/deliveries?conn=amili_sandbox", anna)[1]
    assert text.count(": before the ledger</title>") == 59
    assert f"The ledger begins on {datetime.now(UTC):%-d %B %Y}: of the days before it" in " ".join(text.split())


def test_only_connections_that_one_may_read_are_named(server: ApiServer, anna: str, vera: str) -> None:
    """The choice and the links name no connection to who may read none; one that is named is still asked."""
    text = server.get("/amili/deliveries", anna)[1]
    assert "<option>amili_sandbox</option>" in text
    text = server.get("/amili/deliveries?q=_lost_", vera)[1]
    assert "invoice_lost_0001.csv" in text
    assert "amili_sandbox" not in text
    assert "amili_default" not in text
    (link, *_) = re.findall(r'href="(/amili/deliveries/file/[^"]+)"', text)
    assert "amili_default" not in server.get(link.replace("&amp;", "&"), vera)[1]
    text = server.get("/amili/deliveries?conn=amili_sandbox", vera)[1]
    assert "bad.csv" in text
    assert '<input type="hidden" name="conn" value="amili_sandbox">' in text


def test_html_and_formulas_in_names_do_nothing(server: ApiServer, anna: str) -> None:
    """Markup in a name and in Amili's words is shown as text, and no cell of the CSV is a formula."""
    file_id = attempt(HOSTILE, datetime.now(UTC)).file_id
    for path in (
        "/amili/deliveries?outcome=rejected",
        f"/amili/deliveries/file/{file_id}",
        f"/amili/deliveries?q={quote(HOSTILE)}",
    ):
        status, text, _ = server.get(path, anna)
        assert status == 200
        assert "<script>alert" not in text
        assert "<b>no</b>" not in text
        assert "&lt;script&gt;alert" in text
    status, text, headers = server.get("/amili/deliveries.csv?outcome=rejected", anna)
    assert status == 200
    assert headers["content-disposition"].startswith("attachment")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows if "HYPERLINK" in row["name"]] == [f"'{HOSTILE}"]
    assert {row["outcome"] for row in rows} == {"rejected"}
    assert not any(
        cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values() if cell != "-1"
    )


def test_the_tab_shows_a_task_instance_its_receipts(server: ApiServer, anna: str, vera: str) -> None:
    """A task instance's tab has the receipts that it published, the worst first, and a link to each file's page."""
    run_id = quote(_run_id(server, anna), safe="")
    status, text, _ = server.get(f"/amili/task/invoices_to_amili/{run_id}/upload/%7BMAP_INDEX%7D", vera)
    assert status == 200
    assert "row 14: no such &lt;debtor&gt;" in text
    assert text.index("bad.csv") < text.index("fine.csv")
    (link, *_) = re.findall(r'href="(/amili/deliveries/file/[^"]+)"', text)
    status, text, _ = server.get(link.replace("&amp;", "&"), vera)
    assert status == 200
    assert "bad.csv" in text
    assert "Amili has refused this file" in text
    nothing = server.get(f"/amili/task/invoices_to_amili/{run_id}/another/-1", anna)
    assert nothing[0] == 200
    assert "no receipts" in nothing[1]
    # The button of the task leads there.
    links = server.get(f"/api/v2/dags/invoices_to_amili/dagRuns/{run_id}/taskInstances/upload/links", anna)[1]
    assert f"/dags/invoices_to_amili/runs/{run_id}/tasks/upload/plugin/amili-receipts" in links


def test_what_cannot_be_shown_is_said(server: ApiServer, anna: str, vera: str) -> None:
    """A connection without a ledger, one that is not there, and a day that is none are said in words, not as 500."""
    status, text, _ = server.get("/amili/deliveries?conn=amili_unnamed", anna)
    assert status == 400
    assert 'role="alert"' in text
    status, text, _ = server.get("/amili/deliveries?conn=amili_unnamed", vera)
    assert "administrators see why" in text
    assert server.get("/amili/deliveries?conn=another", anna)[0] == 404
    status, text, _ = server.get("/amili/deliveries?since=yesterday", vera)
    assert status == 400
    assert "is no day" in text


def test_the_plugin_is_without_errors(server: ApiServer, anna: str) -> None:
    """Airflow lists the plugin with its page and its tab, and no error of an import."""
    assert json.loads(server.get("/api/v2/plugins/importErrors", anna)[1])["total_entries"] == 0
    plugins = {one["name"]: one for one in json.loads(server.get("/api/v2/plugins", anna)[1])["plugins"]}
    assert [view["destination"] for view in plugins["amili"]["external_views"]] == ["nav", "task_instance"]


def test_the_page_writes_nothing(server: ApiServer, anna: str) -> None:
    """Whoever looks at the page leaves the ledger's file as it was."""
    path = Path(server.environment["AIRFLOW_HOME"], "weeks.db")
    before = path.read_bytes()
    assert server.get("/amili/deliveries?outcome=unknown", anna)[0] == 200
    assert path.read_bytes() == before


def test_receipts_that_an_xcom_backend_keeps_elsewhere_are_not_called_gone(server: ApiServer, anna: str) -> None:
    """The tab says that it does not read them, and shows the attempts; it is the last test, since it changes XCom."""
    run_id = quote(_run_id(server, anna), safe="")
    entry = f"/api/v2/dags/invoices_to_amili/dagRuns/{run_id}/taskInstances/upload/xcomEntries/return_value"
    body = json.dumps({"value": "file:///xcom/upload.json", "map_index": -1}).encode()
    headers = {"Authorization": f"Bearer {anna}", "Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}{entry}", body, headers, method="PATCH"), timeout=60
    ) as answer:
        assert answer.status == 200
    text = server.get(f"/amili/task/invoices_to_amili/{run_id}/upload/-1", anna)[1]
    assert "XCom backend keeps its receipts elsewhere" in text
    assert "bad.csv" in text
