"""
A ledger on a disk of the worker (or a share mounted on it).

A file is written aside, synchronised, and then given its name: by ``link``, which is atomic and refuses a
name that exists, or by ``rename`` to replace. A worker killed in between leaves a whole file or none. Where there are
many, all are written aside before the first is synchronised, and a folder is synchronised once for all its files: the
disk then has work for several at a time.

Paths are text here: a receipt is a handful of system calls, and a ``Path`` for each would cost nearly as much.
"""
# ruff: noqa: PTH105, PTH108, PTH116, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.folders import Folder, log

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM})


_AT_ONCE = 32
"""Files written aside at once at most; each is kept open until it is synchronised."""


class _Together(threading.local):
    """What a thread that writes several files has done for all of them, and has still to do."""

    def __init__(self) -> None:
        self.asides: dict[str, str] = {}
        """Files written aside and synchronised, by the name that they are to be given."""
        self.folders: set[str] | None = None
        """Folders to be synchronised at the end; None if each is at once."""


class LocalFolder(Folder):
    """
    A folder on a mounted file system.

    :param path: absolute path.
    :param url: the folder as it is shown.
    :param sleep: how to wait.
    """

    concurrency = 8
    files_together = 16

    def __init__(self, path: str, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(url, sleep=sleep)
        self._root = Path(path)
        self._together = _Together()

    def _begin(self) -> None:
        try:
            # One level only: on a share that is not mounted a whole path would be made, and look like a new
            # ledger.
            self._root.mkdir()
        except FileExistsError:
            if not self._root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(self._root)) from None
        else:
            _sync_directory(self._root.parent)
            log.warning("A new ledger was begun in %s: it knows of no earlier delivery.", self.url)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _read(self, name: str) -> bytes:
        with open(self._at(name), "rb", buffering=0) as file:
            return file.readall()

    def _create(self, name: str, data: bytes) -> None:
        target = self._at(name)
        aside = self._aside_of(name, target, data)
        try:
            os.link(aside, target)
        except FileExistsError:
            # Over NFS the answer to a link that was made can be lost, and the repeated one is refused.
            if os.stat(aside).st_nlink < 2:  # noqa: PLR2004 - the name aside and the name itself
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(target, data)
        finally:
            _remove(aside)
        self._sync_folder_of(target)

    def _replace(self, name: str, data: bytes) -> None:
        target = self._at(name)
        aside = self._aside_of(name, target, data)
        try:
            os.replace(aside, target)
        except OSError:
            _remove(aside)
            raise
        self._sync_folder_of(target)

    def _delete(self, name: str) -> None:
        os.unlink(self._at(name))

    def _names(self, under: str) -> Iterator[str]:
        top = self._root / under

        def complain(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        for folder, _, files in os.walk(top, onerror=complain):
            for file in files:
                yield (Path(folder) / file).relative_to(self._root).as_posix()

    def _each(
        self, write: Callable[[str, bytes], None], files: Sequence[tuple[str, bytes]]
    ) -> list[BaseException | None]:
        if len(files) == 1:
            return super()._each(write, files)
        errors: list[BaseException | None] = []
        for first in range(0, len(files), _AT_ONCE):
            errors += self._each_together(write, files[first : first + _AT_ONCE])
        return errors

    def _each_together(
        self, write: Callable[[str, bytes], None], files: Sequence[tuple[str, bytes]]
    ) -> list[BaseException | None]:
        mine = self._together
        mine.folders = set()
        try:
            self._write_aside_together(files)
            errors = super()._each(write, files)
            folders = mine.folders
        finally:
            left, mine.asides, mine.folders = mine.asides, {}, None
            for aside in left.values():
                with contextlib.suppress(OSError):  # it is in nobody's way
                    _remove(aside)
        failed = {folder: error for folder in folders if (error := self._unsynchronised(folder)) is not None}
        if not failed:
            return errors
        return [
            error or failed.get(os.path.dirname(self._at(name))) for (name, _), error in zip(files, errors, strict=True)
        ]

    def _write_aside_together(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Write files aside; one that cannot be is passed over: whoever gives it its name tries again, and reports."""
        written: list[tuple[str, str, int]] = []
        try:
            for name, data in files:
                with contextlib.suppress(OSError):
                    written.append((name, *self._begun_aside(self._at(name), data)))
            if hasattr(os, "posix_fadvise"):
                # It drops what is written and so begins to write what is not, and does not wait for it.
                for _, _, descriptor in written:
                    with contextlib.suppress(OSError):  # advice only: the synchronisation below is what counts
                        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for name, aside, descriptor in written:
                try:
                    os.fsync(descriptor)
                except OSError:
                    _remove(aside)
                else:
                    self._together.asides[name] = aside
        except BaseException:
            for _, aside, _ in written:
                with contextlib.suppress(OSError):
                    _remove(aside)
            raise
        finally:
            for _, _, descriptor in written:
                with contextlib.suppress(OSError):  # it was synchronised, or that failed and was seen
                    os.close(descriptor)

    def _unsynchronised(self, folder: str) -> AmiliLedgerUnavailable | None:
        try:
            self._persistently("write", folder, lambda: _sync_directory(folder))
        except AmiliLedgerUnavailable as error:
            return error
        except FileNotFoundError as error:
            return self._unavailable("write", folder, error)
        return None

    def _sync_folder_of(self, target: str) -> None:
        folder = os.path.dirname(target)
        if self._together.folders is None:
            _sync_directory(folder)
        else:
            self._together.folders.add(folder)

    def _aside_of(self, name: str, target: str, data: bytes) -> str:
        """Return a synchronised file aside with *data*, to be given the name *target*."""
        aside = self._together.asides.pop(name, None)
        if aside is None:
            aside, descriptor = self._begun_aside(target, data)
            _synchronise(aside, descriptor)
        return aside

    def _begun_aside(self, target: str, data: bytes) -> tuple[str, int]:
        """Write *data* to a file beside *target*; return it and its descriptor, open and to be synchronised."""
        folder, name = os.path.split(target)
        aside = f"{folder}/.{name}.{secrets.token_hex(8)}.aside"
        try:
            return aside, _written(aside, data)
        except FileNotFoundError:
            self._make_folders(Path(folder))
            return aside, _written(aside, data)

    def _make_folders(self, folder: Path) -> None:
        """Make what is missing between the ledger's own folder, which must exist, and *folder*."""
        below = folder.relative_to(self._root).parts
        here = self._root
        for part in below:
            parent, here = here, here / part
            try:
                here.mkdir()
            except FileExistsError:
                continue
            _sync_directory(parent)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _write_new(path: str, data: bytes) -> None:
    _synchronise(path, _written(path, data))


def _written(path: str, data: bytes) -> int:
    """Write a new file and return its descriptor."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        _remove(path)
        raise
    return descriptor


def _synchronise(path: str, descriptor: int) -> None:
    """Make a new file survive a power cut and close it; where that fails, take it away."""
    try:
        os.fsync(descriptor)
    except BaseException:
        _remove(path)
        raise
    finally:
        os.close(descriptor)


def _sync_directory(path: str | Path) -> None:
    """Make a new name survive a power cut, where the file system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_DIRECTORY_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)
