"""Files handed to the hook: from this machine, or as bytes."""

from __future__ import annotations

import os
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from amili_provider.api.upload import Content, UploadPart
from amili_provider.exceptions import AmiliStorageError
from amili_provider.receipts import escaped

FileToUpload = str | os.PathLike[str] | tuple[str, bytes]


class BytesContent:
    """
    Content that is in memory anyway.

    :param data: the content.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content from its start."""
        view = memoryview(self._data)
        for start in range(0, self.size, block_bytes):
            yield view[start : start + block_bytes]

    def check_unchanged(self) -> None:
        """Bytes do not change."""


class PathContent:
    """
    A local file, read in place on every iteration.

    :param path: the file.
    :raises OSError: if it is not there or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as opened:
            self._state = _state(os.fstat(opened.fileno()))
        self.size = self._state[1]

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content from its start."""
        with self._path.open("rb") as opened:
            if _state(os.fstat(opened.fileno())) != self._state:
                raise AmiliStorageError(f"{escaped(str(self._path))} was changed since the upload began.")
            while block := opened.read(block_bytes):
                yield block

    def check_unchanged(self) -> None:
        """Raise :class:`AmiliStorageError` if the file was written to meanwhile."""
        if _state(self._path.stat()) != self._state:
            raise AmiliStorageError(f"{escaped(str(self._path))} was changed while it was being sent.")


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """
    One file as it was handed to the hook.

    :param part: as it is sent.
    :param source: where it came from, for its receipt.
    """

    part: UploadPart
    source: str


def _content(given: Path | bytes) -> Content:
    return PathContent(given) if isinstance(given, Path) else BytesContent(given)


def handed_over(files: Iterable[FileToUpload], file_type: str) -> list[HandedOver]:
    """
    Read what was handed to the hook.

    :param files: paths, or pairs of name and bytes.
    :param file_type: for Amili.
    :raises ValueError: for anything else, or two files of one name.
    """
    if isinstance(files, (str, bytes, os.PathLike)):
        raise ValueError("files is one path; write a list, for example ['invoices.csv'].")  # noqa: TRY004
    taken = []
    for file in files:
        if isinstance(file, (str, os.PathLike)):
            path = Path(file)
            name, source, content = path.name, escaped(str(path)), _content(path)
        elif isinstance(file, tuple) and len(file) == 2 and isinstance(file[0], str) and isinstance(file[1], bytes):  # noqa: PLR2004
            name, source, content = file[0], escaped(file[0]), _content(file[1])
        else:
            raise ValueError(f"files holds a {type(file).__name__}; write paths, or pairs of a name and bytes.")
        name = unicodedata.normalize("NFC", name)
        if not name.strip() or not name.isprintable() or "/" in name or "\\" in name:
            raise ValueError(f"{name!r} is not a file name; write it without slashes and invisible characters.")
        taken.append(HandedOver(UploadPart(uuid.uuid4().hex, name, file_type, content), source))
    names = [f.part.name for f in taken]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"files holds {twice[0]!r} twice; Amili could not tell them apart.")
    return taken


def packed(files: list[HandedOver], max_bytes: int, max_files: int) -> Iterator[list[HandedOver]]:
    """Yield requests of at most *max_files* files and *max_bytes* encoded bytes; a larger file goes alone."""
    request: list[HandedOver] = []
    size = 0
    for file in files:
        encoded = file.part.encoded_bytes
        if request and (len(request) == max_files or size + encoded > max_bytes):
            yield request
            request, size = [], 0
        request.append(file)
        size += encoded
    if request:
        yield request
