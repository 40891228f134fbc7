"""Airflow's log view of a task whose file Amili refused: its words are there to be read as the page opens."""

from __future__ import annotations

import tempfile
from pathlib import Path

from selenium import webdriver

from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import new_ledger
from tests.suites.bench.airflow import Airflow, until
from tests.suites.browser.pages import LogView

_DAG_ID, _TASK_ID = "refused_file", "upload"
_DEEP = "export from the accounting system/legal entity 0001 Norway AS/outgoing invoices/2026/11/22/second attempt"
_NAME = "invoices_2026-11-22_customers_private_0001.csv"
_WORDS = "row 14: no such debtor, the customer number 100042 is not registered with the client of this agreement"
READ = (_NAME, "row 14: no such debtor", "of this agreement", "Correct the rejected files", "1 rejected")
"""What a person has to see, each within one line."""
NOT_READ = ("too short",)
"""What no log of an upload says."""


def look(driver: webdriver.Chrome, picture: Path | None = None) -> list[str]:
    """
    Deliver a file that is refused and whose path is long, and return what cannot be read of it at 1,400 points.

    :param driver: a browser.
    :param picture: where a screenshot goes, if one is wanted; it shows paths of this machine.
    """
    with tempfile.TemporaryDirectory(prefix="amili-log-view-") as folder, SandboxServer() as amili:
        home, share = Path(folder, "home"), Path(folder, "share")
        (share / _DEEP).mkdir(parents=True)
        home.mkdir()
        (share / _DEEP / _NAME).write_text(f"REJECT: {_WORDS}", encoding="utf-8")
        (share / _DEEP / "fine.csv").write_text("1", encoding="utf-8")
        environment = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
            "AIRFLOW_CONN_AMILI_DEFAULT": amili.connection_json(ledger=new_ledger(Path(folder))),
            "REFUSED_FILE_FOLDER": str(share),
        }
        with Airflow(home, f"sqlite:///{home}/airflow.db", environment).running() as airflow:
            until("the DAG is known", lambda: airflow.knows({_DAG_ID}), 240)
            run = airflow.begin(_DAG_ID)
            run.until(_TASK_ID, "failed")
            page = LogView(driver, airflow.url)
            page.resize(1400, 900)
            page.open(_DAG_ID, run.run_id, _TASK_ID)
            if picture is not None:
                page.picture(picture)
            found = [f"not to be read in the log view: {words!r}" for words in READ if not page.shows(words)]
            return found + [f"in the log: {words!r}" for words in NOT_READ if words in run.log(_TASK_ID)]
