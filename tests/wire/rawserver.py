"""
A scripted HTTP server on bare sockets: each connection plays the next step of a script.

With it a test can end a connection after an exact byte, answer too early, or never. Servers that people use in
production hide these moments; this one is made of them.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from amili_provider.connection.settings import AmiliSettings, settings_from

CLIENT_SECRET = "canary-client-secret"
TOKEN_CANARY = "canary-token"


@dataclass
class Received:
    """One request as it arrived, perhaps in part."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Conversation:
    """One connection, as a step sees it."""

    def __init__(self, server: RawServer, connection: socket.socket) -> None:
        self.server = server
        self.received = Received()
        self._connection = connection
        self._buffer = b""

    def _more(self) -> bool:
        with suppress(OSError):
            if data := self._connection.recv(65536):
                self._buffer += data
                return True
        return False

    def read_head(self) -> Received:
        """Read the request line and the headers."""
        while b"\r\n\r\n" not in self._buffer and self._more():
            pass
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.received.method, self.received.target, *_ = [*first.split(" "), "", ""]
        self.received.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        return self.received

    @property
    def length(self) -> int:
        """The announced length of the body."""
        return int(self.received.headers.get("content-length", "0"))

    def read_body(self, count: int | None = None) -> bytes:
        """Read *count* bytes of the body, or all of it."""
        wanted = self.length if count is None else count
        while len(self._buffer) < wanted and self._more():
            pass
        self.received.body, self._buffer = self._buffer[:wanted], self._buffer[wanted:]
        return self.received.body

    def send(self, data: bytes) -> bool:
        """Send *data*; whether the other end still takes it."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def reset(self) -> None:
        """End the connection at once, without a farewell."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def wait_for_end(self) -> None:
        """Read until the other end has closed."""
        while self._more():
            self._buffer = b""


Step = Callable[[Conversation], None]


class RawServer:
    """
    A server that plays *steps*, one per connection, in the order of arrival; then *otherwise* for all others.

    :param steps: what to do with each connection.
    :param otherwise: what to do when the steps are used up; None refuses the test.
    :param tls: speak TLS.
    """

    def __init__(self, *steps: Step, otherwise: Step | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.steps = list(steps)
        self.otherwise = otherwise
        self.requests: list[Received] = []
        self.unexpected = 0
        self.ended = threading.Event()
        self._tls = tls
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """The address, without a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        assert not self.unexpected, f"{self.unexpected} connection(s) that the script does not know"

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                step = self.steps.pop(0) if self.steps else self.otherwise
            if step is None:
                self.unexpected += 1
                connection.close()
            else:
                self._start(self._play, step, connection)

    def _play(self, step: Step, connection: socket.socket) -> None:
        # Plain and TLS sockets alike: a test that goes wrong ends after this time.
        connection.settimeout(20)
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            conversation = Conversation(self, connection)
            with self._lock:
                self.requests.append(conversation.received)
            with connection:
                step(conversation)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the beginning of an answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def whole_answer(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return an answer; anything but bytes goes as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(status, {"Content-Length": str(len(content)), "Connection": "close", **(headers or {})}) + content


def answer(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> Step:
    """Read the whole request, then answer."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        talk.send(whole_answer(status, body, headers))

    return step


def early_answer(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> Step:
    """Answer after ten bytes of the body, and close while the rest still comes."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body(10)
        talk.send(whole_answer(status, body, headers))

    return step


def cut(*, after: int, done: threading.Event | None = None) -> Step:
    """End the connection after *after* bytes of the body, and say when that is *done*."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body(after)
        talk.reset()
        if done is not None:
            done.set()

    return step


def lost_answer() -> Step:
    """Read the whole request, and end the connection without an answer."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        talk.reset()

    return step


def raw_answer(data: bytes) -> Step:
    """Read the whole request, send *data* as it is, and end the connection."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        talk.send(data)

    return step


def trickle(data: bytes, *, first: bytes = b"", seconds: float = 0.02) -> Step:
    """Read the whole request, send *first*, then *data* byte by byte, and then its last byte for ever."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        talk.send(first)
        position = 0
        while not talk.server.ended.wait(seconds):
            if not talk.send(data[position : position + 1] or data[-1:]):
                return
            position += 1

    return step


def silence() -> Step:
    """Read the whole request and say nothing."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        talk.wait_for_end()

    return step


def give_token(life: Any = 3600) -> Step:
    """Answer as the token service does, with another token each time."""

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        number = len(talk.server.requests)
        talk.send(
            whole_answer(200, {"access_token": f"{TOKEN_CANARY}-{number}", "token_type": "Bearer", "expires_in": life})
        )

    return step


@dataclass
class Amili:
    """Both services of a scripted Amili, and the settings that lead to them."""

    api: RawServer
    tokens: RawServer
    settings: AmiliSettings


def settings_for(api_url: str, token_url: str, **extra: Any) -> AmiliSettings:
    """Return settings that lead to two addresses on this machine."""
    return settings_from(
        "amili_test",
        login="id",
        password=CLIENT_SECRET,
        host=api_url,
        port=None,
        schema="arm/v1",
        extra={"auth_url": token_url, "connect_timeout": 5, "answer_timeout": 5, **extra},
    )


@contextmanager
def scripted_amili(
    *steps: Step, tokens: list[Step] | None = None, otherwise: Step | None = None, **extra: Any
) -> Iterator[Amili]:
    """
    Run a scripted Amili.

    :param steps: of the API.
    :param tokens: of the token service; one good token after the other by default.
    :param otherwise: of the API when its steps are used up.
    :param extra: of the connection.
    """
    with ExitStack() as stack:
        api = stack.enter_context(RawServer(*steps, otherwise=otherwise))
        token_server = RawServer(*(tokens or ()), otherwise=None if tokens else give_token())
        stack.enter_context(token_server)
        yield Amili(api, token_server, settings_for(api.url, token_server.url, **extra))


class Body:
    """An upload's body of known bytes, in chunks, with its last bytes held back."""

    def __init__(self, *chunks: bytes, before_tail: Callable[[], object] | None = None) -> None:
        self.chunks = chunks or (b'{"files": [', b"x" * 200_000, b"y" * 200_000, b"]}")
        self.content_length = sum(map(len, self.chunks))
        self.named = ("f1", "1.csv")
        self.released = False
        self.wire: object = None
        self.iterations = 0
        self._before_tail = before_tail

    @property
    def data(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks)

    def __iter__(self) -> Iterator[bytes]:
        self.released = False
        self.iterations += 1
        yield from self.chunks[:-1]
        if self._before_tail:
            self._before_tail()
        self.released = True
        yield self.chunks[-1]
