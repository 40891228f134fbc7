"""The pages about the ledger: their statements run, on a ledger that was made as tasks and people make it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.dialects import mysql, postgresql

from amili_provider.command.cli import main
from amili_provider.ledger import Attempt, ClaimFacts, Ledger, LedgerState, Origin
from amili_provider.ledger.attempts import Run
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.table import attempts_table, ddl
from amili_provider.receipts import Outcome, Verdict
from tests.readme import DOCS, ROOT, all_shown

PAGE = (DOCS / "ledger.md").read_text(encoding="utf-8")
BLOCKS = all_shown()
"""What the pages show, by the name in the comment before it."""
ACCEPTED = Verdict(Outcome.UPLOADED, "PROCESSED", "CREATED", "Batch is processed", per_file=True)
REFUSED = Verdict(Outcome.REJECTED, "FAILED", "REJECTED", "row 14: no such debtor", per_file=True)
LOST = Verdict(Outcome.UNKNOWN, message="The connection ended before the answer.")
RUN = Run(chain="1", dag_id="invoices_to_amili", run_id="scheduled__1", task_id="upload_invoices")


class Books:
    """A ledger in a file of SQLite, as the page's statements mean it, and SQL beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run, self.request = RUN, "4c17d0e9-1"
        store = SqlStore(sqlite_engine(str(path), create=True), shown="sqlite", path=str(path))
        store.create()
        self.ledger = Ledger(store, environment="production", client_no="2218", answer_timeout=600.0)

    def file_id(self, name: str, content: str = "") -> str:
        """Return the id of a file."""
        return self.ledger.file_id("InvoiciaFormatDocFile", _sha256(content or name))

    def claim(self, name: str, content: str = "", file_id: str | None = None) -> Any:
        """Claim a file, as a task does before it releases the tail."""
        file_id = file_id or self.file_id(name, content)
        known = self.ledger.look_up([file_id])[file_id]
        return self.ledger.claim([(known, self._facts(name, content))])[0]

    def deliver(self, name: str, verdict: Verdict = ACCEPTED, content: str = "") -> str:
        """Send a file, of which this comes."""
        claim = self.claim(name, content)
        self.ledger.settle([(claim, verdict)])
        return str(claim.file_id)

    def resolve(self, name: str, verdict: Verdict = ACCEPTED, content: str = "", **said: Any) -> Attempt:
        """Write down what was found out about a file."""
        file_id = self.file_id(name, content)
        return self.ledger.resolve(self.ledger.look_up([file_id])[file_id], verdict, self._facts(name, content), **said)

    def _facts(self, name: str, content: str) -> ClaimFacts:
        return ClaimFacts(
            file_type="InvoiciaFormatDocFile",
            name=name,
            source=f"s3://invoices/outbound/{name}",
            size=len(content or name),
            sha256=_sha256(content or name),
            run=self.run,
            request=self.request,
        )

    def state(self, file_id: str) -> LedgerState:
        """Return what the ledger says of a file."""
        return self.ledger.look_up([file_id])[file_id].state

    def ask(self, block: str) -> list[dict[str, Any]]:
        """Run a block of the page; return its rows."""
        with sqlite3.connect(self.path) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(BLOCKS[block])]


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


@pytest.fixture(name="books")
def _books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path / "ledger.db")
    yield books
    books.ledger.close()


@pytest.mark.parametrize(
    ("dialect", "end"),
    [(postgresql, ");"), (mysql, ")ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin;")],
    ids=["postgresql", "mysql"],
)
def test_the_statements_for_the_dba_are_those_that_create_prints(dialect: Any, end: str) -> None:
    """The page shows them for PostgreSQL, and says in which line MySQL's differ."""
    engine: Any = SimpleNamespace(dialect=dialect.dialect())
    printed = re.sub(r" +$", "", ddl(attempts_table(), engine), flags=re.MULTILINE)
    assert f"`{end}`" in PAGE or end == ");"
    assert printed == BLOCKS["ddl"].replace("\n);", f"\n{end}")


def test_every_column_is_told(books: Books) -> None:
    """The table of columns names each column of a ledger that was created, and none that there is not."""
    table = (DOCS / "ledger-table.md").read_text(encoding="utf-8").partition("<!-- /columns-table -->")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    with sqlite3.connect(books.path) as connection:
        real = [row[1] for row in connection.execute("PRAGMA table_info(amili_attempts)")]
    assert sorted(named) == sorted(real)


