"""What SFTP servers may leave out of a listing: it is asked for, or told of, and never taken for nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import stat
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import paramiko
import pytest
from airflow.providers.common.compat.sdk import Context

from amili_provider.exceptions import AmiliError, AmiliStorageSettingsError
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.buckets import AmiliFileBucketsOperator
from amili_provider.sandbox.rules import DEFAULT_FILE_TYPE
from amili_provider.sandbox.server import SandboxServer
from amili_provider.storage.backends.sftp import SftpFiles
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.names import IS_EMPTY, KINDS_IGNORED, reason_to_ignore
from amili_provider.storage.reading import more_than_told
from tests.wire.conftest import FakeTaskInstance

Change = Callable[[paramiko.SFTPAttributes], None]


class _Server:
    """
    What paramiko's client gives of a server that leaves something out.

    :param root: its folder on this disk.
    :param change: takes from attributes what the server leaves out.
    :param longname: whether a listing has the line for people, too.
    """

    def __init__(self, root: Path, change: Change, *, longname: bool = True) -> None:
        self._root = root
        self._change = change
        self._longname = longname

    def _attributes(self, path: Path, name: str | None = None) -> paramiko.SFTPAttributes:
        found = paramiko.SFTPAttributes.from_stat(path.stat(), name)
        if self._longname and name:
            found.longname = str(found)
        self._change(found)
        return found

    def listdir_attr(self, path: str) -> list[paramiko.SFTPAttributes]:
        """List a folder, and nothing else."""
        folder = self._root / path.strip("/")
        if not folder.is_dir():
            raise OSError("Failure")
        return [self._attributes(one, one.name) for one in folder.iterdir()]

    def stat(self, path: str) -> paramiko.SFTPAttributes:
        """Tell of one name."""
        return self._attributes(self._root / path.strip("/"))

    lstat = stat

    def normalize(self, _: str) -> str:
        """Return the login folder."""
        return "/"

    def close(self) -> None:
        """There is nothing to close."""


@pytest.fixture(name="serve")
def _serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the connection ``partner`` lead to a folder, through a server that leaves something out."""
    (tmp_path / "out" / "day").mkdir(parents=True)
    (tmp_path / "out" / "a.csv").write_bytes(b"data")
    (tmp_path / "out" / "day" / "b.csv").write_bytes(b"more")
    partner = {"conn_type": "sftp", "host": "127.0.0.1", "login": "p", "password": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps({**partner, "extra": {"no_host_key_check": True}}))

    def serve(change: Change, *, longname: bool = True) -> None:
        server: Any = _Server(tmp_path, change, longname=longname)
        monkeypatch.setattr(SftpFiles, "_connect", lambda _: (server, server))

    return serve


def _listed(path: str) -> dict[str, StorageFile]:
    return {file.name: file for file in list_files(f"sftp:///{path}", "partner")}


def _only_rights(attributes: paramiko.SFTPAttributes) -> None:
    assert attributes.st_mode is not None
    attributes.st_mode &= 0o777


def _no_rights(attributes: paramiko.SFTPAttributes) -> None:
    attributes.st_mode = None


@pytest.mark.parametrize("longname", [True, False], ids=["with ls line", "without"])
@pytest.mark.parametrize("change", [_only_rights, _no_rights])
def test_a_type_that_is_not_told_is_found_out(serve: Callable[..., None], change: Change, longname: bool) -> None:
    """A file is found by pattern and by name, and a folder is looked into."""
    serve(change, longname=longname)
    assert set(_listed("out/*")) == set(_listed("out/a.csv")) == {"a.csv"}
    assert set(_listed("out/*/*")) == set(_listed("out/day")) == {"b.csv"}
    assert {name: file.size for name, file in _listed("**/*.csv").items()} == {"a.csv": 4, "b.csv": 4}


