"""Delivered files go to the archive, refused ones aside; a move never changes what was delivered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from amili_provider.exceptions import AmiliDeliveryIncomplete, AmiliUploadRejected
from amili_provider.sandbox.server import SandboxServer
from tests.wire.conftest import FakeTaskInstance, Upload


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_delivered_and_refused_files_are_moved_apart(upload: Upload, outbound: Path, tmp_path: Path) -> None:
    """The archive has what Amili accepted, the other folder what it refused by name, the source nothing."""
    (outbound / "good.csv").write_bytes(b"1")
    (outbound / "bad.csv").write_bytes(b"REJECT")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliUploadRejected):
        upload(ti, archive_to=str(tmp_path / "archive"), reject_to=str(tmp_path / "refused"))
    assert _names(outbound) == []
    assert _names(tmp_path / "archive") == ["good.csv"]
    assert _names(tmp_path / "refused") == ["bad.csv"]
    assert all("Moved to" in r["message"] for r in ti.pushed["return_value"])


def test_a_name_that_is_taken_gets_the_file_id(upload: Upload, outbound: Path, tmp_path: Path) -> None:
    """Nothing in the archive is ever written over."""
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "a.csv").write_bytes(b"older")
    (outbound / "a.csv").write_bytes(b"newer")
    receipts = upload(archive_to=str(archive))
    assert (archive / "a.csv").read_bytes() == b"older"
    (other,) = [p for p in archive.iterdir() if p.name != "a.csv"]
    assert receipts[0]["file_id"] in other.name
    assert other.read_bytes() == b"newer"


def test_a_target_inside_the_source_is_refused_before_anything_is_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """What is moved there would be found again."""
    (outbound / "a.csv").write_bytes(b"1")
    with pytest.raises(ValueError, match="archive_to"):
        upload(source=f"{outbound}/**", archive_to=f"{outbound}/done")
    assert not amili_sandbox.requests


def test_a_target_that_the_pattern_would_find_is_refused_for_a_folder_called_like_it(
    upload: Upload, outbound: Path
) -> None:
    """The files of a folder called like the pattern came by the pattern; ``exact:`` names that folder alone."""
    (outbound / "day[12]").mkdir()
    (outbound / "day[12]" / "a.csv").write_bytes(b"1")
    with pytest.raises(ValueError, match="archive_to"):
        upload(source=f"{outbound}/day[12]/", archive_to=f"{outbound}/day1")
    (receipt,) = upload(source=f"exact:{outbound}/day[12]/", archive_to=f"{outbound}/day1")
    assert receipt["outcome"] == "uploaded"
    assert _names(outbound / "day1") == ["a.csv"]


def test_a_move_that_failed_is_finished_by_the_next_run(
    upload: Upload, outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """The delivery stands, the receipt says why the file stayed, and the next run moves it without sending it."""
    (outbound / "a.csv").write_bytes(b"1")
    blocked = tmp_path / "archive"
    blocked.write_bytes(b"a file where the folder should be")
    (receipt,) = upload(archive_to=str(blocked))
    assert receipt["outcome"] == "uploaded"
    assert "Not moved" in receipt["message"]
    blocked.unlink()
    (receipt,) = upload(archive_to=str(blocked))
    assert receipt["outcome"] == "already_uploaded"
    assert _names(outbound) == []
    assert _names(blocked) == ["a.csv"]
    assert len(amili_sandbox.uploads) == 1


def test_a_file_refused_with_its_whole_request_stays_unless_another_was_accepted(
    upload: Upload, outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """A bare 422 for one file may be about the request; once another file went through, it is about the file."""
    (outbound / "bad.csv").write_bytes(b"POISON")
    refused = tmp_path / "refused"
    with pytest.raises(AmiliUploadRejected):
        upload(reject_to=str(refused))
    assert _names(outbound) == ["bad.csv"]
    (outbound / "good.csv").write_bytes(b"1")
    with pytest.raises(AmiliUploadRejected):
        upload(reject_to=str(refused))
    assert _names(refused) == ["bad.csv"]
    assert len(amili_sandbox.uploads) == 1


def test_files_named_one_by_one_stay_until_the_task_succeeds(
    upload: Upload, connect: Callable[..., SandboxServer], outbound: Path, tmp_path: Path
) -> None:
    """A retry is given the same names, and would not find a file that was moved: the others would never be sent."""
    amili_sandbox = connect(max_files_per_request=1)
    for name in ("a", "b"):
        (outbound / f"{name}.csv").write_bytes(name.encode())
    arguments = {
        "source": [f"{outbound}/a.csv", f"{outbound}/b.csv"],
        "archive_to": str(tmp_path / "archive"),
        "max_concurrent_requests": 1,
    }
    amili_sandbox.faults.add("upload", nth=2, status=429, headers={"Retry-After": "600"})
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryIncomplete):
        upload(ti, **arguments)
    assert _names(outbound) == ["a.csv", "b.csv"]
    told = {r["outcome"]: r["message"] or "" for r in ti.pushed["return_value"]}
    assert "Not moved yet" in told["uploaded"]
    receipts = upload(ti, **arguments)
    assert sorted(r["outcome"] for r in receipts) == ["already_uploaded", "uploaded"]
    assert _names(outbound) == []
    assert _names(tmp_path / "archive") == ["a.csv", "b.csv"]
    assert len(amili_sandbox.uploads) == 2
