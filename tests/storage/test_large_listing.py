"""Many objects: one request per page, memory bounded by the listing. AMILI_LONG_TESTS=1 makes it a hundred thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.storage.backends.base import LONG
from tests.storage.backends.s3 import BUCKET, S3
from tests.storage.conftest import running

_COUNT = 100_000 if LONG else 3_000

# In a process of its own: the server keeps its objects in the memory of this one.
_LIST = """
import json, sys, tracemalloc
from amili_provider.storage.listing import list_files
from amili_provider.storage.opening import open_sources
url, count = sys.argv[1], int(sys.argv[2])
list_files(url + "invoice-000001-of-a-customer.csv", "partner")
sources = open_sources(url + "*.csv", "partner")
tracemalloc.start()
files = list_files(sources, max_files=count)
held, peak = tracemalloc.get_traced_memory()
print("RESULT", json.dumps([len(files), files[0].name, files[-1].name, held / count, peak / count]))
"""


@pytest.fixture(name="full")
def _full() -> Iterator[S3]:
    """A bucket with many objects, put straight into the server's memory."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    for store in running(S3):
        assert isinstance(store, S3)
        store.begin_day()
        backend: Any = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for number in range(_COUNT):
            backend.put_object(BUCKET, f"{store.day}/invoice-{number:06}-of-a-customer.csv", b"x")
        yield store


def test_many_objects_cost_one_request_per_page(full: S3) -> None:
    """They come in natural order, with a request per thousand, and less than 2 KiB of memory each at the peak."""
    assert full.wire is not None
    done = subprocess.run(
        [sys.executable, "-c", _LIST, full.url(), str(_COUNT)],
        env={**os.environ, "AIRFLOW_CONN_PARTNER": json.dumps(full.connection())},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    count, first, last, held, peak = json.loads(line.removeprefix("RESULT "))
    assert count == _COUNT
    assert (first, last) == ("invoice-000000-of-a-customer.csv", f"invoice-{_COUNT - 1:06}-of-a-customer.csv")
    lists = [request for request in full.wire.requests if b"list-type=2" in request]
    assert _COUNT // 1000 <= len(lists) <= _COUNT // 1000 + 3
    assert len(full.wire.requests) - len(lists) <= 4
    assert held < 1024, f"{held:.0f} bytes are held per file"
    assert peak < 2048, f"{peak:.0f} bytes per file at the peak"
