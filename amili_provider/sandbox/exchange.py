"""One request: its record, the fault that takes it, the connection under it, and its answer on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from amili_provider.sandbox.faults import Fault
from amili_provider.sandbox.garbage import GARBAGE
from amili_provider.sandbox.state import Sandbox

TRANSPORT = "amili.transport"
"""Where the server puts the connection into the ASGI scope."""

_TICK_SECONDS = 0.02
_DRAIN_SECONDS = 30.0
_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered; *body* is JSON unless it is bytes."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_bytes(self) -> bytes:
        """Return the body as it goes over the wire."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def end_connection(transport: asyncio.Transport, how: str) -> None:
    """
    End a connection.

    :param transport: the connection.
    :param how: ``reset`` sends RST at once; ``close`` sends what is written, then FIN.
    """
    if how == "close":
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        linger_for_no_time = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
    transport.abort()


class GoneError(Exception):
    """There is nobody to answer any more."""


class InsteadError(Exception):
    """A fault answers instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Exchange:
    """
    One request in the hands of the sandbox.

    :param sandbox: whose request it is.
    :param request: the request.
    :param kind: token, upload, list, result, batch, health or other.
    """

    def __init__(self, sandbox: Sandbox, request: Request, kind: str) -> None:
        self.sandbox = sandbox
        self.request = request
        self.transport: asyncio.Transport | None = request.scope.get("extensions", {}).get(TRANSPORT)
        self._generation = sandbox.generation
        self._loop = asyncio.get_running_loop()
        length = request.headers.get("content-length", "")
        client = request.client
        self.record = sandbox.records.open_request(
            kind=kind,
            method=request.method,
            path=request.url.path,
            peer=f"{client.host}:{client.port}" if client else "",
            user_agent=request.headers.get("user-agent", ""),
            content_length=int(length) if length.isdigit() else None,
        )
        self.fault: Fault | None = sandbox.faults.take(kind, request.url.path)
        self.record.fault = self.fault.number if self.fault else None

    @property
    def outdated(self) -> bool:
        """Whether the sandbox was reset, or is stopping, since this request began."""
        return self._generation != self.sandbox.generation

    async def run(self, handler: Callable[[Exchange], Awaitable[Answer]]) -> Answer | None:
        """Serve the request with *handler*, with the fault applied; None if there is nobody to answer."""
        try:
            if self.fault and self.fault.expire_tokens:
                self.sandbox.tokens.expire_all()
            await self._suffer("head")
            answer = await handler(self)
            if self.fault and self.fault.stage == "accepted" and self.fault.after_bytes is None:
                answer = await self._play(answer)
        except InsteadError as instead:
            answer = instead.answer
        except (GoneError, ClientDisconnect):
            self.record.ended = self.record.ended or "left"
            return None
        if self.outdated:
            self.end_connection("reset")
            return None
        self.record.status, self.record.ended = answer.status, "answered"
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """Read the body, as it arrives."""
        limit = self.fault.after_bytes if self.fault else None
        async for chunk in self.request.stream():
            self.record.body_bytes += len(chunk)
            if limit is not None and self.record.body_bytes >= limit:
                limit = None
                await self._cut()
            if self.outdated:
                self.end_connection("reset")
                raise GoneError
            if chunk:
                yield chunk
        self.record.body_complete = True

    async def body_was_read(self) -> None:
        """Say that the whole body was read; a fault of that stage strikes here."""
        await self._suffer("body")

    async def _cut(self) -> None:
        assert self.fault is not None  # it has just said after how many bytes
        await self.wait(self.fault.delay)
        if self.fault.drop:
            self.end_connection(self.fault.drop)
            raise GoneError

    async def _suffer(self, stage: str) -> None:
        fault = self.fault
        if fault is None or fault.stage != stage or fault.after_bytes is not None:
            return
        answer = await self._play(Answer(200, {"status": "PROCESSED", "result": "CREATED", "files": []}))
        if fault.replaces_answer or fault.cut_answer_at is not None:
            raise InsteadError(answer)

    async def _play(self, answer: Answer) -> Answer:
        fault = self.fault
        assert fault is not None  # a stage was reached that only a fault has
        await self.wait(fault.delay)
        if fault.drop and fault.cut_answer_at is None:
            self.end_connection(fault.drop)
            raise GoneError
        headers = {**answer.headers, **fault.headers}
        status = fault.status or answer.status
        if fault.garbage is not None:
            return Answer(status, GARBAGE[fault.garbage](answer.body), headers)
        if fault.body is not None:
            return Answer(status, fault.body.encode() if isinstance(fault.body, str) else fault.body, headers)
        if fault.status is not None:
            return Answer(status, {"message": f"Answer {status} by script"}, headers)
        return Answer(status, answer.body, headers)

    async def wait(self, seconds: float) -> None:
        """Wait, but not longer than the caller or the sandbox does."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(_TICK_SECONDS, left))
            if self.outdated or (self.transport and self.transport.is_closing()):
                self.end_connection("reset")
                raise GoneError

    def end_connection(self, how: str) -> None:
        """End the connection, and say so in the record."""
        self.record.ended = "dropped"
        if self.transport is not None:
            end_connection(self.transport, how)

    def end_from_any_thread(self) -> None:
        """End the connection at once, whatever the request is waiting for."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: so are its connections
            self._loop.call_soon_threadsafe(self.end_connection, "reset")

    async def drain(self, receive: Receive) -> None:
        """Read what is left of the body, within bounds: who still writes would not find the answer."""
        if self.record.body_complete or "expect" in self.request.headers:
            return
        left = self.sandbox.rules.drain_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0 and not self.outdated:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    left -= len(message.get("body", b""))
                    self.record.body_bytes += len(message.get("body", b""))
                    if not message.get("more_body"):
                        self.record.body_complete = True
                        return
        if self.transport is not None:
            end_connection(self.transport, "close")

    async def until_gone(self, receive: Receive) -> None:
        """Wait until the server has noticed that the connection ended, so that it does not try to answer."""
        while (await receive())["type"] != "http.disconnect":
            pass


class Reply:
    """
    The ASGI application that sends an answer; with a fault, slowly or in part.

    :param exchange: the request.
    :param answer: its answer; None waits until the connection is gone.
    """

    def __init__(self, exchange: Exchange, answer: Answer | None) -> None:
        self._exchange = exchange
        self._answer = answer

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if self._answer is None:
            await self._exchange.until_gone(receive)
            return
        status, body = self._answer.status, self._answer.as_bytes()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        if status in _WITHOUT_BODY:
            body, headers = b"", {}
        headers |= {name.lower(): str(value) for name, value in self._answer.headers.items()}
        start = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": start})
        try:
            await self._send_body(body, send)
        except GoneError:
            await self._exchange.until_gone(receive)
            return
        # An early answer goes out at once; the connection stays open until the caller has written its body.
        await self._exchange.drain(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _send_body(self, body: bytes, send: Send) -> None:
        fault = self._exchange.fault
        part = body[: fault.cut_answer_at] if fault else body
        if fault and fault.trickle:
            await self._trickle(part, fault.trickle, send)
        else:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if fault and fault.cut_answer_at is not None:
            self._exchange.end_connection(fault.drop or "close")
            raise GoneError

    async def _trickle(self, body: bytes, seconds: float, send: Send) -> None:
        for byte in body:
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
            await self._exchange.wait(seconds)