def test_whether_an_invoice_was_sent(books: Books) -> None:
    """All attempts at it come, the newest first, with Amili's words; other files do not."""
    books.deliver("INVOICE_1042.csv", LOST)
    books.resolve("INVOICE_1042.csv", origin=Origin.CHECK)
    books.deliver("invoice_7.csv")
    rows = books.ask("sent")
    assert [row["outcome"] for row in rows] == ["uploaded", "unknown"]
    assert (rows[0]["status"], rows[0]["result"], rows[0]["dag_id"]) == ("PROCESSED", "CREATED", "invoices_to_amili")
    assert rows[0]["uploaded_at"]


def test_what_was_delivered_each_day(books: Books) -> None:
    """Files and bytes are counted on the day on which Amili accepted them; refused and adopted ones are not."""
    for name, day in (("a.csv", "2026-11-02"), ("bb.csv", "2026-11-02"), ("c.csv", "2026-11-04")):
        books.resolve(name, origin=Origin.PERSON, settled_by="Kari", uploaded_at=f"{day}T06:00:00.000Z")
    books.resolve("old.csv", origin=Origin.ADOPTED, settled_by="Kari", uploaded_at="2026-11-03T06:00:00.000Z")
    books.deliver("bad.csv", REFUSED)
    assert books.ask("days") == [
        {"day": "2026-11-02", "file_type": "InvoiciaFormatDocFile", "files": 2, "bytes": 11},
        {"day": "2026-11-04", "file_type": "InvoiciaFormatDocFile", "files": 1, "bytes": 5},
    ]
    missing = [row["day"] for row in books.ask("missing on sqlite")]
    assert missing == [f"2026-11-{day:02}" for day in range(1, 31) if day not in (2, 4)]


def test_of_which_files_nobody_knows(books: Books) -> None:
    """Those that the ledger calls unknown or in flight come, and no others, whatever became of them before."""
    books.deliver("lost.csv", LOST)
    books.claim("sending.csv")
    books.deliver("found.csv", LOST)
    books.resolve("found.csv", origin=Origin.CHECK)
    books.deliver("freed.csv", LOST)
    books.resolve("freed.csv", Verdict(Outcome.NOT_SENT), origin=Origin.PERSON, settled_by="Kari", reason="asked Amili")
    books.deliver("again.csv", LOST)
    books.resolve("again.csv", Verdict(Outcome.NOT_SENT), origin=Origin.PERSON, settled_by="Kari", reason="asked Amili")
    books.deliver("again.csv", LOST)
    books.deliver("bad.csv", REFUSED)
    rows = books.ask("unknown")
    assert [row["name"] for row in rows] == ["lost.csv", "sending.csv", "again.csv"]
    assert [row["outcome"] for row in rows] == ["unknown", None, "unknown"]
    states = {books.state(row["file_id"]) for row in rows}
    assert states == {LedgerState.UNKNOWN, LedgerState.IN_FLIGHT}


def test_what_amili_refused(books: Books) -> None:
    """In its own words, unless a file of that name, with other bytes, was accepted since."""
    books.deliver("bad.csv", REFUSED)
    books.deliver("mended.csv", REFUSED)
    books.deliver("mended.csv", content="corrected")
    rows = books.ask("rejected")
    assert [(row["name"], row["status"], row["message"]) for row in rows] == [
        ("bad.csv", "FAILED", "row 14: no such debtor")
    ]


def test_who_settled_what(books: Books) -> None:
    """What a person decided has a name and a reason; what a task or a check found out has none."""
    books.deliver("lost.csv", LOST)
    books.resolve("lost.csv", origin=Origin.PERSON, settled_by="Kari", reason="Amili has it")
    books.deliver("fine.csv")
    rows = books.ask("people")
    assert [(row["name"], row["settled_by"], row["reason"], row["outcome"]) for row in rows] == [
        ("lost.csv", "Kari", "Amili has it", "uploaded")
    ]


def test_erased_names_are_not_forgotten_deliveries(books: Books) -> None:
    """What the page blanks leaves the bytes accepted; a blank name is no other name, and a word in its place is one."""
    sent = books.deliver("ola_nordmann.csv")
    lost = books.deliver("kari.csv", LOST)
    statement = BLOCKS["erasure"].replace("2021-01-01", "2999-01-01")
    with sqlite3.connect(books.path) as connection:
        assert connection.execute(statement).rowcount == 1
    known = books.ledger.look_up([sent])[sent]
    assert known.state is LedgerState.UPLOADED
    assert (known.attempts[0].name, known.attempts[0].source, known.attempts[0].host) == ("", "", "")
    assert known.accepted_elsewhere("another.csv") is None
    assert books.state(lost) is LedgerState.UNKNOWN
    with sqlite3.connect(books.path) as connection:
        connection.execute("UPDATE amili_attempts SET name = 'erased' WHERE file_id = ?", (sent,))
    known = books.ledger.look_up([sent])[sent]
    assert known.accepted_elsewhere("ola_nordmann.csv") is not None


