"""One file of a listing, and its bytes."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.base import Entry, NotAsListedError
from amili_provider.storage.errors import explain
from amili_provider.storage.locations import Location
from amili_provider.storage.streams import BLOCK_BYTES, WholeFile


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
    :param fault: why it cannot be read, as far as the listing tells; None if nothing is wrong.
    :param changed: what moves with every write, even one that sets *modified* back; None if the storage has no such.
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
    fault: str | None = None
    changed: int | None = None

    @property
    def key(self) -> tuple[str, str | None, str]:
        """What tells it from every other file; :attr:`url` does not, since it is shown without its query."""
        return (self.location_root.protocol, self.location_root.conn_id, self.path)

    @property
    def can_be_read_together(self) -> bool:
        """Whether :func:`read_together` costs the storage's library less than one :meth:`open` after the other."""
        return self.can_be_read_in_parallel and 0 < self.size <= BLOCK_BYTES

    @property
    def can_be_read_in_parallel(self) -> bool:
        """Whether several ranges of it are on their way at once, so that reading is as fast as the line."""
        return self.location_root.storage.kind.object_store

    def open(self) -> BinaryIO:
        """
        Return a stream of the bytes from the start, to be used by one thread.

        It gives as many bytes as were listed, or raises :class:`AmiliStorageError` or
        :class:`FileNotFoundError`.
        """
        if self.fault is not None:
            raise AmiliStorageSettingsError(f"Cannot read {self.url}: {self.fault}.")
        try:
            inner, in_pieces = self._open_inner(self.location_root)
        except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
            raise self.explained(error) from None
        check = self._check_unchanged if in_pieces and self.fingerprint is not None else None
        return cast("BinaryIO", WholeFile(inner, self.size, check, self.explained))

    def explained(self, error: BaseException) -> Exception:
        """Return what the storage raised while this file was read as an error that can be shown."""
        return explain("read", self.url, self.location_root.storage.connection, error)

    def _open_inner(self, root: Location) -> tuple[BinaryIO, bool]:
        """Return the bytes, and whether it takes several requests to get them."""
        if self.local_path is not None:
            return cast("BinaryIO", builtins.open(self.local_path, "rb", buffering=0)), True  # noqa: PTH123
        # Of an object every piece is bound to the fingerprint.
        in_pieces = root.storage.kind.lists and not root.storage.kind.object_store
        return cast("BinaryIO", root.fs.open(self.path, self.size, self.fingerprint)), in_pieces

    def _check_unchanged(self) -> None:
        now = look_at(self.location_root, self.path)
        if (now.size, now.fingerprint) != (self.size, self.fingerprint):
            raise NotAsListedError("it was replaced or written to since it was listed")


def read_together(files: Sequence[StorageFile]) -> list[bytes | Exception]:
    """
    Read small objects of one storage at once: for each its bytes, as many as were listed, or why not.

    :param files: each must say that it :attr:`~StorageFile.can_be_read_together`.
    """
    fs = files[0].location_root.fs
    # One byte more than listed, so that an object that has grown does not come out as its own beginning.
    asked = [fs.submit(partial(fs.read, file.path, file.fingerprint, (0, file.size + 1))) for file in files]
    return [_whole(file, one) for file, one in zip(files, asked, strict=True)]


def _whole(file: StorageFile, asked: Future[bytes]) -> bytes | Exception:
    try:
        found = asked.result()
    except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
        return file.explained(error)
    if len(found) < file.size:
        return file.explained(NotAsListedError(f"it ended after {len(found)} of {file.size} bytes"))
    if len(found) > file.size:
        return file.explained(NotAsListedError(f"more than the {file.size} bytes listed could be read: it has grown"))
    return found


def look_at(location: Location, path: str) -> Entry:
    """Return what the storage says of *path* now; its errors come out as they are."""
    return cast("Entry", location.fs.info(path))
