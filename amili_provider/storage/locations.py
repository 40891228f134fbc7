"""A path on an open filesystem, and how paths of each kind of storage are written and shown."""

from __future__ import annotations

import posixpath
import unicodedata
from dataclasses import dataclass, field, replace
from typing import Any

from amili_provider.receipts import escaped
from amili_provider.storage.connections import Kind, StorageConnection, shown, split_host, split_url
from amili_provider.storage.patterns import Levels, is_pattern


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
    :param exact: whether its wildcards are just characters of names.
    """

    fs: Any = field(repr=False, compare=False)
    path: str
    url: str
    conn_id: str | None
    protocol: str
    storage: Storage = field(repr=False, compare=False)
    exact: bool = False

    @property
    def is_pattern(self) -> bool:
        """Whether it is read as a pattern; there may be a file or folder called like it all the same."""
        return self.storage.kind.lists and not self.exact and is_pattern(self.path)

    def finds(self, path: str) -> bool:
        """Return whether a listing of this finds a file at *path*."""
        bare = self.path.rstrip("/")
        if path == bare or posixpath.dirname(path) == bare:
            return True
        levels, states = self._after(path)
        return self.is_pattern and levels.matches(states)

    def looks_into(self, folder: str) -> bool:
        """Return whether a listing of this looks into *folder*."""
        levels, states = self._after(folder)
        return self.is_pattern and levels.goes_on(states)

    def _after(self, path: str) -> tuple[Levels, frozenset[int]]:
        levels = Levels([*self.path.rstrip("/").split("/"), *(["*"] if self.path.endswith("/") else [])])
        states = levels.start()
        for segment in path.split("/"):
            states = levels.step(states, segment, folder_link=False)
        return levels, states

    def at(self, path: str) -> Location:
        """Return another path on the same filesystem."""
        return replace(self, path=path, url=self.storage.show(path))


@dataclass(frozen=True)
class Storage:
    """
    An open filesystem and how its paths are written.

    :param kind: which kind of storage.
    :param fs: the filesystem.
    :param connection: what the Airflow connection says, if there is one.
    :param base: where paths without a scheme start.
    :param prefix: what a path is shown with.
    """

    kind: Kind
    fs: Any = field(repr=False, compare=False)
    connection: StorageConnection | None
    base: str
    prefix: str

    def close(self) -> None:
        """Close the connections; who uses it again opens new ones."""
        self.fs.close()

    def show(self, path: str) -> str:
        """Return *path* as a URL for people: one safe line, which names one path only."""
        if self.kind.protocol == "http":
            # What follows may be a signature.
            path = path.partition("?")[0].partition("#")[0]
        return escaped(self.prefix + path)

    def name_of(self, path: str) -> str:
        """Return the base name of *path*, Unicode NFC."""
        name = self.fs.file_name(path) if self.kind.protocol == "http" else posixpath.basename(path)
        return unicodedata.normalize("NFC", name)

    def locate(self, url: str, *, exact: bool = False) -> Location:
        """
        Return the location of *url* on this storage.

        :param exact: whether its wildcards are just characters of names.
        :raises ValueError: if it is of another storage, or leaves the connection's base path.
        """
        if self.kind.protocol == "smb":
            # As Windows writes it; there no name can hold a backslash.
            url = url.replace("\\", "/")
            url = f"smb:{url}" if url.startswith("//") else url
        scheme, rest = split_url(url)
        path = self._without_scheme(url) if scheme is None else self._with_scheme(url, scheme, rest)
        if self.kind.object_store and (not path.partition("/")[0] or (scheme and rest.startswith("/"))):
            raise ValueError(
                f"{shown(url)} names no bucket. Write {self.kind.protocol}://bucket/path; a template variable that is "
                f"empty leaves the bucket out."
            )
        return Location(
            fs=self.fs,
            path=path,
            url=self.show(path),
            conn_id=self.connection.conn_id if self.connection else None,
            protocol=self.kind.protocol,
            storage=self,
            exact=exact,
        )

    def _with_scheme(self, url: str, scheme: str, rest: str) -> str:
        if self.kind.protocol == "file":
            host, path = split_host(rest)
            if host not in ("", "localhost"):
                raise ValueError(
                    f"{shown(url)} names the host {host!r}, but local files have none. Write three slashes: file:///path."
                )
            return path or "/"
        if self.kind.object_store:
            return self._without_account(url, rest)
        return str(self.fs.path_of(scheme, rest))

    def _without_scheme(self, path: str) -> str:
        if self.kind.object_store:
            return "/".join(part for part in (self.base, path.lstrip("/")) if part)
        if self.kind.protocol == "http":
            return self.base.rstrip("/") + "/" + path.lstrip("/")
        if not path.startswith("/") and not self.base:
            raise ValueError(
                f"The path {path!r} is relative, and nothing says to what. Write it with a scheme, with a "
                f"leading slash, or name a connection that has a base path."
            )
        if self.kind.protocol == "file" and self.base not in ("", "/"):
            return self._under_base(path)
        return posixpath.join(self.base, path)

    def _under_base(self, path: str) -> str:
        # The same path means the same folder whichever base the connection has; a path that spells the base out
        # means that, as it does for Airflow's own file sensor.
        if path == self.base or path.startswith(self.base + "/"):
            return path
        if ".." in path.split("/"):
            raise ValueError(f"The path {path!r} leaves the base path of its connection: it contains '..'.")
        return posixpath.join(self.base, path.lstrip("/"))

    def _without_account(self, url: str, rest: str) -> str:
        """Return ``container/path`` for ``container@account.host/path`` too, if the account is the connection's."""
        host, path = split_host(rest)
        container, at, account = host.rpartition("@")
        if not at:
            return rest
        if self.connection is not None:
            ours = f"{self.connection.host} {self.connection.login}".casefold()
            if account.split(".")[0].casefold() not in ours:
                raise ValueError(
                    f"{shown(url)} names the account {account!r}, but the connection {self.connection.conn_id!r} is of "
                    f"another. Write abfs://container/path, or choose another connection."
                )
        return container + path
