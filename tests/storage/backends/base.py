"""What every storage in the contract can be told."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from tests.storage.backends.wire import Wire

LONG = bool(os.environ.get("AMILI_LONG_TESTS"))
"""Whether tests that take minutes were asked for."""


class Backend(ABC):
    """
    A storage server with one folder that belongs to the test.

    :param scratch: a folder for the server's own files.
    """

    name: ClassVar[str]
    conn_type: ClassVar[str]
    object_store: ClassVar[bool] = False
    awkward: ClassVar[str] = "+%#?[]"
    """Characters that its names may contain."""
    without: ClassVar[frozenset[str]] = frozenset()
    """Schemes and connection types of its kind of storage that this very server does not serve."""
    sparse: ClassVar[bool] = False
    """Whether it can hold a file of 5 GiB without 5 GiB."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.wire: Wire | None = None
        self.day = "day"

    def start(self) -> None:  # noqa: B027 - a disk needs no start
        """Start the server; skip the test if it is not installed."""

    def stop(self) -> None:
        """Stop the server and leave nothing behind."""
        if self.wire is not None:
            self.wire.close()

    @abstractmethod
    def connection(self) -> dict[str, Any]:
        """Return the Airflow connection."""

    def wrong_login(self) -> dict[str, Any] | None:
        """Return the connection with a login that is refused, ``canary`` in its secret; None if nobody logs in."""
        return {**self.connection(), "password": "wrong-canary"}

    def secrets(self) -> list[str]:
        """Return what no message may contain."""
        return [value for value in (self.connection().get("password"),) if value]

    @abstractmethod
    def url(self, path: str = "") -> str:
        """Return *path* in the test's folder, with a scheme."""

    @abstractmethod
    def bare(self, path: str = "") -> str:
        """Return *path* in the test's folder, without a scheme."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write a file in the test's folder, behind the package's back."""

    def make_folder(self, path: str) -> None:  # noqa: B027 - object stores have none
        """Make a folder in the test's folder."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file in the test's folder."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return a file of the test's folder; None if there is none."""

    def begin_day(self) -> None:
        """Give the next test a folder of its own, with nothing in it."""
        self.day = f"day-{uuid4().hex[:8]}"
        self.make_folder("")
        if self.wire is not None:
            self.wire.mend()

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        """Take away the right to list the folder *path*; on a disk give its owner those of *mode*."""
        if path:
            pytest.skip(f"{self.name}: this machine cannot take rights away")
        yield


class ObjectStore(Backend):
    """A server whose files are objects."""

    object_store = True

    @abstractmethod
    def put_packed(self, path: str, data: bytes) -> None:
        """Write an object of the test's folder whose Content-Encoding is gzip."""


class OnDisk(Backend):
    """A server whose files are in a folder of this machine."""

    sparse = True
    root: Path

    def on_disk(self, path: str = "") -> Path:
        """Return where *path* of the test's folder is on this machine's disk."""
        return self.root / self.day / path

    def put(self, path: str, data: bytes) -> None:
        target = self.on_disk(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.own(self.root)

    def put_sparse(self, path: str, size: int) -> None:
        """Make a file of *size* zero bytes that takes no room."""
        with self.on_disk(path).open("wb") as file:
            file.truncate(size)
        self.own(self.root)

    def own(self, path: Path) -> None:
        """Give what was written to whom the server runs as."""

    def make_folder(self, path: str) -> None:
        self.on_disk(path).mkdir(parents=True, exist_ok=True)
        self.own(self.root)

    def remove(self, path: str) -> None:
        self.on_disk(path).unlink()

    def read(self, path: str) -> bytes | None:
        target = self.on_disk(path)
        return target.read_bytes() if target.is_file() else None


def program(name: str, how: str) -> str:
    """Return the path of a program, or skip the test saying what to install."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: {how}")
    return found
