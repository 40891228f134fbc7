"""The ledger's folder: exclusive where it is proven, careful where it is not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error

from amili_provider.connection_form import LEDGER_FROM_CONNECTION, settings_from
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import ClaimLost, State
from amili_provider.ledger.chosen import conn_id_for, ledger_from
from amili_provider.ledger.local_folder import LocalFolder
from amili_provider.ledger.places import open_folder
from amili_provider.ledger.remote_folders import CautiousFolder, ObjectStoreFolder
from tests.ledger_cases import ACCEPTED, LOST, Clock, facts, file_id_of, ledger_over, other_run


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


def _local(path: Path) -> LocalFolder:
    folder = LocalFolder(str(path), path.as_uri(), sleep=lambda _: None)
    folder.probe()
    return folder


# Local disk


def test_a_local_create_is_exclusive_and_leaves_nothing_aside(tmp_path: Path) -> None:
    """One name, once; and after all writes there is the file alone."""
    folder = _local(tmp_path / "ledger")
    folder.create("a/b/x.json", b"1")
    with pytest.raises(FileExistsError):
        folder.create("a/b/x.json", b"2")
    folder.replace("a/b/x.json", b"3")
    assert folder.read("a/b/x.json") == b"3"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.json"]


def _many(count: int = 300) -> list[tuple[str, bytes]]:
    return [(f"{i % 7}/{i}.json", f"receipt {i}".encode()) for i in range(count)]


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _files(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_many_local_files_are_written_as_one_is(tmp_path: Path) -> None:
    """Each is exclusive and whole, and nothing is left aside."""
    folder = _local(tmp_path / "ledger")
    files = _many()
    folder.create("3/3.json", b"somebody else's")
    errors = folder.create_each(files)
    assert [type(e) for e in errors if e is not None] == [FileExistsError]
    assert isinstance(errors[3], FileExistsError)
    assert _files(tmp_path / "ledger") == dict(files) | {"3/3.json": b"somebody else's"}
    assert folder.create_each(files[4:9]) == [None] * 5, "what was written by us before is ours"
    again = [(name, data + b", settled") for name, data in files]
    assert folder.replace_each(again) == [None] * len(files)
    assert _files(tmp_path / "ledger") == dict(again)


@pytest.mark.parametrize("operation", ["create_each", "replace_each"])
def test_many_local_files_are_synchronised_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A file before it gets its name, its folder after that and before the call returns: for each, as for one."""
    folder = _local(tmp_path / "ledger")
    files = _many(30)
    folder.create_each([(name, b"before") for name, _ in files] if operation == "replace_each" else [])
    done: list[tuple[str, str]] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def seen(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("sync", str(_path_of(descriptor))))

    def named(how: Any) -> Any:
        def name(source: str, target: str) -> None:
            assert ("sync", source) in done, f"{target} got its name before it was synchronised"
            how(source, target)
            done.append(("name", target))

        return name

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(os, "link", named(link))
    monkeypatch.setattr(os, "replace", named(replace))
    assert getattr(folder, operation)(files) == [None] * 30
    for name, _ in files:
        target = str(tmp_path / "ledger" / name)
        assert ("sync", str(Path(target).parent)) in done[done.index(("name", target)) :], name
    folders = [path for what, path in done if what == "sync" and Path(path).is_dir()]
    assert sum(path != str(tmp_path / "ledger") for path in folders) == 7, "once for all files of a folder"


def test_a_folder_that_cannot_be_synchronised_fails_its_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may not survive a power cut is not claimed."""
    folder = _local(tmp_path / "ledger")
    folder.create_each(_many(7))
    fsync = os.fsync

    def broken(descriptor: int) -> None:
        if _path_of(descriptor).match("ledger/5"):
            raise OSError(errno.EIO, "planted")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    files = [(name.replace(".json", ".2.json"), data) for name, data in _many(14)]
    errors = folder.create_each(files)
    assert [i for i, e in enumerate(errors) if isinstance(e, AmiliLedgerUnavailable)] == [5, 12]
    assert [e for e in errors if e is not None and not isinstance(e, AmiliLedgerUnavailable)] == []


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_one_of_many_that_fails_once_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A disk that stumbles costs a retry, and one that stays broken fails all and leaves nothing behind."""
    folder = _local(tmp_path / "ledger")
    files = _many(20)
    folder.create_each([(f"{i}/begun.json", b"") for i in range(7)])
    how = getattr(os, call)
    failing: list[bool] = [False] * 8 + [True]

    def stumbling(*args: Any) -> Any:
        if failing and failing.pop(0):
            raise OSError(errno.EIO, "planted")
        return how(*args)

    monkeypatch.setattr(os, call, stumbling)
    assert folder.create_each(files) == [None] * 20
    before = _files(tmp_path / "ledger")
    assert {name: before[name] for name, _ in files} == dict(files)
    failing += [True] * 10_000
    errors = folder.replace_each([(name, b"never") for name, _ in files])
    assert all(isinstance(e, AmiliLedgerUnavailable) for e in errors)
    assert _files(tmp_path / "ledger") == before


