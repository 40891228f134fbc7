"""
``python -m tests.suites.upgrade save`` on Airflow 2, ``... read`` on a newer one, with one database between them.

``save`` keeps connections as Airflow 2 writes them: with the form (text, and one that is edited later), and with the
command (numbers and booleans). ``read`` saves what today's form writes for the same, and compares what a task gets.
The database is migrated by ``airflow db migrate`` before each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from amili_provider.connection.fields import FIELDS
from amili_provider.connection.settings import AmiliSettings
from amili_provider.hooks.amili import AmiliHook
from tests.suites.upgrade.old_form import OldForm, kept, uri_of

ANSWERS: dict[str, Any] = {
    "environment": "staging",
    "client_no": "2218",
    "user_id": "airflow",
    "ledger": "s3://invoices/amili-ledger",
    "ledger_conn_id": "aws_default",
    "auth_url": "https://auth.staging.amili.no",
    "scope": "arm",
    "connect_timeout": 7.5,
    "answer_timeout": 900,
    "verify": "false",
    "ca_file": "/etc/ssl/ca.pem",
    "proxy": "http://me:canary-proxy@proxy.example.com:3128",
    "allow_http": "true",
    "max_request_bytes": 1048576,
    "max_files_per_request": 50,
    "result_path": "/clients/{clientno}/results/{fileid}",
    "accepted_results": "PROCESSED/CREATED, DONE",
    "refused_results": "FAILED, NO",
    "pending_results": "QUEUED",
    "isolate_refused": "false",
    "not_taken_statuses": "429, 503",
}
"""What somebody says in the form; today's form keeps numbers as numbers."""
LOGIN = {"login": "my-integration", "password": "canary secret/@:%"}
FULL = {**LOGIN, "extra": ANSWERS}
FEW = {**LOGIN, "extra": {"environment": "production"}}
TOKEN = {"host": "http://127.0.0.1", "port": 8080, "schema": "arm/v1", "extra": {"access_token": "canary-token"}}
CONNECTIONS: dict[str, dict[str, Any]] = {"full": FULL, "few": FEW, "token": TOKEN}


def save() -> None:
    """Keep each connection as Airflow 2 does."""
    form = OldForm()
    by_command = {}
    for name, said in CONNECTIONS.items():
        typed = {**said, **said["extra"]}
        del typed["extra"]
        form.add(f"form_{name}", {field: str(value) for field, value in typed.items()})
        before = kept(f"form_{name}")
        form.edit(f"form_{name}")
        assert kept(f"form_{name}") == before, "saving without a change is a change"
        extra = {key: value == "true" if value in ("true", "false") else value for key, value in said["extra"].items()}
        by_command[f"command_{name}"] = {**said, "conn_type": "amili", "extra": extra}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(by_command, file)
        file.flush()
        command = [sys.executable, "-W", "ignore", "-m", "airflow", "connections", "import", file.name]
        subprocess.run(command, check=True, capture_output=True, timeout=240)


def read() -> list[str]:
    """Compare what a task gets of each with what it gets of one that today's form keeps; return what differs."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    wrong: list[str] = []
    for name, said in CONNECTIONS.items():
        empty = dict.fromkeys(f.name for f in FIELDS if not f.standard)
        now = f"now_{name}"
        row = {**said, "conn_type": "amili", "extra": json.dumps({**empty, **said["extra"]})}
        with create_session() as session:
            session.add(Connection(conn_id=now, **row))
        expected = _settings(now)
        found = {old: _settings(old) for old in (f"form_{name}", f"command_{name}")}
        wrong += [f"{old}: {given!r} instead of {expected!r}" for old, given in found.items() if given != expected]
    return wrong


def _settings(conn_id: str) -> AmiliSettings:
    os.environ["AIRFLOW_CONN_AMILI_READ"] = uri_of(conn_id)
    return dataclasses.replace(AmiliHook("amili_read").settings, conn_id="amili_default")


def main() -> int:
    """Do one of the two, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.upgrade", description=__doc__)
    parser.add_argument("what", choices=["save", "read"])
    if parser.parse_args().what == "save":
        save()
        return 0
    wrong = read()
    print("\n".join(wrong) or f"{2 * len(CONNECTIONS)} connections of Airflow 2 read as today's do")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    missing = {f.name for f in FIELDS if not f.standard} - set(ANSWERS) - {"access_token"}
    assert not missing, f"new fields that are not tried: {sorted(missing)}"
    sys.exit(main())
