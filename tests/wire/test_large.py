"""A gibibyte, from disk and from S3: byte-identical, in little memory, and the same again after a 401."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from amili_provider.sandbox.server import SandboxServer

GIB = 1024**3
MOST_MIB_BEYOND_IDLE = 64


def _write_gibibyte(path: Path) -> str:
    """Write a gibibyte that compresses badly enough, and return its hash."""
    digest = hashlib.sha256()
    block = os.urandom(1024 * 1024)
    with path.open("wb") as file:
        for number in range(GIB // len(block)):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _upload(arguments: dict[str, Any], warm_up: list[str]) -> dict[str, Any]:
    arguments = {"file_type": "InvoiciaFormatDocFile", **arguments}
    command = [sys.executable, "-m", "tests.wire.upload_once", json.dumps(arguments), json.dumps(warm_up)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.long
def test_a_gibibyte_from_disk_survives_a_token_that_expires(
    connect: Callable[..., SandboxServer], outbound: Path
) -> None:
    """Byte-identical after a 401 for the whole first request, in less than 64 MiB beyond idling."""
    amili = connect()
    sha256 = _write_gibibyte(outbound / "big.csv")
    (outbound / "small").mkdir()
    (outbound / "small" / "a.csv").write_bytes(b"1")
    amili.faults.add("upload", nth=2, expire_tokens=True, stage="body")
    result = _upload({"source": str(outbound / "big.csv")}, [str(outbound / "small" / "a.csv")])
    assert [r["outcome"] for r in result["receipts"]] == ["uploaded"]
    assert [u.sha256 for u in amili.uploads if u.size == GIB] == [sha256]
    assert [r.status for r in amili.requests if r.kind == "upload"] == [200, 401, 200]
    assert result["beyond_idle_mib"] < MOST_MIB_BEYOND_IDLE


@pytest.mark.long
def test_a_gibibyte_from_s3_is_read_once_and_arrives(
    connect: Callable[..., SandboxServer], outbound: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hashed while it is sent, without a spool; byte-identical, in less than 64 MiB beyond idling."""
    amili = connect()
    sha256 = _write_gibibyte(outbound / "big.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="big")
        client.put_object(Bucket="big", Key="small.csv", Body=b"1")
        client.upload_file(str(outbound / "big.csv"), "big", "big.csv")
        connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": {"endpoint_url": url}}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        try:
            arguments = {"source": "s3://big/big.csv", "source_conn_id": "aws_default"}
            result = _upload(arguments, ["s3://big/small.csv"])
        finally:
            client.close()
            server.stop()
    assert [r["outcome"] for r in result["receipts"]] == ["uploaded"]
    assert [u.sha256 for u in amili.uploads if u.size == GIB] == [sha256]
    assert result["beyond_idle_mib"] < MOST_MIB_BEYOND_IDLE
    assert not list(tmp_path.glob("amili-spool-*"))
