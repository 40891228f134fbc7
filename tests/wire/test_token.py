"""Tokens over real sockets: minted once, renewed early, renewed once, and never shown."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

import pytest

from amili_provider.api.auth import auth_of
from amili_provider.api.client import AmiliClient
from amili_provider.api.exchange import AmiliAsyncClient
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliRequestError,
    AmiliResponseError,
)
from tests.wire.rawserver import (
    CLIENT_SECRET,
    TOKEN_CANARY,
    Body,
    Conversation,
    Step,
    answer,
    cut,
    give_token,
    head,
    raw_answer,
    scripted_amili,
    settings_for,
    silence,
    trickle,
    whole_answer,
)

OK = answer(200, {"fine": True})


def never_wait(_seconds: float) -> None:
    """Do not wait."""


def test_token_request_is_the_documented_one() -> None:
    """A form with grant type, id and secret goes to /token, with the client's User-Agent and no scope."""
    with scripted_amili(OK) as amili, AmiliClient(amili.settings) as client:
        client.request("GET", "/x")
    request = amili.tokens.requests[0]
    assert (request.method, request.target) == ("POST", "/token")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["user-agent"].startswith("airflow-provider-amili/")
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["id"],
        "client_secret": [CLIENT_SECRET],
    }


def test_scope_is_sent_if_given() -> None:
    """A scope of the connection goes along."""
    with scripted_amili(OK, scope="write:arm files") as amili, AmiliClient(amili.settings) as client:
        client.request("GET", "/x")
    assert parse_qs(amili.tokens.requests[0].body.decode())["scope"] == ["write:arm files"]


def test_token_is_used_until_shortly_before_its_end() -> None:
    """One token serves many requests; two minutes before its end another is asked for."""
    now = [1000.0]
    with scripted_amili(otherwise=OK) as amili, AmiliClient(amili.settings, clock=lambda: now[0]) as client:
        for moment in (1000, 2000, 1000 + 3600 - 121, 1000 + 3600 - 119):
            now[0] = moment
            client.request("GET", "/x")
    used = [r.headers["authorization"].removeprefix(f"Bearer {TOKEN_CANARY}-") for r in amili.api.requests]
    assert used == ["1", "1", "1", "2"]


@pytest.mark.parametrize(
    ("life", "still_good", "too_late"),
    [
        ({"expires_in": "3600"}, 3479, 3481),
        ({"expires_in": 60}, 47, 49),
        ({"expires_on": "1600"}, 479, 481),
        ({"expires_on": 1600}, 479, 481),
        ({"expires_in": None, "expires_on": 1600}, 479, 481),
        ({}, 239, 241),
        ({"expires_in": "soon"}, 239, 241),
        ({"expires_in": "NaN"}, 239, 241),
    ],
)
def test_lifetime_may_come_in_many_forms(life: dict[str, Any], still_good: int, too_late: int) -> None:
    """Numbers may be text, and either of the two documented fields may be missing."""
    now = [1000.0]
    step = answer(200, {"access_token": "T", **life})
    with (
        scripted_amili(otherwise=OK, tokens=[step, step]) as amili,
        AmiliClient(amili.settings, clock=lambda: now[0]) as client,
    ):
        client.request("GET", "/x")
        now[0] = 1000 + still_good
        client.request("GET", "/x")
        assert len(amili.tokens.requests) == 1
        now[0] = 1000 + too_late
        client.request("GET", "/x")
        assert len(amili.tokens.requests) == 2


def test_token_without_any_life_is_used_once() -> None:
    """A token that expires at once is used for the request it was got for, and another is got for the next."""
    with scripted_amili(otherwise=OK, tokens=[give_token(0), give_token(-5)]) as amili:
        client = AmiliClient(amili.settings)
        client.request("GET", "/x")
        client.request("GET", "/x")
    assert len(amili.tokens.requests) == 2


