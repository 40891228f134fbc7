"""Names that only some storages can hold: what the message says to do about them works."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from amili_provider.exceptions import AmiliDeliveryFailed
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.server import SandboxServer
from tests.storage.backends.base import OnDisk
from tests.storage.backends.ftp import Ftp
from tests.storage.backends.s3 import S3
from tests.storage.conftest import running


class _Pushed:
    """What the operator needs of a task instance, and what it pushed."""

    dag_id, task_id, run_id, map_index, max_tries, try_number = "dag1", "upload", "run1", -1, 0, 1
    receipts: list[dict[str, Any]]

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep what was pushed."""
        assert key == "return_value"
        self.receipts = value


@pytest.fixture(name="ftp")
def _ftp() -> Iterator[OnDisk]:
    """An FTP server that speaks ISO-8859-1."""
    for server in running(Ftp):
        assert isinstance(server, Ftp)
        server.handler.encoding = "iso-8859-1"  # type: ignore[attr-defined]
        server.begin_day()
        yield server


@pytest.fixture(name="s3")
def _s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An S3 server."""
    for server in running(S3):
        assert isinstance(server, S3)
        server.begin_day()
        monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(server.connection()))
        yield server


def _upload(source: str, **arguments: Any) -> list[dict[str, Any]]:
    operator = AmiliFileUploadOperator(
        task_id="upload", source=source, source_conn_id="partner", file_type="InvoiciaFormatDocFile", **arguments
    )
    return operator.execute({})


def _refused(source: str, **arguments: Any) -> dict[str, Any]:
    """Return the one receipt of a run that cannot send its file."""
    ti = _Pushed()
    operator = AmiliFileUploadOperator(
        task_id="upload", source=source, source_conn_id="partner", file_type="InvoiciaFormatDocFile", **arguments
    )
    with pytest.raises(AmiliDeliveryFailed):
        operator.execute({"ti": ti})  # type: ignore[typeddict-item]
    [receipt] = ti.receipts
    assert receipt["outcome"] == "not_sent"
    return receipt


def test_ftp_names_in_another_character_set(
    ftp: OnDisk, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the extra, also where the file was given another name; with it the file goes out."""
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(ftp.connection()))
    ftp.put("faktura_æ.csv", b"1")
    for arguments in ({}, {"file_name": "{{ file.index }}.csv"}):
        receipt = _refused(ftp.url("*.csv"), **arguments)
        assert receipt["source"].endswith(r"/faktura_\xe6.csv")
        assert "'encoding'" in receipt["message"]
    advice = re.search(r"for example '(.*?)'", _refused(ftp.url("*.csv"))["message"])
    assert advice is not None
    connection = {**ftp.connection(), "extra": {"encoding": advice[1]}}
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(connection))
    [receipt] = _upload(ftp.url("*.csv"))
    assert (receipt["outcome"], receipt["name"]) == ("uploaded", "faktura_æ.csv")
    assert [u.name for u in amili_sandbox.uploads] == ["faktura_æ.csv"]


@pytest.mark.parametrize("name", ["ø" * 130 + ".csv", "a." + "b" * 300, " "])
def test_object_names_that_no_disk_holds(name: str, s3: S3, amili_sandbox: SandboxServer) -> None:
    """A name that is too long, or nothing but a blank: the message names a template, which sends the file."""
    s3.put(name, b"1")
    advice = re.search(r"file_name='(.*?)'", _refused(s3.url("*"))["message"])
    assert advice is not None
    [receipt] = _upload(s3.url("*"), file_name=advice[1])
    assert receipt["outcome"] == "uploaded"
    assert [u.name for u in amili_sandbox.uploads] == [receipt["name"]]
