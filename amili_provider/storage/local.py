"""
Local files.

fsspec's own local filesystem renames over what is there, and describes symbolic links rather than what they lead to.
Here a rename replaces nothing, and links are followed as every other program does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from amili_provider.storage.entries import broken_link

_HERE = -100
"""``AT_FDCWD``: paths are as the process sees them."""
_NO_REPLACE = 1
"""``RENAME_NOREPLACE`` of renameat2(2)."""
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None


class LocalFiles(LocalFileSystem):  # type: ignore[misc] # fsspec is not typed
    """Local files, with a rename that replaces nothing, and links followed."""

    cachable = False

    def info(self, path: str | os.PathLike[str], **_: Any) -> dict[str, Any]:
        """Return what is at *path*, links followed."""
        name = self._strip_protocol(os.fspath(path))
        return _followed(name, os.lstat(name))

    def ls(self, path: str, detail: bool = False, **_: Any) -> list[Any]:
        """Return what is in the folder *path*; of a file itself."""
        found = list(self.scan(path))
        return found if detail else [details["name"] for details in found]

    def scan(self, path: str) -> Iterator[dict[str, Any]]:
        """Do as :meth:`ls`, one by one: a folder may hold more names than fit into memory."""
        name = self._strip_protocol(path)
        if not stat.S_ISDIR(os.stat(name).st_mode):  # noqa: PTH116
            return iter([self.info(name)])
        return _scanned(os.scandir(name))

    def rename(self, old: str, new: str) -> None:
        """Rename; :class:`FileExistsError` if *new* exists, ``EXDEV`` if it is on another disk."""
        old, new = self._strip_protocol(old), self._strip_protocol(new)
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


def _scanned(entries: Any) -> Iterator[dict[str, Any]]:
    with entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone since
                yield _followed(entry.path, entry.stat(follow_symlinks=False))


def _followed(name: str, status: os.stat_result) -> dict[str, Any]:
    """Return what is at *name*, whose own status is *status*; a link that cannot be followed costs no other file."""
    if not stat.S_ISLNK(status.st_mode):
        return _details(name, status, islink=False)
    try:
        return _details(name, os.stat(name), islink=True)  # noqa: PTH116 - names may be no text
    except OSError as error:
        return broken_link(name, error.strerror)


def _details(name: str, status: os.stat_result, *, islink: bool) -> dict[str, Any]:
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else "other"
    return {
        "name": name,
        "size": status.st_size,
        "type": kind,
        "islink": islink,
        "mtime": status.st_mtime,
        "etag": f"{status.st_ino:x}-{status.st_mtime_ns:x}",
        "changed": status.st_ctime_ns,
    }
