"""Base64 content, decoded block by block to disk while it arrives."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import BinaryIO

import pybase64

HEAD_BYTES = 256
"""How much of the beginning is kept for the rules that look at content."""

_QUANTUM = 4
_PART_OF_QUANTUM = re.compile(rb"[A-Za-z0-9+/]*=*")


class ReceivedContent:
    """
    The content of one file.

    :param path: where the decoded bytes go, created with the first of them; None to keep the hash only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.size = 0
        self.head = b""
        self.problem: str | None = None
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._rest = b""  # characters that do not make a whole quantum yet
        self._padded = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of what has been decoded so far."""
        return self._hash.hexdigest()

    def write(self, piece: bytes | memoryview) -> bool:
        """Decode the next characters; False as soon as they are not base64."""
        if self.problem is None:
            block = self._rest + piece
            whole = len(block) - len(block) % _QUANTUM
            self._rest = block[whole:]
            if whole:
                self._decode(memoryview(block)[:whole])
            if self.problem is None and not _PART_OF_QUANTUM.fullmatch(self._rest):
                self.problem = "not base64"
        return self.problem is None

    def close(self) -> ReceivedContent:
        """Finish; what is wrong, if anything, is in :attr:`problem`."""
        if self.problem is None and self._rest:
            self.problem = "base64 that is cut off or lacks its padding"
        self.discard_handle()
        return self

    def discard_handle(self) -> None:
        """Close the file; what was written stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _decode(self, block: memoryview) -> None:
        if self._padded:
            self.problem = "characters after the padding of the base64"
            return
        try:
            data = pybase64.b64decode(block, validate=True)
        except ValueError:
            self.problem = "not base64"
            return
        self._padded = block[-1] == ord("=")
        self.size += len(data)
        self._hash.update(data)
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        if self.path is not None:
            if self._file is None:
                self._file = self.path.open("ab" if self.size > len(data) else "wb")
            self._file.write(data)
