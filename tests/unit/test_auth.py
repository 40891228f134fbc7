"""The flows that sign requests, driven by hand: no client, no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from amili_provider.api.auth import BearerAuth, ClientCredentialsAuth
from amili_provider.api.tokens import is_token_request
from amili_provider.exceptions import AmiliAuthenticationError, AmiliConnectionError

URL = "https://api.example/arm/v1/clients/1/files"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="auth")
def _auth(clock: Clock) -> ClientCredentialsAuth:
    return ClientCredentialsAuth("https://auth.example/", "id", "canary-secret", clock=clock, user_agent="agent/1")


def token_answer(value: str = "T1", **fields: Any) -> httpx.Response:
    """Return what the token service answers."""
    return httpx.Response(200, json={"access_token": value, "expires_in": 3600, **fields})


def outgoing(**extensions: Any) -> httpx.Request:
    """Return a request to be signed."""
    return httpx.Request("POST", URL, extensions=extensions)


def end(flow: Any, response: httpx.Response) -> None:
    """Hand the last answer to a flow, which has nothing more to send."""
    with pytest.raises(StopIteration):
        flow.send(response)


def test_first_request_gets_a_token_first(auth: ClientCredentialsAuth) -> None:
    """The flow asks for a token, then sends the request with it, and is done."""
    request = outgoing()
    flow = auth.sync_auth_flow(request)
    asking = next(flow)
    assert (asking.method, str(asking.url)) == ("POST", "https://auth.example/token")
    assert is_token_request(asking)
    assert not is_token_request(request)
    assert asking.headers["user-agent"] == "agent/1"
    signed = flow.send(token_answer())
    assert signed is request
    assert signed.headers["authorization"] == "Bearer T1"
    end(flow, httpx.Response(200))


def test_token_request_has_a_timeout_of_its_own(auth: ClientCredentialsAuth) -> None:
    """Without one, httpx would wait for ever for a request that comes from a flow."""
    asking = next(auth.sync_auth_flow(outgoing(timeout={"read": 600.0})))
    assert asking.extensions["timeout"] == dict.fromkeys(("connect", "read", "write", "pool"), 15.0)


def test_token_request_is_watched_like_the_request(auth: ClientCredentialsAuth) -> None:
    """Whoever watches the request watches the token request too."""
    trace, overdue = object(), object()
    asking = next(auth.sync_auth_flow(outgoing(trace=trace, overdue=overdue)))
    assert asking.extensions["trace"] is trace
    assert asking.extensions["overdue"] is overdue


def test_second_request_uses_the_token(auth: ClientCredentialsAuth) -> None:
    """A cached token needs no request of its own."""
    flow = auth.sync_auth_flow(outgoing())
    next(flow)
    flow.send(token_answer())
    again = next(auth.sync_auth_flow(outgoing()))
    assert again.headers["authorization"] == "Bearer T1"


@pytest.mark.parametrize(("life", "used_until"), [(3600, 3480), (600, 480), (599, 479.2), (100, 80), (10, 8)])
def test_margin_before_the_end(auth: ClientCredentialsAuth, clock: Clock, life: int, used_until: float) -> None:
    """A token is renewed two minutes, or a fifth of its life if that is less, before its end."""
    flow = auth.sync_auth_flow(outgoing())
    next(flow)
    flow.send(token_answer(expires_in=life))
    clock.now = 1000 + used_until - 0.01
    assert not is_token_request(next(auth.sync_auth_flow(outgoing())))
    clock.now = 1000 + used_until + 0.01
    assert is_token_request(next(auth.sync_auth_flow(outgoing())))


def test_refused_token_is_renewed_once(auth: ClientCredentialsAuth) -> None:
    """401: one new token, one replay; a second 401 is the answer."""
    request = outgoing()
    flow = auth.sync_auth_flow(request)
    next(flow)
    flow.send(token_answer())
    assert is_token_request(flow.send(httpx.Response(401, content=b"x")))
    replay = flow.send(token_answer("T2"))
    assert replay is request
    assert replay.headers["authorization"] == "Bearer T2"
    end(flow, httpx.Response(401))


def test_token_that_somebody_else_renewed_is_used(auth: ClientCredentialsAuth) -> None:
    """Of two requests refused with one token, the second finds the first one's new token."""
    flows = [auth.sync_auth_flow(outgoing()) for _ in range(2)]
    next(flows[0])
    flows[0].send(token_answer())
    next(flows[1])
    flows[0].send(httpx.Response(401))
    flows[0].send(token_answer("T2"))
    assert flows[1].send(httpx.Response(401)).headers["authorization"] == "Bearer T2"


