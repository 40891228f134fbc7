"""Local files."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.storage.backends.base import OnDisk

_NOBODY = 65534


class Disk(OnDisk):
    """This machine's disk, through the ``fs`` connection."""

    name = "file"
    conn_type = "fs"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.root = scratch / "files"
        self.root.mkdir()

    def connection(self) -> dict[str, Any]:
        return {"conn_type": "fs", "extra": {"path": str(self.root)}}

    def wrong_login(self) -> dict[str, Any] | None:
        return None

    def url(self, path: str = "") -> str:
        return f"file://{self.on_disk()}/{path}"

    def bare(self, path: str = "") -> str:
        return f"/{self.day}/{path}"

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        folder = self.on_disk(path)
        before = folder.stat().st_mode
        folder.chmod(mode)
        root = os.geteuid() == 0
        if root:
            # Root may read everything; for this one look we are nobody.
            os.seteuid(_NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(before)
