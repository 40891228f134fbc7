"""A forward proxy on loopback that asks for a password, and takes every host for this machine."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from tests.wire.rawserver import Conversation, RawServer, whole_answer


def forward_proxy(password: str) -> RawServer:
    """Return a proxy for the user ``bob`` with a password, to be started."""
    wanted = "Basic " + base64.b64encode(f"bob:{password}".encode()).decode()

    def step(talk: Conversation) -> None:
        request = talk.read_head()
        if request.headers.get("proxy-authorization") != wanted:
            talk.read_body()
            talk.send(whole_answer(407))
            return
        tunnel = request.method == "CONNECT"
        target = urlsplit(f"//{request.target}" if tunnel else request.target)
        with socket.create_connection(("127.0.0.1", target.port or 80)) as far:
            back = threading.Thread(target=_pass_on, args=(far, talk._connection), daemon=True)
            if tunnel:
                talk.send(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = f"{target.path}?{target.query}" if target.query else target.path
                headers = {**request.headers, "connection": "close"}
                lines = [f"{request.method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
                far.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + talk.read_body())
            back.start()
            if tunnel:
                _pass_on(talk._connection, far)
            back.join(20)

    return RawServer(otherwise=step)


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        while data := near.recv(65536):
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
