"""Azure's client, held to a real server: what is asked of every client of objects, and every way to log in."""

from __future__ import annotations

import gc
import gzip
import http.client
import http.server
import io
import json
import logging
import os
import socket
import ssl
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import requests

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.backends.objects import THREADS, ObjectFiles
from amili_provider.storage.base import NotAsListedError
from amili_provider.storage.connections import StorageConnection
from amili_provider.storage.errors import WrongSettings, explain
from amili_provider.storage.listing import list_files
from tests.storage.backends.azure import ACCOUNT, CONTAINER, DENIED, KEY, WRONG_KEY, Azure
from tests.storage.backends.base import program

pytest.importorskip("azure.storage.blob")

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import HttpTransport
from azure.storage.blob import (
    AccountSasPermissions,
    ContainerClient,
    ContentSettings,
    ResourceTypes,
    generate_account_sas,
)
from azure.storage.blob._shared.policies import ExponentialRetry

from amili_provider.storage.backends.azure import ONE_REQUEST_BYTES, AzureClient

pytestmark = pytest.mark.parametrize("backend", ["abfs"], indirect=True)

_ODD = (
    *("a//b.csv", "//a.csv", "a/", "a//", "a%2Fb.csv", "a%", "a+b.csv", "a b.csv", " a ", "a#b.csv", "a?b=c&d.csv"),
    *("a[b].csv", "a*b.csv", "a'b.csv", "a:b@c.csv", "a.", "a\tb", "<&amp;>.csv"),
    *(unicodedata.normalize("NFC", "blåbær ø.csv"), unicodedata.normalize("NFD", "blåbær ø.csv"), "\U0001f4c4.csv"),
)


class Box:
    """The test's own folder in the container: by the client under test, and behind its back."""

    def __init__(self, store: Azure) -> None:
        assert store.wire is not None
        self.store = store
        self.wire = store.wire
        self.folder = f"{CONTAINER}/{store.day}/"
        self.container = store._container
        self.files = _files(extra=store.connection()["extra"])

    def put(self, key: str, data: bytes, **options: Any) -> str:
        """Write a blob behind the client's back; return its path."""
        self.container.upload_blob(f"{self.store.day}/{key}", data, overwrite=True, **options)
        return self.folder + key

    def blob(self, key: str) -> Any:
        """Return the library's own client of a blob."""
        return self.container.get_blob_client(f"{self.store.day}/{key}")

    def etag(self, key: str) -> str:
        """Return the fingerprint of a blob, as the library tells it."""
        return str(self.blob(key).get_blob_properties().etag).strip('"')

    def asked(self, method: bytes, holding: bytes = b"") -> int:
        """Return how many requests of *method* were sent that have *holding* in their address."""
        lines = [one.split(b"\r\n")[0] for one in self.wire.requests if one.startswith(method + b" ")]
        return sum(holding in line for line in lines)

    def found(self, *, flat: bool, below: str = "") -> list[str]:
        """Return what a scan finds, in its order, as keys in the folder."""
        entries = self.files.scan(self.folder + below, flat=flat)
        return [entry.path.removeprefix(self.folder) for entry in entries]


@pytest.fixture(name="box")
def _box(store: Azure) -> Iterator[Box]:
    """The test's own folder in the container."""
    box = Box(store)
    with closing(box.files):
        yield box


def _sas(**rights: bool) -> str:
    """Return a SAS token of the account."""
    return str(
        generate_account_sas(
            ACCOUNT,
            KEY,
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(**(rights or {"read": True, "list": True})),
            datetime.now(UTC) + timedelta(hours=1),
        )
    )


def _files(conn_type: str = "wasb", **said: Any) -> ObjectFiles:
    return ObjectFiles(AzureClient.from_connection(StorageConnection("other", conn_type, **said)))


def _sockets_to(port: int) -> int:
    """Return how many sockets to *port* this process holds, those too that the server has ended."""
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # what is closed meanwhile, and what listens
            if str(one.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(one.name))) as end:
                    count += end.getpeername()[1:2] == (port,)
    return count


def _eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


# Keys


