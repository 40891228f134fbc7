"""What the Deliveries page asks a ledger in a database: SQLite, PostgreSQL, MariaDB."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from amili_provider.ledger import Attempt, questions
from amili_provider.ledger.attempts import Origin, timestamp
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.state import LedgerState
from amili_provider.receipts import Verdict
from amili_provider.ui import cut
from amili_provider.ui.answers import Page, Row, Totals
from amili_provider.ui.filters import KINDS, Filter
from amili_provider.ui.queries import DAYS, Deliveries
from tests.ledger_cases import ACCEPTED, LOST, NOT_SENT, REFUSED, an_attempt
from tests.storage.backends.ledgers import CONN_ID, HOMES, Server, SqlHome, homes, running_home

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
_SQL = {name: HOMES[name] for name in ("sqlite", "postgres", "mariadb")}


@pytest.fixture(name="server", scope="module", params=homes(_SQL))
def _server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A running database."""
    scratch = Path(tempfile.mkdtemp(prefix="amili-deliveries-"))
    scratch.chmod(0o755)
    try:
        yield from running_home(_SQL[request.param], scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(name="home")
def _home(server: SqlHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlHome]:
    """The database with a name for this test under which there is no ledger."""
    server.begin()
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(server.connection()))
    yield server
    server.end()


@pytest.fixture(name="store")
def _store(home: SqlHome) -> SqlStore:
    """An empty ledger, opened to be read."""
    home.store(create=True).create()
    store = home.store()
    store.open(read_only=True)
    assert isinstance(store, SqlStore)
    return store


def _asked(store: SqlStore) -> Deliveries:
    return Deliveries(store, "staging", clock=NOW.timestamp)


def _at(when: datetime, verdict: Verdict | None, name: str = "invoice.csv", number: int = 1, **more: Any) -> Attempt:
    """Return an attempt that was claimed at a moment, for an hour."""
    made = an_attempt(more.pop("content", name), number=number, **{"name": name, "source": f"s3://b/{name}"} | more)
    if verdict is not None:
        made.settle(verdict)
    made.stamp(when.timestamp(), 3600)
    return made


def _names(rows: Any) -> list[str]:
    return [row.attempt.name for row in rows]


_MAKERS: dict[str, tuple[Verdict | None, timedelta]] = {
    "delivered": (ACCEPTED, timedelta(days=1)),
    "rejected": (REFUSED, timedelta(days=1)),
    "not sent": (NOT_SENT, timedelta(days=1)),
    "lost": (LOST, timedelta(days=1)),
    "expired": (None, timedelta(days=1)),
    "live": (None, timedelta(minutes=1)),
    "settled as refused": (REFUSED, timedelta(days=1)),
    "delivered as B": (ACCEPTED, timedelta(days=1)),
    "lost as b": (LOST, timedelta(days=1)),
}


def _stories() -> Iterator[Attempt]:
    """Yield all files of up to three attempts, of every kind, of which one settles the first, and two have a name."""
    for length in (1, 2, 3):
        for story in itertools.product(_MAKERS, repeat=length):
            for number, kind in enumerate(story, 1):
                verdict, before = _MAKERS[kind]
                made = _at(NOW - before, verdict, ", ".join(story), number)
                made.name = f"{kind[-1]}.csv" if kind[-2:].lower() == " b" else "a.csv"
                if kind.startswith("settled") and number > 1:
                    made.resolves, made.origin = (1,), Origin.PERSON
                yield made


def test_the_database_says_of_each_attempt_what_the_rules_of_the_ledger_say(store: SqlStore) -> None:
    """Each kind's filter finds what the rules call so, in every history of three attempts, and nothing else."""
    store.restore(list(_stories()))
    with _asked(store) as ledger:
        rows = list(ledger.rows(Filter()))
        by_rule: dict[str, set[Any]] = {kind: set() for kind in KINDS}
        for row in rows:
            by_rule[row.kind].add(row.key)
        by_filter = {kind: {row.key for row in ledger.rows(Filter(kind=kind))} for kind in KINDS}
        totals = ledger.totals(Filter())
        not_delivered = {row.key for row in ledger.rows(Filter(undelivered=True))}
        number = ledger.totals(Filter(undelivered=True))
        strip = ledger.strip(Filter(), NOW.date()).totals()
    assert all(by_rule.values())
    assert by_filter == by_rule
    assert totals.counts == strip.counts == {kind: len(keys) for kind, keys in by_rule.items()}
    assert totals == Totals.of(Page(rows))
    assert not_delivered == {row.key for row in rows if row.file.state is not LedgerState.UPLOADED}
    assert sum(number.counts.values()) == len(not_delivered)
    # Of a file that Amili has, too: it was sent once more.
    assert {row.file.state for row in rows if row.kind == "unknown"} == {LedgerState.UNKNOWN, LedgerState.UPLOADED}


