"""The command ``amili-ledger``, through its front door, on a real SQLite file and a connection of the environment."""

from __future__ import annotations

import csv
import errno
import getpass
import hashlib
import io
import json
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amili_provider.command.cli import main
from amili_provider.ledger import ClaimFacts, Ledger
from amili_provider.ledger.attempts import Run
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.sql import SqlStore
from amili_provider.receipts import Outcome, Verdict
from amili_provider.terminal import READER_GONE


class Desk:
    """A person at a terminal, and the connections that Airflow has there."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = tmp_path / "ledger.db"
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.connect(ledger=f"sqlite:///{self.path}")

    def connect(self, **extra: Any) -> None:
        """Let ``amili_default`` say this."""
        connection = {
            "conn_type": "amili",
            "login": "id",
            "password": "secret-canary",
            "extra": {"environment": "staging", "client_no": "10042", **extra},
        }
        self._monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command; return its exit code and what it wrote to stdout and stderr."""
        self._capsys.readouterr()
        code = main(arguments)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        assert "secret-canary" not in out + err
        return code, out, err


@pytest.fixture(name="desk")
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_a_ledger_is_created_once(desk: Desk) -> None:
    """The second time it says that the ledger is there, changes nothing, and is no failure."""
    code, first, _ = desk.run("create")
    assert (code, "is created" in first) == (0, True)
    with sqlite3.connect(desk.path) as there:
        rows = there.execute("SELECT * FROM amili_attempts").fetchall()
    code, again, _ = desk.run("create")
    assert (code, "is there already, nothing was changed" in again) == (0, True)
    assert first.rpartition(":")[2] == again.rpartition(":")[2]
    with sqlite3.connect(desk.path) as there:
        assert there.execute("SELECT * FROM amili_attempts").fetchall() == rows


def test_another_ledger_than_the_connections_can_be_named(desk: Desk, tmp_path: Path) -> None:
    """--ledger goes before the connection's field."""
    other = tmp_path / "other.db"
    assert desk.run("create", "--ledger", f"sqlite:///{other}")[0] == 0
    assert (other.exists(), desk.path.exists()) == (True, False)


def test_the_table_of_a_database_can_be_all_default(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that names only the database of its ledger means the default table."""
    monkeypatch.setenv("AIRFLOW_CONN_BOOKS", json.dumps({"conn_type": "sqlite", "host": str(desk.path)}))
    desk.connect(ledger_conn_id="books")
    code, out, err = desk.run("create")
    assert (code, err) == (0, "")
    assert "table amili_attempts is created" in out


@pytest.mark.parametrize(
    ("arguments", "extra", "words"),
    [
        (("--conn-id", "nowhere"), {}, "no Airflow connection with the id 'nowhere'"),
        (("--ledger", "sqlite:////nowhere/x.db"), {}, "The ledger does not exist: the folder of /nowhere/x.db"),
        (("--ledger", "sftp://host/ledger"), {}, "The ledger cannot be kept in 'sftp://host/ledger'"),
        ((), {"ledger": None}, "No ledger is named"),
        ((), {"environment": None}, "'Environment' (extra 'environment') is missing"),
    ],
)
def test_what_is_wrong_is_one_message(
    desk: Desk, arguments: tuple[str, ...], extra: dict[str, Any], words: str
) -> None:
    """On stderr, without a traceback, with exit code 1."""
    desk.connect(**({"ledger": f"sqlite:///{desk.path}"} | extra))
    code, out, err = desk.run("create", *arguments)
    assert (code, out) == (1, "")
    assert words in err


def test_usage_has_an_exit_code_of_its_own(desk: Desk) -> None:
    """A command that is not there is 2, as with other commands."""
    with pytest.raises(SystemExit) as ended:
        desk.run("creat")
    assert ended.value.code == 2


# With files in the ledger


@pytest.fixture(name="ledger")
def _ledger(desk: Desk) -> Iterator[Ledger]:
    """The ledger of the connection, created, with one accepted file, one refused, one whose answer was lost."""
    desk.run("create")
    store = SqlStore(sqlite_engine(str(desk.path)), shown="books", path=str(desk.path))
    with Ledger(store, environment="staging", client_no="10042", answer_timeout=600.0) as ledger:
        for name, verdict in ENDS.items():
            attempt(ledger, name, verdict)
        yield ledger


ENDS = {
    "invoice-1.csv": Verdict(Outcome.UPLOADED, "PROCESSED", "CREATED", "Batch is processed"),
    "=cmd()|invoice.csv": Verdict(Outcome.REJECTED, "FAILED", "REJECTED", "-1 is no amount"),
    "lost.csv": Verdict(Outcome.UNKNOWN, message="The connection ended before the answer."),
}


def attempt(ledger: Ledger, name: str, verdict: Verdict | None) -> str:
    """Let a run deliver a file, whose content is its name, to this end; return its id."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    facts = ClaimFacts(
        file_type="Invoices",
        name=name,
        source=f"s3://invoices/{name}",
        size=len(name),
        sha256=sha256,
        run=Run(dag_id="etl", run_id="manual__2026"),
        request="5f3a91c2-1",
    )
    file_id = ledger.file_id("Invoices", sha256)
    claims = ledger.claim([(ledger.look_up([file_id])[file_id], facts)])
    if verdict is not None:
        ledger.settle([(claims[0], verdict)])
    return file_id