@pytest.mark.parametrize("key", _ODD)
def test_every_key_is_its_own(box: Box, key: str) -> None:
    """What the client writes under a key is what the library has there, and is listed, told of, read and deleted."""
    path, data = box.folder + key, key.encode()
    for other in ("a", "a/b.csv", "a.csv", "b.csv"):  # what a key would be if something of it were lost
        box.put(other, b"other")
    box.files.create(path, io.BytesIO(data), len(data))
    assert box.blob(key).download_blob().readall() == data
    listed = {entry.path: entry for entry in box.files.scan(box.folder, flat=True)}
    assert set(listed) == {box.folder + one for one in (key, "a", "a/b.csv", "a.csv", "b.csv")}
    entry = listed[path]
    assert entry.fingerprint == box.etag(key)
    told = box.files.info(path)
    assert (told.path, told.size, told.fingerprint) == (path, len(data), entry.fingerprint)
    assert told.modified == entry.modified
    assert box.files.read(path, entry.fingerprint) == data
    box.files.remove(path, entry.fingerprint)
    assert not box.blob(key).exists()
    assert box.found(flat=True) == ["a", "a.csv", "a/b.csv", "b.csv"]


@pytest.mark.parametrize("key", ["a/../b.csv", "a/./b.csv", "..", "a/."])
def test_a_step_of_dots_is_refused(box: Box, key: str) -> None:
    """Its address is that of another key, which is neither read nor written to."""
    with closing(
        _files(host=box.store._client.primary_endpoint, extra={"sas_token": _sas(read=True, write=True)})
    ) as f:
        for work in (
            lambda: f.info(box.folder + key),
            lambda: f.read(box.folder + key),
            lambda: f.create(box.folder + key, io.BytesIO(b"x"), 1),
            lambda: f.remove(box.folder + key),
        ):
            with pytest.raises(WrongSettings, match=r"step called \. or \.\."):
                work()
    assert not box.found(flat=True)


# Listings


