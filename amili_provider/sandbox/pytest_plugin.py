"""
The fixture ``amili_sandbox``, for the tests of people who write DAGs with this package.

Opt in with ``pytest_plugins = ["amili_provider.sandbox.pytest_plugin"]`` in the top-most ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amili_provider.sandbox.server import SandboxServer

CONNECTION_VARIABLE = "AIRFLOW_CONN_AMILI_DEFAULT"


@pytest.fixture(scope="session", name="_amili_sandbox_server")
def _server() -> Iterator[SandboxServer]:
    """Start one server for the session; that costs more than most tests."""
    with SandboxServer() as server:
        yield server


@pytest.fixture(name="amili_sandbox")
def _amili_sandbox(
    _amili_sandbox_server: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SandboxServer]:
    """Give a fresh local Amili and ledger, to which the connection ``amili_default`` points while the test runs."""
    from amili_provider.ledger.opening import create_in_file  # imports Airflow

    _amili_sandbox_server.reset()
    # Not among the files that the test uploads.
    ledger = create_in_file(tmp_path_factory.mktemp("amili-ledger") / "ledger.db")
    monkeypatch.setenv(CONNECTION_VARIABLE, _amili_sandbox_server.connection_json(ledger=ledger))
    yield _amili_sandbox_server
    _amili_sandbox_server.reset()