def _csv(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out)))


def test_accounting_finds_a_file(desk: Desk, ledger: Ledger) -> None:
    """Was it sent, when, what did Amili say: by any part of its name, as a table and as CSV."""
    code, out, _ = desk.run("find", "INVOICE-1")
    assert code == 0
    titles, line = out.splitlines()
    assert titles.split()[:3] == ["name", "outcome", "when"]
    assert all(word in line for word in ("invoice-1.csv", "uploaded", "PROCESSED", "CREATED", "Batch is processed"))
    (row,) = _csv(desk.run("find", "invoice-1", "--csv")[1])
    assert (row["outcome"], row["dag_id"], row["run_id"]) == ("uploaded", "etl", "manual__2026")
    assert desk.run("find", "nothing-like-it") == (0, "No file matches.\n", "")
    assert desk.run("find", "invoice-1", "--client-no", "7")[1] == "No file matches.\n"
    today = datetime.now(UTC).date().isoformat()
    assert _csv(desk.run("find", "invoice-1", "--from", today, "--to", today, "--csv")[1]) == [row]
    for days in (("--to", "2020-01-01"), ("--from", "2120-01-01")):
        assert desk.run("find", "invoice-1", *days)[1] == "No file matches on these days; 1 attempt(s) on others do.\n"
        assert desk.run("find", "nothing-like-it", *days)[1] == "No file matches.\n"
    assert "'monday' is no day" in desk.run("find", "invoice-1", "--from", "monday")[2]


