"""Questions over real sockets, by both clients: retries, pages, results, TLS and proxies."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amili_provider.api.client import MOST_PAGES, AmiliClient
from amili_provider.api.exchange import AmiliAsyncClient
from amili_provider.api.results import FileResult
from amili_provider.api.transport import ssl_context
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliResponseError,
)
from amili_provider.hooks.amili import AmiliHook
from tests.wire.certificates import Certificate
from tests.wire.rawserver import (
    Amili,
    Conversation,
    RawServer,
    Step,
    answer,
    cut,
    give_token,
    head,
    lost_answer,
    raw_answer,
    scripted_amili,
    settings_for,
    silence,
    trickle,
)

ACCEPTED = {"fileId": "f1", "status": "PROCESSED", "result": "CREATED"}
Ask = Callable[..., Any]


def never_wait(_seconds: float) -> None:
    """Do not wait."""


def blocking(settings: AmiliSettings, method: str, *arguments: Any, **options: Any) -> Any:
    """Ask with the client of tasks."""
    with AmiliClient(settings, sleep=never_wait, **options) as client:
        return getattr(client, method)(*arguments)


def nonblocking(settings: AmiliSettings, method: str, *arguments: Any, **options: Any) -> Any:
    """Ask with the client of triggers."""

    async def never() -> None:
        return None

    async def ask() -> Any:
        async with AmiliAsyncClient(settings, sleep=lambda _seconds: never(), **options) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


both_clients = pytest.mark.parametrize("ask", [blocking, nonblocking])


@both_clients
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (ACCEPTED, True),
        ({"files": [{"fileId": "other"}, ACCEPTED]}, True),
        ([{"fileId": "other"}, ACCEPTED, 5, None], True),
        ([ACCEPTED, ACCEPTED], True),
        ({"fileId": " F1 ", "status": "PROCESSED", "result": "CREATED", "unknown": [1]}, True),
        ({"files": []}, False),
        ([{"fileId": "other"}], False),
        ({"fileId": "other", "status": "PROCESSED", "result": "CREATED"}, False),
    ],
)
def test_result_of_a_file_is_found_in_several_shapes(ask: Ask, content: Any, found: bool) -> None:
    """The endpoint's shape is assumed: an object, a list or an object with files; only an entry with the id counts."""
    with scripted_amili(answer(200, content)) as amili:
        result = ask(amili.settings, "get_file_result", "2218", "f1")
    assert amili.api.requests[0].target == "/arm/v1/clients/2218/files/f1"
    if found:
        assert isinstance(result, FileResult)
        assert (result.status, result.result) == ("PROCESSED", "CREATED")
    else:
        assert result is None


@both_clients
@pytest.mark.parametrize("status", [404, 202, 204])
def test_no_result_yet(ask: Ask, status: int) -> None:
    """A file that is not found, or is being worked on, has no result yet."""
    with scripted_amili(answer(status)) as amili:
        assert ask(amili.settings, "get_file_result", "2218", "f1") is None


@both_clients
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"5",
        {},
        {"status": "PROCESSED", "result": "CREATED"},
        {"files": 5},
        b"[" * 100_000,
        [ACCEPTED, {**ACCEPTED, "result": "FAILED"}],
    ],
)
def test_result_that_cannot_be_read_is_no_result(ask: Ask, content: Any) -> None:
    """Nothing is guessed from an answer that does not name the file, or contradicts itself."""
    with scripted_amili(answer(200, content)) as amili, pytest.raises(AmiliResponseError):
        ask(amili.settings, "get_file_result", "2218", "f1")


def test_ids_are_quoted_in_paths() -> None:
    """An id with odd characters stays one step of the path, and another result path is obeyed."""
    with scripted_amili(answer(404), result_path="/results?client={clientno}&file={fileid}") as amili:
        blocking(amili.settings, "get_file_result", "2218", "a/../b&c=d é")
    assert amili.api.requests[0].target == "/arm/v1/results?client=2218&file=a%2F..%2Fb%26c%3Dd%20%C3%A9"


