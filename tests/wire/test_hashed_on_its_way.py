"""A large file of a size that the ledger has never met is hashed while it is sent, and asked about before the tail."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pytest_mock import MockerFixture

from amili_provider.delivery import reader, run
from amili_provider.exceptions import AmiliDeliveryIncomplete, AmiliStorageError, AmiliUploadRejected
from amili_provider.ledger import Ledger
from amili_provider.sandbox.server import SandboxServer
from amili_provider.storage import content
from amili_provider.storage.content import StoredContent
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from tests.ledgers import attempts_in, new_ledger
from tests.wire.conftest import FakeTaskInstance, Upload, a_run_that_has_claimed

LARGE = random.Random(7).randbytes(9_000_001)
OTHER = random.Random(8).randbytes(len(LARGE))


def _posts(amili: SandboxServer) -> int:
    return sum(r.kind == "upload" for r in amili.requests)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(name="bytes_read")
def _bytes_read(mocker: MockerFixture) -> list[int]:
    """How many bytes of large local files were read, block by block."""
    seen: list[int] = []
    read = content._read_fully

    def counting(*args: Any) -> int:
        seen.append(read(*args))
        return seen[-1]

    mocker.patch.object(content, "_read_fully", autospec=True, side_effect=counting)
    return seen


def test_the_first_of_its_size_is_read_once_and_the_next_is_hashed_before(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, bytes_read: list[int]
) -> None:
    """Read once, sent as it is, with a whole receipt; the ledger then knows that there is a file of that size."""
    (outbound / "a.csv").write_bytes(LARGE)
    (receipt,) = upload()
    assert sum(bytes_read) == len(LARGE)
    assert (receipt["outcome"], receipt["sha256"]) == ("uploaded", _sha(LARGE))
    assert [(u.file_id, u.sha256) for u in amili_sandbox.uploads] == [(receipt["file_id"], _sha(LARGE))]
    (again,) = upload()
    assert (again["outcome"], again["file_id"]) == ("already_uploaded", receipt["file_id"])
    assert (_posts(amili_sandbox), sum(bytes_read)) == (1, 2 * len(LARGE))
    (outbound / "a.csv").write_bytes(OTHER)
    assert [r["outcome"] for r in upload()] == ["uploaded"]
    assert [u.sha256 for u in amili_sandbox.uploads] == [_sha(LARGE), _sha(OTHER)]
    assert sum(bytes_read) == 4 * len(LARGE)


def test_a_size_decides_nothing(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for new, the request is cut before its tail, and the file is what it was."""
    (outbound / "a.csv").write_bytes(LARGE)
    (first,) = upload()
    monkeypatch.setattr(Ledger, "has_size", lambda *_: False)
    (outbound / "a.csv").rename(outbound / "A.csv")
    (second,) = upload()
    assert (second["outcome"], second["file_id"]) == ("already_uploaded", first["file_id"])
    assert (_posts(amili_sandbox), len(amili_sandbox.uploads)) == (2, 1)