def test_a_type_that_cannot_be_found_out_is_said(serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it may be a folder without rights, it is neither an empty folder nor nothing."""
    serve(_no_rights, longname=False)
    honest = _Server.listdir_attr

    def denied(server: _Server, path: str) -> list[paramiko.SFTPAttributes]:
        if path == "/out/day":
            raise PermissionError("Permission denied")
        return honest(server, path)

    monkeypatch.setattr(_Server, "listdir_attr", denied)
    assert "does not tell what it is" in str(_listed("out/*/*")["day"].fault)
    with pytest.raises(AmiliError, match="day"):
        _listed("out/day/")


def test_a_size_that_is_not_told_is_asked_for(serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing may leave it out where the question after the one name does not."""
    serve(lambda _: None)
    honest = _Server.listdir_attr

    def without(server: _Server, path: str) -> list[paramiko.SFTPAttributes]:
        found = honest(server, path)
        for attributes in found:
            attributes.st_size = None
        return found

    monkeypatch.setattr(_Server, "listdir_attr", without)
    assert {file.size for file in _listed("out/*").values()} == {4}


def test_a_size_that_is_not_told_even_then_is_said(serve: Callable[..., None]) -> None:
    """It is no empty file that is skipped, and it is not read as one."""

    def no_size(attributes: paramiko.SFTPAttributes) -> None:
        attributes.st_size = None

    serve(no_size)
    for path in ("out/*.csv", "out/a.csv"):
        file = _listed(path)["a.csv"]
        assert "does not tell its size" in str(file.fault)
        assert reason_to_ignore(file, KINDS_IGNORED) is None
        with pytest.raises(AmiliStorageSettingsError, match="does not tell its size"):
            file.open()


class _Handle(paramiko.SFTPHandle):  # type: ignore[misc] # paramiko has no types
    """An open file of :class:`_Ssh`."""

    def __init__(self, server: _Ssh, data: bytes) -> None:
        super().__init__()
        self._server = server
        self._data = data

    def stat(self) -> paramiko.SFTPAttributes:
        """Tell of it what the server tells."""
        return self._server.told(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Give a part; less than was asked for, if the server is such a one."""
        return self._data[offset : offset + min(length, self._server.most)]


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """The folder ``/out`` of :class:`_Ssh`, over the wire."""

    def __init__(self, login: paramiko.ServerInterface, server: _Ssh) -> None:
        super().__init__(login)
        self._server = server

    def list_folder(self, _: str) -> list[paramiko.SFTPAttributes]:
        """List the folder."""
        return [self._server.told(data, name) for name, data in self._server.files.items()]

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        """Tell of one name."""
        data = self._server.files.get(path.removeprefix("/out/"))
        return paramiko.SFTP_NO_SUCH_FILE if data is None else self._server.told(data)

    lstat = stat

    def open(self, path: str, _flags: int, _attributes: paramiko.SFTPAttributes) -> paramiko.SFTPHandle:
        """Open a file for reading."""
        return _Handle(self._server, self._server.files[path.removeprefix("/out/")])


class _Login(paramiko.ServerInterface):  # type: ignore[misc]
    def __init__(self, ways: str) -> None:
        self._ways = ways

    def get_allowed_auths(self, _: str) -> str:
        return self._ways

    def check_auth_password(self, _user: str, _password: str) -> Any:
        return paramiko.common.AUTH_SUCCESSFUL if "password" in self._ways else paramiko.common.AUTH_FAILED

    def check_channel_request(self, _kind: str, _number: int) -> Any:
        return paramiko.common.OPEN_SUCCEEDED


class _Ssh:
    """
    A server of SFTP in this process.

    :param files: what is in its folder.
    :param size: the bytes that it tells of each; None for the truth.
    :param most: bytes that it gives at a time.
    :param ways: how one may log in.
    """

    def __init__(
        self, files: dict[str, bytes], *, size: int | None = None, most: int = 1 << 20, ways: str = "password"
    ) -> None:
        self.files, self.most = files, most
        self._size, self._ways = size, ways
        self._key = paramiko.ECDSAKey.generate()
        self._transports: list[paramiko.Transport] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def told(self, data: bytes, name: str | None = None) -> paramiko.SFTPAttributes:
        """Return what is told of a file."""
        attributes = paramiko.SFTPAttributes()
        attributes.st_size = len(data) if self._size is None else self._size
        attributes.st_mode, attributes.st_mtime, attributes.st_atime = stat.S_IFREG | 0o644, 1, 1
        if name:
            attributes.filename = attributes.longname = name
        return attributes

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                transport = paramiko.Transport(self._listener.accept()[0])
                self._transports.append(transport)
                transport.add_server_key(self._key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self)
                transport.start_server(threading.Event(), _Login(self._ways))

    def close(self) -> None:
        """End it."""
        self._listener.close()
        for transport in self._transports:
            transport.close()


@pytest.fixture(name="ssh")
def _ssh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Start a server, and let the connection ``partner`` lead to it."""
    with contextlib.ExitStack() as running:

        def start(files: dict[str, bytes], **how: Any) -> None:
            server = _Ssh(files, **how)
            running.callback(server.close)
            partner = {"conn_type": "sftp", "host": "127.0.0.1", "port": server.port, "login": "p", "password": "x"}
            monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps({**partner, "extra": {"no_host_key_check": True}}))

        yield start


def test_what_is_told_to_be_empty_and_is_not_is_never_skipped(
    ssh: Callable[..., None], amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers make a file when it is read, and tell 0 of it: nothing of it is sent, and the task is not green."""
    ssh({"a.csv": b"data", "b.csv": b""}, size=0)
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", amili_sandbox.connection_json())
    where: dict[str, Any] = {"source": "sftp:///out/*", "source_conn_id": "partner"}
    ti = FakeTaskInstance()
    with pytest.raises(AmiliError, match="1 of 2 file"):
        AmiliFileUploadOperator(task_id="upload", file_type=DEFAULT_FILE_TYPE, ledger=None, **where).execute(
            Context(ti=cast("Any", ti))
        )
    told = {receipt["name"]: (receipt["outcome"], receipt["message"]) for receipt in ti.pushed["return_value"]}
    assert told["b.csv"] == ("skipped", IS_EMPTY)
    assert told["a.csv"][0] == "not_sent"
    assert "more than the 0 bytes listed could be read" in told["a.csv"][1]
    assert not amili_sandbox.uploads
    buckets = AmiliFileBucketsOperator(task_id="buckets", **where)
    assert [[address.rpartition("/")[2] for address in bucket] for bucket in buckets.execute({})] == [["a.csv"]]


def test_what_linux_tells_to_be_empty_and_is_not_is_found_out(tmp_path: Path) -> None:
    """Its own files are made when they are read; one that is empty stays so."""
    (tmp_path / "a.csv").touch()
    made, empty = (list_files(path, None)[0] for path in ("/proc/version", str(tmp_path / "a.csv")))
    assert (made.size, empty.size) == (0, 0)
    assert "was listed with 0 bytes" in str(more_than_told(made))
    assert more_than_told(empty) is None


def test_a_server_that_gives_less_than_was_asked_for_costs_no_memory(ssh: Callable[..., None]) -> None:
    """What paramiko asks for once more, it has twice; of a large file that would be half of it."""
    data = random.Random(1).randbytes(9 * 1024 * 1024)
    ssh({"a.csv": data}, most=16 * 1024)
    with _listed("out/a.csv")["a.csv"].open() as stream:
        tracemalloc.start()
        try:
            digest, block = hashlib.sha256(), b"-"
            while block := stream.read(1 << 20):
                digest.update(block)
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(data).digest()
    assert left < 2 * 1024 * 1024


def test_a_way_to_log_in_that_is_not_offered_is_named(ssh: Callable[..., None]) -> None:
    """The login may be right, and its password: the server asks for it in another way."""
    ssh({}, ways="publickey,keyboard-interactive")
    with pytest.raises(AmiliStorageSettingsError, match="it offers publickey, keyboard-interactive.*needs 'password'"):
        _listed("out/*")
