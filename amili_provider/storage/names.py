"""
What a file is called at Amili, and which files are left alone.

Amili documents no rule for names. Ours refuse what no receiver handles well, and two files that a receiver which
does not look at case could not tell apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from amili_provider.storage.listing import StorageFile

KINDS_LEFT = ("hidden", "temporary", "empty")
"""Kinds of files that can be left alone."""
LONGEST_NAME_BYTES = 255
"""As UTF-8: what common file systems take."""
_TEMPORARY_ENDINGS = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".swp", ".lock", "~")
_TEMPORARY_BEGINNINGS = ("~$", ".~", "#")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def checked_name(name: str) -> str:
    """
    Return *name* as it goes to Amili: Unicode NFC.

    :param name: a base name, or what a name template gave.
    :raises ValueError: if it is empty, too long, a path, or holds characters that cannot be seen.
    """
    normal = unicodedata.normalize("NFC", name)
    if not normal.strip() or normal != normal.strip():
        raise ValueError(f"the name {name!r} is empty or begins or ends with blanks")
    if "/" in normal or "\\" in normal or normal in (".", ".."):
        raise ValueError(f"the name {name!r} is a path")
    if any(unicodedata.category(c) in _INVISIBLE for c in normal):
        raise ValueError(f"the name {name!r} holds control or invisible characters")
    if len(normal.encode()) > LONGEST_NAME_BYTES:
        raise ValueError(f"the name {name[:40]!r}... is longer than {LONGEST_NAME_BYTES} bytes")
    return normal


def reason_to_leave(file: StorageFile, kinds: Sequence[str]) -> str | None:
    """
    Return why *file* is left alone, or None.

    A file that was named, rather than found, was meant: it is left only if it is empty.

    :param file: a file of a listing.
    :param kinds: any of :data:`KINDS_LEFT`.
    """
    if "empty" in kinds and file.size == 0:
        return "It is empty (0 bytes)."
    if file.literal:
        return None
    # Temporary first: editors and transfer programs hide their temporary files.
    low = file.name.casefold()
    if "temporary" in kinds and (low.endswith(_TEMPORARY_ENDINGS) or low.startswith(_TEMPORARY_BEGINNINGS)):
        return "Its name is that of a temporary file."
    if "hidden" in kinds and file.name.startswith((".", "_")):
        return "It is hidden: its name begins with '.' or '_'."
    return None


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
    return unicodedata.normalize("NFC", name).casefold()
