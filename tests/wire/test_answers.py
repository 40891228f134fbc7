"""Strange answers, one by one, through the operator: no false green, each with a message of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import AmiliOutcomeUnknown, AmiliUploadRejected
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.garbage import GARBAGE
from amili_provider.sandbox.server import SandboxServer
from tests.wire.conftest import FakeTaskInstance, Upload

SAYS = {
    "html": "not JSON",
    "empty": "the answer is empty",
    "spaces": "the answer is empty",
    "truncated": "not JSON",
    "huge": "larger than",
    "deep": "not JSON",
    "null": "not an object",
    "list": "not an object",
    "text": "not an object",
    "nan": "not JSON",
    "contradictory": "contradicts itself",
    "files-missing": "no 'files'",
    "files-not-a-list": "'files' in the answer is not a list",
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_no_nonsense_is_ever_green(upload: Upload, outbound: Path, amili_sandbox: SandboxServer, name: str) -> None:
    """Each kind of nonsense: a failed task, one POST, receipts that say why, and nothing resent later."""
    for number in range(3):
        (outbound / f"{number}.csv").write_bytes(b"%d" % number)
    amili_sandbox.faults.add("upload", garbage=name)
    ti = FakeTaskInstance()
    with pytest.raises((AmiliOutcomeUnknown, AmiliUploadRejected)) as caught:
        upload(ti)
    failed = [r for r in ti.pushed["return_value"] if r["outcome"] in ("unknown", "rejected")]
    assert failed
    assert all(r["message"] for r in failed)
    assert SAYS.get(name, "") in str(caught.value)
    assert sum(r.kind == "upload" for r in amili_sandbox.requests) == 1


def test_a_mixture_is_told_apart_file_by_file(
    outbound: Path, upload: Upload, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """207 with accepted, rejected, missing and unknown entries: each file has its own outcome."""
    for name in "abcd":
        (outbound / f"{name}.csv").write_bytes(name.encode())
    ti = FakeTaskInstance()
    with pytest.raises(Exception, match="Dry run"):
        upload(ti, dry_run=True)
    ids = {r["name"][0]: r["file_id"] for r in ti.pushed["return_value"]}
    entries = [
        {"fileId": ids["a"], "status": "processed", "result": "created", "message": "fine"},
        {"fileId": ids["b"], "status": "PROCESSED", "result": "REJECTED", "message": "no such\ndebtor"},
        {"fileId": ids["d"], "status": "PROCESSED", "result": "DUPLICATE", "message": "seen it"},
        {"fileId": "somebody-elses", "status": "PROCESSED", "result": "CREATED"},
    ]
    body: dict[str, Any] = {"status": "PARTIAL", "result": None, "files": entries}
    amili_sandbox.faults.add("upload", status=207, body=json.dumps(body), headers={"Content-Type": "application/json"})
    with pytest.raises(AmiliOutcomeUnknown) as caught:
        upload(ti)
    receipts = {r["name"][0]: r for r in ti.pushed["return_value"]}
    assert {k: r["outcome"] for k, r in receipts.items()} == {
        "a": "uploaded",
        "b": "rejected",
        "c": "unknown",
        "d": "unknown",
    }
    assert receipts["b"]["message"] == "no such debtor"
    assert "does not name this file" in receipts["c"]["message"]
    assert "DUPLICATE" in receipts["d"]["message"]
    assert "a.csv" not in str(caught.value)


def test_words_of_another_amili_are_set_on_the_connection(outbound: Path, connect: Any, upload: Upload) -> None:
    """A vocabulary of one's own decides in the operator as it does in the sensor."""
    amili = connect(accepted_results="DONE/STORED", refused_results="NOPE")
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliOutcomeUnknown, match="PROCESSED"):
        upload(ti)
    assert len(amili.uploads) == 1


@pytest.mark.parametrize("result", ["FAILED", "BATCH-REJECTED", "DENIED"])
def test_own_words_never_turn_a_refusal_into_green(outbound: Path, connect: Any, upload: Upload, result: str) -> None:
    """With words of one's own on the connection, what always refuses still refuses, and so do the own words."""
    amili = connect(accepted_results="PROCESSED", refused_results="DENIED")
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    with pytest.raises(Exception, match="Dry run"):
        upload(ti, dry_run=True)
    entry = {"fileId": ti.pushed["return_value"][0]["file_id"], "status": "PROCESSED", "result": result}
    body = json.dumps({"status": "PROCESSED", "result": "CREATED", "files": [entry]})
    amili.faults.add("upload", status=200, body=body, headers={"Content-Type": "application/json"})
    with pytest.raises(AmiliUploadRejected, match=result):
        upload(ti)


def test_a_minimal_context_is_enough(outbound: Path, connect: Any) -> None:
    """Without run, task instance or date the operator still delivers."""
    amili = connect()
    (outbound / "a.csv").write_bytes(b"1")
    operator = AmiliFileUploadOperator(task_id="t", source=str(outbound) + "/", file_type="InvoiciaFormatDocFile")
    assert [r["outcome"] for r in operator.execute({})] == ["uploaded"]
    assert len(amili.uploads) == 1
