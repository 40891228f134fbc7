"""Databases that would forget what was sent are refused when the ledger is opened, and a ledger that changes stops."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import Disregard, Ledger, LedgerState, settling, transfer
from amili_provider.ledger.settling import Person
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.stores import LedgerStore, Query
from amili_provider.ledger.table import ddl
from tests.ledger_cases import ACCEPTED, LOST, an_attempt, facts, file_id_of
from tests.storage.backends.ledgers import CONN_ID, LedgerHome, Server, SqlHome, homes
from tests.storage.test_ledger_contract import OBJECTS, SERVERS, SQL, _home, _server, _store  # noqa: F401 - fixtures

on = pytest.mark.parametrize
_UNFIT = (ValueError, AmiliLedgerUnavailable)


@on("server", homes(SQL), indirect=True)
def test_a_table_without_its_key_is_refused(home: LedgerHome, store: LedgerStore) -> None:
    """As a restore makes it that copies rows only: two tasks could claim one file."""
    assert isinstance(home, SqlHome)
    t = home.table
    home.run(f"CREATE TABLE {t}_2 AS SELECT * FROM {t}", f"DROP TABLE {t}", f"ALTER TABLE {t}_2 RENAME TO {t}")
    for opening in (home.store().open, home.store(create=True).create):
        with pytest.raises(
            ValueError, match=r"takes a key twice.*Give it back its primary key \(environment, client_no"
        ):
            opening()
    assert home.run(f"SELECT count(*) FROM {t}")[0][0] == 1


@on("server", homes(SERVERS), indirect=True)
def test_a_table_whose_key_holds_more_is_refused(home: LedgerHome, store: LedgerStore) -> None:
    """As a table in partitions by day has it: the second task claims at another moment, and is let in."""
    assert isinstance(home, SqlHome)
    drop = f"CONSTRAINT {home.table}_pkey" if home.name == "postgres" else "PRIMARY KEY"
    key = "environment, client_no, file_id, attempt, claimed_at"
    home.run(f"ALTER TABLE {home.table} DROP {drop}", f"ALTER TABLE {home.table} ADD PRIMARY KEY ({key})")
    with pytest.raises(ValueError, match="takes a key twice"):
        home.store().open()


def _trigger(home: SqlHome, when: str, body: str) -> list[str]:
    name = f"t_{uuid4().hex[:8]}"
    if home.name == "postgres":
        function = f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} END'"
        return [function, f"CREATE TRIGGER {name} {when} ON {home.table} FOR EACH ROW EXECUTE FUNCTION {name}()"]
    return [f"CREATE TRIGGER {name} {when} ON {home.table} BEGIN {body} END"]


@on(
    ("server", "when", "body"),
    [
        ("postgres", "BEFORE INSERT", "RETURN NULL;"),
        ("postgres", "BEFORE UPDATE", "RETURN NULL;"),
        ("postgres", "BEFORE UPDATE", "RETURN OLD;"),
        ("postgres", "BEFORE INSERT", "NEW.name := lower(NEW.name); RETURN NEW;"),
        ("sqlite", "BEFORE INSERT", "SELECT RAISE(IGNORE);"),
        ("sqlite", "BEFORE UPDATE", "SELECT RAISE(IGNORE);"),
    ],
    indirect=["server"],
)
def test_a_table_that_does_not_keep_what_is_written_is_refused(
    home: LedgerHome, store: LedgerStore, when: str, body: str
) -> None:
    """A trigger that swallows or changes rows: before anything is sent, and also if it comes while tasks run."""
    assert isinstance(home, SqlHome)
    home.run(*_trigger(home, when, body))
    with pytest.raises(_UNFIT, match=r"does not keep what is written\. Remove triggers|took 0 of 1 rows"):
        home.store().open()
    if when == "BEFORE INSERT" and "NEW" not in body:
        with pytest.raises(AmiliLedgerUnavailable, match=r"took 0 of 1 rows.*Remove it"):
            store.claim([an_attempt()], 600)
        assert not list(store.history(Query()))


@on("server", homes(["postgres"]), indirect=True)
def test_rights_that_are_missing_show_at_once(home: LedgerHome, store: LedgerStore, monkeypatch: Any) -> None:
    """Also of single columns, and where a policy lets nothing be updated."""
    assert isinstance(home, Server)
    login = f"login_{uuid4().hex[:8]}"
    home.make_login(login, "SELECT, INSERT, UPDATE (message)")
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps({**(home.connection() or {}), "login": login}))
    with pytest.raises(AmiliLedgerUnavailable, match="may SELECT, INSERT and UPDATE"):
        home.store().open()
    home.run(
        f"GRANT UPDATE ON {home.table} TO {login}",
        f"ALTER TABLE {home.table} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY a ON {home.table} FOR SELECT USING (true)",
        f"CREATE POLICY b ON {home.table} FOR INSERT WITH CHECK (true)",
    )
    with pytest.raises(ValueError, match="does not keep what is written"):
        home.store().open()
    home.run(f"CREATE POLICY c ON {home.table} FOR UPDATE USING (true)")
    home.store().open()


@pytest.fixture(name="database")
def _database(home: LedgerHome, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SqlHome:
    """The server with a database made as the parameter says; the ledger's connection leads there."""
    assert isinstance(home, Server)
    name = f"d_{uuid4().hex[:8]}"
    statement, extra = request.param
    engine = home.engine()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(statement.format(name)))
    engine.dispose()
    known = home.connection() or {}
    changed = {**known, "schema": name, "extra": {**known.get("extra", {}), **extra}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(changed))
    monkeypatch.setattr(home, "database", name)
    return home


