"""Servers that let in few sessions: all files are read with those that there are, and none stays open after a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.sandbox.server import SandboxServer
from tests.storage.backends.scripted_ftp import ScriptedFtp
from tests.wire.conftest import Upload

Serve = Callable[..., ScriptedFtp]
_FILES = {f"/out/{n}.csv": b"%d" % n * (4_500_000 if n > 10 else 10) for n in range(1, 14)}
_LINES = [f"type=file;size={len(data)}; {path.rpartition('/')[2]}" for path, data in _FILES.items()]


@pytest.fixture(name="serve")
def _serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server with thirteen files, three of them large; the connection ``partner`` is to it."""
    started: list[ScriptedFtp] = []

    def serve(extra: dict[str, Any] | None = None, **script: Any) -> ScriptedFtp:
        started.append(server := ScriptedFtp(_LINES, files=_FILES, **script))
        connection = {"conn_type": "ftp", "host": "127.0.0.1", "port": server.port, "login": "p", "password": "canary"}
        monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps({**connection, "extra": extra or {}}))
        return server

    yield serve
    for server in started:
        server.close()


def _until_all_are_closed(server: ScriptedFtp) -> None:
    deadline = time.monotonic() + 10
    while server.sessions and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.sessions == 0


@pytest.mark.parametrize(
    ("most", "full", "at_the_door"),
    [
        (1, "530 Sorry, the maximum number of clients (1) for this user are already connected.", False),
        (2, "421 There are too many connected users, please try later.", False),
        (2, "530 Login incorrect.", False),
        (1, "421 There are too many connections from your internet address.", True),
        (2, "", True),
    ],
)
def test_a_login_with_few_sessions_delivers_every_file(
    serve: Serve, upload: Upload, amili_sandbox: SandboxServer, most: int, full: str, at_the_door: bool
) -> None:
    """A session that is refused while ours are open means that these are all there are, however it is said."""
    server = serve(most=most, full=full, at_the_door=at_the_door)
    receipts = upload(source="ftp:///out/*.csv", source_conn_id="partner")
    assert {r["outcome"] for r in receipts} == {"uploaded"}
    assert len(amili_sandbox.uploads) == len(receipts) == len(_FILES)
    assert server.most_seen == most
    _until_all_are_closed(server)


@pytest.mark.parametrize("extra", [{}, {"max_sessions": 3}, {"max_sessions": "1"}])
def test_sessions_are_bounded_and_closed(serve: Serve, upload: Upload, extra: dict[str, Any]) -> None:
    """Eight, or as many as the connection says; after three runs none is open, and nobody was turned away."""
    server = serve(extra)
    for _ in range(3):
        upload(source="ftp:///out/*.csv", source_conn_id="partner", force=True)
        _until_all_are_closed(server)
    assert 1 <= server.most_seen <= int(extra.get("max_sessions", 8))
    assert server.turned_away == 0


@pytest.mark.parametrize("said", [0, 65, "many", -1, True])
def test_another_number_of_sessions_is_refused(serve: Serve, upload: Upload, said: object) -> None:
    """The sentence names the extra and what it may be."""
    serve({"max_sessions": said})
    with pytest.raises(AmiliStorageSettingsError, match="'max_sessions' is .*, not a number from 1 to 64"):
        upload(source="ftp:///out/*.csv", source_conn_id="partner")


def test_a_login_that_is_refused_at_once_is_not_repeated(serve: Serve, upload: Upload) -> None:
    """Nothing of ours is open, so it is the login: one try, for an account may be locked after some."""
    server = serve(most=0, full="530 Login incorrect.")
    with pytest.raises(AmiliStorageSettingsError, match="refuses the login"):
        upload(source="ftp:///out/*.csv", source_conn_id="partner")
    assert server.turned_away == 1


@pytest.mark.parametrize(
    "full", ["", "421 Too many connections", "530 Sorry, the maximum number of clients is reached"]
)
def test_a_server_that_is_full_of_others_is_retried(serve: Serve, upload: Upload, full: str) -> None:
    """By Airflow: it may let us in later."""
    serve(most=0, full=full, at_the_door=True)
    with pytest.raises(AmiliStorageError, match="closes the connection|lets nobody") as caught:
        upload(source="ftp:///out/*.csv", source_conn_id="partner")
    assert not isinstance(caught.value, AmiliStorageSettingsError)


def test_a_run_that_fails_closes_its_sessions(serve: Serve, upload: Upload, tmp_path: Path) -> None:
    """Before and after listing."""
    server = serve()
    for arguments in ({"source": ["ftp:///out/*.csv", "ftp://elsewhere/x"]}, {"archive_to": "ftp:///out"}):
        with pytest.raises(Exception, match=r"names the host|is inside the source"):
            upload(**{"source": "ftp:///out/*.csv", "source_conn_id": "partner", **arguments})
        _until_all_are_closed(server)
