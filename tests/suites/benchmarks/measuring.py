"""How things are measured: servers and contestants in processes of their own, in turn, medians of pairwise ratios."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.databases import postgres

ROOT = Path(__file__).parents[3]
Contestant = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """
    One line of the result.

    :param part: which measurement, a letter and a few words.
    :param what: what was compared.
    :param value: the figure: a ratio where there is a promise about a ratio.
    :param unit: of the figure.
    :param promise: what it must be at most, or at least.
    :param at_least: whether the promise is a lower bound.
    :param detail: the figures behind it.
    """

    part: str
    what: str
    value: float
    unit: str = "x"
    promise: float | None = None
    at_least: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> bool | None:
        """Whether the promise is kept; None if there is none."""
        if self.promise is None:
            return None
        return self.value >= self.promise if self.at_least else self.value <= self.promise

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "part": self.part,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "promise": self.promise,
            "at_least": self.at_least,
            "held": self.held,
            "detail": dict(self.detail),
        }


@dataclass(frozen=True)
class Scale:
    """
    How much is measured.

    :param folder: where the data lies; large enough.
    :param rounds: how often each contestant runs.
    :param large: bytes of the large file.
    :param files: number of small files.
    :param sizes: file sizes for memory and for doubling, each twice the one before or not compared with it.
    :param numbers: numbers of files for doubling, the same.
    :param quick: whether this is a trial rather than a measurement.
    """

    folder: Path
    rounds: int
    large: int
    files: int
    sizes: tuple[int, ...]
    numbers: tuple[int, ...]
    quick: bool


@contextlib.contextmanager
def server(module: str, *arguments: str) -> Iterator[int]:
    """Run a server of this package in its own process; yields its port."""
    command = [sys.executable, "-m", f"tests.suites.benchmarks.{module}", *arguments]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def contestant(name: str, **asked: Any) -> Contestant:
    """Return what runs a contestant in a process of its own and gives its figures."""

    def run() -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.suites.benchmarks.contestants", name, json.dumps(asked)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if line.startswith("FIGURES "):
                found: dict[str, Any] = json.loads(line.removeprefix("FIGURES "))
                return found
        raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")

    return run


def above_nothing(runs: Sequence[Mapping[str, Any]]) -> float:
    """Return the most MiB that a process took, above one of Airflow whose task does nothing."""
    least = contestant("nothing")()
    return float(max(run["idle"] + run["peak_above_idle"] for run in runs) - least["idle"]) / 2**20


def curl(body: Path, sink: int) -> Contestant:
    """Return what sends a ready-made body with curl."""
    url = f"http://127.0.0.1:{sink}/arm/v1/clients/2218/files"
    options = ["-sS", "-o", os.devnull, "-X", "POST", "-H", "Expect:", "-H", "Content-Type: application/json"]

    def run() -> dict[str, Any]:
        began, busy = time.perf_counter(), os.times()
        subprocess.run(["curl", *options, "-T", str(body), url], check=True)
        now = os.times()
        cpu = now.children_user + now.children_system - busy.children_user - busy.children_system
        return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu}

    return run


def in_turn(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run all contestants one after the other, *rounds* times, and return the figures of each."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        # Who goes first changes, so that none always runs in another's shadow.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            figures[name].append(contestants[name]())
            note(f"  round {number + 1}: {name} {figures[name][-1]['seconds']:.2f} s")
    return figures


def ratio(figures: Mapping[str, list[dict[str, Any]]], one: str, other: str, of: str = "seconds") -> float:
    """Return the median over the rounds of *one*'s figure divided by *other*'s."""
    return statistics.median(float(a[of] / b[of]) for a, b in zip(figures[one], figures[other], strict=True))


def shown(figures: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures for the machine-readable result."""
    return {
        name: {
            "median_seconds": statistics.median(run["seconds"] for run in runs),
            "seconds": [round(run["seconds"], 4) for run in runs],
            "cpu_seconds": [round(run["cpu_seconds"], 4) for run in runs],
            **(
                {"peak_mib_above_idle": round(max(run["peak_above_idle"] for run in runs) / 2**20, 1)}
                if "peak_above_idle" in runs[0]
                else {}
            ),
        }
        for name, runs in figures.items()
    }


@contextlib.contextmanager
def in_memory(default: Path | str | None) -> Iterator[Path]:
    """
    Give a folder in memory, or below *default* where a machine has none such, and take it away.

    For what an S3 server writes: with many small files ext4 takes longer over an inode than the client over a request.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="amili-benchmarks-", dir=memory if memory.is_dir() else default) as folder:
        yield Path(folder)


@contextlib.contextmanager
def database(path: str | None = None) -> Iterator[int]:
    """
    Run a PostgreSQL server that writes to the disk as in earnest; yields its port.

    :param path: folder for its own folder; default: the temporary one.
    """
    with tempfile.TemporaryDirectory(prefix="amili-benchmarks-", dir=path) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL refuses to be root, and another user has to look into it
        with postgres(Path(folder, "postgres"), "fsync=on") as port:
            yield port


def note(text: str) -> None:
    """Say how far it is, on the standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a long command


def make_file(path: Path, size: int) -> Path:
    """Write *size* bytes that do not compress and never repeat a block of a MiB."""
    if not path.exists() or path.stat().st_size != size:
        block = bytearray(os.urandom(1024 * 1024))
        with path.open("wb") as out:
            for number in range(-(-size // len(block))):
                block[:8] = number.to_bytes(8, "big")
                out.write(block[: size - number * len(block)])
    return path


def make_body(path: Path, content: Path) -> Path:
    """Write the request that uploads *content*, ready to be sent."""
    with path.open("wb") as out, content.open("rb") as source:
        out.write(b'{"files": [{"type": "InvoiciaFormatDocFile", "name": "big.csv", "content": "')
        while block := source.read(3 * 1024 * 1024):
            out.write(base64.b64encode(block))
        out.write(b'", "fileId": "one"}]}')
    return path


def make_files(folder: Path, number: int, size: int) -> Path:
    """Write *number* different files of *size* bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    block = os.urandom(size)
    for index in range(len(list(folder.iterdir())), number):
        (folder / f"invoice_{index:06d}.csv").write_bytes(index.to_bytes(8, "big") + block[8:])
    return folder
