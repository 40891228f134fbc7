"""Google Cloud Storage through its own library: keys as they are, reads and deletes bound to a generation."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from requests.adapters import HTTPAdapter

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.storage.backends import gcs
from amili_provider.storage.backends.gcs import GcsClient
from amili_provider.storage.backends.objects import THREADS, ObjectFiles
from amili_provider.storage.base import NotAsListedError
from amili_provider.storage.connections import look_up
from amili_provider.storage.errors import WrongSettings, explain
from amili_provider.storage.listing import list_files
from tests.processes import free_port
from tests.storage.backends.gcs import BUCKET, DENIED, Gcs
from tests.storage.backends.wire import Wire

pytestmark = [pytest.mark.storage, pytest.mark.parametrize("backend", ["gs"], indirect=True)]

MIB = 1024 * 1024
KEYS = (
    *(
        "a//b.csv",
        "//b.csv",
        "tail/",
        "tail//",
        "100%.csv",
        "%41.csv",
        "a+b.csv",
        " a b .csv",
        "a#b.csv",
        "a?b=c&d.csv",
    ),
    *("[ab].csv", "{a}*~!'().csv", 'a"b\\c.csv', "../a/./b.csv", "a;b,c:d@e=f.csv", "日本語.csv"),
    *(unicodedata.normalize(form, "æøå é.csv") for form in ("NFC", "NFD")),
)


@pytest.fixture(name="client")
def _client(store: Gcs) -> Iterator[GcsClient]:
    """The client of the connection ``partner``."""
    client = GcsClient.from_connection(look_up("partner", store.url()))
    yield client
    client.close()


@pytest.fixture(name="files")
def _files(client: GcsClient) -> Iterator[ObjectFiles]:
    """The storage of the connection ``partner``."""
    files = ObjectFiles(client)
    yield files
    files.close()


def _at(store: Gcs, path: str = "") -> str:
    return store.bare(path).removeprefix("/")


def _wire(store: Gcs) -> Wire:
    assert store.wire is not None
    return store.wire


def _answer(status: str, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def _until(fulfilled: Callable[[], bool]) -> bool:
    """Return whether something becomes true: a socket that is closed here is so there a moment later."""
    deadline = time.monotonic() + 10
    while not fulfilled() and time.monotonic() < deadline:
        time.sleep(0.01)
    return fulfilled()


# Keys


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_what_it_is(store: Gcs, files: ObjectFiles, key: str) -> None:
    """However odd, and whichever way its letters are composed: written, listed, looked at, read and deleted."""
    path, data = _at(store, key), key.encode()
    files.put(path, data, new=True)
    assert store.read(key) == data
    [found] = files.scan(_at(store), flat=True)
    assert (found.path, found.size, found.is_file) == (path, len(data), True)
    assert files.info(path).fingerprint == found.fingerprint
    assert files.info(path).modified == found.modified
    assert files.read(path, found.fingerprint, (1, 3)) == data[1:3]
    files.remove(path, found.fingerprint)
    assert store.read(key) is None
    with pytest.raises(FileNotFoundError):
        files.info(path)


def test_letters_that_look_alike_are_other_letters(store: Gcs, files: ObjectFiles) -> None:
    """Composed and decomposed, they are the keys of two objects."""
    composed, decomposed = (unicodedata.normalize(form, "ø å.csv") for form in ("NFC", "NFD"))
    for name in (composed, decomposed):
        files.put(_at(store, name), name.encode(), new=True)
    assert [files.read(_at(store, one)) for one in (composed, decomposed)] == [composed.encode(), decomposed.encode()]


# Listing


def test_pages_of_a_listing(store: Gcs, files: ObjectFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit on one page comes on the next, in the order of the keys: objects and folders."""
    names = [f"{number:02}.csv" for number in range(7)]
    for name in (*names, "b/1.csv", "b/2.csv", "c//3.csv"):
        store.put(name, b"x")
    monkeypatch.setattr(Client, "list_blobs", partial(_small_pages, Client.list_blobs))
    flat = [entry.path.removeprefix(_at(store)) for entry in files.scan(_at(store), flat=True)]
    assert flat == [*names, "b/1.csv", "b/2.csv", "c//3.csv"]
    assert sum(b"pageToken=" in one for one in _wire(store).requests) >= 3
    # This server tells of all folders on every page; Google does once.
    found = {(entry.path.removeprefix(_at(store)), entry.is_folder) for entry in files.scan(_at(store))}
    assert found == {*((name, False) for name in names), ("b/", True), ("c/", True)}
    assert [entry.path for entry in files.scan(_at(store, "c/"))] == [_at(store, "c//")]


