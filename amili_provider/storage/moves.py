"""
Moving what is settled out of the way: ``archive_to`` and ``reject_to``.

A move never loses a file: it is made only if the file is still the one that was listed, never over another, never to
where the source would find it again, and the original goes only after the copy was read back and is the same. A task
that was killed between copying and deleting is picked up where it was: an equal copy counts as made, unless it is the
file itself, seen under another name of its folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import posixpath
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from uuid import uuid4

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.storage.base import Entry, NotAsListedError
from amili_provider.storage.connections import BY_SCHEME, split_url
from amili_provider.storage.errors import explain
from amili_provider.storage.files import StorageFile, look_at
from amili_provider.storage.locations import Location, is_pattern
from amili_provider.storage.names import with_suffix
from amili_provider.storage.opening import open_storage, split_conn_id

log = logging.getLogger(__name__)

_BLOCK = 1024 * 1024
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Moved:
    """
    What became of one move.

    :param url: where the file is now; None if it was not moved.
    :param reason: why it was not moved, or what is left to do.
    """

    url: str | None
    reason: str | None = None


class Mover:
    """
    Moves settled files into one folder.

    :param parameter: what the user calls it: ``archive_to`` or ``reject_to``.
    :param target: the folder.
    """

    def __init__(self, parameter: str, target: Location) -> None:
        self._parameter = parameter
        self.target = target

    @classmethod
    def open(cls, parameter: str, url: str, conn_id: str | None, files: Iterable[StorageFile]) -> Mover:
        """
        Open the folder *url*, before anything is sent. Only from the task's own thread.

        :param parameter: what the user calls it: ``archive_to`` or ``reject_to``.
        :param url: the folder; without a scheme, or with the source's, it is on the source's connection.
        :param conn_id: the source's connection.
        :param files: what may be moved.
        :raises ValueError: if it is no folder, or the source would find there what was moved.
        :raises AmiliStorageSettingsError: if it cannot work as configured.
        """
        files = list(files)
        if is_pattern(url):
            raise ValueError(f"{parameter}={_shown(url)!r} is a pattern. Name one folder.")
        url, named = split_conn_id(url, None)
        scheme, _ = split_url(url)
        if named is None and (scheme is None or _same_kind(scheme, files)):
            named = conn_id
        with ExitStack() as unless_good:
            try:
                storage = open_storage(url, named)
                unless_good.callback(storage.close)
                target = storage.locate(url)
            except (AmiliStorageSettingsError, ValueError) as error:
                raise type(error)(f"{parameter}={_shown(url)!r}: {error}") from None
            if not storage.kind.lists:
                raise ValueError(f"{parameter}={_shown(url)!r}: files cannot be moved to an HTTP address.")
            mover = cls(parameter, target.at(target.path.rstrip("/") or "/"))
            for file in files:
                if mover._found_again(file):
                    raise ValueError(
                        f"{parameter}={_shown(url)!r} is inside the source {file.location_root.url}: what is moved "
                        f"there would be found again. Name a folder that the source does not match."
                    )
            unless_good.pop_all()
        return mover

    def _on_same_storage(self, file: StorageFile) -> bool:
        source = file.location_root
        return (source.protocol, source.conn_id) == (self.target.protocol, self.target.conn_id)

    def _found_again(self, file: StorageFile) -> bool:
        """Return whether the listing that found *file* would find it in the target too."""
        if not self._on_same_storage(file):
            return False
        moved = self._join(posixpath.basename(file.path))
        if moved == file.path or self._is_folder_of(file):
            return True
        return not file.literal and file.location_root.finds(moved)

    def _is_folder_of(self, file: StorageFile) -> bool:
        """Return whether *file* lies in the target, under whatever spelling; on object storages a key is a key."""
        if self.target.storage.kind.object_store:
            return False
        plain = _real if self.target.protocol == "file" else posixpath.normpath
        return plain(posixpath.dirname(file.path)) == plain(self.target.path)

    def _join(self, name: str) -> str:
        return posixpath.join(self.target.path, name)

    def move(self, file: StorageFile, *, file_id: str, sha256: str) -> Moved:
        """
        Move *file*; what prevents it is returned, never raised. From any thread.

        :param file: as it was listed.
        :param file_id: goes into the new name if that of the file is taken.
        :param sha256: of the content that was delivered.
        """
        try:
            return self._move(file, file_id, sha256)
        except Exception as error:  # noqa: BLE001 - what is delivered stays delivered, whatever a move does
            return Moved(None, self._explained(file, error))

    def _explained(self, file: StorageFile, error: BaseException) -> str:
        source, target = file.location_root.storage.connection, self.target.storage.connection
        known = target or source
        if source is not None and target is not None:
            known = replace(target, secrets=target.secrets | source.secrets)
        why = str(explain("move", f"{file.url} to {self._parameter}={self.target.url!r}", known, error))
        if target is None and self.target.storage.kind.object_store:
            why += f" The folder has no connection: name one in it, {self.target.protocol}://<connection>@<bucket>/…"
        return why

    def _move(self, file: StorageFile, file_id: str, sha256: str) -> Moved:
        if not file.location_root.storage.kind.lists:
            return Moved(None, f"{file.url} cannot be moved: files at an HTTP address can only be read.")
        if (reason := _changed(file)) is not None:
            return Moved(None, reason)
        self.target.fs.make_folders(self.target.path)
        name = posixpath.basename(file.path)
        for candidate in (name, with_suffix(name, file_id)):
            path = self._join(candidate)
            there = _look(self.target, path)
            if there is not None and self._is_itself(there, file):
                return Moved(None, f"{file.url} stays: {self.target.url} is its own folder under another name.")
            if there is None:
                try:
                    if (renamed := self._rename(file, path, sha256)) is not None:
                        return renamed
                    self._copy(file, path, sha256)
                    return self._delete(file, path)
                except FileExistsError:
                    # Another's, or our own, whose answer was lost.
                    there = _look(self.target, path)
            if there is not None and self._is_copy(there, file, sha256):
                return self._delete(file, path)
        return Moved(None, f"{file.url} stays: both its name and {candidate!r} are taken in {self.target.url}.")

    def _is_itself(self, there: Entry, file: StorageFile) -> bool:
        """Return whether what is *there* may be the very file, reached by another connection or spelling."""
        if self.target.protocol != file.location_root.protocol:
            # A disk may be served by SFTP, and a bucket by two protocols: then size and second are the same.
            return (there.size, _second(there)) == (file.size, _second(file))
        if self.target.storage.kind.object_store:
            # A bucket may have several names, and a server may take two keys for one. What has the same content and the
            # same second may still be a copy, but nothing is deleted on the strength of that.
            same = (there.size, there.fingerprint, _second(there)) == (file.size, file.fingerprint, _second(file))
            return same or there.path == file.path
        if (there.size, there.fingerprint) != (file.size, file.fingerprint):
            return False
        if self.target.protocol == "file":
            return True  # the fingerprint holds the inode
        # A copy made in the same second looks alike; only what goes by another name with the file is the file.
        fs, aside = file.location_root.fs, f"{file.path}.{uuid4().hex[:12]}"
        fs.rename(file.path, aside)
        try:
            return _look(self.target, there.path) is None
        finally:
            fs.rename(aside, file.path)

    def _is_copy(self, there: Entry, file: StorageFile, sha256: str) -> bool:
        """Return whether what is *there* is this very file, copied by a task that was killed before it deleted."""
        if not there.is_file or there.size != file.size:
            return False
        with contextlib.suppress(AmiliStorageError, AmiliStorageSettingsError, FileNotFoundError):
            return self._digest(there) == sha256
        return False  # what cannot be read, as from an archive tier, has the name all the same

    def _digest(self, there: Entry) -> str:
        digest = hashlib.sha256()
        for block in _blocks(_as_file(self.target, there)):
            digest.update(block)
        return digest.hexdigest()

    def _rename(self, file: StorageFile, path: str, sha256: str) -> Moved | None:
        """Rename within one storage. None where that cannot be done: then it is copied."""
        rename = getattr(self.target.fs, "rename", None)
        if not self._on_same_storage(file) or self.target.storage.kind.object_store or rename is None:
            return None
        if file.location_root.storage.kind.protocol not in ("file", "sftp", "ftp", "smb"):
            return None
        try:
            rename(file.path, path)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return None
            raise
        # Somebody may have put a new file there in the very moment: then that one goes back.
        arrived = look_at(self.target, path)
        same = (arrived.size, arrived.fingerprint) == (file.size, file.fingerprint)
        if same and (not _has_coarse_time(file) or self._digest(arrived) == sha256):
            return Moved(self.target.storage.show(path))
        replaced = "it was replaced while it was being moved, and the new content was not sent."
        try:
            rename(path, file.path)
        except FileExistsError:  # and replaced once more
            return Moved(None, f"{file.url}: {replaced} It is in {self.target.storage.show(path)}; put it back.")
        return Moved(None, f"{file.url} stays: {replaced}")

    def _copy(self, file: StorageFile, path: str, sha256: str) -> None:
        """
        Copy, read back, compare. A copy that is not the delivered file is deleted again.

        Nothing else is: what cannot be read back may be another task's copy by now, or be taken for one by it.
        """
        with file.open() as stream:
            self.target.fs.create(path, stream, file.size)
        there = look_at(self.target, path)
        if there.size == file.size and self._digest(there) == sha256:
            return
        with contextlib.suppress(Exception):  # what it is has to be told, whatever becomes of it
            self.target.fs.remove(path, there.fingerprint)
        raise OSError(f"its copy in {self.target.url} is not what was delivered, and was deleted")

    def _delete(self, file: StorageFile, path: str) -> Moved:
        url = self.target.storage.show(path)
        if (reason := _changed(file)) is not None:
            return Moved(None, f"{reason} Its delivered content is in {url}.")
        try:
            file.location_root.fs.remove(file.path, file.fingerprint)
        except FileNotFoundError:
            return Moved(url)  # deleted, but the answer was lost, and it was asked for once more
        except NotAsListedError:
            if _look(file.location_root, file.path) is None:
                return Moved(url)  # as above
            return Moved(None, f"{_replaced(file)} Its delivered content is in {url}.")
        except Exception as error:  # noqa: BLE001 - the copy is made, and this says what is left to do
            why = explain("delete", file.url, file.location_root.storage.connection, error)
            return Moved(None, f"{why} Its copy is in {url}; delete the original.")
        return Moved(url)


def _has_coarse_time(file: StorageFile) -> bool:
    """
    Return whether a correction of the same length can have the time that was listed.

    FTP and SFTP tell times in whole seconds, or minutes. Of a file that was a day old when it was listed a correction
    shows all the same, even if the server's clock is wrong by hours.
    """
    if file.location_root.protocol not in ("ftp", "sftp"):
        return False
    return file.modified is None or file.modified > time.time() - _DAY_SECONDS


@functools.lru_cache(maxsize=256)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _shown(url: str) -> str:
    """Return a path as messages show it: no login, no signature."""
    return re.sub(r"(://)[^/@]*:[^/]*@", r"\1***@", url.partition("?")[0])


def _same_kind(scheme: str, files: list[StorageFile]) -> bool:
    kind = BY_SCHEME.get(scheme)
    return any(file.location_root.storage.kind is kind for file in files)


def _second(one: Entry | StorageFile) -> int | None:
    # Stores and servers tell less of one file than in a listing.
    return None if one.modified is None else int(one.modified)


def _replaced(file: StorageFile) -> str:
    return f"{file.url} stays: it was replaced or written to since it was listed, and the new content was not sent."


def _changed(file: StorageFile) -> str | None:
    """Return why *file* is not the one that was listed any more, if so."""
    now = _look(file.location_root, file.path)
    if now is None:
        return f"{file.url} is gone since it was listed."
    if (now.size, now.fingerprint, now.changed) != (file.size, file.fingerprint, file.changed):
        return _replaced(file)
    if now.is_link:
        return f"{file.url} stays: it is a link to a file elsewhere."
    return None


def _look(location: Location, path: str) -> Entry | None:
    try:
        return look_at(location, path)
    except FileNotFoundError:
        return None


def _as_file(location: Location, entry: Entry) -> StorageFile:
    return StorageFile(
        location_root=location,
        path=entry.path,
        url=location.storage.show(entry.path),
        name=location.storage.name_of(entry.path),
        size=entry.size,
        fingerprint=entry.fingerprint,
        modified=entry.modified,
        local_path=entry.path if location.protocol == "file" else None,
        literal=True,
    )


def _blocks(file: StorageFile) -> Iterator[bytes]:
    with file.open() as stream:
        while block := stream.read(_BLOCK):
            yield block
