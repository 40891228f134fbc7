"""What a move owes on every storage: no file is lost, replaced, or found again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.moves import Moved, Mover
from tests.storage.backends.base import Backend, OnDisk

_ID = "0123456789abcdef0123456789abcdef"


def _listed(store: Backend, path: str = "in/*") -> list[StorageFile]:
    return list_files(store.url(path), "partner")


def _move(store: Backend, file: StorageFile, data: bytes, folder: str = "archive") -> Moved:
    mover = Mover.open("archive_to", store.url(folder), "partner", [file])
    return mover.move(file, file_id=_ID, sha256=hashlib.sha256(data).hexdigest())


def test_a_file_is_moved_with_its_bytes_and_name(store: Backend) -> None:
    """After a move the file is in the target, whole, and nowhere else; the target is made if it is missing."""
    name = "blå bær #1%.csv"
    store.put(f"in/{name}", b"invoice")
    [file] = _listed(store)
    moved = _move(store, file, b"invoice")
    assert moved.reason is None
    assert moved.url is not None
    assert moved.url.endswith(f"/archive/{name}")
    assert (store.read(f"in/{name}"), store.read(f"archive/{name}")) == (None, b"invoice")
    assert _listed(store) == []


def test_a_name_that_is_taken_is_left_alone(store: Backend) -> None:
    """An archived file is never replaced: the second of a name gets the file id into its own."""
    store.put("in/a.csv", b"second")
    store.put("archive/a.csv", b"first")
    [file] = _listed(store)
    moved = _move(store, file, b"second")
    assert moved.url is not None
    assert moved.url.endswith(f"/archive/a_{_ID}.csv")
    assert store.read("archive/a.csv") == b"first"
    assert store.read(f"archive/a_{_ID}.csv") == b"second"
    assert store.read("in/a.csv") is None


def test_both_names_taken_leaves_the_file_where_it_is(store: Backend) -> None:
    """Where nothing is free, nothing is moved, and the reason says so."""
    store.put("in/a.csv", b"third")
    store.put("archive/a.csv", b"first")
    store.put(f"archive/a_{_ID}.csv", b"second")
    [file] = _listed(store)
    moved = _move(store, file, b"third")
    assert moved.url is None
    assert "taken" in str(moved.reason)
    assert store.read("in/a.csv") == b"third"
    assert store.read(f"archive/a_{_ID}.csv") == b"second"


def test_a_file_that_was_replaced_since_it_was_listed_stays(store: Backend) -> None:
    """New content, which was not sent, is not put into the archive of what was."""
    store.put("in/a.csv", b"delivered")
    [file] = _listed(store)
    store.put("in/a.csv", b"new, and not delivered")
    moved = _move(store, file, b"delivered")
    assert moved.url is None
    assert "since it was listed" in str(moved.reason)
    assert store.read("in/a.csv") == b"new, and not delivered"
    assert store.read("archive/a.csv") is None


def test_a_file_that_was_written_to_with_its_time_set_back_stays(store: Backend) -> None:
    """On disk: of the same length and with the same time, as programs write that keep an older time."""
    if store.name != "file":
        pytest.skip("its storage does not tell of it")
    assert isinstance(store, OnDisk)
    store.put("in/a.csv", b"delivered")
    [file] = _listed(store)
    path = store.on_disk("in/a.csv")
    before = path.stat()
    with path.open("r+b") as out:
        out.write(b"corrected")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    moved = _move(store, file, b"delivered")
    assert moved.url is None
    assert "since it was listed" in str(moved.reason)
    assert store.read("in/a.csv") == b"corrected"


def test_a_file_that_is_gone_is_said_to_be(store: Backend) -> None:
    """A file that somebody else took away is reported, not raised."""
    store.put("in/a.csv", b"delivered")
    [file] = _listed(store)
    store.remove("in/a.csv")
    moved = _move(store, file, b"delivered")
    assert moved.url is None
    assert "gone" in str(moved.reason)


def test_a_move_that_was_killed_after_copying_is_finished(store: Backend) -> None:
    """A copy of the same bytes counts as made: the original goes, and no second copy is left."""
    store.put("in/a.csv", b"delivered")
    if store.name == "s3":
        time.sleep(1.1)  # on S3 a copy that was made in the same second could be the file itself
    store.put("archive/a.csv", b"delivered")
    [file] = _listed(store)
    moved = _move(store, file, b"delivered")
    assert moved.url is not None
    assert moved.url.endswith("/archive/a.csv")
    assert store.read("in/a.csv") is None
    assert store.read("archive/a.csv") == b"delivered"
    assert store.read(f"archive/a_{_ID}.csv") is None


def test_a_folder_under_another_spelling_is_refused(store: Backend) -> None:
    """The source's own folder is no archive, however it is written: found out before anything is sent."""
    store.put("in/a.csv", b"delivered")
    files = _listed(store)
    spellings = ["in", "in/"] if store.object_store else ["in", "in/", "in/.", "in/../in", "in//"]
    for spelling in spellings:
        with pytest.raises(ValueError, match="found again"):
            Mover.open("archive_to", store.url(spelling), "partner", files)
    assert store.read("in/a.csv") == b"delivered"


