"""
Outcome, verdict and receipt of a file; and words from outside, as one safe line.

An upload that asks a person has two parts, and its second part lists the source again. Files that the first part moved
are not found, and those that are found were accepted "before". So what the first part says stays true of what it
delivered, and of what is gone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Outcome(StrEnum):
    """What became of one file; the field ``outcome`` of a receipt."""

    UPLOADED = "uploaded"
    ALREADY_UPLOADED = "already_uploaded"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"

    @property
    def delivered(self) -> bool:
        """Whether Amili has accepted the file, now or earlier."""
        return self in (Outcome.UPLOADED, Outcome.ALREADY_UPLOADED)

    @property
    def failed(self) -> bool:
        """Whether the task must not be green."""
        return self in (Outcome.DUPLICATE, Outcome.REJECTED, Outcome.UNKNOWN, Outcome.NOT_SENT)


class Verdict(NamedTuple):
    """
    What one answer says of one file.

    :param outcome: uploaded, rejected or unknown.
    :param status: Amili's status, as one safe line.
    :param result: Amili's result, as one safe line.
    :param message: Amili's message, or ours where Amili said nothing that can be understood.
    :param per_file: whether Amili named this very file.
    """

    outcome: Outcome
    status: str | None = None
    result: str | None = None
    message: str | None = None
    per_file: bool = False


@dataclass(slots=True)
class Receipt:
    """
    What became of one file: one entry of the task's XCom.

    Fields are the public interface; :meth:`as_dict` gives plain JSON in the order below.

    :param file_id: the id that Amili got; the ledger's key of the file. None if the file was not read to its end.
    :param name: the name that Amili got; what the file is called, if it cannot be sent.
    :param source: where the file was, without secrets.
    :param size: bytes; None if the storage does not tell.
    :param sha256: hash of the content, 64 hex characters. None if the file was not read to its end.
    :param client_no: Amili's client number.
    :param file_type: as given to Amili.
    :param outcome: what became of the file.
    :param status: Amili's status.
    :param result: Amili's result.
    :param message: Amili's words, or ours.
    :param uploaded_at: when Amili had accepted it, UTC.
    :param request: which request of the task took it to Amili, as in the log and in the ledger.
    """

    name: str
    source: str
    client_no: str
    file_type: str
    size: int | None = None
    file_id: str | None = None
    sha256: str | None = None
    outcome: Outcome = Outcome.NOT_SENT
    status: str | None = None
    result: str | None = None
    message: str | None = None
    uploaded_at: str | None = None
    request: str | None = None
    """Which request of the task took it to Amili, as in the log and in the ledger; None if it was not sent."""
    unwritten: bool = field(default=False, repr=False)
    """Whether the ledger could not be told of the outcome, so that the next run finds it unknown. Not published."""
    transient: bool = field(default=False, repr=False)
    """Of a file not sent: whether the cause may pass by itself, so that a retry of the task helps. Not published."""
    gone: bool = field(default=False, repr=False)
    """Whether it was listed, and was not there when it was to be read: a retry does not find it. Not published."""

    def as_dict(self) -> dict[str, Any]:
        """Return the published fields in their documented order, as plain JSON."""
        return {
            "file_id": self.file_id,
            "name": self.name,
            "source": self.source,
            "size": self.size,
            "sha256": self.sha256,
            "client_no": self.client_no,
            "file_type": self.file_type,
            "outcome": str(self.outcome),
            "status": self.status,
            "result": self.result,
            "message": self.message,
            "uploaded_at": self.uploaded_at,
            "request": self.request,
        }


LONGEST_SHOWN = 300
"""Characters of Amili's words that are shown at most."""

_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_DAY, _MONTH = r"(?:[04][1-9]|[1256]\d|[37][01])", r"(?:[048][1-9]|[159][0-2])"
"""Of birth. The day is 40 more in a D-number, the month 40 or 80 more in an auxiliary or a made-up number."""
_YEAR = r"(?:19|20(?=0))?\d\d"
"""Four digits only where it can be a year of birth: what follows a date of this year is rather an amount."""
_HASH = r"(?<![0-9A-Za-z])(?:[0-9a-f]{64}|[0-9a-f]{32})(?![0-9A-Za-z])"
"""A hash or a file's id: people copy it, and eleven of its digits may stand in a row by chance."""
_DATES = "|".join(
    rf"(?<!(?<!\d)(?:19|20)\d\d{gap}){_DAY}{gap}{_MONTH}{gap}{_YEAR}" for gap in (" ", r"\.", "/", "_", "-")
)
"""With gaps, and not the end of a date that begins with its year."""
_NATIONAL_ID = (
    rf"(?<!\d)(?:{_DAY}{_MONTH}\d\d|{_DATES})"
    # Five digits, which some write as three and two. With decimals after them they are an amount.
    rf" ?[-./_\u2010-\u2015\u2212]? ?(?!{_HASH})\d{{3}} ?\d\d(?!\d|[.,]\d\d?(?!\d|[ ./_-]\d))"
    # Without gaps, any eleven digits.
    r"|(?<!\d)\d{11}(?!\d)"
)
_IN_NUMBERS = "0123456789 \t\r\n\xa0./_-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_LIKE_AN_ESCAPE = re.compile(r"\\(?=[xuU])")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")
_BYTES = 0xDC00
"""What Python adds to a byte of a name that is not UTF-8, to keep it in text (PEP 383)."""