@both_clients
@pytest.mark.parametrize("status", [200, 202, 206])
def test_batch(ask: Ask, status: int) -> None:
    """The three documented codes of a batch are answers."""
    with scripted_amili(answer(status, {"any": 1})) as amili:
        found = ask(amili.settings, "get_batch", "2218", "uuid-1")
    assert (found.status_code, found.json()) == (status, {"any": 1})
    assert amili.api.requests[0].target == "/arm/v1/clients/2218/batches/uuid-1"


@both_clients
@pytest.mark.parametrize("step", [answer(500), answer(502), answer(408), answer(429), lost_answer(), raw_answer(b"x")])
def test_reading_is_tried_again(ask: Ask, step: Step) -> None:
    """Reading changes nothing, so whatever may pass is tried again."""
    with scripted_amili(step, step, answer(200, {})) as amili:
        assert ask(amili.settings, "get_batch", "2218", "u").status_code == 200
    assert len(amili.api.requests) == 3


@both_clients
@pytest.mark.parametrize(
    ("step", "kind", "requests"),
    [
        (answer(500, {"message": "oh"}), AmiliConnectionError, 3),
        (lost_answer(), AmiliConnectionError, 3),
        (answer(401), AmiliAuthenticationError, 2),
        (answer(403), AmiliAuthenticationError, 1),
        (answer(404), AmiliRequestError, 1),
        (answer(406), AmiliRequestError, 1),
        (answer(302, b"", {"Location": "http://["}), AmiliRequestError, 1),
        (silence(), AmiliConnectionError, 1),
        (trickle(b" ", first=head(200, {"Content-Length": "99999"})), AmiliConnectionError, 1),
        (trickle(b" ", first=head(200, {})), AmiliConnectionError, 1),
        (trickle(b"HTTP/1.1 200 OK\r\nX: "), AmiliConnectionError, 1),
        (raw_answer(head(200, {}) + b" " * 9_000_000), AmiliConnectionError, 1),
    ],
)
def test_both_clients_fail_alike(ask: Ask, step: Step, kind: type[AmiliError], requests: int) -> None:
    """Each failure is of the same class for tasks and triggers, after the same number of requests."""
    slow = requests == 1 and kind is AmiliConnectionError
    bounds: dict[str, Any] = {"answer_timeout": 0.3, "connect_timeout": 2} if slow else {}
    with scripted_amili(otherwise=step, **bounds) as amili, pytest.raises(kind):
        ask(amili.settings, "get_batch", "2218", "u", attempts=1 if slow else 3)
    assert len(amili.api.requests) == requests


def test_any_other_endpoint() -> None:
    """Parameters, JSON and headers go as given, and the answer comes back whole."""
    with scripted_amili(answer(201, {"made": 1})) as amili, AmiliClient(amili.settings) as client:
        made = client.request(
            "post",
            "clients/2218/customers",
            params={"userid": "æ"},
            json={"name": "Åse"},
            headers={"Accept-Language": "no"},
        )
    assert (made.status_code, made.json(), made.headers["content-length"]) == (201, {"made": 1}, "11")
    request = amili.api.requests[0]
    assert (request.method, request.target) == ("POST", "/arm/v1/clients/2218/customers?userid=%C3%A6")
    assert json.loads(request.body) == {"name": "Åse"}
    assert (request.headers["accept-language"], request.headers["content-type"]) == ("no", "application/json")


@pytest.mark.parametrize(
    ("step", "kind", "requests"),
    [
        (answer(500), AmiliOutcomeUnknown, 1),
        (answer(503), AmiliOutcomeUnknown, 1),
        (answer(408), AmiliOutcomeUnknown, 1),
        (lost_answer(), AmiliOutcomeUnknown, 1),
        (answer(429), AmiliConnectionError, 3),
        (answer(503, b"", {"Retry-After": "0"}), AmiliOutcomeUnknown, 1),
        (answer(303, b"", {"Location": "/done"}), AmiliOutcomeUnknown, 1),
        (answer(422), AmiliRequestError, 1),
    ],
)
def test_writing_is_not_repeated_where_it_may_have_been_done(step: Step, kind: type[AmiliError], requests: int) -> None:
    """A write goes again only where nothing was accepted."""
    with scripted_amili(otherwise=step) as amili, pytest.raises(kind):
        AmiliClient(amili.settings, sleep=never_wait).request("PUT", "/x", json={})
    assert len(amili.api.requests) == requests


