"""
A ledger on a disk of the worker (or a share mounted on it).

A file is written aside, synchronised, and then given its name: by ``link``, which is atomic and refuses a
name that exists, or by ``rename`` to replace. A worker killed in between leaves a whole file or none.

Paths are text here: a receipt is a handful of system calls, and a ``Path`` for each would cost nearly as much.
"""
# ruff: noqa: PTH105, PTH108, PTH116, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from amili_provider.ledger.folders import Folder, log

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM})


class LocalFolder(Folder):
    """
    A folder on a mounted file system.

    :param path: absolute path.
    :param url: the folder as it is shown.
    :param sleep: how to wait.
    """

    concurrency = 8

    def __init__(self, path: str, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(url, sleep=sleep)
        self._root = Path(path)

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
        aside = self._written_aside(target, data)
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
        _sync_directory(os.path.dirname(target))

    def _replace(self, name: str, data: bytes) -> None:
        target = self._at(name)
        aside = self._written_aside(target, data)
        try:
            os.replace(aside, target)
        except OSError:
            _remove(aside)
            raise
        _sync_directory(os.path.dirname(target))

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

    def _written_aside(self, target: str, data: bytes) -> str:
        folder, name = os.path.split(target)
        aside = f"{folder}/.{name}.{secrets.token_hex(8)}.aside"
        try:
            _write_new(aside, data)
        except FileNotFoundError:
            self._make_folders(Path(folder))
            _write_new(aside, data)
        return aside

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
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
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
