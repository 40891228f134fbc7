"""The command ``amili-ledger``, through its front door, on a real SQLite file and a connection of the environment."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from amili_provider.command.cli import main


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
