"""
Links, pipes, and folders that can be listed but not entered.

What cannot be read is told of if it was asked for, and costs no other file anything.
"""

from __future__ import annotations

import os

import pytest

from amili_provider.exceptions import AmiliError, AmiliStorageSettingsError
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from tests.storage.backends.base import Backend, OnDisk

_FOLLOWS = {
    "ftp": "pyftpdlib follows links for MLSD, leaves out those it cannot follow, and calls all else a file",
    "ftps": "pyftpdlib follows links for MLSD, leaves out those it cannot follow, and calls all else a file",
    "smb": "Samba follows links, leaves out those it cannot follow, and calls all else a file",
}
"""Servers that let nobody see what is a link."""


@pytest.fixture(name="disk")
def _disk(store: Backend) -> OnDisk:
    """A storage with the files of this machine's disk, where a folder may hold anything."""
    if not isinstance(store, OnDisk):
        pytest.skip("no links here")
    store.put("out/a.csv", b"plain")
    store.put("real/b.csv", b"linked")
    return store


def _link(disk: OnDisk, path: str, target: str) -> None:
    if disk.name in _FOLLOWS and not (disk.on_disk(path).parent / target).exists():
        pytest.skip(_FOLLOWS[disk.name])
    disk.on_disk(path).symlink_to(target)


def _listed(disk: OnDisk, path: str) -> dict[str, StorageFile]:
    return {file.name: file for file in list_files(disk.url(path), "partner")}


def test_a_link_to_a_file_is_the_file(disk: OnDisk) -> None:
    """It is listed with the size of what it leads to, found by its name as well, and read."""
    _link(disk, "out/link.csv", "../real/b.csv")
    for path in ("out/*.csv", "out/link.csv", "out/", "**/link.csv"):
        file = _listed(disk, path)["link.csv"]
        assert (file.size, file.fault) == (6, None)
        with file.open() as stream:
            assert stream.read() == b"linked"


def test_a_link_to_a_folder_is_looked_into_where_a_level_names_it(disk: OnDisk) -> None:
    """In the middle of a pattern and at its end; ``**`` follows none, for it may lead back."""
    _link(disk, "out/day", "../real")
    assert set(_listed(disk, "out/*/*.csv")) == set(_listed(disk, "out/day/")) == {"b.csv"}
    if disk.name not in _FOLLOWS:
        assert set(_listed(disk, "out/**")) == {"a.csv"}


@pytest.mark.parametrize(
    "target", ["nowhere.csv", "broken.csv", "a.csv/deeper"], ids=["no target", "loop", "no folder"]
)
def test_a_link_that_cannot_be_followed_is_one_file_that_says_so(disk: OnDisk, target: str) -> None:
    """If the pattern matches it, or it is named; the others are found, and all is well once it is mended."""
    _link(disk, "out/broken.csv", target)
    for path in ("out/*.csv", "out/", "**/*.csv", "out/broken.csv"):
        found = _listed(disk, path)
        assert set(found) >= {"broken.csv"}
        assert found.get("a.csv", found["broken.csv"]).size == (5 if "a.csv" in found else 0)
        file = found["broken.csv"]
        assert "a link that cannot be followed" in str(file.fault)
        with pytest.raises(AmiliStorageSettingsError, match=r"broken\.csv.*a link that cannot be followed"):
            file.open()
    disk.remove("out/broken.csv")
    _link(disk, "out/broken.csv", "../real/b.csv")
    assert _listed(disk, "out/*.csv")["broken.csv"].fault is None


@pytest.mark.parametrize("target", ["nowhere", "loop"])
def test_a_link_that_the_pattern_does_not_match_costs_nothing(disk: OnDisk, target: str) -> None:
    """A broken link of another name is nobody's business."""
    _link(disk, "out/loop", target)
    for path in ("out/*.csv", "**/*.csv", "**/out/*.csv"):
        assert "a.csv" in (found := _listed(disk, path))
        assert "loop" not in found
        assert all(file.fault is None for file in found.values())


def test_a_broken_link_where_a_folder_would_be_looked_into_is_told_of(disk: OnDisk) -> None:
    """Nobody knows what is behind it, so it is no empty folder."""
    _link(disk, "out/day", "nowhere")
    assert "cannot be followed" in str(_listed(disk, "out/*/*.csv")["day"].fault)
    with pytest.raises((AmiliError, FileNotFoundError), match="day"):
        _listed(disk, "out/day/")


def test_a_link_into_a_folder_without_rights_costs_no_other_file(disk: OnDisk) -> None:
    """It is told of where it was asked for."""
    _link(disk, "out/locked.csv", "../real/b.csv")
    with disk.denied("real"):
        found = _listed(disk, "out/*.csv")
        assert set(_listed(disk, "out/a*.csv")) == {"a.csv"}
    if disk.name in _FOLLOWS or found["locked.csv"].fault is None:
        pytest.skip("this machine cannot take rights away, or the server hides what it cannot follow")
    assert set(found) == {"a.csv", "locked.csv"}
    assert "ermission denied" in str(found["locked.csv"].fault)


def test_a_folder_that_may_be_listed_but_not_entered_is_an_error(disk: OnDisk) -> None:
    """None of its names can be looked at, links or not: that is no empty folder."""
    disk.on_disk("real/link.csv").symlink_to("b.csv")
    with disk.denied("real", 0o444), pytest.raises(AmiliError, match="real"):
        _listed(disk, "real/*.csv")
    disk.remove("real/b.csv")
    with disk.denied("real", 0o444), pytest.raises(AmiliError, match="real"):
        _listed(disk, "real/*.csv")


def test_a_pipe_is_told_of_if_it_was_asked_for(disk: OnDisk) -> None:
    """What is no file and no folder is no silence either."""
    if disk.name in _FOLLOWS:
        pytest.skip(_FOLLOWS[disk.name])
    os.mkfifo(disk.on_disk("out/pipe.csv"))
    for path in ("out/*.csv", "out/pipe.csv"):
        assert "neither a file nor a folder" in str(_listed(disk, path)["pipe.csv"].fault)
    assert set(_listed(disk, "out/a*")) == {"a.csv"}
    assert set(_listed(disk, "out/*/*")) == set()
