"""One request while it runs: how much of it is out, what ends it, and whether the other end can have all of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol

import httpcore

from amili_provider.api import tcp


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
        if self._socket is not None and not tcp.wait_until_delivered(self._socket):
            raise httpcore.WriteError("the connection ended, or was answered, before the request was complete")

    def check_connected(self) -> None:
        """
        Check that the other end is there and has not answered yet. Costs nothing.

        :raises httpcore.WriteError: if not, as above.
        """
        if self._socket is not None and tcp.speaks_or_is_gone(self._socket):
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
