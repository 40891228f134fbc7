"""
What goes wrong with a ledger's database, seen from the worker that uses it.

PostgreSQL is reached through a small proxy of the worker's own, which can cut it; SQLite, to which no line leads, is
made to fail in its driver. A ledger of another kind is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

from tests.chaos.ledgers import CONNECTION, kind
from tests.chaos.saboteur import at_point, wrap

HOW = {"sqlite": ("cut", "locked", "full", "read-only"), "postgres": ("cut", "locked", "restarted", "read-only")}
"""What can go wrong, by kind of ledger."""
ALL = tuple(sorted({how for some in HOW.values() for how in some}))


def break_it(plan: dict[str, Any]) -> None:
    """
    Let something go wrong, at a point of the product or from the beginning.

    :param plan: ``how``: one of :data:`HOW`; ``at`` and ``nth``: when, ``before commit`` unless it says otherwise;
        ``times``: how often; ``done``: of a cut, whether the COMMIT is carried out all the same; ``seconds``: for how
        long the ledger is locked.
    """
    how = plan["how"]
    if how not in HOW.get(kind(), ()):
        return
    server = _Server() if kind() == "postgres" else None
    strikes = {"locked": _lock, "full": _fill, "read-only": _set_read_only, "restarted": _crash}
    strike = strikes.get(how) or (_Proxy(server) if server else _Driver()).strike

    def now() -> None:
        strike(plan, server)

    if plan.get("at") == "start":
        now()
    else:
        at_point(plan.get("at", "before commit"), now, nth=plan.get("nth", 1), times=plan.get("times", 1))


class _Server:
    """The PostgreSQL that the ledger's connection names."""

    def __init__(self) -> None:
        self._connection = json.loads(os.environ[CONNECTION])
        self.port = int(self._connection["port"])

    def lead_to(self, port: int) -> None:
        """Let the ledger's connection lead to another port."""
        os.environ[CONNECTION] = json.dumps({**self._connection, "port": port})

    @property
    def dsn(self) -> str:
        """How to connect past the proxy."""
        return f"host=127.0.0.1 port={self.port} user={self._connection['login']} dbname={self._connection['schema']}"


class _Proxy:
    """Hands on what a client and its server say, until it cuts them off."""

    def __init__(self, server: _Server) -> None:
        self._to = server.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._swallows = False
        server.lead_to(int(self._listener.getsockname()[1]))
        threading.Thread(target=self._accept, daemon=True).start()

    def strike(self, plan: dict[str, Any], _server: _Server | None) -> None:
        """Cut all connections: now, or in place of the next answer."""
        if plan.get("done"):
            self._swallows = True
        else:
            self._cut()

    def _cut(self) -> None:
        self._swallows = False
        while self._pairs:
            for end in self._pairs.pop():
                _shut(end)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._hand_on, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    @staticmethod
    def _hand_on(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _shut(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self._swallows:
                    self._cut()
                client.sendall(data)
        _shut(client)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


class _Driver:
    """Makes the driver of SQLite fail at a COMMIT."""

    def __init__(self) -> None:
        self._strikes: dict[str, Any] | None = None
        wrap(DefaultDialect, "do_commit", self._commit)

    def strike(self, plan: dict[str, Any], _server: _Server | None) -> None:
        """Let the COMMIT that comes now fail."""
        self._strikes = plan

    def _commit(self, original: Any, dialect: Any, connection: Any) -> None:
        plan, self._strikes = self._strikes, None
        if plan is None or plan.get("done"):
            original(dialect, connection)
        if plan is not None:
            raise dialect.dbapi.OperationalError("the COMMIT failed: planted")


_HOLD = """
import sys, time
if sys.argv[1] == "sqlite":
    import sqlite3
    held = sqlite3.connect(sys.argv[2], timeout=10, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
else:
    import psycopg2
    held = psycopg2.connect(sys.argv[2])
    # The product itself may hold it where this strikes, and waits for this to go on.
    held.cursor().execute(f"SET lock_timeout = '10s'; LOCK TABLE {sys.argv[3]} IN SHARE ROW EXCLUSIVE MODE")
print("held", flush=True)
time.sleep(float(sys.argv[4]))
"""


def _lock(plan: dict[str, Any], server: _Server | None) -> None:
    """Let another process hold the ledger for some seconds."""
    extra = json.loads(os.environ["AIRFLOW_CONN_AMILI_DEFAULT"])["extra"]
    ledger = (json.loads(extra) if isinstance(extra, str) else extra)["ledger"]
    where = server.dsn if server else ledger.removeprefix("sqlite:///")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, "postgres" if server else "sqlite", where, ledger, str(plan["seconds"])],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()


def _fill(_plan: dict[str, Any], _server: _Server | None) -> None:
    """Let the disk be full: no row can be added or made longer."""

    def executing(original: Any, dialect: Any, cursor: Any, statement: str, *args: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            # It fills the pages that it has, and then refuses.
            cursor.execute(f"PRAGMA max_page_count = {cursor.execute('PRAGMA page_count').fetchone()[0]}")
        original(dialect, cursor, statement, *args)

    for name in ("do_execute", "do_executemany"):
        wrap(DefaultDialect, name, executing)


def _set_read_only(_plan: dict[str, Any], server: _Server | None) -> None:
    """Let the database refuse to write, as one that has become a replica does."""
    if server:
        os.environ["PGOPTIONS"] = "-c default_transaction_read_only=on"  # read by libpq for each connection
        return

    def beginning(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON")

    sa.event.listen(sa.engine.Engine, "begin", beginning)


def _crash(_plan: dict[str, Any], server: _Server | None) -> None:
    """Let the server crash and come back: it ends all of its sessions if one of them is killed."""
    import psycopg2

    assert server is not None
    with contextlib.closing(psycopg2.connect(server.dsn)) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