def test_parallel_requests_mint_one_token() -> None:
    """Many threads that start at once share one token request."""
    threads = 16
    slow = threading.Event()

    def slow_token(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        slow.wait(0.3)
        talk.send(whole_answer(200, {"access_token": "T", "expires_in": 3600}))

    with scripted_amili(otherwise=OK, tokens=[slow_token]) as amili, ThreadPoolExecutor(threads) as pool:
        client = AmiliClient(amili.settings)
        list(pool.map(lambda _: client.request("GET", "/x"), range(threads)))
    assert (len(amili.tokens.requests), len(amili.api.requests)) == (1, threads)


def _accepting_only(token: str, gathered: threading.Barrier) -> Step:
    """Refuse every other token, once all requests with it are there."""

    def step(talk: Conversation) -> None:
        request = talk.read_head()
        talk.read_body()
        good = request.headers["authorization"] == f"Bearer {token}"
        if not good:
            gathered.wait(10)
        talk.send(whole_answer(200 if good else 401))

    return step


def test_many_threads_refused_at_once_mint_one_token() -> None:
    """A token that is revoked under many uploads in flight is renewed once for all of them."""
    threads = 12
    step = _accepting_only(f"{TOKEN_CANARY}-2", threading.Barrier(threads))
    with scripted_amili(otherwise=step, answer_timeout=20) as amili, ThreadPoolExecutor(threads) as pool:
        client = AmiliClient(amili.settings)
        replies = list(pool.map(lambda _: client.post_files("2218", Body()), range(threads)))
    assert [r.status_code for r in replies] == [200] * threads
    assert (len(amili.tokens.requests), len(amili.api.requests)) == (2, 2 * threads)


def test_many_tasks_of_one_loop_mint_one_token() -> None:
    """The same holds for clients that do not block and share one way to sign."""
    tasks = 12
    step = _accepting_only(f"{TOKEN_CANARY}-2", threading.Barrier(tasks))

    async def ask(amili: Any) -> list[int]:
        auth = auth_of(amili.settings)
        clients = [AmiliAsyncClient(amili.settings, auth=auth) for _ in range(3)]
        answers = await asyncio.gather(*(clients[n % 3].get("/x") for n in range(tasks)))
        for client in clients:
            await client.aclose()
        return [a.status_code for a in answers]

    with scripted_amili(otherwise=step, answer_timeout=20) as amili:
        assert asyncio.run(ask(amili)) == [200] * tasks
    assert (len(amili.tokens.requests), len(amili.api.requests)) == (2, 2 * tasks)


def test_waiting_threads_share_the_refusal() -> None:
    """A wrong secret is tried once, however many requests wait for the token: accounts get locked otherwise."""
    threads = 8
    started = threading.Barrier(threads)

    def refuse(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        threading.Event().wait(2)
        talk.send(whole_answer(401, {"error": "invalid_client"}))

    def request(client: AmiliClient) -> str:
        started.wait(10)
        with pytest.raises(AmiliAuthenticationError) as failure:
            client.request("GET", "/x")
        return str(failure.value)

    with scripted_amili(tokens=[refuse]) as amili, ThreadPoolExecutor(threads) as pool:
        client = AmiliClient(amili.settings, sleep=never_wait)
        messages = set(pool.map(request, [client] * threads))
    assert len(messages) == 1
    assert "'Client secret'" in messages.pop()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"error": "invalid_client"}, "check 'Client id' and 'Client secret'"),
        (401, {}, "check 'Client id' and 'Client secret'"),
        (400, {"error": "invalid_scope"}, "check 'Scope'"),
        (400, b"<html>", "'Token service URL'"),
        (403, {}, "whether 'Client id' is allowed"),
        (400, {"error": "unauthorized_client"}, "whether 'Client id' is allowed"),
    ],
)
def test_refused_credentials_name_the_field(status: int, body: Any, words: str) -> None:
    """A refusal of the token service is final, names the field to check, and repeats nothing that was answered."""
    step = answer(status, {**body, "description": "canary-body"} if isinstance(body, dict) else body + b"canary-body")
    with scripted_amili(tokens=[step]) as amili, pytest.raises(AmiliAuthenticationError, match=words) as failure:
        AmiliClient(amili.settings, sleep=never_wait).request("GET", "/x")
    assert failure.value.status_code == status
    assert "canary" not in str(failure.value)


