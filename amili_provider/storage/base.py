"""The ports: ``Files`` of a storage, ``ObjectClient`` of an object store, and ``Entry``, one name in a listing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, Protocol


class NotAsListedError(OSError):
    """The file is not, or no longer, the one that was listed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One name in a folder, or one key in a bucket.

    :param path: the full path on the storage; of an object its bucket, a slash, and its key as it is.
    :param is_file: whether it is a file.
    :param is_folder: whether it is a folder. Neither: a pipe, a socket, a link that cannot be followed.
    :param may_be_folder: whether it is not known to be none: of a link that cannot be followed, for example.
    :param is_link: whether it is a symbolic link.
    :param size: bytes; 0 if it is not known, and then there is a fault.
    :param fault: why it cannot be read as a file, as a clause; None of files and folders.
    :param fingerprint: what changes when the content is replaced (ETag, generation or modification time), if known.
    :param modified: when it was last written, in seconds since 1970, by the storage's clock, if known.
    :param changed: what moves with every write, even one that sets :attr:`modified` back, if the storage has it.
    """

    path: str
    is_file: bool
    is_folder: bool
    may_be_folder: bool
    is_link: bool
    size: int
    fault: str | None
    fingerprint: str | None
    modified: float | None
    changed: int | None


def object_entry(
    path: str, size: int, fingerprint: str | None, modified: float | None, *, folder: bool = False
) -> Entry:
    """
    Return the entry of an object.

    :param path: bucket, a slash, and the key.
    :param size: bytes.
    :param fingerprint: what a read or a delete can be bound to: ETag or generation.
    :param modified: seconds since 1970.
    :param folder: whether it is known to stand for a folder, and not for a file.
    """
    return Entry(
        path=path,
        is_file=not folder,
        is_folder=folder,
        may_be_folder=folder,
        is_link=False,
        size=size,
        fault=None,
        fingerprint=fingerprint,
        modified=modified,
        changed=None,
    )


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Do *undo* if what is within fails; the failure is what has to be told, whatever becomes of that."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            undo()
        raise


def read_entry(details: Mapping[str, Any]) -> Entry:
    """Return what *details*, what a server or fsspec tells of a name, says."""
    path = str(details["name"])
    kind = details.get("type")
    # Names that end with a slash are the markers by which object storages remember empty folders.
    marker = path.endswith("/")
    modified = _modified(details)
    size, fault = details.get("size"), details.get("fault")
    if kind == "file" and size is None:
        fault = fault or "the storage does not tell its size"
    elif kind not in ("file", "directory"):
        known = kind == "other"
        fault = fault or ("it is neither a file nor a folder" if known else "the storage does not tell what it is")
    return Entry(
        path=path.rstrip("/"),
        is_file=kind == "file" and not marker,
        is_folder=kind == "directory" or marker,
        may_be_folder=marker or kind not in ("file", "other"),
        is_link=bool(details.get("islink")),
        size=int(size or 0),
        fault=None if marker else fault,
        fingerprint=_fingerprint(details, modified),
        modified=modified,
        changed=details.get("changed"),
    )


def broken_link(name: str, why: object, **known: Any) -> dict[str, Any]:
    """Return what :func:`read_entry` reads of a link that cannot be followed."""
    fault = f"it is a link that cannot be followed ({why}); mend its target, or delete it"
    return {**known, "name": name, "type": "unknown", "islink": True, "size": None, "fault": fault}


def _fingerprint(details: Mapping[str, Any], modified: float | None) -> str | None:
    for key in ("generation", "ETag", "etag"):
        if details.get(key):
            return str(details[key]).strip('"')
    return None if modified is None else f"{modified:.6f}"


def _modified(details: Mapping[str, Any]) -> float | None:
    for key in ("LastModified", "last_modified", "updated", "mtime", "modified", "created"):
        value = details.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


class ReadStream(io.RawIOBase):
    """A stream for reading, of which a subclass has ``read``."""

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into *buffer*; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Files(Protocol):
    """An open storage, by paths. Safe to use from several threads. A renaming is asked for by name: not all can."""

    def info(self, path: str, /) -> Entry:
        """Return what is at *path*, links followed; :class:`FileNotFoundError` if nothing is."""
        ...

    def scan(self, path: str, /) -> Iterator[Entry]:
        """Yield what is in the folder *path*."""
        ...

    def open(self, path: str, size: int, version: str | None, /) -> BinaryIO:
        """
        Return a stream of the file at *path*.

        :param size: bytes, as listed.
        :param version: the fingerprint that was listed; used where a read can be bound to it.
        """
        ...

    def create(self, path: str, stream: BinaryIO, size: int, /) -> None:
        """Write what *stream* gives, *size* bytes, to *path*; :class:`FileExistsError` if there is something."""
        ...

    def remove(self, path: str, version: str | None, /) -> None:
        """
        Delete the file at *path*.

        :param version: the fingerprint that it must have, where the storage itself can tell.
        :raises NotAsListedError: if it has another.
        """
        ...

    def make_folders(self, path: str, /) -> None:
        """Make the folder *path* and those above it, where they are not there."""
        ...

    def close(self) -> None:
        """Close the connections; who asks again opens new ones."""
        ...


class ObjectClient(Protocol):
    """
    The client of an object store, as Airflow's hook of that cloud makes it. Safe to use from several threads.

    Whatever its library raises comes out as it is; :meth:`meaning` tells what it means.
    """

    def pages(self, bucket: str, prefix: str, *, flat: bool) -> Iterator[tuple[list[Entry], list[str]]]:
        """
        Yield what begins with *prefix*, page by page, in the order of the keys: objects, and folders.

        :param flat: whether all objects come as such; otherwise those below the next slash come as one folder, which
            is told as the prefix that they share, with its slash.
        """
        ...

    def stat(self, bucket: str, key: str) -> Entry:
        """Return what is said of one object."""
        ...

    def read(self, bucket: str, key: str, version: str | None, span: tuple[int, int] | None) -> bytes:
        """
        Return the bytes of one object as they are stored.

        :param version: the fingerprint that it must have.
        :param span: first byte, and the one after the last; None for all of them.
        """
        ...

    def write(self, bucket: str, key: str, stream: BinaryIO, size: int, *, new: bool) -> None:
        """
        Write one object in one step, however large it is.

        :param size: how many bytes *stream* gives.
        :param new: whether it must not exist: the store decides.
        """
        ...

    def delete(self, bucket: str, key: str, version: str | None) -> None:
        """
        Delete one object.

        :param version: the fingerprint that it must have, where the store can tell.
        """
        ...

    def meaning(self, error: Exception) -> Exception:
        """
        Return *error* as what it means, if that is one of three; otherwise as it is.

        :class:`FileNotFoundError`: no such object. :class:`FileExistsError`: a condition on what is there fails.
        :class:`PermissionError`.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
