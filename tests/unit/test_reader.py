"""How many threads read ahead."""

from __future__ import annotations

import time

from amili_provider.delivery.reader import FEWEST_READERS, MOST_READERS, Readers


def test_one_pause_is_no_reason_for_more_readers() -> None:
    """A pause strikes every job in flight, time and again: the number stays."""
    readers = Readers()
    for _ in range(20):
        began = time.monotonic()
        for _ in range(FEWEST_READERS):
            readers.on_read(began, slow=True)
        readers.on_read(time.monotonic(), slow=False)
    assert readers.number == FEWEST_READERS


def test_a_storage_that_is_waited_for_gets_all_readers_soon() -> None:
    """Jobs that are slow one after the other show it: the third round of jobs has all readers."""
    readers = Readers()
    for _ in range(3):
        began = time.monotonic()
        for _ in range(readers.number):
            readers.on_read(began, slow=True)
    assert readers.number == MOST_READERS


def test_a_large_file_holds_its_reader() -> None:
    """What comes behind a large file does not wait for it."""
    readers = Readers()
    readers.on_stream()
    assert readers.number == MOST_READERS