@pytest.mark.parametrize("status", [404, 405, 301, 418])
def test_wrong_address_of_the_token_service(status: int) -> None:
    """An answer that no token service gives points to its address."""
    with scripted_amili(tokens=[answer(status)]) as amili, pytest.raises(AmiliRequestError, match="Token service URL"):
        AmiliClient(amili.settings, sleep=never_wait).request("GET", "/x")


@pytest.mark.parametrize(
    "body", [b"", b"<html>canary-body", [], {}, {"access_token": 5}, {"access_token": "a\nb"}, {"access_token": "æ b"}]
)
def test_answer_without_a_token(body: Any) -> None:
    """A success without a usable token is an error about the address, and repeats nothing."""
    with (
        scripted_amili(tokens=[answer(200, body)]) as amili,
        pytest.raises(AmiliResponseError, match="not with a token.*Token service URL") as failure,
    ):
        AmiliClient(amili.settings, sleep=never_wait).request("GET", "/x")
    assert "canary" not in str(failure.value)


def test_huge_answer_of_the_token_service() -> None:
    """More than a token can be is not read."""
    step = raw_answer(head(200, {}) + b" " * 10_000_000)
    with scripted_amili(tokens=[step]) as amili, pytest.raises(AmiliResponseError, match="larger than 64 KiB"):
        AmiliClient(amili.settings, sleep=never_wait).request("GET", "/x")


@pytest.mark.parametrize(
    ("packing", "words"),
    [("gzip", "larger than 64 KiB"), ("gzip, gzip", "packed in a way"), ("br", "packed in a way")],
)
def test_packed_answer_of_the_token_service_is_unpacked_within_the_bound(packing: str, words: str) -> None:
    """What is small on its way and large in memory is refused at once, by both clients; what is packed once is read."""
    bomb = gzip.compress(b" " * 1_000_000 + b"{}")
    step = raw_answer(head(200, {"Content-Encoding": packing}) + bomb)
    good = raw_answer(head(200, {"Content-Encoding": "gzip"}) + gzip.compress(b'{"access_token": "T"}'))

    async def ask(amili: Any) -> None:
        async with AmiliAsyncClient(amili.settings) as client:
            with pytest.raises(AmiliResponseError, match=words):
                await client.get("/x")
            await client.get("/x")

    with scripted_amili(OK, OK, tokens=[step, good, step, good]) as amili:
        client = AmiliClient(amili.settings, sleep=never_wait)
        with pytest.raises(AmiliResponseError, match=words):
            client.request("GET", "/x")
        client.request("GET", "/x")
        asyncio.run(ask(amili))
    assert [r.headers["authorization"] for r in amili.api.requests] == ["Bearer T"] * 2


def test_a_401_that_takes_files_is_not_answered_with_another_request() -> None:
    """It is handed on to be judged; one that only refuses, however packed, is followed by a new token."""
    queues = whole_answer(401, {"files": [{"id": "f1", "state": "waiting"}]})
    packed = gzip.compress(b'{"message": "expired"}')
    refuses = raw_answer(head(401, {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}) + packed)
    with scripted_amili(refuses, raw_answer(queues)) as amili, AmiliClient(amili.settings) as client:
        reply = client.post_files("2218", Body())
    assert (reply.status_code, reply.refused_by) == (401, None)
    assert json.loads(reply.body) == {"files": [{"id": "f1", "state": "waiting"}]}
    with scripted_amili(raw_answer(queues)) as amili, AmiliClient(amili.settings) as client:
        assert client.post_files("2218", Body()).status_code == 401
    assert len(amili.tokens.requests) == 1


