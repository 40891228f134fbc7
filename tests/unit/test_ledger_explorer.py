"""The ledger's protocol, explored: whatever two tasks and a person do in whatever order, the promises hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from amili_provider.api.upload import UploadBody
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.sender import Sender
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import History, Ledger, LedgerState, SettlingFailed, settling
from amili_provider.ledger import ledger as ledger_module
from amili_provider.ledger.attempts import Attempt, AttemptState
from amili_provider.ledger.stores import MemoryStore
from amili_provider.receipts import Outcome
from tests.explorer import ANSWER_SECONDS, LATE, LONG, Broken, Case, Explorer

CASES = {
    "a person who tells the truth": Case(faults=1, leaps=(LONG,)),
    "a person who tells the truth, and retries": Case(faults=2, retries=1),
    "the last moments that are in time": Case(leaps=LATE),
    "a person who errs, files hashed on their way": Case(says="lie", late=True, leaps=(LONG,)),
    "check": Case("check", says="nothing", faults=2, leaps=(LONG,)),
    "resend": Case("resend", says="nothing", faults=2, leaps=(LONG,)),
    "two files in a request": Case(files=2, faults=1),
    "two files in a request that stands still": Case(files=2, says="nothing", leaps=(LONG,)),
}


def _seen(explorer: Explorer, ways: int) -> str:
    return f"{ways:,} interleavings, {explorer.steps:,} steps between {explorer.states:,} states: {explorer.case}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_interleaving_keeps_the_promises(case: Case) -> None:
    """
    No file is accepted twice but by a person's word, green without acceptance, or free with an unknown end.

    A worker that stands still between its last look at the clock and the tail can send a second time; then not both of
    the tasks are green.
    """
    explorer = Explorer(case)
    ways = explorer.explore()
    print(_seen(explorer, ways))  # noqa: T201
    assert ways > explorer.states > 100


LARGE = {
    "faults in both tasks, time, and a retry": Case(faults=2, leaps=(LONG,), retries=1),
    "the last moments that are in time": Case(faults=1, leaps=LATE),
    "check": Case("check", faults=2, leaps=(LONG,)),
    "resend": Case("resend", faults=2, leaps=(LONG,), retries=1),
    "two files in a request": Case(files=2, faults=1, leaps=(LONG,)),
}


@pytest.mark.long
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
def test_every_interleaving_of_more_faults_keeps_the_promises(case: Case) -> None:
    """The same holds with more faults, more time and more tries."""
    explorer = Explorer(case)
    ways = explorer.explore()
    print(_seen(explorer, ways))  # noqa: T201


# Bugs to plant


def _wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **more: around(original, *args, **more))


def _no_margin_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "check_margin", lambda *_: None)


def _margin_by_a_clock_that_stops(patch: pytest.MonkeyPatch) -> None:
    def begin(original: Callable[..., None], ledger: Ledger, *args: Any, **more: Any) -> None:
        original(ledger, *args, **more | {"clock": lambda: 0.0})

    _wrap(patch, Ledger, "__init__", begin)


def _claim_after_release(patch: pytest.MonkeyPatch) -> None:
    def released(original: Callable[..., Iterator[bytes]], body: UploadBody) -> Iterator[bytes]:
        claim, body.before_tail = body.before_tail, None
        yield from original(body)
        assert claim is not None
        claim()

    _wrap(patch, UploadBody, "__iter__", released)


def _settle_without_owner(patch: pytest.MonkeyPatch) -> None:
    def settle(original: Callable[..., None], store: MemoryStore, attempts: Sequence[Attempt]) -> None:
        original(store, attempts)
        for key, known in store._attempts.items():
            for attempt in attempts:
                if known.file_id == attempt.file_id and known.state is AttemptState.CLAIMED:
                    store._attempts[key] = replace(known, state=AttemptState.SETTLED, outcome=attempt.outcome)

    _wrap(patch, MemoryStore, "settle", settle)


def _judge(patch: pytest.MonkeyPatch, change: Callable[..., Sequence[Attempt]]) -> None:
    """Let the ledger judge other attempts than there are."""

    def judge(original: Callable[..., History], file_id: str, attempts: Sequence[Attempt], **more: Any) -> History:
        return replace(original(file_id, change(attempts, more["now"]), **more), attempts=tuple(attempts))

    _wrap(patch, ledger_module, "history", judge)
    _wrap(patch, inspect.getmodule(Explorer), "history", judge)


def _expired_claims_are_free(patch: pytest.MonkeyPatch) -> None:
    _judge(patch, lambda attempts, now: [a for a in attempts if a.has_end or a.outcome or a.is_live(now)])


def _live_claims_are_free(patch: pytest.MonkeyPatch) -> None:
    _judge(patch, lambda attempts, now: [a for a in attempts if not a.is_live(now)])


def _refusal_settles_unknown(patch: pytest.MonkeyPatch) -> None:
    def settled(attempts: Sequence[Attempt], _now: float) -> Sequence[Attempt]:
        last = max((a.attempt for a in attempts if a.outcome is Outcome.REJECTED), default=0)
        return [a for a in attempts if a.has_end or a.attempt > last]

    _judge(patch, settled)


def _claims_dated_early_live_too_short(patch: pytest.MonkeyPatch) -> None:
    def claim(original: Callable[..., Any], store: Any, attempts: Sequence[Attempt], _seconds: float) -> Any:
        for attempt in attempts:
            attempt.message = repr(store._port.now)
        return original(store, attempts, ANSWER_SECONDS)

    def kept(original: Callable[..., Any], store: MemoryStore, attempts: Sequence[Attempt], seconds: float) -> Any:
        taken = original(store, attempts, seconds)
        for attempt in attempts:
            if attempt.state is AttemptState.CLAIMED and attempt.message:
                attempt.stamp(float(attempt.message), seconds)
                if attempt.file_id not in taken:
                    store._attempts[attempt.environment, attempt.client_no, attempt.file_id, attempt.attempt] = replace(
                        attempt
                    )
        return taken

    _wrap(patch, inspect.getmodule(Explorer)._Store, "claim", claim)  # type: ignore[union-attr]
    _wrap(patch, MemoryStore, "claim", kept)


def _lost_commit_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    def settle(original: Callable[..., None], sender: Sender, group: Any, results: Any, sent: Any) -> None:
        histories = {item: item.history for item in group}
        failed = SettlingFailed()

        def once(settling: Callable[..., Any], *args: Any) -> Any:
            try:
                return settling(*args)
            except AmiliLedgerUnavailable:
                raise failed from None

        with pytest.MonkeyPatch.context() as inner:
            _wrap(inner, MemoryStore, "settle", once)
            _wrap(inner, inspect.getmodule(Explorer)._Store, "settle", once)  # type: ignore[union-attr]
            inner.setattr(ledger_module, "SETTLE_SECONDS", 0.0)
            original(sender, group, results, sent)
        if sent.halt is not None and isinstance(sent.halt.error, SettlingFailed):
            sent.halt = None
            for item in group:
                known = histories[item]
                assert known is not None
                item.history = replace(known, attempts=(*known.attempts, _next(known)))
            sender._post(list(group), sent)

    _wrap(patch, Sender, "_settle", settle)


def _next(known: History) -> Attempt:
    return Attempt(environment="", client_no="", file_id=known.file_id, attempt=known.next_attempt, owner="")


def _resolve_while_in_flight(patch: pytest.MonkeyPatch) -> None:
    def resolve_all(original: Callable[..., Any], ledger: Ledger, found_out: Any, **more: Any) -> Any:
        return original(ledger, [(_not_in_flight(known), *rest) for known, *rest in found_out], **more)

    def settle(original: Callable[..., Any], ledger: Ledger, *args: Any, **more: Any) -> Any:
        look_up = ledger.look_up
        ledger.look_up = lambda *ids: {i: _not_in_flight(h) for i, h in look_up(*ids).items()}
        return original(ledger, *args, **more)

    _wrap(patch, Ledger, "resolve_all", resolve_all)
    _wrap(patch, settling, "settle", settle)


def _not_in_flight(known: History) -> History:
    if known.state is not LedgerState.IN_FLIGHT:
        return known
    unknown = tuple(a.attempt for a in known.attempts if not a.has_end)
    return replace(known, state=LedgerState.UNKNOWN, unknown=unknown)


def _no_claim(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LedgerSession, "claim", lambda *_: None)
    patch.setattr(LedgerSession, "check_margin", lambda *_: None)


def _nobody_looks_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "overtaken", lambda *_: {})


def _nobody_looks_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "_arrived_meanwhile", lambda *_: set())


_STOOD_STILL = Case("resend", says="nothing", faults=1, leaps=(LONG,))

BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Case]] = {
    "no margin check": (_no_margin_check, Case(leaps=(LONG,))),
    "margin by a clock that stops while the machine sleeps": (_margin_by_a_clock_that_stops, Case(leaps=(LONG,))),
    "no claim": (_no_claim, Case()),
    "claim after release": (_claim_after_release, Case(says="nothing")),
    "settle without owner": (_settle_without_owner, Case("resend", says="nothing", faults=2, leaps=(LONG,))),
    "expired claims are free": (_expired_claims_are_free, Case(says="nothing", faults=1, leaps=(LONG,))),
    "live claims are free": (_live_claims_are_free, Case(says="nothing")),
    "a refusal settles unknown attempts": (_refusal_settles_unknown, Case("resend", says="nothing", faults=2)),
    "claims dated early live too short": (_claims_dated_early_live_too_short, Case(leaps=LATE)),
    "a lost COMMIT is a failure, and sent again": (_lost_commit_is_a_failure, Case(says="nothing", faults=1)),
    "a person resolves what is in flight": (_resolve_while_in_flight, Case()),
    "who stood still does not look behind": (_nobody_looks_behind, _STOOD_STILL),
    "who resends does not look again": (_nobody_looks_again, _STOOD_STILL),
}


@pytest.mark.parametrize(("plant", "case"), BUGS.values(), ids=BUGS)
def test_planted_bugs_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The explorer finds what it is there to find."""
    plant(monkeypatch)
    with pytest.raises(Broken) as broken:
        Explorer(case).explore()
    assert str(broken.value).count("\n") > 2, "it tells the steps"
