"""Object stores have keys, not folders: each is found, named, read and deleted as what it is."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import time
import unicodedata
from typing import Any, BinaryIO, Literal

import pytest

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.storage.backends.objects import ObjectFiles
from amili_provider.storage.base import NotAsListedError
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.moves import Moved, Mover
from amili_provider.storage.opening import open_location
from tests.storage.backends.azure import Azure
from tests.storage.backends.base import Backend, ObjectStore
from tests.storage.backends.s3 import BUCKET, S3

pytestmark = pytest.mark.parametrize("backend", ["s3", "gs", "abfs"], indirect=True)


def _found(store: Backend, *sources: str) -> list[str]:
    """Return what sources in the test's folder find, as paths in it, in order of their letters."""
    folder = store.url()
    return sorted(file.url.removeprefix(folder) for file in list_files([folder + one for one in sources], "partner"))


def _read(file: StorageFile) -> bytes:
    with file.open() as stream:
        return stream.read()


def test_empty_steps_are_steps(store: Backend) -> None:
    """``**`` finds what is behind an empty step, ``*`` may be one, and one that is written is meant."""
    for key in ("out//a.csv", "out//sub/c.csv", "out/b.csv", "only//x.csv", "day/sub//z.csv"):
        store.put(key, key.encode())
    assert _found(store, "out/**") == ["out//a.csv", "out//sub/c.csv", "out/b.csv"]
    assert _found(store, "out//*.csv") == _found(store, "out//") == ["out//a.csv"]
    assert _found(store, "out/*.csv") == _found(store, "out/") == ["out/b.csv"]
    assert _found(store, "only/**") == _found(store, "only/*/*.csv") == ["only//x.csv"]
    assert _found(store, "out//**/*.csv") == ["out//a.csv", "out//sub/c.csv"]
    assert _found(store, "day/*/*/*.csv") == _found(store, "day/sub//z.csv") == ["day/sub//z.csv"]
    [file] = list_files(store.url("out//a.csv"), "partner")
    assert (file.name, _read(file)) == ("a.csv", b"out//a.csv")


@pytest.mark.parametrize("key", ["in/*.csv", "in/[ab].csv", "in/?.csv"])
def test_a_key_like_its_pattern_comes_with_what_it_matches(store: Backend, key: str) -> None:
    """Both are delivered; ``exact:`` names the key alone."""
    store.put("in/a.csv", b"a")
    store.put(key, b"pattern")
    assert _found(store, key) == sorted(["in/a.csv", key])
    [alone] = list_files(f"exact:{store.url(key)}", "partner")
    assert _read(alone) == b"pattern"


def test_markers_are_no_files_and_hide_none(store: Backend) -> None:
    """Whatever a tool leaves to remember a folder: by pattern, by folder and by ``**`` the files in it are found."""
    for key in ("marked/a.csv", "deep/day/b.csv", "deep/c.csv", "same/d.csv", "hadoop/e.csv"):
        store.put(key, b"x")
    for key in ("marked/", "deep/", "deep/day/", "same", "hadoop_$folder$", "empty/"):
        store.put(key, b"")
    for folder, name in (("marked", "a.csv"), ("deep/day", "b.csv"), ("same", "d.csv"), ("hadoop", "e.csv")):
        for source in (folder, f"{folder}/", f"{folder}/*.csv", f"{folder}/*", f"{folder}/**"):
            assert _found(store, source) == [f"{folder}/{name}"], source
    assert _found(store, "deep/**") == ["deep/c.csv", "deep/day/b.csv"]
    assert _found(store, "*") == _found(store, "empty") == _found(store, "empty/") == []
    assert len(_found(store, "**")) == 5


def test_an_empty_file_is_a_file_if_nothing_is_below_it(store: Backend) -> None:
    """It gets a receipt that says so; what is only called alike does not make it a marker."""
    store.put("day/a", b"")
    store.put("day/a.csv", b"x")
    store.put("day/a-b/c.csv", b"x")
    assert _found(store, "day/*") == _found(store, "day") == ["day/a", "day/a.csv"]
    assert _found(store, "day/**") == ["day/a", "day/a-b/c.csv", "day/a.csv"]
    assert _found(store, "day/a") == ["day/a"]


