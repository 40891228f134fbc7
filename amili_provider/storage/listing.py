"""
What is there: files, folders and patterns, listed without hiding an error.

fsspec's own ``glob`` and ``find`` swallow errors: a bucket that does not exist, a locked folder, a dead server all
come back as "no files", and a day would be skipped in silence. This walk asks ``ls`` only, and lets every error out.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import logging
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.absence import folder_may_be_empty
from amili_provider.storage.entries import Entry, read_entry
from amili_provider.storage.filesystems import Location, Storage, open_storage, split_conn_id
from amili_provider.storage.kinds import split_host, split_url
from amili_provider.storage.streams import BLOCK_BYTES, Blocks, ShortRead, WholeFile
from amili_provider.storage.troubles import explain

log = logging.getLogger(__name__)

_MAGIC = re.compile(r"[*?\[]")
_PRINTED_LIST = re.compile(r"""\s*[\[(]\s*(['"].*['"]\s*,?)?\s*[\])]\s*""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StorageFile:
    """
    One file of a listing.

    :param location_root: where the listing started; shared by its files.
    :param path: the path on the filesystem.
    :param url: the path as people see it.
    :param name: the base name, Unicode NFC.
    :param size: bytes, as listed.
    :param fingerprint: ETag, generation or modification time: what changes with the content.
    :param modified: when it was last written, in seconds since 1970, by the storage's own clock.
    :param local_path: the path if it is a local file, to be read in place.
    :param literal: whether it was named, rather than found by a pattern or in a folder.
    """

    location_root: Location = field(repr=False, compare=False)
    path: str
    url: str
    name: str
    size: int
    fingerprint: str | None
    modified: float | None
    local_path: str | None
    literal: bool

    def open(self) -> BinaryIO:
        """
        Return a stream of the bytes from the start, to be used by one thread.

        It gives as many bytes as were listed, or raises :class:`AmiliStorageError` or :class:`FileNotFoundError`.
        """
        root = self.location_root

        def wrap(error: BaseException) -> Exception:
            return explain("read", self.url, root.storage.connection, error)

        try:
            inner, in_pieces = self._open_inner(root)
        except Exception as error:
            raise wrap(error) from None
        check = self._check_unchanged if in_pieces and self.fingerprint is not None else None
        return cast("BinaryIO", WholeFile(inner, self.size, check, wrap))

    def _open_inner(self, root: Location) -> tuple[BinaryIO, bool]:
        if self.local_path is not None:
            return io.open(self.local_path, "rb", buffering=0), False  # noqa: SIM115,UP020 - closed by WholeFile
        if root.storage.kind.object_store:
            return cast("BinaryIO", Blocks(root.fs, self.path, self.size)), not 0 < self.size <= BLOCK_BYTES
        return root.fs.open(self.path, "rb"), True

    def _check_unchanged(self) -> None:
        now = look_at(self.location_root, self.path)
        if (now.size, now.fingerprint) != (self.size, self.fingerprint):
            raise ShortRead("it was replaced or written to since it was listed")


def look_at(location: Location, path: str) -> Entry:
    """Return what the storage says of *path* now, past any cache. Errors come out as the filesystem raises them."""
    location.fs.invalidate_cache()
    return read_entry(location.fs.info(path))


def list_files(
    source: str | Sequence[str], conn_id: str | None, *, max_files: int = 10_000
) -> list[StorageFile]:
    """
    Return the files that *source* names, in natural order. Only from the task's own thread.

    An empty list means that the storage was asked, and has none: every failure is raised.

    :param source: a file, a folder (its own files; ``**`` goes deeper), a pattern, or a list of these.
    :param conn_id: the Airflow connection.
    :param max_files: more than this is an error.
    :raises FileNotFoundError: if a named file, or the folder that a pattern starts from, does not exist.
    :raises AmiliStorageError: if the storage cannot be listed.
    :raises AmiliStorageSettingsError: if this cannot work as configured, or there are too many files.
    :raises ValueError: if the path cannot be understood.
    """
    found: dict[str, StorageFile] = {}
    storages: dict[tuple[str | None, ...], Storage] = {}
    for one in _sources(source):
        url, conn = split_conn_id(one, conn_id or None)
        scheme, rest = split_url(url)
        key = (scheme, conn, split_host(rest)[0] if scheme in ("http", "https") else None)
        if key not in storages:
            storages[key] = open_storage(url, conn)
        location = storages[key].locate(url)
        listed = _Listing(location)
        try:
            for file in listed.files():
                found.setdefault(file.url, file)
                if len(found) > max_files:
                    raise AmiliStorageSettingsError(
                        f"{location.url} matches more than max_files={max_files} files, and nothing was sent. "
                        f"Narrow the path, or raise max_files if so many are meant."
                    )
        except ValueError:
            raise
        except Exception as error:
            raise explain("list", listed.at_url, location.storage.connection, error) from None
    return list(found.values())


def _sources(source: str | Sequence[str]) -> list[str]:
    many = [source] if isinstance(source, str) else source
    if not isinstance(many, (list, tuple)) or not many:
        raise ValueError(
            f"source must be a path or a list of paths, not {type(source).__name__} {source!r:.100}."
        )
    for one in many:
        if not isinstance(one, str) or not one.strip():
            raise ValueError(f"source must name a path, not {one!r}.")
        if _PRINTED_LIST.fullmatch(one):
            raise ValueError(
                "source looks like a list that was printed as text. Pass the list itself: source=task.output rather "
                "than a template, or render_template_as_native_obj=True on the DAG."
            )
    return list(many)


def natural_key(path: str) -> tuple[list[tuple[str | int, ...]], str]:
    """Return what sorts ``file2`` before ``file10``, folder by folder; the path itself settles ties."""
    return [_segment_key(segment) for segment in path.split("/")], path


def _segment_key(segment: str) -> tuple[str | int, ...]:
    # Text and numbers alternate, so that like is compared with like. ASCII digits only: int() knows no others well.
    parts = re.split(r"([0-9]+)", segment)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


class _Listing:
    """
    One path, listed.

    :param location: the path as the user wrote it, on its filesystem.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._fs = location.fs
        self._storage = location.storage
        self.at_url = location.url
        """Where the listing is, for the message when it fails."""

    def files(self) -> list[StorageFile]:
        """Return the files in natural order."""
        self._fs.invalidate_cache()
        path = self._location.path
        if not self._storage.kind.lists:
            return [self._file(read_entry(self._fs.info(path)), literal=True)]
        bare = path.rstrip("/") or "/"
        object_store = self._storage.kind.object_store
        if object_store and _MAGIC.search(bare.partition("/")[0]):
            raise ValueError(
                f"The bucket of {self._location.url} is a pattern. Name one bucket; list several paths."
            )
        entry = None if bare == "/" else self._look(bare)
        if entry is not None and entry.is_file and not path.endswith("/"):
            return [self._file(entry, literal=True)]
        if entry is not None and not entry.is_file and not entry.is_folder:
            raise OSError("it is neither a file nor a folder")
        if bare == "/" or (entry is not None and entry.is_folder):
            return self._sorted(self._walk(bare, ["*"]))
        if _MAGIC.search(bare):
            return self._pattern(path)
        if entry is not None:
            raise NotADirectoryError(bare)
        if path.endswith("/") and object_store:
            return self._sorted(self._walk(bare, ["*"]))
        missing = FileNotFoundError(errno.ENOENT, "no such file", bare)
        if object_store:
            # If even the bucket is missing, that is what has to be said.
            folder_may_be_empty(self._fs, self._storage.kind.protocol, bare, missing)
        raise missing

    def _look(self, path: str) -> Entry | None:
        try:
            return read_entry(self._fs.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _pattern(self, path: str) -> list[StorageFile]:
        segments = path.split("/")
        if not segments[-1]:
            segments[-1] = "*"  # a pattern of folders: the files in them
        fixed = next(i for i, segment in enumerate(segments) if _MAGIC.search(segment))
        if fixed == 0 and self._storage.kind.object_store:
            raise ValueError(
                f"The bucket of {self._location.url} is a pattern. Name one bucket; list several paths."
            )
        base = "/".join(segments[:fixed]) or ("/" if path.startswith("/") else "")
        wanted = [segment for segment in segments[fixed:] if segment]
        return self._sorted(self._walk(base, wanted))

    def _sorted(self, entries: Iterator[Entry]) -> list[StorageFile]:
        files = [self._file(entry, literal=False) for entry in entries]
        files.sort(key=lambda file: natural_key(file.path))
        return files

    def _file(self, entry: Entry, *, literal: bool) -> StorageFile:
        name = unicodedata.normalize("NFC", posixpath.basename(entry.path))
        return StorageFile(
            location_root=self._location,
            path=entry.path,
            url=self._storage.show(entry.path),
            name=name,
            size=entry.size,
            fingerprint=entry.fingerprint,
            modified=entry.modified,
            local_path=entry.path if self._storage.kind.protocol == "file" else None,
            literal=literal,
        )

    def _walk(self, base: str, segments: list[str]) -> Iterator[Entry]:
        """
        Yield the files below *base* that match *segments*, listing each folder once.

        :param segments: one pattern per level; ``**`` stands for any number of levels.
        """
        pattern = _Levels(segments)
        folders = [(base, pattern.start())]
        while folders:
            folder, states = folders.pop()
            for entry in self._ls(folder, is_base=folder == base):
                name = posixpath.basename(entry.path)
                reached = pattern.step(states, name, is_link=entry.is_link and entry.is_folder)
                if entry.is_folder:
                    if pattern.goes_on(reached):
                        folders.append((entry.path, reached))
                elif pattern.matches(reached):
                    if entry.is_file:
                        yield entry
                    else:
                        log.warning(
                            "%s is neither a file nor a folder: not looked at.",
                            self._storage.show(entry.path),
                        )

    def _ls(self, folder: str, *, is_base: bool) -> Iterator[Entry]:
        self.at_url = self._storage.show(folder)
        try:
            listed = self._fs.ls(folder, detail=True)
        except FileNotFoundError as error:
            if not self._storage.kind.object_store:
                raise
            folder_may_be_empty(self._fs, self._storage.kind.protocol, folder, error)
            return
        finally:
            self._fs.invalidate_cache()
        inside = folder.rstrip("/") + "/"
        while listed:
            # Given back one by one: a large listing is not kept twice.
            entry = read_entry(listed.pop())
            if entry.path == folder.rstrip("/"):
                if entry.is_file and is_base and not self._storage.kind.object_store:
                    raise NotADirectoryError(folder)
                continue
            name = entry.path[len(inside) :] if entry.path.startswith(inside) else ""
            if not name or "/" in name or name in (".", ".."):
                log.warning(
                    "%s cannot be reached as a file in a folder: not looked at.",
                    self._storage.show(entry.path),
                )
                continue
            yield entry


class _Levels:
    """
    A pattern of several levels, as a small automaton: a state is how many levels are matched.

    :param segments: one pattern per level.
    """

    def __init__(self, segments: list[str]) -> None:
        self._segments = [
            None if segment == "**" else re.compile(fnmatch.translate(unicodedata.normalize("NFC", segment)))
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

    def step(self, states: frozenset[int], name: str, *, is_link: bool) -> frozenset[int]:
        """Return the states after a level called *name*. ``**`` does not follow links to folders: they may be loops."""
        name = unicodedata.normalize("NFC", name)
        reached: set[int] = set()
        for state in states:
            if state == len(self._segments):
                continue
            segment = self._segments[state]
            if segment is None:
                if not is_link:
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
