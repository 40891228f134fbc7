"""The sandbox as an ASGI application: which path is served by what."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from amili_provider.sandbox.admin import admin_routes
from amili_provider.sandbox.exchange import Answer, Exchange, Reply
from amili_provider.sandbox.page import page
from amili_provider.sandbox.reading import batch, file_result, health, list_files, nothing_here, token
from amili_provider.sandbox.state import API_PATH, Sandbox
from amili_provider.sandbox.uploading import upload

Handler = Callable[[Exchange], Awaitable[Answer]]

_NEVER_PUBLIC = (".localhost", ".internal", ".cluster.local")
_PORT = re.compile(r":\d*$")
_WORDS = re.compile(r"[-_.0-9a-z]*")
_MISDIRECTED = 421

_FILES = API_PATH + "/clients/{clientno}/files"


class _Endpoint:
    """One path: an ASGI application, so that the answer can be cut, slowed down or left out."""

    def __init__(self, sandbox: Sandbox, kind: str, handler: Handler, *, open_to_all: bool = False) -> None:
        self._sandbox = sandbox
        self._kind = kind
        self._handler = handler if open_to_all else _with_token(handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self._sandbox, Request(scope, receive), self._kind)
        self._sandbox.live.add(exchange.end_from_any_thread)
        try:
            await Reply(exchange, await exchange.run(self._handler))(scope, receive, send)
        finally:
            self._sandbox.live.discard(exchange.end_from_any_thread)


def _with_token(handler: Handler) -> Handler:
    async def checked(exchange: Exchange) -> Answer:
        if exchange.sandbox.tokens.is_valid(exchange.request.headers.get("authorization")):
            return await handler(exchange)
        return Answer(401, {"message": "No token, or one that has expired"}, {"www-authenticate": "Bearer"})

    return checked


class _OwnNamesOnly:
    """
    Refuses requests to a name that anybody may own (``Host``; 421, RFC 9110).

    Otherwise a web page that a developer opens could read the sandbox's files: its own name, resolved to 127.0.0.1 when
    the page is open already, makes the sandbox part of the page's site (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not by the request's URL: what cannot be read as a host would become the sandbox's own address there.
        written = Request(scope).headers.get("host", "")
        name = _PORT.sub("", written).strip("[]").rstrip(".").lower()
        if _is_never_public(name) or name in self._sandbox.names:
            await self._app(scope, receive, send)
        else:
            words = f"This sandbox is not {name}. If it is to have this name: amili-sandbox serve --name {name}\n"
            await PlainTextResponse(words, _MISDIRECTED)(scope, receive, send)


def _is_never_public(name: str) -> bool:
    """Return whether nobody can own a name: an address, a word without dots, or an end that is kept free (RFC 6761)."""
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return _WORDS.fullmatch(name) is not None and ("." not in name or name.endswith(_NEVER_PUBLIC))


def make_app(sandbox: Sandbox) -> Starlette:
    """Return the application of *sandbox*."""

    def route(path: str, method: str, kind: str, handler: Handler, *, open_to_all: bool = False) -> Route:
        endpoint = _Endpoint(sandbox, kind, handler, open_to_all=open_to_all)
        return Route(path, endpoint, methods=[method])

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await _Endpoint(sandbox, "other", nothing_here)(scope, receive, send)

    async def no_icon(_request: Request) -> Response:
        return Response(status_code=204)

    async def front(request: Request) -> Response:
        return await page(sandbox, request)

    app = Starlette(
        routes=[
            route("/token", "POST", "token", token, open_to_all=True),
            route(_FILES, "POST", "upload", upload),
            route(_FILES, "GET", "list", list_files),
            route(_FILES + "/{fileid}", "GET", "result", file_result),
            route(API_PATH + "/clients/{clientno}/batches/{batchuuid}", "GET", "batch", batch),
            route(API_PATH + "/health", "GET", "health", health, open_to_all=True),
            route("/health", "GET", "health", health, open_to_all=True),
            Route("/", front),
            Route("/favicon.ico", no_icon),
            *admin_routes(sandbox),
        ],
        middleware=[Middleware(_OwnNamesOnly, sandbox=sandbox)],
    )
    app.router.default = other
    return app
