"""The form for the ledger, in a real Airflow: create, list, find, report, check, settle, adopt, copy."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amili_provider.command import desk
from amili_provider.ledger import Ledger, LedgerState, settling, transfer
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.opening import create_in_file
from amili_provider.ledger.sql import SqlStore
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import RunDag, load_dag
from tests.ledger_cases import FILE_TYPE, LOST, facts, file_id_of

_SAID = {"who": "kari", "why": "seen in the portal"}


@pytest.fixture(name="path")
def _path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the ledger of connection ``amili_default`` is to be."""
    path = tmp_path / "ledger.db"
    extra = {"environment": "staging", "client_no": "10042", "ledger": f"sqlite:///{path}"}
    connection = {"conn_type": "amili", "login": "id", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
    return path


def clicked(action: str, *, user: str | None = None, **fields: Any) -> list[dict[str, Any]]:
    """Do what the form's task does with these fields."""
    params = {name: param.value for name, param in _params().items()}
    context = {
        "params": params | {"action": action, **fields},
        "ti": SimpleNamespace(dag_id="amili_ledger", run_id="manual", task_id="act"),
        "dag_run": SimpleNamespace(triggering_user_name=user),
    }
    return desk.act(context)


def _params() -> Any:
    params = load_dag("amili_ledger").params
    return {name: params.get_param(name) for name in params}


def _open(path: Path) -> Ledger:
    store = SqlStore(sqlite_engine(str(path)), shown="books", path=str(path))
    return Ledger(store, environment="staging", client_no="10042", answer_timeout=600.0)


@pytest.fixture(name="ledger")
def _ledger(path: Path) -> Iterator[Ledger]:
    """That ledger, created, with one file whose answer was lost."""
    create_in_file(path)
    with _open(path) as ledger:
        file_id = file_id_of(ledger, facts())
        claims = ledger.claim([(ledger.look_up([file_id])[file_id], facts())])
        ledger.settle([(claims[0], LOST)])
        yield ledger


def test_the_form_works_in_airflow(run_dag: RunDag, ledger: Ledger) -> None:
    """Its task returns the rows, and its log has all of them."""
    outcome = run_dag("amili_ledger", conf={"action": "list unknown"})
    assert (outcome.state, outcome.task_states) == ("success", {"act": "success"})
    (row,) = outcome.xcom["act"]
    assert (row["file_id"], row["name"]) == (file_id_of(ledger, facts()), "invoice.csv")
    assert all(str(value) in outcome.log for value in row.values())
    outcome = run_dag("amili_ledger", conf={"action": "settle as arrived", "file_ids": [row["file_id"]], "who": "kari"})
    assert outcome.state == "failed"
    assert "'How you know' is empty" in outcome.log


def test_every_action_can_be_clicked(ledger: Ledger, tmp_path: Path) -> None:
    """An unknown file is listed, settled as not arrived, adopted, found, and known in a copy of the ledger."""
    file_id = file_id_of(ledger, facts())
    assert "is created" in clicked("create", ledger=f"sqlite:///{tmp_path}/copy.db")[0]["done"]
    assert "nothing was changed" in clicked("create")[0]["done"]
    (listed,) = clicked("list unknown")
    assert (listed["file_id"], listed["name"], listed["client_no"]) == (file_id, "invoice.csv", "10042")
    (counted,) = clicked("report")
    assert (counted["file_type"], counted["unknown"]) == (FILE_TYPE, 1)

    (settled,) = clicked("settle as not arrived", run=f"{listed['dag_id']}/{listed['run_id']}", **_SAID)
    assert settled == {"file_id": file_id, "name": "invoice.csv", "outcome": "not_sent", "note": "settled now"}
    assert ledger.look_up([file_id])[file_id].state is LedgerState.FREE

    (tmp_path / "sent.csv").write_bytes(b"invoice 1")
    (adopted,) = clicked("adopt", source=(tmp_path / "sent.csv").as_uri(), file_type=FILE_TYPE, **_SAID)
    assert (adopted["file_id"], adopted["outcome"]) == (file_id, "adopted")
    assert clicked("find", find="SENT.CSV", first_day="2026-01-01")[0]["outcome"] == "adopted"
    assert clicked("find", find="SENT.CSV", last_day="2026-01-01") == []

    (copied,) = clicked("copy", copy_to=f"sqlite:///{tmp_path}/copy.db")
    assert copied["done"].startswith("3 attempt(s) are new in ")
    with _open(tmp_path / "copy.db") as copy:
        last = copy.look_up([file_id])[file_id].attempts[-1]
    assert (last.settled_by or "").startswith("kari")
    assert (last.dag_id, last.task_id) == ("amili_ledger", "act")


def test_amili_can_be_asked(amili_sandbox: SandboxServer, tmp_path: Path) -> None:
    """A file whose answer was lost is settled in Amili's words, in the same place."""
    (tmp_path / "lost.csv").write_bytes(b"lost")
    amili_sandbox.faults.add("upload", drop="reset", stage="accepted")
    operator = AmiliFileUploadOperator(task_id="upload", source=f"{tmp_path}/lost.csv", file_type=FILE_TYPE)
    with pytest.raises(Exception, match="unknown"):
        operator.execute({})
    (row,) = clicked("check with Amili")
    assert (row["name"], row["outcome"]) == ("lost.csv", "uploaded")
    assert "PROCESSED/CREATED" in row["note"]
    assert clicked("list unknown") == []
    assert operator.execute({})[0]["outcome"] == "already_uploaded"


def test_the_airflow_user_is_on_record_beside_what_was_typed(path: Path, ledger: Ledger) -> None:
    """Whoever triggered the form stands behind the name that they typed, or for it if they typed none."""
    file_id = file_id_of(ledger, facts())
    clicked("settle as not arrived", user="k.nordmann", file_ids=[file_id], **_SAID)
    assert ledger.look_up([file_id])[file_id].attempts[-1].settled_by == "kari (Airflow user k.nordmann)"
    claims = ledger.claim([(ledger.look_up([file_id])[file_id], facts())])
    ledger.settle([(claims[0], LOST)])
    clicked("settle as arrived", user="k.nordmann", file_ids=[file_id], why="seen")
    assert ledger.look_up([file_id])[file_id].attempts[-1].settled_by == "k.nordmann (Airflow user k.nordmann)"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"action": "settle as arrived", **_SAID}, "by file ids, by a request, or by a DAG and its run"),
        ({"action": "settle as arrived", "request": "1-1", "who": "kari"}, "'How you know' is empty"),
        ({"action": "settle as arrived", "request": "1-1", "why": "seen"}, "'Who says so' is empty"),
        ({"action": "find"}, "'Find' is empty"),
        ({"action": "report", "first_day": "monday"}, "'monday' is no day"),
        ({"action": "adopt", **_SAID}, "'Source' is empty"),
        ({"action": "adopt", "source": "/x", **_SAID}, "'File type' is empty"),
        ({"action": "copy"}, "'Copy to' is empty"),
        ({"action": "list unknown", "ledger": "none"}, "'Ledger' is 'none'"),
    ],
)
def test_an_incomplete_form_says_what_is_missing(ledger: Ledger, fields: dict[str, Any], words: str) -> None:
    """The task fails with one sentence that names the field."""
    with pytest.raises(ValueError) as failed:  # noqa: PT011 - laid out in lines
        clicked(**fields)
    assert words in " ".join(str(failed.value).split())


def test_the_form_and_its_messages_name_the_same_fields() -> None:
    """Each field named in a message is one of the form, and each action of the form is one that can be done."""
    params = _params()
    assert tuple(params["action"].schema["enum"]) == desk.ACTIONS
    titles = {param.schema["title"] for param in params.values()}
    code = "".join(inspect.getsource(module) for module in (desk, settling, transfer))
    named = set(re.findall(r"""_filled\(form, "\w+", "([^"]+)\"""", code))
    named |= set(re.findall(r"'([A-Z][a-z ]+)' is (?:empty|'none')", code))
    named |= set(re.findall(r"""\("([A-Z][a-z ]+)", self\.""", code))
    assert named == {"Find", "Source", "Copy to", "File type", "Ledger", "Who says so", "How you know"}
    assert named <= titles
