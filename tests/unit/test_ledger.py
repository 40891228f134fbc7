"""The ledger on a store in memory: look up, claim, settle, resolve."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import Attempt, Claim, ClaimLost, Disregard, History, Ledger, LedgerState, SettlingFailed
from amili_provider.ledger.attempts import Origin, Run
from amili_provider.ledger.stores import MemoryStore, Query
from amili_provider.receipts import Outcome, Verdict
from tests.ledger_cases import (
    ACCEPTED,
    LOST,
    NOT_SENT,
    REFUSED,
    Clock,
    facts,
    file_id_of,
    ledger_over,
    memory_ledger,
    other_run,
)


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ledger")
def _ledger(clock: Clock) -> Ledger:
    return memory_ledger(clock)


def _look(ledger: Ledger, content: bytes = b"invoice 1", **look: Any) -> History:
    file_id = file_id_of(ledger, facts(content))
    return ledger.look_up([file_id], **look)[file_id]


def _claim(ledger: Ledger, content: bytes = b"invoice 1", run: Run | None = None, **look: Any) -> Claim:
    claim = facts(content, run=run)
    return ledger.claim([(_look(ledger, content, chain=claim.run.chain, **look), claim)])[0]


def _settle(ledger: Ledger, claim: Claim, verdict: Verdict) -> Attempt:
    return ledger.settle([(claim, verdict)])[0]


def _states(ledger: Ledger, contents: Sequence[bytes]) -> list[LedgerState]:
    return [_look(ledger, content).state for content in contents]


def test_an_accepted_file_is_uploaded_for_ever(ledger: Ledger, clock: Clock) -> None:
    """The promise: what Amili accepted is known to every later run, with the attempt that did it."""
    _settle(ledger, _claim(ledger), ACCEPTED)
    clock.now += 10 * 365 * 86400
    known = _look(ledger)
    assert known.state is LedgerState.UPLOADED
    first = known.deciding
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
    _claim(ledger)
    clock.now += 30 + 600 + 60 + 29.9
    assert _look(ledger).state is LedgerState.IN_FLIGHT
    clock.now += 0.2
    assert _look(ledger).state is LedgerState.UNKNOWN


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(REFUSED, LedgerState.FREE), (NOT_SENT, LedgerState.FREE), (LOST, LedgerState.UNKNOWN)],
)
def test_how_an_attempt_ends_decides_what_comes_next(ledger: Ledger, verdict: Verdict, state: LedgerState) -> None:
    """Refused and not sent: may be sent again. Lost: unknown at once, without waiting for the claim to expire."""
    attempt = _settle(ledger, _claim(ledger), verdict)
    assert _look(ledger).state is state
    assert attempt.uploaded_at is None


def test_each_attempt_is_kept(ledger: Ledger) -> None:
    """Nothing is replaced by a later attempt."""
    for verdict in (REFUSED, NOT_SENT, ACCEPTED):
        _settle(ledger, _claim(ledger), verdict)
    kept = _look(ledger).attempts
    assert [(a.attempt, str(a.outcome)) for a in kept] == [(1, "rejected"), (2, "not_sent"), (3, "uploaded")]


def test_an_unknown_file_cannot_be_claimed(ledger: Ledger) -> None:
    """Not even by a caller who forgot to look at the state."""
    _settle(ledger, _claim(ledger), LOST)
    with pytest.raises(ClaimLost) as lost:
        _claim(ledger)
    assert [known.state for known in lost.value.histories.values()] == [LedgerState.UNKNOWN]


def test_environment_client_and_type_are_apart(ledger: Ledger, clock: Clock) -> None:
    """What was accepted in staging is still sent in production, and another client's bytes are another file."""
    _settle(ledger, _claim(ledger), ACCEPTED)
    for settings in ({"environment": "production"}, {"client_no": "10043"}):
        assert _look(ledger_over(ledger.store, clock, **settings)).state is LedgerState.FREE
    another_type = ledger.file_id("AnotherType", facts().sha256)
    assert ledger.look_up([another_type])[another_type].state is LedgerState.FREE


