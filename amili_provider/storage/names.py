"""
What a file is called at Amili, and which files are skipped.

Amili documents no rule for names. Ours refuse what no receiver handles well, and two files that a receiver which
does not look at case could not tell apart.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence

from amili_provider.storage.files import StorageFile
from amili_provider.storage.patterns import is_pattern

KINDS_IGNORED = ("hidden", "temporary", "empty")
"""Kinds of files that can be skipped."""
LONGEST_NAME_BYTES = 255
"""As UTF-8: what common file systems take."""
_TEMPORARY_ENDINGS = (
    *(".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".writing", ".uploading"),
    *(".incomplete", ".inprogress", ".swp", ".swx", ".lock", "~"),
)
_TEMPORARY_BEGINNINGS = ("~$", ".~", "#")
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_HIDDEN = re.compile(r"(?:^|/)[._]")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def checked_name(name: str) -> str:
    """
    Return *name* as it goes to Amili: Unicode NFC.

    :param name: a base name, or what a name template gave.
    :raises ValueError: if it is empty, too long, a path, or holds characters that cannot be seen.
    """
    normal = unicodedata.normalize("NFC", name)
    # The first question is asked in C, and answers for nearly every name.
    if not normal.isprintable() and any(unicodedata.category(c) in _INVISIBLE for c in normal):
        raise ValueError(f"the name {name!r} holds control or invisible characters")
    if not normal.strip() or normal != normal.strip():
        raise ValueError(f"the name {name!r} is empty or begins or ends with blanks")
    if "/" in normal or "\\" in normal or normal in (".", ".."):
        raise ValueError(f"the name {name!r} is a path")
    if len(normal.encode()) > LONGEST_NAME_BYTES:
        raise ValueError(f"the name {name[:40]!r}... is longer than {LONGEST_NAME_BYTES} bytes")
    return normal


def reason_to_ignore(file: StorageFile, kinds: Sequence[str]) -> str | None:
    """
    Return why *file* is skipped, or None.

    A file that was named, rather than found, was meant, and so was a kind that the pattern itself asks for: these are
    skipped only if they are empty.

    :param file: a file of a listing.
    :param kinds: any of :data:`KINDS_IGNORED`.
    """
    if "empty" in kinds and file.size == 0:
        return "It is empty (0 bytes)."
    if file.literal:
        return None
    asked = file.location_root.path.rstrip("/").split("/")
    # Temporary first: editors and transfer programs hide their temporary files.
    if "temporary" in kinds and _is_temporary(file.name) and not _is_temporary(asked[-1]):
        return "Its name is that of a temporary file."
    if "hidden" in kinds and _is_hidden(file, asked):
        return "It is hidden: its name, or that of a folder it is in, begins with '.' or '_', or is the system's own."
    return None


def _is_temporary(name: str) -> bool:
    low = name.casefold()
    return low.endswith(_TEMPORARY_ENDINGS) or low.startswith(_TEMPORARY_BEGINNINGS)


def _is_hidden(file: StorageFile, asked: list[str]) -> bool:
    if not _HIDDEN.search(file.path) and file.name.casefold() not in _SYSTEM_FILES:
        return False
    fixed = next((index for index, segment in enumerate(asked) if is_pattern(segment)), len(asked))
    if any(segment.startswith((".", "_")) for segment in asked[fixed:]):
        return False
    below = file.path.split("/")[fixed:] or [file.name]
    return any(segment.startswith((".", "_")) for segment in below) or file.name.casefold() in _SYSTEM_FILES


def equal_names(names: Iterable[str]) -> set[str]:
    """
    Return those of *names* that more than one file has, as they would be compared: without case.

    :param names: as they go to Amili.
    """
    seen: set[str] = set()
    again: set[str] = set()
    for name in names:
        key = comparable(name)
        (again if key in seen else seen).add(key)
    return again


def comparable(name: str) -> str:
    """Return *name* as it is compared (page "About": data values are not case-sensitive)."""
    if name.isascii():
        return name.lower()
    # Folding case can take a composed character apart, so it is composed again.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def with_suffix(name: str, suffix: str) -> str:
    """Return *name* with *suffix* before its extension, short enough for common file systems."""
    stem, extension = posixpath.splitext(name)
    room = LONGEST_NAME_BYTES - len(f"_{suffix}{extension}".encode())
    short = stem.encode()[: max(room, 1)].decode(errors="ignore")
    return f"{short}_{suffix}{extension}"