def test_body_of_a_refusal_is_not_read(auth: ClientCredentialsAuth) -> None:
    """The library reads what it hands to a flow that goes on; a 401 without end must not be read to its end."""

    class Endless(httpx.SyncByteStream):
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("read")

        def close(self) -> None:
            self.closed = True

    body = Endless()
    flow = auth.sync_auth_flow(outgoing())
    next(flow)
    flow.send(token_answer())
    refused = httpx.Response(401, stream=body)
    flow.send(refused)
    assert refused.read() == b""
    assert body.closed


def test_broken_token_request_frees_the_turn(auth: ClientCredentialsAuth) -> None:
    """A flow that is given up while it waits for a token does not lock the others out."""
    given_up = auth.sync_auth_flow(outgoing())
    next(given_up)
    given_up.close()
    assert is_token_request(next(auth.sync_auth_flow(outgoing())))


def test_refusal_frees_the_turn(auth: ClientCredentialsAuth) -> None:
    """The same after a refusal, which the next request tries again."""
    flow = auth.sync_auth_flow(outgoing())
    next(flow)
    with pytest.raises(AmiliAuthenticationError):
        flow.send(httpx.Response(401))
    assert is_token_request(next(auth.sync_auth_flow(outgoing())))


def test_trouble_tells_when_to_come_back(auth: ClientCredentialsAuth) -> None:
    """What the token service asks for reaches whoever decides to wait."""
    flow = auth.sync_auth_flow(outgoing())
    next(flow)
    with pytest.raises(AmiliConnectionError) as failure:
        flow.send(httpx.Response(429, headers={"Retry-After": "5"}))
    assert failure.value.retry_after == 5


def test_flow_without_blocking_decides_alike() -> None:
    """The asynchronous flow takes the same steps, and awaits whoever wants to hear of tokens."""
    heard = []

    async def on_token(value: str) -> None:
        await asyncio.sleep(0)
        heard.append(value)

    async def steps() -> list[str]:
        auth = ClientCredentialsAuth("https://auth.example", "id", "secret", on_token=on_token)
        flow = auth.async_auth_flow(outgoing())
        seen = [str((await anext(flow)).url)]
        for answer in (token_answer(), httpx.Response(401), token_answer("T2")):
            request = await flow.asend(answer)
            seen.append(request.headers.get("authorization", str(request.url)))
        with pytest.raises(StopAsyncIteration):
            await flow.asend(httpx.Response(401))
        return seen

    token = "https://auth.example/token"
    assert asyncio.run(steps()) == [token, "Bearer T1", token, "Bearer T2"]
    assert heard == ["T1", "T2"]


def test_representations_hide_secrets(auth: ClientCredentialsAuth) -> None:
    """Crash reporters print local variables; they find no secret."""
    flow = auth.sync_auth_flow(outgoing())
    next(flow)
    flow.send(token_answer("canary-token"))
    shown = f"{auth!r} {auth._token!r} {BearerAuth('canary-token')!r}"
    assert "canary" not in shown
    assert "https://auth.example/token" in shown


def test_ready_made_token_is_put_on_every_request() -> None:
    """The second class has one step."""
    flow = BearerAuth("own").auth_flow(outgoing())
    assert next(flow).headers["authorization"] == "Bearer own"
    end(flow, httpx.Response(401))
