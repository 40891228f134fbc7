"""A ledger that is not there, may not be written, or goes away in the middle: what it cannot know is not sent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amili_provider import fault_points
from amili_provider.command.desk import Desk
from amili_provider.exceptions import AmiliDeliveryIncomplete, AmiliLedgerUnavailable, AmiliOutcomeUnknown
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger.opening import ledger_from
from amili_provider.sandbox.server import SandboxServer
from tests.ledger_cases import facts
from tests.ledgers import attempts_in, new_ledger, run_sql
from tests.wire.conftest import Upload
from tests.words import one_line

FILE_ID = "0" * 32
_NOBODY = 65534
_FILE, _FOLDER = (
    "may write the folder and all files in it.",
    "Let the user who runs the tasks read and write that folder,",
)


@contextmanager
def _as_ordinary_user() -> Iterator[None]:
    """Root may do everything; nobody else may."""
    me = os.geteuid()
    if not me:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.fixture(name="place")
def _place(connect: Callable[..., SandboxServer]) -> Iterator[Path]:
    """Folders that everyone may enter: ``outbound`` with a file, and ``books`` for a ledger that is not created yet."""
    with tempfile.TemporaryDirectory(prefix="amili-place-") as name:
        place = Path(name)
        (place / "outbound").mkdir()
        (place / "outbound" / "a.csv").write_bytes(b"1")
        (place / "books").mkdir()
        for folder in (place, *place.iterdir()):
            folder.chmod(0o755)
        connect(ledger=f"sqlite:///{place}/books/ledger.db")
        yield place


def test_a_ledger_that_is_not_there_is_not_begun(upload: Upload, amili_sandbox: SandboxServer, place: Path) -> None:
    """Nothing is sent, also by the second try, and no file appears; once it is created, everything goes out."""
    for _ in range(2):
        with pytest.raises(AmiliLedgerUnavailable) as caught:
            upload(source=f"{place}/outbound/*")
        assert "The ledger does not exist: there is none in" in one_line(caught.value)
    assert not amili_sandbox.requests
    assert not list((place / "books").iterdir())
    new_ledger(place / "books", "ledger.db")
    assert [receipt["outcome"] for receipt in upload(source=f"{place}/outbound/*")] == ["uploaded"]


def test_whoever_may_only_read_a_file_of_sqlite_leaves_nothing_beside_it(place: Path) -> None:
    """SQLite makes two files even to read; of another user, they would keep the tasks from writing."""
    new_ledger(place / "books", "ledger.db")
    (place / "books").chmod(0o777)
    (place / "books" / "ledger.db").chmod(0o444)
    with _as_ordinary_user(), pytest.raises(AmiliLedgerUnavailable, match="Run this as the user who runs the tasks"):
        Desk().find("a.csv")
    assert [entry.name for entry in (place / "books").iterdir()] == ["ledger.db"]


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "remedy"),
    [(0o444, 0o777, _FILE), (0, 0o777, _FILE), (0o666, 0o555, _FILE), (0o666, 0, _FOLDER)],
    ids=["file may only be read", "file is closed", "folder may only be read", "folder is closed"],
)
def test_a_ledger_out_of_reach_sends_nothing(
    upload: Upload, amili_sandbox: SandboxServer, place: Path, file_mode: int, folder_mode: int, remedy: str
) -> None:
    """The message says which right the worker needs; with it the ledger opens, and takes a claim."""
    books = place / "books"
    new_ledger(books, "ledger.db")
    (books / "ledger.db").chmod(file_mode)
    books.chmod(folder_mode)
    with _as_ordinary_user(), pytest.raises(AmiliLedgerUnavailable) as caught:
        upload(source=f"{place}/outbound/*")
    assert remedy in one_line(caught.value)
    assert not amili_sandbox.requests
    books.chmod(0o777)
    for file in books.iterdir():
        file.chmod(0o666)
    ledger = f"sqlite:///{books}/ledger.db"
    with _as_ordinary_user(), ledger_from(ledger, AmiliHook().settings) or pytest.fail("none") as opened:
        history = opened.look_up([FILE_ID])[FILE_ID]
        opened.claim([(history, facts())])
    assert [attempt.file_id for attempt in attempts_in(ledger)] == [FILE_ID]


@pytest.mark.parametrize(("point", "sent"), [("opened", 0), ("before claim", 0), ("answered", 1)])
def test_a_table_that_is_dropped_in_the_middle_is_not_begun_anew(
    upload: Upload, amili_sandbox: SandboxServer, place: Path, monkeypatch: pytest.MonkeyPatch, point: str, sent: int
) -> None:
    """Before the claim nothing is sent, after it the task is not green; the next run stops: it would know nothing."""
    ledger = new_ledger(place / "books", "ledger.db")
    monkeypatch.setattr("amili_provider.ledger.ledger.SETTLE_SECONDS", 0.0)

    def reached(name: str) -> None:
        if name == point:
            monkeypatch.setattr(fault_points, "reached", lambda _: None)
            run_sql(ledger, "DROP TABLE amili_attempts")

    monkeypatch.setattr(fault_points, "reached", reached)
    with pytest.raises(AmiliOutcomeUnknown if sent else AmiliDeliveryIncomplete):
        upload(source=f"{place}/outbound/*")
    with pytest.raises(AmiliLedgerUnavailable, match="The ledger does not exist"):
        upload(source=f"{place}/outbound/*")
    assert len(amili_sandbox.uploads) == sent


def _emptied(ledger: str) -> None:
    run_sql(ledger, "DELETE FROM amili_attempts")


def _replaced(ledger: str) -> None:
    path = Path(ledger.removeprefix("sqlite:///"))
    for file in path.parent.iterdir():
        file.unlink()
    new_ledger(path.parent, path.name)


def _removed(ledger: str) -> None:
    Path(ledger.removeprefix("sqlite:///")).unlink()


@pytest.mark.parametrize("change", [_emptied, _replaced, _removed])
@pytest.mark.parametrize("point", ["opened", "looked up", "before claim"])
def test_a_ledger_that_is_another_one_now_takes_no_claim(
    upload: Upload,
    amili_sandbox: SandboxServer,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], None],
    point: str,
) -> None:
    """What is claimed in a ledger that forgets it would be sent again: nothing goes out, and the task is not green."""
    ledger = new_ledger(place / "books", "ledger.db")

    def reached(name: str) -> None:
        if name == point:
            monkeypatch.setattr(fault_points, "reached", lambda _: None)
            change(ledger)

    monkeypatch.setattr(fault_points, "reached", reached)
    with pytest.raises(AmiliDeliveryIncomplete, match="(?s)not the one that was opened"):
        upload(source=f"{place}/outbound/*")
    assert not amili_sandbox.uploads
