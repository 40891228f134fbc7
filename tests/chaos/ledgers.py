"""Where the ledgers of the scenarios are kept: in files of SQLite, on a PostgreSQL server, or in a bucket of S3."""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from unittest import mock

from amili_provider.connection.settings import settings_from
from amili_provider.ledger.opening import create_in_file, store_from
from tests.databases import postgres
from tests.storage.backends.s3 import BUCKET, S3

KINDS = ("sqlite", "postgres", "s3")
_KIND, _CONN_ID = "AMILI_CHAOS_LEDGER", "chaos_ledger"
CONNECTION = f"AIRFLOW_CONN_{_CONN_ID.upper()}"


def kind() -> str:
    """Return where the ledgers of this process are kept."""
    return os.environ.get(_KIND, "sqlite")


@contextmanager
def kept_in(wanted: str) -> Iterator[None]:
    """Run the server of a kind of ledger, and tell this process and those that it starts how to reach it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amili-chaos-ledger-")))
        folder.chmod(0o755)
        told = {_KIND: wanted}
        if wanted == "postgres":
            port = stack.enter_context(postgres(folder / "postgres"))
            server = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "airflow"}
            told[CONNECTION] = json.dumps({**server, "schema": "postgres"})
        elif wanted == "s3":
            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            bucket = S3(folder)
            bucket.start()
            stack.callback(bucket.stop)
            told[CONNECTION] = json.dumps(bucket.connection())
        stack.enter_context(mock.patch.dict(os.environ, told))
        yield


def begin(folder: Path) -> dict[str, str]:
    """Create a ledger, and return how a connection names it."""
    if kind() == "sqlite":
        return {"ledger": create_in_file(folder / "ledger.db")}
    name = f"seed_{secrets.token_hex(6)}"
    extra = {"ledger": f"s3://{BUCKET}/{name}" if kind() == "s3" else name, "ledger_conn_id": _CONN_ID}
    environment = {**extra, "environment": "staging", "client_no": "1"}
    settings = settings_from(
        "chaos", login="id", password="secret", host=None, port=None, schema=None, extra=environment
    )
    with closing(store_from(None, settings, create=True)) as store:
        store.create()
    return extra