def test_writing_that_never_arrived_is_not_unknown() -> None:
    """Without a token, or without a connection, nothing can have been carried out."""
    with scripted_amili(tokens=[lost_answer()] * 3) as amili, pytest.raises(AmiliConnectionError, match="no token"):
        AmiliClient(amili.settings, sleep=never_wait).request("PUT", "/x", json={})
    assert amili.api.requests == []
    with scripted_amili() as amili:
        settings = settings_for("http://127.0.0.1:1", amili.tokens.url)
        with pytest.raises(AmiliConnectionError, match="refuses connections.*'Host'"):
            AmiliClient(settings, sleep=never_wait).request("PUT", "/x", json={})


@pytest.mark.parametrize(
    "path",
    [
        "https://elsewhere.example/x",
        "//elsewhere.example/x",
        "/a/../../token",
        "",
        "/x\r\nHost: y",
        "\\\\x",
        "/x#y",
        "/./x",
    ],
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    """A path is below the base URL, or refused before anything is sent."""
    with scripted_amili() as amili, AmiliClient(amili.settings) as client, pytest.raises(ValueError, match="path is"):
        client.request("GET", path)


@pytest.mark.parametrize("name", ["Authorization", "HOST", "content-length", "User-Agent"])
def test_headers_that_are_not_the_callers(name: str) -> None:
    """Headers that the client sets cannot be replaced."""
    with scripted_amili() as amili, AmiliClient(amili.settings) as client, pytest.raises(ValueError, match="headers"):
        client.request("GET", "/x", headers={name: "x"})


def _pages(*links: Any) -> Step:
    """Answer with one page after the other, each with its link."""
    rest = list(enumerate(links))

    def step(talk: Conversation) -> None:
        number, link = rest.pop(0)
        if callable(link):
            link = link(talk.server)
        answer(200, {"summary": {"nextPage": link}, "items": [number]})(talk)

    return step


def test_pages_are_followed() -> None:
    """Absolute and relative links of the same origin lead to the next page; parameters are for the first only."""
    step = _pages(lambda s: f"{s.url}/arm/v1/items?query=abc&pageno=2", "/arm/v1/items?query=abc&pageno=3", None)
    with scripted_amili(otherwise=step) as amili, AmiliClient(amili.settings) as client:
        pages = list(client.paginate("/items", params={"pagesize": 5}))
    assert [p["items"] for p in pages] == [[0], [1], [2]]
    assert [r.target for r in amili.api.requests] == [
        "/arm/v1/items?pagesize=5",
        "/arm/v1/items?query=abc&pageno=2",
        "/arm/v1/items?query=abc&pageno=3",
    ]


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere.example/arm/v1/items",
        lambda s: f"https://127.0.0.1:{s.port}/items",
        lambda s: f"http://127.0.0.1:{s.port + 1}/items",
        lambda s: f"http://localhost:{s.port}/items",
        lambda s: f"http://user@127.0.0.1:{s.port}/items",
        lambda s: f"http://127.0.0.1:{s.port}@elsewhere.example/items",
        "//elsewhere.example/items",
        "http://[",
        "http://x:y:z",
        5,
        ["x"],
    ],
)
def test_pages_elsewhere_are_not_followed(link: Any) -> None:
    """The token does not follow a link to another scheme, host or port, or to nowhere."""
    with (
        scripted_amili(otherwise=_pages(link)) as amili,
        AmiliClient(amili.settings) as client,
        pytest.raises(AmiliResponseError, match="nextPage"),
    ):
        list(client.paginate("/items"))
    assert len(amili.api.requests) == 1


def test_pages_in_a_circle_end() -> None:
    """A link back to a page that was read ends the reading."""
    step = _pages("/arm/v1/b", "/arm/v1/a", "/arm/v1/b")
    with (
        scripted_amili(otherwise=step) as amili,
        AmiliClient(amili.settings) as client,
        pytest.raises(AmiliResponseError, match="leads back"),
    ):
        list(client.paginate("/a"))


