"""How many threads read ahead: many where they wait for storage and ledger, few where they only compete for Python."""

from __future__ import annotations

import time

FEWEST_READERS, MOST_READERS = 2, 16


class Readers:
    """The number of reader threads, which grows once reading is seen to be waited for."""

    def __init__(self) -> None:
        self.number = FEWEST_READERS
        """Jobs that may be read at once."""
        self._slow_since: float | None = None

    def on_stream(self) -> None:
        """Take note that a large file holds its reader for long: what comes behind it must not wait."""
        self.number = MOST_READERS

    def on_read(self, began: float, *, slow: bool) -> None:
        """
        Take note of a job that was read.

        One pause of the process (its collector of garbage, a busy machine) makes every job in flight slow, and is no
        reason for more readers: only a slow job that began after another had been slow is.

        :param began: when it began, by the monotonic clock.
        :param slow: whether storage or ledger were waited for.
        """
        if not slow:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = time.monotonic()
        elif began >= self._slow_since:
            self.number = min(self.number * 2, MOST_READERS)
