"""What FTP servers may leave out of a listing: it is asked for, or told of, and never taken for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.storage.backends import ftp_protocol
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.names import KINDS_IGNORED, reason_to_ignore
from tests.storage.backends.scripted_ftp import ScriptedFtp

Serve = Callable[..., ScriptedFtp]
_NO = "550 Not a directory"


@pytest.fixture(name="serve")
def _serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server with what it says; the connection ``partner`` is to it."""
    started: list[ScriptedFtp] = []

    def serve(*lines: str, **script: Any) -> ScriptedFtp:
        started.append(server := ScriptedFtp(lines, **script))
        connection = {"conn_type": "ftp", "host": "127.0.0.1", "port": server.port, "login": "p", "password": "canary"}
        monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(connection))
        return server

    yield serve
    for server in started:
        server.close()


def _listed(path: str = "ftp:///out/*.csv") -> dict[str, StorageFile]:
    return {file.name: file for file in list_files(path, "partner")}


@pytest.mark.parametrize("mlsd", [True, False], ids=["MLSD", "LIST"])
@pytest.mark.parametrize(
    "ended", ["226-Options: -a -l\r\n226 Output truncated to 2 matches", "226 Listing incomplete: too many files"]
)
def test_a_listing_that_is_cut_off_is_an_error(serve: Serve, mlsd: bool, ended: str) -> None:
    """The server says that it names only the first files: the others would be lost without a word."""
    lines = [
        ("type=file;size=5; " if mlsd else "-rw-r--r-- 1 p g 5 Nov 26 11:00 ") + name for name in ("a.csv", "b.csv")
    ]
    serve(*lines, mlsd=mlsd, ended=ended, replies={"MLST /out": "250-Here\r\n type=dir; /out\r\n250 End"})
    for path in ("ftp:///out/*.csv", "ftp:///out/", "ftp:///**/*.csv"):
        with pytest.raises(
            AmiliStorageSettingsError, match=r"lists only 2 names.*226 .*raise the limit .*LimitRecursion.*more folders"
        ):
            _listed(path)


@pytest.mark.parametrize("ended", ["226 2 matches total", "226 Transfer complete", "250 Done"])
def test_a_listing_that_is_whole_is_taken(serve: Serve, ended: str) -> None:
    """How servers say that all is well."""
    serve("type=file;size=5; a.csv", ended=ended)
    assert set(_listed()) == {"a.csv"}


@pytest.mark.parametrize(
    ("line", "mlsd"),
    [
        ("type=OS.unix=slink:/real/b.csv;size=11;modify=20200101000000; b.csv", True),
        ("type=OS.unix=symlink;size=11;modify=20200101000000; b.csv", True),
        ("lrwxrwxrwx   1 p g 11 Nov 26 11:00 b.csv -> ../real/b.csv", False),
        ("modify=20261126110000;size=4; b.csv", True),
        ("modify=20261126110000; b.csv", True),
        ("type=file; b.csv", True),
        ("type=file;size=; b.csv", True),
    ],
)
def test_what_a_listing_leaves_out_is_asked_for(serve: Serve, line: str, mlsd: bool) -> None:
    """Of a link, of a name without a type, of a file without a size: found, by its name as well, and read."""
    replies = {"CWD /out/b.csv": _NO, "SIZE /out/b.csv": "213 4", "MDTM /out/b.csv": "213 20261126110000"}
    serve(line, mlsd=mlsd, replies=replies, files={"/out/b.csv": b"data"})
    for path in ("ftp:///out/*.csv", "ftp:///out/b.csv"):
        file = _listed(path)["b.csv"]
        assert (file.size, file.fault) == (4, None)
        if "link" in line or line.startswith("l"):
            assert file.modified == 1795690800.0
        with file.open() as stream:
            assert stream.read() == b"data"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("type=OS.unix=slink:/nowhere;size=8; b.csv", "a link that cannot be followed (550 No such file or directory)"),
        ("modify=20261126110000;size=4; b.csv", "does not tell its type and size (550"),
        ("type=file; b.csv", "does not tell its size (550"),
    ],
)
def test_what_is_not_told_even_then_is_said(serve: Serve, line: str, words: str) -> None:
    """It is never an empty file that is skipped, and the other file is found."""
    serve(line, "type=file;size=4; a.csv", replies={"CWD /out/b.csv": _NO, "MLST /out/b.csv": "550 No such file"})
    for path in ("ftp:///out/*.csv", "ftp:///out/b.csv"):
        found = _listed(path)
        file = found.pop("b.csv")
        assert words in str(file.fault)
        assert reason_to_ignore(file, KINDS_IGNORED) is None
        assert all(other.fault is None for other in found.values())
    assert set(_listed("ftp:///out/a*")) == {"a.csv"}


@pytest.mark.parametrize(
    ("line", "mlsd"),
    [
        ("type=OS.unix=slink:/real;size=4; d2", True),
        ("modify=20261126110000; d2", True),
        ("lrwxrwxrwx 1 p g 4 Nov 26 11:00 d2 -> ../real", False),
    ],
)
def test_a_link_to_a_folder_is_looked_into(serve: Serve, line: str, mlsd: bool) -> None:
    """In the middle of a pattern; the listing itself does not say what it is."""
    file = "type=file;size=1; x.csv" if mlsd else "-rw-r--r-- 1 p g 1 Nov 26 11:00 x.csv"
    serve(line, file, mlsd=mlsd, replies={"CWD /days/x.csv": _NO})
    found = {file.path for file in list_files("ftp:///days/*/x.csv", "partner")}
    assert found == {"/days/d2/x.csv"}