def test_a_key_that_is_called_like_a_folder(store: Backend) -> None:
    """``day`` is the object, ``day/`` the folder, and a pattern finds each where it is."""
    store.put("day", b"object")
    store.put("day/f.csv", b"x")
    assert _found(store, "day") == ["day"]
    assert _found(store, "day/") == _found(store, "day/*") == ["day/f.csv"]
    assert _found(store, "d*") == ["day"]
    assert _found(store, "**") == ["day", "day/f.csv"]
    store.put("alone.csv", b"x")
    with pytest.raises(NotADirectoryError, match=r"alone\.csv.*not a folder"):
        _found(store, "alone.csv/")


def test_content_behind_a_slash_is_told_of(store: Backend) -> None:
    """A key that ends in a slash has no name to be sent with: it is found, and says why it cannot be read."""
    store.put("tail/content/", b"content")
    for source in ("tail/**", "tail/content/", "tail/*/"):
        [file] = list_files(store.url(source), "partner")
        assert file.url == store.url("tail/content/")
        with pytest.raises(AmiliStorageSettingsError, match="ends in a slash.*copy it to a key"):
            file.open()
    assert _found(store, "tail/*") == []


@pytest.mark.parametrize("spelling", ["NFC", "NFD"])
def test_every_character_of_a_key_is_its_own(store: Backend, spelling: Literal["NFC", "NFD"]) -> None:
    """Percent, plus, blanks, hash, brackets, both spellings of a letter: read back by name and by pattern."""
    odd = ["a%2Fb.csv", "a+b.csv", "a b.csv", " a.csv", "a#b.csv", "a?b.csv", "a[b].csv", "a&b=c.csv", "a'b.csv"]
    keys = [f"odd/{name}" for name in [*odd, unicodedata.normalize(spelling, "blåbær é.csv")]]
    for key in keys:
        store.put(key, key.encode())
    assert {_read(file).decode() for file in list_files(store.url("odd/*.csv"), "partner")} == set(keys)
    assert {_read(file).decode() for file in list_files(store.url("**"), "partner")} == set(keys)
    for key in keys:
        [file] = list_files(f"exact:{store.url(key)}", "partner")
        assert (_read(file).decode(), file.name) == (key, unicodedata.normalize("NFC", key[4:]))
    for pattern in (unicodedata.normalize("NFC", "blåb*é.csv"), unicodedata.normalize("NFD", "blåb*é.csv")):
        assert [_read(file).decode() for file in list_files(store.url(f"odd/{pattern}"), "partner")] == [keys[-1]]


def test_only_what_a_pattern_can_match_is_listed(store: Backend) -> None:
    """What a name begins with is asked for, so that a large bucket costs what is meant."""
    assert store.wire is not None
    for key in ("day/invoices-1.csv", "day/invoices-2.csv", "day/others.csv"):
        store.put(key, b"x")
    store.wire.requests.clear()
    assert _found(store, "day/invoices-*.csv") == ["day/invoices-1.csv", "day/invoices-2.csv"]
    asked = b"\n".join(store.wire.requests)
    assert b"day%2Finvoices-" in asked.replace(b"day/", b"day%2F")


def test_a_read_is_bound_to_what_was_listed(store: Backend) -> None:
    """An object that was replaced by one of the same length since it was listed is not read."""
    store.put("a.csv", b"first!")
    [file] = list_files(store.url("*.csv"), "partner")
    files = file.location_root.fs
    assert files.read(file.path, file.fingerprint) == b"first!"
    store.put("a.csv", b"second")
    with pytest.raises(NotAsListedError):
        files.read(file.path, file.fingerprint)
    with pytest.raises(AmiliStorageError, match="replaced"):
        _read(file)


@pytest.mark.parametrize("size", [0, 3, 20 * 1024 * 1024 + 1])
def test_an_object_is_created_once_however_large_it_is(store: Backend, size: int) -> None:
    """In one request or in parts: what is there is never written over, and parts that were begun are given up."""
    files = open_location(store.url(), "partner").fs
    path = store.bare("made.bin").lstrip("/")
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    files.create(path, io.BytesIO(data), size)
    if store.name == "gs" and size > 8 * 1024 * 1024:
        # This server writes all the same; Google is asked not to.
        assert store.wire is not None
        assert any(b"uploadType=resumable" in one and b"ifGenerationMatch=0" in one for one in store.wire.requests)
    else:
        with pytest.raises(FileExistsError):
            files.create(path, io.BytesIO(b"y" * size), size)
    assert store.read("made.bin") == data
    assert files.info(path).size == size
    assert _found(store, "*") == ["made.bin"]
    if isinstance(store, S3):
        assert "Uploads" not in store.client.list_multipart_uploads(Bucket=BUCKET)


