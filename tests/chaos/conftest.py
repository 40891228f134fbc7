"""Places to play: built once for all tests of this ring."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amili_provider.ledger.opening import create_in_file
from amili_provider.sandbox.server import SandboxServer
from tests.chaos import station

Worker = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session", name="chaos_home")
def _chaos_home() -> Iterator[Path]:
    """An Airflow home whose database is ready; lanes copy it."""
    home = station.new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session", name="forge")
def _forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[station.Station]:
    """A process that forks workers."""
    forge = station.Station(tmp_path_factory.mktemp("forge"), "forge", module="tests.chaos.forge")
    yield forge
    forge.close()


class Place:
    """
    A folder of files, a ledger and a sandbox, and workers to deliver from one to the other.

    :param forge: forks the workers.
    :param sandbox: the other end.
    :param folder: for files and ledger.
    """

    def __init__(self, forge: station.Station, sandbox: SandboxServer, folder: Path) -> None:
        self._forge = forge
        self.sandbox = sandbox
        self.folder = folder
        self.extras: dict[str, Any] = {"answer_timeout": 10}
        self._rooms = 0

    def begin(self, **files: bytes) -> None:
        """Begin anew: other files, an empty ledger, a sandbox that has forgotten everything."""
        self._rooms += 1
        self.room = self.folder / str(self._rooms)
        (self.room / "outbound").mkdir(parents=True)
        for name, content in files.items():
            (self.room / "outbound" / f"{name}.csv").write_bytes(content)
        self.ledger = create_in_file(self.room / "ledger.db")
        self.sandbox.reset()

    def request(self, run_id: str, *, later: bool = False, **more: Any) -> dict[str, Any]:
        """Return what a worker is to do."""
        max_tries = more.pop("max_tries", 0)
        plan = more.pop("plan", {})
        connection = self.sandbox.connection_json(ledger=self.ledger, **self.extras)
        return {
            "run_id": run_id,
            "max_tries": max_tries,
            "plan": {"environment": {"AIRFLOW_CONN_AMILI_DEFAULT": connection}, "clock": 3600.0 * later, **plan},
            "arguments": {"source": f"{self.room}/outbound/*", "file_type": "InvoiciaFormatDocFile", **more},
        }

    def work(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Run workers at the same time, and wait until the sandbox is done with what they left behind."""
        ended: list[dict[str, Any]] = self._forge.ask("run", runs=list(requests))
        assert self.sandbox.wait_until_idle(10.0)
        return ended

    def run(self, run_id: str, **more: Any) -> dict[str, Any]:
        """Run one worker; see :meth:`request`."""
        return self.work(self.request(run_id, **more))[0]

    @property
    def accepted(self) -> list[str]:
        """The names of what the sandbox has accepted, in order."""
        return sorted(upload.name for upload in self.sandbox.uploads)


@pytest.fixture(name="place")
def _place(forge: station.Station, tmp_path: Path) -> Iterator[Place]:
    """A place with a sandbox of its own."""
    with SandboxServer() as sandbox:
        yield Place(forge, sandbox, tmp_path)
