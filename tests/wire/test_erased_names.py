"""Names that were erased from the ledger, as its page says how: no delivery is forgotten, and none is made twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from amili_provider.exceptions import AmiliDuplicateFiles
from amili_provider.sandbox.server import SandboxServer
from tests.readme import shown
from tests.wire.conftest import Upload


def _erase(ledger: Path) -> None:
    statement = shown("erasure")
    # The environment of a sandbox is its address, and its files were sent today.
    statement = statement.replace("environment = 'production' AND client_no = '2218'", "environment <> ''")
    with sqlite3.connect(ledger) as connection:
        assert connection.execute(statement.replace("2021-01-01", "2999-01-01")).rowcount > 0


@pytest.mark.parametrize("if_duplicate", ["fail", "skip", "send"])
def test_the_bytes_are_known_under_any_name(
    upload: Upload, amili_sandbox: SandboxServer, outbound: Path, tmp_path: Path, if_duplicate: str
) -> None:
    """After the names were blanked, neither the file nor its bytes under another name go out, whatever is chosen."""
    (outbound / "ola.csv").write_bytes(b"fees")
    upload()
    _erase(tmp_path / "amili-ledger.db")
    (outbound / "december.csv").write_bytes(b"fees")
    receipts = upload(if_duplicate=if_duplicate)
    assert [r["outcome"] for r in receipts] == ["already_uploaded"] * 2
    assert [u.name for u in amili_sandbox.uploads] == ["ola.csv"]


def test_force_sends_them(upload: Upload, amili_sandbox: SandboxServer, outbound: Path, tmp_path: Path) -> None:
    """The one way that is left to send the bytes as another delivery."""
    (outbound / "ola.csv").write_bytes(b"fees")
    upload()
    _erase(tmp_path / "amili-ledger.db")
    (outbound / "ola.csv").rename(outbound / "december.csv")
    assert [r["outcome"] for r in upload(force=True)] == ["uploaded"]
    assert [u.name for u in amili_sandbox.uploads] == ["ola.csv", "december.csv"]


def test_a_word_in_the_place_of_a_name_is_another_name(
    upload: Upload, amili_sandbox: SandboxServer, outbound: Path, tmp_path: Path
) -> None:
    """Why the page says to leave it blank: the file is a duplicate of itself, and ``send`` would send it once more."""
    (outbound / "ola.csv").write_bytes(b"fees")
    upload()
    with sqlite3.connect(tmp_path / "amili-ledger.db") as connection:
        connection.execute("UPDATE amili_attempts SET name = 'erased' WHERE environment <> ''")
    with pytest.raises(AmiliDuplicateFiles):
        upload()
    upload(if_duplicate="send")
    assert [u.name for u in amili_sandbox.uploads] == ["ola.csv"] * 2