def test_a_link_that_only_its_listing_calls_so_is_followed(serve: Serve) -> None:
    """As ProFTPD does, which tells of the one name as of a file, with the link's own size and time."""
    replies = {"CWD /out/b.csv": _NO, "SIZE /out/b.csv": "213 4", "MDTM /out/b.csv": "213 20261126110000"}
    replies["MLST /out/b.csv"] = "250-Here\r\n type=file;size=19;modify=20200101000000; b.csv\r\n250 End"
    line = "type=OS.unix=symlink;size=19;modify=20200101000000; b.csv"
    serve(line, replies=replies, files={"/out/b.csv": b"data"})
    for path in ("ftp:///out/*.csv", "ftp:///out/b.csv"):
        with _listed(path)["b.csv"].open() as stream:
            assert stream.read() == b"data"


def test_mlst_on_one_line_is_read(serve: Serve) -> None:
    """Some servers do not give the facts a line of their own."""
    serve("type=file;size=4; a.csv", replies={"MLST /out/a.csv": "250 type=file;size=4; /out/a.csv"})
    assert _listed("ftp:///out/a.csv")["a.csv"].size == 4


@pytest.mark.parametrize("mlsd", [True, False], ids=["MLSD", "LIST"])
def test_a_refusal_that_does_not_say_why_says_both(serve: Serve, mlsd: bool) -> None:
    """Many servers answer 550 to a folder that is missing as to one without rights."""
    said = "550 Failed to change directory."
    serve("type=file;size=4; a.csv", mlsd=mlsd, replies={"MLSD /out": said, "CWD /out": said, "MLST /out": said})
    with pytest.raises(FileNotFoundError, match=r"does not exist, or its login has no right.*create .*give its login"):
        _listed()
    clear = "550 No such file or directory"
    serve(mlsd=mlsd, replies={"MLSD /out": clear, "CWD /out": clear})
    with pytest.raises(FileNotFoundError, match="it does not exist") as caught:
        _listed()
    assert "right" not in str(caught.value)


@pytest.mark.parametrize("mlsd", [True, False], ids=["MLSD", "LIST"])
def test_a_folder_that_is_listed_as_empty_must_let_us_in(serve: Serve, mlsd: bool) -> None:
    """Servers leave out every name of a folder that may be read but not entered."""
    serve(mlsd=mlsd, replies={"CWD /out": "550 Permission denied"})
    with pytest.raises(AmiliStorageError, match="permission denied"):
        _listed()


@pytest.mark.parametrize("answer", ["550 No files found.", "450 No files found", "550 No such file or directory."])
def test_an_empty_folder_that_cannot_be_listed_is_empty(serve: Serve, answer: str) -> None:
    """It can be entered, and the server refuses to list nothing; a folder that cannot be entered is not there."""
    server = serve(mlsd=False, replies={"LIST": answer, "CWD /gone": "550 No such file or directory"})
    assert _listed() == {}
    with pytest.raises(FileNotFoundError):
        _listed("ftp:///gone/*.csv")
    server.replies["LIST"] = "550 Permission denied"
    with pytest.raises(AmiliStorageError, match="permission denied"):
        _listed()


def test_a_file_that_its_writer_holds_is_retried(serve: Serve) -> None:
    """The server's 550 says why, and it is not that the file is missing."""
    words = "550 The process cannot access the file because it is being used by another process."
    serve("type=file;size=4; a.csv", replies={"RETR /out/a.csv": words})
    with pytest.raises(AmiliStorageError, match="cannot be read now: 550 The process") as caught:
        _listed()["a.csv"].open()
    assert not isinstance(caught.value, AmiliStorageSettingsError)


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        ("SSH-2.0-OpenSSH_9.2", r"it says SSH-2\.0-OpenSSH_9\.2\. That is SSH: use a connection of type sftp"),
        ("HTTP/1.1 400 Bad Request", "it says HTTP/1.1 400 Bad Request. Correct the port"),
    ],
)
def test_a_server_that_greets_otherwise_is_none(serve: Serve, greeting: str, words: str) -> None:
    """The sentence says what it looks like, and no retry would change it."""
    serve(greeting=greeting)
    with pytest.raises(AmiliStorageSettingsError, match=words):
        _listed()


@pytest.mark.parametrize(
    ("port", "words"), [("21", "Correct the port"), ("990", "implicit TLS, which is not supported")]
)
def test_a_server_that_does_not_greet_is_none(
    serve: Serve, port: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for TLS to begin: after seconds, with the reason."""
    server = serve(greeting=None)
    monkeypatch.setattr(ftp_protocol, "_GREETING_SECONDS", 0.3)
    if port == "990":
        monkeypatch.setattr(ftp_protocol, "_IMPLICIT_TLS", server.port)
        monkeypatch.setattr(ftp_protocol, "_IMPLICIT_SECONDS", 0.3)
    with pytest.raises(AmiliStorageSettingsError, match=f"it says nothing.*{words}"):
        _listed()
