"""A day of example invoice files: made up, the same every time for the same day."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

BUCKET = "invoices"
"""Where the example DAG looks for files."""
FILES = 240
LARGE_BYTES = 320 * 1024 * 1024

REASON = "row 14: customer number 104233 does not exist"

_HEADER = "invoice_no;customer_no;invoice_date;due_date;currency;amount;vat;kid;text\r\n"
_REFUSED, _COPIED, _COPY = 117, 12, 205
_FEWEST_ROWS, _MOST_ROWS, _LARGE_ROWS = 8, 600, 12_000
_TEXTS = ("Strøm", "Nettleie", "Bredbånd", "Årsavgift", "Abonnement", "Parkering", "Vedlikehold")


@dataclass(frozen=True, slots=True)
class Invoices:
    """One file of the day."""

    name: str
    content: bytes
    times: int = 1
    """How often the content is repeated; more than once only in the large file."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.content) * self.times

    def blocks(self) -> Iterator[bytes]:
        """Return the bytes."""
        return (self.content for _ in range(self.times))

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Day:
    """
    All files of a day.

    One of them begins with a line that asks the sandbox to refuse it; one has the bytes of another under its own name.
    """

    day: date
    files: tuple[Invoices, ...]
    refused: Invoices
    corrected: Invoices
    """The refused file as it is once somebody has corrected it."""
    original: Invoices
    copy: Invoices


def make_day(day: date, *, large: bool) -> Day:
    """
    Make up the files of a day.

    :param day: the day.
    :param large: whether one more file has several hundred MB.
    """
    numbers = random.Random(day.toordinal())  # noqa: S311 - made-up invoices, not secrets

    def name(number: int) -> str:
        return f"{day:%Y%m%d}_Invoice_file_client_2218_{number:03d}.csv"

    files = [
        Invoices(name(n), _rows(numbers, day, numbers.randint(_FEWEST_ROWS, _MOST_ROWS))) for n in range(1, FILES + 1)
    ]
    corrected = files[_REFUSED - 1]
    refused = Invoices(corrected.name, f"REJECT: {REASON}\r\n".encode() + corrected.content)
    original = files[_COPIED - 1]
    copy = Invoices(name(_COPY), original.content)
    files[_REFUSED - 1], files[_COPY - 1] = refused, copy
    if large:
        block = _rows(numbers, day, _LARGE_ROWS)
        files.append(Invoices(f"{day:%Y%m%d}_Invoice_archive_client_2218.csv", block, LARGE_BYTES // len(block)))
    return Day(day, tuple(files), refused, corrected, original, copy)


def _rows(numbers: random.Random, day: date, count: int) -> bytes:
    lines = [_HEADER]
    for _ in range(count):
        amount = numbers.randint(5_000, 2_500_000)
        lines.append(
            f"{numbers.randint(10**6, 10**7)};{numbers.randint(10**5, 10**6)};{day:%Y-%m-%d};"
            f"{day + timedelta(days=14):%Y-%m-%d};NOK;{amount / 100:.2f};{amount / 500:.2f};"
            f"{numbers.randint(10**14, 10**15)};{numbers.choice(_TEXTS)}\r\n"
        )
    return "".join(lines).encode()