def _small_pages(list_blobs: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    # A partial is no method: the client is the one of its bucket.
    return list_blobs(arguments[0].client, *arguments, page_size=3, **options)


def test_only_what_is_needed_is_asked_for(store: Gcs, files: ObjectFiles) -> None:
    """Nothing that nobody reads of an object, and not the bucket itself, which a login may have no right to see."""
    store.put("a.csv", b"x")
    _wire(store).requests.clear()
    [entry] = files.scan(_at(store))
    [request] = _wire(store).requests
    assert "fields=items(name,size,generation,updated),prefixes,nextPageToken" in unquote(request.decode())
    assert (entry.size, entry.fingerprint) == (1, files.info(entry.path).fingerprint)
    for thread in threading.enumerate():
        if "_fetch_background" in thread.name:
            thread.join()
    assert [one for one in _wire(store).requests if f"/b/{BUCKET}/o" not in one.decode()] == []


def test_markers_of_folders_are_no_files(store: Gcs, files: ObjectFiles) -> None:
    """An empty object with a slash at its end remembers a folder; one with bytes is an object that cannot be named."""
    store.put("empty/", b"")
    store.put("full/", b"x")
    assert [(entry.path, bool(entry.fault)) for entry in files.scan(_at(store), flat=True)] == [
        (_at(store, "full/"), True)
    ]
    assert files.any_below(_at(store, "empty/"))
    assert not files.any_below(_at(store, "none"))


def test_a_bucket_that_does_not_exist(store: Gcs, files: ObjectFiles) -> None:
    """It is told apart from a folder with nothing in it, and from an object that is not there."""
    assert list(files.scan(_at(store, "nothing/"))) == []
    with pytest.raises(WrongSettings, match=r"^the bucket 'no-such' does not exist\. Correct the path, or choose"):
        list(files.scan("no-such/day/"))
    with pytest.raises(WrongSettings, match=r"'_x_' is no bucket: Bucket names must.*Correct the path"):
        list(files.scan("_x_/day/"))
    with pytest.raises(FileNotFoundError, match=r"^Not Found$"):
        files.put("no-such/a.csv", b"x", new=True)


# Reading


def test_bytes_of_one_generation(store: Gcs, files: ObjectFiles) -> None:
    """A read is bound to what was listed; a span may end behind the object."""
    path = _at(store, "a.csv")
    store.put("a.csv", b"0123456789")
    version = files.info(path).fingerprint
    assert files.read(path) == files.read(path, version) == b"0123456789"
    assert (files.read(path, version, (3, 6)), files.read(path, version, (8, 100))) == (b"345", b"89")
    _wire(store).requests.clear()
    store.put("a.csv", b"abcdefghij")
    with pytest.raises(NotAsListedError, match="replaced"):
        files.read(path, version, (0, 3))
    assert f"ifGenerationMatch={version}".encode() in _wire(store).requests[0]
    with files.open(path, 10, version) as stream, pytest.raises(NotAsListedError):
        stream.read()
    with pytest.raises(FileNotFoundError):
        files.read(_at(store, "b.csv"), version)


def test_a_server_that_knows_the_condition_is_believed(store: Gcs, files: ObjectFiles) -> None:
    """What Google answers to another generation is what it means, for a read and for a delete."""
    path = _at(store, "a.csv")
    store.put("a.csv", b"x")
    _wire(store).forbid(b"ifGenerationMatch=12345", _answer("412 Precondition Failed"))
    with pytest.raises(NotAsListedError, match="replaced"):
        files.read(path, "12345")
    with pytest.raises(NotAsListedError, match="replaced"):
        files.remove(path, "12345")
    assert store.read("a.csv") == b"x"
    files.remove(path, files.info(path).fingerprint)
    assert store.read("a.csv") is None


def test_a_server_that_does_not_know_spans(store: Gcs, files: ObjectFiles) -> None:
    """Of all that one gives the beginning is taken, and a later part refused: each would cost all of it."""
    _wire(store).forbid(b"a.csv", _answer("200 OK", b"0123456789"))
    assert files.read(_at(store, "a.csv"), None, (0, 6)) == b"012345"
    with pytest.raises(OSError, match="the server gave all of it"):
        files.read(_at(store, "a.csv"), None, (3, 6))


@pytest.mark.parametrize("span", [None, (0, 10)])
def test_an_object_that_is_stored_packed(store: Gcs, files: ObjectFiles, span: tuple[int, int] | None) -> None:
    """It is refused unless its name tells; then its bytes come as they are stored, and one request is all."""
    packed = gzip.compress(b"content")
    for name in ("a.csv", "a.csv.gz"):
        store.put_packed(name, packed)
    with pytest.raises(WrongSettings, match="Content-Encoding gzip"):
        files.read(_at(store, "a.csv"), None, span)
    _wire(store).requests.clear()
    assert files.read(_at(store, "a.csv.gz"), None, span) == packed[slice(*(span or (None,)))]
    assert len(_wire(store).requests) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(store: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of it is not taken for the whole, nor put before it."""
    data = bytes(range(256)) * 4 * 4096
    store.put("a.bin", data)
    # The library waits before it asks again, for some seconds at most: in that time the line is mended.
    waiting = SimpleNamespace(sleep=lambda _: _wire(store).mend(), monotonic=time.monotonic)
    monkeypatch.setattr("google.api_core.retry.retry_unary.time", waiting)
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 30.0)
    files = ObjectFiles(GcsClient.from_connection(look_up("partner", store.url())))
    _wire(store).requests.clear()
    _wire(store).cut_after(MIB)
    assert files.read(_at(store, "a.bin")) == data
    assert len(_wire(store).requests) == 2
    files.close()


def test_a_server_that_is_gone(store: Gcs, files: ObjectFiles) -> None:
    """It is asked again for as long as the constant says, and then it is no fault of the settings."""
    files.put(_at(store, "a.csv"), b"x", new=True)
    _wire(store).cut()
    asked: list[Callable[[], object]] = [
        lambda: list(files.scan(_at(store))),
        lambda: files.info(_at(store, "a.csv")),
        lambda: files.read(_at(store, "a.csv")),
        lambda: files.put(_at(store, "a.csv"), b"x", new=False),
        lambda: files.put(_at(store, "a.csv"), b"x" * 9 * MIB, new=True),
        lambda: files.remove(_at(store, "a.csv")),
    ]
    for ask in asked:
        with pytest.raises(Exception, match=f"Timeout of {gcs.RETRY_SECONDS}s exceeded") as caught:
            ask()
        assert type(explain("read", store.url(), None, caught.value)) is AmiliStorageError


# Writing


def test_an_object_is_created_once(store: Gcs, files: ObjectFiles) -> None:
    """In one request that says that there must be none; one that may be written over is."""
    path = _at(store, "a.csv")
    _wire(store).requests.clear()
    files.put(path, b"first", new=True)
    [request] = [one for one in _wire(store).requests if one.startswith(b"POST ")]
    assert b"ifGenerationMatch=0" in request
    with pytest.raises(FileExistsError, match=r"^Precondition failed$"):
        files.put(path, b"second", new=True)
    assert store.read("a.csv") == b"first"
    files.put(path, b"third", new=False)
    assert store.read("a.csv") == b"third"


class _Drops(io.RawIOBase):
    """A stream that gives little at a time, knows no position, and counts."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = memoryview(data)

    def read(self, size: int | None = -1, /) -> bytes:
        most = min(100_001, len(self._data) if size is None or size < 0 else size)
        data, self._data = bytes(self._data[:most]), self._data[most:]
        return data


def test_a_large_object_in_parts(store: Gcs, files: ObjectFiles) -> None:
    """Parts are full however little the stream gives at a time, as Google demands; what is read back is the same."""
    path, size = _at(store, "a.bin"), 20 * MIB + 1
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    _wire(store).requests.clear()
    files.create(path, _Drops(data), size)  # type: ignore[arg-type]
    [begun] = [one for one in _wire(store).requests if one.startswith(b"POST ")]
    assert b"ifGenerationMatch=0" in begun
    assert sum(one.startswith(b"PUT ") for one in _wire(store).requests) == 3
    entry = files.info(path)
    assert entry.size == size
    with files.open(path, size, entry.fingerprint) as stream:
        assert b"".join(iter(lambda: stream.read(MIB), b"")) == data


def test_a_stream_that_ends_early_makes_no_object(store: Gcs, files: ObjectFiles) -> None:
    """A large object that is not as long as was said is not there afterwards."""
    with pytest.raises(ValueError, match="exhausted"):
        files.create(_at(store, "a.bin"), io.BytesIO(b"x" * 16 * MIB), 20 * MIB)
    assert store.read("a.bin") is None


# Errors


def test_what_the_server_says_is_what_is_told(store: Gcs, files: ObjectFiles) -> None:
    """Its own words, without the address, and without what the library would have liked better."""
    _wire(store).forbid(b"a.csv", DENIED)
    _wire(store).forbid(b"uploadType", DENIED)
    path = _at(store, "a.csv")
    for ask in (
        lambda: files.read(path),
        lambda: files.info(path),
        lambda: files.put(path, b"x", new=True),
        lambda: files.put(path, b"x" * 9 * MIB, new=True),
        lambda: files.remove(path),
    ):
        with pytest.raises(PermissionError, match=r"^Access denied\.$"):
            ask()
    _wire(store).mend()
    _wire(store).forbid(b"uploadType", _answer("409 Conflict", b"somebody writes it"))
    with pytest.raises(FileExistsError, match=r"^somebody writes it$"):
        files.put(path, b"x", new=True)


# Connections


def test_as_many_connections_as_requests(store: Gcs, client: GcsClient) -> None:
    """Those that are used at once are kept, and used again."""
    store.put("a.csv", b"x")
    before = _wire(store).connections
    address = f"http://127.0.0.1:{_wire(store).port}/storage/v1/b/{BUCKET}/o"
    for _ in range(2):
        answers = [client._http.get(address, stream=True) for _ in range(THREADS)]
        for answer in answers:
            assert answer.content
    assert _wire(store).connections - before == THREADS


def test_a_client_certificate_stays(store: Gcs) -> None:
    """The pools of a session grow; how it connects remains as it is."""

    class Certified(HTTPAdapter):
        """How a session with a certificate connects."""

    session = requests.Session()
    session.mount("https://", Certified())
    GcsClient(Client("p", AnonymousCredentials(), _http=session))  # type: ignore[no-untyped-call]
    adapter = session.get_adapter("https://storage.googleapis.com")
    assert isinstance(adapter, Certified)
    assert adapter.poolmanager.connection_pool_kw["maxsize"] == THREADS


def test_nothing_is_left_when_it_is_closed(store: Gcs, files: ObjectFiles) -> None:
    """No socket and no thread; who asks again gets an answer."""
    threads = set(threading.enumerate())
    size = 20 * MIB
    store.put("a.bin", b"x" * size)
    with files.open(_at(store, "a.bin"), size, files.info(_at(store, "a.bin")).fingerprint) as stream:
        assert stream.read(1) == b"x"
        assert len(_wire(store)._sockets) >= 2
    files.close()
    assert _until(lambda: not _wire(store)._sockets)
    # Those of the wire are the test's own.
    ours = [one for one in set(threading.enumerate()) - threads if "_relay" not in one.name]
    assert _until(lambda: not any(one.is_alive() for one in ours))
    assert files.info(_at(store, "a.bin")).size == size


def test_an_emulator_that_the_environment_names(store: Gcs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``STORAGE_EMULATOR_HOST`` is the library's own, and leads there with a connection and without."""
    store.put("a.csv", b"x")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{_wire(store).port}")
    anonymous = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(anonymous))
    for connection in (None, look_up("partner", store.url())):
        files = ObjectFiles(GcsClient.from_connection(connection))
        assert files.read(_at(store, "a.csv")) == b"x"
        files.close()


def test_a_provider_without_client_options(store: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones know no universes, but the endpoint of the connection counts."""
    monkeypatch.delattr(GoogleBaseHook, "get_client_options", raising=False)
    store.put("a.csv", b"x")
    files = ObjectFiles(GcsClient.from_connection(look_up("partner", store.url())))
    assert files.read(_at(store, "a.csv")) == b"x"
    files.close()


def test_a_login_of_the_machine_without_a_project(store: Gcs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Application default credentials that name none are enough."""
    login = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"}
    (tmp_path / "adc.json").write_text(json.dumps(login))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    client = GcsClient.from_connection(None)
    assert client._client._credentials.refresh_token == "t"
    client.close()


# Logins


class _Tokens(ThreadingHTTPServer):
    """A service that gives tokens."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _GivesTokens)
        self.answer: tuple[int, dict[str, Any]] = (200, {"access_token": "token-of-the-key", "expires_in": 3600})
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _GivesTokens(BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    protocol_version = "HTTP/1.1"
    server: _Tokens

    def do_POST(self) -> None:
        """Give a token, or none."""
        self.rfile.read(int(self.headers["Content-Length"]))
        status, said = self.server.answer
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(name="tokens")
def _tokens() -> Iterator[_Tokens]:
    """A service that gives tokens."""
    tokens = _Tokens()
    yield tokens
    tokens.shutdown()
    tokens.server_close()


def _key(port: int, **other: str) -> dict[str, str]:
    """Return the key of a service account whose tokens come from *port*."""
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "project-of-the-key",
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": "delivery@example.com",
        "client_id": "1",
        "token_uri": f"http://127.0.0.1:{port}/token",
        **other,
    }


def _connect(store: Gcs, monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    extra = {"gcs.endpoint": f"http://127.0.0.1:{_wire(store).port}", **extra}
    monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))


def test_the_key_of_the_connection_logs_in(store: Gcs, tokens: _Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is sent, its project pays, and the connections to the service of tokens are closed, too."""
    wire = Wire(tokens.server_port)
    _connect(store, monkeypatch, keyfile_dict=json.dumps(_key(wire.port)), **{"gcs.requester-pays": "true"})
    store.put("a.csv", b"x")
    files = ObjectFiles(GcsClient.from_connection(look_up("partner", store.url())))
    _wire(store).requests.clear()
    assert files.read(_at(store, "a.csv")) == b"x"
    assert b"userProject=project-of-the-key" in _wire(store).requests[0]
    _wire(store).forbid(b"Bearer token-of-the-key", DENIED)
    with pytest.raises(PermissionError):
        files.read(_at(store, "a.csv"))
    assert wire._sockets
    files.close()
    assert _until(lambda: not wire._sockets)
    wire.close()


def test_wrong_logins_and_services_that_are_gone(store: Gcs, tokens: _Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is refused has to be corrected; a service that cannot give a token now may be asked again."""
    _connect(store, monkeypatch, keyfile_dict=json.dumps(_key(tokens.server_port)))
    tokens.answer = (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    with pytest.raises(AmiliStorageSettingsError, match=r"Invalid JWT Signature.*Correct the credentials"):
        list_files(store.url("*"), "partner")
    tokens.answer = (503, {"error": "unavailable"})
    with pytest.raises(AmiliStorageError, match="unavailable") as caught:
        list_files(store.url("*"), "partner")
    assert not isinstance(caught.value, AmiliStorageSettingsError)
    _connect(store, monkeypatch, keyfile_dict=json.dumps(_key(free_port())))
    with pytest.raises(AmiliStorageError, match="refused") as caught:
        list_files(store.url("*"), "partner")
    assert not isinstance(caught.value, AmiliStorageSettingsError)


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"keyfile_dict": "{none"}, "Invalid key JSON"),
        ({"keyfile_dict": json.dumps({"type": "service_account"})}, "private_key"),
        ({"keyfile_dict": json.dumps(_key(1, private_key="none"))}, "PEM"),
        ({"key_path": "/no/such/key.json"}, "/no/such/key.json"),
        ({"key_path": "/no/such/key.p12"}, "P12"),
    ],
)
def test_a_key_that_is_none(store: Gcs, monkeypatch: pytest.MonkeyPatch, extra: dict[str, str], why: str) -> None:
    """It is a fault of the connection, and none of the path that is read with it."""
    _connect(store, monkeypatch, **extra)
    with pytest.raises(AmiliStorageSettingsError, match=rf"its login cannot be read.*{why}.*Correct the credentials"):
        list_files(store.url("*"), "partner")
