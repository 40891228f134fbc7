"""How FTP servers describe files: the facts of ``MLSD``, and what ``LIST`` prints for people."""

from __future__ import annotations

import contextlib
import posixpath
import re
from datetime import UTC, datetime
from typing import Any

# What "ls -l" prints; every server without MLSD answers LIST like that, or like DOS.
_UNIX_LINE = re.compile(
    r"(?P<type>[-dlbcps])[-rwxsStT+.@]{9,11}\s+\d+\s+\S+\s+\S+\s+(?P<size>\d+)\s+"
    r"(?P<date>\w{3}\s+\d+\s+[\d:]+) (?P<name>.+)"
)
_DOS_LINE = re.compile(
    r"(?P<date>\d\d-\d\d-\d{2,4}\s+\d\d:\d\d(?:[AP]M)?)\s+(?:(?P<folder><DIR>)|(?P<size>\d+))\s+(?P<name>.+)"
)


def read_mlsd(line: str, folder: str) -> dict[str, Any] | None:
    """Read one line of ``MLSD``; None for the folder itself and the one above."""
    facts, _, name = line.partition(" ")
    return read_facts(facts, posixpath.join(folder, name))


def read_facts(facts: str, path: str) -> dict[str, Any] | None:
    """Read ``type=file;size=12;modify=20260101120000.123;`` (RFC 3659); a server may leave out any of them."""
    values = {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts.split(";")) if key}
    kind = values.get("type", "").lower()
    if kind in ("cdir", "pdir"):
        return None
    size = values.get("size", "")
    return {
        "name": path,
        "type": {"dir": "directory", "file": "file"}.get(kind, "unknown"),
        "islink": "link" in kind,
        "size": int(size) if size.isdecimal() else None,
        "mtime": read_moment(values.get("modify", "")),
    }


def read_moment(words: str) -> float | None:
    """Return ``20260101120000.123`` (RFC 3659) in seconds since 1970; None if it is none."""
    with contextlib.suppress(ValueError):
        whole, _, fraction = words.partition(".")
        moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    return None


def read_list(line: str, folder: str) -> dict[str, Any] | None:
    """Read one line of ``LIST``. The date is kept as text: it has no zone, and often no year."""
    if match := _UNIX_LINE.fullmatch(line):
        kind = {"d": "directory", "-": "file", "l": "unknown"}.get(match["type"], "other")
        name = match["name"].partition(" -> ")[0] if match["type"] == "l" else match["name"]
    elif match := _DOS_LINE.fullmatch(line):
        kind, name = ("directory" if match["folder"] else "file"), match["name"]
    else:
        if not line.strip() or line.startswith("total "):
            return None
        raise OSError(f"a line of the server's listing cannot be read: {line[:80]!r}")
    if name in (".", ".."):
        return None
    size = int(match["size"] or 0)
    return {
        "name": posixpath.join(folder, name),
        "type": kind,
        "islink": line.startswith("l"),
        "size": size,
        "etag": f"{match['date']} {size}",
    }