@pytest.mark.parametrize(
    ("name", "good"), [("a.csv", False), ("a.csv.gz", True)], ids=lambda value: str(value).replace(".", "-")
)
def test_what_is_packed_in_the_store_is_sent_as_such_or_not(store: ObjectStore, name: str, good: bool) -> None:
    """A Content-Encoding that the name does not tell is refused; what is sent is what is stored."""
    packed = gzip.compress(b"content " * 100)
    store.put_packed(name, packed)
    [file] = list_files(store.url("*"), "partner")
    assert file.size == len(packed)
    if good:
        assert _read(file) == packed
    else:
        with pytest.raises(AmiliStorageSettingsError, match="Content-Encoding gzip.*store it without"):
            _read(file)


def test_a_version_that_comes_before_the_delete_is_not_deleted(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original goes on the condition that it is the one that was sent."""
    store.put("in/a.csv", b"first")
    [file] = list_files(store.url("in/*.csv"), "partner")
    mover = Mover.open("archive_to", store.url("done/"), "partner", [file])
    remove = ObjectFiles.remove

    def late(files: ObjectFiles, path: str, version: str | None = None) -> None:
        if path == file.path:
            store.put("in/a.csv", b"second")
        remove(files, path, version)

    monkeypatch.setattr(ObjectFiles, "remove", late)
    assert store.wire is not None
    store.wire.requests.clear()
    moved = mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"first").hexdigest())
    if store.name in ("s3", "gs"):
        # These servers delete all the same; Amazon and Google are asked not to.
        said = f'If-Match: "{file.fingerprint}"' if store.name == "s3" else f"ifGenerationMatch={file.fingerprint}"
        assert [said.encode() in one for one in store.wire.requests if one.startswith(b"DELETE ")] == [True]
        return
    assert moved.url is None
    assert "replaced" in str(moved.reason)
    assert "Its delivered content is in" in str(moved.reason)
    assert (store.read("in/a.csv"), store.read("done/a.csv")) == (b"second", b"first")


def test_a_store_without_conditional_deletes(store: Backend) -> None:
    """One that says so is asked without the condition."""
    if store.name != "s3":
        pytest.skip("only servers that speak S3 differ in it")
    store.put("in/a.csv", b"first")
    [file] = list_files(store.url("in/*.csv"), "partner")
    body = b"<Error><Code>NotImplemented</Code><Message>A header is not implemented.</Message></Error>"
    assert store.wire is not None
    head = b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    store.wire.forbid(b"If-Match", head + body)
    file.location_root.fs.remove(file.path, file.fingerprint)
    assert store.read("in/a.csv") is None


def test_whoever_reads_may_pay(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request of a connection that agrees to pay says so; no other does."""
    names = {"s3": ("requester_pays", b"x-amz-request-payer: requester"), "gs": ("gcs.requester-pays", b"userProject=")}
    if store.name not in names:
        pytest.skip("nobody is asked there")
    extra, said = names[store.name]
    store.put("a.csv", b"x")
    assert store.wire is not None
    for agreed in (True, False):
        connection = store.connection()
        connection["extra"][extra] = str(agreed).lower()
        monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(connection))
        store.wire.requests.clear()
        [file] = list_files(store.url("*.csv"), "partner")
        _read(file)
        assert len(store.wire.requests) >= 3
        # Google's library looks at the bucket by itself, for its traces.
        ours = [one for one in store.wire.requests if not one.startswith(f"GET /storage/v1/b/{BUCKET}?".encode())]
        assert [one[:200] for one in ours if (said in one) is not agreed] == []


