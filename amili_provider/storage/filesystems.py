"""
From a path and an Airflow connection to an open filesystem.

The scheme decides which storage it is; without a scheme the connection's type does. A filesystem is built and asked
something before anything else happens, so that its own error is the one that is shown.
"""

from __future__ import annotations

import importlib.util
import logging
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fsspec import AbstractFileSystem

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage import attached
from amili_provider.storage.connections import StorageConnection, look_up
from amili_provider.storage.kinds import (
    BY_CONN_TYPE,
    BY_SCHEME,
    Kind,
    install_hint,
    split_host,
    split_url,
    what_works,
)
from amili_provider.storage.local import LocalFiles
from amili_provider.storage.troubles import explain

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Location:
    """
    A path on an open filesystem.

    :param fs: the filesystem. Safe to use from several threads: ours keep one server connection per use.
    :param path: the path as the filesystem wants it.
    :param url: the path as people see it; never a secret in it.
    :param conn_id: the Airflow connection, if there is one.
    :param protocol: the scheme.
    :param storage: where it belongs.
    """

    fs: AbstractFileSystem = field(repr=False, compare=False)
    path: str
    url: str
    conn_id: str | None
    protocol: str
    storage: Storage = field(repr=False, compare=False)

    def at(self, path: str) -> Location:
        """Return another path on the same filesystem."""
        return replace(self, path=path, url=self.storage.show(path))

    def fresh(self) -> Location:
        """
        Return a location whose filesystem is safe to use from another thread.

        That is this one: FTP, SFTP and SMB take a server connection of their own for every stream and call.
        """
        return self


@dataclass(frozen=True)
class Storage:
    """
    An open filesystem and how its paths are written.

    :param kind: which kind of storage.
    :param fs: the filesystem.
    :param connection: what the Airflow connection says, if there is one.
    :param base: the path that paths without a scheme start from.
    :param prefix: what a path is shown with.
    """

    kind: Kind
    fs: AbstractFileSystem = field(repr=False, compare=False)
    connection: StorageConnection | None
    base: str
    prefix: str

    def show(self, path: str) -> str:
        """Return *path* as a URL for people. Bytes that are no text are shown as escapes."""
        return (self.prefix + path).encode("utf-8", "backslashreplace").decode()

    def locate(self, url: str) -> Location:
        """
        Return the location of *url* on this storage.

        :raises ValueError: if it is of another storage, or leaves the connection's base path.
        """
        scheme, rest = split_url(url)
        path = rest if scheme is None else self._path_of(url, scheme, rest)
        if scheme is None:
            path = self._under_base(url, path)
        return Location(
            fs=self.fs,
            path=path,
            url=self.show(path),
            conn_id=self.connection.conn_id if self.connection else None,
            protocol=self.kind.protocol,
            storage=self,
        )

    def _path_of(self, url: str, scheme: str, rest: str) -> str:
        if self.kind.protocol == "file":
            host, path = split_host(rest)
            if host not in ("", "localhost"):
                raise ValueError(
                    f"{url} names the host {host!r}, but local files have none. Write three slashes: file:///path."
                )
            return path or "/"
        if self.kind.own:
            return self.fs.path_of(scheme, rest)  # type: ignore[no-any-return]
        if self.kind.object_store:
            return _without_account(url, rest.lstrip("/"), self.connection)
        return self.fs._strip_protocol(url)  # type: ignore[no-any-return] # noqa: SLF001 - fsspec's own reading

    def _under_base(self, url: str, path: str) -> str:
        if self.kind.object_store:
            return "/".join(part for part in (self.base, path.lstrip("/")) if part)
        if self.kind.protocol == "http":
            return self.base.rstrip("/") + "/" + path.lstrip("/")
        if not self.base:
            if path.startswith("/"):
                return path
            raise ValueError(
                f"The path {url!r} is relative, and nothing says to what. Write it with a scheme or a leading slash."
            )
        if ".." in path.split("/"):
            raise ValueError(f"The path {url!r} leaves the base path of its connection: it contains '..'.")
        return posixpath.join(self.base, path.lstrip("/")) if self.base != "/" else "/" + path.lstrip("/")


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
    scheme, rest = split_url(url)
    if scheme is not None and scheme not in BY_SCHEME:
        return _open_other(scheme, url, conn_id)
    connection = look_up(conn_id) if conn_id else None
    kind = _kind_of(scheme, url, connection)
    _require_modules(kind, url)
    try:
        return _OPENERS.get(kind.protocol, _open_by_airflow)(kind, scheme, rest, connection)
    except ValueError:
        raise
    except Exception as error:
        raise explain("open", _shown_root(kind, connection), connection, error) from None


