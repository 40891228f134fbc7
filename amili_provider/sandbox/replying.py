"""An answer on its way to the caller; with a fault, slowly or in part."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from amili_provider.sandbox.exchange import Answer, Exchange, GoneError

_WITHOUT_BODY = (204, 304)


class Reply:
    """
    The ASGI application that sends an answer.

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
