"""Single files by HTTP: whole, unchanged, and without the secrets of their addresses."""

from __future__ import annotations

import gzip
import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.operators.buckets import AmiliFileBucketsOperator
from amili_provider.storage.listing import list_files, unstable_files
from amili_provider.storage.moves import Mover
from tests.wire.certificates import Certificate
from tests.wire.proxies import forward_proxy
from tests.wire.rawserver import RawServer, answer
from tests.words import across_lines

_INVOICE = b"invoice\n" * 200_000
_PACKED = gzip.compress(_INVOICE[:800_000]) + gzip.compress(_INVOICE[800_000:])


class _Pages(BaseHTTPRequestHandler):
    """What a partner's web server may do."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str]]]
    elsewhere = 0

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        type(self).seen.append((self.command, self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        data = _INVOICE
        if path == "/private/a.csv" and self.headers.get("Authorization") != "Basic cGFydG5lcjpjYW5hcnk=":
            self._plain(401)
            return
        if path == "/missing.csv":
            self._plain(404)
            return
        if path == "/broken.csv" and body:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path == "/signed.csv" and not body:
            self._plain(403)
            return
        if path == "/moved.csv":
            self.send_response(302)
            self.send_header("Location", f"http://user:location-canary@127.0.0.1:{self.elsewhere}/login?token=canary")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 10:00:00 GMT")
        if path == "/part.csv":
            data = _INVOICE[: int(self.path.partition("?")[2])]
        if path == "/packed.csv":
            data = _PACKED[: int(self.path.partition("?")[2] or len(_PACKED))]
            self.send_header("Content-Encoding", "gzip")
        if path.startswith("/packed-with/"):
            self.send_header("Content-Encoding", unquote(path.split("/")[2]))
        if path == "/unknown-length.csv":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if body:
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
            return
        self.send_header("Content-Length", "0" if path == "/says-nothing.csv" and not body else str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if path == "/cut.csv" else data)
        if path == "/cut.csv":
            self.close_connection = True

    def _plain(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


class _Site(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who leave early."""


