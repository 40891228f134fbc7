"""One contract for the ledger, on everything that can keep one: real servers on loopback."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import Attempt, LedgerState
from amili_provider.ledger.attempts import AttemptState, Origin, epoch
from amili_provider.ledger.objects import LARGE_BYTES
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.state import history
from amili_provider.ledger.stores import Found, LedgerStore, Query
from amili_provider.storage.backends.objects import ObjectFiles
from amili_provider.storage.backends.s3 import S3Client
from tests.ledger_cases import ACCEPTED, LOST, NOT_SENT, REFUSED, an_attempt
from tests.readme import all_shown
from tests.storage.backends.ledgers import (
    CONN_ID,
    HOMES,
    KeptHome,
    LedgerHome,
    MotoHome,
    ObjectHome,
    Server,
    SqlHome,
    homes,
    running_home,
)

SQL = ["sqlite", "postgres", "mariadb"]
SERVERS = ["postgres", "mariadb"]
OBJECTS = ["s3", "s3-seaweed", "abfs", "gs"]
NOT_OBJECTS = ["memory", *SQL]
on = pytest.mark.parametrize
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _with_scratch(kind: type[LedgerHome]) -> Iterator[LedgerHome]:
    # Not pytest's own folder: users other than the tests' must be able to reach it.
    scratch = Path(tempfile.mkdtemp(prefix="amili-ledgers-"))
    scratch.chmod(0o755)
    try:
        yield from running_home(kind, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(name="server", scope="module", params=homes(HOMES))
def _server(request: pytest.FixtureRequest) -> Iterator[LedgerHome]:
    """A running server that can keep ledgers."""
    yield from _with_scratch(HOMES[request.param])


@pytest.fixture(name="home")
def _home(server: LedgerHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[LedgerHome]:
    """The server with a name for this test under which there is no ledger."""
    server.begin()
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(server.connection()))
    yield server
    server.end()


@pytest.fixture(name="store")
def _store(home: LedgerHome) -> LedgerStore:
    """An empty ledger, opened as a task opens it."""
    home.store(create=True).create()
    store = home.store()
    store.open()
    return store


def _found(store: LedgerStore, *attempts: Attempt) -> Found:
    return store.look_up("staging", "10042", [a.file_id for a in attempts])


def _kept(store: LedgerStore, attempt: Attempt) -> Attempt:
    known: Attempt = _found(store, attempt).attempts[attempt.file_id][attempt.attempt - 1]
    return known


def _state(store: LedgerStore, attempt: Attempt) -> LedgerState:
    found = _found(store, attempt)
    return history(attempt.file_id, found.attempts.get(attempt.file_id, ()), now=found.now).state


def _next(store: LedgerStore, attempt: Attempt) -> int:
    return len(_found(store, attempt).attempts.get(attempt.file_id, ())) + 1


def _many(count: int, owner: str = "a" * 32) -> list[Attempt]:
    return [an_attempt(f"invoice {n}", owner=owner) for n in range(count)]


# Creating and opening


def test_a_ledger_is_created_once(home: LedgerHome) -> None:
    """The first to create it is told that it is new; later ones change nothing, and everybody meets the same ledger."""
    creating = home.store(create=True)
    identity, new = creating.create()
    assert new
    assert re.fullmatch(r"[0-9a-f]{32}", identity.ledger_id)
    assert _TIME.fullmatch(identity.created_at)
    creating.claim([an_attempt()], 600)
    again = home.store(create=True)
    assert again.create() == (identity, False)
    opened = home.store()
    assert opened.open() == identity
    assert _state(opened, an_attempt()) is LedgerState.IN_FLIGHT


@on("server", homes(name for name in HOMES if name != "memory"), indirect=True)
def test_another_ledger_than_was_opened_takes_no_claim(home: LedgerHome) -> None:
    """A run that began with one ledger does not go on with another, which knows nothing of it."""
    home.store(create=True).create()
    store = home.store()
    store.open()
    assert not store.claim([an_attempt("before")], 600)
    assert isinstance(home, KeptHome)
    home.exchange()
    with pytest.raises(AmiliLedgerUnavailable, match="not the one that was opened"):
        store.claim([an_attempt("after")], 600)
    assert _state(store, an_attempt("after")) is LedgerState.FREE
    again = home.store()
    again.open()
    assert not again.claim([an_attempt("after", number=_next(again, an_attempt("after")))], 600)


@on("server", homes(name for name in HOMES if name != "memory"), indirect=True)
def test_of_many_who_create_a_ledger_one_does(home: LedgerHome) -> None:
    """Two people, or two pods, at the same moment: one ledger, and both are told which."""
    stores = [home.store(create=True) for _ in range(4)]
    start = threading.Barrier(len(stores))

    def create(store: LedgerStore) -> Any:
        start.wait()
        return store.create()

    with ThreadPoolExecutor(len(stores)) as pool:
        said = list(pool.map(create, stores))
    assert len({identity for identity, _ in said}) == 1
    assert [new for _, new in said].count(True) == 1


def test_a_ledger_that_is_not_there_is_not_begun(home: LedgerHome) -> None:
    """Opening it says so in these words, and twice: it leaves nothing that could be taken for an empty ledger."""
    for _ in range(2):
        store = home.store()
        with pytest.raises(AmiliLedgerUnavailable, match="does not exist") as said:
            store.open()
        assert home.name == "memory" or "amili-ledger create --conn-id" in str(said.value)


@on("server", homes(name for name in HOMES if name != "memory"), indirect=True)
def test_a_ledger_of_a_later_version_is_refused(home: LedgerHome, store: LedgerStore) -> None:
    """What a newer provider wrote may mean what this one does not know."""
    assert isinstance(home, KeptHome)
    home.age()
    for refuse in (home.store().open, home.store(create=True).create):
        with pytest.raises(AmiliLedgerUnavailable, match=r"has format 2; .* knows 1\. Update it"):
            refuse()


@on("server", homes(OBJECTS), indirect=True)
def test_opening_leaves_no_probe_behind(home: LedgerHome, store: LedgerStore) -> None:
    """What was tried, to see whether the store creates an object once, is taken away."""
    assert isinstance(home, ObjectHome)
    assert [n for n in store._names("") if "probe" in n] == []  # type: ignore[attr-defined]


# Claiming


def test_what_is_claimed_is_kept_whole(store: LedgerStore) -> None:
    """Every field of an attempt comes back, those that are not known too."""
    attempt = an_attempt(size=5_000_000_000, map_index=3, try_number=2)
    assert store.claim([attempt], 600) == set()
    assert _kept(store, attempt) == attempt
    assert attempt.state is AttemptState.CLAIMED
    assert (attempt.outcome, attempt.status, attempt.settled_at, attempt.uploaded_at) == (None, None, None, None)
    assert _found(store, an_attempt("another")).attempts == {}


def test_times_are_the_stores_and_of_one_width(store: LedgerStore) -> None:
    """UTC to the millisecond, whatever time zone a session has, so that text sorts as time does."""
    attempt = an_attempt()
    store.claim([attempt], 730)
    claimed_at, expires_at, now = attempt.claimed_at, attempt.expires_at, _found(store, attempt).now
    attempt.settle(ACCEPTED)
    store.settle([attempt])
    kept = _kept(store, attempt)
    assert (kept.claimed_at, kept.expires_at) == (claimed_at, expires_at)
    for written in (kept.claimed_at, kept.expires_at, kept.settled_at, kept.uploaded_at):
        assert _TIME.fullmatch(written or "")
    assert abs(epoch(claimed_at) - time.time()) < 60
    assert epoch(claimed_at) <= now + 0.001
    assert epoch(expires_at) - epoch(claimed_at) == pytest.approx(730)
    assert kept.uploaded_at == kept.settled_at
    assert claimed_at <= (kept.settled_at or "")


def test_a_claim_that_ended_is_unknown(store: LedgerStore) -> None:
    """The store's own time says so."""
    attempt = an_attempt()
    store.claim([attempt], -1)
    assert _state(store, attempt) is LedgerState.UNKNOWN