def test_force_sends_once_more_and_its_retry_does_not(ledger: Ledger) -> None:
    """Force sets aside what older chains did; its own attempt it knows again."""
    _settle(ledger, _claim(ledger), ACCEPTED)
    forced = other_run(2)
    _settle(ledger, _claim(ledger, run=forced, disregard=Disregard.EVERYTHING), ACCEPTED)
    with pytest.raises(ClaimLost):
        _claim(ledger, run=forced, disregard=Disregard.EVERYTHING)
    _settle(ledger, _claim(ledger, run=other_run(3), disregard=Disregard.EVERYTHING), ACCEPTED)


def test_resend_sends_once_more_and_its_retry_does_not(ledger: Ledger) -> None:
    """A second lost answer is not resent by the retry of the run that was told to resend."""
    _settle(ledger, _claim(ledger), LOST)
    resending = other_run(2)
    _settle(ledger, _claim(ledger, run=resending, disregard=Disregard.UNKNOWN), LOST)
    with pytest.raises(ClaimLost):
        _claim(ledger, run=resending, disregard=Disregard.UNKNOWN)


def test_nothing_sets_aside_a_live_claim(ledger: Ledger) -> None:
    """In flight elsewhere stays in flight under every parameter."""
    _claim(ledger)
    for disregard in Disregard:
        with pytest.raises(ClaimLost):
            _claim(ledger, run=other_run(), disregard=disregard)


def test_an_old_look_up_does_not_win(ledger: Ledger) -> None:
    """Two runs look up, both find the file free, and one of them claims it."""
    known = _look(ledger)
    ledger.claim([(known, facts())])
    with pytest.raises(ClaimLost) as lost:
        ledger.claim([(known, facts(run=other_run()))])
    assert lost.value.histories[known.file_id].state is LedgerState.IN_FLIGHT


def test_what_a_request_could_claim_stays_claimed_when_it_lost_a_file(ledger: Ledger) -> None:
    """One file that somebody else has: the others are ours, for the request without it."""
    contents = [f"invoice {n}".encode() for n in range(20)]
    wanted = [(_look(ledger, c), facts(c)) for c in contents]
    (taken,) = ledger.claim([wanted[7]])
    with pytest.raises(ClaimLost) as lost:
        ledger.claim(wanted)
    assert list(lost.value.histories) == [taken.file_id]
    kept = lost.value.claims
    assert [claim.file_id for claim in kept] == [h.file_id for h, _ in wanted if h.file_id != taken.file_id]
    ledger.settle([(claim, ACCEPTED) for claim in kept])
    uploaded = LedgerState.UPLOADED
    assert _states(ledger, contents) == [uploaded] * 7 + [LedgerState.IN_FLIGHT] + [uploaded] * 12


