"""An open storage and the paths on it: how they are written and shown, what patterns match, and their order."""

from __future__ import annotations

import fnmatch
import functools
import posixpath
import re
import unicodedata
from dataclasses import dataclass, field, replace
from typing import Any

from amili_provider.receipts import escaped
from amili_provider.storage.connections import Kind, StorageConnection, shown, split_host, split_url

_MAGIC = re.compile(r"[*?\[]")
_NUMBERS = re.compile("([0-9]+)")


def is_pattern(path: str) -> bool:
    """Return whether *path* has wildcards in it."""
    return _MAGIC.search(path) is not None


def natural_key(path: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Return what sorts ``file2`` before ``file10``, folder by folder; the path itself settles ties."""
    folder, slash, name = path.rpartition("/")
    # The suffix apart, so that "a.csv" comes before "a2.csv" and "a b.csv".
    stem, suffix = posixpath.splitext(name)
    return (*(_folder_key(folder) if slash else ()), _segment_key(stem), _suffix_key(suffix)), path


@functools.lru_cache(maxsize=64)
def _folder_key(folder: str) -> tuple[tuple[str | int, ...], ...]:
    # The files of a folder share it: it is not taken apart, nor compared piece by piece, for each of them.
    return tuple(_segment_key(segment) for segment in folder.split("/"))


@functools.lru_cache(maxsize=64)
def _suffix_key(suffix: str) -> tuple[str | int, ...]:
    return _segment_key(suffix)


def _segment_key(segment: str) -> tuple[str | int, ...]:
    # Text and numbers alternate, so that like is compared with like.
    return tuple(int(part) if index % 2 else part for index, part in enumerate(_NUMBERS.split(segment)))


class Levels:
    """
    A pattern of several levels, as a small automaton: a state is how many levels are matched.

    :param segments: one pattern per level; ``**`` stands for any number of levels.
    :param any_case: whether upper and lower case count as equal.
    """

    def __init__(self, segments: list[str], *, any_case: bool = False) -> None:
        flags = re.IGNORECASE if any_case else re.NOFLAG
        self._segments = [
            None if segment == "**" else re.compile(fnmatch.translate(unicodedata.normalize("NFC", segment)), flags)
            for segment in segments
        ]

    def start(self) -> frozenset[int]:
        """Return the states before the first level."""
        return self._spread({0})

    def _spread(self, states: set[int]) -> frozenset[int]:
        # "**" may stand for no level at all.
        for state in sorted(states):
            following = state
            while following < len(self._segments) and self._segments[following] is None:
                following += 1
                states.add(following)
        return frozenset(states)

    def step(self, states: frozenset[int], name: str, *, folder_link: bool) -> frozenset[int]:
        """
        Return the states after a level called *name*.

        :param folder_link: whether it is a link to a folder; ``**`` does not follow these, for they may be loops.
        """
        name = unicodedata.normalize("NFC", name)
        reached: set[int] = set()
        for state in states:
            if state == len(self._segments):
                continue
            segment = self._segments[state]
            if segment is None:
                if not folder_link:
                    reached.add(state)
            elif segment.match(name):
                reached.add(state + 1)
        return self._spread(reached)

    def goes_on(self, states: frozenset[int]) -> bool:
        """Return whether something deeper could match."""
        return any(state < len(self._segments) for state in states)

    def matches(self, states: frozenset[int]) -> bool:
        """Return whether the whole pattern is matched."""
        return len(self._segments) in states


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