def test_of_many_threads_one_gets_each_claim(home: LedgerHome, store: LedgerStore) -> None:
    """Stores opened by themselves, as tasks do, race for the same files in orders of their own: one winner each."""
    stores = [store, *(home.store() for _ in range(3))]
    start = threading.Barrier(len(stores))

    def race(number: int) -> tuple[list[Attempt], set[str]]:
        mine = _many(40, owner=f"{number:032}")
        random.Random(number).shuffle(mine)
        start.wait()
        return mine, set(stores[number].claim(mine, 600))

    with ThreadPoolExecutor(len(stores)) as pool:
        results = list(pool.map(race, range(len(stores))))
    won = [(a.file_id, a.owner) for mine, taken in results for a in mine if a.file_id not in taken]
    assert len(won) == len({file_id for file_id, _ in won}) == 40
    kept = _found(store, *_many(40)).attempts
    assert {file_id: known[0].owner for file_id, known in kept.items()} == dict(won)


def test_a_loser_is_told_exactly_what_it_lost(store: LedgerStore) -> None:
    """Overlapping requests: what somebody else has is named, and the rest is claimed."""
    first, second = _many(6), _many(9, owner="b" * 32)[3:]
    assert store.claim(first, 600) == set()
    assert store.claim(second, 600) == {a.file_id for a in first[3:]}
    kept = _found(store, *_many(9)).attempts
    owners = [kept[a.file_id][0].owner[0] for a in _many(9)]
    assert owners == ["a"] * 6 + ["b"] * 3
    assert all(len(known) == 1 for known in kept.values())


