"""What only a disk of this machine can do: rename in one step, hold more names than memory, swallow a reader."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import random
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.backends import local
from amili_provider.storage.backends.local import LocalFiles
from amili_provider.storage.listing import list_files
from amili_provider.storage.moves import Mover
from amili_provider.storage.opening import open_sources

_ID = "0123456789abcdef0123456789abcdef"


def test_a_version_that_is_renamed_into_place_is_never_deleted(tmp_path: Path) -> None:
    """A partner puts a file where there is none, and soon renames a correction over it; every one is kept."""
    inbox, archive = tmp_path / "in", tmp_path / "archive"
    inbox.mkdir()
    there, written, over = inbox / "a.csv", set(), threading.Event()

    def partner() -> None:
        number = 0
        while not over.is_set():
            number += 1
            part = tmp_path / "part"
            part.write_text(f"version {number:06}")
            # It replaces nothing: what is taken away and put back at this moment stays.
            with contextlib.suppress(FileExistsError):
                there.hardlink_to(part)
                written.add(part.read_text())
                time.sleep(random.random() / 200)
                late = tmp_path / "late"
                late.write_text(f"version {number:06} corrected")
                written.add(late.read_text())
                late.rename(there)
            part.unlink()
            time.sleep(random.random() / 200)

    thread = threading.Thread(target=partner)
    thread.start()
    replaced: set[str] = set()
    try:
        for _ in range(20_000):
            if archive.is_dir() and len(list(archive.iterdir())) > 10:
                break
            for file in list_files(f"{inbox}/*.csv"):
                try:
                    data = there.read_bytes()
                except FileNotFoundError:
                    continue
                mover = Mover.open("archive_to", str(archive), None, [file])
                mover.move(file, file_id=hashlib.sha256(data).hexdigest()[:32], sha256=hashlib.sha256(data).hexdigest())
    finally:
        over.set()
        thread.join()
    kept = {path.read_text() for folder in (inbox, archive) for path in folder.iterdir()}
    # The partner itself replaces its first version, unless it was taken away in between.
    replaced = {text for text in written - kept if f"{text} corrected" in written}
    assert written - kept - replaced == set()
    assert len(kept) > 10


def test_a_rename_replaces_nothing(tmp_path: Path) -> None:
    """In one step where the system has it, and where it has not."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        LocalFiles().rename(f"{tmp_path}/a", f"{tmp_path}/b")
    with pytest.raises(FileNotFoundError):
        LocalFiles().rename(f"{tmp_path}/gone", f"{tmp_path}/c")
    LocalFiles().rename(f"{tmp_path}/a", f"{tmp_path}/c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, None])
def test_a_disk_without_such_a_step_renames_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    """As on a network disk, or another system."""

    def refused(*_: object) -> int:
        ctypes.set_errno(number or 0)
        return -1

    monkeypatch.setattr(local, "_renameat2", refused if number else None)
    test_a_rename_replaces_nothing(tmp_path)


def test_too_many_files_end_the_walk(tmp_path: Path) -> None:
    """What a folder holds beyond max_files costs no memory."""
    for number in range(20_000):
        (tmp_path / f"invoice-{number:06}.csv").touch()
    sources = open_sources(f"{tmp_path}/*.csv", None)
    tracemalloc.start()
    try:
        with pytest.raises(AmiliStorageSettingsError, match="more than max_files=100 files"):
            list_files(sources, max_files=100)
        assert tracemalloc.get_traced_memory()[1] < 400_000
        tracemalloc.reset_peak()
        assert list_files(f"{tmp_path}/invoice-00000[12].csv")
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()


def test_a_file_that_becomes_a_pipe_ends_nothing(tmp_path: Path) -> None:
    """It was listed as a file; to open a pipe would wait for a writer for ever."""
    from amili_provider.exceptions import AmiliStorageError
    from amili_provider.storage.reading import read_content

    (tmp_path / "a.csv").write_text("data")
    [file] = list_files(f"{tmp_path}/a.csv")
    (tmp_path / "a.csv").unlink()
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(AmiliStorageError):
        read_content(file, in_memory_bytes=100)


def test_no_files_says_what_is_nearly_there(tmp_path: Path) -> None:
    """A name in other capitals, and a backslash that Windows would take for a slash."""
    from amili_provider.delivery.report import nothing_there

    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "FAKTURA_1.CSV").write_text("x")

    def said(path: str) -> str:
        sources = open_sources(path, None)
        assert list_files(sources) == []
        return nothing_there(sources, [])

    assert said(f"{tmp_path}/day/*.csv").endswith("FAKTURA_1.CSV is there: patterns tell upper case from lower.")
    assert said(f"{tmp_path}/**/*.csv").endswith("FAKTURA_1.CSV is there: patterns tell upper case from lower.")
    assert said(f"{tmp_path}/day/*.txt") == f"No files match file://{tmp_path}/day/*.txt."
    assert said(f"{tmp_path}/day\\*.CSV").endswith(
        "A backslash is a character of names there: write / between folders."
    )
    assert len(list_files(f"{tmp_path}/day/*.CSV")) == 1
