"""
Names of files at Amili, and the files that are skipped.

Amili documents no rule for names. Ours are for the people who look a file up by its name, here or at Amili: refused is
what they cannot see or type, what systems cut off or read as a path, and two files that look alike.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Sequence

from amili_provider.receipts import escaped
from amili_provider.storage.files import StorageFile
from amili_provider.storage.locations import is_pattern

KINDS_IGNORED = ("hidden", "temporary", "empty")
"""Kinds of files that can be skipped."""
LONGEST_NAME_BYTES = 255
"""As UTF-8: what common file systems take."""
_LONGEST_SHOWN = 80
"""Characters of a name in a message at most: what is wrong with it must not be cut off."""
_LONGEST_SUFFIX_BYTES = 32
"""What follows the last dot and is longer is no suffix."""
_TEMPORARY_ENDINGS = (
    *(".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".writing", ".uploading"),
    *(".incomplete", ".inprogress", ".swp", ".swx", ".lock", "~"),
)
_TEMPORARY_BEGINNINGS = ("~$", ".~")
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_HIDDEN = re.compile(r"(?:^|/)[._]")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Between two letters or pictures these are part of how they are written: in Persian, and in emoji."""
_JOINED = re.compile(rf"(?<=[^\s{_JOINERS}])[{_JOINERS}](?=[^\s{_JOINERS}])")


def checked_name(name: str) -> str:
    """
    Return *name* as it goes to Amili: Unicode NFC.

    :param name: a base name, or what a name template gave.
    :raises ValueError: if it is empty, too long, a path, or holds characters that cannot be seen.
    """
    normal = unicodedata.normalize("NFC", name)
    # The first question is asked in C, and answers for nearly every name.
    if not normal.isprintable() and any(_is_invisible(c) for c in _JOINED.sub("", normal)):
        fault = "holds control or invisible characters, or is not UTF-8"
    elif not normal.strip() or normal != normal.strip():
        fault = "is empty or begins or ends with blanks"
    elif "/" in normal or "\\" in normal or normal in (".", ".."):
        fault = "is a path"
    elif len(normal.encode()) > LONGEST_NAME_BYTES:
        fault = f"is longer than {LONGEST_NAME_BYTES} bytes"
    else:
        return normal
    shown = escaped(name)
    raise ValueError(f"the name '{shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + '…'}' {fault}")


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE


def is_undecoded(name: str) -> bool:
    """Return whether *name* holds bytes that are not of the character set in which it was read (PEP 383)."""
    return any("\udc80" <= character <= "\udcff" for character in name)


def sendable(name: str) -> str:
    """Return *name* without what :func:`checked_name` refuses, underscores for slashes; it may be empty or too long."""
    seen = "".join(c for c in name.replace("/", "_").replace("\\", "_") if not _is_invisible(c))
    return unicodedata.normalize("NFC", seen).strip()


def unique_name(name: str, address: str) -> str:
    """
    Return a name that can be sent and that no other file has: what can be sent of *name*, and a mark made of *address*.

    :param name: the base name.
    :param address: what only this file has.
    """
    return with_suffix(sendable(name), hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:8])


def safe_name(name: str, address: str) -> str:
    """Return *name* if it can be sent as it is, else its :func:`unique_name`."""
    try:
        return checked_name(name)
    except ValueError:
        return unique_name(name, address)


def split_suffix(name: str) -> tuple[str, str]:
    """Return *name* as what stands before its last suffix, and the suffix with its dot, or nothing."""
    stem, suffix = posixpath.splitext(name)
    return (stem, suffix) if _size(suffix) <= _LONGEST_SUFFIX_BYTES else (name, "")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


IS_EMPTY = "It is empty (0 bytes)."


def reason_to_ignore(file: StorageFile, kinds: Sequence[str]) -> str | None:
    """
    Return why *file* is skipped, or None.

    A file that was named, rather than found, was meant, and so was a kind that the pattern itself asks for: these are
    skipped only if they are empty.

    :param file: a file of a listing.
    :param kinds: any of :data:`KINDS_IGNORED`.
    """
    if "empty" in kinds and file.size == 0 and file.fault is None:
        return IS_EMPTY
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
    # "#x#" is an editor's, but "#1001.csv" an order's.
    in_signs = len(low) > 2 and low.startswith("#") and low.endswith("#")  # noqa: PLR2004
    return in_signs or low.endswith(_TEMPORARY_ENDINGS) or low.startswith(_TEMPORARY_BEGINNINGS)


def _is_hidden(file: StorageFile, asked: list[str]) -> bool:
    if not _HIDDEN.search(file.path) and file.name.casefold() not in _SYSTEM_FILES:
        return False
    wild = file.location_root.is_pattern
    fixed = next((index for index, segment in enumerate(asked) if wild and is_pattern(segment)), len(asked))
    if any(segment.startswith((".", "_")) for segment in asked[fixed:]):
        return False
    below = file.path.split("/")[fixed:] or [file.name]
    return any(segment.startswith((".", "_")) for segment in below) or file.name.casefold() in _SYSTEM_FILES


def comparable(name: str) -> str:
    """Return *name* as it is compared: as it looks, without case (page "About": data values are not case-sensitive)."""
    if name.isascii():
        return name.lower()
    name = name.translate(dict.fromkeys(map(ord, _JOINERS)))
    # Folding case can take a composed character apart, so it is composed again.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def with_suffix(name: str, suffix: str) -> str:
    """Return *name* with *suffix* before its extension, short enough for common file systems."""
    stem, extension = split_suffix(name)
    while _size(with_it := f"{stem}_{suffix}{extension}") > LONGEST_NAME_BYTES:
        stem = stem[:-1]
    return with_it