def test_a_claim_made_twice_by_one_owner_is_theirs(store: LedgerStore) -> None:
    """Its answer was lost, and it is made again: the same claims, and no second attempt."""
    mine = _many(3)
    assert store.claim(mine[:2], 600) == set()
    assert store.claim(mine, 600) == set()
    kept = _found(store, *mine).attempts
    assert [[a.owner for a in kept[m.file_id]] for m in mine] == [["a" * 32]] * 3


def test_attempts_at_a_file_come_in_their_order(store: LedgerStore) -> None:
    """Refused, not sent, refused … accepted: eleven attempts, the tenth after the ninth."""
    for number in range(1, 12):
        attempt = an_attempt(number=number)
        assert store.claim([attempt], 600) == set()
        attempt.settle(ACCEPTED if number == 11 else REFUSED)
        store.settle([attempt])
    known = _found(store, an_attempt()).attempts[an_attempt().file_id]
    assert [a.attempt for a in known] == list(range(1, 12))
    assert _state(store, an_attempt()) is LedgerState.UPLOADED


def test_a_claim_can_be_settled_already(store: LedgerStore) -> None:
    """What a person found out is an attempt that begins and ends at once."""
    lost = an_attempt()
    store.claim([lost], 600)
    lost.settle(LOST)
    store.settle([lost])
    found_out = an_attempt(number=2, owner="b" * 32, origin=Origin.PERSON, settled_by="kari", reason="saw it")
    found_out.settle(ACCEPTED)
    found_out.resolves, found_out.uploaded_at = (1,), "2026-11-01T00:00:00.000Z"
    assert store.claim([found_out], 0) == set()
    kept = _kept(store, found_out)
    assert kept == found_out
    assert (kept.resolves, kept.uploaded_at) == ((1,), "2026-11-01T00:00:00.000Z")
    assert _TIME.fullmatch(kept.settled_at or "")
    assert _state(store, lost) is LedgerState.UPLOADED


# Settling


def test_a_request_is_settled_each_file_with_its_own_outcome(store: LedgerStore) -> None:
    """Many verdicts in one request, and saying the same again changes no outcome."""
    attempts = _many(40)
    store.claim(attempts, 600)
    verdicts = [(ACCEPTED, REFUSED, LOST, NOT_SENT)[n % 4] for n in range(40)]
    for _ in range(2):
        for attempt, verdict in zip(attempts, verdicts, strict=True):
            attempt.settle(verdict)
        store.settle(attempts)
        found = _found(store, *attempts).attempts
        kept = [found[a.file_id][0] for a in attempts]
        assert [(a.outcome, a.status, a.result, a.message) for a in kept] == [
            (v.outcome, v.status, v.result, v.message) for v in verdicts
        ]
    assert all((a.uploaded_at is not None) == (v is ACCEPTED) for a, v in zip(kept, verdicts, strict=True))


@on("server", homes(NOT_OBJECTS), indirect=True)
def test_only_the_owner_settles_and_all_or_nothing(store: LedgerStore) -> None:
    """A request of which one attempt is not ours settles nothing; an object's attempt has one owner only."""
    mine, other = _many(5), an_attempt("theirs", owner="b" * 32)
    store.claim(mine, 600)
    store.claim([other], 600)
    stolen = replace(other, owner="a" * 32)
    missing = an_attempt("never claimed")
    for intruder in (stolen, missing):
        wanted = [replace(a) for a in mine] + [replace(intruder)]
        for attempt in wanted:
            attempt.settle(ACCEPTED)
        with pytest.raises(AmiliLedgerUnavailable, match="claim"):
            store.settle(wanted)
        assert {_kept(store, a).state for a in [*mine, other]} == {AttemptState.CLAIMED}


def test_what_others_wrote_is_seen_at_once(home: LedgerHome, store: LedgerStore) -> None:
    """No memory of what was there a moment ago: another task's claim and outcome count."""
    other, attempt = home.store(), an_attempt()
    assert _state(store, attempt) is LedgerState.FREE
    other.claim([attempt], 600)
    assert _state(store, attempt) is LedgerState.IN_FLIGHT
    attempt.settle(ACCEPTED)
    other.settle([attempt])
    assert _state(store, attempt) is LedgerState.UPLOADED


# Reading