def test_the_first_page_is_known_again_by_its_parameters() -> None:
    """A link back to the first page, which has its parameters in it, is a link back."""
    step = _pages("/arm/v1/a?n=2", "/arm/v1/a?pagesize=5")
    with scripted_amili(otherwise=step) as amili, AmiliClient(amili.settings) as client:
        pages = client.paginate("/a", params={"pagesize": 5})
        assert [next(pages)["items"], next(pages)["items"]] == [[0], [1]]
        with pytest.raises(AmiliResponseError, match="leads back"):
            next(pages)
    assert len(amili.api.requests) == 2


def test_pages_without_end_are_bounded() -> None:
    """A list whose every page names a new one ends with an error; max_pages, which it names, is the bound."""
    links = [f"/arm/v1/a?n={number}" for number in range(1, 6)]
    with scripted_amili(otherwise=_pages(*links, None)) as amili, AmiliClient(amili.settings) as client:
        with pytest.raises(AmiliResponseError, match="raise max_pages"):
            list(client.paginate("/a", max_pages=5))
        assert len(amili.api.requests) == 5
    with scripted_amili(otherwise=_pages(*links, None)) as amili, AmiliClient(amili.settings) as client:
        assert len(list(client.paginate("/a", max_pages=6))) == 6
        with pytest.raises(ValueError, match="max_pages is 0"):
            next(client.paginate("/a", max_pages=0))
    assert inspect.signature(AmiliHook.paginate).parameters["max_pages"].default == MOST_PAGES


@pytest.mark.parametrize("content", [b"[]", b"", b"<html>", b"5"])
def test_page_that_is_no_page(content: bytes) -> None:
    """A page is a JSON object."""
    with (
        scripted_amili(answer(200, content)) as amili,
        AmiliClient(amili.settings) as client,
        pytest.raises(AmiliResponseError),
    ):
        list(client.paginate("/items"))


def test_cookies_are_not_kept() -> None:
    """Requests are independent of one another."""
    with scripted_amili(answer(200, b"", {"Set-Cookie": "a=b"}), answer(200)) as amili:
        client = AmiliClient(amili.settings)
        client.request("GET", "/x")
        client.request("GET", "/x")
    assert "cookie" not in amili.api.requests[1].headers


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@both_clients
def test_unknown_certificate_is_named(ask: Ask, certificate: Certificate) -> None:
    """A certificate that is not trusted is said to be that, with the field that helps."""
    with (
        RawServer(otherwise=answer(200, {}), tls=certificate.server) as api,
        RawServer(otherwise=give_token()) as tokens,
    ):
        settings = settings_for(api.url, tokens.url)
        with pytest.raises(AmiliConnectionError, match="certificate of 127.0.0.1 is not trusted.*'CA file'"):
            ask(settings, "get_batch", "2218", "u", attempts=1)


@both_clients
@pytest.mark.parametrize("how", ["ca_file", "verify"])
def test_own_certificate_is_trusted_if_told(ask: Ask, certificate: Certificate, how: str) -> None:
    """The CA file, or not verifying, makes the connection work."""
    extra: dict[str, Any] = {"ca_file": str(certificate.file)} if how == "ca_file" else {"verify": "false"}
    with (
        RawServer(otherwise=answer(200, {}), tls=certificate.server) as api,
        RawServer(otherwise=give_token()) as tokens,
    ):
        settings = settings_for(api.url, tokens.url, **extra)
        assert ask(settings, "get_batch", "2218", "u").status_code == 200


def test_abort_and_time_bounds_work_with_tls(certificate: Certificate) -> None:
    """Cutting a TLS connection from another thread ends the waiting one."""
    dripping = trickle(b" ", first=head(200, {}))
    with RawServer(otherwise=dripping, tls=certificate.server) as api, RawServer(otherwise=give_token()) as tokens:
        settings = settings_for(api.url, tokens.url, ca_file=str(certificate.file), answer_timeout=0.3)
        with pytest.raises(AmiliConnectionError, match="in time"):
            blocking(settings, "get_batch", "2218", "u", attempts=1)