def test_two_runs_that_both_hash_on_the_way_send_once(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both believe that theirs is the first of its size; the claim decides, before the second's tail."""
    (outbound / "a.csv").write_bytes(LARGE)
    monkeypatch.setattr(Ledger, "has_size", lambda *_: False)
    with a_run_that_has_claimed(upload):
        ti = FakeTaskInstance(run_id="second")
        with pytest.raises(AmiliDeliveryIncomplete, match=r"(?s)In flight elsewhere.*the first run"):
            upload(ti)
        assert [r["outcome"] for r in ti.pushed["return_value"]] == ["not_sent"]
        assert (_posts(amili_sandbox), len(amili_sandbox.uploads)) == (2, 0)
    assert [u.sha256 for u in amili_sandbox.uploads] == [_sha(LARGE)]


@pytest.mark.parametrize("ledger", [None, "default"])
def test_equal_bytes_in_one_run_are_sent_once(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, ledger: str | None
) -> None:
    """Files of one size may be equal: they are hashed first, with a ledger or without."""
    for name, data in (("a", LARGE), ("b", LARGE), ("c", OTHER), ("d", LARGE)):
        (outbound / f"{name}.csv").write_bytes(data)
    receipts = upload(if_duplicate="skip", **({} if ledger else {"ledger": None}))
    assert [r["outcome"] for r in receipts] == ["uploaded", "already_uploaded", "uploaded", "already_uploaded"]
    assert sorted(u.sha256 for u in amili_sandbox.uploads) == sorted((_sha(LARGE), _sha(OTHER)))


def test_the_same_again_after_a_401(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """The replay reads the file again, and is the same request to the byte."""
    (outbound / "a.csv").write_bytes(LARGE)
    amili_sandbox.faults.add("upload", expire_tokens=True, stage="body")
    (receipt,) = upload()
    assert [(u.file_id, u.sha256) for u in amili_sandbox.uploads] == [(receipt["file_id"], _sha(LARGE))]
    assert [r.status for r in amili_sandbox.requests if r.kind == "upload"] == [401, 200]


def test_refused_before_it_was_hashed_it_still_has_a_whole_receipt(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """An answer that comes early ends the sending, not the hashing: the receipt says what was refused."""
    (outbound / "a.csv").write_bytes(LARGE)
    amili_sandbox.faults.add("upload", status=413, stage="head")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliUploadRejected):
        upload(ti)
    (receipt,) = ti.pushed["return_value"]
    assert (receipt["outcome"], receipt["sha256"], len(receipt["file_id"])) == ("rejected", _sha(LARGE), 32)


def test_refused_before_it_was_hashed_it_is_still_what_the_ledger_says(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal of what was accepted before, and sent again up to its tail, changes nothing about it."""
    (outbound / "a.csv").write_bytes(LARGE)
    upload()
    monkeypatch.setattr(Ledger, "has_size", lambda *_: False)
    amili_sandbox.faults.add("upload", status=413, stage="head")
    assert [r["outcome"] for r in upload()] == ["already_uploaded"]
    assert len(amili_sandbox.uploads) == 1


def test_refused_and_then_unreadable_it_says_both(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, mocker: MockerFixture
) -> None:
    """Who the file is cannot be found out any more, but what Amili said of it is told, and the next run may send it."""
    (outbound / "a.csv").write_bytes(LARGE)
    amili_sandbox.faults.add("upload", status=413, stage="head")
    mocker.patch.object(
        content.HashedContent, "hash_now", autospec=True, side_effect=AmiliStorageError("The disk is gone.")
    )
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryIncomplete, match=r"(?s)Amili answered 413.*The\s+disk is gone"):
        upload(ti)
    (receipt,) = ti.pushed["return_value"]
    assert (receipt["outcome"], receipt["file_id"], receipt["sha256"]) == ("not_sent", None, None)


def test_what_changes_while_it_is_sent_is_not_accepted(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, mocker: MockerFixture
) -> None:
    """A file that is written to in the middle of its request could be half the one and half the other."""
    file = outbound / "a.csv"
    file.write_bytes(LARGE)
    read = content._read_fully

    def changing(descriptor: int, buffer: memoryview, position: int) -> int:
        if position and file.read_bytes() == LARGE:
            file.write_bytes(OTHER)
        return read(descriptor, buffer, position)

    mocker.patch.object(content, "_read_fully", autospec=True, side_effect=changing)
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryIncomplete, match=r"a\.csv: this file was changed while it was being read or sent"):
        upload(ti)
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["not_sent"]
    assert (_posts(amili_sandbox), len(amili_sandbox.uploads)) == (1, 0)
    assert [r["outcome"] for r in upload()] == ["uploaded"]
    assert [u.sha256 for u in amili_sandbox.uploads] == [_sha(OTHER)]


def test_an_object_that_is_replaced_while_it_is_sent_is_not_accepted(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, mocker: MockerFixture
) -> None:
    """Read from its storage as it is sent, in pieces: the storage says at the end that it is another."""
    file = outbound / "a.csv"
    file.write_bytes(LARGE)
    mocker.patch.object(reader, "can_stay", autospec=True, return_value=True)
    mocker.patch.object(run, "list_files", autospec=True, side_effect=_as_if_remote)
    read = content._read_block
    seen: list[int] = []

    def changing(stream: BinaryIO, block_bytes: int) -> bytes:
        seen.append(block_bytes)
        if len(seen) == 3:
            file.write_bytes(OTHER)
        return read(stream, block_bytes)

    mocker.patch.object(content, "_read_block", autospec=True, side_effect=changing)
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryIncomplete, match=r"(?s)a\.csv.*replaced or written to"):
        upload(ti)
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["not_sent"]
    assert (_posts(amili_sandbox), len(amili_sandbox.uploads)) == (1, 0)
    assert [r["outcome"] for r in upload()] == ["uploaded"]
    assert [u.sha256 for u in amili_sandbox.uploads] == [_sha(OTHER)]


def _as_if_remote(*args: Any, **more: Any) -> list[StorageFile]:
    return [dataclasses.replace(file, local_path=None) for file in list_files(*args, **more)]


def test_a_dry_run_writes_nothing(upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path) -> None:
    """No request, and no word in the ledger."""
    (outbound / "a.csv").write_bytes(LARGE)
    ti = FakeTaskInstance()
    with pytest.raises(Exception, match="Dry run"):
        upload(ti, dry_run=True)
    (receipt,) = ti.pushed["return_value"]
    assert (receipt["outcome"], receipt["sha256"]) == ("skipped", _sha(LARGE))
    assert not _posts(amili_sandbox)
    assert not attempts_in(new_ledger(tmp_path))


def test_what_is_read_again_from_its_storage_must_be_what_it_was(outbound: Path) -> None:
    """Where size and time say nothing, the hash of the second reading does."""
    path = outbound / "a.csv"
    path.write_bytes(LARGE)
    [listed] = list_files(str(path), None)
    stored = StoredContent(dataclasses.replace(listed, local_path=None))
    blocks: Callable[[], bytes] = lambda: b"".join(bytes(block) for block in stored.blocks(300_000))  # noqa: E731
    assert blocks() == LARGE
    assert blocks() == LARGE
    assert stored.sha256 == _sha(LARGE)
    before = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AmiliStorageError, match="was changed"):
        blocks()
