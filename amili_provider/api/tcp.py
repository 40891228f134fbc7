"""
Whether what was written to a socket has reached the other machine, and whether the other end is still there.

A small request fits into the socket's buffer whole, so writing it succeeds although the connection is already dead.
What is asked here, before the last bytes go out, turns many outcomes that would be unknown into "not accepted".
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
import time
from collections.abc import Callable

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