def test_tls_where_plain_http_is_spoken() -> None:
    """Speaking TLS to a plain port is said in words."""

    def plain(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        talk.wait_for_end()

    with RawServer(otherwise=plain) as api, RawServer(otherwise=give_token()) as tokens:
        settings = settings_for(api.url.replace("http:", "https:"), tokens.url)
        with pytest.raises(AmiliConnectionError, match="does not speak TLS as expected"):
            blocking(settings, "get_batch", "2218", "u", attempts=1)


def test_tls_settings_are_made_once(certificate: Certificate, tmp_path: Path) -> None:
    """Settings that say the same share one object; a CA file that changed or is broken is noticed."""
    settings = settings_for("http://127.0.0.1:1", "http://127.0.0.1:1")
    assert ssl_context(settings) is ssl_context(settings)
    broken = tmp_path / "broken.pem"
    for content in (None, b"", b"nothing"):
        if content is not None:
            broken.write_bytes(content)
        with pytest.raises(ValueError, match="'CA file' .* cannot be read"):
            ssl_context(settings_for("http://127.0.0.1:1", "http://127.0.0.1:1", ca_file=str(broken)))


def _proxy(talk: Conversation) -> None:
    """Pass one CONNECT on."""
    request = talk.read_head()
    assert request.method == "CONNECT"
    host, _, port = request.target.rpartition(":")
    with socket.create_connection((host, int(port))) as far:
        talk.send(b"HTTP/1.1 200 OK\r\n\r\n")
        near = talk._connection

        def back() -> None:
            while data := far.recv(65536):
                near.sendall(data)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        while data := near.recv(65536):
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        thread.join(5)


@both_clients
def test_proxy_is_used(ask: Ask, certificate: Certificate) -> None:
    """Requests go through the proxy of the connection."""
    with (
        RawServer(otherwise=answer(200, {}), tls=certificate.server) as api,
        RawServer(otherwise=give_token(), tls=certificate.server) as tokens,
        RawServer(otherwise=_proxy) as proxy,
    ):
        settings = settings_for(api.url, tokens.url, ca_file=str(certificate.file), proxy=proxy.url)
        assert ask(settings, "get_batch", "2218", "u").status_code == 200
    assert len(proxy.requests) == 2


@both_clients
@pytest.mark.parametrize(
    ("step", "words"),
    [
        (answer(407), "proxy .* refused to pass the request on .*'Proxy URL'"),
        (cut(after=0), "ended before|proxy"),
        (None, "the proxy 127.0.0.1:1 refuses connections; check 'Proxy URL'"),
    ],
)
def test_proxy_in_trouble_is_named(ask: Ask, step: Step | None, words: str) -> None:
    """A proxy that is down or refuses is told from Amili being down, and its password is not shown."""
    with scripted_amili() as amili, RawServer(otherwise=step) as proxy:
        url = proxy.url if step else "http://127.0.0.1:1"
        settings = settings_for(
            amili.api.url.replace("http:", "https:"),
            amili.tokens.url.replace("http:", "https:"),
            proxy=url.replace("//", "//user:canary-password@"),
        )
        with pytest.raises(AmiliConnectionError, match=words) as failure:
            ask(settings, "get_batch", "2218", "u", attempts=1)
    assert "canary" not in f"{failure.value}{settings!r}"


@both_clients
def test_proxies_of_the_environment_are_not_for_this_machine(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox on this machine is reached directly, whatever HTTP_PROXY says."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with scripted_amili(answer(200, {})) as amili:
        assert ask(amili.settings, "get_batch", "2218", "u").status_code == 200


@pytest.fixture(name="amili")
def _amili() -> Iterator[Amili]:
    with scripted_amili(otherwise=answer(200, {})) as amili:
        yield amili


def test_unknown_host_is_named(amili: Amili) -> None:
    """A name that nobody knows is said to be that."""
    settings = settings_for("https://no-such-host.invalid", amili.tokens.url)
    with pytest.raises(AmiliConnectionError, match="no-such-host.invalid:443 has a name that is not known here"):
        blocking(settings, "get_batch", "2218", "u", attempts=1)
