"""Many processes on one ledger, and processes that are killed while they claim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amili_provider.ledger.attempts import Attempt, AttemptState
from amili_provider.ledger.stores import LedgerStore, Query
from amili_provider.receipts import Outcome
from tests.ledger_cases import ACCEPTED, Clock, an_attempt, facts, file_id_of, memory_ledger
from tests.storage.backends.ledgers import CONN_ID, LedgerHome, Server
from tests.storage.ledger_workers import REQUEST, content_of
from tests.storage.test_ledger_contract import _home, _server, _store, _until  # noqa: F401 - fixtures

_ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


def _run(home: LedgerHome, what: str, folder: Path, amount: int) -> None:
    conn_id = CONN_ID if home.connection() is not None else ""
    subprocess.run(
        [sys.executable, "-m", "tests.storage.ledger_workers", what, home.named, conn_id, str(folder), str(amount)],
        check=True,
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        timeout=600,
    )


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb", "s3-seaweed"], indirect=True)
def test_of_sixteen_processes_one_has_each_file(home: LedgerHome, store: LedgerStore, tmp_path: Path) -> None:
    """The same 400 files, each process in an order of its own: every file is claimed, once, and accepted once."""
    _run(home, "race", tmp_path, 16)
    won = [json.loads((tmp_path / f"{n}.json").read_text()) for n in range(16)]
    ids = [file_id for ids in won for file_id in ids]
    assert len(ids) == len(set(ids)) == 400
    kept = list(store.history(Query()))
    assert sorted((a.file_id, a.attempt, a.outcome) for a in kept) == sorted((i, 1, Outcome.UPLOADED) for i in ids)


@pytest.mark.parametrize("server", ["sqlite", "postgres"], indirect=True)
def test_a_killed_process_leaves_no_request_half_claimed(home: LedgerHome, store: LedgerStore, tmp_path: Path) -> None:
    """Twelve SIGKILLs, wherever they hit: of each request all files are claimed or none, and settled or none."""
    _run(home, "kill", tmp_path, 12)
    if isinstance(home, Server):
        store.close()
        _until(lambda: home.open_connections() == 0)  # the server has seen that they are dead
    ledger = memory_ledger(Clock())  # who the files are
    claimed = 0
    for round_ in range(12):
        for request in range(int((tmp_path / f"{round_}.json").read_text()) + 1):
            ids = [file_id_of(ledger, facts(content_of(round_, request, n))) for n in range(REQUEST)]
            found = store.look_up("staging", "10042", ids).attempts
            assert len(found) in (0, REQUEST), (round_, request)
            states = {(a.state, a.outcome) for known in found.values() for a in known}
            assert len(states) <= 1, (round_, request)
            assert states <= {(AttemptState.CLAIMED, None), (AttemptState.SETTLED, Outcome.UPLOADED)}
            claimed += bool(found)
    assert claimed > 12, "some requests were claimed before the kill"


@pytest.mark.parametrize("server", ["postgres", "mariadb"], indirect=True)
def test_a_thousand_tasks_that_wait_for_amili_hold_no_connection(home: LedgerHome, store: LedgerStore) -> None:
    """Each has a store of its own, as mapped tasks have, and a claim; the server lets in two hundred connections."""
    assert isinstance(home, Server)
    store.close()
    attempts = [an_attempt(f"{number}".encode()) for number in range(1000)]
    stores = [home.store() for _ in attempts]

    def claim(its: LedgerStore, attempt: Attempt) -> None:
        its.open()
        its.look_up("staging", "10042", [attempt.file_id])
        assert its.claim([attempt], 600) == set()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(claim, stores, attempts))
        _until(lambda: home.open_connections() == 0)
        for attempt in attempts:
            attempt.settle(ACCEPTED)
        list(pool.map(lambda its, attempt: its.settle([attempt]), stores, attempts))
    _until(lambda: home.open_connections() == 0)
    assert {a.outcome for a in home.store().history(Query())} == {Outcome.UPLOADED}
