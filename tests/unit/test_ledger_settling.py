"""What people do with a ledger: ask it, settle, adopt, export and import."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amili_provider.api.responses import Asked
from amili_provider.api.results import FileResult, Vocabulary
from amili_provider.exceptions import AmiliConnectionError, AmiliResponseError, AmiliStorageError
from amili_provider.ledger import Attempt, ClaimLost, Ledger, LedgerState, Origin, questions, settling, transfer
from amili_provider.ledger.attempts import Run, timestamp
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.ledger import MARGIN_SECONDS
from amili_provider.ledger.settling import Person
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.state import Disregard
from amili_provider.ledger.stores import LedgerStore, MemoryStore, Query
from amili_provider.receipts import Outcome, Verdict
from tests.ledger_cases import (
    ACCEPTED,
    FILE_TYPE,
    LOST,
    REFUSED,
    Clock,
    an_attempt,
    facts,
    file_id_of,
    ledger_over,
    memory_ledger,
    other_run,
)

KARI = Person("kari", "seen in the portal", login="Airflow user k.nordmann")


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ledger")
def _ledger(clock: Clock) -> Ledger:
    return memory_ledger(clock)


@pytest.fixture(name="any_store", params=["memory", "sqlite"])
def _any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerStore]:
    """A store of each kind that needs no server."""
    store: LedgerStore = MemoryStore()
    if request.param == "sqlite":
        store = sqlite_store(tmp_path / "ledger.db")
    store.create()
    yield store
    store.close()


def sqlite_store(path: Path) -> SqlStore:
    """Return a store in a file of SQLite."""
    return SqlStore(sqlite_engine(str(path), create=True), shown=f"sqlite:///{path}", path=str(path))


def _attempt(ledger: Ledger, content: bytes, *ends: Verdict | None, **more: Any) -> str:
    """Make an attempt for each of *ends*, None for one that is claimed and left so; return the file's id."""
    claim = facts(content, name=f"{content.decode()}.csv", **more)
    file_id = file_id_of(ledger, claim)
    for end in ends:
        claims = ledger.claim([(ledger.look_up([file_id])[file_id], claim)])
        if end is not None:
            ledger.settle([(claims[0], end)])
    return file_id


def _sent_again(ledger: Ledger, file_id: str, content: bytes, end: Verdict, *, name: str = "") -> None:
    """Make an attempt at a file that is unknown, in another run and with request #2."""
    claim = replace(facts(content, name=name or f"{content.decode()}.csv", run=other_run()), request="#2")
    known = ledger.look_up([file_id], chain=claim.run.chain, disregard=Disregard.UNKNOWN)[file_id]
    ledger.settle([(ledger.claim([(known, claim)])[0], end)])


def _state(ledger: Ledger, file_id: str) -> LedgerState:
    return ledger.look_up([file_id])[file_id].state


def _entries(store: LedgerStore) -> list[Attempt]:
    return list(store.history(Query()))


# Unknown


def test_unknown_files_are_listed_with_all_that_is_known(ledger: Ledger, clock: Clock) -> None:
    """Lost answers and expired claims, the oldest first; nothing that is accepted, live or settled since."""
    lost = _attempt(ledger, b"lost", REFUSED, LOST)
    clock.now += 1
    expired = _attempt(ledger, b"expired", None)
    settling.settle(ledger, KARI, arrived=True, file_ids=[_attempt(ledger, b"settled", LOST)])
    _attempt(ledger, b"accepted", ACCEPTED)
    clock.now += 600 + MARGIN_SECONDS
    _attempt(ledger, b"live", None)
    found = questions.unknown(ledger.store)
    assert [row["file_id"] for row in found] == [lost, expired]
    assert (found[0]["name"], found[0]["client_no"], found[0]["dag_id"]) == ("lost.csv", "10042", "etl")
    assert "attempt 2" in found[0]["known"]
    assert "The connection ended before the answer." in found[0]["known"]
    assert "no answer recorded" in found[1]["known"]
    assert json.dumps(found)


