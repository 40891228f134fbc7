"""
What is measured, each in a process of its own: ``python -m tests.suites.benchmarks.contestants NAME JSON``.

A contestant imports what it needs and does its work once on something tiny; only then the clock starts, so that
imports and first uses are in nobody's figure. It prints one line of JSON: seconds, and how far the memory rose above
where it stood when the clock started.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.suites.benchmarks.measuring import curl

FILE_TYPE = "InvoiciaFormatDocFile"
CLIENT_NO = "2218"


def connection(sink: int, **extra: Any) -> str:
    """Return an Airflow connection to the sink, as text."""
    extra = {"auth_url": f"http://127.0.0.1:{sink}", "client_no": CLIENT_NO, "access_token": "none needed", **extra}
    return json.dumps(
        {"conn_type": "amili", "host": "http://127.0.0.1", "port": sink, "schema": "arm/v1", "extra": extra}
    )


def storage_connection(port: int) -> str:
    """Return an Airflow connection to the object server, as text."""
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "key",
            "password": "secret",
            "extra": {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "eu-north-1"},
        }
    )


_THREADS = 16


def ours(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Upload with the operator: list, read, hash, ask the ledger, pack, send, judge, settle, report."""
    if asked.get("storage"):
        os.environ["AIRFLOW_CONN_S3_HERE"] = storage_connection(asked["storage"])
    conn_id = "s3_here" if asked.get("storage") else None
    ledger_conn_id = asked.get("ledger_conn_id")
    if asked.get("database"):
        os.environ["AIRFLOW_CONN_DATABASE"] = f"postgres://airflow@127.0.0.1:{asked['database']}/postgres"
        ledger_conn_id = "database"
    os.environ["AIRFLOW_CONN_AMILI_DEFAULT"] = connection(asked["sink"], ledger_conn_id=ledger_conn_id)
    from amili_provider.hooks.amili import AmiliHook
    from amili_provider.ledger.opening import create_in_file, store_from
    from amili_provider.operators.amili import AmiliFileUploadOperator

    def run(source: str, ledger: str | None, source_conn_id: str | None, **options: Any) -> dict[str, Any]:
        operator = AmiliFileUploadOperator(
            task_id="upload",
            source=source,
            source_conn_id=source_conn_id,
            file_type=FILE_TYPE,
            ledger=ledger,
            **options,
        )
        receipts = operator.execute({})
        requests = len({receipt["request"] for receipt in receipts})
        return {"outcomes": dict(Counter(receipt["outcome"] for receipt in receipts)), "requests": requests}

    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder, "warm-up.csv")
        tiny.write_bytes(os.urandom(1000))
        run(str(tiny), create_in_file(f"{folder}/ledger.db"), None)
    if asked["ledger"]:
        with closing(store_from(asked["ledger"], AmiliHook().settings, create=True)) as store:
            store.create()
    if conn_id:
        run(asked["warm_up"], None, conn_id)
    return lambda: run(asked["source"], asked["ledger"], conn_id, **asked.get("options", {}))


