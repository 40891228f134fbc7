"""A TCP relay between us and a server: a wire that a test can cut, mend, or let answer in the server's place."""

from __future__ import annotations

import contextlib
import socket
import threading


class Wire:
    """
    Relays connections on a free loopback port to *port*.

    :param port: where the real server listens.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._room: int | None = None
        self._cut = False
        self._forbidden: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones until :meth:`mend`."""
        with self._lock:
            self._cut = True
            sockets = list(self._sockets)
        for one in sockets:
            _shut(one)

    def cut_after(self, count: int) -> None:
        """Cut once the server has sent *count* bytes more."""
        with self._lock:
            self._room = count

    def mend(self) -> None:
        """Let everything through again."""
        with self._lock:
            self._cut, self._room = False, None
            self._forbidden.clear()

    def forbid(self, token: bytes, answer: bytes) -> None:
        """Give *answer* in the server's place to what contains *token*."""
        with self._lock:
            self._forbidden.append((token, answer))

    def close(self) -> None:
        """Stop for good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                _shut(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                _shut(client)
                continue
            with self._lock:
                self._sockets |= {client, server}
                self.connections += 1
            threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, False), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, upward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if upward:
                    self.requests.append(data[:200])
                    answer = next((words for token, words in self._forbidden if token in data), None)
                    if answer is not None:
                        source.sendall(answer)
                        break
                elif not self._let_through(target, data):
                    break
                else:
                    continue
                target.sendall(data)
        for one in (source, target):
            _shut(one)
        with self._lock:
            self._sockets -= {source, target}

    def _let_through(self, target: socket.socket, data: bytes) -> bool:
        with self._lock:
            room = self._room
            if room is not None:
                self._room = room - len(data)
        if room is None or room >= len(data):
            target.sendall(data)
            return True
        if room > 0:
            target.sendall(data[:room])
        self.cut()
        return False


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
