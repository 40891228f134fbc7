"""Which callbacks of an event loop hold it up: by the clock, as asyncio reports them, and by what they did."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STALL_SECONDS = 0.1
_NOTED_SECONDS = 0.005
_QUEUE = Path("/proc/thread-self/schedstat")
"""Linux tells how long a thread was ready to run and had to wait for a processor."""


@dataclass(frozen=True, slots=True)
class Held:
    """
    A callback that held its event loop.

    :param clock: seconds by the clock, without the wait for a processor and without garbage collection.
    :param processor: seconds of them that the thread computed; the rest it was blocked.
    :param text: which callback, in asyncio's words.
    """

    clock: float
    processor: float
    text: str

    def __str__(self) -> str:
        blocked = max(self.clock - self.processor, 0)
        return f"{self.clock * 1000:.0f} ms ({self.processor * 1000:.0f} computing, {blocked * 1000:.0f} blocked)"


class Stalls(logging.Handler):
    """
    Watches the callbacks of an event loop, and takes what asyncio's debug mode reports.

    asyncio goes by the clock, so that on a busy machine it blames callbacks for the time in which other processes had
    the processor. Here that wait is taken away, and nothing else: a callback that computes counts, and so does one that
    sleeps, reads a file, or waits for a server, a lock or another thread. Garbage collection strikes in whatever
    callback happens to run, and goes through all objects of the process: it is counted by itself.

    :param ignored: text of callbacks that are not to be counted.
    """

    def __init__(self, ignored: str) -> None:
        super().__init__(logging.WARNING)
        self.reported: list[tuple[float, str]] = []
        self.held: list[Held] = []
        self.collections: list[float] = []
        self._ignored = ignored
        self._collected = 0.0
        self._collection_began = 0.0

    @property
    def stalls(self) -> list[Held]:
        """The callbacks that held the loop too long, the longest first."""
        return sorted((one for one in self.held if one.clock > STALL_SECONDS), key=lambda one: -one.clock)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a report such as ``Executing <Task ...> took 0.150 seconds``."""
        text = record.getMessage()
        found = re.search(r"took ([0-9.]+) seconds", text)
        if found and self._ignored not in text:
            self.reported.append((float(found[1]), text))

    def _collecting(self, phase: str, _info: Any) -> None:
        if phase == "start":
            self._collection_began = time.thread_time()
        else:
            took = time.thread_time() - self._collection_began
            self._collected += took
            self.collections.append(took)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the loops of this thread while the block lasts."""
        handles: Any = asyncio.events.Handle
        real = handles._run
        # Opened by the thread that is watched; each read gives the numbers of that moment.
        queue = os.open(_QUEUE, os.O_RDONLY)

        def waited() -> float:
            return int(os.pread(queue, 100, 0).split()[1]) / 1e9

        def run(handle: asyncio.Handle) -> None:
            queued, collected = waited(), self._collected
            clock, processor = time.monotonic(), time.thread_time()
            real(handle)
            clock, processor = time.monotonic() - clock, time.thread_time() - processor
            if clock < _NOTED_SECONDS:
                return
            collected = self._collected - collected
            held = Held(clock - (waited() - queued) - collected, processor - collected, repr(handle))
            if held.clock > _NOTED_SECONDS and self._ignored not in held.text:
                self.held.append(held)

        logging.getLogger("asyncio").addHandler(self)
        handles._run = run
        gc.callbacks.append(self._collecting)
        try:
            yield
        finally:
            gc.callbacks.remove(self._collecting)
            handles._run = real
            logging.getLogger("asyncio").removeHandler(self)
            os.close(queue)

    def summary(self) -> str:
        """Return what was found, in one line."""
        reported = [took for took, _ in self.reported if took > STALL_SECONDS]
        longest = max(self.held, key=lambda one: one.clock, default=Held(0, 0, ""))
        return (
            f"{len(self.stalls)} (longest callback {longest}); by the clock asyncio reports {len(reported)} (longest "
            f"{max(reported, default=0) * 1000:.0f} ms); {sum(t > STALL_SECONDS for t in self.collections)} by "
            f"Python's garbage collection (longest {max(self.collections, default=0) * 1000:.0f} ms)"
        )