def test_a_narrow_terminal_shows_a_line_for_each_value(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of eighteen columns would be torn into five lines; in a pipe it stays a row."""
    _, table, _ = desk.run("find", "invoice-1")
    monkeypatch.setenv("COLUMNS", "80")
    assert desk.run("find", "invoice-1")[1] == table, "of a pipe the width does not count"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, narrow, _ = desk.run("find", "invoice-1")
    monkeypatch.setenv("COLUMNS", "1000")
    assert desk.run("find", "invoice-1")[1] == table
    names = table.splitlines()[0].split()
    lines = narrow.splitlines()
    assert lines[0] == table.splitlines()[1].split()[0]
    assert [line.split()[0] for line in lines[1 : len(names)]] == names[1:]


def test_no_cell_is_a_formula(desk: Desk, ledger: Ledger) -> None:
    """A name or a message that a spreadsheet would run begins with an apostrophe."""
    (row,) = _csv(desk.run("find", "=cmd", "--csv")[1])
    assert (row["name"], row["message"]) == ("'=cmd()|invoice.csv", "'-1 is no amount")


def test_days_are_reported(desk: Desk, ledger: Ledger) -> None:
    """Per day and file type: uploaded, rejected, unknown, bytes."""
    today = datetime.now(UTC).date().isoformat()
    usual = {"day": today, "client_no": "10042", "file_type": "Invoices"}
    numbers = {"uploaded": "1", "rejected": "1", "unknown": "1", "adopted": "0", "bytes": "13"}
    assert _csv(desk.run("report", "--csv")[1]) == [usual | numbers]
    assert _csv(desk.run("report", "--from", today, "--to", today, "--csv")[1]) == [usual | numbers]
    assert desk.run("report", "--to", "2020-01-01")[1] == "No files on these days.\n"
    code, _, err = desk.run("report", "--from", "monday")
    assert (code, "'monday' is no day" in err) == (1, True)


@pytest.mark.parametrize(
    "which", [("--run", "etl/manual__2026"), ("--request", "5f3a91c2-1"), ("--file-id", "{lost}")], ids=lambda w: w[0]
)
def test_unknown_files_are_settled(desk: Desk, ledger: Ledger, which: tuple[str, str]) -> None:
    """What 'unknown' lists can be settled by its id, request or run; then it lists nothing, and again is no error."""
    (row,) = _csv(desk.run("unknown", "--csv")[1])
    assert (row["name"], row["request"], row["dag_id"]) == ("lost.csv", "5f3a91c2-1", "etl")
    said = ("--reason", "seen in the portal", "--by", "Kari")
    arguments = ("settle", "arrived", which[0], which[1].format(lost=row["file_id"]), *said)
    code, out, _ = desk.run(*arguments)
    assert (code, "settled now" in out) == (0, True)
    assert desk.run("unknown")[1] == "No file's outcome is unknown.\n"
    code, out, _ = desk.run(*arguments)
    assert (code, "settled before" in out) == (0, True)
    found = next(r for r in _csv(desk.run("find", "lost", "--csv")[1]) if r["outcome"] == "uploaded")
    assert found["settled_by"] == f"Kari (system user {getpass.getuser()})"
    assert found["reason"] == "seen in the portal"
    code, _, err = desk.run("settle", "not-arrived", *arguments[2:])
    assert code == 1
    assert "Nothing was settled: 1 of 1 file(s) cannot be" in err


def test_file_ids_may_be_given_one_by_one(desk: Desk, ledger: Ledger) -> None:
    """None of them is overwritten by the next."""
    (row,) = _csv(desk.run("unknown", "--csv")[1])
    ids = ("--file-id", row["file_id"], "--file-id", "0" * 32)
    code, _, err = desk.run("settle", "arrived", *ids, "--reason", "seen", "--by", "Kari")
    assert (code, "1 of 2 file(s) cannot be" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("arrived", "--reason", "x"), 2, "one of the arguments --request --run --file-id is required"),
        (("arrived", "--run", "etl/1", "--request", "2", "--reason", "x"), 2, "not allowed with"),
        (("arrived", "--run", "etl/1"), 2, "--reason"),
        (("perhaps", "--run", "etl/1", "--reason", "x"), 2, "invalid choice"),
        (("arrived", "--run", "etl", "--reason", "x"), 1, "'etl' names no run of a DAG. Write both: DAG/RUN."),
        (("arrived", "--run", "etl/manual__2026", "--reason", " "), 1, "'How you know' is empty"),
        (("arrived", "--run", "etl/other", "--reason", "x"), 1, "no attempt of DAG 'etl', run 'other'"),
    ],
)
def test_what_cannot_be_settled_says_why(
    desk: Desk, ledger: Ledger, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    """A wrong usage is 2, all else 1, and nothing is settled."""
    try:
        got, _, err = desk.run("settle", *arguments)
    except SystemExit as ended:
        got, err = int(str(ended.code)), capsys.readouterr().err
    assert got == code
    assert words in err
    assert "lost.csv" in desk.run("unknown")[1]


def test_files_are_adopted(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """What was delivered by other means is on record, and a dry run writes nothing."""
    (tmp_path / "sent.csv").write_bytes(b"sent by mail")
    arguments = ("adopt", f"{tmp_path.as_uri()}/*.csv", "--file-type", "Invoices", "--reason", "went by mail")
    assert "would_be_adopted" in desk.run(*arguments, "--dry-run")[1]
    code, out, _ = desk.run(*arguments)
    assert (code, out.splitlines()[1].split()[0]) == (0, "adopted")
    assert "already_uploaded" in desk.run(*arguments)[1]


def test_a_ledger_moves_to_another(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """Export, create, import: the other knows all; importing again changes nothing."""
    file, other = tmp_path / "ledger.jsonl", ("--ledger", f"sqlite:///{tmp_path}/other.db")
    assert desk.run("export", str(file))[0] == 0
    assert desk.run("create", *other)[0] == 0
    assert "3 attempt(s) are new" in desk.run("import", str(file), *other)[1]
    assert "0 attempt(s) are new" in desk.run("import", str(file), *other)[1]
    assert desk.run("find", ".csv", *other)[1] == desk.run("find", ".csv")[1]
    assert desk.run("export", "-")[1] == file.read_text(encoding="utf-8")


def test_an_export_is_whole_or_none(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """A claim that is live refuses it, in words, and what was exported before stays."""
    file = tmp_path / "ledger.jsonl"
    file.write_text("what was exported before", encoding="utf-8")
    attempt(ledger, "live.csv", None)
    code, _, err = desk.run("export", str(file))
    assert (code, "Pause the DAGs that use it" in err) == (1, True)
    assert [p.name for p in tmp_path.glob("*.jsonl*")] == ["ledger.jsonl"]
    assert file.read_text(encoding="utf-8") == "what was exported before"
    code, _, err = desk.run("import", str(file))
    assert (code, "Line 1 is no entry of an exported ledger" in err) == (1, True)


def test_an_export_leaves_everything_else_as_it_is(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """A link, the mode of a file and a user's own file beside it stay; a new file is as the umask says."""
    folder = tmp_path / "exports"
    (folder / "real").mkdir(parents=True)
    target, link, new = folder / "real" / "ledger.jsonl", folder / "link.jsonl", folder / "new.jsonl"
    target.write_text("old", encoding="utf-8")
    target.chmod(0o600)
    link.symlink_to(target)
    mine = [file.with_name(f"{file.name}.part") for file in (target, link, new)]
    for file in mine:
        file.write_text("mine", encoding="utf-8")
    for file in (link, new):
        assert desk.run("export", str(file)) == (0, f"The ledger is exported to {file}.\n", "")
    assert link.is_symlink()
    assert target.read_text("utf-8") == new.read_text("utf-8") == desk.run("export", "-")[1]
    umask = os.umask(0o022)
    os.umask(umask)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (target, new)] == [0o600, 0o666 & ~umask]
    assert [file.read_text("utf-8") for file in mine] == ["mine"] * 3
    assert {file.name for file in folder.rglob("*")} == {"real", *(file.name for file in (target, link, new, *mine))}


