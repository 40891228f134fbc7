"""
Workers that share a ledger, as processes: ``python -m tests.storage.ledger_workers race|kill …``.

One process imports everything, and forks the others: sixteen of them cost the import once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from amili_provider.connection.fields import LEDGER_FROM_CONNECTION
from amili_provider.connection.settings import settings_from
from amili_provider.ledger import ClaimLost, Ledger, LedgerState
from amili_provider.ledger.opening import ledger_from
from tests.ledger_cases import ACCEPTED, facts, file_id_of, other_run

REQUEST = 20
"""Files in a request of the worker that is killed."""


def open_ledger(named: str, conn_id: str) -> Ledger:
    """Open the ledger as a task does."""
    extra = {"environment": "staging", "client_no": "10042", "ledger": named}
    extra |= {"ledger_conn_id": conn_id} if conn_id else {}
    settings = settings_from("amili_here", login="id", password="s", host=None, port=None, schema=None, extra=extra)
    ledger = ledger_from(LEDGER_FROM_CONNECTION, settings)
    assert ledger is not None
    return ledger


def race(number: int, folder: Path, ledger: Ledger, files: int) -> None:
    """Deliver whatever of *files* nobody else has, in an order of one's own; write down what was won."""
    contents = [f"invoice {n}".encode() for n in range(files)]
    random.Random(number).shuffle(contents)
    by_id = {file_id_of(ledger, facts(c)): facts(c, run=other_run(number)) for c in contents}
    ids, won = list(by_id), []
    for start in range(0, files, 50):
        known = ledger.look_up(ids[start : start + 50])
        free = [(h, by_id[i]) for i, h in known.items() if h.state is LedgerState.FREE]
        try:
            claims = ledger.claim(free)
        except ClaimLost as lost:
            claims = list(lost.claims)
        ledger.check_margin(claims)
        ledger.settle([(claim, ACCEPTED) for claim in claims])
        won += [claim.file_id for claim in claims]
    (folder / f"{number}.json").write_text(json.dumps(won))


def content_of(round_: int, request: int, file: int) -> bytes:
    """Return a file of the worker that is killed."""
    return f"round {round_}, request {request}, file {file}".encode()


def claim_for_ever(round_: int, ledger: Ledger, ready: int) -> None:
    """Claim request after request, and settle every second one, until somebody kills us."""
    for request in count():
        contents = [content_of(round_, request, n) for n in range(REQUEST)]
        known = ledger.look_up([file_id_of(ledger, facts(c)) for c in contents])
        os.write(ready, b".")
        claims = ledger.claim([(known[file_id_of(ledger, facts(c))], facts(c)) for c in contents])
        if request % 2:
            ledger.settle([(claim, ACCEPTED) for claim in claims])


def fork(work: Callable[[], None]) -> int:
    """Do *work* in a process of its own; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the end of this process
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def main() -> None:
    """Run the workers; fail if one of them fails on its own."""
    what, named, conn_id, folder, amount = *sys.argv[1:4], Path(sys.argv[4]), int(sys.argv[5])
    if what == "race":
        ready, tell = os.pipe()
        go, start = os.pipe()

        def racing(number: int) -> None:
            os.close(start)
            with open_ledger(named, conn_id) as ledger:
                os.write(tell, b".")
                os.read(go, 1)  # nothing: it ends when the pipe is closed
                race(number, folder, ledger, 400)
            os.close(tell)

        workers = [fork(lambda n=n: racing(n)) for n in range(amount)]  # type: ignore[misc]
        os.close(tell)
        for _ in workers:
            os.read(ready, 1)
        os.close(start)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
        sys.exit(any(codes))
    for round_ in range(amount):
        begun, ready = os.pipe()
        pid = fork(lambda r=round_, w=ready: claim_for_ever(r, open_ledger(named, conn_id), w))  # type: ignore[misc]
        os.close(ready)
        seen = len(os.read(begun, 1))
        time.sleep(random.Random(round_).uniform(0, 0.4))
        os.kill(pid, signal.SIGKILL)
        while data := os.read(begun, 65536):
            seen += len(data)
        os.close(begun)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            sys.exit(1)
        (folder / f"{round_}.json").write_text(str(seen))


if __name__ == "__main__":
    main()
