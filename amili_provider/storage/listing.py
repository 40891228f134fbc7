"""
The listing: files, folders and patterns that are there, without hiding an error.

A folder that is locked or not mounted, and a server that is dead, must not come back as "no files": a day would be
skipped in silence.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import posixpath
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import cast

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.backends.objects import THREADS, look_at_key, matching, right_below
from amili_provider.storage.base import Entry
from amili_provider.storage.errors import explain
from amili_provider.storage.files import StorageFile
from amili_provider.storage.locations import Levels, Location, is_pattern, natural_key
from amili_provider.storage.names import comparable
from amili_provider.storage.opening import EXACT, Sources, open_sources

log = logging.getLogger(__name__)


def list_files(
    source: str | Sequence[str] | Sources, conn_id: str | None = None, *, max_files: int = 10_000
) -> list[StorageFile]:
    """
    Return the files that *source* names, in natural order. Only from the task's own thread.

    An empty list means that the storage was asked, and has none: every failure is raised.

    :param source: as for :func:`open_sources`, or what that returned. Then a folder that is not there, although the
        folder that it should be in is and was listed, is no error, but empty: it is added to ``missing``.
    :param conn_id: the Airflow connection.
    :param max_files: more than this is an error.
    :raises FileNotFoundError: if a named file, or the folder that a pattern starts from, does not exist.
    :raises AmiliStorageError: if the storage cannot be listed.
    :raises AmiliStorageSettingsError: if this cannot work as configured, or there are too many files.
    :raises ValueError: if the path cannot be understood.
    """
    if isinstance(source, Sources):
        sources, known = source, source
        sources.missing.clear()
        sources.other_case.clear()
    else:
        sources, known = open_sources(source, conn_id), None
    found: list[StorageFile] = []
    known_paths: dict[tuple[str, str | None], set[str]] = {}
    for listing in _looked_ahead([_Listing(location, known, max_files) for location in sources.locations]):
        location = listing.location
        paths = known_paths.setdefault((location.protocol, location.conn_id), set())
        for file in _list_one(listing):
            if file.path not in paths:
                paths.add(file.path)
                found.append(file)
            if len(found) > max_files:
                raise _too_many(location, max_files)
    return found


def _too_many(location: Location, max_files: int) -> AmiliStorageSettingsError:
    return AmiliStorageSettingsError(
        f"{location.url} matches more than max_files={max_files} files, and nothing was sent. Narrow the path, or "
        f"raise max_files if so many are meant."
    )


def _list_one(listing: _Listing) -> list[StorageFile]:
    location = listing.location
    try:
        return listing.files()
    except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
        explained = explain("list", listing.at_url, location.storage.connection, error)
        # What a library calls an invalid request is one the next time too; its subclasses are about bytes and JSON.
        if type(error) is ValueError:
            raise AmiliStorageSettingsError(f"{explained} Correct the path, or choose another connection.") from None
        raise explained from None


def _looked_ahead(listings: Sequence[_Listing]) -> Iterator[_Listing]:
    """Yield *listings* in their order; a thousand named objects must not cost a thousand requests in a row."""
    if len(listings) == 1:
        yield listings[0]
        return
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="amili-list")
    ahead: deque[_Listing] = deque()
    try:
        for listing in listings:
            listing.look_ahead(pool)
            ahead.append(listing)
            if len(ahead) >= 4 * THREADS:
                yield ahead.popleft()
        yield from ahead
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever is told to stop does not wait for a silent server


def _in_order(file: StorageFile) -> tuple[object, str]:
    return natural_key(file.path)


class _Listing:
    """
    One path, listed.

    :param location: the path as the user wrote it, on its filesystem.
    :param sources: takes up a folder that is not there; None to raise that.
    :param most: more files than this end the walk.
    """

    def __init__(self, location: Location, sources: Sources | None, most: int) -> None:
        self.location = location
        self._sources = sources
        self._most = most
        self._fs = location.fs
        self._looked: Future[Entry | None] | None = None
        self._storage = location.storage
        self.at_url = location.url
        """Where the listing is, for the message when it fails."""
        self._of_objects = self._storage.kind.object_store
        if self._of_objects and is_pattern(location.path.partition("/")[0]):
            raise ValueError(f"The bucket of {location.url} is a pattern. Name one bucket; several paths go in a list.")

    def look_ahead(self, pool: ThreadPoolExecutor) -> None:
        """Begin to ask what is at the path, where that takes a request and can be done while others are."""
        if self._of_objects:
            self._looked = pool.submit(self._look, self.location.path)

    def files(self) -> list[StorageFile]:
        """Return the files in natural order: what the pattern matches, and what is called like the path itself."""
        path = self.location.path
        bare = path if self._of_objects else path.rstrip("/") or "/"
        if not self._storage.kind.lists:
            return [self._file(self._fs.info(path), literal=True)]
        entry = self._look(bare) if self._looked is None else self._looked.result()
        if not self.location.is_pattern:
            return self._nothing_there(path, bare) if entry is None else self._named(path, bare, entry)
        matched = self._pattern(path)
        if entry is None or (path.endswith("/") and not entry.is_folder):
            return matched
        known = {file.path for file in matched}
        named = [file for file in self._named(path, bare, entry) if file.path not in known]
        if known - {bare}:
            log.warning(
                "%s is called like the pattern, and is taken together with what the pattern matches. To name it alone, "
                "write %s%s",
                *(self.location.url, EXACT, self.location.url),
            )
        return sorted([*matched, *named], key=_in_order)

    def _named(self, path: str, bare: str, entry: Entry) -> list[StorageFile]:
        """Return the file or the folder's files that *entry*, which the path leads to, stands for."""
        if entry.is_folder:
            return self._sorted(right_below(self._fs, path) if self._of_objects else self._walk(bare, ["*"]))
        if path.endswith("/"):
            raise OSError(entry.fault) if entry.may_be_folder else NotADirectoryError(bare)
        return [self._file(entry, literal=True)]

    def _look(self, path: str) -> Entry | None:
        if self._of_objects:
            return look_at_key(self._fs, path)
        try:
            return cast("Entry", self._fs.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _nothing_there(self, path: str, bare: str) -> list[StorageFile]:
        missing = FileNotFoundError(errno.ENOENT, "no such file", bare)
        if self._of_objects:
            if path.endswith("/") and (other := self._look(path.rstrip("/"))) is not None and other.is_file:
                raise NotADirectoryError(path)
        elif not path.endswith("/"):
            # Some servers say of a link without a target that there is none, but list it.
            with contextlib.suppress(FileNotFoundError):
                for entry in self._ls(posixpath.dirname(bare)):
                    if entry.path == bare and entry.fault is not None:
                        return [self._file(entry, literal=True)]
            self.at_url = self.location.url
        if path.endswith("/") and (self._of_objects or self._is_missing(bare)):
            return []
        raise missing

    def _is_missing(self, folder: str) -> bool:
        """
        Return whether *folder* is not there, although the folder that it should be in is and can be listed.

        A share that is not mounted, or a server that says so of folders without rights, is no empty day.
        """
        above, name = posixpath.split(folder)
        if self._sources is None or self._of_objects or not above or not name:
            return False
        try:
            there = {comparable(posixpath.basename(one.path)) for one in self._fs.scan(above)}
        except Exception:  # noqa: BLE001 - whatever it is, nothing shows that the folder is only missing
            return False
        if comparable(name) in there:
            return False
        self._sources.missing.append(self._storage.show(folder))
        return True

    def _pattern(self, path: str) -> list[StorageFile]:
        found = self._sorted(self._matching(path))
        if not found and self._sources is not None and not self._sources.missing:
            # It helps to know, and changes nothing: a failure here was none of the listing.
            with contextlib.suppress(Exception):
                self._sources.other_case.extend(
                    posixpath.basename(entry.path) for entry in islice(self._matching(path, any_case=True), 1)
                )
        return found

    def _matching(self, path: str, *, any_case: bool = False) -> Iterator[Entry]:
        segments = path.split("/")
        segments[-1] = segments[-1] or "*"  # a pattern of folders: the files in them
        fixed = next(i for i, segment in enumerate(segments) if is_pattern(segment))
        base = "/".join(segments[:fixed])
        if self._of_objects:
            self.at_url = self._storage.show(base)
            return matching(self._fs, base, segments[fixed:], any_case=any_case)
        return self._walk(base or "/", [segment for segment in segments[fixed:] if segment], any_case=any_case)

    def _sorted(self, entries: Iterator[Entry]) -> list[StorageFile]:
        found: list[StorageFile] = []
        for entry in entries:
            found.append(self._file(entry, literal=False))
            if len(found) > self._most:
                raise _too_many(self.location, self._most)
        return sorted(found, key=_in_order)

    def _file(self, entry: Entry, *, literal: bool) -> StorageFile:
        return StorageFile(
            location_root=self.location,
            path=entry.path,
            url=self._storage.show(entry.path),
            name=self._storage.name_of(entry.path),
            size=entry.size,
            fingerprint=entry.fingerprint,
            modified=entry.modified,
            local_path=entry.path if self._storage.kind.protocol == "file" else None,
            literal=literal,
            fault=entry.fault,
            changed=entry.changed,
        )

    def _walk(self, base: str, segments: list[str], *, any_case: bool = False) -> Iterator[Entry]:
        """
        Yield the files below *base* that match *segments*, listing each folder once.

        :param segments: one pattern per level; ``**`` stands for any number of levels.
        """
        pattern = Levels(segments, any_case=any_case)
        folders = [(base, pattern.start())]
        while folders:
            folder, states = folders.pop()
            for entry in self._entries(folder, base):
                name = posixpath.basename(entry.path)
                reached = pattern.step(states, name, folder_link=False)
                below = pattern.step(states, name, folder_link=True) if entry.is_link else reached
                if entry.is_folder:
                    if pattern.goes_on(below):
                        folders.append((entry.path, below))
                elif pattern.matches(reached):
                    yield entry
                elif entry.may_be_folder and pattern.goes_on(below):
                    # It would be looked into, and what is in there is not known.
                    yield entry

    def _entries(self, folder: str, base: str) -> Iterator[Entry]:
        try:
            yield from self._ls(folder)
        except FileNotFoundError:
            # Deeper down it was there a moment ago.
            if folder != base or not self._is_missing(base):
                raise

    def _ls(self, folder: str) -> Iterator[Entry]:
        self.at_url = self._storage.show(folder)
        bare = folder.rstrip("/")
        for entry in self._fs.scan(folder):
            if entry.path == bare:
                if entry.is_file:
                    raise NotADirectoryError(folder)
                continue
            name = entry.path.removeprefix(bare + "/")
            if name == entry.path or not name or "/" in name or name in (".", ".."):
                log.warning("%s cannot be named as a file in a folder: left.", self._storage.show(entry.path))
                continue
            yield entry


def unstable_files(
    before: Sequence[StorageFile], after: Sequence[StorageFile], seconds: float
) -> dict[tuple[str, str | None, str], str]:
    """
    Return why files cannot be taken for whole, by their keys; stable ones are left out.

    Two listings cost a storage less than asking for every file, and need no clock that two machines agree on.

    :param before: the listing.
    :param after: the same listing, *seconds* later.
    :param seconds: the interval.
    """
    now = {file.key: file for file in after}
    reasons = {}
    for file in before:
        later = now.get(file.key)
        if later is None:
            reasons[file.key] = f"It was gone {seconds:g} s after it was listed."
        elif later.size != file.size:
            reasons[file.key] = f"Still being written: {file.size} bytes, {seconds:g} s later {later.size}."
        elif (later.fingerprint, later.modified) != (file.fingerprint, file.modified):
            reasons[file.key] = f"Still being written: changed within {seconds:g} s."
    return reasons
