"""The form for the ledger, in a real Airflow: list, settle, adopt, copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amili_provider.ledger import Ledger, State
from tests.dags.conftest import RunDag
from tests.ledger_cases import FILE_TYPE, LOST, facts, file_id_of

_SAID = {"who": "kari", "why": "seen in the portal"}


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The ledger of connection ``amili_default``, with one file whose answer was lost."""
    url = (tmp_path / "ledger").as_uri()
    extra = {"environment": "staging", "client_no": "10042", "ledger": url}
    connection = {"conn_type": "amili", "login": "id", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
    ledger = Ledger.open(url, None, environment="staging", client_no="10042", answer_timeout=600.0)
    file_id = file_id_of(ledger, facts())
    ledger.settle(ledger.claim(ledger.look_up(file_id), facts()), LOST)
    return ledger


def test_every_way_out_can_be_clicked(run_dag: RunDag, ledger: Ledger, tmp_path: Path) -> None:
    """An unknown file is listed, settled as not arrived, adopted, and known in a copy of the ledger."""
    file_id = file_id_of(ledger, facts())

    def clicked(action: str, task_id: str, **form: Any) -> Any:
        outcome = run_dag("amili_ledger", conf={"action": action, **form})
        assert outcome.state == "success", outcome.log
        assert outcome.task_states.pop(task_id) == "success"
        assert set(outcome.task_states) - {"choose"} == {t for t, s in outcome.task_states.items() if s == "skipped"}
        return outcome.xcom[task_id]

    listed = clicked("list unknown", "list_unknown")
    assert [(f["file_id"], f["name"], f["folder"]) for f in listed] == [(file_id, "invoice.csv", "staging/10042")]

    settled = clicked("settle as not arrived", "settle", file_ids=[file_id], **_SAID)
    assert settled == [{"file_id": file_id, "name": "invoice.csv", "outcome": "not_sent", "attempt": 2}]
    assert ledger.look_up(file_id).state is State.FREE

    (tmp_path / "sent.csv").write_bytes(b"invoice 1")
    adopted = clicked("adopt", "adopt", source=(tmp_path / "sent.csv").as_uri(), file_type=FILE_TYPE, **_SAID)
    assert [(f["file_id"], f["outcome"]) for f in adopted] == [(file_id, "adopted")]

    copied = clicked("copy", "copy", copy_to=(tmp_path / "copy").as_uri())
    assert copied == {"copied": 3, "same": 0, "differing": [], "live": []}
    with Ledger.open(
        (tmp_path / "copy").as_uri(), None, environment="staging", client_no="10042", answer_timeout=600.0
    ) as copy:
        receipt = copy.look_up(file_id).first_receipt
    assert receipt is not None
    assert (receipt.settled_by, receipt.dag_id, receipt.task_id) == ("kari", "amili_ledger", "adopt")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"action": "settle as arrived", "file_ids": [], **_SAID}, "'File ids' is empty"),
        ({"action": "adopt", **_SAID}, "'Source' is empty"),
        ({"action": "copy"}, "'Copy to' is empty"),
        ({"action": "list unknown", "ledger": "none"}, "Fill in 'Ledger folder'"),
    ],
)
def test_an_incomplete_form_says_what_is_missing(ledger: Ledger, form: dict[str, Any], words: str) -> None:
    """The task fails with one sentence that names the field."""
    from amili_provider.ledger import desk

    assert ledger.folder.exclusive
    fields = ("client_no", "ledger", "who", "why", "file_ids", "source", "source_conn_id", "file_type", "dry_run")
    defaults = dict.fromkeys((*fields, "copy_to", "copy_to_conn_id"))
    context = {"params": {**defaults, "amili_conn_id": "amili_default", **form}}
    act = {"settle as arrived": desk.settle, "adopt": desk.adopt, "copy": desk.copy}.get(
        form["action"], desk.list_unknown
    )
    with pytest.raises(ValueError, match=words):
        act(context)
