"""One file of a listing, and its bytes."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from fsspec.asyn import sync

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.entries import Entry, read_entry
from amili_provider.storage.locations import Location
from amili_provider.storage.streams import BLOCK_BYTES, Blocks, ShortReadError, WholeFile
from amili_provider.storage.troubles import explain


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
    def can_be_read_together(self) -> bool:
        """Whether :func:`read_together` costs the storage's library less than one :meth:`open` after the other."""
        return self.can_be_read_in_parallel and 0 < self.size <= BLOCK_BYTES

    @property
    def can_be_read_in_parallel(self) -> bool:
        """Whether several ranges of it are on their way at once, so that reading is as fast as the line."""
        root = self.location_root
        return root.storage.kind.object_store and bool(root.fs.async_impl)

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
        if root.storage.kind.object_store:
            return cast("BinaryIO", Blocks(root.fs, self.path, self.size)), not 0 < self.size <= BLOCK_BYTES
        return cast("BinaryIO", root.fs.open(self.path, "rb")), root.storage.kind.lists

    def _check_unchanged(self) -> None:
        now = look_at(self.location_root, self.path)
        if (now.size, now.fingerprint) != (self.size, self.fingerprint):
            raise ShortReadError("it was replaced or written to since it was listed")


def read_together(files: Sequence[StorageFile]) -> list[bytes | Exception]:
    """
    Read small files of one filesystem at once: for each its bytes, as many as were listed, or why not.

    One hand-over to the thread of the storage's library, instead of one for each file.

    :param files: each must say that it :attr:`~StorageFile.can_be_read_together`.
    """
    fs = files[0].location_root.fs

    async def ask() -> list[bytes | BaseException]:
        # One byte more than listed, so that an object that has grown does not come out as its own beginning.
        asked = (fs._cat_file(file.path, start=0, end=file.size + 1) for file in files)  # noqa: SLF001 - cat_file, async
        found: list[bytes | BaseException] = await asyncio.gather(*asked, return_exceptions=True)
        return found

    return [_whole(file, found) for file, found in zip(files, sync(fs.loop, ask), strict=True)]


def _whole(file: StorageFile, found: bytes | BaseException) -> bytes | Exception:
    if isinstance(found, BaseException):
        return file.explained(found)
    if len(found) < file.size:
        return file.explained(ShortReadError(f"it ended after {len(found)} of {file.size} bytes"))
    if len(found) > file.size:
        return file.explained(ShortReadError(f"more than the {file.size} bytes listed could be read: it has grown"))
    return found


def look_at(location: Location, path: str) -> Entry:
    """Return what the storage says of *path* now, past any cache; its errors come out as they are."""
    location.fs.invalidate_cache()
    return read_entry(location.fs.info(path))
