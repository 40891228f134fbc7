"""Where the ledgers of the scenarios are kept: in files of SQLite, on a PostgreSQL server, or in a bucket of S3."""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from amili_provider.connection_form import settings_from
from amili_provider.ledger.opening import create_in_file, store_from

KINDS = ("sqlite", "postgres", "s3")
_KIND, _CONN_ID = "AMILI_CHAOS_LEDGER", "chaos_ledger"


@contextmanager
def kept_in(kind: str) -> Iterator[None]:
    """Run the server of a kind of ledger, and tell this process and those that it starts how to reach it."""
    os.environ[_KIND] = kind
    with tempfile.TemporaryDirectory(prefix="amili-chaos-ledger-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if kind == "postgres":
            from tests.databases import postgres

            with postgres(folder / "postgres") as port:
                _connect({"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "airflow"})
                yield
        elif kind == "s3":
            import boto3
            from moto.server import ThreadedMotoServer

            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            server = ThreadedMotoServer(port=0, verbose=False)
            server.start()
            try:
                url = "http://{}:{}".format(*server.get_host_and_port())
                keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
                boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="ledgers")
                extra = {"endpoint_url": url, "region_name": "us-east-1"}
                _connect({"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra})
                yield
            finally:
                server.stop()
        else:
            yield


def _connect(connection: dict[str, object]) -> None:
    if connection["conn_type"] == "postgres":
        connection["schema"] = "postgres"
    os.environ[f"AIRFLOW_CONN_{_CONN_ID.upper()}"] = json.dumps(connection)


def begin(folder: Path) -> dict[str, str]:
    """Create a ledger, and return how a connection names it."""
    kind = os.environ.get(_KIND, "sqlite")
    if kind == "sqlite":
        return {"ledger": create_in_file(folder / "ledger.db")}
    name = f"seed_{secrets.token_hex(6)}"
    extra = {"ledger": f"s3://ledgers/{name}" if kind == "s3" else name, "ledger_conn_id": _CONN_ID}
    environment = {**extra, "environment": "staging", "client_no": "1"}
    settings = settings_from(
        "chaos", login="id", password="secret", host=None, port=None, schema=None, extra=environment
    )
    with closing(store_from(None, settings, create=True)) as store:
        store.create()
    return extra