def test_an_answer_that_breaks_off_is_asked_for_again(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is cut in the middle of an object costs a second request, and no file its delivery."""
    monkeypatch.setattr("amili_provider.storage.backends.gcs.RETRY_SECONDS", 20.0)
    data = bytes(range(256)) * 40_000
    store.put("a.bin", data)
    [file] = list_files(store.url("*.bin"), "partner")
    assert store.wire is not None
    wire = store.wire
    wire.cut_after(3_000_000)
    through = wire._let_through

    def once(target: Any, block: bytes) -> bool:
        if through(target, block):
            return True
        wire.mend()
        return False

    monkeypatch.setattr(wire, "_let_through", once)
    assert _read(file) == data


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b""])
def test_a_page_in_the_place_of_a_listing_is_no_empty_bucket(store: Backend, body: bytes) -> None:
    """A gateway that answers 200 to everything is an error, not a day without files."""
    assert store.wire is not None
    store.put("a.csv", b"x")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    for listing in (b"list-type=2", b"comp=list", f"/b/{BUCKET}/o?".encode()):
        store.wire.forbid(listing, head + body)
    try:
        for source in ("*.csv", "**", ""):
            with pytest.raises((AmiliStorageError, AmiliStorageSettingsError)):
                list_files(store.url(source), "partner")
    finally:
        store.wire.mend()


def test_keys_that_were_not_asked_for_are_not_delivered(store: Backend) -> None:
    """A server that takes ``out//`` for ``out/``, say, is an error."""
    if store.name != "s3":
        pytest.skip("one is enough: the clients do not look at it")
    assert store.wire is not None
    page = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{store.day}/out/b.csv</Key><Size>1</Size>"
    body = f"{page}<LastModified>2026-11-01T00:00:00Z</LastModified></Contents></ListBucketResult>".encode()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    store.wire.forbid(b"list-type=2", head % len(body) + body)
    try:
        with pytest.raises(AmiliStorageError, match=r"lists 'contract/.*/out/b\.csv', which does not begin"):
            list_files(store.url("out//"), "partner")
    finally:
        store.wire.mend()


def test_what_may_only_be_listed(store: Backend) -> None:
    """Without the right to look at objects a pattern finds what it matches; a name says that the right is missing."""
    if store.name != "s3":
        pytest.skip("elsewhere the right to list is the right to look")
    assert store.wire is not None
    store.put("in/a.csv", b"x")
    store.wire.forbid(b"HEAD /", b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    try:
        assert _found(store, "in/*.csv") == _found(store, "in") == ["in/a.csv"]
        with pytest.raises(AmiliStorageError, match="permission denied"):
            _found(store, "in/a.csv")
        with pytest.raises(FileNotFoundError):
            _found(store, "in/b.csv")
    finally:
        store.wire.mend()


def test_a_folder_of_a_hierarchical_namespace_is_no_file(store: Backend) -> None:
    """Its metadata tells: one with nothing in it is an empty folder, and no empty file."""
    if not isinstance(store, Azure):
        pytest.skip("only Azure has them")
    for key in ("hns", "hns/deep", "void"):
        store._container.upload_blob(f"{store.day}/{key}", b"", metadata={"hdi_isfolder": "true"})
    store.put("hns/deep/e.csv", b"x")
    for source in ("hns/**", "hns/deep", "hns/deep/", "*/deep/*", "**"):
        assert _found(store, source) == ["hns/deep/e.csv"]
    assert _found(store, "hns") == _found(store, "void") == _found(store, "void/") == _found(store, "*") == []


@pytest.mark.parametrize(
    "encoding", ["aws-chunked,gzip", "gzip, aws-chunked", "GZIP", "gzip,", "compress", "br", "new"]
)
def test_every_encoding_is_looked_at(store: Backend, encoding: str) -> None:
    """One of several, in any letters, one that nobody knows; those of the transfer alone say nothing of the file."""
    if not isinstance(store, S3):
        pytest.skip("one is enough: the others ask the same function")
    at = {"Bucket": BUCKET, "Body": b"packed"}
    store.client.put_object(**at, Key=f"{store.day}/a.csv", ContentEncoding=encoding)
    store.client.put_object(**at, Key=f"{store.day}/b.csv", ContentEncoding="aws-chunked")
    packed, plain = list_files(store.url("*.csv"), "partner")
    with pytest.raises(AmiliStorageSettingsError, match="Content-Encoding"):
        _read(packed)
    assert _read(plain) == b"packed"


def _listing(store: Backend, *keys: tuple[str, int], tail: str = "") -> bytes:
    page = "".join(
        f"<Contents><Key>{store.day}/{key}</Key><Size>{size}</Size>"
        "<LastModified>2026-11-01T00:00:00Z</LastModified></Contents>"
        for key, size in keys
    )
    body = f"<ListBucketResult><Name>b</Name>{tail}{page}</ListBucketResult>".encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize("tail", ["", "<NextMarker>day/a.csv</NextMarker>"])
def test_a_listing_that_is_cut_off_is_not_taken_for_whole(store: Backend, tail: str) -> None:
    """A server that says there is more, and not how to get it, as one that knows only the older request."""
    if store.name != "s3":
        pytest.skip("botocore's pages end there quietly")
    assert store.wire is not None
    tail = f"<IsTruncated>true</IsTruncated>{tail}"
    store.wire.forbid(b"list-type=2", _listing(store, ("a.csv", 1), tail=tail))
    try:
        for source in ("*.csv", "**"):
            with pytest.raises(AmiliStorageSettingsError, match="cuts the listing off"):
                list_files(store.url(source), "partner")
    finally:
        store.wire.mend()


def test_a_marker_is_none_where_keys_come_in_no_order(store: Backend) -> None:
    """A store that does not sort its keys is asked what is below an empty object."""
    if store.name != "s3":
        pytest.skip("one is enough: the clients do not look at it")
    assert store.wire is not None
    for key in ("day/a.csv", "b.csv"):
        store.put(key, b"x")
    for key in ("day", "c.csv"):
        store.put(key, b"")
    whole = f"prefix={store.day}%2F&".encode(), f"prefix={store.day}/&".encode()
    for asked in whole:
        store.wire.forbid(asked, _listing(store, ("day/a.csv", 1), ("b.csv", 1), ("day", 0), ("c.csv", 0)))
    try:
        assert _found(store, "**") == ["b.csv", "c.csv", "day/a.csv"]
    finally:
        store.wire.mend()


def test_a_bucket_of_two_names_does_not_cost_the_only_copy(store: Backend) -> None:
    """As an access point's alias is one: the file is found in the target, but it is no copy."""
    if store.name != "s3":
        pytest.skip("elsewhere a bucket has one name")
    from moto.s3.models import s3_backends

    store.put("in/a.csv", b"the only copy")
    for regions in s3_backends.values():
        for backend in regions.values():
            if BUCKET in backend.buckets:
                backend.buckets["in-abc123-s3alias"] = backend.buckets[BUCKET]
    [file] = list_files(store.url("in/*.csv").replace(BUCKET, "in-abc123-s3alias"), "partner")
    mover = Mover.open("archive_to", store.url("in/"), "partner", [file])
    moved = mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"the only copy").hexdigest())
    assert moved.url is None
    assert "its own folder under another name" in str(moved.reason)
    assert store.read("in/a.csv") == b"the only copy"


