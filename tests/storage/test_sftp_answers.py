"""What SFTP servers may leave out of a listing: it is asked for, or told of, and never taken for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from amili_provider.exceptions import AmiliError, AmiliStorageSettingsError
from amili_provider.storage.backends.sftp import SftpFiles
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.names import KINDS_IGNORED, reason_to_ignore

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