def test_pages_follow_each_other_by_key(store: SqlStore) -> None:
    """Pages hold every attempt once, the newest first, also those of one moment; what comes meanwhile shifts none."""
    moments = [NOW - timedelta(hours=n // 7) for n in range(40)]
    verdicts = (ACCEPTED, REFUSED, LOST, NOT_SENT, None)
    made = [_at(when, verdicts[n % 5], f"invoice {n}.csv") for n, when in enumerate(moments)]
    store.restore(made)
    seen: list[Row] = []
    with _asked(store) as ledger:
        page = ledger.page(Filter(), size=7)
        seen += page.rows
        store.restore([_at(NOW + timedelta(hours=1), ACCEPTED, "came meanwhile.csv")])
        while page.following is not None:
            page = ledger.page(Filter(), page.following, size=7)
            assert len(page.rows) <= 7
            seen += page.rows
    keys = [row.key for row in seen]
    assert keys == sorted(((a.claimed_at, a.file_id, a.attempt) for a in made), reverse=True)


def test_each_word_narrows_the_search(store: SqlStore) -> None:
    """A search finds by part of a name or path, hash, id, day, kind, type, DAG, run, client; and nothing else."""
    day = timedelta(days=1)
    wanted = _at(NOW - 3 * day, REFUSED, "Invoice_100%_ØST.csv", source="sftp://partner/Outbox/x", dag_id="etl_1",
                 run_id="r1", file_type="PdfFile", client_no="77")  # fmt: skip
    others = [
        _at(NOW - 3 * day, ACCEPTED, "invoiceX1000_.csv"),
        _at(NOW - 2 * day, ACCEPTED, "b.csv"),
        _at(NOW - 4 * day, ACCEPTED, "c.csv"),
    ]
    store.restore([wanted])
    store.restore(others)
    found_by: dict[str, Filter] = {
        "part": Filter(text="_100%_ø"),
        "ASCII part": Filter(text="ICE_100%"),
        "source": Filter(text="partner/outbox"),
        "hash": Filter(text=wanted.sha256[:12].upper()),
        "file id": Filter(text=wanted.file_id),
        "day": Filter(since="2026-11-19", until="2026-11-19", kind="rejected"),
        "kind": Filter(kind="rejected"),
        "type": Filter(file_type="PdfFile"),
        "DAG": Filter(dag_id="etl_1"),
        "run": Filter(dag_id="etl_1", run_id="r1"),
        "client": Filter(client_no="77"),
        "rights": Filter(dags=frozenset({"etl_1"})),
    }
    with _asked(store) as ledger:
        for word, asked in found_by.items():
            assert _names(ledger.page(asked).rows) == [wanted.name], word
            assert sum(ledger.totals(asked).counts.values()) == 1, word
            assert sum(ledger.totals(asked).sizes.values()) == wanted.size, word
        assert _names(ledger.page(Filter(since="2026-11-19", until="2026-11-20")).rows)[0] == "b.csv"
        assert ledger.page(Filter(dags=frozenset())).rows == []
        assert ledger.clients() == ["10042", "77"]


def test_a_search_that_would_read_too_much_says_where_it_ends(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search by a part of a name ends after its budget and says at which time; a whole name is found at any age."""
    monkeypatch.setattr(cut, "BUDGET", 10)
    store.restore([_at(NOW - timedelta(days=n), ACCEPTED, f"invoice {n:02}.csv") for n in range(30)])
    oldest = "invoice 29.csv"
    ending = timestamp((NOW - timedelta(days=10)).timestamp())
    with _asked(store) as ledger:
        part = ledger.page(Filter(text="29"))
        assert (part.rows, part.cut) == ([], ending)
        assert ledger.totals(Filter(text="29")).cut == ending
        assert _names(ledger.page(Filter(text=oldest)).rows) == [oldest]
        assert _names(ledger.rows(Filter(text=oldest))) == [oldest]
        assert len(list(ledger.rows(Filter(text="invoice")))) == 11
        # It goes on from where it ended.
        assert part.cut is not None
        further = ledger.page(Filter(text="29"), (part.cut, "", 0))
        assert (further.rows, further.cut) == ([], timestamp((NOW - timedelta(days=20)).timestamp()))
        assert further.cut is not None
        assert _names(ledger.page(Filter(text="29"), (further.cut, "", 0)).rows) == [oldest]
        # With days that hold fewer, nothing is cut.
        assert ledger.page(Filter(text="29", until="2026-10-30")).cut is None


def test_a_whole_name_counts_before_and_after_the_cut(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of one name, sent lately and so long ago that a search by a part ends before, are both counted."""
    monkeypatch.setattr(cut, "BUDGET", 10)
    store.restore([_at(NOW - timedelta(days=n), ACCEPTED, f"invoice {n:02}.csv") for n in range(20)])
    store.restore([_at(NOW - timedelta(days=n), ACCEPTED, "again.csv", content=str(n)) for n in (1, 29)])
    with _asked(store) as ledger:
        found = ledger.totals(Filter(text="again.csv"))
    assert found.cut is not None
    assert (found.counts, found.files, found.all_files) == ({"delivered": 2}, {"delivered": 2}, 2)


def test_the_strip_has_every_day(store: SqlStore) -> None:
    """The strip counts each day's attempts by what they are now, and a day without any is there, empty."""
    lost = _at(NOW - timedelta(days=2), LOST, "lost.csv")
    settled = _at(NOW - timedelta(days=1), ACCEPTED, "lost.csv", 2, resolves=(1,))
    other = _at(NOW - timedelta(days=2), REFUSED, "other client.csv", client_no="77")
    store.restore([lost])
    store.restore([settled])
    store.restore([other, _at(NOW - timedelta(days=300), ACCEPTED, "old.csv", client_no="77")])
    with _asked(store) as ledger:
        whole = ledger.strip(Filter(), date(2026, 11, 22))
        strip = whole.days
        mine = ledger.strip(Filter(client_no="10042", text="not counted"), date(2026, 11, 22)).days
        nothing = ledger.strip(Filter(dags=frozenset({"another"})), date(2026, 11, 22)).days
    assert whole.first == timestamp((NOW - timedelta(days=300)).timestamp())
    assert len(strip) == DAYS
    assert {day: dict(totals.counts) for day, totals in strip.items() if totals.counts} == {
        "2026-11-20": {"settled": 1, "rejected": 1},
        "2026-11-21": {"delivered": 1},
    }
    assert mine["2026-11-20"].counts == {"settled": 1}
    assert not any(totals.counts for totals in nothing.values())


def test_a_day_has_the_numbers_that_the_report_gives(store: SqlStore) -> None:
    """A file that was tried again and again counts once, on the page as in ``amili-ledger report``."""
    day = NOW - timedelta(days=1)
    thrice = [_at(day + timedelta(minutes=n), REFUSED, "refused.csv", n + 1) for n in range(3)]
    healed = [_at(day, NOT_SENT, "late.csv"), _at(day + timedelta(hours=1), ACCEPTED, "late.csv", 2)]
    lost = [_at(day, LOST, "lost.csv"), _at(day + timedelta(hours=2), None, "lost.csv", 2)]
    twice = [_at(day + timedelta(minutes=n), ACCEPTED, "sent twice.csv", n + 1) for n in range(2)]
    fine = [_at(day, ACCEPTED, f"fine {n}.csv") for n in range(60)]
    for made in (*thrice, *healed, *lost, *twice, *fine):
        store.restore([made])
    asked = Filter(since="2026-11-21", until="2026-11-21")
    with _asked(store) as ledger:
        totals = ledger.totals(asked, ledger.page(asked))
        strip = ledger.strip(Filter(), NOW.date()).days["2026-11-21"]
        refused = ledger.totals(replace(asked, kind="rejected"), ledger.page(replace(asked, kind="rejected")))
    [told] = questions.report(store, since="2026-11-21", until="2026-11-21", clock=NOW.timestamp)
    said = {"delivered": told["uploaded"], "rejected": told["rejected"], "unknown": told["unknown"]}
    assert said == {"delivered": 63, "rejected": 1, "unknown": 1}
    assert {kind: totals.files[kind] for kind in said} == {kind: strip.files[kind] for kind in said} == said
    assert (sum(totals.counts.values()), totals.all_files) == (69, 64)
    assert (refused.counts, refused.files, refused.all_files) == ({"rejected": 3}, {"rejected": 1}, 1)
    assert strip.counts == totals.counts == {"delivered": 63, "rejected": 3, "unknown": 2, "not_sent": 1}


def test_what_is_not_delivered_is_asked_for_at_once(store: SqlStore) -> None:
    """All outcomes but delivered, in one question: without files that another attempt delivered, within its days."""
    day = NOW - timedelta(days=1)
    for made in (
        _at(day, REFUSED, "refused.csv"),
        _at(day, LOST, "lost.csv"),
        _at(day, NOT_SENT, "late.csv"),
        _at(NOW - timedelta(minutes=1), None, "on its way.csv"),
        _at(day, NOT_SENT, "healed.csv"),
        _at(NOW, ACCEPTED, "healed.csv", 2),
        _at(day, ACCEPTED, "fine.csv"),
        _at(NOW - timedelta(days=9), REFUSED, "long ago.csv"),
    ):
        store.restore([made])
    with _asked(store) as ledger:
        asked = Filter(undelivered=True, since="2026-11-21")
        found = ledger.page(asked)
        in_part = ledger.page(replace(asked, text="l"))
    assert sorted(_names(found.rows)) == ["late.csv", "lost.csv", "on its way.csv", "refused.csv"]
    assert sorted(_names(in_part.rows)) == ["late.csv", "lost.csv"]


def test_a_task_shows_its_worst_first(store: SqlStore) -> None:
    """The rows of a task instance begin with what a person must decide, and are no more than asked for."""
    verdicts = (ACCEPTED, REFUSED, LOST, NOT_SENT)
    mine: dict[str, Any] = {"dag_id": "etl", "run_id": "r", "task_id": "upload"}
    store.restore([_at(NOW - timedelta(days=1), v, f"{n}.csv", **mine) for n, v in enumerate(verdicts * 2)])
    store.restore([_at(NOW, ACCEPTED, "mapped.csv", map_index=1, **mine)])
    with _asked(store) as ledger:
        rows = ledger.task(Filter(map_index=-1, **mine), 5)
    assert [row.kind for row in rows] == ["unknown", "unknown", "rejected", "rejected", "not_sent"]


def test_the_page_cannot_write(store: SqlStore) -> None:
    """The connection that answers the page's questions refuses to write, whatever its login may do."""
    store.restore([_at(NOW, ACCEPTED)])
    with _asked(store) as ledger:
        assert ledger._reading._connection is not None
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"):
            ledger._reading._connection.execute(sa.delete(store.table))
    with _asked(store) as ledger:
        assert len(ledger.page(Filter()).rows) == 1


def test_a_login_with_select_alone_suffices(home: SqlHome, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database login that may only SELECT opens the ledger and answers all questions of the page."""
    if not isinstance(home, Server):
        pytest.skip("SQLite has no logins")
    store.restore([_at(NOW, LOST)])
    home.make_login("onlooker", "SELECT")
    connection = home.connection()
    assert connection is not None
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(connection | {"login": "onlooker"}))
    its_store = home.store()
    assert isinstance(its_store, SqlStore)
    its_store.open(read_only=True)
    with _asked(its_store) as ledger:
        page = ledger.page(Filter(text="invoice"))
        assert [row.kind for row in page.rows] == ["unknown"]
        assert ledger.strip(Filter(), NOW.date()).days["2026-11-22"].counts == {"unknown": 1}
        assert ledger.file(page.rows[0].attempt.file_id)[0].state is LedgerState.UNKNOWN
        assert ledger.clients() == ["10042"]