def test_an_answer_to_a_delete_that_is_lost(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asks once more and is told that it is gone: then it is moved."""
    store.put("in/a.csv", b"x")
    [file] = list_files(store.url("in/*.csv"), "partner")
    mover = Mover.open("archive_to", store.url("done/"), "partner", [file])
    remove = ObjectFiles.remove

    def twice(files: ObjectFiles, path: str, version: str | None = None) -> None:
        remove(files, path, version)
        raise NotAsListedError("it was replaced")

    monkeypatch.setattr(ObjectFiles, "remove", twice)
    moved = mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"x").hexdigest())
    assert (moved.url, moved.reason) == (store.url("done/a.csv"), None)


def test_an_answer_to_a_create_that_is_lost(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asks once more and is told that there is one: it is ours, and no second copy is made."""
    store.put("in/a.csv", b"x")
    [file] = list_files(store.url("in/*.csv"), "partner")
    mover = Mover.open("archive_to", store.url("done/"), "partner", [file])
    create = ObjectFiles.create

    def twice(files: ObjectFiles, path: str, stream: BinaryIO, size: int) -> None:
        create(files, path, stream, size)
        raise FileExistsError(path)

    monkeypatch.setattr(ObjectFiles, "create", twice)
    moved = mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"x").hexdigest())
    assert (moved.url, moved.reason) == (store.url("done/a.csv"), None)
    assert _found(store, "**") == ["done/a.csv"]


