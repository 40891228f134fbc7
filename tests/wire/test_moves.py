"""Delivered files go to the archive, refused ones aside; a move never changes what was delivered."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from amili_provider import fault_points
from amili_provider.command.cli import main as command
from amili_provider.exceptions import (
    AmiliDeliveryIncomplete,
    AmiliError,
    AmiliFilesMissing,
    AmiliPermanentError,
    AmiliUploadRejected,
)
from amili_provider.sandbox.server import SandboxServer
from tests.wire.conftest import FakeTaskInstance, Upload
from tests.words import across_lines


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


def test_a_second_run_after_the_archive_says_where_to_ask(
    upload: Upload, outbound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No files are there, as on a day without any; the ledger tells the two apart, by what the message says."""
    (outbound / "good.csv").write_bytes(b"1")
    archive = str(tmp_path / "archive")
    upload(archive_to=archive)
    with pytest.raises(AmiliFilesMissing, match=across_lines("'amili-ledger find' and a part of their path")):
        upload(archive_to=archive)
    assert command(["find", f"{outbound}/"]) == 0
    assert re.search(r"^good\.csv +uploaded ", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(AmiliFilesMissing) as without:
        upload(archive_to=archive, ledger="none")
    assert "amili-ledger" not in str(without.value)


def test_a_target_inside_the_source_is_refused_before_anything_is_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """What is moved there would be found again."""
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    with pytest.raises(ValueError, match="archive_to"):
        upload(ti, source=f"{outbound}/**", archive_to=f"{outbound}/done")
    assert not amili_sandbox.requests
    assert re.match(r"Not tried: archive_to=.*inside the source", ti.pushed["return_value"][0]["message"])


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


def test_a_relative_folder_is_refused_by_the_name_of_its_argument(upload: Upload, outbound: Path) -> None:
    """A worker's own folder is nowhere to look for an archive."""
    (outbound / "a.csv").write_bytes(b"1")
    with pytest.raises(ValueError, match="archive_to='archive'.*is relative"):
        upload(archive_to="archive")


def test_a_folder_that_cannot_be_written_is_named_in_the_receipt(
    upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the argument, the folder and what to do: the source is right, and is not what has to be corrected."""
    (outbound / "a.csv").write_bytes(b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (receipt,) = upload(archive_to="s3://archive/sent")
    assert re.search(
        r"Not moved: Cannot move file:.*a\.csv to archive_to='s3://archive/sent'.*no connection.*s3://<connection>@",
        receipt["message"],
    )


def test_a_refusal_that_names_no_file_says_why_nothing_was_moved(
    upload: Upload, outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """Nobody looks for it in the folder of refused files."""
    (outbound / "a.csv").write_bytes(b"1")
    amili_sandbox.faults.add("upload", status=422, body={"message": "no"})
    ti = FakeTaskInstance()
    with pytest.raises(AmiliUploadRejected):
        upload(ti, reject_to=str(tmp_path / "refused"))
    assert "Not moved: Amili refused the request without naming the file" in ti.pushed["return_value"][0]["message"]


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "among others that a retry would send"])
def test_a_file_that_is_gone_after_the_listing_is_never_passed_over(
    upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch, amili_sandbox: SandboxServer, busy: bool
) -> None:
    """A retry would not find it, and end well: so there is none, and the words say what to do."""
    for name in ("a.csv", "gone.csv"):
        (outbound / name).write_bytes(name.encode())
    if busy:
        amili_sandbox.faults.add("upload", status=429, headers={"Retry-After": "0"}, times=50)

    def reached(name: str) -> None:
        if name == "listed":
            (outbound / "gone.csv").unlink(missing_ok=True)

    monkeypatch.setattr(fault_points, "reached", reached)
    ti = FakeTaskInstance()
    with pytest.raises(AmiliPermanentError, match="(?s)looked for by no later try.*gone.csv.*is gone now"):
        upload(ti, source=f"{outbound}/*.csv")
    outcomes = {r["name"]: r["outcome"] for r in ti.pushed["return_value"]}
    assert outcomes == {"a.csv": "not_sent" if busy else "uploaded", "gone.csv": "not_sent"}


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


@pytest.mark.parametrize("parameter", ["archive_to", "reject_to"])
@pytest.mark.parametrize(
    "url", ["abfs://box@account/*?sv=1&sig=canary", "https://h.example/x/*?sig=canary", "ftp://user:canary@h.example/*"]
)
def test_a_folder_that_is_refused_shows_no_secret(upload: Upload, outbound: Path, parameter: str, url: str) -> None:
    """Neither a signature nor a password, in the error and in the receipts."""
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    with pytest.raises((ValueError, AmiliError)) as caught:
        upload(ti, **{parameter: url})
    assert "canary" not in f"{caught.value!r} {ti.pushed}"
