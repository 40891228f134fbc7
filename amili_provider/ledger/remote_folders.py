"""Ledgers behind fsspec: object stores, whose exclusive create is one request, and anything else."""

from __future__ import annotations

import inspect
import posixpath
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from amili_provider.ledger.folders import Folder

OBJECT_STORES = frozenset({"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb", "wasbs"})
"""Protocols whose libraries pass ``mode="create"`` on as a condition of the request itself."""


class FsspecFolder(Folder):
    """
    What all folders of fsspec filesystems have in common.

    :param fs: the filesystem; safe to use from several threads.
    :param path: the folder's path in it.
    :param url: the folder as it is shown.
    :param sleep: how to wait.
    """

    def __init__(self, fs: Any, path: str, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(url, sleep=sleep)
        self._fs = fs
        self._path = path.rstrip("/")
        self._made: set[str] = set()

    def _begin(self) -> None:
        self._fs.makedirs(self._path or "/", exist_ok=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _read(self, name: str) -> bytes:
        # A filesystem that looks up the size in a remembered listing would give a part of a receipt that has
        # grown.
        self._fs.invalidate_cache(posixpath.dirname(self._at(name)))
        return bytes(self._fs.cat_file(self._at(name)))

    def _replace(self, name: str, data: bytes) -> None:
        self._make_parent(name)
        self._fs.pipe_file(self._at(name), data)

    def _make_parent(self, name: str) -> None:
        parent = posixpath.dirname(self._at(name))
        if parent not in self._made:
            self._fs.makedirs(parent, exist_ok=True)
            self._made.add(parent)

    def _delete(self, name: str) -> None:
        self._fs.rm_file(self._at(name))

    def _names(self, under: str) -> Iterator[str]:
        self._fs.invalidate_cache()
        folders = [self._at(under) if under else self._path]
        while folders:
            try:
                # ls and not find: find takes every error for an empty folder.
                entries = self._fs.ls(folders.pop(), detail=True)
            except FileNotFoundError:
                continue
            for entry in entries:
                path = entry["name"].rstrip("/")
                if entry["type"] == "directory":
                    folders.append(path)
                else:
                    yield path.lstrip("/").removeprefix(self._path.lstrip("/")).lstrip("/")


class CautiousFolder(FsspecFolder):
    """A folder of a filesystem of which nobody knows whether it creates in one operation: it looks, and then writes."""

    def _refuses(self, name: str, data: bytes) -> bool:  # noqa: ARG002 - fsspec's own create looks, and then writes
        return False

    def _create(self, name: str, data: bytes) -> None:
        raise NotImplementedError(name)


class ObjectStoreFolder(FsspecFolder):
    """A folder of an object store: no folders to make, and a create that the store itself refuses."""

    concurrency = 16

    def _begin(self) -> None:
        """Nothing to make: the bucket has to exist, and the probe shows whether it does."""

    def _read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._at(name), **self._one_request))

    @cached_property
    def _one_request(self) -> dict[str, int]:
        """What keeps s3fs from asking for the size first, to read large objects in parallel: receipts are small."""
        known = inspect.signature(getattr(self._fs, "_cat_file", self._fs.cat_file)).parameters
        return {"max_concurrency": 1} if "max_concurrency" in known else {}

    def _create(self, name: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(self._at(name), data, mode="create")
        except OSError as error:
            if _is_precondition(error):
                raise FileExistsError(name) from error
            raise

    def _replace(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(name), data)


def _is_precondition(error: OSError) -> bool:
    """Return whether a store's refusal says that the name exists, or is being made at this moment."""
    # Stores that speak S3 differ in whether they name the condition; s3fs then raises a plain OSError.
    response = getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code in {"PreconditionFailed", "412", "ConditionalRequestConflict"}
