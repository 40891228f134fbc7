"""The storages of the contract: each server is started once, when the first test wants it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.backends.azure import Azure
from tests.storage.backends.base import Backend
from tests.storage.backends.disk import Disk
from tests.storage.backends.ftp import Ftp, Ftps, OldFtp
from tests.storage.backends.gcs import Gcs
from tests.storage.backends.s3 import S3
from tests.storage.backends.sftp import Sftp
from tests.storage.backends.smb import Smb

BACKENDS: dict[str, type[Backend]] = {one.name: one for one in (Disk, S3, Gcs, Azure, Sftp, Ftp, OldFtp, Ftps, Smb)}


@pytest.fixture(name="backend", scope="session", params=list(BACKENDS))
def _backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A running storage server."""
    yield from running(BACKENDS[request.param])


def running(kind: type[Backend]) -> Iterator[Backend]:
    """Yield a running server of *kind*."""
    # Not pytest's own folder: users other than the tests' must be able to reach it.
    scratch = Path(tempfile.mkdtemp(prefix="amili-storage-"))
    scratch.chmod(0o755)
    backend = kind(scratch)
    try:
        backend.start()
        try:
            yield backend
        finally:
            backend.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(name="store")
def _store(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The server with an empty folder for this test, and the connection ``partner`` to it."""
    backend.begin_day()
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(backend.connection()))
    return backend
