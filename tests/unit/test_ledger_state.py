"""What the attempts of a file mean together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.ledger.attempts import Attempt, AttemptState, timestamp
from amili_provider.ledger.state import Disregard, history
from amili_provider.ledger.state import LedgerState as State
from amili_provider.receipts import Outcome

_NOW = 1_795_000_000.0
_ID = "ab" + "0" * 30


def _attempt(
    kind: str, number: int = 1, *, chain: str = "old", resolves: tuple[int, ...] = (), name: str = "a.csv"
) -> Attempt:
    attempt = Attempt(
        environment="staging",
        client_no="1",
        file_id=_ID,
        attempt=number,
        owner="o",
        chain=chain,
        name=name,
        claimed_at=timestamp(_NOW - 1000),
        expires_at=timestamp(_NOW + (1 if kind == "live" else -1)),
        resolves=resolves,
    )
    if kind == "damaged":
        return replace(attempt, expires_at="", message="its row cannot be read")
    if kind in ("live", "expired"):
        return attempt
    return replace(attempt, state=AttemptState.SETTLED, outcome=Outcome(kind), settled_at=timestamp(_NOW))


def _state(*attempts: Attempt, chain: str | None = "mine", disregard: Disregard = Disregard.NOTHING) -> State:
    return history(_ID, attempts, now=_NOW, chain=chain, disregard=disregard).state


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("uploaded", State.UPLOADED),
        ("live", State.IN_FLIGHT),
        ("expired", State.UNKNOWN),
        ("unknown", State.UNKNOWN),
        ("damaged", State.UNKNOWN),
        ("rejected", State.FREE),
        ("not_sent", State.FREE),
    ],
)
def test_what_one_attempt_means(kind: str, state: State) -> None:
    """An accepted file is uploaded, a live claim in flight, one without a known end unknown, a refused one free."""
    assert _state(_attempt(kind)) is state


def test_nothing_means_free() -> None:
    """A file that the ledger has never seen may be sent."""
    assert _state() is State.FREE


@pytest.mark.parametrize("kind", ["unknown", "expired", "damaged"])
@pytest.mark.parametrize("later", ["rejected", "not_sent"])
def test_an_old_unknown_stays_unknown(kind: str, later: str) -> None:
    """That Amili refused a later attempt says nothing about the earlier one."""
    assert _state(_attempt(kind), _attempt(later, 2)) is State.UNKNOWN


@pytest.mark.parametrize("kind", ["unknown", "expired", "damaged"])
@pytest.mark.parametrize(
    ("found", "state"), [("uploaded", State.UPLOADED), ("rejected", State.FREE), ("not_sent", State.FREE)]
)
def test_an_unknown_is_resolved_by_what_was_found_out(kind: str, found: str, state: State) -> None:
    """A check or a person settles it, once and for all."""
    assert _state(_attempt(kind), _attempt(found, 2, resolves=(1,))) is state


def test_a_resolution_settles_only_what_it_names() -> None:
    """An attempt made after the question was asked is not covered by the answer."""
    attempts = (_attempt("unknown"), _attempt("not_sent", 2, resolves=(1,)), _attempt("unknown", 3))
    known = history(_ID, attempts, now=_NOW)
    assert (known.state, known.unknown) == (State.UNKNOWN, (3,))


def test_a_late_owner_beats_the_person_who_settled() -> None:
    """An owner who wakes up and writes 'uploaded' is believed, whatever a person said before."""
    assert _state(_attempt("uploaded"), _attempt("not_sent", 2, resolves=(1,))) is State.UPLOADED


@pytest.mark.parametrize("disregard", list(Disregard))
@pytest.mark.parametrize("chain", ["mine", "old"])
def test_a_live_claim_is_never_set_aside(disregard: Disregard, chain: str) -> None:
    """Not by force, not by resend, not by one's own retry."""
    assert _state(_attempt("live", chain=chain), disregard=disregard) is State.IN_FLIGHT
    assert _state(_attempt("unknown"), _attempt("live", 2, chain=chain), disregard=disregard) is State.IN_FLIGHT


@pytest.mark.parametrize("kind", ["unknown", "expired", "damaged"])
def test_resend_sets_aside_older_unknowns_only(kind: str) -> None:
    """What this chain of attempts left behind, and what was accepted, stays in the way."""
    assert _state(_attempt(kind, chain="old"), disregard=Disregard.UNKNOWN) is State.FREE
    assert _state(_attempt(kind, chain="mine"), disregard=Disregard.UNKNOWN) is State.UNKNOWN
    assert _state(_attempt("uploaded"), disregard=Disregard.UNKNOWN) is State.UPLOADED
    assert _state(_attempt(kind), _attempt(kind, 2, chain="mine"), disregard=Disregard.UNKNOWN) is State.UNKNOWN


