"""Planted canaries: no secret, token, content or national id anywhere that people or databases see."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amili_provider.hooks.amili import AmiliHook
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import attempts_in, new_ledger
from tests.wire.conftest import FakeTaskInstance, Upload

CONTENT = b"CANARY-CONTENT-5d1f; 01017012345; Ola Nordmann"
IDS = ("010170 12345", "010170-12345", "010170.12345", "01.01.70 12345", "010170\xa0123 45")
"""A national id as people write it."""


TOKEN, SECRET = "<the token>", "<the secret>"
"""Stand in a fault for what Amili was sent."""


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"on": "upload", "status": 500, "body": {"title": f"debug: Authorization: Bearer {TOKEN}"}},
        {"on": "upload", "status": 422, "body": {"error_description": f"client {SECRET} is locked"}},
        {"on": "upload", "status": 200, "body": {"files": [{"message": TOKEN}], "message": SECRET}},
        {"on": "token", "status": 401, "body": "CANARY-TOKEN-BODY", "times": None},
        {"on": "upload", "status": 500, "body": CONTENT.decode()},
        {"on": "upload", "status": 400, "body": {"message": "bad fnr 01017012345", "content": CONTENT.decode()}},
        {"on": "upload", "status": 400, "body": {"message": f"bad: {', '.join(IDS)}"}},
        {"on": "upload", "drop": "reset", "stage": "accepted"},
        {"on": "upload", "status": 403, "times": None},
        {"on": "upload", "garbage": "html"},
    ],
    ids=str,
)
def test_canaries_appear_nowhere(
    upload: Upload,
    outbound: Path,
    connect: Callable[..., SandboxServer],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
) -> None:
    """Logs at debug, exceptions with their causes, receipts, XCom and the ledger are searched."""
    amili = connect(user_id="user1")
    if fault:
        granted = amili.tokens._mint()
        monkeypatch.setattr(amili.tokens, "_mint", lambda: granted)
        said = json.dumps(fault).replace(TOKEN, granted["access_token"]).replace(SECRET, amili.client_secret)
        amili.faults.add(**json.loads(said))
    (outbound / "a.csv").write_bytes(CONTENT)
    caplog.set_level(logging.DEBUG)
    ti = FakeTaskInstance()
    seen = [json.dumps(ti.pushed)]
    try:
        seen.append(json.dumps(upload(ti)))
    except Exception as error:  # noqa: BLE001 - whatever it is, its text is searched
        seen += ["".join(traceback.format_exception(error)), repr(error), str(vars(error))]
    with AmiliHook() as hook:
        seen += [repr(hook), repr(hook.settings), repr(hook.get_conn())]
    seen += [caplog.text, json.dumps(ti.pushed)]
    seen += [str(attempt) for attempt in attempts_in(new_ledger(tmp_path))]
    text = "\n".join(seen)
    canaries = [amili.client_secret, "CANARY-CONTENT", "Q0FOQVJZ", "CANARY-TOKEN-BODY", "01017012345", *IDS, "Nordmann"]
    canaries += list(amili.tokens._expiry)
    for canary in canaries:
        assert canary not in text, f"{canary} leaked"
