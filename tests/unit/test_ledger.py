"""The ledger over real files: look up, claim, settle, resolve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import Claim, ClaimLost, Ledger, SetAside, SettlingFailed, State
from amili_provider.ledger.local_folder import LocalFolder
from amili_provider.ledger.records import Origin
from amili_provider.models import Outcome, Verdict
from tests.ledger_cases import (
    ACCEPTED,
    LOST,
    NOT_SENT,
    REFUSED,
    Clock,
    Run,
    facts,
    file_id_of,
    ledger_over,
    local_ledger,
    other_run,
)


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return local_ledger(tmp_path / "ledger", clock)


def _claim(ledger: Ledger, content: bytes = b"invoice 1", run: Run | None = None, **look: Any) -> Claim:
    claim = facts(content, run=run)
    standing = ledger.look_up(file_id_of(ledger, claim), chain=claim.run.chain, **look)
    return ledger.claim(standing, claim)


def test_an_accepted_file_is_uploaded_for_ever(ledger: Ledger, clock: Clock) -> None:
    """The promise: what Amili accepted is known to every later run, with the first receipt."""
    ledger.settle(_claim(ledger), ACCEPTED)
    clock.now += 10 * 365 * 86400
    standing = ledger.look_up(file_id_of(ledger, facts()))
    assert standing.state is State.UPLOADED
    first = standing.first_receipt
    assert first is not None
    assert (first.name, first.source, first.status, first.result, first.dag_id, first.run_id) == (
        "invoice.csv",
        "s3://invoices/invoice.csv",
        "PROCESSED",
        "CREATED",
        "etl",
        "2026-11-22",
    )
    assert first.uploaded_at is not None


def test_a_live_claim_is_in_flight_and_an_expired_one_unknown(ledger: Ledger, clock: Clock) -> None:
    """A claim outlives every bound of its owner: claiming, the answer, settling, and clocks that differ."""
    claim = _claim(ledger)
    clock.now += 30 + 600 + 60 + 29.9
    assert ledger.look_up(claim.file_id).state is State.IN_FLIGHT
    clock.now += 0.2
    assert ledger.look_up(claim.file_id).state is State.UNKNOWN


@pytest.mark.parametrize(("verdict", "state"), [(REFUSED, State.FREE), (NOT_SENT, State.FREE), (LOST, State.UNKNOWN)])
def test_how_an_attempt_ends_decides_what_comes_next(ledger: Ledger, verdict: Verdict, state: State) -> None:
    """Refused and not sent: may be sent again. Lost: unknown at once, without waiting for the claim to expire."""
    claim = _claim(ledger)
    receipt = ledger.settle(claim, verdict)
    assert ledger.look_up(claim.file_id).state is state
    assert receipt.uploaded_at is None


def test_each_attempt_is_a_receipt_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    """History is kept: nothing is replaced by a later attempt."""
    for verdict in (REFUSED, NOT_SENT, ACCEPTED):
        ledger.settle(_claim(ledger), verdict)
    written = sorted(p for p in (tmp_path / "ledger").rglob("*") if p.is_file())
    assert [p.name.split(".", 1)[1] for p in written] == ["1.json", "2.json", "3.json"]
    assert [json.loads(p.read_bytes())["outcome"] for p in written] == ["rejected", "not_sent", "uploaded"]
    assert written[0].relative_to(tmp_path / "ledger").parts[:2] == ("staging", "10042")
    assert ledger.receipt_url(file_id_of(ledger, facts()), 1) == written[0].as_uri()


def test_an_unknown_file_cannot_be_claimed(ledger: Ledger) -> None:
    """Not even by a caller who forgot to look at the state."""
    ledger.settle(_claim(ledger), LOST)
    with pytest.raises(ClaimLost) as lost:
        _claim(ledger)
    assert [s.state for s in lost.value.standings.values()] == [State.UNKNOWN]


def test_environment_client_and_type_are_apart(tmp_path: Path, clock: Clock) -> None:
    """What was accepted in staging is still sent in production, and another client's bytes are another file."""
    with local_ledger(tmp_path, clock) as staging:
        staging.settle(_claim(staging), ACCEPTED)
    for settings in ({"environment": "production"}, {"client_no": "10043"}):
        with local_ledger(tmp_path, clock, **settings) as other:
            assert other.look_up(file_id_of(other, facts())).state is State.FREE
    with local_ledger(tmp_path, clock, client_no=" 10042 ") as same:
        assert same.look_up(file_id_of(same, facts())).state is State.UPLOADED


