"""
Five GiB read to the end, as an upload reads them: length, hash, and memory that does not grow with the file.

Each takes half a minute to some minutes, which is why AMILI_LONG_TESTS=1 has to ask for them.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import end
from tests.storage.backends.azure import Azure
from tests.storage.backends.base import LONG, Backend, OnDisk
from tests.storage.backends.gcs import Gcs
from tests.storage.conftest import BACKENDS, running

_ROOT = Path(__file__).parents[2]
_MIB = 1024 * 1024
SIZE = 5 * 1024**3
# Zeros alone would hide blocks that came in the wrong order, twice or not at all; the marks lie at the borders of
# 31 and 32 bits, and so that no two blocks of any size that is read at a time are the same.
_MARKS = {
    0: b"begin",
    3 * _MIB + 17: b"early",
    2**31 - 4: b"31 bits",
    2**32 - 4: b"32 bits",
    SIZE - 40 * _MIB - 1: b"late",
    SIZE - 3: b"end",
}
_MOST_MIB = 96

# In a process of its own: some of the servers live in this one, and its memory is not the reader's.
_READ = """
import contextlib, json, pathlib, re, sys
from amili_provider.storage.reading import read_content
from amili_provider.storage.listing import list_files

def peak_mib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024

def read(url):
    [file] = list_files(url, "partner")
    with contextlib.closing(read_content(file, in_memory_bytes=8 * 1024**2)) as content:
        return file.size, content.size, content.sha256

read(sys.argv[1])  # what the libraries themselves need
idle = peak_mib()
print("RESULT", json.dumps([*read(sys.argv[2]), peak_mib() - idle]))
"""


@dataclass
class Place:
    """Where a small and a large file lie, and the connection to there."""

    connection: dict[str, Any]
    small: str
    large: str


def piece(start: int, stop: int) -> bytes:
    """Return the bytes of the large file from *start* to *stop*."""
    data = bytearray(stop - start)
    for at, mark in _MARKS.items():
        for offset, value in enumerate(mark, at):
            if start <= offset < stop:
                data[offset - start] = value
    return bytes(data)


@functools.cache
def expected() -> str:
    """Return the hash of the large file, made without any of the code under test."""
    digest = hashlib.sha256()
    for start in range(0, SIZE, 16 * _MIB):
        digest.update(piece(start, start + 16 * _MIB))
    return digest.hexdigest()


def _make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at, mark in _MARKS.items():
            file.seek(at)
            file.write(mark)


def _on_disk(store: OnDisk) -> None:
    _make_sparse(store.on_disk("large.bin"))
    store.own(store.root)


def _in_azure(store: Azure) -> None:
    """Put the blob together of few blocks: one of zeros, many times, and those that have marks."""
    from azure.storage.blob import BlobBlock

    length = 64 * _MIB
    blob = store._container.get_blob_client(f"{store.day}/large.bin")
    names: dict[bytes, str] = {}
    order = []
    for start in range(0, SIZE, length):
        data = piece(start, start + length)
        digest = hashlib.sha256(data).digest()
        if digest not in names:
            names[digest] = base64.b64encode(b"%06d" % len(names)).decode()
            blob.stage_block(names[digest], data)
        order.append(BlobBlock(names[digest]))
    blob.commit_block_list(order)


class _GcsOnDisk(Gcs):
    """It holds objects on the disk, where one can have holes."""

    def kept(self) -> tuple[str, ...]:
        return ("-backend", "filesystem", "-filesystem-root", str(self.scratch))


def _in_gcs(store: Gcs) -> None:
    store.put("large.bin", b"to be replaced")
    [held] = [file for file in store.scratch.rglob("*") if file.name.endswith("large.bin")]
    _make_sparse(held)


@contextlib.contextmanager
def _server(kind: type[Backend]) -> Iterator[Place]:
    for store in running(kind):
        store.begin_day()
        store.put("small.bin", b"x" * 100_000)
        if isinstance(store, OnDisk):
            _on_disk(store)
        elif isinstance(store, Azure):
            _in_azure(store)
        else:
            assert isinstance(store, Gcs)
            _in_gcs(store)
        yield Place(store.connection(), store.url("small.bin"), store.url("large.bin"))


@contextlib.contextmanager
def _objects(folder: Path) -> Iterator[int]:
    """Serve *folder* from its disk, which moto, with its objects in memory, does not; yield the port."""
    bucket = folder / "bucket"
    bucket.mkdir()
    (bucket / "small.bin").write_bytes(b"x" * 100_000)
    _make_sparse(bucket / "large.bin")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.suites.benchmarks.objects", str(folder)], stdout=subprocess.PIPE, cwd=_ROOT
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        end(process)
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[Place]:
    with _objects(folder) as port:
        extra = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "eu-north-1"}
        connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
        yield Place(connection, "s3://bucket/small.bin", "s3://bucket/large.bin")


@contextlib.contextmanager
def _http(folder: Path) -> Iterator[Place]:
    with _objects(folder) as port:
        root = f"http://127.0.0.1:{port}/bucket"
        connection = {"conn_type": "http", "host": "127.0.0.1", "port": port}
        yield Place(connection, f"{root}/small.bin", f"{root}/large.bin")


def _place(name: str, folder: Path) -> contextlib.AbstractContextManager[Place]:
    special: dict[str, Callable[[Path], contextlib.AbstractContextManager[Place]]] = {"s3": _s3, "http": _http}
    return special[name](folder) if name in special else _server(_GcsOnDisk if name == Gcs.name else BACKENDS[name])


@pytest.mark.skipif(not LONG, reason="half a minute to some minutes for each storage: AMILI_LONG_TESTS=1 runs it")
@pytest.mark.parametrize("name", [*BACKENDS, "http"])
def test_five_gibibytes_are_read_to_the_end(name: str, tmp_path: Path) -> None:
    """As many bytes as listed, with the hash of the source, in less than 96 MiB beyond what a small file takes."""
    with _place(name, tmp_path) as place:
        done = subprocess.run(
            [sys.executable, "-c", _READ, place.small, place.large],
            env={**os.environ, "AIRFLOW_CONN_PARTNER": json.dumps(place.connection), "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
            cwd=_ROOT,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    listed, size, sha256, grown_mib = json.loads(line.removeprefix("RESULT "))
    assert (listed, size, sha256) == (SIZE, SIZE, expected())
    assert grown_mib < _MOST_MIB
