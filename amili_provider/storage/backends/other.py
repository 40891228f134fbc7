"""
Any other scheme that Airflow, or whoever attached a filesystem to it, knows: through fsspec, as it is.

Airflow's registry of filesystems is the same on Airflow 2.11 to 3.4, but for where it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from amili_provider.storage.base import Entry, read_entry, undone

# The two moved to Airflow's SDK one after the other.
try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2.11
    from airflow.io.store import attach  # type: ignore[no-redef,import-not-found]
try:
    from airflow.sdk.io import get_fs, has_fs
except ImportError:  # Airflow 2.11 to 3.1
    from airflow.io import get_fs, has_fs  # type: ignore[no-redef,attr-defined]

__all__ = ["OtherFiles", "attach"]


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