def test_a_folder_reached_by_another_connection_does_not_cost_the_only_copy(
    store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is found in the target, but it is no copy: it stays, and the reason says so."""
    if not store.object_store:
        pytest.skip("a path here names no connection of its own")
    store.put("in/a.csv", b"delivered")
    monkeypatch.setenv("AIRFLOW_CONN_TWIN", os.environ["AIRFLOW_CONN_PARTNER"])
    [file] = _listed(store)
    scheme, _, rest = store.url("in").partition("://")
    mover = Mover.open("archive_to", f"{scheme}://twin@{rest}", "partner", [file])
    moved = mover.move(file, file_id=_ID, sha256=hashlib.sha256(b"delivered").hexdigest())
    assert moved.url is None
    assert "its own folder under another name" in str(moved.reason)
    assert store.read("in/a.csv") == b"delivered"


def test_a_link_to_the_source_s_folder_does_not_cost_the_only_copy(store: Backend) -> None:
    """Where a folder can be a link the file is found in the target, but it is no copy: it stays."""
    if not isinstance(store, OnDisk) or store.name == "smb":
        pytest.skip("its folders cannot be links")
    store.put("in/a.csv", b"delivered")
    [file] = _listed(store)
    store.on_disk("linked").symlink_to(store.on_disk("in"))
    data = hashlib.sha256(b"delivered").hexdigest()
    if store.name == "file":
        with pytest.raises(ValueError, match="found again"):
            Mover.open("archive_to", store.url("linked"), "partner", [file])
    else:
        moved = Mover.open("archive_to", store.url("linked"), "partner", [file]).move(file, file_id=_ID, sha256=data)
        assert moved.url is None
    assert [path.name for path in store.on_disk("in").iterdir()] == ["a.csv"]


def test_a_file_goes_to_another_storage(store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any storage to local disk: copied, read back, and only then deleted."""
    data = b"invoice" * 100_000
    store.put("in/a.csv", data)
    [file] = _listed(store)
    url = f"file://{tmp_path}/archive"
    mover = Mover.open("archive_to", url, None if store.name == "file" else "partner", [file])
    moved = mover.move(file, file_id=_ID, sha256=hashlib.sha256(data).hexdigest())
    assert moved == Moved(f"{url}/a.csv")
    assert (tmp_path / "archive" / "a.csv").read_bytes() == data
    assert store.read("in/a.csv") is None
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["a.csv"]


def test_a_file_comes_from_another_storage(store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From local disk to any storage."""
    if store.name == "file":
        pytest.skip("the same storage")
    data = b"invoice" * 100_000
    (tmp_path / "a.csv").write_bytes(data)
    [file] = list_files(str(tmp_path / "*.csv"), None)
    # The target's scheme is not the source's: its connection has to be known by itself.
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(store.connection()))
    mover = Mover("archive_to", list_target(store))
    moved = mover.move(file, file_id=_ID, sha256=hashlib.sha256(data).hexdigest())
    assert moved.reason is None
    assert store.read("archive/a.csv") == data
    assert not (tmp_path / "a.csv").exists()


def list_target(store: Backend) -> Any:
    """Return the archive on *store* as a location."""
    from amili_provider.storage.opening import open_location

    return open_location(store.url("archive"), "partner")


def test_a_copy_that_is_not_what_was_delivered_is_deleted(
    store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy with another hash is thrown away, and the original stays."""
    store.put("in/a.csv", b"delivered")
    [file] = _listed(store)
    mover = Mover.open("archive_to", f"file://{tmp_path}/archive", None if store.name == "file" else "partner", [file])
    monkeypatch.setattr(mover, "_on_same_storage", lambda _: False)  # also from disk to disk
    moved = mover.move(file, file_id=_ID, sha256=hashlib.sha256(b"something else").hexdigest())
    assert moved.url is None
    assert "not what was delivered" in str(moved.reason)
    assert store.read("in/a.csv") == b"delivered"
    assert list((tmp_path / "archive").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("in/", "in/archive/", True),
        ("in/*.csv", "in/archive", True),
        ("in/*.csv", "in", False),
        ("in/", "in", False),
        ("in", "in/", False),
        ("**", "archive", False),
        ("in/**/*.csv", "in/archive", False),
        ("in/**/*.csv", "archive", True),
        ("in/a.csv", "in", False),
        ("in/a.csv", "archive", True),
        ("*/*.csv", "archive", False),
    ],
)
def test_a_target_that_the_source_would_find_again_is_refused(
    store: Backend, source: str, target: str, allowed: bool
) -> None:
    """A target inside the source is an error before anything is sent; one beside it is not."""
    store.put("in/a.csv", b"x")
    files = _listed(store, source)
    assert files
    if allowed:
        Mover.open("archive_to", store.url(target), "partner", files)
        return
    with pytest.raises(ValueError, match="archive_to=.*inside the source"):
        Mover.open("archive_to", store.url(target), "partner", files)


def test_a_target_that_cannot_be_written_is_reported(store: Backend) -> None:
    """A failed move changes nothing, and its reason names file and connection."""
    if store.wire is None:
        pytest.skip("no wire to cut")
    store.put("in/a.csv", b"x")
    [file] = _listed(store)
    mover = Mover.open("archive_to", store.url("archive"), "partner", [file])
    store.wire.cut()
    moved = mover.move(file, file_id=_ID, sha256="0" * 64)
    store.wire.mend()
    assert moved.url is None
    assert "a.csv" in str(moved.reason)
    assert "'partner'" in str(moved.reason)
    assert store.read("in/a.csv") == b"x"


def test_a_correction_that_looks_the_same_goes_back(store: Backend) -> None:
    """A server that tells whole seconds cannot show a correction of the same length; what arrived is read."""
    if store.name not in ("sftp", "ftp", "ftp-list", "ftps"):
        pytest.skip("its times are finer, or its versions have names")
    store.put("in/a.csv", b"wrong!")
    assert isinstance(store, OnDisk)
    path = store.on_disk("in/a.csv")
    second = int(path.stat().st_mtime)
    os.utime(path, (second, second))
    [file] = _listed(store)
    store.put("in/a.csv", b"right!")
    os.utime(path, (second, second))
    moved = _move(store, file, b"wrong!")
    assert moved.url is None
    assert "stays: it was replaced while it was being moved, and the new content was not sent" in str(moved.reason)
    assert store.read("in/a.csv") == b"right!"
    assert store.read("archive/a.csv") is None


def test_an_old_file_is_not_read_again(store: Backend) -> None:
    """A correction of one that was a day old shows in its time."""
    if store.name not in ("sftp", "ftp"):
        pytest.skip("it tells no day, or finer times")
    store.put("in/a.csv", b"old")
    assert isinstance(store, OnDisk)
    os.utime(store.on_disk("in/a.csv"), (1_700_000_000, 1_700_000_000))
    [file] = _listed(store)
    mover = Mover.open("archive_to", store.url("archive"), "partner", [file])
    assert mover.move(file, file_id=_ID, sha256="0" * 64).url is not None  # the hash of something else


def test_a_folder_that_is_served_by_sftp_too_does_not_cost_the_only_copy(store: Backend) -> None:
    """The archive is the source's own folder, on the disk: the file is found there, but it is no copy."""
    if not isinstance(store, OnDisk) or store.name in ("file", "ftp-list"):
        pytest.skip("no server with files on this disk, or one that tells minutes only")
    store.put("in/a.csv", b"delivered")
    [file] = _listed(store)
    mover = Mover.open("archive_to", f"file://{store.on_disk('in')}/", None, [file])
    moved = mover.move(file, file_id=_ID, sha256=hashlib.sha256(b"delivered").hexdigest())
    assert moved.url is None
    assert "its own folder under another name" in str(moved.reason)
    assert store.read("in/a.csv") == b"delivered"