@on(
    ("server", "database"),
    [
        ("postgres", ("CREATE DATABASE {} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'", {})),
        ("postgres", ("CREATE DATABASE {} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'", {})),
        ("postgres", ("CREATE DATABASE {}", {"options": "-c client_encoding=LATIN1"})),
        ("mariadb", ("CREATE DATABASE {}", {"charset": "utf8"})),
        ("mariadb", ("CREATE DATABASE {}", {"charset": "latin1"})),
    ],
    indirect=True,
)
def test_characters_that_are_not_kept_are_found_before_anything_is_sent(database: SqlHome) -> None:
    """A database or a connection that does not speak all of Unicode: one name would stop all others."""
    with pytest.raises(_UNFIT) as said:
        database.store(create=True).create()
    assert "be created" in str(said.value) or "every character of Unicode (UTF8; MySQL: utf8mb4" in str(said.value)
    with pytest.raises(_UNFIT):
        database.store().open()


@on(
    ("server", "database"),
    [
        ("postgres", ("CREATE DATABASE {}", {"sslmode": "require"})),
        ("postgres", ("CREATE DATABASE {}", {"sslmode": "verify-full", "sslrootcert": "/nowhere.pem"})),
        ("mariadb", ("CREATE DATABASE {}", {"ssl": {"ca": "/nowhere.pem"}})),
        ("mariadb", ("CREATE DATABASE {}", {"ssl": '{"ca": "/nowhere.pem"}'})),
        ("mariadb", ("CREATE DATABASE {}", {"charset": "nonsense"})),
    ],
    indirect=True,
)
def test_what_the_connection_demands_is_demanded(database: SqlHome) -> None:
    """TLS where the server has none is no ledger in clear, and no error of the driver as it comes."""
    with pytest.raises(AmiliLedgerUnavailable, match="cannot be"):
        database.store(create=True).create()


@on(
    ("server", "database"),
    [("postgres", ("CREATE DATABASE {}", {"options": "-c search_path=finance", "application_name": "amili ledger"}))],
    indirect=True,
)
def test_options_of_the_connection_are_obeyed(database: SqlHome) -> None:
    """The table is where the connection looks for it."""
    database.run("CREATE SCHEMA finance")
    database.store(create=True).create()
    assert database.run("SELECT schemaname FROM pg_tables WHERE tablename = :it", it=database.named) == [("finance",)]