def test_force_sends_once_more_and_its_retry_does_not(ledger: Ledger) -> None:
    """Force sets aside what older chains did; its own attempt it knows again."""
    ledger.settle(_claim(ledger), ACCEPTED)
    forced = other_run(2)
    ledger.settle(_claim(ledger, run=forced, set_aside=SetAside.EVERYTHING), ACCEPTED)
    with pytest.raises(ClaimLost):
        _claim(ledger, run=forced, set_aside=SetAside.EVERYTHING)
    ledger.settle(_claim(ledger, run=other_run(3), set_aside=SetAside.EVERYTHING), ACCEPTED)


def test_resend_sends_once_more_and_its_retry_does_not(ledger: Ledger) -> None:
    """A second lost answer is not resent by the retry of the run that was told to resend."""
    ledger.settle(_claim(ledger), LOST)
    resending = other_run(2)
    ledger.settle(_claim(ledger, run=resending, set_aside=SetAside.UNKNOWN), LOST)
    with pytest.raises(ClaimLost):
        _claim(ledger, run=resending, set_aside=SetAside.UNKNOWN)


def test_nothing_sets_aside_a_live_claim(ledger: Ledger) -> None:
    """In flight elsewhere stays in flight under every parameter."""
    _claim(ledger)
    for set_aside in SetAside:
        with pytest.raises(ClaimLost):
            _claim(ledger, run=other_run(), set_aside=set_aside)


def test_a_stale_standing_does_not_win(ledger: Ledger) -> None:
    """Two runs look up, both find the file free, and one of them claims it."""
    claim = facts()
    standing = ledger.look_up(file_id_of(ledger, claim))
    ledger.claim(standing, claim)
    with pytest.raises(ClaimLost) as lost:
        ledger.claim(standing, facts(run=other_run()))
    assert lost.value.standings[standing.file_id].state is State.IN_FLIGHT


def test_what_a_request_could_claim_stays_claimed_when_it_lost_a_file(ledger: Ledger) -> None:
    """One file that somebody else has: the others are ours, for the request without it."""
    contents = [f"invoice {n}".encode() for n in range(20)]
    wanted = [(ledger.look_up(file_id_of(ledger, facts(c))), facts(c)) for c in contents]
    taken = ledger.claim(*wanted[7])
    with pytest.raises(ClaimLost) as lost:
        ledger.claim_all(wanted)
    assert list(lost.value.standings) == [taken.file_id]
    kept = lost.value.claims
    assert [claim.file_id for claim in kept] == [s.file_id for s, _ in wanted if s.file_id != taken.file_id]
    ledger.settle_all([(claim, ACCEPTED) for claim in kept])
    states = [s.state for s in ledger.look_up_all(s.file_id for s, _ in wanted)]
    assert states == [State.UPLOADED] * 7 + [State.IN_FLIGHT] + [State.UPLOADED] * 12


def test_many_are_looked_up_in_order(ledger: Ledger) -> None:
    """Looking up in parallel answers in the order of the question, and works on a stream of ids."""
    contents = [f"invoice {n}".encode() for n in range(200)]
    ids = [file_id_of(ledger, facts(c)) for c in contents]
    for c in contents[::3]:
        ledger.settle(_claim(ledger, c), ACCEPTED)
    standings = list(ledger.look_up_all(iter(ids)))
    assert [s.file_id for s in standings] == ids
    assert [s.state is State.UPLOADED for s in standings] == [n % 3 == 0 for n in range(200)]


@pytest.mark.parametrize(
    ("found", "state"), [(ACCEPTED, State.UPLOADED), (REFUSED, State.FREE), (NOT_SENT, State.FREE)]
)
def test_what_was_found_out_later_settles_an_unknown(ledger: Ledger, found: Verdict, state: State) -> None:
    """A check or a person writes a receipt of its own; the attempt itself stays as it was."""
    ledger.settle(_claim(ledger), LOST)
    standing = ledger.look_up(file_id_of(ledger, facts()))
    receipt = ledger.resolve(standing, found, facts(), origin=Origin.PERSON, settled_by="kari", reason="saw it")
    assert (receipt.attempt, receipt.resolves, receipt.settled_by) == (2, (1,), "kari")
    assert ledger.look_up(standing.file_id).state is state


def test_a_resolution_yields_to_whoever_was_faster(ledger: Ledger) -> None:
    """Two people settle the same file: the second is told, and changes nothing."""
    ledger.settle(_claim(ledger), LOST)
    standing = ledger.look_up(file_id_of(ledger, facts()))
    ledger.resolve(standing, ACCEPTED, facts())
    with pytest.raises(ClaimLost):
        ledger.resolve(standing, NOT_SENT, facts())
    assert ledger.look_up(standing.file_id).state is State.UPLOADED


