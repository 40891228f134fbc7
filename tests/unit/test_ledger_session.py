"""What a run asks of its ledger while it reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from amili_provider.delivery.item import Item, Result
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.options import Options
from amili_provider.delivery.reader import Reader
from amili_provider.ledger.stores import Found, MemoryStore
from amili_provider.receipts import Outcome, Receipt
from amili_provider.storage.listing import list_files
from tests.ledger_cases import ACCEPTED, Clock, ledger_over

PLAN = Options("", "InvoiciaFormatDocFile", client_no="10042", environment="staging")


class CountingStore(MemoryStore):
    """Counts how many files each look-up asked about."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.asked: list[int] = []

    def look_up(self, environment: str, client_no: str, file_ids: Sequence[str]) -> Found:
        """Count, and look up."""
        self.asked.append(len(file_ids))
        return super().look_up(environment, client_no, file_ids)


@pytest.fixture(name="store")
def _store() -> CountingStore:
    store = CountingStore(Clock())
    store.create()
    return store


@pytest.fixture(name="books")
def _books(store: CountingStore) -> LedgerSession:
    nobody: Any = None  # Amili is not asked
    return LedgerSession(ledger_over(store, Clock()), PLAN, nobody)


@pytest.fixture(name="items")
def _items(tmp_path: Path) -> Iterator[list[Item]]:
    for number in range(5):
        (tmp_path / f"{number}.csv").write_text(f"invoice {number}")
    files = list_files(f"{tmp_path}/*.csv", None)
    items = [Item(f, Receipt(f.name, f.url, PLAN.client_no, PLAN.file_type, f.size)) for f in files]
    yield items
    for item in items:
        item.close()


def read(books: LedgerSession, items: list[Item]) -> list[Result | None]:
    """Read *items* as one job."""
    outcomes, _ = Reader(PLAN, books, stop=threading.Event()).read(items)
    return [result for _, result in outcomes]


def test_files_that_are_read_together_are_looked_up_together(
    books: LedgerSession, store: CountingStore, items: list[Item]
) -> None:
    """One question for all of a job; a file that cannot be read is none of it, and the others are not kept from it."""
    Path(items[2].file.local_path or "").unlink()
    results = read(books, items)
    assert [result is None for result in results] == [True, True, False, True, True]
    assert store.asked == [4]


def test_what_was_looked_up_is_used_once(books: LedgerSession, store: CountingStore, items: list[Item]) -> None:
    """A file that is read again is looked up again: what was accepted meanwhile is not sent a second time."""
    assert read(books, items) == [None] * 5
    books.claim(items, "#1")
    books.settle(items[:1], {items[0]: Result(ACCEPTED)})
    again = [result and result.outcome for result in read(books, items)]
    assert again == [Outcome.ALREADY_UPLOADED, *[Outcome.NOT_SENT] * 4], "accepted, and in flight"
    assert store.asked == [5, 5]


def test_a_copy_does_not_change_what_is_claimed(books: LedgerSession, items: list[Item], tmp_path: Path) -> None:
    """A file whose claim was given back is claimed anew, whatever was looked up for its copy before."""
    (tmp_path / "copy.csv").write_text("invoice 0")
    [file] = list_files(f"{tmp_path}/copy.csv", None)
    copy = Item(file, Receipt(file.name, file.url, PLAN.client_no, PLAN.file_type, file.size))
    read(books, items)
    copy.receipt.sha256 = items[0].receipt.sha256
    copy.receipt.file_id = items[0].receipt.file_id
    before = books.look_up([copy])[copy]
    books.claim(items, "#1")
    books.release(items)
    assert books.consult(copy, before) is None
    books.claim(items, "#2")
    assert [item.history and item.history.next_attempt for item in items] == [2] * 5


def test_nothing_is_kept_of_a_file_that_is_done(books: LedgerSession, items: list[Item]) -> None:
    """What only sending needs goes with the content."""
    read(books, items)
    assert all(item.history is not None for item in items)
    for item in items:
        item.close()
    assert all(item.history is None and item.content is None for item in items)