@pytest.mark.parametrize(
    "step", [answer(500), answer(503), answer(429), cut(after=0), raw_answer(b"garbage\r\n\r\n"), raw_answer(b"")]
)
def test_token_service_in_trouble_is_waited_for(step: Step) -> None:
    """Trouble of the token service may pass: it is tried again, and nothing else was sent meanwhile."""
    with scripted_amili(answer(200), tokens=[step, step, give_token()]) as amili:
        assert AmiliClient(amili.settings, sleep=never_wait).post_files("2218", Body()).status_code == 200
    assert (len(amili.tokens.requests), len(amili.api.requests)) == (3, 1)


def test_token_service_in_trouble_for_good() -> None:
    """Then it is an error that Airflow retries, and says how long to wait."""
    step = answer(503, {}, {"Retry-After": "120"})
    with scripted_amili(tokens=[step]) as amili, pytest.raises(AmiliConnectionError, match="503") as failure:
        AmiliClient(amili.settings, sleep=never_wait).post_files("2218", Body())
    assert failure.value.retry_after == 120


@pytest.mark.parametrize("step", [silence(), trickle(b" ", first=head(200, {})), trickle(b"HTTP/1.1 200 OK\r\nX: ")])
def test_slow_token_service_has_a_bound_of_its_own(step: Step) -> None:
    """The token call ends within its own time, however the answer drips; the long time-out of uploads is not for it."""
    with scripted_amili(tokens=[step], answer_timeout=60) as amili:
        client = AmiliClient(amili.settings, sleep=never_wait, attempts=1)
        client._exchange.auth.service.timeout = 0.3  # type: ignore[union-attr]
        with pytest.raises(AmiliConnectionError, match="no token, since .* did not answer completely in time"):
            client.post_files("2218", Body())


def test_signing_in_needs_no_other_request() -> None:
    """A token can be got ahead, so that wrong credentials show before a file is read."""
    with scripted_amili() as amili, AmiliClient(amili.settings) as client:
        assert 3590 < (client.sign_in() or 0) <= 3600
        client.sign_in()
    assert (len(amili.tokens.requests), len(amili.api.requests)) == (1, 0)


def test_ready_made_token() -> None:
    """A token of one's own is sent as it is; a 401 names the field, and nothing is minted."""
    with scripted_amili(OK, answer(401)) as amili:
        from amili_provider.connection.settings import settings_from

        settings = settings_from(
            "c",
            login=None,
            password=None,
            host=amili.api.url,
            port=None,
            schema=None,
            extra={"access_token": "Bearer own-token"},
        )
        with AmiliClient(settings) as client:
            assert client.sign_in() is None
            client.request("GET", "/x")
            with pytest.raises(AmiliAuthenticationError, match="'Access token'"):
                client.request("GET", "/x")
    assert amili.api.requests[0].headers["authorization"] == "Bearer own-token"
    assert amili.tokens.requests == []


def test_every_new_token_is_reported_before_it_is_used() -> None:
    """Who masks logs hears of a token first."""
    heard: list[tuple[str, int]] = []
    with scripted_amili(answer(401), OK) as amili:
        client = AmiliClient(amili.settings, on_token=lambda token: heard.append((token[-1], len(amili.api.requests))))
        client.request("GET", "/x")
    assert heard == [("1", 0), ("2", 1)]


def test_secret_and_token_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Not even libraries at their most talkative log them."""
    caplog.set_level("DEBUG")
    with scripted_amili(answer(401), OK, answer(401), answer(401)) as amili, AmiliClient(amili.settings) as client:
        client.request("GET", "/x")
        with pytest.raises(AmiliError):
            client.request("GET", "/x")
        shown = f"{client!r} {client._exchange.auth!r} {client.settings!r}"
    for canary in (CLIENT_SECRET, TOKEN_CANARY):
        assert canary not in caplog.text + shown


def test_token_service_elsewhere_is_named_when_it_is_down() -> None:
    """The message says that the token service, not the API, was not reached."""
    with scripted_amili() as amili:
        settings = settings_for(amili.api.url, "http://127.0.0.1:1")
        words = "no token, since 127.0.0.1:1 refuses connections; check .*'Token service URL'"
        with pytest.raises(AmiliConnectionError, match=words):
            AmiliClient(settings, sleep=never_wait).request("GET", "/x")
