"""
Local files, for an accounting trail as well as for reading.

fsspec's own local filesystem creates "exclusively" by looking first and writing then, truncates what it rewrites, and
describes symbolic links rather than what they lead to. Here a create is atomic, a rewrite is all or nothing, and links
are followed as every other program does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

from amili_provider.storage.entries import broken_link


class LocalFiles(LocalFileSystem):  # type: ignore[misc] # fsspec is not typed
    """Local files, with an exclusive create that is one, and links followed."""

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

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """
        Write *value* so that nobody ever reads a part of it, and a crash of the machine does not lose it.

        :param mode: ``create`` raises :class:`FileExistsError` if there is something; ``overwrite`` replaces it.
        """
        name = self._strip_protocol(path)
        folder, base = os.path.split(name)
        # Written under a name of its own first: the final name appears with all the bytes, or not at all.
        draft = os.path.join(folder, f".{base}.{uuid4().hex[:12]}.tmp")  # noqa: PTH118
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(descriptor, "wb") as out:  # noqa: PTH123 - a descriptor, not a path
                out.write(value)
                out.flush()
                os.fsync(out.fileno())
            if mode == "create":
                _link_or_create(draft, name, value)
            else:
                os.replace(draft, name)  # noqa: PTH105
                draft = ""
        finally:
            if draft:
                os.unlink(draft)  # noqa: PTH108


def _link_or_create(draft: str, name: str, value: bytes) -> None:
    """Give *draft* its final name if there is none yet; without hard links, create the name and write into it."""
    try:
        os.link(draft, name)
    except FileExistsError:
        raise
    except OSError:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb") as out:  # noqa: PTH123
            out.write(value)
            out.flush()
            os.fsync(out.fileno())


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