def test_a_request_of_nothing_asks_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no claim, no outcome: the store is left alone."""
    for method in ("claim", "settle"):
        monkeypatch.setattr(ledger.store, method, lambda *_: pytest.fail("asked"))
    assert ledger.claim([]) == []
    assert ledger.settle([]) == []
    assert ledger.overtaken([]) == {}


@pytest.mark.parametrize(
    ("found", "state"),
    [(ACCEPTED, LedgerState.UPLOADED), (REFUSED, LedgerState.FREE), (NOT_SENT, LedgerState.FREE)],
)
def test_what_was_found_out_later_settles_an_unknown(ledger: Ledger, found: Verdict, state: LedgerState) -> None:
    """A check or a person makes an attempt of its own; the earlier one stays as it was."""
    _settle(ledger, _claim(ledger), LOST)
    attempt = ledger.resolve(_look(ledger), found, facts(), origin=Origin.PERSON, settled_by="kari", reason="saw it")
    assert (attempt.attempt, attempt.resolves, attempt.settled_by) == (2, (1,), "kari")
    known = _look(ledger)
    assert known.state is state
    assert known.attempts[0].outcome is Outcome.UNKNOWN


def test_a_resolution_yields_to_whoever_was_faster(ledger: Ledger) -> None:
    """Two people settle the same file: the second is told, and changes nothing."""
    _settle(ledger, _claim(ledger), LOST)
    known = _look(ledger)
    ledger.resolve(known, ACCEPTED, facts())
    with pytest.raises(ClaimLost):
        ledger.resolve(known, NOT_SENT, facts())
    assert _look(ledger).state is LedgerState.UPLOADED


def test_a_live_claim_is_not_resolved(ledger: Ledger) -> None:
    """Whoever may still be sending cannot be declared dead."""
    _claim(ledger)
    with pytest.raises(ClaimLost):
        ledger.resolve(_look(ledger), NOT_SENT, facts())


def test_a_late_owner_and_a_person_do_not_overwrite_each_other(ledger: Ledger, clock: Clock) -> None:
    """The owner wakes up after a person settled the file: both stand, and the acceptance counts."""
    claim = _claim(ledger)
    clock.now += 1000
    ledger.resolve(_look(ledger), NOT_SENT, facts(), origin=Origin.PERSON, settled_by="kari")
    _settle(ledger, claim, ACCEPTED)
    known = _look(ledger)
    assert [a.outcome for a in known.attempts] == [Outcome.UPLOADED, Outcome.NOT_SENT]
    assert known.state is LedgerState.UPLOADED


def test_who_was_overtaken_while_it_stood_still_is_told(ledger: Ledger, clock: Clock) -> None:
    """Its claim ended before it settled, and another run was told to resend: both may have sent."""
    claim = _claim(ledger)
    clock.now += 1000
    later = _claim(ledger, run=other_run(), disregard=Disregard.UNKNOWN)
    _settle(ledger, claim, ACCEPTED)
    assert ledger.overtaken([claim]) == {claim.file_id: later.attempt.in_short()}
    assert ledger.overtaken([later]) == {}
    _settle(ledger, later, NOT_SENT)
    assert ledger.overtaken([claim]) == {}


def test_who_stood_still_and_cannot_ask_is_told_so(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether another run sent the file is not known then, and that is said of this file only."""
    claim = _claim(ledger)
    clock.now += 1000
    _settle(ledger, claim, ACCEPTED)

    def away(*_: object) -> None:
        raise AmiliLedgerUnavailable("away")

    monkeypatch.setattr(ledger.store, "look_up", away)
    assert ledger.overtaken([claim]) == {claim.file_id: "away"}


def test_wrong_endings_are_bugs(ledger: Ledger) -> None:
    """An attempt cannot end as 'skipped', and an unknown outcome settles nothing."""
    claim = _claim(ledger)
    with pytest.raises(ValueError, match="skipped"):
        _settle(ledger, claim, Verdict(Outcome.SKIPPED))
    _settle(ledger, claim, LOST)
    with pytest.raises(ValueError, match="resolves nothing"):
        ledger.resolve(_look(ledger), LOST, facts())


class _Troubled(MemoryStore):
    """A store that fails or takes long, as often as it is told."""

    fail_claims = fail_settles = 0
    before_claim: Callable[[], None] = staticmethod(lambda: None)

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> AbstractSet[str]:
        """Claim, or fail before anything is written."""
        self.before_claim()
        if self.fail_claims > 0:
            self.fail_claims -= 1
            raise AmiliLedgerUnavailable("the ledger cannot be written: planted")
        return super().claim(attempts, seconds)

    def settle(self, attempts: Sequence[Attempt]) -> None:
        """Settle, or fail before anything is written."""
        if self.fail_settles > 0:
            self.fail_settles -= 1
            raise AmiliLedgerUnavailable("the ledger cannot be written: planted")
        super().settle(attempts)


@pytest.fixture(name="store")
def _store(clock: Clock) -> _Troubled:
    store = _Troubled(clock=clock)
    store.create()
    return store


def test_a_ledger_that_cannot_be_written_claims_nothing(store: _Troubled, clock: Clock) -> None:
    """No claim, so no tail is released, and the files stay free."""
    ledger = ledger_over(store, clock)
    store.fail_claims = 1
    with pytest.raises(AmiliLedgerUnavailable, match="planted"):
        _claim(ledger)
    assert _look(ledger).state is LedgerState.FREE


