"""Whoever runs the tests is told what takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import Narrator

_ROOT = Path(__file__).parents[2]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


def test_what_runs_is_named_only_when_nothing_else_is_said() -> None:
    """After twenty seconds without an ended test, and again after the next twenty; never between the dots."""
    clock = Clock()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    narrator = Narrator(writer, 20, clock)

    def said_at(seconds: float) -> str:
        clock.seconds = seconds
        narrator.speak()
        try:
            return os.read(reader, 1000).decode()
        except BlockingIOError:
            return ""

    try:
        assert said_at(19) == ""
        assert said_at(20) == "\n[after 20 s] looking for tests (20 s)\n"
        narrator.pytest_collection_finish()
        narrator.pytest_runtest_logstart("a quick one")
        narrator.pytest_runtest_logfinish("a quick one")
        narrator.pytest_runtest_logstart("a slow one")
        assert said_at(39) == ""
        assert said_at(41) == "\n[after 41 s] a slow one (21 s)\n"
        assert said_at(60) == ""
        assert said_at(61) == "\n[after 61 s] a slow one (41 s)\n"
        narrator.pytest_runtest_logfinish("a slow one")
        assert said_at(80) == ""
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("processes", [[], ["-p", "xdist", "-n", "1"]], ids=["one process", "pytest-xdist"])
def test_a_slow_test_is_named_while_it_runs(tmp_path: Path, processes: list[str]) -> None:
    """It is read from a pipe, as a CI server does, before the test ends: the test waits for that."""
    go = tmp_path / "go"
    os.mkfifo(go)
    (tmp_path / "test_it.py").write_text(f"def test_slow():\n    open({str(go)!r}).read()\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.patience", "--silent-for=0.2", *processes]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("test_it.py::test_slow (" in line for line in process.stdout), "ended without having said it"
        go.write_text("")
        rest = process.communicate(timeout=120)[0]
    finally:
        process.kill()
        process.wait()
    assert "1 passed" in rest