def _kind_of(scheme: str | None, url: str, connection: StorageConnection | None) -> Kind:
    by_type = BY_CONN_TYPE.get(connection.conn_type) if connection else None
    if scheme is None:
        if connection is None:
            return BY_SCHEME["file"]
        if by_type is None:
            raise AmiliStorageSettingsError(
                f"The connection {connection.conn_id!r} is of type {connection.conn_type!r}, which is no storage that "
                f"{url!r} could be on. What works: {what_works()}."
            )
        return by_type
    kind = BY_SCHEME[scheme]
    # Providers accept connections of the type "generic" or of none where the scheme says enough.
    if connection is not None and by_type is not kind and connection.conn_type not in ("", "generic"):
        raise AmiliStorageSettingsError(
            f"{scheme}:// needs a connection of type {' or '.join(kind.conn_types)}, but {connection.conn_id!r} is of "
            f"type {connection.conn_type!r}. Choose another connection, or correct the path."
        )
    return kind


def _require_modules(kind: Kind, url: str) -> None:
    for module in kind.modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            assert kind.extra is not None
            raise AmiliStorageSettingsError(
                f"{kind.title} needs a package that is not installed ({module}), for {url}. "
                f"Install it: {install_hint(kind.extra)}"
            )


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
    if kind is None or kind.own or (kind.protocol == "abfs" and "." in after):
        return url, conn_id
    if conn_id not in (None, before):
        raise ValueError(
            f"{url} names the connection {before!r}, but the parameter says {conn_id!r}. Keep one."
        )
    return f"{scheme}://{after}{path}", before


def _without_account(url: str, rest: str, connection: StorageConnection | None) -> str:
    """Return ``container/path`` for ``container@account.host/path`` too, if it is the connection's account."""
    host, path = split_host(rest)
    container, at, account = host.rpartition("@")
    if not at:
        return rest
    ours = f"{connection.host} {connection.login}".casefold() if connection else ""
    if connection is not None and account.split(".")[0].casefold() not in ours:
        raise ValueError(
            f"{url} names the account {account!r}, but the connection {connection.conn_id!r} is of another. "
            f"Write abfs://container/path, or choose another connection."
        )
    return container + path


def _shown_root(kind: Kind, connection: StorageConnection | None) -> str:
    host = connection.host if connection and kind.own else ""
    return f"{kind.protocol}://{host}"


# How each kind is opened.


def _open_file(kind: Kind, scheme: str | None, rest: str, connection: StorageConnection | None) -> Storage:
    base = str(connection.extra.get("path") or "") if connection else ""
    if base and not base.startswith("/"):
        raise AmiliStorageSettingsError(
            f"The path of the connection {connection.conn_id if connection else ''!r} is not absolute: {base!r}."
        )
    return Storage(kind, LocalFiles(), connection, base.rstrip("/") or ("/" if base else ""), "file://")


def _open_by_airflow(
    kind: Kind, scheme: str | None, rest: str, connection: StorageConnection | None
) -> Storage:
    conn_id = connection.conn_id if connection else None
    fs = attached.build(kind.protocol, conn_id)
    attached.replace_attached(kind.protocol, conn_id, fs)
    return Storage(kind, fs, connection, _base_bucket(kind, connection), f"{kind.protocol}://")


def _base_bucket(kind: Kind, connection: StorageConnection | None) -> str:
    """Return the bucket that an aws connection names for S3 (``service_config``), where it does."""
    if kind.protocol != "s3" or connection is None:
        return ""
    services: Any = connection.extra.get("service_config")
    s3: Any = services.get("s3") if isinstance(services, dict) else None
    return str(s3.get("bucket_name") or "") if isinstance(s3, dict) else ""


def _open_other(scheme: str, url: str, conn_id: str | None) -> Storage:
    """Open a scheme that only Airflow, or whoever attached a filesystem, knows."""
    kind = Kind(scheme, scheme, (scheme,), ())
    known = attached.has_fs(scheme)
    fs = None if known else attached.find_attached(scheme, conn_id)
    if not known and fs is None:
        raise AmiliStorageSettingsError(
            f"Nothing here can open {scheme}:// ({url}). What works: {what_works()}."
        )
    if fs is not None:
        return Storage(kind, fs, None, "", f"{scheme}://")
    connection = look_up(conn_id) if conn_id else None
    log.warning("%s:// is passed through to Airflow's own filesystem; this package does not test it.", scheme)
    try:
        fs = attached.build(scheme, conn_id)
    except Exception as error:
        raise explain("open", f"{scheme}://", connection, error) from None
    return Storage(kind, fs, connection, "", f"{scheme}://")


_Opener = Callable[[Kind, "str | None", str, "StorageConnection | None"], Storage]
_OPENERS: dict[str, _Opener] = {"file": _open_file}
