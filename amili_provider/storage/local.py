"""
Local files.

fsspec's own local filesystem renames over what is there, and describes symbolic links rather than what they lead to.
Here a rename replaces nothing, and links are followed as every other program does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from amili_provider.storage.entries import broken_link


class LocalFiles(LocalFileSystem):  # type: ignore[misc] # fsspec is not typed
    """Local files, with a rename that replaces nothing, and links followed."""

    cachable = False

    def info(self, path: str | os.PathLike[str], **_: Any) -> dict[str, Any]:
        """Return what is at *path*, links followed."""
        name = self._strip_protocol(os.fspath(path))
        return _followed(name, os.lstat(name))

    def ls(self, path: str, detail: bool = False, **_: Any) -> list[Any]:
        """Return what is in the folder *path*; of a file itself."""
        name = self._strip_protocol(path)
        status = os.stat(name)  # noqa: PTH116
        if not stat.S_ISDIR(status.st_mode):
            found = [self.info(name)]
        else:
            found = []
            with os.scandir(name) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # gone since
                        found.append(_followed(entry.path, entry.stat(follow_symlinks=False)))
        return found if detail else [details["name"] for details in found]

    def rename(self, old: str, new: str) -> None:
        """Rename; :class:`FileExistsError` if *new* exists, ``EXDEV`` if it is on another disk."""
        old, new = self._strip_protocol(old), self._strip_protocol(new)
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
