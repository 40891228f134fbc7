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


def read_entry(details: Mapping[str, Any]) -> Entry:
    """Return what *details*, an entry of ``fs.ls(detail=True)`` or an answer of ``fs.info``, says."""
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
