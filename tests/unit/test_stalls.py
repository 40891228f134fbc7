"""The benchmark of waiting sensors is not blind: whatever holds the event loop is found, and only that."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.suites.benchmarks.stalls import STALL_SECONDS, Stalls

pytestmark = pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="only Linux tells")

LONG = STALL_SECONDS * 1.5


def compute(seconds: float) -> None:
    """Use the processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def wait_for_a_thread() -> None:
    """Wait for a lock that another thread holds."""
    threading.Event().wait(LONG)


def read_slowly() -> None:
    """Read from a pipe that is silent for a while."""
    ours, theirs = os.pipe()
    threading.Timer(LONG, os.close, [theirs]).start()
    os.read(ours, 1)
    os.close(ours)


def watched(*callbacks: Callable[[], None]) -> Stalls:
    """Run callbacks on an event loop, and return what was seen."""
    stalls = Stalls(ignored="nothing is")

    async def run() -> None:
        for callback in callbacks:
            asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    with stalls.watched():
        asyncio.run(run())
    return stalls


@pytest.mark.parametrize("hold", [lambda: time.sleep(LONG), lambda: compute(LONG), wait_for_a_thread, read_slowly])
def test_whatever_holds_the_loop_is_a_stall(hold: Callable[[], None]) -> None:
    """Sleeping, computing, waiting for a lock or for a file: each is a stall, though only one uses the processor."""
    (stall,) = watched(hold, lambda: None).stalls
    assert stall.clock > STALL_SECONDS


def test_what_a_stall_did_is_told() -> None:
    """Blocked and computing callbacks are told apart."""
    blocked, computed = (watched(hold).stalls[0] for hold in (lambda: time.sleep(LONG), lambda: compute(LONG)))
    assert blocked.processor < STALL_SECONDS / 2
    assert computed.processor > STALL_SECONDS


def test_the_wait_for_a_busy_processor_is_no_stall() -> None:
    """A callback that is long by the clock only because others had the processor is not blamed."""
    before = os.sched_getaffinity(0)
    one = min(before)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    longest = 0.0

    def short() -> None:
        nonlocal longest
        began = time.monotonic()
        compute(STALL_SECONDS / 2)
        longest = max(longest, time.monotonic() - began)

    try:
        for process in others:
            os.sched_setaffinity(process.pid, {one})
        os.sched_setaffinity(0, {one})
        while longest < STALL_SECONDS * 1.2:
            stalls = watched(short)
    finally:
        os.sched_setaffinity(0, before)
        for process in others:
            process.kill()
            process.wait()
    assert stalls.held
    assert not stalls.stalls
