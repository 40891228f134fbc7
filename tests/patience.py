"""A pytest plugin that names what is running whenever nothing has been said for a while: slow is not hanging."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest


class Narrator:
    """
    Knows what is running, and since when.

    :param out: the file descriptor to write to.
    :param seconds: how long nothing may be said.
    :param now: the clock, in seconds.
    """

    def __init__(self, out: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._out, self._seconds, self._now = out, seconds, now
        self._began = self._heard = now()
        self._running = {"looking for tests": self._began}

    def pytest_collection_finish(self) -> None:
        """Tests were found."""
        self._running.clear()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Take note of a test that begins, be it in a process of pytest-xdist."""
        self._running.pop("looking for tests", None)
        self._running[nodeid] = self._now()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Take note of a test that has ended: pytest has drawn its dot."""
        self._running.pop(nodeid, None)
        self._heard = self._now()

    def speak(self) -> None:
        """Say what is running, if it is time."""
        now = self._now()
        if now - self._heard < self._seconds:
            return
        self._heard = now
        what = ", ".join(f"{name} ({now - since:.0f} s)" for name, since in list(self._running.items()))
        os.write(self._out, f"\n[after {now - self._began:.0f} s] {what or 'between tests'}\n".encode())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--silent-for", type=float, default=20.0, metavar="SECONDS", help="then say what is running")


def pytest_configure(config: pytest.Config) -> None:
    """Begin, but not in the processes of pytest-xdist: the one that hears of all tests speaks for them."""
    if hasattr(config, "workerinput"):
        return
    # A copy: while a test runs, what is written to 1 is caught.
    out, seconds = os.dup(1), config.getoption("--silent-for")
    narrator = Narrator(out, seconds)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(min(seconds / 4, 1.0)):
            narrator.speak()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()
        os.close(out)

    config.pluginmanager.register(narrator, "narrator")
    config.add_cleanup(end)