def test_unknown_files_are_listed_per_client_and_environment(any_store: LedgerStore) -> None:
    """A ledger may hold several clients and environments."""
    for environment, client_no in (("staging", "10042"), ("staging", "7"), ("production", "10042")):
        one = ledger_over(any_store, Clock(), environment=environment, client_no=client_no)
        _attempt(one, b"lost", LOST)

    def listed(**only: str) -> list[str]:
        return sorted(row["client_no"] for row in questions.unknown(any_store, **only))

    assert listed() == ["10042", "10042", "7"]
    assert listed(environment="staging") == ["10042", "7"]
    assert listed(client_no="7") == ["7"]
    assert listed(environment="nowhere", client_no="7") == []


# Settling


@pytest.mark.parametrize(
    ("arrived", "state", "outcome"), [(True, LedgerState.UPLOADED, "uploaded"), (False, LedgerState.FREE, "not_sent")]
)
def test_a_person_settles_what_they_found_out(
    any_store: LedgerStore, arrived: bool, state: LedgerState, outcome: str
) -> None:
    """Who, as whom, when and why are on record; arrived is never sent again, not arrived is sent by the next run."""
    ledger = ledger_over(any_store, Clock())
    file_id = _attempt(ledger, b"lost", LOST)
    person = Person("kari", " seen in the portal ", login="Airflow user k", run=Run(dag_id="amili_ledger"))
    (row,) = settling.settle(ledger, person, arrived=arrived, file_ids=[f" {file_id.upper()} "])
    assert row == {"file_id": file_id, "name": "lost.csv", "outcome": outcome, "note": "settled now"}
    assert _state(ledger, file_id) is state
    lost, settled = ledger.look_up([file_id])[file_id].attempts
    assert (settled.settled_by, settled.reason) == ("kari (Airflow user k)", "seen in the portal")
    assert (settled.origin, settled.resolves, settled.dag_id) == (Origin.PERSON, (1,), "amili_ledger")
    assert (settled.name, settled.source) == ("lost.csv", "s3://invoices/lost.csv")
    assert settled.uploaded_at == (lost.claimed_at if arrived else None)
    assert questions.unknown(any_store) == []


@pytest.mark.parametrize("arrived", [True, False])
def test_saying_the_same_again_changes_nothing(any_store: LedgerStore, arrived: bool) -> None:
    """It is no error, and no entry, whoever says it."""
    ledger = ledger_over(any_store, Clock())
    ids = [_attempt(ledger, content, LOST) for content in (b"one", b"two")]
    settling.settle(ledger, KARI, arrived=arrived, file_ids=ids[:1])
    rows = settling.settle(ledger, KARI, arrived=arrived, file_ids=ids)
    assert [row["note"].partition(":")[0] for row in rows] == ["settled before", "settled now"]
    before = _entries(any_store)
    rows = settling.settle(ledger, Person("ola", "asked"), arrived=arrived, file_ids=ids)
    assert all("settled by kari" in row["note"] for row in rows)
    assert _entries(any_store) == before


def test_a_request_or_a_run_is_settled_whole(any_store: LedgerStore) -> None:
    """Those files of it whose answer was lost, and no others; again, it changes nothing."""
    ledger = ledger_over(any_store, Clock())
    lost = [_attempt(ledger, content, LOST) for content in (b"one", b"two")]
    fine = _attempt(ledger, b"fine", ACCEPTED)
    other = _attempt(ledger, b"other", LOST, run=other_run())
    for times in ("settled now", "settled before"):
        rows = settling.settle(ledger, KARI, arrived=False, run=("etl", "2026-11-22"))
        assert {row["file_id"]: row["note"].partition(":")[0] for row in rows} == dict.fromkeys(lost, times)
    assert [_state(ledger, i) for i in (*lost, fine, other)] == [
        *[LedgerState.FREE] * 2, LedgerState.UPLOADED, LedgerState.UNKNOWN,
    ]  # fmt: skip
    rows = settling.settle(ledger, KARI, arrived=False, request=facts().request)
    assert sorted(row["file_id"] for row in rows) == sorted([*lost, other])
    with pytest.raises(ValueError, match="Nothing was settled: 2 of 2 .* was settled otherwise before"):
        settling.settle(ledger, KARI, arrived=True, run=("etl", "2026-11-22"))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("chosen", [{"run": ("etl", "2026-11-22")}, {"request": facts().request}])