def _in_pages_of(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(real: Any) -> Any:
        return lambda *args, **options: real(*args, results_per_page=count, **options)

    for name in ("list_blobs", "walk_blobs"):
        monkeypatch.setattr(ContainerClient, name, smaller(getattr(ContainerClient, name)))


def test_listings_of_several_pages(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is lost or told twice where a page ends, nor its place among the others; nor is a folder."""
    keys = sorted(f"{folder}{number}.csv" for folder in ("", "/", "a/", "a//", "b/c/") for number in range(5))
    for key in keys:
        box.put(key, b"x")
    _in_pages_of(2, monkeypatch)
    box.wire.requests.clear()
    assert box.found(flat=True) == keys
    assert box.asked(b"GET", b"comp=list") == 13
    pages = list(box.files._client.pages(CONTAINER, f"{box.store.day}/", flat=False))
    assert len(pages) > 2
    assert [entry.path for blobs, _ in pages for entry in blobs] == [f"{box.folder}{number}.csv" for number in range(5)]
    assert [name for _, names in pages for name in names] == [f"{box.store.day}/{name}/" for name in ("", "a", "b")]
    assert sorted(box.found(flat=False, below="a/")) == ["a//", *(f"a/{number}.csv" for number in range(5))]
    assert box.found(flat=False, below="b") == ["b/"]


def test_every_marker_of_a_folder(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero bytes with a slash, ``hdi_isfolder`` in any case, an empty blob called like its folder: none is a file."""
    for key in ("slash/", "slash/f", "hdi/f", "same/f", "same-not", "full/"):
        box.put(key, b"" if key.endswith("h/") else b"x")
    box.put("hdi", b"", metadata={"hdi_isfolder": "true"})
    box.put("HDI", b"", metadata={"Hdi_IsFolder": "TRUE"})
    box.put("same", b"")
    box.put("empty", b"")
    box.put("no-folder", b"", metadata={"hdi_isfolder": "false"})
    for small in (False, True):
        if small:
            _in_pages_of(1, monkeypatch)
        assert sorted(box.found(flat=True)) == [
            *("empty", "full/", "hdi/f", "no-folder", "same-not", "same/f", "slash/f"),
        ]
        assert sorted(box.found(flat=False)) == [
            *("empty", "full/", "hdi/", "no-folder", "same-not", "same/", "slash/"),
        ]
        [tail] = box.files.scan(f"{box.folder}full/", flat=False)
        assert "ends in a slash" in str(tail.fault)
    for name, folder in (("hdi", True), ("HDI", True), ("no-folder", False), ("empty", False)):
        entry = box.files.info(box.folder + name)
        assert (entry.is_folder, entry.is_file) == (folder, not folder)
    assert box.files.any_below(f"{box.folder}slash/")
    assert not box.files.any_below(f"{box.folder}nothing/")


# Reading


def test_spans_and_versions(box: Box) -> None:
    """Any span is read in one request, past the end too; another version is not read, of an empty blob neither."""
    path, etag = box.put("a.csv", b"0123456789"), box.etag("a.csv")
    for span in ((0, 10), (0, 99), (3, 5), (9, 10), (9, 99)):
        box.wire.requests.clear()
        assert box.files.read(path, etag, span) == b"0123456789"[slice(*span)]
        assert len(box.wire.requests) == 1
    box.put("a.csv", b"9876543210")
    for asked in (None, (0, 10)):
        with pytest.raises(NotAsListedError):
            box.files.read(path, etag, asked)
    with pytest.raises(HttpResponseError, match="range"):
        box.files.read(path, None, (11, 15))
    empty = box.put("empty.csv", b"")
    for version in (None, box.etag("empty.csv")):
        box.wire.requests.clear()
        assert box.files.read(empty, version) == box.files.read(empty, version, (0, 8)) == b""
        assert len(box.wire.requests) == 2
    for span_of_empty in (None, (0, 8)):
        with pytest.raises(NotAsListedError):
            box.files.read(empty, etag, span_of_empty)


def test_bytes_are_as_they_are_stored(box: Box) -> None:
    """What is compressed for the way is refused; under a name that tells, its bytes are the compressed ones."""
    data = gzip.compress(b"invoice" * 100)
    for key in ("a.csv", "a.csv.gz"):
        box.put(key, data, content_settings=ContentSettings(content_encoding="gzip", content_type="text/csv"))
    box.wire.requests.clear()
    with pytest.raises(WrongSettings, match="Content-Encoding gzip"):
        box.files.read(f"{box.folder}a.csv", None, (0, 10_000))
    assert box.files.read(f"{box.folder}a.csv.gz", None, (0, 10_000)) == data
    assert len(box.wire.requests) == 2


# Writing and deleting


class _Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._inner.read(min(size if size and size > 0 else 1 << 20, (1 << 20) - 7))


@pytest.mark.parametrize("make", [io.BytesIO, _Trickle])
def test_a_large_blob_is_written_in_blocks_and_read_in_one_request(box: Box, make: Callable[[bytes], BinaryIO]) -> None:
    """It is there when all of it is, only if nothing was; whole or in blocks, the same bytes come back."""
    data = bytes(range(251)) * (35 * 1024 * 1024 // 251)
    path = f"{box.folder}large.bin"
    box.wire.requests.clear()
    box.files.create(path, make(data), len(data))
    assert box.asked(b"PUT", b"comp=block&") >= 5
    assert box.asked(b"PUT", b"comp=blocklist") == 1
    entry = box.files.info(path)
    assert entry.size == len(data)
    box.wire.requests.clear()
    assert box.files.read(path, entry.fingerprint) == data
    assert box.asked(b"GET") == 1
    with box.files.open(path, entry.size, entry.fingerprint) as stream:
        assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == data
    with pytest.raises(FileExistsError):
        box.files.create(path, make(b"y" * len(data)), len(data))
    assert box.files.info(path) == entry


@pytest.mark.parametrize("size", [0, 1, ONE_REQUEST_BYTES])
def test_a_small_blob_is_one_request_and_is_made_once(box: Box, size: int) -> None:
    """The second one that creates it is told so, and changes nothing; ``new`` off writes over it."""
    path = f"{box.folder}a.csv"
    box.wire.requests.clear()
    box.files.create(path, io.BytesIO(b"x" * size), size)
    assert box.asked(b"PUT") == 1
    entry = box.files.info(path)
    with pytest.raises(FileExistsError):
        box.files.create(path, io.BytesIO(b"other"), 5)
    assert box.files.info(path) == entry
    assert box.files.read(path) == b"x" * size
    box.files.put(path, b"over", new=False)
    assert box.files.read(path) == b"over"


def test_a_login_that_may_only_create_is_told_that_something_is_there(box: Box) -> None:
    """Azure refuses it with a code of its own, where it tells others that the blob exists."""
    body = b"<?xml version='1.0'?><Error><Code>UnauthorizedBlobOverwrite</Code><Message>No.</Message></Error>"
    head = b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
    box.wire.forbid(b"PUT /", head % len(body) + body)
    with pytest.raises(FileExistsError):
        box.files.put(f"{box.folder}a.csv", b"x", new=True)


def test_a_delete_is_bound_to_the_version(box: Box) -> None:
    """What was replaced stays; what has snapshots goes, and they with it; what is gone is missing."""
    path, old = box.put("a.csv", b"first"), box.etag("a.csv")
    box.put("a.csv", b"second")
    with pytest.raises(NotAsListedError):
        box.files.remove(path, old)
    assert box.files.read(path) == b"second"
    box.blob("a.csv").create_snapshot()
    box.files.remove(path, box.etag("a.csv"))
    for gone in (
        lambda: box.files.remove(path),
        lambda: box.files.info(path),
        lambda: box.files.read(path),
        lambda: box.files.read(path, None, (0, 8)),
    ):
        with pytest.raises(FileNotFoundError):
            gone()
    for changed in (lambda: box.files.remove(path, old), lambda: box.files.read(path, old)):
        # Azurite says that the condition fails.
        with pytest.raises((FileNotFoundError, NotAsListedError)):
            changed()


def test_what_is_leased_was_not_replaced(box: Box) -> None:
    """A lease fails a delete with the status of a condition, but is another fault, and says so."""
    path = box.put("a.csv", b"x")
    lease = box.blob("a.csv").acquire_lease()
    with pytest.raises(HttpResponseError, match="lease") as caught:
        box.files.remove(path, box.etag("a.csv"))
    assert box.files._client.meaning(caught.value) is caught.value
    lease.release()
    box.files.remove(path, box.etag("a.csv"))


# What fails


def test_a_missing_container(box: Box) -> None:
    """It is not a missing file: the sentence says to correct the container."""
    for work in (
        lambda: list(box.files.scan("missing/a")),
        lambda: box.files.info("missing/a"),
        lambda: box.files.read("missing/a"),
        lambda: box.files.put("missing/a", b"x", new=True),
        lambda: box.files.remove("missing/a"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            work()
        said = explain("list", "abfs://missing/a", None, caught.value)
        assert isinstance(said, AmiliStorageSettingsError)
        assert "container does not exist" in str(said)
        assert "Correct the bucket or container" in str(said)


def test_a_wrong_key_is_no_missing_right(box: Box) -> None:
    """The error comes out as it is, in the server's words and in those of Azure itself."""
    address = box.store._client.primary_endpoint
    with closing(_files(host=address, login=ACCOUNT, password=WRONG_KEY)) as files:
        for real in (True, False):
            if not real:
                box.wire.forbid(b"GET /", DENIED.replace(b"AuthorizationPermissionMismatch", b"AuthenticationFailed"))
            with pytest.raises(HttpResponseError) as caught:
                files.read(f"{box.folder}a.csv")
            said = str(explain("read", "abfs://x", None, caught.value))
            assert "Correct the credentials" in said
            assert WRONG_KEY not in said


def test_a_missing_right(box: Box) -> None:
    """What the login may not do is a :class:`PermissionError`, as the server says it and as Azure does."""
    path = box.put("a.csv", b"x")
    box.wire.forbid(b"GET /", DENIED)
    with pytest.raises(PermissionError, match=r"using this permission\.$"):
        box.files.read(path)
    box.wire.mend()
    with (
        closing(_files(host=box.store._client.primary_endpoint, extra={"sas_token": _sas(list=True)})) as files,
        pytest.raises(PermissionError),
    ):
        files.read(path)


def test_a_server_that_is_gone_costs_half_a_minute(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked four times; with the pauses between and what each may take to connect, that is some 30 seconds."""
    path, pauses, times = box.put("a.csv", b"x"), [], []
    monkeypatch.setattr(ExponentialRetry, "get_backoff_time", box.store._pauses)
    monkeypatch.setattr(HttpTransport, "sleep", lambda _, seconds: pauses.append(seconds))
    request = requests.Session.request

    def timed(self: Any, *args: Any, **options: Any) -> Any:
        times.append(options["timeout"])
        return request(self, *args, **options)

    monkeypatch.setattr(requests.Session, "request", timed)
    box.wire.cut()
    with pytest.raises(Exception, match="onnection"):
        box.files.read(path)
    assert (len(times), len(pauses)) == (4, 3)
    assert 3 < sum(pauses) < 25
    assert sum(connect for connect, _ in times) + sum(pauses) < 45
    box.wire.mend()
    assert box.files.read(path) == b"x"
    times.clear()
    extra = {"connection_string": box.store.connection_string(box.wire.port), "connection_timeout": 2, "retry_total": 1}
    box.wire.cut()
    with closing(_files(extra=extra)) as files, pytest.raises(Exception, match="onnection"):
        files.read(path)
    assert times == [(2, 60), (2, 60)]


# Connections


def test_as_many_requests_at_once_as_there_are_threads(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    """Their connections are kept for the next requests, and after a close neither they nor the threads are left."""
    path = box.put("a.csv", b"x")
    together = threading.Barrier(THREADS)

    def read() -> bytes:
        together.wait(60)
        return box.files.read(path)

    gc.collect()  # what the tests before opened on this wire, and let go of
    before = box.wire.connections
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [one.result() for one in [box.files.submit(read) for _ in range(THREADS)]] == [b"x"] * THREADS
    assert not caplog.records
    assert box.wire.connections - before <= THREADS
    assert _sockets_to(box.wire.port)
    box.files.close()
    assert not _sockets_to(box.wire.port)
    assert _eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("amili-objects")])
    assert box.files.read(path) == b"x"


@pytest.mark.parametrize("conn_type", ["wasb", "adls"])
@pytest.mark.parametrize(
    "said",
    [
        {"password": KEY},
        {"extra": {"shared_access_key": KEY}},
        {"extra": {"account_key": KEY}},
        {"extra": {"extra__{}__shared_access_key": KEY}},
        {"login": "", "password": KEY},
        # What the hook would stumble over, or give twice.
        {"password": KEY, "extra": {"anon": False, "account_url": "x", "credential": "x", "account_name": "x"}},
    ],
    ids=["password", "shared_access_key", "account_key", "prefixed", "without login", "more extra"],
)
def test_keys(box: Box, said: dict[str, Any], conn_type: str) -> None:
    """A key is taken from wherever the hook, today's or an older one, and Airflow's filesystem take it."""
    path = box.put("a.csv", b"x")
    extra = {name.format(conn_type): value for name, value in said.get("extra", {}).items()}
    connection = {"host": box.store._client.primary_endpoint, "login": ACCOUNT, **said, "extra": extra}
    with closing(_files(conn_type, **connection)) as files:
        assert files.read(path) == b"x"


def test_a_connection_string_counts_most(box: Box) -> None:
    """As with the hook: whatever else the connection holds."""
    path = box.put("a.csv", b"x")
    string = box.store.connection_string(box.wire.port)
    extra = {"connection_string": string, "tenant_id": "t", "sas_token": "sv=1", "account_key": WRONG_KEY}
    with closing(_files(host="https://other.example", login="l", password="p", extra=extra)) as files:
        assert files.read(path) == b"x"


def test_sas_tokens(box: Box, front: Front) -> None:
    """A token works by itself, with its question mark, and as a whole URL of http or https."""
    path, token, host = box.put("a.csv", b"x"), _sas(), box.store._client.primary_endpoint.rstrip("/")
    front.forward = box.wire.port
    for address, given in (
        (host, token),
        (host, f"?{token}"),
        ("", f"{host}?{token}"),
        (host, f"{host}/?{token}"),
        ("", f"https://127.0.0.1:{front.port}/{ACCOUNT}?{token}"),
    ):
        extra = {"sas_token": given, "connection_verify": str(front.certificate)}
        # The token counts more than a password.
        with closing(_files(host=address, password="no key", extra=extra)) as files:
            assert files.read(path) == b"x"
            assert [entry.path for entry in files.scan(box.folder)] == [path]


@pytest.mark.parametrize("conn_type", ["wasb", "adls"])
def test_a_service_principal(box: Box, front: Front, conn_type: str) -> None:
    """Its token is fetched over the same connections, and sent to the address of the blobs."""
    front.answers = {
        "/tenant/v2.0/.well-known/openid-configuration": {
            name: f"https://127.0.0.1:{front.port}/tenant/{name}"
            for name in ("token_endpoint", "authorization_endpoint", "issuer")
        },
        "/tenant/token_endpoint": {"access_token": "the-token", "expires_in": 3600, "token_type": "Bearer"},
        "/box/a.csv": {},
    }
    extra = {
        "tenant_id": "tenant",
        "client_secret_auth_config": {
            "authority": f"https://127.0.0.1:{front.port}",
            "disable_instance_discovery": True,
        },
        "connection_verify": str(front.certificate),
    }
    address = f"https://127.0.0.1:{front.port}"
    with closing(_files(conn_type, host=address, login="client", password="secret", extra=extra)) as files:
        assert files.read("box/a.csv") == b"{}"
    assert "client_secret=secret" in front.bodies
    assert front.tokens[-1] == "Bearer the-token"
    assert _eventually(lambda: not front.open)


def test_the_worker_s_own_identity(box: Box) -> None:
    """Without key and token it is the machine's, managed or of the workload, as the hook has it."""
    from azure.identity import DefaultAzureCredential

    for extra in ({}, {"managed_identity_client_id": "m", "workload_identity_tenant_id": "w"}):
        client = AzureClient.from_connection(StorageConnection("other", "wasb", login="acc", extra=extra))
        assert isinstance(client._service.credential, DefaultAzureCredential)
        assert client._service.primary_endpoint == "https://acc.blob.core.windows.net/"


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("", "https://acc.blob.core.windows.net/"),
        ("https://acc.dfs.core.windows.net", "https://acc.blob.core.windows.net/"),
        ("acc.dfs.core.windows.net", "https://acc.blob.core.windows.net/"),
        ("https://acc.blob.core.chinacloudapi.cn/", "https://acc.blob.core.chinacloudapi.cn/"),
        ("https://files.example.com", "https://files.example.com/"),
        ("http://10.0.0.5:10000/acc", "http://10.0.0.5:10000/acc/"),
    ],
)
def test_the_account_and_the_address_of_its_blobs(box: Box, host: str, endpoint: str) -> None:
    """A data lake's is that of its blobs; an address that does not tell the account leaves that to the login."""
    for login in ("acc",) if ".core." not in host else ("acc", ""):
        connection = StorageConnection("other", "adls", host=host, login=login, password=KEY)
        service = AzureClient.from_connection(connection)._service
        assert (service.primary_endpoint, service.account_name) == (endpoint, "acc")


def test_a_public_container_needs_no_login(box: Box) -> None:
    """``anon`` reads what anybody may read, and nothing else."""
    public = f"public-{box.store.day}"
    with box.store._client.create_container(public, public_access="container") as container:
        container.upload_blob("a.csv", b"x")
    path = box.put("a.csv", b"x")
    for on in (True, "true"):
        extra = {"anon": on}
        with closing(_files(host=box.store._client.primary_endpoint, login=ACCOUNT, extra=extra)) as files:
            [entry] = files.scan(f"{public}/")
            assert files.read(entry.path, entry.fingerprint) == b"x"
            with pytest.raises((OSError, HttpResponseError)):
                files.read(path)


def test_no_connection(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's own variable is enough; without it, the sentence says what is needed."""
    path = box.put("a.csv", b"x")
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    with pytest.raises(AmiliStorageSettingsError, match="a connection of type wasb or adls"):
        list_files(f"abfs://{path}", None)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", box.store.connection_string(box.wire.port))
    with closing(ObjectFiles(AzureClient.from_connection(None))) as files:
        assert files.read(path) == b"x"


class Front(http.server.ThreadingHTTPServer):
    """A server of https that answers what it is told to, and passes on the rest."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.certificate = certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port: int = self.server_address[1]
        self.forward = 0
        self.answers: dict[str, Any] = {}
        self.bodies = ""
        self.tokens: list[str | None] = []
        self.open = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that end."""


class _Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def setup(self) -> None:
        self.server.open += 1
        super().setup()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.server.open -= 1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.bodies += body.decode()
        self.server.tokens.append(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        if path in self.server.answers:
            data = json.dumps(self.server.answers[path]).encode()
            headers = {"Content-Type": "application/json", "Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}
            self._answer(200 if path.startswith("/tenant") else 206, headers, data)
            return
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.forward)) as behind:
            behind.request("GET", self.path, headers=dict(self.headers))
            answer = behind.getresponse()
            hop = ("connection", "keep-alive", "transfer-encoding", "content-length")
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in hop}
            self._answer(answer.status, headers, answer.read())

    do_POST = do_GET  # noqa: N815 - the library's name

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(name="front")
def _front(tmp_path: Path) -> Iterator[Front]:
    """A server of https on loopback."""
    openssl, certificate = program("openssl", "apt install openssl"), tmp_path / "front.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=front"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(certificate), "-out", str(tmp_path / "c.pem")),
        ],
        check=True,
        capture_output=True,
    )
    certificate.write_text(certificate.read_text() + (tmp_path / "c.pem").read_text())
    with Front(certificate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