def test_a_live_claim_is_not_resolved(ledger: Ledger) -> None:
    """Whoever may still be sending cannot be declared dead."""
    _claim(ledger)
    with pytest.raises(ClaimLost):
        ledger.resolve(ledger.look_up(file_id_of(ledger, facts())), NOT_SENT, facts())


def test_wrong_endings_are_bugs(ledger: Ledger) -> None:
    """An attempt cannot end as 'skipped', and an unknown outcome settles nothing."""
    claim = _claim(ledger)
    with pytest.raises(ValueError, match="skipped"):
        ledger.settle(claim, Verdict(Outcome.SKIPPED))
    ledger.settle(claim, LOST)
    with pytest.raises(ValueError, match="resolves nothing"):
        ledger.resolve(ledger.look_up(claim.file_id), LOST, facts())


def test_a_receipt_that_is_being_written_is_no_torn_one(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some storages show it empty for a moment; set aside as torn, an accepted file would be sent again."""
    ledger.settle(_claim(ledger, b"1"), ACCEPTED)
    file_id = file_id_of(ledger, facts(b"1"))
    path = tmp_path / "ledger" / ledger.receipt_url(file_id, 1).split("/ledger/")[1]
    whole = path.read_bytes()
    path.write_bytes(b"")
    monkeypatch.setattr(ledger._attempts, "_sleep", lambda _: path.write_bytes(whole))
    standing = ledger.look_up(file_id, chain="another", set_aside=SetAside.UNKNOWN)
    assert standing.state is State.UPLOADED


def test_a_torn_receipt_concerns_its_file_only(ledger: Ledger, tmp_path: Path) -> None:
    """At every length of the torn text: this file is unknown, its neighbour is not."""
    ledger.settle(_claim(ledger, b"torn"), ACCEPTED)
    ledger.settle(_claim(ledger, b"whole"), ACCEPTED)
    torn = file_id_of(ledger, facts(b"torn"))
    path = tmp_path / "ledger" / ledger.receipt_url(torn, 1).split("/ledger/")[1]
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert ledger.look_up(torn).state is State.UNKNOWN
    assert ledger.look_up(file_id_of(ledger, facts(b"whole"))).state is State.UPLOADED
    ledger.resolve(ledger.look_up(torn), ACCEPTED, facts(b"torn"))
    assert ledger.look_up(torn).state is State.UPLOADED


class _Troubled(LocalFolder):
    """A folder whose writes fail or take long, as often as it is told."""

    fail_writes = 0
    fail_names: tuple[str, ...] = ()
    before_write: Callable[[], None] = staticmethod(lambda: None)
    after_create = 0

    def _trouble(self, name: str) -> None:
        self.before_write()
        if self.fail_writes > 0 and (not self.fail_names or name.endswith(self.fail_names)):
            self.fail_writes -= 1
            raise OSError(5, "Input/output error")

    def _create(self, name: str, data: bytes) -> None:
        self._trouble(name)
        super()._create(name, data)
        if self.after_create > 0:
            self.after_create -= 1
            raise TimeoutError("the answer was lost")

    def _replace(self, name: str, data: bytes) -> None:
        self._trouble(name)
        super()._replace(name, data)


@pytest.fixture(name="troubled")
def _troubled(tmp_path: Path, clock: Clock) -> _Troubled:
    folder = _Troubled(str(tmp_path / "ledger"), (tmp_path / "ledger").as_uri(), sleep=clock.sleep)
    folder.probe()
    return folder


def test_a_ledger_that_cannot_be_written_claims_nothing(troubled: _Troubled, clock: Clock) -> None:
    """No claim, so no tail is released; what the others of the request had is given back."""
    ledger = ledger_over(troubled, clock)
    wanted = [(ledger.look_up(file_id_of(ledger, facts(c))), facts(c)) for c in (b"1", b"2", b"3")]
    troubled.fail_writes, troubled.fail_names = 99, (f"{wanted[1][0].file_id}.1.json",)
    with pytest.raises(AmiliLedgerUnavailable, match=r"cannot write .*Input/output error"):
        ledger.claim_all(wanted)
    troubled.fail_writes = 0
    assert [s.state for s in ledger.look_up_all(s.file_id for s, _ in wanted)] == [State.FREE] * 3


def test_a_passing_trouble_is_waited_out(troubled: _Troubled, clock: Clock) -> None:
    """Two failures of a write do not stop a delivery."""
    ledger = ledger_over(troubled, clock)
    troubled.fail_writes = 2
    ledger.settle(_claim(ledger), ACCEPTED)
    assert clock.slept == [0.2, 1.0]


def test_a_claim_whose_answer_was_lost_is_known_again(troubled: _Troubled, clock: Clock) -> None:
    """Written, but the answer was lost: the repetition is refused, and the owner inside says that it is ours."""
    ledger = ledger_over(troubled, clock)
    troubled.after_create = 1
    claim = _claim(ledger)
    assert ledger.look_up(claim.file_id).state is State.IN_FLIGHT


def test_a_claim_that_took_too_long_releases_nothing(troubled: _Troubled, clock: Clock) -> None:
    """Somebody else could soon take the claim for dead, so it is given back."""
    ledger = ledger_over(troubled, clock)
    troubled.before_write = lambda: clock.sleep(31)
    with pytest.raises(AmiliLedgerUnavailable, match="longer than is safe"):
        _claim(ledger)
    troubled.before_write = lambda: None
    assert ledger.look_up(file_id_of(ledger, facts())).state is State.FREE


def test_the_margin_is_checked_again_before_the_tail(ledger: Ledger, clock: Clock) -> None:
    """A worker that was held up after claiming does not release the tail."""
    claim = _claim(ledger)
    clock.now += 30
    ledger.check_margin([claim])
    clock.now += 0.1
    with pytest.raises(AmiliLedgerUnavailable):
        ledger.check_margin([claim])


def test_an_outcome_is_tried_to_be_written_for_a_bounded_time(troubled: _Troubled, clock: Clock) -> None:
    """After a minute the run is told which outcomes are not in the ledger; they will read as unknown."""
    ledger = ledger_over(troubled, clock)
    claims = [_claim(ledger, c) for c in (b"1", b"2")]
    troubled.fail_writes, troubled.fail_names = 10_000, (f"{claims[1].file_id}.1.json",)
    began = clock.now
    with pytest.raises(SettlingFailed, match="1 file") as failed:
        ledger.settle_all([(claim, ACCEPTED) for claim in claims])
    assert failed.value.claims == [claims[1]]
    assert 30 < clock.now - began < 90
    clock.now += 1000
    assert [s.state for s in ledger.look_up_all(c.file_id for c in claims)] == [State.UPLOADED, State.UNKNOWN]


def test_an_outcome_is_written_once_the_ledger_is_back(troubled: _Troubled, clock: Clock) -> None:
    """A ledger that is away for half a minute loses nothing."""
    ledger = ledger_over(troubled, clock)
    claim = _claim(ledger)
    troubled.fail_writes = 9
    ledger.settle(claim, ACCEPTED)
    assert ledger.look_up(claim.file_id).state is State.UPLOADED


def test_a_bug_is_not_a_lost_claim(troubled: _Troubled, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the storage's failure is raised as it is, for one file and for many."""
    ledger = ledger_over(troubled, clock)
    wanted = [(ledger.look_up(file_id_of(ledger, facts(c))), facts(c)) for c in (b"1", b"2")]
    monkeypatch.setattr(troubled, "create", lambda *_: 1 / 0)
    for some in (wanted, wanted[:1]):
        with pytest.raises(ZeroDivisionError):
            ledger.claim_all(some)


@pytest.mark.parametrize("round_", range(20))
def test_of_many_threads_one_gets_the_claim(ledger: Ledger, round_: int) -> None:
    """Threads of one task and tasks of one machine race for the same bytes: exactly one may send."""
    content = f"invoice {round_}".encode()
    standing = ledger.look_up(file_id_of(ledger, facts(content)))
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        try:
            ledger.claim(standing, facts(content, run=other_run(number)))
        except ClaimLost:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1


_RACER = """
import sys
from pathlib import Path
from amili_provider.ledger import ClaimLost
from tests.ledger_cases import Clock, facts, file_id_of, local_ledger, other_run

with local_ledger(Path(sys.argv[1]), Clock()) as ledger:
    contents = [f"invoice {n}".encode() for n in range(200)]
    standings = [ledger.look_up(file_id_of(ledger, facts(c))) for c in contents]
    print("ready", flush=True)
    sys.stdin.readline()
    for content, standing in zip(contents, standings):
        try:
            ledger.claim(standing, facts(content, run=other_run(sys.argv[2])))
        except ClaimLost:
            continue
        print(standing.file_id, flush=True)
"""


def test_of_two_processes_one_gets_each_claim(tmp_path: Path) -> None:
    """Two workers race for 200 files: every file is claimed, and none by both."""
    (tmp_path / "ledger").mkdir()
    command = [sys.executable, "-c", _RACER, str(tmp_path / "ledger")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    racers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for name in ("one", "two")
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = [racer.communicate(timeout=60)[0].split() for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert [racer.returncode for racer in racers] == [0, 0]
    assert len(won[0]) + len(won[1]) == len({*won[0], *won[1]}) == 200
