"""``amili-sandbox serve``: a sandbox in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from amili_provider.sandbox.rules import DEFAULT_CLIENT_NO, DEFAULT_FILE_TYPE
from amili_provider.sandbox.server import SandboxServer


def _say(text: str = "") -> None:
    print(text, flush=True)  # noqa: T201 - a command talks to a person


def serve(
    *,
    host: str,
    port: int,
    names: Sequence[str],
    data: str | None,
    clients: Sequence[str],
    file_types: Sequence[str],
    token_lifetime: float,
    keep_contents: bool,
) -> int:
    """Serve until told to stop; return the exit code of the command."""
    types = tuple(file_types) or (DEFAULT_FILE_TYPE,)
    server = SandboxServer(
        data,
        host=host,
        port=port,
        names=names,
        clients=dict.fromkeys(clients or (DEFAULT_CLIENT_NO,), types),
        token_lifetime=token_lifetime,
        keep_contents=keep_contents,
    )
    told_to_stop = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        told_to_stop.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            server.start()
        except OSError as error:
            print(f"Cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)  # noqa: T201
            return 1
        _introduce(server, kept=bool(data))
        told_to_stop.wait()
        rest = "are kept" if data else "are deleted; --data DIR keeps them"
        _say(f"\nStopped. {len(server.uploads)} file(s) accepted, {len(server.refusals)} refused.")
        _say(f"Files and ledger {rest}.")
    finally:
        server.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _introduce(server: SandboxServer, *, kept: bool) -> None:
    from amili_provider.ledger.opening import create_in_file  # imports Airflow

    _say(f"Amili sandbox: {server.url}  (open it in a browser to see what arrives)")
    _say(f"  API           {server.base_url}")
    _say(f"  Token service {server.auth_url}/token")
    _say(f"  Clients       {', '.join(server.rules.clients)}")
    _say(f"  Files         {server.data}")
    _say(f"  Scripting     {server.url}/admin/faults, /admin/uploads, ...")
    _say()
    ledger = create_in_file(server.data.absolute() / "ledger.db")
    connection = server.connection(ledger=ledger)
    _say("Fill this into the form of a connection amili_default of type Amili:")
    for label, value in (
        ("Client id", connection["login"]),
        ("Client secret", connection["password"]),
        ("Client number", connection["extra"]["client_no"]),
        ("Ledger", ledger),
        ("Host", connection["host"]),
        ("Port", connection["port"]),
        ("Base path", connection["schema"]),
        ("Token service URL", connection["extra"]["auth_url"]),
    ):
        _say(f"  {label:<20}{value}")
    _say()
    _say("or set this in the shell of Airflow:")
    _say(f"export AIRFLOW_CONN_AMILI_DEFAULT='{server.connection_json(ledger=ledger)}'")
    _say()
    _say("Ctrl-C stops it" + (", and keeps" if kept else ", and deletes") + " its files and ledger.")
