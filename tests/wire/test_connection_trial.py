"""The test button: bounded, it leaves nothing behind, and a sentence of its own for each cause."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pytest_mock import MockerFixture

from amili_provider.hooks import connection_test
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.objects import ObjectStore
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.stores import Identity
from amili_provider.storage.backends.objects import ObjectFiles
from tests.wire.rawserver import (
    CLIENT_SECRET,
    TOKEN_CANARY,
    RawServer,
    Step,
    answer,
    cut,
    give_token,
    silence,
)

NIL_BATCH = "/arm/v1/clients/2218/batches/00000000-0000-0000-0000-000000000000"
NOT_FOUND = answer(404, {"message": "no such batch"})
Try = Callable[..., tuple[bool, str]]


class Ends:
    """The servers of one test, and the connection that leads to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stack = ExitStack()
        self._monkeypatch = monkeypatch
        self.api: RawServer
        self.tokens: RawServer

    def trying(self, api: Step | None = None, tokens: Step | None = None, **extra: Any) -> tuple[bool, str]:
        """Start servers, point a connection to them and press the button."""
        changes: dict[str, Any] = {
            key: extra.pop(key) for key in ("login", "password", "host", "schema") if key in extra
        }
        self.api = self.stack.enter_context(RawServer(otherwise=api))
        self.tokens = self.stack.enter_context(RawServer(otherwise=tokens or give_token()))
        connection: dict[str, Any] = {
            "conn_type": "amili",
            "login": "id",
            "password": CLIENT_SECRET,
            "host": self.api.url,
            "schema": "arm/v1",
            **changes,
            "extra": {"auth_url": self.tokens.url, "client_no": 2218, **extra},
        }
        self._monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
        worked, words = AmiliHook().test_connection()
        assert CLIENT_SECRET not in words
        assert TOKEN_CANARY not in words
        return worked, words


@pytest.fixture(name="ends")
def _ends(monkeypatch: pytest.MonkeyPatch) -> Any:
    ends = Ends(monkeypatch)
    with ends.stack:
        yield ends


@pytest.mark.parametrize(
    ("api", "found"),
    [
        (
            NOT_FOUND,
            (
                "A wrong client number or base path may answer the same; the first upload will show. "
                "Token obtained from {auth}, valid for 60 minutes. "
                "Asked as client 2218 at {url} for a batch that does not exist, the API answered 404, as it should."
            ),
        ),
        (answer(200, {}), "Reading client 2218 at {url} is allowed."),
        (answer(202), "Reading client 2218 at {url} is allowed."),
    ],
)
def test_all_is_well(ends: Ends, api: Step, found: str) -> None:
    """A token was obtained, and a batch that does not exist was asked for: nothing is written."""
    worked, words = ends.trying(api)
    assert worked
    assert f"Token obtained from {ends.tokens.url}, valid for 60 minutes." in words
    assert found.format(url=f"{ends.api.url}/arm/v1", auth=ends.tokens.url) in words
    assert [(r.method, r.target) for r in ends.api.requests] == [("GET", NIL_BATCH)]


@pytest.mark.parametrize("more", [{}, {"client_no": None}])
def test_an_empty_ledger_is_told(ends: Ends, tmp_path: Path, more: dict[str, Any]) -> None:
    """A connection without a ledger works, but its first upload would stop; whoever presses the button learns it."""
    note = "'Ledger' (extra 'ledger') is empty: each upload then needs ledger=."
    worked, words = ends.trying(NOT_FOUND, **more)
    assert worked
    assert words.endswith(f" {note}")
    assert note not in ends.trying(NOT_FOUND, ledger=f"sqlite:///{tmp_path}/ledger.db", **more)[1]


@pytest.mark.parametrize("table", [{}, {"ledger": "amili_attempts"}])
def test_the_ledger_is_opened(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any]
) -> None:
    """Red while it is not there, with the remedy; green once it is, with which one it is. Nothing is written."""
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_BOOKS", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    worked, words = ends.trying(NOT_FOUND, ledger_conn_id="books", **table)
    assert not worked
    assert words.startswith("The ledger does not exist: there is none in ")
    assert "amili-ledger create --conn-id" in words
    assert "All else works: " in words
    who = sqlite_ledger(path)
    before = path.read_bytes()
    worked, words = ends.trying(NOT_FOUND, ledger_conn_id="books", **table)
    assert worked
    assert words.endswith(f"Ledger: sqlite:///{path}, table amili_attempts ({who}).")
    assert path.read_bytes() == before