def test_a_file_system_that_takes_no_advice_is_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some know no fadvise; what counts is the synchronisation."""

    def unknown(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    folder = _local(tmp_path / "ledger")
    monkeypatch.setattr(os, "posix_fadvise", unknown)
    assert folder.create_each(_many(20)) == [None] * 20
    assert _files(tmp_path / "ledger") == dict(_many(20))


def test_many_files_of_a_ledger_that_vanished_are_not_made_anew(tmp_path: Path) -> None:
    """As with one."""
    folder = _local(tmp_path / "ledger")
    (tmp_path / "ledger").rmdir()
    assert all(isinstance(e, AmiliLedgerUnavailable) for e in folder.create_each(_many(20)))
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_without_links_a_local_create_is_still_exclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """File systems without links (some shares, exFAT) have O_EXCL."""

    def no_links(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)
    folder = _local(tmp_path / "ledger")
    assert folder.exclusive
    folder.create("x.json", b"1")
    with pytest.raises(FileExistsError):
        folder.create("x.json", b"2")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.json"]


def test_a_link_whose_answer_was_lost_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS a link can be made, its answer lost, and the repetition refused."""
    link = os.link

    def lossy(source: Any, target: Any) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    folder = _local(tmp_path / "ledger")
    monkeypatch.setattr(os, "link", lossy)
    folder.create("x.json", b"1")
    assert folder.read("x.json") == b"1"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No claim, no part of one, and an error that names the ledger."""
    folder = _local(tmp_path / "ledger")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AmiliLedgerUnavailable, match="No space left"):
        folder.create("x.json", b"1")
    with pytest.raises(AmiliLedgerUnavailable, match="No space left"):
        folder.replace("x.json", b"1")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_share_that_is_not_mounted_is_not_a_new_ledger(tmp_path: Path) -> None:
    """The folder itself is made, those above it are not: where they are missing, something is wrong."""
    _local(tmp_path / "ledger")
    with pytest.raises(AmiliLedgerUnavailable, match="Mount the share"):
        _local(tmp_path / "share" / "ledger")
    assert not (tmp_path / "share").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AmiliLedgerUnavailable, match="not a folder"):
        _local(tmp_path / "file")


def test_a_ledger_that_vanishes_is_not_made_anew(tmp_path: Path) -> None:
    """A share that is unmounted in the middle of a run: nothing can be claimed, so nothing is sent."""
    folder = _local(tmp_path / "ledger")
    (tmp_path / "ledger").rmdir()
    with pytest.raises(AmiliLedgerUnavailable):
        folder.create("a/x.json", b"1")
    assert not (tmp_path / "ledger").exists()


def test_a_ledger_that_cannot_be_read_is_not_empty(tmp_path: Path) -> None:
    """Only 'there is no such file' means that there is none."""
    folder = _local(tmp_path / "ledger")
    (tmp_path / "ledger" / "x.json").mkdir()
    with pytest.raises(AmiliLedgerUnavailable, match="Is a directory"):
        folder.read("x.json")


# The probe


class _Odd(LocalFolder):
    """A folder with a whim."""

    def __init__(self, path: Path, whim: str) -> None:
        super().__init__(str(path), path.as_uri(), sleep=lambda _: None)
        self.whim = whim

    def _read(self, name: str) -> bytes:
        if self.whim == "finds everything":
            return b""
        data = super()._read(name)
        return data[:-1] if self.whim == "loses bytes" else data

    def _create(self, name: str, data: bytes) -> None:
        if self.whim == "overwrites":
            self._replace(name, data)
        else:
            super()._create(name, data)

    def _replace(self, name: str, data: bytes) -> None:
        exists = Path(self._at(name)).exists()
        if exists and self.whim == "keeps what it has":
            raise PermissionError("retention policy")
        if not (exists and self.whim == "forgets"):
            super()._replace(name, data)

    def _delete(self, name: str) -> None:
        if self.whim == "keeps everything":
            raise PermissionError("may not delete")
        super()._delete(name)


@pytest.mark.parametrize(
    ("whim", "words"),
    [
        ("finds everything", "cannot exist"),
        ("loses bytes", "give back"),
        ("keeps what it has", "cannot write.*retention policy"),
        ("forgets", "give back what was written over"),
    ],
)
def test_a_folder_that_does_not_work_is_found_out_first(tmp_path: Path, whim: str, words: str) -> None:
    """Before anything is sent."""
    with pytest.raises(AmiliLedgerUnavailable, match=words):
        _Odd(tmp_path / "ledger", whim).probe()


def test_a_folder_that_overwrites_is_not_trusted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its claims are read back, and the log says so."""
    folder = _Odd(tmp_path / "ledger", "overwrites")
    folder.probe()
    assert not folder.exclusive
    assert "without exclusive create" in caplog.text