def test_an_export_writes_to_what_is_no_file(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """A pipe, as of a shell's >(gzip), gets the lines and nothing else, and stays; so does a link to a device."""
    pipe, null = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    null.symlink_to(os.devnull)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert desk.run("export", str(pipe)) == (0, "", "")
    assert os.read(reader, 65536).decode() == desk.run("export", "-")[1]
    os.close(reader)
    assert pipe.is_fifo()
    assert desk.run("export", str(null)) == (0, "", "")
    assert null.is_symlink()
    assert null.is_char_device()


def test_no_encoding_hides_what_was_done(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that the terminal's encoding lacks is shown by escapes, by what settles and what finds."""
    file_id = attempt(ledger, "żółw.csv", ENDS["lost.csv"])
    for arguments in (("settle", "arrived", "--file-id", file_id, "--reason", "seen"), ("find", "ółw", "--csv")):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="iso8859-1"))
        assert main(arguments) == 0
        assert b"\\u017c\xf3\\u0142w.csv" in written.getvalue()
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_early_ends_the_command_silently(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with ordinary tools: no word, a code as of SIGPIPE, and nothing for Python to complain of at its end."""
    for arguments in (("find", "csv"), ("export", "-"), ("create",)):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w", encoding="utf-8") as out:
            monkeypatch.setattr(sys, "stdout", out)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        assert ended.value.code == READER_GONE
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_said(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output that cannot be written is a failure in words, once."""
    with Path("/dev/full").open("w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["find", "csv"]) == 1
    assert capsys.readouterr().err == "amili-ledger: [Errno 28] No space left on device\n"


def test_another_pipe_that_breaks_is_said(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a reader of stdout that has gone ends the command silently: what breaks at a server's end is a failure."""

    def broken(*_: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("amili_provider.command.desk.Desk.find", broken)
    with (tmp_path / "out").open("w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["find", "csv"]) == 1
    assert capsys.readouterr().err == "amili-ledger: [Errno 32] Broken pipe\n"


def test_an_import_that_differs_is_a_failure(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """Entries that are there with another outcome are named, and left."""
    file, other = tmp_path / "ledger.jsonl", f"sqlite:///{tmp_path}/other.db"
    desk.run("create", "--ledger", other)
    store = SqlStore(sqlite_engine(str(tmp_path / "other.db")), shown="other", path=str(tmp_path / "other.db"))
    with Ledger(store, environment="staging", client_no="10042", answer_timeout=600.0) as elsewhere:
        file_id = attempt(elsewhere, "lost.csv", ENDS["invoice-1.csv"])
    desk.run("export", str(file))
    code, _, err = desk.run("import", str(file), "--ledger", other)
    assert code == 1
    assert f"1 attempt(s) are there with another owner or outcome, and were left as they are: {file_id}.1" in err


@pytest.mark.parametrize("command", [("find", "x"), ("report",), ("unknown",), ("export", "-"), ("import", "-")])
def test_a_ledger_that_is_not_there_does_not_exist(desk: Desk, command: tuple[str, ...]) -> None:
    """In these words, with the remedy, which works."""
    code, _, err = desk.run(*command)
    assert code == 1
    assert "The ledger does not exist" in err
    assert "amili-ledger create" in err
    assert not desk.path.exists()
    desk.run("create")
    if command[0] not in ("export", "import"):
        assert desk.run(*command)[0] == 0
