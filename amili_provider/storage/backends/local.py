"""
Local files; and, through fsspec, the files of any other scheme that Airflow knows.

A rename of local files replaces nothing, and links are followed as every other program does. Airflow's registry of
filesystems is the same on Airflow 2.11 to 3.4, but for where it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from amili_provider.storage.base import Entry, broken_link, read_entry, undone

_HERE = -100
"""``AT_FDCWD``: paths are as the process sees them."""
_NO_REPLACE = 1
"""``RENAME_NOREPLACE`` of renameat2(2)."""
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
__all__ = ["OtherFiles", "attach"]


class LocalFiles:
    """Local files, with a rename that replaces nothing, and links followed."""

    def info(self, path: str) -> Entry:
        """Return what is at *path*, links followed."""
        return _followed(path, os.lstat(path))

    def scan(self, path: str) -> Iterator[Entry]:
        """Yield what is in the folder *path*, one by one: it may hold more names than fit into memory."""
        return _scanned(os.scandir(path))

    def open(self, path: str, _size: int, _version: str | None, /) -> BinaryIO:
        """Return a stream of the file at *path*."""
        return cast("BinaryIO", open(path, "rb", buffering=0))  # noqa: PTH123

    def create(self, path: str, stream: BinaryIO, _size: int, /) -> None:
        """Write what *stream* gives to *path*; :class:`FileExistsError` if there is something."""
        with open(path, "xb") as out, undone(lambda: os.unlink(path)):  # noqa: PTH108, PTH123
            shutil.copyfileobj(stream, out)

    def remove(self, path: str, _version: str | None, /) -> None:
        """Delete the file at *path*."""
        os.unlink(path)  # noqa: PTH108

    def make_folders(self, path: str) -> None:
        """Make the folder *path* and those above it."""
        os.makedirs(path, exist_ok=True)  # noqa: PTH103

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def rename(self, old: str, new: str) -> None:
        """Rename; :class:`FileExistsError` if *new* exists, ``EXDEV`` if it is on another disk."""
        if _rename_in_one_step(old, new):
            return
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # A disk without hard links cannot rename and refuse in one step.
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
            os.rename(old, new)  # noqa: PTH104
        else:
            os.unlink(old)  # noqa: PTH108


def _rename_in_one_step(old: str, new: str) -> bool:
    """Rename and refuse to replace in one call of the system; return whether it has such a call for this disk."""
    if _renameat2 is None:
        return False
    if _renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), _NO_REPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), old, None, new)


def _scanned(entries: Any) -> Iterator[Entry]:
    with entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone since
                yield _followed(entry.path, entry.stat(follow_symlinks=False))


def _followed(name: str, status: os.stat_result) -> Entry:
    """Return what is at *name*, whose own status is *status*; a link that cannot be followed costs no other file."""
    islink = stat.S_ISLNK(status.st_mode)
    if islink:
        try:
            status = os.stat(name)  # noqa: PTH116 - names may be no text
        except OSError as error:
            return read_entry(broken_link(name, error.strerror))
    is_file, is_folder = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
    return Entry(
        path=name,
        is_file=is_file,
        is_folder=is_folder,
        may_be_folder=is_folder,
        is_link=islink,
        size=status.st_size,
        fault=None if is_file or is_folder else "it is neither a file nor a folder",
        fingerprint=f"{status.st_ino:x}-{status.st_mtime_ns:x}",
        modified=status.st_mtime,
        changed=status.st_ctime_ns,
    )


# The two moved to Airflow's SDK one after the other.
try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2.11
    from airflow.io.store import attach  # type: ignore[no-redef,import-not-found]
try:
    from airflow.sdk.io import get_fs, has_fs
except ImportError:  # Airflow 2.11 to 3.1
    from airflow.io import get_fs, has_fs  # type: ignore[no-redef,attr-defined]


class OtherFiles:
    """
    A filesystem of fsspec.

    :param fs: the filesystem.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    @staticmethod
    def knows(scheme: str) -> bool:
        """Return whether a provider of Airflow brings *scheme*."""
        return bool(has_fs(scheme))

    @classmethod
    def of(cls, scheme: str, conn_id: str | None) -> OtherFiles | None:
        """Return what Airflow knows as *scheme*, with a connection or none; None if it knows nothing."""
        if has_fs(scheme):
            return cls(get_fs(scheme, conn_id))
        try:
            return cls(attach(protocol=scheme, conn_id=conn_id).fs)
        except Exception:  # noqa: BLE001 - not attached: Airflow has tried to build one, and does not know how
            return None

    def path_of(self, scheme: str, rest: str) -> str:
        """Return the path in ``scheme://rest``, as the filesystem reads it."""
        return str(self._fs._strip_protocol(f"{scheme}://{rest}"))  # noqa: SLF001 - fsspec's own reading

    def info(self, path: str) -> Entry:
        """Return what is at *path*."""
        self._fs.invalidate_cache()
        return read_entry(self._fs.info(path))

    def scan(self, path: str) -> Iterator[Entry]:
        """Yield what is in the folder *path*."""
        # Not find or glob, which take every error for an empty folder.
        self._fs.invalidate_cache()
        return map(read_entry, self._fs.ls(path, detail=True))

    def open(self, path: str, _size: int, _version: str | None, /) -> BinaryIO:
        """Return a stream of the file at *path*."""
        return cast("BinaryIO", self._fs.open(path, "rb"))

    def create(self, path: str, stream: BinaryIO, _size: int, /) -> None:
        """Write what *stream* gives to *path*; :class:`FileExistsError` if there is something."""
        with self._fs.open(path, "xb") as out, undone(lambda: self._fs.rm_file(path)):
            shutil.copyfileobj(stream, out)

    def remove(self, path: str, _version: str | None, /) -> None:
        """Delete the file at *path*."""
        self._fs.rm_file(path)

    def make_folders(self, path: str) -> None:
        """Make the folder *path* and those above it."""
        self._fs.makedirs(path, exist_ok=True)

    def close(self) -> None:
        """Do nothing: others in this process may use the filesystem."""
