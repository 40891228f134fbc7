"""Servers that tests and suites start on loopback: a port for them, the wait for them, their end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable


def free_port() -> int:
    """Return a port that was free a moment ago, for servers that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int, alive: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something answers on *port*."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive():
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers on port {port}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server: ask it to, and if it does not, kill it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
