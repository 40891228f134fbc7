"""``/admin/...``: what a test or a person may ask of a sandbox that runs in another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from amili_provider.sandbox.results import Scripts
from amili_provider.sandbox.rules import Rules
from amili_provider.sandbox.state import Sandbox

Order = dict[str, Any]


class WrongOrderError(ValueError):
    """An order that cannot be followed."""


def _text(order: Order, name: str) -> str:
    value = order.get(name)
    if not isinstance(value, str) or not value:
        raise WrongOrderError(f"'{name}' must be text")
    return value


def _script(scripts: Scripts, order: Order) -> Order:
    steps = order.get("steps")
    if not isinstance(steps, list):
        raise WrongOrderError("'steps' must be a list")
    scripts.set(_text(order, "id"), *steps)
    return {}


def _change_tokens(sandbox: Sandbox, order: Order) -> Order:
    tokens = sandbox.tokens
    if order.get("expire"):
        tokens.expire_all()
    if "lifetime" in order:
        tokens.lifetime = float(order["lifetime"])
    if "numbers_as_text" in order:
        tokens.numbers_as_text = bool(order["numbers_as_text"])
    if "admit" in order:
        tokens.admit(_text(order, "admit"))
    return {"minted": tokens.minted, "lifetime": tokens.lifetime}


def _change_rules(sandbox: Sandbox, order: Order) -> Order:
    known = {f.name for f in fields(Rules)}
    if unknown := sorted(set(order) - known - {"knows_uploads"}):
        raise WrongOrderError(f"a rule named {unknown[0]!r} is not known; there are {', '.join(sorted(known))}")
    if "clients" in order:
        sandbox.rules.clients = {str(no): tuple(types) for no, types in order["clients"].items()}
    if "knows_uploads" in order:
        sandbox.knows_uploads = bool(order["knows_uploads"])
    for name in set(order) - {"clients", "knows_uploads"}:
        setattr(sandbox.rules, name, order[name])
    return {**asdict(sandbox.rules), "knows_uploads": sandbox.knows_uploads}


def _clear_faults(sandbox: Sandbox) -> Order:
    sandbox.faults.clear()
    return {}


def admin_routes(sandbox: Sandbox) -> list[Route]:
    """Return the routes under ``/admin`` of *sandbox*."""
    records = sandbox.records

    def shown(what: Callable[[], Any]) -> Callable[[Request], Any]:
        async def answer(_request: Request) -> Response:
            return JSONResponse(what())

        return answer

    def obeyed(action: Callable[[Order], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            # A page of another origin cannot send this content type without being asked first.
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                return JSONResponse({"message": "Content-Type must be application/json"}, 415)
            try:
                order = json.loads(await request.body() or b"{}")
                if not isinstance(order, dict):
                    raise WrongOrderError("an order is an object")
                # In a thread: some orders wait for requests that this very loop serves.
                return JSONResponse(await asyncio.to_thread(action, order))
            except (ValueError, TypeError, AttributeError) as error:
                return JSONResponse({"message": str(error)}, 400)

        return answer

    def reset(_order: Order) -> Order:
        sandbox.reset()
        return {}

    return [
        Route("/admin/uploads", shown(lambda: [asdict(u) for u in sandbox.uploads])),
        Route("/admin/refusals", shown(lambda: [asdict(r) for r in sandbox.refusals])),
        Route("/admin/requests", shown(lambda: [asdict(r) for r in sandbox.requests])),
        Route("/admin/faults", shown(lambda: [f.as_dict() for f in sandbox.faults])),
        Route(
            "/admin/state",
            shown(
                lambda: {
                    "uploads": len(records.uploads),
                    "refusals": len(records.refusals),
                    "requests": len(records.requests),
                    "in_flight": sandbox.in_flight,
                    "tokens": sandbox.tokens.minted,
                }
            ),
        ),
        Route(
            "/admin/faults",
            obeyed(lambda order: sandbox.faults.add(**{"on": "upload", **order}).as_dict()),
            methods=["POST"],
        ),
        Route("/admin/faults", shown(lambda: _clear_faults(sandbox)), methods=["DELETE"]),
        Route("/admin/results", obeyed(lambda order: _script(sandbox.results, order)), methods=["POST"]),
        Route("/admin/batches", obeyed(lambda order: _script(sandbox.batches, order)), methods=["POST"]),
        Route("/admin/tokens", obeyed(lambda order: _change_tokens(sandbox, order)), methods=["POST"]),
        Route("/admin/rules", obeyed(lambda order: _change_rules(sandbox, order)), methods=["POST"]),
        Route("/admin/reset", obeyed(reset), methods=["POST"]),
    ]