def test_after_some_by_their_ids_the_rest_is_settled_by_request_or_run(
    any_store: LedgerStore, chosen: dict[str, Any], first: bool
) -> None:
    """What was settled otherwise before stays as it is, in words; but not all of it may be."""
    ledger = ledger_over(any_store, Clock())
    one, two, three = (_attempt(ledger, content, LOST) for content in (b"one", b"two", b"three"))
    settling.settle(ledger, KARI, arrived=first, file_ids=[one])
    outcomes = {True: "uploaded", False: "not_sent"}
    for times in ("settled now", "settled before"):
        rows = {row["file_id"]: row for row in settling.settle(ledger, KARI, arrived=not first, **chosen)}
        assert {i: row["note"].partition(":")[0] for i, row in rows.items()} == {
            one: "left as it is", two: times, three: times,
        }  # fmt: skip
        assert (rows[one]["outcome"], rows[two]["outcome"]) == (outcomes[first], outcomes[not first])
    before = _entries(any_store)
    settling.settle(ledger, KARI, arrived=first, **chosen)
    assert _entries(any_store) == before


@pytest.mark.parametrize("chosen", [{"run": ("etl", "2026-11-22")}, {"request": "#1"}])
def test_what_was_sent_once_more_is_not_settled_with_the_request_before(
    any_store: LedgerStore, chosen: dict[str, Any]
) -> None:
    """A person who speaks of one request says nothing of another, whose answer was lost, too."""
    ledger = ledger_over(any_store, Clock())
    one, two = (_attempt(ledger, content, LOST) for content in (b"one", b"two"))
    settling.settle(ledger, KARI, arrived=False, file_ids=[one])
    _sent_again(ledger, one, b"one", LOST)
    for times in ("settled now", "settled before"):
        rows = {row["file_id"]: row for row in settling.settle(ledger, KARI, arrived=True, **chosen)}
        assert (rows[one]["outcome"], rows[two]["outcome"]) == ("not_sent", "uploaded")
        words = "left as it is; it stays unknown, for it was also sent with #2: attempt 2 (not_sent"
        assert rows[one]["note"].startswith(words)
        assert rows[two]["note"].partition(":")[0] == times
    assert (_state(ledger, one), ledger.look_up([one])[one].open) == (LedgerState.UNKNOWN, (3,))
    (row,) = settling.settle(ledger, KARI, arrived=True, request="#2")
    assert (row["note"], _state(ledger, one)) == ("settled now", LedgerState.UPLOADED)


def test_said_again_of_a_file_that_was_sent_once_more_it_stays_unknown(any_store: LedgerStore) -> None:
    """Each time the row says so, with the request that is left."""
    ledger = ledger_over(any_store, Clock())
    one = _attempt(ledger, b"one", LOST)
    _sent_again(ledger, one, b"one", LOST)
    stays = "; it stays unknown, for it was also sent with #2"
    for note in (f"settled now{stays}", f"settled before{stays}: attempt 3 (not_sent"):
        (row,) = settling.settle(ledger, KARI, arrived=False, request="#1")
        assert row["note"].startswith(note)
    with pytest.raises(ValueError, match="was settled otherwise before"):
        settling.settle(ledger, KARI, arrived=True, request="#1")
    assert _state(ledger, one) is LedgerState.UNKNOWN