def test_a_ledger_that_may_not_be_deleted_from_is_a_good_one(tmp_path: Path) -> None:
    """An append-only policy is no obstacle."""
    folder = _Odd(tmp_path / "ledger", "keeps everything")
    folder.probe()
    assert folder.exclusive


def test_a_folder_is_proven_once_and_begun_each_time(tmp_path: Path) -> None:
    """Opening it again costs nothing; one that was deleted meanwhile is begun again."""
    url = (tmp_path / "ledger").as_uri()
    assert open_folder(url, None).exclusive
    (tmp_path / "ledger").rmdir()
    folder = open_folder(url, None)
    folder.create("x.json", b"1")
    assert folder.exclusive


# Storages without exclusive create


class _Watched(CautiousFolder):
    """A folder in memory that calls somebody before it writes."""

    before_write: Callable[[], None] = staticmethod(lambda: None)

    def _replace(self, name: str, data: bytes) -> None:
        self.before_write()
        super()._replace(name, data)


def _watched(clock: Clock, name: str) -> _Watched:
    folder = _Watched(MemoryFileSystem(), f"/{name}", f"memory:///{name}", sleep=clock.sleep)
    folder.probe()
    return folder


def _wait_for(barrier: threading.Barrier, _seconds: float) -> None:
    barrier.wait()


def test_of_two_that_write_at_once_the_last_has_the_claim(clock: Clock) -> None:
    """Both looked, both wrote, both wait and read back: exactly one finds its own name."""
    name = uuid4().hex
    both_looked, both_wrote = threading.Barrier(2), threading.Barrier(2)
    ledgers = [ledger_over(_watched(clock, name), clock) for _ in range(2)]
    standing = ledgers[0].look_up(file_id_of(ledgers[0], facts()))
    for ledger in ledgers:
        assert not ledger.folder.exclusive
        ledger.folder.before_write = both_looked.wait  # type: ignore[attr-defined]
        ledger._attempts._sleep = partial(_wait_for, both_wrote)

    def race(number: int) -> bool:
        try:
            ledgers[number].claim(standing, facts(run=other_run(number)))
        except ClaimLost:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(race, range(2))) == 1
    assert ledgers[0].look_up(standing.file_id).state is State.IN_FLIGHT


def test_a_claim_elsewhere_is_written_left_and_read_back(clock: Clock) -> None:
    """One wait for a whole request, and everything else as on a storage that refuses."""
    with ledger_over(_watched(clock, uuid4().hex), clock) as ledger:
        wanted = [(ledger.look_up(file_id_of(ledger, facts(c))), facts(c)) for c in (b"1", b"2", b"3")]
        slept = len(clock.slept)
        claims = ledger.claim_all(wanted)
        assert clock.slept[slept:] == [2.0]
        with pytest.raises(ClaimLost):
            ledger.claim_all(wanted)
        ledger.settle_all([(claims[0], ACCEPTED), (claims[1], LOST), (claims[2], ACCEPTED)])
        states = [s.state for s in ledger.look_up_all(s.file_id for s, _ in wanted)]
        assert states == [State.UPLOADED, State.UNKNOWN, State.UPLOADED]


def test_an_outcome_is_written_even_if_the_claim_was_overwritten(clock: Clock) -> None:
    """In the window that remains somebody else took the name: our outcome becomes the next attempt, theirs stays."""
    with ledger_over(_watched(clock, uuid4().hex), clock) as ledger:
        standing = ledger.look_up(file_id_of(ledger, facts()))
        ours = ledger.claim(standing, facts())
        name = ledger._attempts.name(standing.file_id, 1)
        theirs = ours.receipt.to_json().replace(ours.receipt.owner.encode(), b"f" * 32)
        ledger.folder.replace(name, theirs)
        ledger.settle(ours, ACCEPTED)
        assert ledger.folder.read(name) == theirs
        found = ledger.look_up(standing.file_id)
        assert (found.state, found.next_attempt) == (State.UPLOADED, 3)


def test_names_are_told_below_a_folder(clock: Clock) -> None:
    """For people who list: the names as they were written."""
    folder = _watched(clock, uuid4().hex)
    for name in ("staging/1/ab/x.1.json", "staging/2/cd/y.1.json"):
        folder.create(name, b"1")
    assert sorted(folder.names()) == ["staging/1/ab/x.1.json", "staging/2/cd/y.1.json"]
    assert list(folder.names("staging/2")) == ["staging/2/cd/y.1.json"]
    assert list(folder.names("production")) == []