@pytest.fixture(name="person")
def _person(books: Books, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Somebody who types the lines of a block, with the connection ``amili_default``; what they see is returned."""
    extra = {"environment": "production", "client_no": "2218", "ledger": f"sqlite:///{books.path}"}
    connection = {"conn_type": "amili", "login": "id", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
    monkeypatch.chdir(books.path.parent)

    def type_in(block: str) -> str:
        for line in block.splitlines():
            program, *arguments = shlex.split(line.replace("/var/lib/amili", str(books.path.parent)))
            assert program == "amili-ledger"
            assert main(arguments) == 0, f"{line}: {capsys.readouterr().err}"
        return str(capsys.readouterr().out)

    return type_in


def test_the_commands_do_what_the_page_says(books: Books, person: Callable[[str], str]) -> None:
    """Each line succeeds on a ledger as it means it: one file is found, three are settled, all attempts are copied."""
    books.run = replace(RUN, run_id="scheduled__2026-11-22")
    books.deliver("invoice_1042.csv")
    arrived = books.deliver("lost.csv", LOST)
    books.request = "5f3a91c2-3"
    also_arrived = books.deliver("also_lost.csv", LOST)
    books.request = "6d2b80a1-1"
    (lost,) = re.findall(r"--file-id (\w+)", BLOCKS["commands"])
    books.run = replace(RUN, run_id="scheduled__2026-11-21")
    books.ledger.settle([(books.claim("gone.csv", file_id=lost), LOST)])
    (first,) = re.findall(r"^amili-ledger create.*\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    said = person(first + BLOCKS["create"] + BLOCKS["commands"])
    assert "is there already, nothing was changed" in said
    assert {books.state(arrived), books.state(also_arrived)} == {LedgerState.UPLOADED}
    assert books.state(lost) is LedgerState.FREE
    assert "day,client_no,file_type,uploaded,rejected,unknown,adopted,bytes" in said
    assert "7 attempt(s) are new in" in said


@pytest.mark.usefixtures("person")
def test_of_many_unknown_files_those_of_a_list_arrived(books: Books) -> None:
    """As a shell runs the lines: the listed names are settled as arrived, the rest of the request as not."""
    books.request = "5f3a91c2-3"
    lost = {name: books.deliver(name, LOST) for name in ("a.csv", "b.csv", "c, d.csv", "e.csv")}
    (books.path.parent / "arrived.txt").write_text("b.csv\nc, d.csv\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = BLOCKS["some arrived"]
    subprocess.run(["bash", "-euc", lines], env={**os.environ, "PATH": path}, check=True, timeout=120)
    assert {name: books.state(file_id) for name, file_id in lost.items()} == {
        "a.csv": LedgerState.FREE,
        "b.csv": LedgerState.UPLOADED,
        "c, d.csv": LedgerState.UPLOADED,
        "e.csv": LedgerState.FREE,
    }


def test_adopting_reads_files_and_sends_nothing(books: Books, person: Callable[[str], str], tmp_path: Path) -> None:
    """A dry run writes nothing; then what matches is known as delivered."""
    (tmp_path / "2025-01-31").mkdir()
    (tmp_path / "2025-01-31/old.csv").write_text("old")
    block = BLOCKS["adopt"].replace("s3://invoices/archive", str(tmp_path)).replace("--source-conn-id aws_default ", "")
    dry, real = block.splitlines()
    assert "would_be_adopted" in person(dry)
    assert books.state(books.file_id("old.csv", "old")) is LedgerState.FREE
    assert "adopted" in person(real)
    assert books.state(books.file_id("old.csv", "old")) is LedgerState.UPLOADED


def test_the_policy_of_a_bucket_is_json_and_deletes_nothing() -> None:
    """Listing is allowed on the bucket, reading and writing on its objects."""
    allowed = {s["Resource"]: s["Action"] for s in json.loads(BLOCKS["policy"])["Statement"]}
    assert allowed == {
        "arn:aws:s3:::example-amili-ledger": "s3:ListBucket",
        "arn:aws:s3:::example-amili-ledger/*": ["s3:GetObject", "s3:PutObject"],
    }


def test_every_statement_is_run() -> None:
    """Each block of SQL has a name by which a test knows it; PostgreSQL's own is run by the tests of its store."""
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    named = re.findall(r"^<!-- test: (.+?) -->\n```sql$", text, re.MULTILINE)
    assert len(named) == len(re.findall(r"^```sql$", text, re.MULTILINE))
    assert set(named) == {
        *("ddl", "erasure", "sent", "days", "unknown", "rejected", "people"),
        *("missing on postgresql", "missing on sqlite"),
    }
