"""Open connections to one server, each for one caller at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

IDLE_SECONDS = 10.0
"""A connection that was idle for longer is asked whether it lives before it is used again."""

C = TypeVar("C")


class Pool(Generic[C]):
    """
    Open connections that nobody uses at the moment.

    :param connect: opens one.
    :param close: closes one.
    :param alive: asks one that was idle whether it lives.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        close: Callable[[C], None],
        alive: Callable[[C], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._close = close
        self._alive = alive
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[tuple[C, float]] = []

    def take(self) -> tuple[C, bool]:
        """Return a connection for the caller alone, and whether it was used before."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if self._clock() - since < IDLE_SECONDS or self._alive(connection):
                return connection, True
            self.discard(connection)
        return self._connect(), False

    def give_back(self, connection: C) -> None:
        """Return a connection that is in order."""
        with self._lock:
            self._idle.append((connection, self._clock()))

    def discard(self, connection: C) -> None:
        """Close a connection that may be broken."""
        with contextlib.suppress(Exception):
            self._close(connection)

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            self.discard(connection)