@pytest.mark.parametrize("end", [LOST, ACCEPTED])
@pytest.mark.parametrize("arrived", [True, False])
def test_equal_bytes_under_two_names_are_settled_name_by_name(
    any_store: LedgerStore, end: Verdict, arrived: bool
) -> None:
    """What became of one name says nothing of the other, whose outcome a person can still settle."""
    ledger = ledger_over(any_store, Clock())
    both = _attempt(ledger, b"a", LOST)
    _sent_again(ledger, both, b"a", end, name="b.csv")
    (row,) = questions.unknown(any_store)
    assert (row["file_id"], "#1" in row["known"]) == (both, True)
    (row,) = settling.settle(ledger, KARI, arrived=arrived, request="#1")
    assert (row["name"], row["note"].partition(";")[0]) == ("a.csv", "settled now")
    known = ledger.look_up([both])[both]
    assert known.open == ((2,) if end is LOST else ())
    assert (known.accepted_elsewhere("a.csv") is None) is (arrived or end is LOST)
    if end is LOST:
        settling.settle(ledger, KARI, arrived=True, request="#2")
        assert questions.unknown(any_store) == []
        assert ledger.look_up([both])[both].accepted_elsewhere("b.csv") is None


def test_nothing_of_a_request_is_settled_while_a_file_of_it_is_sent(any_store: LedgerStore) -> None:
    """Its outcome comes: what a person says now of all may be wrong of this one."""
    ledger = ledger_over(any_store, Clock())
    lost, sending = _attempt(ledger, b"lost", LOST), _attempt(ledger, b"sending", None)
    with pytest.raises(ValueError, match=f"Nothing was settled: 1 of 2 .*{sending} may be on its way"):
        settling.settle(ledger, KARI, arrived=True, request=facts().request)
    assert _state(ledger, lost) is LedgerState.UNKNOWN


@pytest.mark.parametrize(
    ("ends", "arrived", "why"),
    [
        ((ACCEPTED,), False, "is known to be at Amili"),
        ((REFUSED,), False, "is not unknown"),
        ((LOST,), None, "is not unknown"),
        ((None,), True, "may be on its way at this moment"),
        ((), True, "is not in this ledger"),
    ],
)
def test_all_or_nothing_is_settled(
    any_store: LedgerStore, ends: Sequence[Verdict | None], arrived: bool | None, why: str
) -> None:
    """One file that cannot be settled so, and none is: nobody overrules Amili, a living task or another person."""
    ledger = ledger_over(any_store, Clock())
    good, bad = _attempt(ledger, b"good", LOST), _attempt(ledger, b"bad", *ends)
    if arrived is None:
        settling.settle(ledger, KARI, arrived=False, file_ids=[bad])
    before = _entries(any_store)
    with pytest.raises(ValueError, match=rf"Nothing was settled: 1 of 2 file.*{bad} {why}"):
        settling.settle(ledger, KARI, arrived=arrived is not False, file_ids=[good, bad])
    assert _entries(any_store) == before


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({}, "in one way"),
        ({"file_ids": ["a" * 32], "request": "x"}, "in one way"),
        ({"file_ids": ["invoice.csv"]}, "'invoice.csv' is not the id of a file"),
        ({"file_ids": ["../../etc/passwd"]}, "is not the id of a file"),
        ({"request": "nope"}, "no attempt of request 'nope' in the ledger memory of client 10042 in staging"),
        ({"run": ("etl", "yesterday")}, "no attempt of DAG 'etl', run 'yesterday'"),
        ({"run": ("etl", "2026-11-22")}, "No file of DAG 'etl', run '2026-11-22' was left without an outcome"),
    ],
)
def test_what_names_no_unknown_file_is_refused(ledger: Ledger, chosen: dict[str, Any], words: str) -> None:
    """In words, and nothing is written."""
    _attempt(ledger, b"fine", ACCEPTED)
    with pytest.raises(ValueError, match=words):
        settling.settle(ledger, KARI, arrived=True, **chosen)
    assert len(_entries(ledger.store)) == 1


@pytest.mark.parametrize("said", [(" ", "x"), ("x", "")])
def test_nobody_settles_anonymously(said: tuple[str, str]) -> None:
    """The ledger is an accounting trail: who and why are not optional."""
    with pytest.raises(ValueError, match=r"'(Who says so|How you know)' is empty"):
        Person(*said)


