"""The sandbox on a port of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from amili_provider.sandbox.app import make_app
from amili_provider.sandbox.exchange import TRANSPORT, end_connection
from amili_provider.sandbox.state import API_PATH, Sandbox

_START_SECONDS = 10.0


def protocol_for(sandbox: Sandbox) -> type[asyncio.Protocol]:
    """Return the HTTP protocol that gives *sandbox* hold of each connection."""

    class SandboxProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            fault = sandbox.faults.take("connection", "")
            if fault is not None and fault.drop:
                end_connection(transport, fault.drop)
            self.app = _with_transport(self.app, transport)

    return SandboxProtocol


def _with_transport(app: ASGIApp, transport: asyncio.Transport) -> ASGIApp:
    async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[TRANSPORT] = transport
        await app(scope, receive, send)

    return with_transport


class SandboxServer(Sandbox):
    """
    A sandbox that answers on loopback while the ``with`` block lasts.

    ::

        with SandboxServer() as amili:
            os.environ["AIRFLOW_CONN_AMILI_DEFAULT"] = amili.connection_json()
            amili.faults.add("upload", status=503, headers={"Retry-After": "1"})
            ...
            assert [u.name for u in amili.uploads] == ["invoices.csv"]

    :param data: see :class:`~amili_provider.sandbox.state.Sandbox`, as for *settings*.
    :param host: the address to listen on.
    :param port: the port; 0 takes a free one.
    :param settings: what else a sandbox takes.
    """

    def __init__(
        self, data: Path | str | None = None, *, host: str = "127.0.0.1", port: int = 0, **settings: Any
    ) -> None:
        super().__init__(data, **settings)
        self.names |= {host.lower()}
        self.host = host
        self.port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self) -> Self:
        """Begin to listen. After :meth:`stop` it listens on the same port again, and remembers everything."""
        listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self._server = uvicorn.Server(self.uvicorn_config())
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener), name=f"amili-sandbox-{self.port}", daemon=True
        )
        self._thread.start()
        self._wait_for(lambda: self._server is not None and self._server.started)
        return self

    def uvicorn_config(self, **more: Any) -> uvicorn.Config:
        """Return how uvicorn serves the sandbox."""
        return uvicorn.Config(
            make_app(self),
            **{
                "http": protocol_for(self),
                "ws": "none",
                "loop": "asyncio",
                "lifespan": "off",
                "access_log": False,
                "log_config": None,
                "log_level": "error",
                "server_header": False,
                "timeout_graceful_shutdown": 1,
                **more,
            },
        )

    def _run(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            server.run(sockets=[listener])
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the start
            self._failure = error
        finally:
            listener.close()

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if self._failure is not None or time.monotonic() > deadline:
                raise RuntimeError("the sandbox did not start") from self._failure
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop to listen, and drop what is being served."""
        if self._server is None or self._thread is None:
            return
        self.interrupt()
        self._server.should_exit = True
        self._thread.join(_START_SECONDS)
        self._server = self._thread = None

    def close(self) -> None:
        """Stop, and remove what a sandbox of its own has kept."""
        self.stop()
        super().close()

    @property
    def url(self) -> str:
        """Scheme, host and port; here is also the page for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def auth_url(self) -> str:
        """The base URL of the token service."""
        return self.url

    @property
    def base_url(self) -> str:
        """The base URL of the API."""
        return self.url + API_PATH

    def connection(self, **extra: Any) -> dict[str, Any]:
        """
        Return an Airflow connection to this sandbox, as a dictionary for JSON.

        :param extra: more extras, or other values for those that are there (``client_no``, ``auth_url``).
        """
        extras = {"auth_url": self.auth_url, "client_no": next(iter(self.rules.clients)), **extra}
        return {
            "conn_type": "amili",
            "host": self.url.rpartition(":")[0],
            "port": self.port,
            "schema": API_PATH.strip("/"),
            "login": self.tokens.client_id,
            "password": self.client_secret,
            "extra": extras,
        }

    def connection_json(self, **extra: Any) -> str:
        """Return :meth:`connection` as text, for ``AIRFLOW_CONN_AMILI_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
