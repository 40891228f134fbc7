"""Pools of connections: of a server, each for one caller at a time; and of a session of requests."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import requests
from requests.adapters import HTTPAdapter

from amili_provider.storage.base import ReadStream

IDLE_SECONDS = 10.0
"""A connection that was idle for longer is asked whether it lives before it is used again."""
WAIT_SECONDS = 600.0
"""How long a caller waits while none of our own connections becomes free."""
C = TypeVar("C")


def pooled(session: requests.Session, connections: int) -> requests.Session:
    """Let *session* keep as many *connections* to a server; return it."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    return session


def close_session(session: requests.Session) -> None:
    """Close *session* and its connections; who asks again opens new ones."""
    for adapter in session.adapters.values():
        # urllib3 only lets go of its pools, whose connections then stay open until they are collected.
        pools = adapter.poolmanager.pools if isinstance(adapter, HTTPAdapter) else {}
        for key in list(pools.keys()):
            if (pool := pools.get(key)) is not None:
                pool.close()
    session.close()


class Pool(Generic[C]):
    """
    Connections to a server, of which each is used by one caller at a time.

    A server that refuses a further connection while some of ours are open has let in as many as it will: from then on
    callers wait for these.

    :param connect: opens one.
    :param close: closes one.
    :param alive: asks one that was idle whether it lives.
    :param most: how many there may be at once.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        close: Callable[[C], None],
        alive: Callable[[C], bool],
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._close = close
        self._alive = alive
        self._most = most
        self._clock = clock
        self._turn = threading.Condition()
        self._idle: list[tuple[C, float]] = []
        self._in_use: set[int] = set()
        """Which connections callers have, by id: one that is not here any more was given out before a close."""
        self._connecting = 0

    def take(self) -> tuple[C, bool]:
        """
        Return a connection for the caller alone, and whether it was used before.

        :raises OSError: if the server lets none of ours in, or all are in use for :data:`WAIT_SECONDS`.
        """
        while True:
            connection, since = self._idle_or_room()
            if connection is None:
                if (opened := self._open()) is not None:
                    return opened, False
            elif self._clock() - since < IDLE_SECONDS or self._alive(connection):
                return connection, True
            else:
                self.discard(connection)

    def _idle_or_room(self) -> tuple[C | None, float]:
        """Return an idle connection; None if there is room for another, which is then ours to open."""
        with self._turn:
            while not self._idle and len(self._in_use) + self._connecting >= self._most:
                if not self._turn.wait(WAIT_SECONDS):
                    raise OSError(f"all {self._most} connections to the server are in use for {WAIT_SECONDS:.0f} s")
            if not self._idle:
                self._connecting += 1
                return None, 0.0
            connection, since = self._idle.pop()
            self._in_use.add(id(connection))
            return connection, since

    def _open(self) -> C | None:
        """Open a connection; None if the server lets in no more than those that are open."""
        try:
            connection = self._connect()
        except OSError:
            with self._turn:
                self._connecting -= 1
                self._turn.notify_all()
                there = len(self._in_use) + len(self._idle)
                if not there:
                    raise
                self._most = there
            return None
        except BaseException:
            with self._turn:
                self._connecting -= 1
                self._turn.notify_all()
            raise
        with self._turn:
            self._connecting -= 1
            self._in_use.add(id(connection))
        return connection

    def give_back(self, connection: C) -> None:
        """Take back a connection that is in order."""
        with self._turn:
            if id(connection) in self._in_use:
                self._in_use.remove(id(connection))
                self._idle.append((connection, self._clock()))
                self._turn.notify()
                return
        self.discard(connection)

    def discard(self, connection: C) -> None:
        """Close a connection that may be broken."""
        with self._turn:
            self._in_use.discard(id(connection))
            self._turn.notify()
        with contextlib.suppress(Exception):
            self._close(connection)

    def close(self) -> None:
        """Close every idle connection now, and those in use as soon as they are given back."""
        with self._turn:
            idle, self._idle = self._idle, []
            self._in_use.clear()
            self._turn.notify_all()
        for connection, _ in idle:
            with contextlib.suppress(Exception):
                self._close(connection)


class Download(ReadStream):
    """
    A stream with a connection of its own, which goes back to the pool when the file was read to its end.

    :param raw: the bytes.
    :param pool: where the connection goes.
    :param connection: the connection.
    """

    def __init__(self, raw: io.RawIOBase, pool: Pool[Any], connection: Any) -> None:
        super().__init__()
        self._raw = raw
        self._pool = pool
        self._connection: Any = connection
        self._complete = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; none at the end, and only there."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(256 * 1024), b""))
        data = self._raw.read(size) or b""
        self._complete = not data and size > 0
        return data

    def close(self) -> None:
        """Give the connection back, or close it if the file was left in the middle."""
        if self.closed:
            return
        connection, self._connection = self._connection, None
        in_order = self._complete
        try:
            self._raw.close()
        except Exception:  # noqa: BLE001 - a connection that cannot even close a file is not used again
            in_order = False
        if in_order:
            self._pool.give_back(connection)
        else:
            self._pool.discard(connection)
        super().close()
