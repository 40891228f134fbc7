"""
A process that swallows uploads: it discards bodies in the kernel, and accepts every file by name.

Run as ``python -m tests.suites.benchmarks.sink [SECONDS]``; it prints its port and ends with its parent. What it
answers is what Amili documents, so that a delivery against it is a whole one; SECONDS is how long each answer takes, as
a network and a service far away would. It must never be the bottleneck: the measurement ``sink`` pushes bytes at it as
fast as one core can, to show what it takes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time

_FILE_ID = re.compile(rb'"fileId": ?"([^"]+)"')
_TAIL_BYTES = 64 * 1024
"""``fileId`` is the last key of each file object: for one large file the end of the body is enough."""
_READ_WHOLE_BYTES = 48 * 1024 * 1024
"""Bodies up to this size are read, since each of their files has a ``fileId`` somewhere; larger ones have one file."""
_SWALLOW_BYTES = 8 * 1024 * 1024


def serve(latency: float) -> None:
    """Listen on a free port, print it, and answer until the parent is gone."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - how the parent learns it
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_converse, args=(connection, latency), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    ended = threading.Event()
    while os.getppid() == parent:
        ended.wait(0.5)
    os._exit(0)


def _converse(connection: socket.socket, latency: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        buffered = b""
        while True:
            while (end := buffered.find(b"\r\n\r\n")) < 0:
                more = connection.recv(65536)
                if not more:
                    return
                buffered += more
            head, buffered = buffered[:end].lower(), buffered[end + 4 :]
            length = int(match[1]) if (match := re.search(rb"content-length: *(\d+)", head)) else 0
            if b"expect: 100-continue" in head:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body, buffered = buffered[:length], buffered[length:]
            seen = _swallow(connection, body, length)
            if seen is None:
                return
            files = [
                {"fileId": found.decode(), "status": "PROCESSED", "result": "CREATED", "message": "File uploaded"}
                for found in _FILE_ID.findall(seen)
            ]
            time.sleep(latency)
            answer = json.dumps({"status": "PROCESSED", "result": "CREATED", "files": files}).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(answer), answer)
            )
            if b"connection: close" in head:
                return


def _swallow(connection: socket.socket, begun: bytes, length: int) -> bytes | bytearray | None:
    """Take the rest of a body of *length* bytes; return the part with the ids in it, None if it was cut."""
    if length <= _READ_WHOLE_BYTES:
        whole = bytearray(length)
        whole[: len(begun)] = begun
        return whole if _fill(connection, memoryview(whole)[len(begun) :]) else None
    left = length - len(begun)
    while left > _TAIL_BYTES:
        # MSG_TRUNC: the kernel drops what it has received and copies nothing (tcp(7)).
        taken = connection.recv_into(_NOWHERE, min(left - _TAIL_BYTES, _SWALLOW_BYTES), socket.MSG_TRUNC)
        if not taken:
            return None
        left -= taken
    tail = bytearray(left)
    return tail if _fill(connection, memoryview(tail)) else None


_NOWHERE = bytearray(_SWALLOW_BYTES)


def _fill(connection: socket.socket, buffer: memoryview) -> bool:
    while buffer:
        taken = connection.recv_into(buffer)
        if not taken:
            return False
        buffer = buffer[taken:]
    return True


if __name__ == "__main__":
    serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0)