def test_many_files_are_looked_up(home: LedgerHome, store: LedgerStore) -> None:
    """More than one statement asks for, of which three are known."""
    count = 120 if isinstance(home, ObjectHome) else 1200
    known = _many(count)[:: count // 3 + 1]
    store.claim(known, 600)
    found = _found(store, *_many(count))
    assert {i: [a.owner for a in attempts] for i, attempts in found.attempts.items()} == {
        a.file_id: [a.owner] for a in known
    }


def test_clients_and_environments_are_apart(store: LedgerStore) -> None:
    """The same file of another client is another file."""
    attempt = an_attempt(size=LARGE_BYTES + 1)
    store.claim([attempt], 600)
    for environment, client_no in (("staging", "7"), ("production", "10042")):
        assert store.look_up(environment, client_no, [attempt.file_id]).attempts == {}
        assert not store.has_size(environment, client_no, attempt.size)
        assert store.claim([replace(attempt, environment=environment, client_no=client_no, owner="b" * 32)], 9) == set()
    assert _kept(store, attempt).owner == "a" * 32


def test_a_size_that_was_met_is_known(store: LedgerStore) -> None:
    """Of large files, after a claim and after a restore."""
    large = LARGE_BYTES + 5
    assert not store.has_size("staging", "10042", large)
    store.claim([an_attempt(size=large)], 600)
    store.restore([an_attempt("older", size=large + 1, claimed_at=_day(1), expires_at=_day(1))])
    assert [store.has_size("staging", "10042", large + n) for n in range(3)] == [True, True, False]


def _day(number: int, time_of_day: str = "12:00:00.000") -> str:
    return f"2026-11-{number:02}T{time_of_day}Z"


def _older(name: str, day: int = 1, **more: Any) -> Attempt:
    attempt = an_attempt(name, name=name, claimed_at=_day(day), expires_at=_day(day, "12:12:10.000"), **more)
    attempt.settle(more.pop("verdict", ACCEPTED))
    attempt.settled_at = attempt.uploaded_at = _day(day, "12:00:01.000")
    return attempt


def _names(store: LedgerStore, **words: Any) -> list[str]:
    return [a.name for a in store.history(Query(**words))]


def test_history_is_told_newest_first_and_narrowed_by_every_word(store: LedgerStore) -> None:
    """Of one environment, client, DAG, run, request, file, of some days, and only what is not settled."""
    attempts = [
        _older("first.csv", 1),
        _older("second.csv", 2, dag_id="other", run_id="r2", request="#7"),
        _older("third.csv", 3, client_no="7"),
        _older("fourth.csv", 4, environment="production"),
        replace(_older("lost.csv", 5), outcome=LOST.outcome, uploaded_at=None),
    ]
    store.restore(attempts)
    claimed = an_attempt("now", name="now.csv")
    store.claim([claimed], 600)
    everything = ["now.csv", "lost.csv", "fourth.csv", "third.csv", "second.csv", "first.csv"]
    assert _names(store) == everything
    assert _names(store, environment="staging") == ["now.csv", "lost.csv", "third.csv", "second.csv", "first.csv"]
    assert _names(store, environment="staging", client_no="7") == ["third.csv"]
    assert _names(store, client_no="7") == ["third.csv"]
    assert _names(store, dag_id="other") == _names(store, run_id="r2") == _names(store, request="#7") == ["second.csv"]
    assert _names(store, since="2026-11-02", until="2026-11-04") == ["fourth.csv", "third.csv", "second.csv"]
    assert _names(store, until="2026-11-01") == ["first.csv"]
    assert _names(store, file_ids=[a.file_id for a in attempts[::2]]) == ["lost.csv", "third.csv", "first.csv"]
    assert _names(store, file_ids=[]) == []
    assert _names(store, unsettled=True) == ["now.csv", "lost.csv"]
    assert list(store.history(Query(request="#7"))) == [attempts[1]]


@on(
    ("text", "expected"),
    [
        ("100%", ["100%_æøå.csv"]),
        ("%", ["100%_æøå.csv"]),
        ("_æ", ["100%_æøå.csv"]),
        ("ÆØÅ", ["100%_æøå.csv", "ÆØÅ UPPER!.csv"]),
        ("upper!", ["ÆØÅ UPPER!.csv"]),
        ("A_B", ["a_b.csv"]),
        ("PARTNER/Out", ["aXb.csv"]),
        ("\\", ["back\\slash'quote\".csv"]),
        ("'quote\"", ["back\\slash'quote\".csv"]),
        ("nowhere", []),
    ],
)
def test_a_part_of_a_name_or_source_finds_it_in_any_case(store: LedgerStore, text: str, expected: list[str]) -> None:
    """As it is written: no wildcards, no escapes, and capitals of every alphabet."""
    names = ["100%_æøå.csv", "ÆØÅ UPPER!.csv", "a_b.csv", "aXb.csv", "back\\slash'quote\".csv"]
    sources = {"aXb.csv": "sftp://partner/out/x.csv"}
    store.restore([_older(n, d, source=sources.get(n, f"s3://in/{n}")) for d, n in enumerate(names, 1)])
    assert sorted(_names(store, text=text)) == sorted(expected)


def test_a_hash_or_file_id_finds_its_file(store: LedgerStore) -> None:
    """The beginning of a hash, in capitals too, and a whole file id."""
    attempts = [_older(f"{n}.csv", n) for n in range(1, 4)]
    store.restore(attempts)
    wanted = attempts[1]
    for text in (wanted.sha256[:12], wanted.sha256[:12].upper(), wanted.sha256, wanted.file_id):
        assert _names(store, text=text) == ["2.csv"]
    assert _names(store, text=wanted.sha256[5:20]) == _names(store, text=wanted.file_id[:10]) == []


@on("server", homes(NOT_OBJECTS), indirect=True)
def test_a_long_history_is_told_to_its_end(store: LedgerStore) -> None:
    """Beyond a page, many of one millisecond: each attempt once, newest first."""
    attempts = [_older(f"{n}.csv", 1 + n // 900, number=1 + n % 2) for n in range(1300)]
    assert store.restore(attempts) == set()
    told = [(a.claimed_at, a.file_id, a.attempt) for a in store.history(Query())]
    assert told == sorted(((a.claimed_at, a.file_id, a.attempt) for a in attempts), reverse=True)


def test_what_is_restored_stays_as_it_was(store: LedgerStore) -> None:
    """Another ledger's attempts keep their times and owners; what is taken is named, and not touched."""
    mine = an_attempt("1.csv")
    store.claim([mine], 600)
    attempts = [_older("1.csv"), _older("2.csv"), replace(_older("2.csv", 2), attempt=2), _older("3.csv", 3)]
    assert store.restore(attempts) == {(mine.file_id, 1)}
    assert [_kept(store, a) for a in (mine, *attempts[1:])] == [mine, *attempts[1:]]
    assert store.restore(attempts) == {(a.file_id, a.attempt) for a in attempts}
    theirs = [_older("1.csv", client_no="7"), _older("1.csv", environment="production")]
    assert store.restore([*attempts, *theirs]) == {(a.file_id, a.attempt) for a in attempts}
    assert store.look_up("staging", "7", [mine.file_id]).attempts == {mine.file_id: [theirs[0]]}


@on(
    ("text", "kept"),
    [
        ("NUL \x00 inside", {"NUL \x00 inside", "NUL \\x00 inside"}),
        ("half \udcff a name", {"half \udcff a name", "half \\udcff a name"}),
        ("🧾 emoji 🇳🇴", {"🧾 emoji 🇳🇴"}),
        ("line\nbreak\ttab\\n", {"line\nbreak\ttab\\n"}),
        ("trailing blanks  ", {"trailing blanks  "}),
        ("", {""}),
        ("x" * 300, {"x" * 300, "x" * 255}),
        ("æ" * 300, {"æ" * 300, "æ" * 255}),
        ("🧾" * 300, {"🧾" * 300, "🧾" * 255}),
    ],
)
def test_odd_text_survives_or_is_escaped(store: LedgerStore, text: str, kept: set[str]) -> None:
    """Nothing that a file, a run or Amili is called makes a claim or an outcome impossible."""
    attempt = an_attempt(name=text, source=text, run_id=text, request=text, host=text, client_no="10042")
    assert store.claim([attempt], 600) == set()
    attempt.settle(ACCEPTED._replace(status=text, result=text, message=text))
    store.settle([attempt])
    known = _kept(store, attempt)
    assert known.outcome is ACCEPTED.outcome
    assert {known.name, known.result} <= kept
    assert {known.run_id, known.host} <= kept | {one[:250] for one in kept}
    assert known.source in kept
    assert known.message in kept
    assert [a.file_id for a in store.history(Query())] == [attempt.file_id]


@on("server", homes(name for name in HOMES if name != "memory"), indirect=True)
def test_what_was_changed_by_hand_is_unknown(home: LedgerHome, store: LedgerStore) -> None:
    """It may have been accepted: it is neither free nor a crash, and its neighbour is what it was."""
    damaged, whole = _many(2)
    store.claim([damaged, whole], 600)
    for attempt in (damaged, whole):
        attempt.settle(REFUSED)
    store.settle([damaged, whole])
    assert isinstance(home, KeptHome)
    home.damage(damaged)
    assert _state(store, damaged) is LedgerState.UNKNOWN
    assert _state(store, whole) is LedgerState.FREE
    assert "cannot be read" in _kept(store, damaged).describe()
    assert len(list(store.history(Query()))) == 2
    found_out = an_attempt("invoice 0", number=2, owner="b" * 32)
    found_out.settle(NOT_SENT)
    found_out.resolves = (1,)
    store.claim([found_out], 0)
    assert _state(store, damaged) is LedgerState.FREE


@on("server", homes(OBJECTS), indirect=True)
@on("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"file_id": "x"}'])
def test_an_object_that_is_no_attempt_is_unknown(home: LedgerHome, store: LedgerStore, data: bytes) -> None:
    """Whatever lies in its place."""
    assert isinstance(home, ObjectHome)
    attempt = an_attempt()
    store.claim([attempt], 600)
    home.backend.put(home.key(attempt), data)
    assert _state(store, attempt) is LedgerState.UNKNOWN


@on("server", homes(SQL), indirect=True)
@on(
    "change",
    [
        "state = 'done'",
        "origin = ''",
        "resolves = '1,x'",
        "claimed_at = 'yesterday'",
        "expires_at = ''",
        "outcome = NULL",
        "state = 'claimed'",
    ],
)
def test_a_row_that_is_no_attempt_is_unknown(home: LedgerHome, store: LedgerStore, change: str) -> None:
    """A refused file whose row says what cannot be is not free."""
    assert isinstance(home, SqlHome)
    attempt = an_attempt()
    store.claim([attempt], -600)
    attempt.settle(REFUSED)
    store.settle([attempt])
    home.run(f"UPDATE {home.table} SET {change} WHERE environment <> ''")
    expected = LedgerState.UNKNOWN
    if change in ("claimed_at = 'yesterday'", "expires_at = ''"):
        # When it was claimed says nothing about how it ended.
        expected = LedgerState.FREE
    assert _state(store, attempt) is expected
    assert len(list(store.history(Query()))) == 1


# What goes wrong with a database


def _log_in(home: LedgerHome, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    """Let the connection log in as somebody else."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps((home.connection() or {}) | {"login": login}))


@on("server", homes(SERVERS), indirect=True)
def test_a_login_that_may_only_read_is_refused_at_once(
    home: LedgerHome, store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent, and the message says which rights are needed: with them it works. It may ask."""
    assert isinstance(home, Server)
    store.claim([an_attempt("known", name="a.csv")], 600)
    for name, rights, may in (
        ("reader", "SELECT", False),
        ("no_update", "SELECT, INSERT", False),
        ("writer", "SELECT, INSERT, UPDATE", True),
    ):
        login = f"{name}_{home.table[-8:]}"
        home.make_login(login, rights)
        _log_in(home, monkeypatch, login)
        with_login = home.store()
        if may:
            with_login.open()
            assert with_login.claim([an_attempt()], 600) == set()
        else:
            with pytest.raises(
                AmiliLedgerUnavailable, match=r"(?i)cannot be opened.*denied.*SELECT, INSERT and UPDATE"
            ):
                with_login.open()
            # What people ask needs no more.
            assert with_login.open(read_only=True) == store.open()
            assert [a.name for a in with_login.history(Query())] == ["a.csv"]


@on("server", homes(SERVERS), indirect=True)
def test_who_may_not_create_is_given_the_statements_for_the_dba(
    home: LedgerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statements of the message make a table with which the same login then creates the ledger."""
    assert isinstance(home, Server)
    login = f"poor_{home.table[-8:]}"
    home.run(f"CREATE ROLE {login} LOGIN" if home.name == "postgres" else f"CREATE USER {login}")
    if home.name == "mariadb":
        # Without any right on a database MariaDB lets nobody into it.
        home.run(
            f"CREATE TABLE IF NOT EXISTS {home.database}.somewhere (a int)", f"GRANT SELECT ON somewhere TO {login}"
        )
    _log_in(home, monkeypatch, login)
    poor = home.store(create=True)
    with pytest.raises(AmiliLedgerUnavailable, match="give these statements to your DBA") as refused:
        poor.create()
    statements = str(refused.value).partition("UPDATE:\n")[2].replace("<login of the connection>", login)
    home.run(*(one for one in statements.split(";\n") if one.strip()))
    assert poor.create()[1]
    assert home.store().open() == poor.create()[0]


@on("server", ["postgres"], indirect=True)
def test_a_read_only_replica_is_refused(home: LedgerHome, store: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would answer look-ups with what was true a moment ago, and could take no claim."""
    assert isinstance(home, Server)
    login = f"replica_{home.table[-8:]}"
    home.run(f"CREATE ROLE {login} LOGIN SUPERUSER", f"ALTER ROLE {login} SET default_transaction_read_only = on")
    _log_in(home, monkeypatch, login)
    for refuse in (home.store().open, home.store(create=True).create):
        with pytest.raises(AmiliLedgerUnavailable, match=r"read-only: a replica.*Name the primary"):
            refuse()
    assert home.store().open(read_only=True) == store.open()


@on("server", homes(SQL), indirect=True)
def test_airflows_own_database_is_refused(home: LedgerHome) -> None:
    """What Airflow migrates, cleans and resets keeps no ledger, neither a new one nor one that is there."""
    assert isinstance(home, SqlHome)
    home.store(create=True).create()
    home.run("CREATE TABLE task_instance (a int)", "CREATE TABLE dag_run (a int)")
    try:
        for refuse in (home.store().open, home.store(create=True).create):
            with pytest.raises(ValueError, match="Airflow's own metadata database.*a database of its own"):
                refuse()
    finally:
        home.run("DROP TABLE task_instance", "DROP TABLE dag_run")


def _dialect(store: LedgerStore) -> Any:
    assert isinstance(store, SqlStore)
    return store.engine.dialect


def _answer_lost(store: LedgerStore, monkeypatch: pytest.MonkeyPatch, *, done: bool) -> list[str]:
    """Let the next COMMIT be carried out or not, and its answer be lost."""
    dialect = _dialect(store)
    said: list[str] = []
    commit = dialect.do_commit

    def lost(connection: Any) -> None:
        if said:
            commit(connection)
            return
        said.append("lost")
        if done:
            commit(connection)
        raise dialect.dbapi.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(dialect, "do_commit", lost)
    return said


@on("server", homes(SQL), indirect=True)
@on("done", [True, False])
def test_a_commit_whose_answer_is_lost_is_found_again(
    home: LedgerHome, store: LedgerStore, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """Carried out or not: claims, outcomes and a creation are made once, and are ours."""
    attempts = _many(5)
    said = _answer_lost(store, monkeypatch, done=done)
    assert store.claim(attempts, 600) == set()
    assert said
    assert {a.owner for known in _found(store, *attempts).attempts.values() for a in known} == {"a" * 32}
    for attempt in attempts:
        attempt.settle(ACCEPTED)
    said = _answer_lost(store, monkeypatch, done=done)
    store.settle(attempts)
    assert said
    assert {_state(store, a) for a in attempts} == {LedgerState.UPLOADED}
    late = an_attempt("late", owner="c" * 32)
    said = _answer_lost(store, monkeypatch, done=done)
    assert store.restore([_older("restored"), late]) == (
        {(_older("restored").file_id, 1), (late.file_id, 1)} if done else set()
    )
    assert said


_PASSING: dict[str, list[tuple[Any, ...]]] = {
    "sqlite": [("database is locked",)],
    "postgres": [("deadlock detected",), ("could not serialize access due to concurrent update",)],
    "mariadb": [(1213, "Deadlock found when trying to get lock"), (1205, "Lock wait timeout exceeded")],
}


@on("server", homes(SQL), indirect=True)
def test_a_deadlock_is_tried_again(home: LedgerHome, store: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the database calls it, in a claim, an outcome and a look-up."""
    dialect = _dialect(store)
    failing: list[tuple[Any, ...]] = []

    def fail() -> None:
        if failing:
            raise dialect.dbapi.OperationalError(*failing.pop())

    def after(step: Callable[..., Any]) -> Callable[..., Any]:
        def execute(*args: Any, **more: Any) -> Any:
            fail()
            return step(*args, **more)

        return execute

    for step in ("do_execute", "do_executemany", "do_execute_no_params"):
        monkeypatch.setattr(dialect, step, after(getattr(dialect, step)))
    for words in _PASSING[home.name]:
        attempt = an_attempt(str(words))
        operations: list[Callable[[], Any]] = [
            lambda a=attempt: store.claim([a], 600),  # type: ignore[misc]
            lambda a=attempt: store.settle([a]),  # type: ignore[misc]
            lambda a=attempt: _kept(store, a),  # type: ignore[misc]
        ]
        for operation in operations:
            failing[:] = [words, words]
            operation()
            assert not failing
            attempt.settle(ACCEPTED)
        assert _state(store, attempt) is LedgerState.UPLOADED


@on("server", ["postgres"], indirect=True)
def test_a_real_deadlock_is_tried_again(home: LedgerHome, store: LedgerStore) -> None:
    """PostgreSQL ends our transaction for a stranger's; the outcomes are written all the same."""
    assert isinstance(home, Server)
    first, second = _many(2)
    store.claim([first, second], 600)
    first.settle(REFUSED)
    second.settle(ACCEPTED)
    engine = home.engine()
    touch = f"UPDATE {home.table} SET host = 'stranger' WHERE file_id = :it"
    with engine.connect() as stranger, ThreadPoolExecutor(1) as pool:
        stranger.execute(sa.text("SET deadlock_timeout = '60s'"))
        stranger.execute(sa.text(touch), {"it": second.file_id})
        settling = pool.submit(store.settle, [first, second])
        _until(lambda: _waiting(home) == 1)
        try:
            stranger.execute(sa.text(touch), {"it": first.file_id})
        finally:
            stranger.rollback()
        settling.result(60)
    engine.dispose()
    counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    _until(lambda: home.run(counted)[0][0] == 1)
    assert (_state(store, first), _state(store, second)) == (LedgerState.FREE, LedgerState.UPLOADED)


def _waiting(home: Server) -> int:
    return int(home.run("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")[0][0])


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@on("server", homes(SERVERS), indirect=True)
def test_no_connection_is_held_while_amili_is_waited_for(home: LedgerHome, store: LedgerStore) -> None:
    """Not after a claim, nor after an outcome, whatever was looked up before: a thousand tasks hold none."""
    assert isinstance(home, Server)
    attempts = _many(3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda a: _found(store, a), attempts * 4))
    store.claim(attempts, 600)
    _until(lambda: home.open_connections() == 0)
    for attempt in attempts:
        attempt.settle(ACCEPTED)
    _found(store, *attempts)
    store.settle(attempts)
    _until(lambda: home.open_connections() == 0)


@on("server", homes(SERVERS), indirect=True)
def test_a_server_that_is_gone_is_unavailable(home: LedgerHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow tries again; the message names the server, and nothing of the login."""
    connection = home.connection()
    assert connection is not None
    connection |= {"port": 1, "password": "canary-password"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(connection))
    with pytest.raises(AmiliLedgerUnavailable, match="127.0.0.1.*reachable") as said:
        home.store().open()
    assert "canary" not in str(said.value)


# What goes wrong with a bucket


@pytest.mark.long  # its library tries for half a minute
@on("server", homes(OBJECTS), indirect=True)
def test_a_bucket_that_is_away_claims_nothing(home: LedgerHome, store: LedgerStore) -> None:
    """An error that names the ledger; once it is back, the file is free and can be claimed."""
    assert isinstance(home, ObjectHome)
    wire = home.backend.wire
    assert wire is not None
    wire.cut()
    try:
        for operation in (lambda: store.claim([an_attempt()], 600), lambda: _found(store, an_attempt())):
            with pytest.raises(AmiliLedgerUnavailable, match="The ledger cannot (write|read) .*ledger"):
                operation()
    finally:
        wire.mend()
    assert _state(store, an_attempt()) is LedgerState.FREE
    assert store.claim([an_attempt(owner="b" * 32)], 600) == set()


def test_a_store_without_conditional_writes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would let two tasks create one object: neither a new ledger nor an old one can be used there."""
    write = S3Client.write
    monkeypatch.setattr(S3Client, "write", lambda *given, **_new: write(*given, new=False))
    for home in _with_scratch(MotoHome):
        assert isinstance(home, ObjectHome)
        home.begin()
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(home.connection()))
        for opening in ("create", "open"):
            with pytest.raises(ValueError, match=r"does not refuse to create an object.*Use a database"):
                getattr(home.store(), opening)()
            assert home.backend.read("ledger/ledger.json") is None or opening == "open"
            who = {"format": 1, "ledger_id": "0" * 32, "created_at": "2026-11-01T00:00:00.000Z"}
            home.backend.put("ledger/ledger.json", json.dumps(who).encode())
        home.end()


@on("server", homes(OBJECTS), indirect=True)
def test_an_answer_to_the_probe_that_is_lost(
    home: ObjectHome, store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library asks once more and is told that the object exists: it is the probe's own, and the store is fit."""
    assert store
    put = ObjectFiles.put

    def twice(files: ObjectFiles, path: str, data: bytes, *, new: bool) -> None:
        put(files, path, data, new=new)
        if data == b"first":
            raise FileExistsError(path)

    monkeypatch.setattr(ObjectFiles, "put", twice)
    with closing(home.store()) as other:
        assert other.open()


@on("server", homes(SQL), indirect=True)
def test_the_statements_of_the_guide_run(home: SqlHome, store: LedgerStore) -> None:
    """What the ledger's page shows accounting gives the same on each database; what it erases is not forgotten."""
    shown = all_shown()

    def ask(name: str, *changes: tuple[str, str]) -> list[Any]:
        statement = shown[name].replace("amili_attempts", home.table)
        for word, other in changes:
            assert word in statement
            statement = statement.replace(word, other)
        return home.run(statement)

    whose: dict[str, Any] = {"environment": "production", "client_no": "2218"}
    ends = {"INVOICE_1042.csv": ACCEPTED, "lost.csv": LOST, "bad.csv": REFUSED}
    attempts = [an_attempt(name, name=name, **whose) for name in ends]
    store.claim(attempts, 720.0)
    for attempt, verdict in zip(attempts, ends.values(), strict=True):
        attempt.settle(verdict)
    attempts[0].uploaded_at = "2026-11-02T23:59:59.999Z"
    store.settle(attempts)
    assert [row[:3] for row in ask("sent")] == [("INVOICE_1042.csv", "uploaded", "2026-11-02T23:59:59.999Z")]
    assert ask("days") == [("2026-11-02", attempts[0].file_type, 1, attempts[0].size)]
    assert [row[0] for row in ask("unknown")] == ["lost.csv"]
    assert [row[0] for row in ask("rejected")] == ["bad.csv"]
    assert ask("people") == []
    name = "missing on postgresql" if home.name == "postgres" else "missing on sqlite"
    next_day = ("date(day, '+1 day')", "date_add(day, INTERVAL 1 DAY)")
    missing = [row[0] for row in ask(name, *[next_day] * (home.name == "mariadb"))]
    assert missing == [f"2026-11-{day:02}" for day in range(1, 31) if day != 2]
    ask("erasure", ("2021-01-01", "2999-01-01"))
    found = store.look_up("production", "2218", [a.file_id for a in attempts]).attempts
    assert [found[a.file_id][0].name for a in attempts] == ["", "lost.csv", ""]
    assert [found[a.file_id][0].outcome for a in attempts] == [v.outcome for v in ends.values()]