@pytest.mark.parametrize("kind", ["uploaded", "unknown", "expired", "damaged"])
def test_force_sets_aside_everything_older(kind: str) -> None:
    """A retry under force is not a third time: its own attempt is not older than itself."""
    assert _state(_attempt(kind, chain="old"), disregard=Disregard.EVERYTHING) is State.FREE
    assert (
        _state(_attempt(kind), _attempt("uploaded", 2, chain="mine"), disregard=Disregard.EVERYTHING) is State.UPLOADED
    )
    assert _state(_attempt(kind), _attempt("unknown", 2, chain="mine"), disregard=Disregard.EVERYTHING) is State.UNKNOWN


@pytest.mark.parametrize("chain", [None, ""])
def test_without_a_chain_everything_is_older(chain: str | None) -> None:
    """Outside of Airflow nothing retries, so each call is a word of its own."""
    assert _state(_attempt("unknown", chain=""), chain=chain, disregard=Disregard.UNKNOWN) is State.FREE


def test_what_is_set_aside_is_still_told() -> None:
    """Whoever resends asks first about each unknown attempt, and resolves it."""
    known = history(
        _ID, (_attempt("unknown"), _attempt("damaged", 2)), now=_NOW, chain="x", disregard=Disregard.UNKNOWN
    )
    assert (known.state, known.unknown, known.next_attempt) == (State.FREE, (1, 2), 3)


def test_a_history_describes_what_decides() -> None:
    """The message names the attempt that is in the way."""
    known = history(_ID, (_attempt("rejected"), _attempt("unknown", 2), _attempt("unknown", 3)), now=_NOW)
    assert "attempt 2" in known.describe()
    assert "1 more" in known.describe()
    assert "no accepted" in history(_ID, (), now=_NOW).describe()
    assert "its row cannot be read" in history(_ID, (_attempt("damaged"),), now=_NOW).describe()


_KINDS = st.sampled_from(["uploaded", "live", "expired", "unknown", "damaged", "rejected", "not_sent"])
_HISTORIES = st.lists(
    st.tuples(_KINDS, st.sampled_from(["mine", "old", "older"]), st.sets(st.integers(1, 6))), max_size=6
)


@given(told=_HISTORIES, disregard=st.sampled_from(list(Disregard)))
def test_random_histories_keep_the_promises(told: list[tuple[str, str, set[int]]], disregard: Disregard) -> None:
    """Free means: nothing accepted, nothing in flight and nothing unresolved, but for what was set aside."""
    attempts = [
        _attempt(kind, n, chain=chain, resolves=tuple(sorted(i for i in resolves if i < n)))
        for n, (kind, chain, resolves) in enumerate(told, 1)
    ]
    known = history(_ID, attempts, now=_NOW, chain="mine", disregard=disregard)
    resolved = {
        i
        for n, (kind, _, resolves) in enumerate(told, 1)
        if kind in ("uploaded", "rejected", "not_sent")
        for i in resolves
        if i < n
    }
    accepted = [chain for kind, chain, _ in told if kind == "uploaded"]
    unresolved = [
        (n, chain)
        for n, (kind, chain, _) in enumerate(told, 1)
        if kind in ("expired", "unknown", "damaged") and n not in resolved
    ]
    assert known.unknown == tuple(n for n, _ in unresolved)
    assert known.next_attempt == len(told) + 1
    if disregard is Disregard.EVERYTHING:
        accepted = [chain for chain in accepted if chain == "mine"]
    in_the_way = [n for n, chain in unresolved if disregard is Disregard.NOTHING or chain == "mine"]
    live = any(kind == "live" for kind, _, _ in told)
    expected = State.UPLOADED if accepted else State.IN_FLIGHT if live else State.UNKNOWN if in_the_way else State.FREE
    assert known.state is expected
    assert (known.deciding is None) == (expected is State.FREE)


@pytest.mark.parametrize(
    ("attempts", "name", "elsewhere"),
    [
        ([("uploaded", "a.csv")], "b.csv", 1),
        ([("uploaded", "a.csv")], "A.CSV", None),
        ([("uploaded", "a.csv"), ("uploaded", "b.csv")], "b.csv", None),
        ([("rejected", "a.csv"), ("uploaded", "b.csv")], "c.csv", 2),
        ([("unknown", "a.csv")], "b.csv", None),
        ([("uploaded", "")], "b.csv", None),
    ],
)
def test_equal_bytes_under_another_name_are_told(
    attempts: list[tuple[str, str]], name: str, elsewhere: int | None
) -> None:
    """Accepted under other names only: the first of them; a name that is not known contradicts none."""
    made = [_attempt(kind, n, name=called) for n, (kind, called) in enumerate(attempts, 1)]
    found = history(_ID, made, now=_NOW).accepted_elsewhere(name)
    assert (found and found.attempt) == elsewhere
