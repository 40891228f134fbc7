"""
One request while it runs, and its socket: how much of it is out, what ends it, what the other end can have.

A small request fits into the socket's buffer whole, so writing it succeeds although the connection is already dead.
What is asked of the socket before the last bytes go out turns many outcomes that would be unknown into "not accepted".
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

import httpcore

LONGEST_STILLSTAND_SECONDS = 60.0
"""How long no further byte may be acknowledged before the connection counts as dead."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.0005, 0.05
_PEEKED_BYTES = 4096
_INTERIM = re.compile(rb"(?:HTTP/1\.[01] 1\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)+")
_UNACKNOWLEDGED = 0x5411
"""Linux's SIOCOUTQ (tcp(7)): how many bytes of the send queue the other machine has not acknowledged."""


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Return how many bytes the other machine has not acknowledged; 0 where the system cannot tell."""
    if not sys.platform.startswith("linux"):
        return 0
    answer = fcntl.ioctl(sock.fileno(), _UNACKNOWLEDGED, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])


def wait_until_delivered(
    sock: socket.socket,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """
    Wait until the other machine has everything that was written.

    :param sock: a connected TCP socket.
    :param clock: seconds from any start.
    :param sleep: how to wait.
    :returns: False if the connection ended, answered early, or stood still for too long.
    """
    least, since, pause = sys.maxsize, clock(), _FIRST_PAUSE_SECONDS
    try:
        while left := unacknowledged_bytes(sock):
            if speaks_or_is_gone(sock):
                return False
            if left < least:
                least, since = left, clock()
            elif clock() - since > LONGEST_STILLSTAND_SECONDS:
                return False
            sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    except (OSError, ValueError):  # closed by another thread
        return False
    return not speaks_or_is_gone(sock)


def speaks_or_is_gone(sock: socket.socket) -> bool:
    """
    Return whether the other end has closed or reset the connection, or has answered before the request was complete.

    Under TLS an answer cannot be told from what the protocol itself says, so only the end of the connection counts.
    An interim answer (1xx), which may come at any time, is none (RFC 9110 section 15.2).
    """
    try:
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLRDHUP)
        for _, events in poll.poll(0):
            if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                return True
            # Past the TLS socket's own method, which cannot peek.
            peeked = b""
            with contextlib.suppress(BlockingIOError):
                peeked = socket.socket.recv(sock, _PEEKED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return not peeked or not (isinstance(sock, ssl.SSLSocket) or _INTERIM.fullmatch(peeked))
    except (OSError, ValueError):
        return True
    return False


class Body(Iterable[bytes], Protocol):
    """What is sent: the same bytes in each iteration; ``UploadBody`` is one."""

    content_length: int
    released: bool
    wire: Any
    """Told here before each iteration: what knows how much has reached the other end."""

    @property
    def named(self) -> Collection[str]:
        """The ids and the names of its files."""


class InFlight:
    """
    What the HTTP library tells of one request while it runs, and the means to end it from another thread.

    httpx bounds each single read; an answer that trickles in would never end. So a timer shuts the socket down.
    httpx also hides a failed write and tries to read an answer; so how much is out is asked of the body itself.

    :param body: the body of an upload, if it is one.
    :param connect_seconds: for a proxy's answer to CONNECT.
    """

    def __init__(self, body: Body | None = None, *, connect_seconds: float) -> None:
        self.overdue = False
        self.peer: tuple[str, int] | None = None
        """Host and port connected to last: the target's, or a proxy's."""
        self._body = body
        self._connect_seconds = connect_seconds
        self._begun = False
        self._unwritten = False
        self._cut = False
        self._all_out = False
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        if self._body is not None:
            self._begun = True
            self._body.wire = self
            yield from self._body

    def wait_until_delivered(self) -> None:
        """
        Return when all that was handed out has reached the other machine.

        :raises httpcore.WriteError: if it cannot any more. The HTTP library then looks for an answer that came early.
        """
        if self._socket is not None and not wait_until_delivered(self._socket):
            raise httpcore.WriteError("the connection ended, or was answered, before the request was complete")

    def check_connected(self) -> None:
        """
        Check that the other end is there and has not answered yet. Costs nothing.

        :raises httpcore.WriteError: if not, as above.
        """
        if self._socket is not None and speaks_or_is_gone(self._socket):
            raise httpcore.WriteError("the connection ended, or was answered, before the request was complete")

    @property
    def released(self) -> bool:
        """
        Whether the other end can have the whole request, as it was sent last.

        The body says it as soon as it hands its last bytes out. Where writing them failed, the machine did not take
        all of them, so that nobody else can have.
        """
        all_out = self._all_out if self._body is None else self._body.released
        return self._begun and not self._unwritten and all_out

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Take a report of the HTTP library (httpx's request extension ``trace``)."""
        if event.endswith(".connect_tcp.started"):
            self._disarm()
            self._connecting(info)
        elif event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._connected(info["return_value"])
        elif event == "http11.send_request_headers.started":
            # A token request, a proxy's CONNECT and a replay come through here too: what was out before is moot.
            self._disarm()
            self._begun = self._unwritten = self.overdue = False
        elif event == "http11.send_request_body.failed":
            self._unwritten = True
        elif event == "http11.response_closed.started":
            self._disarm()
        elif event == "http11.receive_response_headers.started":
            request = info["request"]
            connect = request.method == b"CONNECT"
            self._arm(self._connect_seconds if connect else request.extensions.get("answer_seconds"))

    async def atrace(self, event: str, info: dict[str, Any]) -> None:
        """Take a report where nothing blocks. There, time is bounded from outside, so only the peer is noted."""
        if event.endswith(".connect_tcp.started"):
            self._connecting(info)

    def cut(self) -> None:
        """End the request now."""
        with self._lock:
            self._cut = True
            self._shut()

    def done(self) -> None:
        """Forget the request: it has ended."""
        self._disarm()
        if self._body is not None:
            # httpx's answer holds its request until Python looks for rings, and so would the content of files be held.
            self._all_out = self._body.released
            self._body.wire = None
            self._body = None
        with self._lock:
            self._socket = None

    def _connecting(self, info: dict[str, Any]) -> None:
        self.peer = (str(info["host"]), int(info["port"]))

    def _connected(self, stream: Any) -> None:
        with self._lock:
            self._socket = stream.get_extra_info("socket")
            if self._cut:
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            # Not the TLS socket's own method: that would take the connection apart under the reading thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _arm(self, seconds: float | None) -> None:
        self._disarm()
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        with self._lock:
            self.overdue = True
            self._shut()
