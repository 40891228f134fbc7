"""Whether written bytes reached the other machine, on real sockets."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from amili_provider.api.in_flight import (
    LONGEST_STILLSTAND_SECONDS,
    speaks_or_is_gone,
    unacknowledged_bytes,
    wait_until_delivered,
)


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection on loopback: our end and the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def _reset(theirs: socket.socket) -> None:
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()


@pytest.mark.parametrize(
    "end", [_reset, socket.socket.close, lambda s: s.shutdown(socket.SHUT_WR), lambda s: s.sendall(b"HTTP/1.1 413")]
)
def test_the_end_of_a_connection_and_an_early_answer_are_noticed(
    pair: tuple[socket.socket, socket.socket], end: Callable[[socket.socket], None]
) -> None:
    """Reset, closed, half closed, answered: the tail is not released into any of these."""
    ours, theirs = pair
    ours.sendall(b"POST")
    assert wait_until_delivered(ours)
    assert not speaks_or_is_gone(ours)
    end(theirs)
    assert speaks_or_is_gone(ours)
    assert not wait_until_delivered(ours)


@pytest.mark.parametrize(
    ("said", "is_answer"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413", True),
        (b"HTTP/1.1 100 Conti", True),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", True),
    ],
)
def test_an_interim_answer_is_none(pair: tuple[socket.socket, socket.socket], said: bytes, is_answer: bool) -> None:
    """A server may send 1xx at any time (RFC 9110 section 15.2); what follows it, or is not whole, counts."""
    ours, theirs = pair
    theirs.sendall(said)
    assert select.select([ours], [], [], 5)[0]
    assert speaks_or_is_gone(ours) is is_answer


def test_what_was_read_by_the_other_end_is_delivered(pair: tuple[socket.socket, socket.socket]) -> None:
    """Nothing is left in the send queue."""
    ours, theirs = pair
    ours.sendall(b"x" * 100_000)
    received = 0
    while received < 100_000:
        received += len(theirs.recv(65536))
    assert wait_until_delivered(ours)
    assert unacknowledged_bytes(ours) == 0


def test_an_end_that_takes_nothing_any_more_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    """Time is ours here: after a minute without a further byte the connection counts as dead."""
    ours, _ = pair
    ours.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)
    waited = 0.0

    def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    assert not wait_until_delivered(ours, clock=lambda: waited, sleep=sleep)
    # The other machine may still take a little at first; the minute counts from the last byte that it took.
    assert LONGEST_STILLSTAND_SECONDS < waited < 5 * LONGEST_STILLSTAND_SECONDS


def test_a_socket_that_was_closed_here_is_not_delivered(pair: tuple[socket.socket, socket.socket]) -> None:
    """A run that is stopped closes sockets under the sender."""
    ours, _ = pair
    ours.close()
    assert speaks_or_is_gone(ours)
    assert not wait_until_delivered(ours)