def one_line(words: Any, longest: int = LONGEST_SHOWN) -> str:
    """
    Return somebody else's words as one safe line.

    Control and invisible characters become spaces, what may be a Norwegian national id is masked, and at most *longest*
    characters are kept. Ids are eleven digits in a row, or a date of birth and five digits with blanks, dots, hyphens,
    slashes or underscores between; a number of another kind that looks the same is masked with them. Files' ids and
    hashes stay whole.

    :param words: text from outside; anything else is shown through ``str``.
    :param longest: characters kept at most.
    """
    text = str(words)
    # Cut before the costly part, since an answer may hold megabytes; but no number in half, which would not be masked.
    if len(text) > (most := longest * 4 + 64):
        text = text[:most].rstrip(_IN_NUMBERS)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _UNSHOWN else c for c in text)
    text = re.sub(f"(?P<hash>{_HASH})|{_NATIONAL_ID}", lambda m: m["hash"] or "*" * 11, " ".join(text.split()))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def escaped(text: str) -> str:
    r"""
    Return a name or path as one safe line from which :func:`unescaped` makes the same again.

    A character that cannot be seen is written ``\u00ad`` (one of ASCII ``\x0a``), a byte that is not UTF-8 ``\xe6``,
    and a backslash that could be read as the beginning of one of these ``\x5c``. Everything else stays as it is.

    :param text: as the storage has it.
    """
    if "\\" in text:
        text = _LIKE_AN_ESCAPE.sub(r"\\x5c", text)
    if text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNSHOWN else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0x80 <= code - _BYTES <= 0xFF:  # noqa: PLR2004 - the bytes that are not ASCII
        code -= _BYTES
    elif code > 0x7F:  # noqa: PLR2004 - the end of ASCII
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
    return f"\\x{code:02x}"


def unescaped(text: str) -> str:
    """
    Return the name or path that :func:`escaped` was given.

    :param text: what it returned.
    """
    return _ESCAPE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    code = int(found[1] or found[2] or found[3], 16)
    return chr(code + _BYTES if found[1] and code > 0x7F else code)  # noqa: PLR2004


_NOT_MOVED = re.compile(r" ?Not moved yet: .*$")
"""What the first part says of a file that the second part moves."""


def restore(earlier: Iterable[Receipt], now: Iterable[Receipt]) -> None:
    """
    Write into receipts of the second part what the first part knows better: what it delivered stays delivered.

    :param earlier: the first part's.
    :param now: the second part's, as far as it came; changed in place.
    """
    known = {(receipt.source, receipt.file_id): receipt for receipt in earlier if receipt.outcome.delivered}
    for receipt in now:
        # Of what was not read in the second part it is not known whether it is the same file.
        first = known.get((receipt.source, receipt.file_id))
        if first is None:
            continue
        if first.outcome is Outcome.UPLOADED or not receipt.outcome.delivered:
            for name in ("file_id", "sha256", "size", "outcome", "status", "result", "uploaded_at", "request"):
                setattr(receipt, name, getattr(first, name))
            receipt.message = _NOT_MOVED.sub("", first.message or "") or None
            receipt.transient = False


def no_longer_listed(earlier: Sequence[Receipt], now: Iterable[Receipt]) -> list[Receipt]:
    """Return the receipts of the first part that the second part does not stand for: its files are gone, or others."""
    if not earlier:
        return []
    found = {(receipt.source, receipt.file_id) for receipt in now}
    sources, ids = {source for source, _ in found}, {file_id for _, file_id in found}

    def stands(receipt: Receipt) -> bool:
        if receipt.gone:
            return receipt.file_id not in ids
        elsewhere = receipt.outcome.delivered and (receipt.source, receipt.file_id) not in found
        return receipt.source not in sources or elsewhere

    return [receipt for receipt in earlier if stands(receipt)]


def receipt_from(fields: object) -> Receipt:
    """
    Return the receipt that :meth:`~amili_provider.receipts.Receipt.as_dict` made *fields* of.

    :raises ValueError: if they are none.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"a receipt is an object, not {type(fields).__name__}")  # noqa: TRY004 - of what was kept
    try:
        return Receipt(**{**fields, "outcome": Outcome(fields["outcome"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"this is no receipt: {error}") from None