@on(("server", "database"), [("postgres", ("CREATE DATABASE {}", {}))], indirect=True)
def test_airflow_s_own_database_is_refused_in_any_schema(database: SqlHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's tables are where the connection looks, the ledger is to be elsewhere in it."""
    database.run("CREATE TABLE task_instance (a int)", "CREATE TABLE dag_run (a int)", "CREATE SCHEMA fin")
    monkeypatch.setattr(database, "named", "fin.deliveries")
    with pytest.raises(ValueError, match="Airflow's own metadata database"):
        database.store(create=True).create()


@on(
    ("server", "database"),
    [("postgres", ("CREATE DATABASE {}", {"options": f"-c synchronous_commit={how}"})) for how in ("off", "local")],
    indirect=True,
)
def test_what_is_written_outlives_the_server(database: SqlHome) -> None:
    """Where a COMMIT is said to wait for no disk, ours does: a claim that a crash takes back is sent twice."""
    store = database.store(create=True)
    assert isinstance(store, SqlStore)
    store.create()
    store.open()
    kept: list[str] = []

    @sa.event.listens_for(store.engine, "commit")
    def _commit(connection: sa.engine.Connection) -> None:
        kept.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

    attempt = an_attempt(b"1")
    assert store.claim([attempt], 600) == set()
    attempt.settle(ACCEPTED)
    store.settle([attempt])
    other = an_attempt(b"2")
    other.stamp(1_790_000_000.0, 600)
    store.restore([other])
    (extra,) = json.loads(os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"])["extra"].values()
    assert kept == ["local" if extra.endswith("local") else "on"] * 3


@on(
    ("server", "database"),
    [("postgres", ("CREATE DATABASE {}", {"options": "-c default_transaction_isolation=serializable"}))],
    indirect=True,
)
def test_claims_of_different_files_do_not_disturb_each_other(database: SqlHome) -> None:
    """Whatever isolation the server sets."""
    database.store(create=True).create()
    stores = [database.store() for _ in range(6)]
    together = threading.Barrier(6)

    def claim(number: int) -> None:
        stores[number].open()
        together.wait(30)
        for request in range(5):
            some = [an_attempt(f"{number} {request} {n}".encode()) for n in range(20)]
            assert stores[number].claim(some, 600) == set()
            for attempt in some:
                attempt.settle(ACCEPTED)
            stores[number].settle(some)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(claim, range(6)))


@on(("server", "database"), [("mariadb", ("CREATE DATABASE {}", {}))], indirect=True)
def test_a_table_without_its_indexes_gets_them(database: SqlHome) -> None:
    """MySQL may have made the table, and not the indexes: the next create does."""
    database.store(create=True).create()
    indexes = (
        "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_name = :it AND table_schema = :of"
    )
    known = {"it": database.named, "of": database.database}  # type: ignore[attr-defined]
    before = set(database.run(indexes, **known))
    database.run(f"DROP INDEX {database.named}_size ON {database.named}")
    assert set(database.run(indexes, **known)) < before
    assert database.store(create=True).create()[1] is False
    assert set(database.run(indexes, **known)) == before
    assert len(before) == 5


@on("server", homes(SERVERS), indirect=True)
def test_a_claim_of_many_long_rows_is_taken(home: LedgerHome, store: LedgerStore) -> None:
    """Also by a server that takes no large statement."""
    if home.name == "mariadb":
        assert isinstance(home, SqlHome)
        home.run("SET GLOBAL max_allowed_packet = 1048576")
    some = [an_attempt(f"{n}".encode(), source=f"s3://bucket/{n}/{'å' * 1500}") for n in range(500)]
    assert home.store().claim(some, 600) == set()
    found = store.look_up("staging", "10042", [a.file_id for a in some]).attempts
    assert {a.source for (a,) in found.values()} == {a.source for a in some}


def test_statements_for_the_dba_can_be_run() -> None:
    """Names with capitals, and words that SQL has, stand in quotes everywhere."""
    store = SqlStore(sa.create_engine("postgresql+psycopg2://", future=True), shown="", table="Fin.Order")
    assert 'CREATE TABLE "Fin"."Order"' in ddl(store.table, store.engine)
    assert 'GRANT SELECT, INSERT, UPDATE ON "Fin"."Order" TO' in ddl(store.table, store.engine)


@on("server", homes(SQL), indirect=True)
def test_a_table_that_was_emptied_is_told_from_one_that_is_missing(home: LedgerHome, store: LedgerStore) -> None:
    """It is there, and its row that says which ledger it is is not."""
    assert isinstance(home, SqlHome)
    home.run(f"DELETE FROM {home.table}")
    with pytest.raises(AmiliLedgerUnavailable, match=r"the table is there .* but not its row.*restore it"):
        home.store().open()
    home.store(create=True).create()
    home.store().open()


@on("server", homes(SERVERS), indirect=True)
def test_a_server_is_named_with_its_port_and_connection(home: LedgerHome, store: LedgerStore) -> None:
    """Two servers on one host are two; and what is wrong with it is mended in its connection."""
    assert isinstance(home, Server)
    assert f"://127.0.0.1:{home.port}/" in store.shown
    home.run(f"DROP TABLE {home.table}")
    with pytest.raises(AmiliLedgerUnavailable, match=f"Check that connection '{CONN_ID}' is right"):
        store.has_size("staging", "10042", 1)


# What a person says


def _ledger(store: LedgerStore) -> Ledger:
    return Ledger(store, environment="staging", client_no="10042", answer_timeout=0.0)


def _unknown(ledger: Ledger, *names: str, request: str = "1", resend: bool = False) -> list[str]:
    """Send files of which no answer comes; return their ids."""
    wanted = [replace(facts(name.encode(), name=name), request=request) for name in names]
    ids = [file_id_of(ledger, one) for one in wanted]
    known = ledger.look_up(ids, disregard=Disregard.UNKNOWN if resend else Disregard.NOTHING)
    ledger.settle([(c, LOST) for c in ledger.claim([(known[i], one) for i, one in zip(ids, wanted, strict=True)])])
    return ids


@on("server", homes(OBJECTS), indirect=True)
@on("failing", ["write", "identity"])
def test_a_word_that_cannot_be_written_settles_nothing(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """What was written of it is taken back: each file stays unknown, and the same can be said again."""
    ledger = _ledger(store)
    ids = _unknown(ledger, "a.csv", "b.csv", "c.csv")
    with monkeypatch.context() as patched:
        if failing == "write":
            create, calls = store._create, []  # type: ignore[attr-defined]

            def once(key: str, data: bytes) -> bool:
                calls.append(key)
                if len(calls) == 2:
                    raise AmiliLedgerUnavailable("denied")
                return bool(create(key, data))

            patched.setattr(store, "_create", once)
        else:
            patched.setattr(store, "_changed", lambda: AmiliLedgerUnavailable("denied"))
        with pytest.raises(AmiliLedgerUnavailable):
            settling.settle(ledger, Person("kari", "asked"), arrived=True, request="1")
    assert {h.state for h in ledger.look_up(ids).values()} == {LedgerState.UNKNOWN}
    settling.settle(ledger, Person("kari", "asked"), arrived=True, request="1")
    assert {h.state for h in ledger.look_up(ids).values()} == {LedgerState.UPLOADED}


@on("server", homes(["memory", *SQL]), indirect=True)
def test_a_word_about_a_request_is_about_no_other(store: LedgerStore) -> None:
    """A file that was sent again, and whose second answer was lost too, stays unknown until that is known."""
    ledger = _ledger(store)
    [file_id] = _unknown(ledger, "a.csv", request="first")
    assert _unknown(ledger, "a.csv", request="second", resend=True) == [file_id]
    for _ in range(2):
        [row] = settling.settle(ledger, Person("kari", "asked"), arrived=False, request="first")
        assert ledger.look_up([file_id])[file_id].state is LedgerState.UNKNOWN
    assert "settled before" in row["note"]
    [row] = settling.settle(ledger, Person("kari", "asked"), arrived=False, request="second")
    assert row["note"] == "settled now"
    assert ledger.look_up([file_id])[file_id].state is LedgerState.FREE


@on("server", homes(["memory", "sqlite"]), indirect=True)
def test_what_is_found_out_later_arrived_when_it_was_sent(store: LedgerStore) -> None:
    """By Amili's result endpoint as by a person: a report counts it on its own day."""
    ledger = _ledger(store)
    [file_id] = _unknown(ledger, "a.csv")
    known = ledger.look_up([file_id])[file_id]
    found = ledger.resolve(known, ACCEPTED, facts(b"a.csv", name="a.csv"))
    assert found.uploaded_at == known.attempts[0].claimed_at
    [new] = ledger.look_up([file_id_of(ledger, facts(b"b.csv", name="b.csv"))]).values()
    adopted = ledger.resolve(new, ACCEPTED, facts(b"b.csv", name="b.csv"))
    assert adopted.uploaded_at == adopted.settled_at


@on("server", homes(["s3"]), indirect=True)
def test_what_a_bucket_would_not_find_is_not_imported_in_silence(home: LedgerHome, store: LedgerStore) -> None:
    """Attempts whose earlier ones were deleted: it asks for the first, and would send the file again."""
    later = replace(an_attempt(owner="b" * 32), attempt=2)
    later.settle(ACCEPTED)
    later.stamp(1_790_000_000.0, 0.0)
    lines = [
        json.dumps({"ledger_id": "0" * 32, "created_at": "2026-11-01T00:00:00.000Z", "format": 1}),
        json.dumps(later.as_dict()),
        json.dumps({"attempts": 1}),
    ]
    with pytest.raises(ValueError, match=f"{later.file_id}.*could be sent twice. Keep this ledger in a database"):
        transfer.import_lines(store, lines)


@on("server", homes(["memory", *SQL, "s3"]), indirect=True)
def test_an_import_of_odd_lines_says_what_is_odd(store: LedgerStore) -> None:
    """A line that stands twice counts once; one that names no file, or is the ledger's own row, is refused."""
    attempt = an_attempt(owner="b" * 32)
    attempt.settle(ACCEPTED)
    attempt.stamp(1_790_000_000.0, 0.0)
    first = json.dumps({"ledger_id": "0" * 32, "created_at": "2026-11-01T00:00:00.000Z", "format": 1})

    def imported(*entries: dict[str, Any]) -> transfer.Imported:
        return transfer.import_lines(store, [first, *map(json.dumps, entries), json.dumps({"attempts": len(entries)})])

    line = attempt.as_dict()
    done = imported(line, line)
    assert (done.written, done.same, done.differing) == (1, 0, [])
    for wrong in (
        {"environment": "", "client_no": "", "file_id": "ledger", "attempt": 2},
        {"file_id": "é"},
        {"attempt": 0},
        {"size": 2**70},
    ):
        with pytest.raises(ValueError, match="Line 2 is no attempt of a ledger: it names no client, file, attempt"):
            imported(line | wrong)
    store.open()
