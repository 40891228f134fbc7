"""Rings: the directory of a test says what it may touch. The environment is set before Airflow is imported."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A machine that pauses is no failure of a property; and a failure shows up for whoever runs the tests next.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

pytest_plugins = ["amili_provider.sandbox.pytest_plugin", "tests.patience"]

# The slowest first: where processes share the tests, none is left alone with a slow one at the end.
RINGS = ("dags", "chaos", "storage", "wire", "unit")
_HERE = Path(__file__).parent

# Airflow reads its configuration when it is first imported: a home of our own, and nothing from the developer's.
_HOME = tempfile.mkdtemp(prefix="amili-tests-airflow-")
for _name in [n for n in os.environ if n.startswith(("AIRFLOW_", "AWS_", "AIRFLOW__"))]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(_HERE.parent / "example_dags"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=f"{_HOME}/logs",
)
if sys.dont_write_bytecode:
    # Dozens of processes import Airflow: where no bytecode may be kept, it is kept until the tests end.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = f"{_HOME}/bytecode"


_SERVER = re.compile(
    r"^tests/storage/.*\[(?:.*-)?(file|s3|gs|abfs|sftp|ftps|ftp-list|ftp|smb|postgres|mariadb)(?:-.*)?\]$"
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With pytest-xdist, tests of one file are run by one process, those of one storage server too: it starts once."""
    from xdist.scheduler import LoadScopeScheduling

    def server_or_file(nodeid: str) -> str:
        server = _SERVER.match(nodeid)
        return server[1] if server else nodeid.partition("::")[0]

    # In the order of the rings, not by the number of tests.
    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = server_or_file
    return scheduler


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test the marker of its ring; a test without a ring is an error."""
    for item in items:
        ring = item.path.relative_to(_HERE).parts[0]
        if ring not in RINGS:
            raise pytest.UsageError(f"{item.nodeid} is in no ring: move it to one of tests/{{{','.join(RINGS)}}}.")
        item.add_marker(ring)
        if ring == "chaos":
            item.add_marker("long")
    if hasattr(config, "workerinput"):
        # And in a ring the files with most tests.
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (RINGS.index(item.path.relative_to(_HERE).parts[0]), -tests[item.path]))


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_sockets_in_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that opens a connection fails."""
    if "unit" in request.node.keywords:

        def refuse(_self: socket.socket, address: Any) -> None:
            raise AssertionError(f"a unit test connects to {address}")

        monkeypatch.setattr(socket.socket, "connect", refuse)
