"""Open the storages that a source names, each with the Airflow connection that it has."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.receipts import unescaped
from amili_provider.storage.backends.local import LocalFiles
from amili_provider.storage.backends.objects import ObjectFiles
from amili_provider.storage.base import ObjectClient
from amili_provider.storage.connections import (
    BY_CONN_TYPE,
    BY_SCHEME,
    Kind,
    StorageConnection,
    install_hint,
    is_on,
    look_up,
    shown,
    split_host,
    split_url,
    what_works,
)
from amili_provider.storage.errors import explain
from amili_provider.storage.locations import Location, Storage

log = logging.getLogger(__name__)
EXACT = "exact:"
"""What a path begins with that means one file or folder, whatever its name holds; the rest is as receipts show it."""
_MOST_SHOWN = 3
"""Paths of a list that a sentence shows."""
_PRINTED_LIST = re.compile(r"""\s*[\[(]\s*(['"].*['"]\s*,?)?\s*[\])]\s*""", re.DOTALL)


def open_kind(kind: Kind, scheme: str | None, connection: StorageConnection | None) -> Storage:
    """
    Open a storage of *kind*. What its libraries raise comes out as it is.

    :param scheme: what the user wrote; ``ftps`` is not ``ftp``.
    :param connection: the Airflow connection.
    """
    if kind.protocol == "file":
        return _local(kind, connection)
    if kind.object_store:
        return _objects(kind, connection)
    if kind.protocol == "http":
        from amili_provider.storage.backends.http import HttpFiles

        pages = HttpFiles.from_connection(connection)
        return Storage(kind, pages, connection, pages.base, "")
    assert connection is not None
    return _server(kind, scheme, connection)


def _local(kind: Kind, connection: StorageConnection | None) -> Storage:
    base = str(connection.extra.get("path") or "") if connection else ""
    if base and not base.startswith("/"):
        raise AmiliStorageSettingsError(
            f"The base path of the connection {connection.conn_id if connection else None!r} must be absolute, "
            f"not {base!r}. Correct the 'path' in its extra."
        )
    return Storage(kind, LocalFiles(), connection, base.rstrip("/") or base[:1], "file://")


def _server(kind: Kind, scheme: str | None, connection: StorageConnection) -> Storage:
    fs: Any
    if kind.protocol == "sftp":
        from amili_provider.storage.backends.sftp import SftpFiles

        fs = SftpFiles.from_connection(connection)
    elif kind.protocol == "ftp":
        from amili_provider.storage.backends.ftp import FtpFiles

        asked = scheme == "ftps" or connection.conn_type == "ftps" or is_on(connection.extra.get("tls"))
        fs = FtpFiles(connection, tls=asked)
    else:
        assert kind.protocol == "smb", f"{kind.protocol} has no branch here"
        from amili_provider.storage.backends.smb import SmbFiles

        fs = SmbFiles(connection)
    return Storage(kind, fs, connection, fs.home(), fs.prefix())


def _objects(kind: Kind, connection: StorageConnection | None) -> Storage:
    client: ObjectClient
    if kind.protocol == "s3":
        from amili_provider.storage.backends.s3 import S3Client

        client = S3Client.from_connection(connection)
    elif kind.protocol == "gs":
        from amili_provider.storage.backends.gcs import GcsClient

        client = GcsClient.from_connection(connection)
    else:
        assert kind.protocol == "abfs", f"{kind.protocol} has no branch here"
        from amili_provider.storage.backends.azure import AzureClient

        client = AzureClient.from_connection(connection)
    return Storage(kind, ObjectFiles(client), connection, _base_bucket(kind, connection), f"{kind.protocol}://")


def _base_bucket(kind: Kind, connection: StorageConnection | None) -> str:
    """Return the bucket that an aws connection names for S3 (``service_config``), where it does."""
    if kind.protocol != "s3" or connection is None:
        return ""
    services: Any = connection.extra.get("service_config")
    s3: Any = services.get("s3") if isinstance(services, dict) else None
    return str(s3.get("bucket_name") or "") if isinstance(s3, dict) else ""


def open_other(scheme: str, url: str, conn_id: str | None) -> Storage:
    """Open a scheme that only Airflow, or whoever attached a filesystem, knows."""
    from amili_provider.storage.backends.local import OtherFiles

    connection = look_up(conn_id, shown(url)) if conn_id and OtherFiles.knows(scheme) else None
    log.warning("%s:// is passed through to Airflow's own filesystem; this package does not test it.", scheme)
    try:
        files = OtherFiles.of(scheme, conn_id)
    except Exception as error:  # noqa: BLE001 - whatever that provider raises
        raise explain("open", f"{scheme}://", connection, error) from None
    if files is None:
        through = f", with the connection {conn_id!r} or without" if conn_id else ""
        raise AmiliStorageSettingsError(
            f"Nothing here can open {scheme}:// ({shown(url)}){through}. What works: {what_works()}."
        )
    return Storage(Kind(scheme, scheme, (scheme,), ()), files, connection, "", f"{scheme}://")


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


@dataclass(frozen=True, slots=True)
class Sources:
    """
    What a source names, on open storages.

    :param locations: one for each path.
    :param missing: folders that were not there when they were listed, as people see them.
    :param other_case: of a pattern that matched nothing, a name that it would match if case did not count.
    """

    locations: Sequence[Location]
    missing: list[str] = field(default_factory=list)
    other_case: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Close the connections to the storages."""
        for storage in {id(location.storage): location.storage for location in self.locations}.values():
            storage.close()

    @property
    def shown(self) -> str:
        """The paths as people see them, without secrets; of a long list the first ones."""
        if not self.locations:
            return "an empty list of paths"
        first = ", ".join(location.url for location in self.locations[:_MOST_SHOWN])
        more = len(self.locations) - _MOST_SHOWN
        return f"{first} and {more} more" if more > 0 else first


def open_sources(source: str | Sequence[str], conn_id: str | None) -> Sources:
    """
    Open the storages that *source* names; close them when their files were read. Only from the task's own thread.

    :param source: a file, a folder (its own files; ``**`` goes deeper), a pattern, or a list of these. What is called
        like the pattern is listed with what the pattern matches; ``exact:`` before a path names it alone.
    :param conn_id: the Airflow connection.
    :raises AmiliStorageSettingsError: if a storage cannot work as configured.
    :raises ValueError: if a path cannot be understood.
    """
    storages: dict[tuple[str | None, ...], Storage] = {}
    locations = []
    try:
        for one in _paths(source):
            exact = one.startswith(EXACT)
            url, conn = split_conn_id(unescaped(one.removeprefix(EXACT)) if exact else one, conn_id or None)
            scheme, rest = split_url(url)
            key = (scheme, conn, split_host(rest)[0] if scheme in ("http", "https") else None)
            if key not in storages:
                storages[key] = open_storage(url, conn)
            locations.append(storages[key].locate(url, exact=exact))
    except BaseException:
        for storage in storages.values():
            storage.close()
        raise
    return Sources(locations)


def _paths(source: str | Sequence[str]) -> list[str]:
    many = [source] if isinstance(source, str) else source
    if not isinstance(many, (list, tuple)) or not many:
        raise ValueError(f"source must be a path or a list of paths, not {type(source).__name__}.")
    for one in many:
        if not isinstance(one, str) or not one.strip():
            raise ValueError(f"source must name a path, not {one!r}.")
        if (one != one.strip() and not one.startswith(EXACT)) or "\n" in one or "\r" in one:
            raise ValueError(
                f"source begins or ends with blanks, or holds a line break: {_without_query(one)!r:.100}. Write the "
                f"path alone, on one line, and several paths as a list. A name that is really written so is found by a "
                f"pattern, or named as its receipt shows it after {EXACT}"
            )
        if _PRINTED_LIST.fullmatch(one):
            raise ValueError(
                "source looks like a list that was printed as text. Pass the list itself: source=task.output "
                "rather than a template, or render_template_as_native_obj=True on the DAG."
            )
    return list(many)


def _without_query(path: str) -> str:
    """Return a path as a message may show it: what is cut in the middle is masked no more, and a query may sign."""
    return path.partition("?")[0]
