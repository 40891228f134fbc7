"""How FTP servers describe files: the facts of ``MLSD``, and what ``LIST`` prints for people."""

from __future__ import annotations

import contextlib
import posixpath
import re
from datetime import UTC, datetime
from typing import Any

# What "ls -l" prints; every server without MLSD answers LIST like that, or like DOS, or as IBM i does. Owner and group
# may have blanks in them, and months are written in the server's language.
_CLOCK = r"(?:\d{1,2}:\d\d(?::\d\d)?|\d{4})"
_MONTH = r"(?:[^\W\d_]{1,10}\.?|\d{1,2}月)"
_UNIX_LINE = re.compile(
    r"(?P<type>[-dlbcps])[-rwxsStTlL+.@]{9,11}\s+\d+\s+\S.*?\s+(?P<size>\d+)\s+"
    rf"(?P<date>{_MONTH}\s*\d{{1,2}}[.日]?\s+{_CLOCK}|\d{{1,2}}\.?\s+{_MONTH}\s+{_CLOCK}|"
    rf"\d{{4}}-\d\d-\d\d\s+{_CLOCK}) (?P<name>.+)"
)
_DOS_LINE = re.compile(
    r"(?P<date>\d\d-\d\d-\d{2,4}\s+\d\d:\d\d(?:[AP]M)?)\s+(?:(?P<kind><[A-Z]+>)|(?P<size>\d+))\s+(?P<name>.+)"
)
_IBM_LINE = re.compile(
    r"\S+\s+(?P<size>\d+)?\s+(?P<date>\d\d/\d\d/\d\d\s+\d\d:\d\d:\d\d)\s+\*(?P<kind>[A-Z]+)\s+(?P<name>.+?)/?"
)
_TOTAL = re.compile(r"(?:tot\w*|insgesamt|итого|合計|总用量)\s*:?\s+\d+\S*", re.IGNORECASE)
"""How ls sums up, in the server's language."""


def read_mlsd(line: str, folder: str) -> dict[str, Any] | None:
    """Read one line of ``MLSD``; None for the folder itself and the one above."""
    facts, _, name = line.partition(" ")
    if not facts.endswith(";") and "; " in name:
        # Some servers write groups with blanks ("domain users"), which a fact must not hold.
        facts, _, name = line.partition("; ")
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
        # A junction, or a link, leads to what is asked for.
        kind = {None: "file", "<DIR>": "directory"}.get(match["kind"], "unknown")
        name = re.sub(r" \[[^\]]*\]$", "", match["name"]) if kind == "unknown" else match["name"]
    elif match := _IBM_LINE.fullmatch(line):
        kind, name = {"STMF": "file", "DIR": "directory"}.get(match["kind"], "unknown"), match["name"]
    else:
        if not line.strip() or _TOTAL.fullmatch(line.strip()):
            return None
        raise OSError(f"a line of the server's listing cannot be read: {line[:80]!r}")
    if name in (".", ".."):
        return None
    size = int(match["size"] or 0)
    return {
        "name": posixpath.join(folder, name),
        "type": kind,
        "islink": line.startswith("l") or kind == "unknown",
        "size": size,
        "etag": f"{match['date']} {size}",
    }
