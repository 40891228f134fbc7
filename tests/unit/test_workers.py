"""Workers of a run: whatever a signal raises in the thread that gives them jobs, nothing waits for ever."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

import pytest

from amili_provider import workers
from amili_provider.workers import Workers


class Timeout(BaseException):
    """Like Airflow's own, from a signal handler."""


class _Strike:
    """
    Raises at a line of :mod:`amili_provider.workers`.

    :param at: at which line that is run, from 1.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self.struck = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != workers.__file__:
            return None
        if event == "line" and not self.struck:
            self._left -= 1
            if not self._left:
                self.struck = True
                raise Timeout
        return self


@pytest.mark.parametrize("going", [1, 3])
def test_an_exception_anywhere_leaves_nobody_waiting(going: int) -> None:
    """At every line in turn: the workers can be ended within the time that is given, and what was done is done."""
    at, struck = 1, True
    while struck:
        strike, crew = _Strike(at), Workers("amili-test")
        done: list[int] = []
        before = sys.gettrace()
        sys.settrace(strike)
        try:
            for number in range(going):
                crew.give(partial(done.append, number), number + 1)
            crew.end(None)
        except Timeout:
            pass
        finally:
            sys.settrace(before)
        began = time.monotonic()
        crew.end(0.5)
        assert time.monotonic() - began < 5
        assert done == sorted(set(done))
        at, struck = at + 1, strike.struck
    assert at > 15
    assert done == list(range(going))


def test_a_job_that_hangs_is_left_behind() -> None:
    """Its worker holds up neither the end nor, being a daemon, the process."""
    go_on = threading.Event()
    crew = Workers("amili-test")

    def hang() -> None:
        go_on.wait(20)

    crew.give(hang, 1)
    assert not crew.end(0.05)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("amili-test"))
    go_on.set()
    assert crew.end(20)


def test_a_signal_that_strikes_within_the_start_of_a_thread_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """There Python complains of its own lock instead, which an except for errors would swallow."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        real(thread)
        try:
            raise Timeout
        finally:
            raise RuntimeError("release unlocked lock")

    crew, done = Workers("amili-test"), list[int]()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(Timeout):
            crew.give(partial(done.append, 1), 1)
    crew.give(partial(done.append, 2), 1)
    assert crew.end(20)
    assert done == [1, 2]


@pytest.mark.parametrize("least", [0, 1])
def test_a_system_that_lets_no_more_threads_begin(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread all jobs are done nevertheless; with none it is said, and made good by the next job."""
    real, begun = threading.Thread.start, list[threading.Thread]()

    def start(thread: threading.Thread) -> None:
        if len(begun) >= least:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        real(thread)

    crew, done = Workers("amili-test"), list[int]()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for number in range(3):
            if least:
                crew.give(partial(done.append, number), number + 1)
            else:
                with pytest.raises(RuntimeError, match="can't start"):
                    crew.give(partial(done.append, number), number + 1)
    crew.give(partial(done.append, 3), 1)
    assert crew.end(20)
    assert done == [0, 1, 2, 3]