def test_somebody_else_may_be_faster(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people settle at once: one of them is told."""
    file_id = _attempt(ledger, b"lost", LOST)
    before = ledger.look_up([file_id])
    settling.settle(ledger, KARI, arrived=True, file_ids=[file_id])
    monkeypatch.setattr(ledger, "look_up", lambda _: before)
    with pytest.raises(ValueError, match="changed by somebody else at this moment"):
        settling.settle(ledger, KARI, arrived=False, file_ids=[file_id])


# Asking Amili


class Amili:
    """An Amili that knows results."""

    vocabulary = Vocabulary()

    def __init__(self, results: dict[str, Asked | Exception]) -> None:
        self.results = results

    def ask_for_result(self, client_no: str, file_id: str) -> Asked:
        """Return what it knows."""
        assert client_no == "10042"
        found = self.results[file_id]
        if isinstance(found, Exception):
            raise found
        return found


def _asked(status: str, result: str, file_id: str = "") -> Asked:
    found = FileResult(file_id=file_id, status=status, result=result, message="said Amili")
    return Asked(found, not_found=False, status_code=200)


def test_amili_is_asked_for_what_is_unknown(ledger: Ledger) -> None:
    """Only results that are final, and about the attempt that is asked about, settle a file."""
    ids = {
        name: _attempt(ledger, name.encode(), *ends)
        for name, ends in {
            "arrived": (LOST,), "refused": (LOST,), "pending": (LOST,), "nowhere": (LOST,), "odd": (LOST,),
            "again": (REFUSED, LOST),
        }.items()
    }  # fmt: skip
    amili = Amili(
        {
            ids["arrived"]: _asked("PROCESSED", "CREATED"),
            ids["refused"]: _asked("FAILED", "REJECTED"),
            ids["pending"]: _asked("QUEUED", "PENDING"),
            ids["nowhere"]: Asked(None, not_found=True, status_code=404),
            ids["odd"]: AmiliResponseError("The answer is about another file."),
            ids["again"]: _asked("FAILED", "REJECTED"),
        }
    )
    rows = {row["file_id"]: row for row in settling.check(ledger, amili)}  # type: ignore[arg-type]
    assert {name: rows[i]["outcome"] for name, i in ids.items()} == {
        "arrived": "uploaded", "refused": "rejected", "pending": "unknown", "nowhere": "unknown", "odd": "unknown",
        "again": "unknown",
    }  # fmt: skip
    assert rows[ids["arrived"]]["note"] == "PROCESSED/CREATED: said Amili"
    assert "does not know the file" in rows[ids["nowhere"]]["note"]
    assert "another file" in rows[ids["odd"]]["note"]
    assert "earlier attempt" in rows[ids["again"]]["note"]
    assert {row["file_id"] for row in questions.unknown(ledger.store)} == set(ids.values()) - {
        ids["arrived"],
        ids["refused"],
    }


def test_an_amili_that_cannot_be_asked_ends_the_check(ledger: Ledger, clock: Clock) -> None:
    """What it told before stays; the others are as unknown as they were."""
    first = _attempt(ledger, b"first", LOST)
    clock.now += 1
    second = _attempt(ledger, b"second", LOST)
    amili = Amili({first: _asked("PROCESSED", "CREATED"), second: AmiliConnectionError("Amili does not answer.")})
    rows: list[Any] = []
    with pytest.raises(AmiliConnectionError, match="does not answer"):
        rows.extend(settling.check(ledger, amili))  # type: ignore[arg-type]
    assert [row["file_id"] for row in rows] == [first]
    assert (_state(ledger, first), _state(ledger, second)) == (LedgerState.UPLOADED, LedgerState.UNKNOWN)


# Finding and counting


@pytest.mark.parametrize("text", ["Invoice_1%", "INVOICES/invoice_1%.csv", "sha256", "file_id"])
def test_a_file_is_found_by_any_part_of_what_is_known(any_store: LedgerStore, text: str) -> None:
    """Name, path, hash and id; what has a place in a pattern of SQL is a character like others."""
    ledger = ledger_over(any_store, Clock())
    for name in ("invoice_1%.csv", "invoiceX1Y.csv"):
        claim = facts(name.encode(), name=name)
        file_id = file_id_of(ledger, claim)
        (one,) = ledger.claim([(ledger.look_up([file_id])[file_id], claim)])
        ledger.settle([(one, ACCEPTED)])
    wanted = facts(b"invoice_1%.csv")
    words = {"sha256": wanted.sha256[:9].upper(), "file_id": file_id_of(ledger, wanted)}.get(text, text)
    (row,) = questions.find(any_store, f" {words} ")
    assert (row["name"], row["outcome"], row["result"], row["dag_id"]) == (
        "invoice_1%.csv",
        "uploaded",
        "CREATED",
        "etl",
    )
    assert json.dumps(row)


def test_each_attempt_says_what_became_of_it(ledger: Ledger, clock: Clock) -> None:
    """The newest first, and in words what a claim without an outcome means."""
    _attempt(ledger, b"a", REFUSED)
    clock.now += 1
    settled = _attempt(ledger, b"a settled", LOST)
    settling.settle(ledger, KARI, arrived=True, file_ids=[settled])
    clock.now += 1
    _attempt(ledger, b"a lost", LOST)
    _attempt(ledger, b"a live", None)
    outcomes = [(row["name"], row["outcome"]) for row in questions.find(ledger.store, ".CSV")]
    assert sorted(outcomes[:2]) == [("a live.csv", "being sent"), ("a lost.csv", "unknown")]
    assert sorted(outcomes[2:4]) == [("a settled.csv", "unknown, settled since"), ("a settled.csv", "uploaded")]
    assert outcomes[4:] == [("a.csv", "rejected")]
    clock.now += 600 + MARGIN_SECONDS
    assert questions.find(ledger.store, "a live")[0]["outcome"] == "unknown"
    with pytest.raises(ValueError, match="Name what to find"):
        questions.find(ledger.store, " ")


def test_days_are_counted(ledger: Ledger, clock: Clock) -> None:
    """By file and by the day on which Amili accepted it, whatever was found out when."""
    day = timestamp(clock.now)[:10]
    _attempt(ledger, b"12345", ACCEPTED)
    _attempt(ledger, b"123", REFUSED, REFUSED)
    arrived, lost = _attempt(ledger, b"1", LOST), _attempt(ledger, b"22", LOST)
    _attempt(ledger, b"not sent", Verdict(Outcome.NOT_SENT))
    clock.now += 86400
    settling.settle(ledger, KARI, arrived=True, file_ids=[arrived])
    _attempt(ledger, b"live", None)
    usual = {"day": day, "client_no": "10042", "file_type": FILE_TYPE}
    counts = {"uploaded": 2, "rejected": 1, "unknown": 1, "adopted": 0, "bytes": 6}
    assert questions.report(ledger.store, clock=clock) == [usual | counts]
    assert questions.report(ledger.store, since=day, until=day, clock=clock) == [usual | counts]
    settling.settle(ledger, KARI, arrived=False, file_ids=[lost])
    assert questions.report(ledger.store, since=day, clock=clock)[0]["unknown"] == 0
    assert questions.report(ledger.store, until="2020-01-01", clock=clock) == []
    with pytest.raises(ValueError, match="'yesterday' is no day"):
        questions.report(ledger.store, since="yesterday")


# Adopting


def test_adopted_files_are_never_sent(tmp_path: Path, any_store: LedgerStore) -> None:
    """What matches is known as delivered, each under its name, also where two hold the same bytes."""
    ledger = ledger_over(any_store, Clock())
    sent = tmp_path / "sent"
    sent.mkdir()
    for name, content in (("a.csv", b"one"), ("two.csv", b"two"), ("copy of a.csv", b"one")):
        (sent / name).write_bytes(content)
    _attempt(ledger, b"two", ACCEPTED)

    def adopt(**more: Any) -> list[str]:
        rows = transfer.adopt(ledger, KARI, f"{sent.as_uri()}/*.csv", file_type=FILE_TYPE, **more)
        assert json.dumps(rows)
        return sorted(row["outcome"] for row in rows)

    assert adopt(dry_run=True) == ["already_uploaded", "would_be_adopted", "would_be_adopted"]
    assert adopt() == ["adopted", "adopted", "already_uploaded"]
    assert adopt() == ["already_uploaded"] * 3
    file_id = file_id_of(ledger, facts(b"one"))
    (entry,) = ledger.look_up([file_id])[file_id].attempts
    assert (entry.origin, entry.settled_by, entry.size) == (Origin.ADOPTED, KARI.on_record, 3)
    assert ledger.has_size(3)
    assert [row["adopted"] for row in questions.report(any_store)] == [2]


def test_adopting_settles_unknowns_and_leaves_live_claims(tmp_path: Path, ledger: Ledger) -> None:
    """A person who says that all of this was delivered settles what was unknown, but overrules no living task."""
    for name in ("lost", "live"):
        (tmp_path / f"{name}.csv").write_bytes(name.encode())
    lost, live = _attempt(ledger, b"lost", LOST), _attempt(ledger, b"live", None)
    done = transfer.adopt(ledger, KARI, f"{tmp_path.as_uri()}/*.csv", file_type=FILE_TYPE)
    assert {row["file_id"]: row["outcome"] for row in done} == {lost: "adopted", live: "in_flight"}
    assert (_state(ledger, lost), _state(ledger, live)) == (LedgerState.UPLOADED, LedgerState.IN_FLIGHT)


def test_adopting_one_name_leaves_another_of_the_same_bytes_unknown(tmp_path: Path, ledger: Ledger) -> None:
    """What was lost under the second name may have arrived, too: forgotten, it would be sent twice."""
    (tmp_path / "a.csv").write_bytes(b"a")
    both = _attempt(ledger, b"a", LOST)
    _sent_again(ledger, both, b"a", LOST, name="b.csv")
    (row,) = transfer.adopt(ledger, KARI, f"{tmp_path.as_uri()}/*.csv", file_type=FILE_TYPE)
    known = ledger.look_up([both])[both]
    assert (row["outcome"], known.state, known.open) == ("adopted", LedgerState.UPLOADED, (2,))


def test_adopting_nothing_is_an_error_where_nothing_can_be(tmp_path: Path, ledger: Ledger) -> None:
    """A folder that does not exist is not a folder without files, and a type must be named."""
    with pytest.raises((FileNotFoundError, AmiliStorageError)):
        transfer.adopt(ledger, KARI, f"{tmp_path.as_uri()}/missing/*.csv", file_type=FILE_TYPE)
    with pytest.raises(ValueError, match="'File type' is empty"):
        transfer.adopt(ledger, KARI, tmp_path.as_uri(), file_type=" ")


def test_a_race_while_adopting_is_told(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery claims the bytes between look-up and adoption: it is in flight, not adopted."""
    (tmp_path / "a.csv").write_bytes(b"one")
    resolve = ledger.resolve

    def overtaken(*args: Any, **more: Any) -> Attempt:
        monkeypatch.setattr(ledger, "resolve", resolve)
        _attempt(ledger, b"one", None)
        return resolve(*args, **more)

    monkeypatch.setattr(ledger, "resolve", overtaken)
    (row,) = transfer.adopt(ledger, KARI, f"{tmp_path.as_uri()}/a.csv", file_type=FILE_TYPE)
    assert row["outcome"] == "in_flight"
    with pytest.raises(ClaimLost):
        _attempt(ledger, b"one", ACCEPTED)


# Export and import


def _filled(store: LedgerStore) -> Ledger:
    ledger = ledger_over(store, Clock())
    _attempt(ledger, b"a", REFUSED, ACCEPTED)
    _attempt(ledger, b"c", REFUSED)
    settling.settle(ledger, KARI, arrived=True, file_ids=[_attempt(ledger, b"b", LOST)])
    expired = ledger_over(store, Clock(), answer_timeout=-MARGIN_SECONDS, client_no="7")
    _attempt(expired, b"d", None)
    return ledger


def test_an_imported_ledger_knows_all_that_the_first_knew(any_store: LedgerStore, tmp_path: Path) -> None:
    """Every attempt, whole, from any store to any other; importing twice changes nothing."""
    _filled(any_store)
    lines = list(transfer.export(any_store))
    assert [json.loads(lines[0])["ledger_id"], json.loads(lines[-1])] == [any_store.open().ledger_id, {"attempts": 6}]
    for other in (MemoryStore(), sqlite_store(tmp_path / "other.db")):
        other.create()
        done = transfer.import_lines(other, lines)
        assert (done.written, done.same, done.differing) == (6, 0, [])
        assert _entries(other) == _entries(any_store)
        done = transfer.import_lines(other, lines)
        assert (done.written, done.same, done.differing) == (0, 6, [])
        other.close()


def test_an_import_overwrites_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Another ledger's entry is not ours to replace: it is named."""
    _filled(ledger.store)
    with_other = sqlite_store(tmp_path / "other.db")
    with_other.create()
    file_id = _attempt(ledger_over(with_other, Clock()), b"a", LOST)
    done = transfer.import_lines(with_other, transfer.export(ledger.store))
    assert (done.written, done.same, done.differing) == (5, 0, [f"{file_id}.1"])
    first = next(a for a in _entries(with_other) if (a.file_id, a.attempt) == (file_id, 1))
    assert first.outcome is Outcome.UNKNOWN
    with_other.close()


def test_a_ledger_in_use_is_not_exported(ledger: Ledger) -> None:
    """The outcome of a live claim is yet to come, also of one that is made meanwhile."""
    _attempt(ledger, b"a", ACCEPTED)
    exporting = transfer.export(ledger.store)
    next(exporting)
    next(exporting)
    _attempt(ledger, b"meanwhile", ACCEPTED)
    with pytest.raises(ValueError, match="the ledger has changed. Pause the DAGs"):
        list(exporting)
    live = _attempt(ledger, b"live", None)
    with pytest.raises(ValueError, match=f"1 claim\\(s\\) are live \\({live}\\). Pause the DAGs"):
        list(transfer.export(ledger.store))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], "not whole: it ends after 6 attempt"),
        (lambda lines: [*lines[:2], *lines[3:]], "not whole: it ends after 5 attempt"),
        (lambda lines: lines[1:], "no export of a ledger"),
        (lambda lines: [], "no export of a ledger"),
        (lambda lines: [*lines[:2], lines[2][:40]], "Line 3 is no entry"),
        (lambda lines: [*lines[:2], '{"attempt": 1}\n'], "Line 3 is no attempt of a ledger: field"),
        (lambda lines: [lines[0].replace('"format": 1', '"format": 2'), *lines[1:]], "names format 2"),
    ],
)
def test_an_export_that_is_not_whole_is_refused(ledger: Ledger, change: Any, words: str) -> None:
    """A file that was cut off, edited or is something else never passes for a ledger."""
    _filled(ledger.store)
    other = MemoryStore()
    other.create()
    with pytest.raises(ValueError, match=words):
        transfer.import_lines(other, change(list(transfer.export(ledger.store))))


@pytest.mark.parametrize(("since", "until", "found"), [
    ("2026-11-22", "2026-11-22", True), ("2026-11-22", None, True), (None, "2026-11-22", True),
    (None, "2026-11-21", False), ("2026-11-23", None, False),
])  # fmt: skip
@pytest.mark.parametrize(
    "claimed", ["2026-11-21T23:59:58.000Z", "2026-11-26T09:00:00.000Z"], ids=["midnight", "settled"]
)
def test_a_file_is_found_on_the_day_that_is_shown(
    any_store: LedgerStore, claimed: str, since: str | None, until: str | None, found: bool
) -> None:
    """Accepted after midnight, or settled days later: it counts on the day of its acceptance, as in the report."""
    attempt = an_attempt(b"1", name="invoice-1042.csv")
    attempt.settle(ACCEPTED)
    attempt.claimed_at, attempt.expires_at = claimed, claimed
    attempt.settled_at, attempt.uploaded_at = claimed, "2026-11-22T00:00:03.000Z"
    any_store.restore([attempt])
    rows = questions.find(any_store, "1042", since=since, until=until)
    assert [row["when"][:10] for row in rows] == ["2026-11-22"] * found
    assert bool(questions.report(any_store, since=since, until=until)) is found