@pytest.mark.parametrize("settles", [True, False])
def test_a_claim_that_took_too_long_releases_nothing(store: _Troubled, clock: Clock, settles: bool) -> None:
    """Somebody else could soon take the claim for dead, so it is given back; if that fails it ends as unknown."""
    ledger = ledger_over(store, clock)
    store.before_claim = lambda: clock.sleep(31)
    store.fail_settles = 0 if settles else 1
    with pytest.raises(AmiliLedgerUnavailable, match="longer than is safe"):
        _claim(ledger)
    clock.now += 1000
    assert _look(ledger).state is (LedgerState.FREE if settles else LedgerState.UNKNOWN)


def test_a_claim_that_took_too_long_gives_back_what_it_won_only(store: _Troubled, clock: Clock) -> None:
    """Of a request that lost a file and took too long, the other run's claim stays."""
    ledger = ledger_over(store, clock)
    wanted = [(_look(ledger, c), facts(c)) for c in (b"1", b"2")]
    ledger.claim(wanted[:1])
    store.before_claim = lambda: clock.sleep(31)
    with pytest.raises(AmiliLedgerUnavailable, match="longer than is safe"):
        ledger.claim(wanted)
    assert _states(ledger, [b"1", b"2"]) == [LedgerState.IN_FLIGHT, LedgerState.FREE]


def test_the_margin_is_checked_again_before_the_tail(ledger: Ledger, clock: Clock) -> None:
    """A worker that was held up after claiming does not release the tail."""
    claim = _claim(ledger)
    clock.now += 30
    ledger.check_margin([claim])
    clock.now += 0.1
    with pytest.raises(AmiliLedgerUnavailable):
        ledger.check_margin([claim])


def test_an_outcome_is_tried_to_be_written_for_a_bounded_time(store: _Troubled, clock: Clock) -> None:
    """After a minute the run is told which outcomes are not in the ledger; they will read as unknown."""
    ledger = ledger_over(store, clock)
    claims = [_claim(ledger, c) for c in (b"1", b"2")]
    store.fail_settles = 10_000
    began = clock.now
    with pytest.raises(SettlingFailed, match=r"2 file.*planted") as failed:
        ledger.settle([(claim, ACCEPTED) for claim in claims])
    assert failed.value.claims == claims
    assert 30 < clock.now - began <= 60
    clock.now += 1000
    assert _states(ledger, [b"1", b"2"]) == [LedgerState.UNKNOWN] * 2


def test_an_outcome_is_written_once_the_ledger_is_back(store: _Troubled, clock: Clock) -> None:
    """A ledger that is away for half a minute loses nothing, and is asked less and less often."""
    ledger = ledger_over(store, clock)
    claim = _claim(ledger)
    store.fail_settles = 6
    _settle(ledger, claim, ACCEPTED)
    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert _look(ledger).state is LedgerState.UPLOADED


def test_a_bug_is_not_a_lost_claim(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the store's failure is raised as it is."""
    wanted = [(_look(ledger), facts())]
    monkeypatch.setattr(ledger.store, "claim", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ledger.claim(wanted)


@pytest.mark.parametrize("round_", range(5))
def test_of_many_threads_one_gets_the_claim(ledger: Ledger, round_: int) -> None:
    """Threads of one task race for the same bytes: exactly one may send."""
    content = f"invoice {round_}".encode()
    known = _look(ledger, content)
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        try:
            ledger.claim([(known, facts(content, run=other_run(number)))])
        except ClaimLost:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1


def test_what_is_asked_of_the_ledger_in_memory_is_a_copy(ledger: Ledger) -> None:
    """Whoever changes what was answered changes nothing that is kept."""
    claim = _claim(ledger)
    claim.attempt.name = "changed"
    _look(ledger).attempts[0].name = "changed"
    next(ledger.store.history(Query())).name = "changed"
    assert _look(ledger).attempts[0].name == "invoice.csv"


def test_a_ledger_says_which_it_is(ledger: Ledger) -> None:
    """Store, client and environment, for logs."""
    assert repr(ledger) == "<Ledger memory of client 10042 in staging>"