def nothing(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Be a task of Airflow that does nothing."""
    from airflow.providers.common.compat.sdk import BaseOperator

    class Nothing(BaseOperator):
        def execute(self, context: Any) -> None:
            """Do nothing."""

    def run() -> dict[str, Any]:
        Nothing(task_id="nothing").execute({})
        return {}

    return run


def obvious(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Upload one file as the first draft of any script does it."""
    import httpx

    url = f"http://127.0.0.1:{asked['sink']}/arm/v1/clients/{CLIENT_NO}/files"
    httpx.post(url, json={"files": []})

    def run() -> dict[str, Any]:
        content = base64.b64encode(Path(asked["source"]).read_bytes()).decode()
        file = {"type": FILE_TYPE, "name": "invoices.csv", "content": content, "fileId": "one"}
        answer = httpx.post(url, json={"files": [file]}, timeout=600)
        return {"outcomes": {answer.json()["files"][0]["result"]: 1}}

    return run


def loop(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Upload a folder file by file over one kept connection."""
    import httpx

    url = f"http://127.0.0.1:{asked['sink']}/arm/v1/clients/{CLIENT_NO}/files"
    client = httpx.Client(headers={"Authorization": "Bearer none-needed"}, timeout=600)
    client.post(url, json={"files": []})

    def contents() -> Any:
        if not asked.get("storage"):
            for path in sorted(Path(asked["source"]).iterdir()):
                yield path.name, path.read_bytes()
            return
        client, bucket, prefix = _bucket(asked)
        for key in _keys(client, bucket, prefix):
            yield key.rpartition("/")[2], client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def run() -> dict[str, Any]:
        outcomes: Counter[str] = Counter()
        for name, data in contents():
            file = {"type": FILE_TYPE, "name": name, "content": base64.b64encode(data).decode(), "fileId": name}
            answer = client.post(url, json={"files": [file]})
            outcomes[answer.json()["files"][0]["result"]] += 1
        return {"outcomes": dict(outcomes)}

    return run


def by_hand(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Upload the objects of a prefix as a task is first written: Airflow's hook, a loop, a request for each file."""
    import httpx
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    os.environ["AIRFLOW_CONN_S3_HERE"] = storage_connection(asked["storage"])
    url = f"http://127.0.0.1:{asked['sink']}/arm/v1/clients/{CLIENT_NO}/files"
    bucket, _, prefix = asked["source"].removeprefix("s3://").removesuffix("*").partition("/")
    httpx.post(url, json={"files": []})

    def run() -> dict[str, Any]:
        hook, outcomes = S3Hook("s3_here"), Counter[str]()
        for key in hook.list_keys(bucket, prefix=prefix):
            content = base64.b64encode(hook.get_key(key, bucket).get()["Body"].read()).decode()
            file = {"type": FILE_TYPE, "name": key.rpartition("/")[2], "content": content, "fileId": key}
            answer = httpx.post(url, json={"files": [file]}, timeout=600)
            outcomes[answer.json()["files"][0]["result"]] += 1
        return {"outcomes": dict(outcomes)}

    return run


def pull(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Read everything from the storage, with its own library, and throw it away; small objects in sixteen threads."""
    _keys(*_bucket(asked))

    def run() -> dict[str, Any]:
        client, bucket, prefix = _bucket(asked)  # the operator opens its client within its time, too
        if asked["single"]:
            body = client.get_object(Bucket=bucket, Key=prefix)["Body"]
            return {"outcomes": {"bytes": sum(map(len, body.iter_chunks(1024 * 1024)))}}

        def size(key: str) -> int:
            return len(client.get_object(Bucket=bucket, Key=key)["Body"].read())

        with ThreadPoolExecutor(_THREADS) as threads:
            return {"outcomes": {"bytes": sum(threads.map(size, _keys(client, bucket, prefix)))}}

    return run


def hash_and_send(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Do at once what no client can leave out: read and hash here, while curl sends a ready-made body."""
    send = curl(Path(asked["body"]), asked["sink"])
    if asked.get("storage"):
        _keys(*_bucket(asked))

    def blocks() -> Iterator[bytes]:
        if asked.get("storage"):
            client, bucket, key = _bucket(asked)
            yield from client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1024 * 1024)
            return
        with Path(asked["source"]).open("rb", buffering=0) as file:
            yield from iter(lambda: file.read(1024 * 1024), b"")

    def run() -> dict[str, Any]:
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(send)
            digest = hashlib.sha256()
            for block in blocks():
                digest.update(block)
            sent.result()
        return {"outcomes": {digest.hexdigest(): 1}}

    return run


def download(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Download one object to disk, as the storage's library does it: several ranges at once."""
    _keys(*_bucket(asked))

    def run() -> dict[str, Any]:
        client, bucket, key = _bucket(asked)
        with tempfile.NamedTemporaryFile() as target:
            client.download_file(bucket, key, target.name)
            return {"outcomes": {"bytes": Path(target.name).stat().st_size}}

    return run


def push(asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Push bytes at the sink as fast as one core can: what is measured must be slower."""
    import socket

    size = asked["size"] * 4 // 3
    tail = b'", "fileId": "one"}]}'
    head = f"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size + len(tail)}\r\n\r\n"
    block = memoryview(bytes(1024 * 1024))

    def run() -> dict[str, Any]:
        with socket.create_connection(("127.0.0.1", asked["sink"])) as connection:
            connection.sendall(head.encode())
            for position in range(0, size, len(block)):
                connection.sendall(block[: size - position])
            connection.sendall(tail)
            return {"outcomes": {connection.recv(65536)[9:12].decode(): 1}}

    return run


def _bucket(asked: dict[str, Any]) -> tuple[Any, str, str]:
    """Return a client, a bucket, and what the keys that are meant begin with."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        endpoint_url=f"http://127.0.0.1:{asked['storage']}",
        region_name="eu-north-1",
        config=Config(max_pool_connections=_THREADS),
    )
    bucket, _, prefix = asked["source"].removeprefix("s3://").removesuffix("*").partition("/")
    return client, bucket, prefix


def _keys(client: Any, bucket: str, prefix: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [one["Key"] for page in pages for one in page.get("Contents", ())]


CONTESTANTS = {
    "ours": ours,
    "nothing": nothing,
    "obvious": obvious,
    "loop": loop,
    "by_hand": by_hand,
    "pull": pull,
    "hash_and_send": hash_and_send,
    "download": download,
    "push": push,
}


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def measure(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run *work* once; return seconds, processor seconds, and bytes of memory above where it stood."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    idle = _memory("VmRSS")
    began, busy = time.perf_counter(), time.process_time()
    found = work()
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - busy,
        "peak_above_idle": _memory("VmHWM") - idle,
        "idle": idle,
        **found,
    }


def main() -> None:
    """Run one contestant and print its figures."""
    name, asked = sys.argv[1], json.loads(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="amili-bench-home-") as home:
        os.environ["AIRFLOW_HOME"] = home
        logging.disable(logging.INFO)
        work = CONTESTANTS[name](asked)
        figures = measure(work)
        print("FIGURES " + json.dumps(figures), flush=True)  # noqa: T201 - how the parent learns it
        if profile := asked.get("profile"):
            _profile(work, profile)


def _profile(work: Callable[[], dict[str, Any]], where: str) -> None:
    import cProfile

    profiler = cProfile.Profile()
    profiler.runcall(work)
    profiler.dump_stats(where)


if __name__ == "__main__":
    main()
