"""
Which ledger a connection and a task mean: read the name, find the store, open or create it.

These look up Airflow connections: call them from a task's own thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from amili_provider.connection.fields import LEDGER_FROM_CONNECTION
from amili_provider.connection.fields import label as field_label
from amili_provider.connection.settings import AmiliSettings
from amili_provider.connection.values import checked_client_no
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.objects import ObjectStore
from amili_provider.ledger.stores import LedgerStore
from amili_provider.receipts import one_line
from amili_provider.storage.connections import (
    BY_SCHEME,
    DISTRIBUTION,
    StorageConnection,
    look_up,
    said,
    shown,
    split_url,
)
from amili_provider.storage.opening import open_location

SQL_CONN_TYPES = {"postgres": "postgres", "mysql": "mysql", "sqlite": None}
"""Connection types whose database can hold a ledger, and the extra that brings their driver."""
WHAT_WORKS = (
    "a table of a database ('amili_attempts', with a ledger connection id of type postgres, mysql or sqlite), a file "
    "of SQLite ('sqlite:////var/lib/amili/ledger.db') or a prefix of a bucket ('s3://bucket/amili-ledger', gs://, "
    "abfs://)"
)
_TABLE = re.compile(r"(?:[A-Za-z_]\w{0,62}\.)?[A-Za-z_]\w{0,55}")
_LIBPQ = re.compile(
    r"ssl\w+|gss\w+|krb\w+|keepalives\w*|tcp_user_timeout|options|application_name|connect_timeout|"
    r"target_session_attrs|channel_binding|require_auth|passfile"
)
"""Extras of a connection to PostgreSQL that its driver understands."""
_REMOTE = re.compile(r"nfs|cifs|smb|afs$|ceph|gluster|lustre|9p|fuse(?!blk)|beegfs|gpfs|ocfs|davfs")


def is_none(named: str | None) -> bool:
    """Return whether *named* says in so many words that there shall be no ledger."""
    return named is None or named.strip().casefold() == "none"


def ledger_from(named: str | None, settings: AmiliSettings, *, client_no: str | int | None = None) -> Ledger | None:
    """
    Open the ledger that is meant; None if there shall be none.

    :param named: a table, a SQLite file or a prefix, None or 'none' for no ledger, or ``LEDGER_FROM_CONNECTION``.
    :param settings: what the connection says.
    :param client_no: Amili's client number; default: the connection's.
    :raises ValueError: if neither names one, or the name cannot be understood.
    :raises AmiliLedgerUnavailable: if it does not exist, or cannot be read and written.
    """
    if is_none(named):
        return None
    store = store_from(named, settings)
    try:
        who = store.open()
        number = checked_client_no(settings.client_no if client_no in (None, "") else client_no, "client_no")
    except BaseException:
        store.close()
        raise
    return Ledger(
        store,
        who=who,
        environment=settings.environment,
        client_no=number,
        answer_timeout=settings.answer_timeout,
    )


def store_from(named: str | None, settings: AmiliSettings, *, create: bool = False) -> LedgerStore:
    """
    Return the store that is meant, not opened yet.

    :param named: as for :func:`ledger_from`; None is the connection's.
    :param settings: what the connection says.
    :param create: whether it is to be created.
    :raises ValueError: if no ledger is named, or the name cannot be understood.
    :raises AmiliLedgerUnavailable: if its database or bucket cannot be reached as its connection says.
    """
    if named in (None, "", LEDGER_FROM_CONNECTION):
        named = settings.ledger
    url = (named or "").strip()
    if not url and not settings.ledger_conn_id:
        raise ValueError(
            f"No ledger is named, and nothing was sent. Without one, nobody remembers what Amili accepted: a retry, a "
            f"cleared task or a backfill would invoice debtors twice. Either name one in the field "
            f"{field_label('ledger')} of connection {settings.conn_id!r} or as ledger=: {WHAT_WORKS}; or say "
            f"ledger=None and accept that a re-run may send files twice."
        )
    scheme = split_url(url)[0]
    if url.startswith("sqlite:"):
        return _sqlite(url.removeprefix("sqlite:///"), create=create)
    if scheme is None and _TABLE.fullmatch(url or "amili_attempts"):
        return _database(url or "amili_attempts", settings, create=create)
    kind = BY_SCHEME.get(scheme or "")
    if kind is None or not kind.object_store:
        raise ValueError(
            f"The ledger cannot be kept in {_shown(url)!r}. A ledger is {WHAT_WORKS}. Folders on "
            f"disks, shares and file servers cannot decide which of two tasks was first."
        )
    location = open_location(url, conn_id_for(url, settings))
    words = partial(said, connection=location.storage.connection)
    return ObjectStore(location.fs, location.path, location.url, said=words)


def create_in_file(path: str | Path) -> str:
    """
    Create a ledger in a file of SQLite, unless it is there, and return its name, ``sqlite:///<path>``.

    :param path: absolute path; its folder exists.
    :raises AmiliLedgerUnavailable: if it cannot be created.
    """
    name = f"sqlite:///{path}"
    store = _sqlite(str(path), create=True)
    try:
        store.create()
    finally:
        store.close()
    return name


def conn_id_for(url: str, settings: AmiliSettings) -> str | None:
    """
    Return the connection that opens the ledger *url*: the one named for the connection's ledger, unless it cannot be.

    :param url: the connection's ledger, or another that a task named.
    :param settings: what the connection says.
    """
    own, conn_id = settings.ledger, settings.ledger_conn_id
    if own is None and conn_id is not None and look_up(conn_id, shown(url)).conn_type in SQL_CONN_TYPES:
        return None  # the connection's ledger is the default table of that database
    if own is None or split_url(url)[0] == split_url(own)[0]:
        return conn_id
    # Another kind of storage: its own conn id can stand in the URL (s3://conn_id@bucket/prefix).
    return None


def _database(table: str, settings: AmiliSettings, *, create: bool) -> LedgerStore:
    conn_id = settings.ledger_conn_id
    if not conn_id:
        raise ValueError(
            f"The ledger {table!r} is a table, but no database is named. Name its Airflow connection in the field "
            f"{field_label('ledger_conn_id')} of connection {settings.conn_id!r}. A ledger can be {WHAT_WORKS}."
        )
    connection = look_up(conn_id, f"the ledger {table}")
    if connection.conn_type not in SQL_CONN_TYPES:
        raise ValueError(
            f"Connection {conn_id!r} of the ledger has type {connection.conn_type!r}. A ledger's table needs type "
            f"{', '.join(SQL_CONN_TYPES)}: other databases are not known to enforce the unique key that keeps a file "
            f"from being sent twice. A ledger can be {WHAT_WORKS}."
        )
    if connection.conn_type == "sqlite":
        return _sqlite(connection.host or "", table=table, create=create)
    from sqlalchemy.pool import NullPool

    from amili_provider.ledger.sql import SqlStore

    port = f":{connection.port}" if connection.port else ""
    shown = f"{connection.conn_type}://{connection.host}{port}/{connection.schema}"
    options = {"poolclass": NullPool, "future": True, "connect_args": _connect_args(connection)}
    try:
        engine = BaseHook.get_connection(conn_id).get_hook().get_sqlalchemy_engine(engine_kwargs=options)
    except Exception as error:  # noqa: BLE001 - a provider that is not installed, a URI that cannot be read
        extra = SQL_CONN_TYPES[connection.conn_type]
        raise AmiliLedgerUnavailable(
            f"The ledger {shown} cannot be opened: {type(error).__name__}: {said(error, connection)}. Install its "
            f"driver: pip install '{DISTRIBUTION}[{extra}]', and check connection {conn_id!r}."
        ) from None
    return SqlStore(engine, shown=shown, table=table, conn_id=conn_id, said=partial(said, connection=connection))


def _connect_args(connection: StorageConnection) -> dict[str, Any]:
    """Return what the connection's extra says to the driver, and Airflow's hook leaves out of an engine."""
    extra = connection.extra
    if connection.conn_type == "postgres":
        return {name: value for name, value in extra.items() if _LIBPQ.fullmatch(name) and not isinstance(value, dict)}
    tls = extra.get("ssl")
    if isinstance(tls, str):
        with contextlib.suppress(ValueError):
            tls = json.loads(tls)
    return {"ssl": tls} if isinstance(tls, dict) else {}


def _sqlite(path: str, *, table: str = "amili_attempts", create: bool) -> LedgerStore:
    from amili_provider.ledger.dialects import sqlite_engine
    from amili_provider.ledger.sql import SqlStore

    if not path.startswith("/") or path == "/":
        raise ValueError(
            f"The ledger {_shown(path)!r} is no absolute path of a file. A file of SQLite takes four slashes: "
            f"'sqlite:////var/lib/amili/ledger.db'; it must be the same for every task and every worker."
        )
    if os.path.isdir(path):  # noqa: PTH112 - no right to look is said below
        raise ValueError(f"The ledger {path} is a folder. Name a file in it: 'sqlite:///{path.rstrip('/')}/ledger.db'.")
    refuse_mount(path)
    try:
        os.stat(f"{Path(path).parent}/.")  # noqa: PTH116 - a path has no dot, without which its inside is not asked for
    except PermissionError:
        raise AmiliLedgerUnavailable(
            f"The ledger cannot be reached: the folder of {path} may not be entered. Nothing was sent. Let the user "
            f"who runs the tasks read and write that folder, and enter those above it."
        ) from None
    except OSError:
        raise AmiliLedgerUnavailable(
            f"The ledger does not exist: the folder of {path} is not there. Nothing was sent. Mount the disk, create "
            f"the folder, or correct the path."
        ) from None
    return SqlStore(sqlite_engine(path, create=create), shown=f"sqlite:///{path}", table=table, path=path)


def refuse_mount(path: str) -> None:
    """
    Refuse a file of SQLite on a mount that is shared with other machines, or that is mounted alone; Linux only.

    :raises ValueError: if it is one.
    """
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    real = Path(path).resolve()
    length, kind = 0, ""
    for line in mounts:
        _, point, its_kind, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        if point == str(real):
            raise ValueError(
                f"The ledger {path} is mounted as a single file. SQLite keeps files beside it, which are not shared "
                f"then, and neither is what others wrote: mount its folder."
            )
        # The innermost, and of two on one point the later.
        if f"{real.parent}/".startswith(folder := point.rstrip("/") + "/") and len(folder) >= length:
            length, kind = len(folder), its_kind
    if _REMOTE.match(kind):
        raise ValueError(
            f"The ledger {path} is on a mount of kind {kind}, where SQLite's locks do not hold between machines. "
            f"Use a disk of this machine, and if tasks run on several, a database: {WHAT_WORKS}."
        )


def _shown(name: str) -> str:
    """Return a name that nobody has understood yet as messages show it: one line, without login and signature."""
    return one_line(re.sub(r"[^/]*@", "", name.partition("?")[0]))