@pytest.fixture(name="pages")
def _pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[_Pages]]]:
    """The address of a web server, and what it saw; the connection ``site`` names it."""
    handler = type("Pages", (_Pages,), {"seen": []})
    server = _Site(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    port = server.server_address[1]
    connection = {
        "conn_type": "http",
        "host": "127.0.0.1",
        "port": port,
        "login": "partner",
        "password": "canary",
        "extra": {"X-Api-Key": "header-canary"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps(connection))
    try:
        yield f"http://127.0.0.1:{port}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_page_is_a_file(pages: tuple[str, type[_Pages]]) -> None:
    """Size from the headers, name from the path, bytes as they are; nothing is asked to be compressed."""
    root, handler = pages
    [file] = list_files(f"{root}/outbound/bl%C3%A5%20b%C3%A6r.csv", None)
    assert (file.name, file.size, file.literal) == ("blå bær.csv", len(_INVOICE), True)
    with file.open() as stream:
        assert stream.read() == _INVOICE
    assert all(headers["Accept-Encoding"] == "identity" for _, _, headers in handler.seen)


def test_the_connection_s_login_and_headers_are_sent(pages: tuple[str, type[_Pages]]) -> None:
    """The connection is read as the HTTP hook reads it, and decides where a path without a scheme is."""
    root, handler = pages
    for path in (f"{root}/private/a.csv", "/private/a.csv", "private/a.csv"):
        [file] = list_files(path, "site")
        with file.open() as stream:
            assert stream.read() == _INVOICE
    assert all(headers["X-Api-Key"] == "header-canary" for _, _, headers in handler.seen)
    with pytest.raises(AmiliStorageError, match="permission denied.*401"):
        list_files(f"{root}/private/a.csv", None)
    with pytest.raises(ValueError, match="Choose another connection"):
        list_files("http://127.0.0.1:1/a.csv", "site")


def test_proxies_of_the_environment_are_read_as_for_amili(
    pages: tuple[str, type[_Pages]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that cannot be read is refused by its name; its password is written as the message says."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://partner.example:{urlsplit(pages[0]).port}/a.csv"
    monkeypatch.setenv("NO_PROXY", "fd00::/8,[::1],blåbær.example")
    with forward_proxy("wo/rd#canary") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://bob:wo/rd#canary@127.0.0.1:{proxy.port}")
        with pytest.raises(AmiliStorageSettingsError, match="HTTP_PROXY in the environment.*as %40 %3A %2F") as caught:
            list_files(address, None)
        assert "canary" not in "".join(traceback.format_exception(caught.value))
        monkeypatch.setenv("HTTP_PROXY", f"http://bob:wo%2Frd%23canary@127.0.0.1:{proxy.port}")
        [file] = list_files(address, None)
        with file.open() as stream:
            assert stream.read() == _INVOICE
        # An address of this machine, or one that NO_PROXY names, is reached without it.
        before = len(proxy.requests)
        assert len(list_files(f"{pages[0]}/a.csv", None)) == 1
        monkeypatch.setenv("NO_PROXY", "partner.example")
        with pytest.raises(AmiliStorageError, match="no answer from partner.example"):
            list_files(address, None)
        assert len(proxy.requests) == before
    monkeypatch.setenv("HTTP_PROXY", "socks9://canary:1")
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(AmiliStorageSettingsError, match="HTTP_PROXY in the environment.* kind of proxy"):
        list_files(address, None)


def test_a_signed_address_is_not_shown(pages: tuple[str, type[_Pages]]) -> None:
    """The query, which may be a signature, is in the request and nowhere else; two of them are two files."""
    root, handler = pages
    addresses = [f"{root}/signed.csv?signature=canary{number}" for number in (1, 2)]
    files = list_files(addresses, None)
    assert [file.url for file in files] == [f"{root}/signed.csv"] * 2
    assert {path for command, path, _ in handler.seen if command == "GET"} == {
        "/signed.csv?signature=canary1",
        "/signed.csv?signature=canary2",
    }
    with pytest.raises(FileNotFoundError) as caught:
        list_files(f"{root}/missing.csv?signature=canary", None)
    assert "canary" not in str(caught.value)
    with pytest.raises(AmiliStorageError) as refused:
        list_files("http://127.0.0.1:1/x.csv?signature=canary", None)
    assert "canary" not in str(refused.value)


def test_addresses_that_differ_in_their_query_are_not_one_file_that_grows(pages: tuple[str, type[_Pages]]) -> None:
    """What is listed twice for ``stable_for`` is compared with itself."""
    addresses = [f"{pages[0]}/part.csv?{size}" for size in (5, 9)]
    assert [file.size for file in list_files(addresses, None)] == [5, 9]
    assert unstable_files(list_files(addresses, None), list_files(addresses, None), 30) == {}


def test_an_address_with_a_query_is_not_put_into_a_bucket(pages: tuple[str, type[_Pages]]) -> None:
    """A bucket goes through XCom, where a signature would be read, and without its query it is another file."""
    root, _ = pages
    buckets = AmiliFileBucketsOperator(task_id="buckets", source=[f"{root}/a.csv", f"{root}/a.csv?day=2"])
    said = across_lines(r"a\.csv cannot be passed on in a bucket: .*query")
    with pytest.raises(AmiliStorageSettingsError, match=said):
        buckets.execute({})
    buckets = AmiliFileBucketsOperator(task_id="buckets", source=f"{root}/a.csv")
    assert buckets.execute({}) == [[f"{root}/a.csv"]]


def test_what_comes_packed_is_unpacked(pages: tuple[str, type[_Pages]]) -> None:
    """A server that compresses unasked says how: what Amili gets is the file, in its own length."""
    [file] = list_files(f"{pages[0]}/packed.csv", None)
    assert file.size == len(_INVOICE)
    with file.open() as stream:
        assert stream.read() == _INVOICE


@pytest.mark.parametrize("packing", ["br", "zstd", "compress", "deflate", "gzip, br", "aws-chunked"])
def test_what_comes_packed_and_cannot_be_unpacked_is_refused(pages: tuple[str, type[_Pages]], packing: str) -> None:
    """The packed bytes are not the file: they are never delivered under its name."""
    address = f"{pages[0]}/packed-with/{quote(packing)}/a.csv"
    with pytest.raises(AmiliStorageSettingsError, match=f"packs it with {packing.rpartition(' ')[2]}.*Let it send"):
        list_files(address, None)


@pytest.mark.parametrize("end", [5, 100, len(_PACKED) // 2 + 30, len(_PACKED) - 3])
def test_what_comes_packed_and_ends_early_is_an_error(pages: tuple[str, type[_Pages]], end: int) -> None:
    """A packed file that was cut off before it was served, in an answer that is whole: it is never a shorter file."""
    with pytest.raises(AmiliStorageError, match="packed with gzip is damaged"):
        list_files(f"{pages[0]}/packed.csv?{end}", None)


def test_the_connection_s_header_goes_before_a_login_of_netrc(
    pages: tuple[str, type[_Pages]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The user's other tools may have a login for the host; the connection says another."""
    root, handler = pages
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password netrc-canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    port = urlsplit(root).port
    site = {"conn_type": "http", "host": "127.0.0.1", "port": port, "extra": {"Authorization": "Bearer mine"}}
    monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps(site))
    list_files(f"{root}/a.csv", "site")
    assert {headers["Authorization"] for _, _, headers in handler.seen} == {"Bearer mine"}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_connection_s_certificates_go_before_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """As for the hook of the HTTP provider; and where they do not fit, the message says what is wrong."""
    (tmp_path / "other").mkdir()
    certificate, other = Certificate(tmp_path), Certificate(tmp_path / "other")
    monkeypatch.setenv(variable, str(other.file))
    with RawServer(otherwise=answer(200, b"x"), tls=certificate.server) as server:
        site = {"conn_type": "http", "host": "127.0.0.1", "port": server.port, "schema": "https"}
        for verify in (str(certificate.file), False):
            monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps({**site, "extra": {"verify": verify}}))
            [file] = list_files(f"{server.url}/a.csv", "site")
            assert file.size == 1
        monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps(site))
        with pytest.raises(AmiliStorageError, match=r"SSLError: self.signed certificate|SSLError: .*issuer"):
            list_files(f"{server.url}/a.csv", "site")


@pytest.mark.parametrize("packing", ["identity", "", "Identity"])
def test_what_comes_as_it_is_says_so_in_any_words(pages: tuple[str, type[_Pages]], packing: str) -> None:
    """``identity`` is no packing, and neither is nothing."""
    [file] = list_files(f"{pages[0]}/packed-with/{packing}/a.csv", None)
    assert file.size == len(_INVOICE)


def test_a_head_that_says_nothing_is_checked(pages: tuple[str, type[_Pages]]) -> None:
    """A server that answers HEAD with a length of 0 has a file all the same."""
    [file] = list_files(f"{pages[0]}/says-nothing.csv", None)
    assert file.size == len(_INVOICE)


def test_a_length_that_is_not_told_is_counted(pages: tuple[str, type[_Pages]]) -> None:
    """A file without Content-Length has the size that it turns out to have."""
    [file] = list_files(f"{pages[0]}/unknown-length.csv", None)
    assert file.size == len(_INVOICE)
    with file.open() as stream:
        assert stream.read() == _INVOICE


def test_a_redirect_is_not_followed(pages: tuple[str, type[_Pages]]) -> None:
    """No header leaves the connection's host, and no log-in page is taken for a file; the message says where to."""
    root, handler = pages
    handler.elsewhere = urlsplit(root).port or 0
    with pytest.raises(AmiliStorageSettingsError, match=r"302.*redirect to 127\.0\.0\.1:\d+, which is not") as caught:
        list_files(f"{root}/moved.csv", "site")
    assert "canary" not in str(caught.value)
    assert {path for _, path, _ in handler.seen} == {"/moved.csv"}


def test_a_body_that_is_cut_is_an_error(pages: tuple[str, type[_Pages]]) -> None:
    """Half a body is never a file."""
    [file] = list_files(f"{pages[0]}/cut.csv", None)
    with pytest.raises(AmiliStorageError, match=r"cut\.csv"), file.open() as stream:
        while stream.read(100_000):
            pass


def test_an_answer_that_is_no_file_is_an_error(pages: tuple[str, type[_Pages]]) -> None:
    """Only a 200 is a file; a missing one is missing."""
    root, _ = pages
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        list_files(f"{root}/missing.csv", None)
    [file] = list_files(f"{root}/broken.csv", None)
    with pytest.raises(AmiliStorageError, match="503"):
        file.open()
    with pytest.raises(AmiliStorageError, match="no file name"):
        list_files(f"{root}/", None)


def test_pages_cannot_be_archived(pages: tuple[str, type[_Pages]], tmp_path: Any) -> None:
    """A file at an address stays there, and the reason says so; an address is no archive."""
    [file] = list_files(f"{pages[0]}/a.csv", None)
    moved = Mover.open("archive_to", f"file://{tmp_path}", None, [file]).move(file, file_id="0" * 32, sha256="0" * 64)
    assert moved.url is None
    assert "only be read" in str(moved.reason)
    with pytest.raises(ValueError, match="HTTP address"):
        Mover.open("archive_to", f"{pages[0]}/archive", None, [file])


def test_a_wrong_connection_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of another type cannot be used for an address."""
    monkeypatch.setenv("AIRFLOW_CONN_BUCKET", json.dumps({"conn_type": "aws"}))
    with pytest.raises(AmiliStorageSettingsError, match="https:// needs a connection of type http"):
        list_files("https://127.0.0.1/x.csv", "bucket")


@pytest.mark.parametrize("address", ["/folder/", "/a.csv?path=x/", "/a.csv/"])
def test_an_address_is_asked_as_it_was_written(pages: tuple[str, type[_Pages]], address: str) -> None:
    """Also with a slash at its end."""
    base, handler = pages
    [file] = list_files(f"{base}{address}", "site")
    with file.open() as stream:
        assert stream.read() == _INVOICE
    assert {path for _, path, _ in handler.seen} == {address}
