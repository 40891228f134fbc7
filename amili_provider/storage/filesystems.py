"""
From a path and an Airflow connection to an open filesystem.

The scheme decides which storage it is; without a scheme the connection's type does. A filesystem is built, and where
it is ours logged into, before anything else happens, so that its own error is the one that is shown.
"""

from __future__ import annotations

import importlib.util

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.connections import StorageConnection, look_up
from amili_provider.storage.kinds import (
    BY_CONN_TYPE,
    BY_SCHEME,
    Kind,
    install_hint,
    shown,
    split_host,
    split_url,
    what_works,
)
from amili_provider.storage.locations import Location, Storage
from amili_provider.storage.opening import open_kind, open_other
from amili_provider.storage.troubles import explain

__all__ = ["Location", "Storage", "open_location", "open_storage", "split_conn_id"]


def open_location(url: str, conn_id: str | None) -> Location:
    """
    Open the filesystem of *url* and return the location there. Only from the task's own thread.

    :param url: a path with a scheme, or one without: then the connection's type decides.
    :param conn_id: the Airflow connection.
    :raises ValueError: if the path cannot be understood.
    :raises AmiliStorageSettingsError: if this cannot work as configured.
    :raises AmiliStorageError: if the storage does not answer.
    """
    return open_storage(url, conn_id).locate(split_conn_id(url, conn_id)[0])


def open_storage(url: str, conn_id: str | None) -> Storage:
    """Open the storage that *url* is on. See :func:`open_location`."""
    if not isinstance(url, str) or not url.strip():
        raise ValueError(f"A path is needed, not {url!r}. Name a file, a folder or a pattern.")
    url, conn_id = split_conn_id(url, conn_id or None)
    scheme, _ = split_url(url)
    if scheme is not None and scheme not in BY_SCHEME:
        return open_other(scheme, url, conn_id)
    connection = look_up(conn_id, shown(url)) if conn_id else None
    kind = _kind_of(scheme, url, connection)
    _require(kind, url, connection)
    try:
        return open_kind(kind, scheme, connection)
    except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
        host = connection.host if connection and kind.server else ""
        raise explain("open", f"{scheme or kind.protocol}://{host}", connection, error) from None


def split_conn_id(url: str, conn_id: str | None) -> tuple[str, str | None]:
    """
    Read ``s3://conn_id@bucket/key``, as ``ObjectStoragePath`` has it, and refuse passwords in paths.

    The container before the account (``abfs://container@account.dfs.core.windows.net``) is left alone.
    """
    scheme, rest = split_url(url)
    if scheme is None:
        return url, conn_id
    host, path = split_host(rest)
    before, at, after = host.rpartition("@")
    if not at:
        return url, conn_id
    if ":" in before:
        raise ValueError(
            f"The {scheme}:// path has a password in it, which would be logged. Put it in an Airflow connection."
        )
    kind = BY_SCHEME.get(scheme)
    if kind is None or kind.server or (kind.protocol == "abfs" and "." in after):
        return url, conn_id
    if conn_id not in (None, before):
        raise ValueError(f"{shown(url)} names the connection {before!r}, but the parameter says {conn_id!r}. Keep one.")
    return f"{scheme}://{after}{path}", before


def _kind_of(scheme: str | None, url: str, connection: StorageConnection | None) -> Kind:
    by_type = BY_CONN_TYPE.get(connection.conn_type) if connection else None
    if scheme is None:
        if connection is None:
            return BY_SCHEME["file"]
        if by_type is None:
            raise AmiliStorageSettingsError(
                f"Cannot open {shown(url)}: the connection {connection.conn_id!r} is of type {connection.conn_type!r}, "
                f"which is no storage. Choose another connection. What works: {what_works()}."
            )
        return by_type
    kind = BY_SCHEME[scheme]
    # Providers accept connections of the type "generic" or of none where the scheme says enough.
    if connection is not None and by_type is not kind and connection.conn_type not in ("", "generic"):
        raise AmiliStorageSettingsError(
            f"Cannot open {shown(url)}: {scheme}:// needs a connection of type {' or '.join(kind.conn_types)}, but "
            f"{connection.conn_id!r} is of type {connection.conn_type!r}. Choose another connection, or correct the "
            f"path."
        )
    return kind


def _require(kind: Kind, url: str, connection: StorageConnection | None) -> None:
    """Raise if what this kind of storage needs is not there: its packages, and a connection."""
    if kind.needs_connection and connection is None:
        raise AmiliStorageSettingsError(
            f"Cannot open {shown(url)}: it needs an Airflow connection of type {' or '.join(kind.conn_types)}, and "
            f"none is named. Name one (source_conn_id, or for a ledger ledger_conn_id)."
        )
    if kind.protocol == "http" and connection is None:
        return
    for module in kind.modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            assert kind.extra is not None
            through = f" with the connection {connection.conn_id!r}" if connection else ""
            raise AmiliStorageSettingsError(
                f"Cannot open {shown(url)}{through}: {kind.title} needs a package that is not installed ({module}). "
                f"Install it: {install_hint(kind.extra)}"
            )