def test_a_name_in_the_archive_that_cannot_be_read_is_taken(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a cold tier: the file goes there under its other name."""
    store.put("in/a.csv", b"x")
    store.put("done/a.csv", b"y")
    [file] = list_files(store.url("in/*.csv"), "partner")
    mover = Mover.open("archive_to", store.url("done/"), "partner", [file])
    read = ObjectFiles.read

    def cold(files: ObjectFiles, path: str, *more: Any) -> bytes:
        if path.endswith("done/a.csv"):
            raise OSError("InvalidObjectState: the object is archived")
        return read(files, path, *more)

    monkeypatch.setattr(ObjectFiles, "read", cold)
    moved = mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"x").hexdigest())
    assert moved.url == store.url(f"done/a_{'f' * 32}.csv")
    assert (store.read("done/a.csv"), store.read("in/a.csv")) == (b"y", None)


def test_two_tasks_that_archive_one_file_do_not_delete_its_copy(
    store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is slower: the other copies, checks and deletes before it begins to read. The copy stays."""
    store.put("in/a.csv", b"the only copy")
    sha256 = hashlib.sha256(b"the only copy").hexdigest()
    [file] = list_files(store.url("in/*.csv"), "partner")
    slow, quick = (Mover.open("archive_to", store.url("done/"), "partner", [file]) for _ in range(2))
    opened, moved = StorageFile.open, []

    def late(self: StorageFile) -> Any:
        monkeypatch.setattr(StorageFile, "open", opened)
        moved.append(quick.move(file, file_id="f" * 32, sha256=sha256))
        return opened(self)

    monkeypatch.setattr(StorageFile, "open", late)
    slow.move(file, file_id="f" * 32, sha256=sha256)
    assert moved == [Moved(store.url("done/a.csv"))]
    assert (store.read("in/a.csv"), store.read("done/a.csv")) == (None, b"the only copy")


def test_a_copy_whose_reading_back_fails_is_not_deleted(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then another task may have taken it for its own, and deleted the original."""
    store.put("in/a.csv", b"x")
    [file] = list_files(store.url("in/*.csv"), "partner")
    mover = Mover.open("archive_to", store.url("done/"), "partner", [file])
    read = ObjectFiles.read

    def broken(files: ObjectFiles, path: str, *more: Any) -> bytes:
        if path.endswith("done/a.csv"):
            raise OSError("the connection broke")
        return read(files, path, *more)

    monkeypatch.setattr(ObjectFiles, "read", broken)
    assert mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"x").hexdigest()).url is None
    assert (store.read("in/a.csv"), store.read("done/a.csv")) == (b"x", b"x")
    monkeypatch.setattr(ObjectFiles, "read", read)
    if store.name == "s3":
        time.sleep(1.1)  # on S3 a copy of the same second could be the file itself
        store.put("done/a.csv", b"x")
    assert mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(b"x").hexdigest()).url == store.url("done/a.csv")


def test_a_large_object_is_archived_in_its_own_store(store: Backend) -> None:
    """Its stream gives blocks of 8 MiB, whatever the library asks for."""
    data = bytes(range(256)) * 80_000
    store.put("in/a.bin", data)
    [file] = list_files(store.url("in/*.bin"), "partner")
    mover = Mover.open("archive_to", store.url("done/"), "partner", [file])
    moved = mover.move(file, file_id="f" * 32, sha256=hashlib.sha256(data).hexdigest())
    assert (moved.url, moved.reason) == (store.url("done/a.bin"), None)
    assert (store.read("in/a.bin"), store.read("done/a.bin")) == (None, data)


def test_another_range_of_the_same_length_is_not_believed(store: Backend) -> None:
    """A cache that answers with what it has says so in Content-Range."""
    if store.name == "abfs":
        pytest.skip("its library does not tell what the server said")
    store.put("a.bin", b"0123456789")
    [file] = list_files(store.url("*.bin"), "partner")
    files = file.location_root.fs
    assert files.read(file.path, None, (2, 5)) == b"234"
    assert store.wire is not None
    head = (
        b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/10\r\n\r\n"
    )
    store.wire.forbid(b"a.bin", head + b"012")
    try:
        with pytest.raises(OSError, match="not what was asked for"):
            files.read(file.path, None, (2, 5))
    finally:
        store.wire.mend()


def test_no_signature_is_shown(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's is part of the address, which requests repeats when nobody answers there."""
    if not isinstance(store, Azure):
        pytest.skip("elsewhere it is none of the address")
    signature = "sv=2022-11-02&sig=S3cr%2BtSigCanary%3D"
    for extra in (
        {"sas_token": f"http://127.0.0.1:1/acc?{signature}"},
        {"connection_string": f"BlobEndpoint=http://127.0.0.1:1/acc;SharedAccessSignature={signature}"},
    ):
        connection = {"conn_type": "wasb", "host": "http://127.0.0.1:1/acc", "login": "acc", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(connection))
        with pytest.raises(AmiliStorageError) as caught:
            list_files("abfs://c/in/*.csv", "partner")
        assert "Canary" not in str(caught.value)
