"""A local Amili on loopback, and the operator against it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from amili_provider.ledger import Claim, Ledger
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import new_ledger


@pytest.fixture(name="outbound")
def _outbound(tmp_path: Path) -> Path:
    """A folder of files to send."""
    folder = tmp_path / "outbound"
    folder.mkdir()
    return folder


Upload = Callable[..., list[dict[str, Any]]]


class FakeTaskInstance:
    """What the operator needs of a task instance, and what it pushed."""

    def __init__(self, *, run_id: str = "run1", max_tries: int = 0, try_number: int = 1) -> None:
        self.dag_id, self.task_id, self.run_id, self.map_index = "dag1", "upload", run_id, -1
        self.max_tries, self.try_number = max_tries, try_number
        self.id = uuid4()
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep what was pushed."""
        self.pushed[key] = value

    def xcom_pull(self, *, task_ids: str, map_indexes: int) -> Any:
        """Return what was pushed by this very task."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.pushed.get("return_value")


@pytest.fixture(name="connect")
def _connect(
    amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., SandboxServer]:
    """Point the connection ``amili_default`` at the sandbox, with a ledger and the given extras."""

    def connect(**extra: Any) -> SandboxServer:
        extra = {"ledger": new_ledger(tmp_path), "answer_timeout": 20, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", amili_sandbox.connection_json(**extra))
        return amili_sandbox

    connect()
    return connect


@pytest.fixture(name="upload")
def _upload(connect: Callable[..., SandboxServer], outbound: Path) -> Upload:
    """Run the operator over the outbound folder and return its receipts, also where it fails."""

    def upload(ti: FakeTaskInstance | None = None, **arguments: Any) -> list[dict[str, Any]]:
        arguments = {"source": f"{outbound}/*", "file_type": "InvoiciaFormatDocFile", **arguments}
        operator = AmiliFileUploadOperator(task_id="upload", **arguments)
        return operator.execute({"ti": ti} if ti else {})  # type: ignore[typeddict-item]

    return upload


@contextmanager
def a_run_that_has_claimed(upload: Upload) -> Iterator[None]:
    """Begin "the first run", and hold it when its claims stand, its tail not yet released; at the end it goes on."""
    claimed, go_on = threading.Event(), threading.Event()
    check_margin = Ledger.check_margin

    def hold(ledger: Ledger, claims: Iterable[Claim]) -> None:
        mine = list(claims)
        check_margin(ledger, mine)
        if mine:
            claimed.set()
            go_on.wait(20)

    first = threading.Thread(target=upload, args=(FakeTaskInstance(run_id="the first run"),))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Ledger, "check_margin", hold)
        first.start()
        try:
            assert claimed.wait(20)
            yield
        finally:
            go_on.set()
            first.join(30)