# Object stores


@pytest.mark.parametrize(
    ("error", "exists"),
    [
        ({"Code": "PreconditionFailed", "Condition": "If-None-Match"}, True),
        ({"Code": "PreconditionFailed"}, True),
        ({"Code": "412"}, True),
        ({"Code": "ConditionalRequestConflict"}, True),
        ({"Code": "SlowDown"}, False),
        ({"Code": "NotImplemented"}, False),
    ],
)
def test_a_store_may_word_its_refusal_as_it_likes(error: dict[str, str], exists: bool) -> None:
    """A refused condition is a name that exists; anything else is a store that does not work."""

    class _Store:
        def pipe_file(self, *_: object, **__: object) -> None:
            raise translate_boto_error(ClientError({"Error": {"Message": "no", **error}}, "PutObject"))

        def cat_file(self, _: str) -> bytes:
            return b"somebody else's"

    folder = ObjectStoreFolder(_Store(), "books/ledger", "s3://books/ledger", sleep=lambda _: None)
    folder.exclusive = True
    with pytest.raises(FileExistsError if exists else AmiliLedgerUnavailable):
        folder.create("x.json", b"1")


@pytest.mark.parametrize(
    "refusal", [None, OSError(errno.ENOSYS, "A header you provided implies what is not implemented")]
)
def test_a_store_without_conditions_is_looked_at_first(clock: Clock, refusal: OSError | None) -> None:
    """Some stores that speak S3 ignore the condition, or refuse it: claims are read back there, and work."""

    class _Store(MemoryFileSystem):  # type: ignore[misc]
        cachable = False

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            if mode == "create" and refusal is not None:
                raise refusal
            super().pipe_file(path, value)

    name = uuid4().hex
    folder = ObjectStoreFolder(_Store(), f"/{name}", f"s3://{name}", sleep=clock.sleep)
    folder.probe()
    assert not folder.exclusive
    with ledger_over(folder, clock) as ledger:
        standing = ledger.look_up(file_id_of(ledger, facts()))
        claim = ledger.claim(standing, facts())
        with pytest.raises(ClaimLost):
            ledger.claim(standing, facts(run=other_run()))
        ledger.settle(claim, ACCEPTED)
        assert ledger.look_up(standing.file_id).state is State.UPLOADED


# Which ledger


def _settings(**extra: Any) -> Any:
    extra = {"environment": "staging", "client_no": "10042", **extra}
    return settings_from("amili_here", login="id", password="secret", host=None, port=None, schema=None, extra=extra)


def test_no_ledger_must_be_said_in_so_many_words(tmp_path: Path) -> None:
    """Without a word there is an error with the two ways on; None and 'none' are such words."""
    assert ledger_from(None, _settings()) is None
    assert ledger_from(" None ", _settings()) is None
    with pytest.raises(ValueError, match=r"twice.*amili_here.*ledger='s3://.*ledger=None"):
        ledger_from(LEDGER_FROM_CONNECTION, _settings())
    with pytest.raises(ValueError, match=r"in the field 'Ledger folder' \(extra 'ledger'\) of connection"):
        ledger_from(LEDGER_FROM_CONNECTION, _settings())
    connected = _settings(ledger=(tmp_path / "ledger").as_uri())
    for named, path in (
        (LEDGER_FROM_CONNECTION, tmp_path / "ledger"),
        ((tmp_path / "other").as_uri(), tmp_path / "other"),
    ):
        ledger = ledger_from(named, connected)
        assert ledger is not None
        assert ledger.folder.url == path.as_uri()
        assert (ledger.client_no, ledger.environment, ledger.answer_timeout) == ("10042", "staging", 600.0)
    other_client = ledger_from(LEDGER_FROM_CONNECTION, connected, client_no=7)
    assert other_client is not None
    assert other_client.client_no == "7"


@pytest.mark.parametrize(
    ("ledger", "url", "conn_id"),
    [
        (None, "s3://books/x", "books"),
        ("s3://books/x", "s3://books/x", "books"),
        ("s3://books/x", "s3://books/y", "books"),
        ("s3://books/x", "file:///x", None),
        ("s3://books/x", "/x", "books"),
        ("/x", "/x", "books"),
    ],
)
def test_the_connection_of_the_ledger_is_not_used_for_another_storage(
    ledger: str | None, url: str, conn_id: str | None
) -> None:
    """A task that names a local ledger does not open it with the connection's AWS connection."""
    extra = {"ledger_conn_id": "books"} | ({"ledger": ledger} if ledger else {})
    assert conn_id_for(url, _settings(**extra)) == conn_id
