"""What a filesystem says of one name: file or folder, size, and what tells one version from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One name in a folder.

    :param path: the full path on the filesystem.
    :param is_file: whether it is a file.
    :param is_folder: whether it is a folder. Neither: a pipe, a socket, a broken link.
    :param is_link: whether it is a symbolic link.
    :param size: bytes.
    :param fingerprint: what changes when the content is replaced (ETag, generation or modification time), if known.
    :param modified: when it was last written, in seconds since 1970, by the storage's clock, if known.
    """

    path: str
    is_file: bool
    is_folder: bool
    is_link: bool
    size: int
    fingerprint: str | None
    modified: float | None


def read_entry(details: Mapping[str, Any]) -> Entry:
    """Return what *details*, an entry of ``fs.ls(detail=True)`` or an answer of ``fs.info``, says."""
    path = str(details["name"])
    kind = details.get("type")
    # Names that end with a slash are the markers by which object storages remember empty folders.
    marker = path.endswith("/")
    modified = _modified(details)
    return Entry(
        path=path.rstrip("/"),
        is_file=kind == "file" and not marker,
        is_folder=kind == "directory" or marker,
        is_link=bool(details.get("islink")),
        size=int(details.get("size") or 0),
        fingerprint=_fingerprint(details, modified),
        modified=modified,
    )


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