def sqlite_ledger(path: Path) -> Identity:
    """Create a ledger in a file of SQLite, and return which one it is."""
    with closing(SqlStore(sqlite_engine(str(path), create=True), shown="books", path=str(path))) as store:
        return store.create()[0]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"ledger": "sftp://host/ledger"}, "The ledger cannot be kept in 'sftp://host/ledger'"),
        ({"ledger": "amili_attempts"}, "is a table, but no database is named"),
        ({"ledger_conn_id": "nowhere"}, "no Airflow connection with the id 'nowhere'"),
        ({"ledger": "sqlite:////nowhere/ledger.db"}, "the folder of /nowhere/ledger.db is not there"),
    ],
)
def test_a_ledger_that_cannot_be_is_red(ends: Ends, extra: dict[str, Any], words: str) -> None:
    """In the words that an upload would have."""
    worked, said = ends.trying(NOT_FOUND, **extra)
    assert not worked
    assert words in said
    assert "All else works" in said


def _in_bucket(ends: Ends, monkeypatch: pytest.MonkeyPatch, step: Step) -> tuple[bool, str]:
    """Press the button of a connection whose ledger is in a bucket of a server that answers with *step*."""
    server = ends.stack.enter_context(RawServer(otherwise=step))
    extra = {"endpoint_url": server.url, "region_name": "eu-north-1"}
    bucket = {"conn_type": "aws", "login": "id", "password": "bucket-canary", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_BUCKET", json.dumps(bucket))
    worked, said = ends.trying(NOT_FOUND, ledger="s3://books/amili", ledger_conn_id="bucket")
    assert "bucket-canary" not in said
    return worked, said


def test_a_ledger_without_rights_is_red(ends: Ends, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> None:
    """A bucket that may not be read says so, and what is needed."""
    mocker.patch.object(
        connection_test, "TRIAL_SECONDS", 120
    )  # on a busy machine it takes long to load the bucket's library
    worked, said = _in_bucket(
        ends, monkeypatch, answer(403, b"<Error><Code>AccessDenied</Code><Message>No</Message></Error>")
    )
    assert not worked
    assert "cannot read s3://books/amili/ledger.json" in said
    assert "may list, read and write there" in said


def test_a_ledger_that_does_not_answer_ends_in_time(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture
) -> None:
    """Whatever hangs, an answer comes within the bound, and names the ledger."""
    mocker.patch.object(connection_test, "TRIAL_SECONDS", 2)
    worked, said = _in_bucket(ends, monkeypatch, silence())
    assert not worked
    assert "No result within 2 s: the ledger s3://books/amili does not answer. Check 'Ledger'" in said


class _Careless:
    """The client of a store that writes over what exists, whatever the condition."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def read(self, _bucket: str, key: str, _version: str | None, _span: tuple[int, int] | None) -> bytes:
        """Return an object."""
        return self.objects[key]

    def write(self, _bucket: str, key: str, stream: BinaryIO, _size: int, *, new: bool) -> None:
        """Write it."""
        assert new in (True, False)
        self.objects[key] = stream.read()

    def delete(self, _bucket: str, key: str, _version: str | None) -> None:
        """Delete it."""
        del self.objects[key]

    def meaning(self, error: Exception) -> Exception:
        """Return what is missing as such."""
        return FileNotFoundError() if isinstance(error, KeyError) else error

    def close(self) -> None:
        """Close nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for")


def test_a_ledger_without_conditional_writes_is_red(ends: Ends, mocker: MockerFixture) -> None:
    """Two tasks could send one file: such a store is refused before anything is sent."""
    client = _Careless()
    client.objects["ledger.json"] = b'{"format": 1, "ledger_id": "a1b2", "created_at": "2026-11-22T00:00:00.000Z"}'
    store = ObjectStore(ObjectFiles(client), "books", "s3://books")
    mocker.patch.object(connection_test, "store_from", autospec=True, return_value=store)
    worked, said = ends.trying(NOT_FOUND, ledger="s3://books")
    assert not worked
    assert said.startswith("A ledger cannot be kept in s3://books: this store does not refuse to create an object")


def test_amili_and_ledger_can_both_be_at_fault(ends: Ends, tmp_path: Path) -> None:
    """Both are told at once."""
    worked, said = ends.trying(answer(500), ledger=f"sqlite:///{tmp_path}/ledger.db")
    assert not worked
    assert re.search(r"but: .* 500.* The ledger does not exist", said)


def test_without_a_client_number_only_the_token_is_tried(ends: Ends) -> None:
    """What was not tried is said."""
    worked, words = ends.trying(client_no=None)
    assert worked
    assert "'Client number' (extra 'client_no') is empty, so it was not tried" in words
    assert ends.api.requests == []


def test_ready_made_token_alone_proves_nothing(ends: Ends) -> None:
    """A token that was not tried anywhere is not called good."""
    worked, words = ends.trying(login=None, password=None, access_token="own-canary", client_no=None, auth_url=None)
    assert not worked
    assert "own-canary" not in words


@pytest.mark.parametrize(
    ("api", "tokens", "words"),
    [
        (None, answer(401, {"error": "invalid_client"}), "check 'Client id' and 'Client secret'"),
        (None, answer(400, {"error": "invalid_scope"}), "check 'Scope'"),
        (None, answer(404), "check 'Token service URL'"),
        (None, answer(200, b"<html>"), "is this the base URL of Amili's token service"),
        (None, answer(500), "answered 500; no token"),
        (None, cut(after=0), "no token, since the connection to .* ended"),
        (answer(401), None, "but not allowed to read client 2218 at .* 401"),
        (answer(403, {"message": "not yours"}), None, "but not allowed to read client 2218 at .* 403, not yours"),
        (answer(500), None, "Token obtained .* but: .* 500"),
        (answer(301), None, "Token obtained .* but: .* redirects"),
        (cut(after=0), None, "Token obtained .* but: .* ended before"),
    ],
)
def test_each_cause_has_its_sentence(ends: Ends, api: Step | None, tokens: Step | None, words: str) -> None:
    """What was reached, what came back, what to check."""
    worked, said = ends.trying(api, tokens)
    assert not worked
    assert re.search(words, said), said
    assert "\n" not in said


def test_wrong_host(ends: Ends) -> None:
    """A host that refuses is named."""
    worked, said = ends.trying(host="http://127.0.0.1:1")
    assert not worked
    assert "127.0.0.1:1 refuses connections; check 'Environment' (extra 'environment'), 'Host' and 'Port'" in said


def test_proxy_down(ends: Ends) -> None:
    """A proxy that is down is told from Amili being down."""
    worked, said = ends.trying(auth_url="https://auth.example", proxy="http://u:canary@127.0.0.1:1")
    assert not worked
    assert "the proxy 127.0.0.1:1 refuses connections; check 'Proxy URL'" in said
    assert "canary" not in said


def test_incomplete_connection(ends: Ends) -> None:
    """A field that is missing is named as the form labels it."""
    assert ends.trying(password=None) == (False, "'Client secret' is missing.")


def test_unreadable_ca_file(ends: Ends) -> None:
    """A CA file that is not there is named."""
    worked, said = ends.trying(ca_file="/nowhere/ca.pem")
    assert not worked
    assert "'CA file' (extra 'ca_file') is '/nowhere/ca.pem', which cannot be read" in said


def test_silence_ends_in_time(ends: Ends, mocker: MockerFixture) -> None:
    """Whatever hangs, an answer comes within the bound; each step has its own, shorter one."""
    mocker.patch.object(connection_test, "STEP_SECONDS", 0.2)
    worked, said = ends.trying(silence())
    assert not worked
    assert "did not answer completely in time" in said
    assert connection_test.TRIAL_SECONDS == 10


def test_name_server_that_hangs_ends_in_time(ends: Ends, mocker: MockerFixture) -> None:
    """What nothing else bounds is bounded by the trial."""
    hanging = threading.Event()

    def hang(*_arguments: Any, **_options: Any) -> None:
        hanging.wait(20)
        raise socket.gaierror

    mocker.patch.object(connection_test, "TRIAL_SECONDS", 0.2)
    mocker.patch("socket.getaddrinfo", autospec=True, side_effect=hang)
    worked, said = ends.trying(NOT_FOUND)
    hanging.set()
    assert not worked
    assert "No result within 0.2 s" in said


def test_secret_is_masked(ends: Ends, mocker: MockerFixture) -> None:
    """The token that the trial got is masked like any other."""
    masked = mocker.patch("amili_provider.hooks.amili.mask_secret", autospec=True)
    ends.trying(NOT_FOUND)
    masked.assert_called_once_with(f"{TOKEN_CANARY}-1")
