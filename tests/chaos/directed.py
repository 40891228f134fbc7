"""Scenarios that are not drawn but written down: one for each thing that once could go wrong."""

from __future__ import annotations

from typing import Any

from tests.chaos.scenarios import ANSWER_TIMEOUT, Deeds, Scenario, Step, scenario

SMALL = b"an invoice\n" * 50
LARGE = b"a line of a long file\n" * 140_000
_EXTRAS = {"answer_timeout": ANSWER_TIMEOUT, "connect_timeout": ANSWER_TIMEOUT}


def _scenario(
    name: str, *steps: Step, files: dict[str, bytes] | None = None, extras: dict[str, Any] | None = None, **more: Any
) -> tuple[str, Scenario]:
    contents = files or {"f0.csv": SMALL}
    return name, Scenario(seed=name, files=contents, extras={**_EXTRAS, **(extras or {})}, steps=steps, **more)


def _worker(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> tuple[Deeds, Deeds]:
    return Deeds(first or {}), Deeds(second or {})


def _database(name: str, how: str, **more: Any) -> tuple[str, Scenario]:
    deeds = _worker({"database": {"how": how, **more}})
    return _scenario(name, Step(deeds=deeds), Step(again="new run"), _LATER, files=_THREE)


def _kill(at: str, **more: Any) -> tuple[Deeds, Deeds]:
    return _worker({"kill": {"at": at, **more}})


_LATER = Step(later=True)
_LOST = {"on": "upload", "drop": "reset", "stage": "accepted"}
_UNHEARD = {"on": "upload", "drop": "reset", "stage": "body"}
_NO_FILES = {"on": "upload", "status": 200, "stage": "body", "body": {"status": "PROCESSED", "result": "CREATED"}}
_BUSY = {"on": "upload", "status": 429, "headers": {"Retry-After": "0"}}
_COME_BACK = {"on": "upload", "status": 429, "headers": {"Retry-After": "600"}, "times": None}
_THREE = {f"f{n}.csv": SMALL + b"%d" % n for n in range(3)}
_EQUAL = {"f0.csv": SMALL, "f1.csv": SMALL, "f2.csv": LARGE, "f3.csv": SMALL + b"other", "f4.csv": LARGE}
_ALWAYS = 10_000
_TAKEN_503 = {"on": "upload", "status": 503, "stage": "accepted", "headers": {"Retry-After": "0"}}
_TAKEN_303 = {"on": "upload", "status": 303, "stage": "accepted", "headers": {"Location": "/done"}}
_TAKEN_422 = {"on": "upload", "status": 422, "garbage": "missing-file"}
_BARRED = {"on": "upload", "status": 403, "garbage": "html", "stage": "body", "times": 3}
_WORKING = {"on": "result", "status": 202, "body": {"status": "PROCESSING"}, "times": None}
_REFUSED_ONCE = {"on": "result", "garbage": "refused-as-a-whole", "times": None}
_MANY = {f"f{n}.csv": SMALL + b"%d" % n for n in range(9)}
_ONE_BY_ONE = {"max_files_per_request": 1}
_IN_A_STREAM: dict[str, Any] = {"files": {"f0.csv": LARGE}, "extras": {"max_request_bytes": 100_000}}
_ON_ITS_WAY = {"sizes": "forgotten"}

DIRECTED: dict[str, Scenario] = dict([
    _scenario("killed with the tail on its way", Step(deeds=_kill("byte", share=1.0)), _LATER),
    _scenario("killed with the tail on its way, blind", Step(deeds=_kill("byte", share=1.0)), _LATER, blind=True),
    _scenario("killed after the claim", Step(deeds=_kill("claimed")), Step(), _LATER),
    _scenario("killed before the claim", Step(deeds=_kill("before claim")), Step()),
    _scenario("killed with the answer in hand", Step(deeds=_kill("answered")), Step(), _LATER),
    _scenario(
        "told to stop while it waits for an answer",
        Step(
            deeds=_kill("moment", seconds=0.7, gently=True),
            faults=({"on": "upload", "delay": 1.3, "stage": "accepted"},),
        ),
        Step(),
        extras={"answer_timeout": 5.0},
    ),
    _scenario("killed after all was settled", Step(deeds=_kill("delivered")), Step()),
    _scenario("two at once", Step(sync="meet"), Step(), kind="two runs"),
    _scenario("one sends, another looks", Step(sync="order"), Step(), kind="two runs"),
    _scenario("one sends, another is to resend", Step(sync="order", if_unknown="resend"), Step(), kind="two runs"),
    _scenario("mapped tasks at once", Step(sync="meet"), Step(), kind="mapped", files=_THREE, overlap=True),
    _scenario("two connections at once", Step(sync="meet"), Step(), kind="two connections"),
    _scenario("staging, then production", Step(together=False), kind="two environments"),
    _scenario("answer lost", Step(faults=(_LOST,)), Step(again="new run"), blind=True),
    _scenario("answer lost, then resend", Step(faults=(_LOST,)), Step(if_unknown="resend")),
    _scenario("answer lost, then resend on 202", Step(faults=(_LOST,)), Step(if_unknown="resend", faults=(_WORKING,))),
    _scenario("taken, then 503 with Retry-After", Step(faults=(_TAKEN_503,)), Step(again="new run")),
    _scenario("taken, then 303", Step(faults=(_TAKEN_303,)), Step(again="new run"), blind=True),
    _scenario("taken, then 422 names some", Step(faults=(_TAKEN_422,)), Step(again="new run"), files=_THREE),
    _scenario(
        "refused, then taken, and the refusal is told",
        Step(faults=({"on": "upload", "status": 422},)),
        Step(faults=(_LOST,), again="new run"),
        Step(if_unknown="check", faults=(_REFUSED_ONCE,), again="new run"),
        Step(again="new run"),
    ),
    _scenario("refused by a gateway", Step(faults=(_BARRED,)), Step(again="new run"), files=_THREE),
    _scenario("a bad hour", Step(faults=({**_TAKEN_503, "times": None},)), Step(), files=_MANY, extras=_ONE_BY_ONE),
    _scenario("answer too late", Step(faults=({"on": "upload", "delay": 2 * ANSWER_TIMEOUT, "stage": "accepted"},))),
    _scenario("cut before it was accepted", Step(faults=(_UNHEARD,)), Step(again="new run")),
    _scenario("strange answer", Step(faults=(_NO_FILES,))),
    _scenario("one of three refused", Step(), Step(), files={**_THREE, "f3.csv": b"REJECT: no such debtor\n" + SMALL}),
    _scenario(
        "claims cannot be written",
        Step(
            deeds=_worker({"ledger": {"operations": ["claim"], "nth": 1, "times": _ALWAYS}}), faults=(_LOST,)
        ),
        Step(),
        files=_THREE,
    ),
    _database("a claim's COMMIT is cut", "cut", nth=2),
    _database("a claim's COMMIT is cut, and was done", "cut", nth=2, done=True),
    _database("an outcome's COMMIT is cut", "cut", nth=3),
    _database("an outcome's COMMIT is cut, and was done", "cut", nth=3, done=True),
    _database("no COMMIT comes through", "cut", nth=2, times=_ALWAYS),
    _database("locked before the claim", "locked", at="looked up", seconds=0.5),
    _database("locked for long before the claim", "locked", at="looked up", seconds=4.0),
    _database("locked for long before the outcome", "locked", at="before settle", seconds=4.0),
    _database("disk full", "full", at="start"),
    _database("disk full before the outcome", "full", at="claimed"),
    _database("a replica from the beginning", "read-only", at="start"),
    _database("a replica before the claim", "read-only", at="looked up"),
    _database("a replica before the outcome", "read-only", at="claimed"),
    _database("restarted before the claim's COMMIT", "restarted", nth=2),
    _database("restarted while Amili answers", "restarted", at="after tail"),
    _scenario(
        "outcomes cannot be written",
        Step(
            deeds=_worker({"ledger": {"operations": ["settle"], "nth": 1, "times": _ALWAYS}})
        ),
        Step(),
        _LATER,
    ),
    _scenario(
        "force, then a retry",
        Step(),
        Step(force=True, faults=({**_BUSY, "nth": 2, "times": 8},)),
        Step(force=True),
        files=_THREE,
        extras={"max_files_per_request": 1},
    ),
    _scenario(
        "changed while it is sent",
        Step(deeds=_worker({"change": {"path": "f0.csv", "how": "edit", "when": "sending", "chunk": 0}})),
        Step(),
        **_IN_A_STREAM,
    ),
    _scenario(
        "changed while it is sent, hashed before",
        Step(deeds=_worker({"change": {"path": "f0.csv", "how": "edit", "when": "sending", "chunk": 0}})),
        Step(),
        **_IN_A_STREAM,
        always={"sizes": "known"},
    ),
    _scenario(
        "killed with the tail on its way, hashed on its way",
        Step(deeds=_kill("byte", share=1.0)),
        _LATER,
        **_IN_A_STREAM,
        always=_ON_ITS_WAY,
    ),
    _scenario(
        "two at once, hashed on their way",
        Step(sync="meet"),
        Step(),
        **_IN_A_STREAM,
        kind="two runs",
        always=_ON_ITS_WAY,
    ),
    _scenario(
        "one sends, another looks, hashed on their way",
        Step(sync="order"),
        Step(),
        **_IN_A_STREAM,
        kind="two runs",
        always=_ON_ITS_WAY,
    ),
    _scenario(
        "a month again, read and hashed on its way",
        Step(again="backfill completed"),
        Step(again="backfill completed"),
        **_IN_A_STREAM,
        always={**_ON_ITS_WAY, "remote": "stays"},
    ),
    _scenario(
        "storage ends a file early",
        Step(deeds=_worker({"storage": {"how": "short", "nth": 1, "times": _ALWAYS, "share": 0.5}})),
        Step(),
        always={"remote": True},
        files=_THREE,
    ),
    _scenario(
        "storage fails",
        Step(deeds=_worker({"storage": {"how": "fail", "nth": 2, "times": _ALWAYS, "share": 0.5}})),
        Step(),
        always={"remote": True},
        files=_THREE,
    ),
    _scenario(
        "told to stop while the storage hangs",
        Step(deeds=_worker({"storage": {"how": "hang", "nth": 2, "times": _ALWAYS}})),
        Step(),
        always={"remote": True},
        files=_THREE,
    ),
    _scenario(
        "a long pause", Step(faults=(_COME_BACK,), pause=600.0), Step(), extras={"answer_timeout": 5.0}
    ),
    # One after the other: at the same time the second may find the file in flight, and hear of no pause.
    _scenario(
        "a long pause for mapped tasks",
        Step(faults=(_COME_BACK,), pause=600.0, together=False),
        Step(),
        kind="mapped",
        extras={"answer_timeout": 5.0},
    ),
    _scenario("equal bytes", Step(), Step(again="new run"), files=_EQUAL),
    _scenario("equal bytes, skipped", Step(), Step(again="new run"), files=_EQUAL, if_duplicate="skip"),
    _scenario("equal bytes, sent", Step(), Step(again="new run"), Step(), files=_EQUAL, if_duplicate="send"),
    _scenario(
        "equal bytes, killed with the second one's tail on its way",
        Step(deeds=_kill("byte", share=1.0, nth=2)),
        Step(),
        _LATER,
        files=_EQUAL,
        if_duplicate="send",
    ),
    _scenario(
        "equal bytes, killed after the second one's claim",
        Step(deeds=_kill("claimed", nth=2)),
        _LATER,
        files=_EQUAL,
        if_duplicate="send",
        blind=True,
    ),
    _scenario(
        "equal bytes, the first one's answer lost",
        Step(faults=(_LOST,)),
        Step(if_unknown="resend", again="new run"),
        files=_EQUAL,
        if_duplicate="send",
    ),
    _scenario(
        "equal bytes, the second one's answer lost",
        Step(faults=({**_LOST, "nth": 2},)),
        Step(if_unknown="resend", again="new run"),
        files=_EQUAL,
        if_duplicate="send",
    ),
    _scenario(
        "equal bytes, two at once", Step(sync="meet"), Step(), kind="two runs", files=_EQUAL, if_duplicate="send"
    ),
    _scenario(
        "equal bytes, everything again",
        Step(),
        Step(force=True, faults=({**_BUSY, "nth": 2, "times": 8},)),
        Step(force=True),
        files=_EQUAL,
        if_duplicate="send",
    ),
    _scenario("a month again", Step(again="backfill completed"), Step(again="backfill completed"), files=_THREE),
])  # fmt: skip


def scenario_of(seed: int | str) -> Scenario:
    """Return the scenario of a seed, or the directed one of that name."""
    return DIRECTED[seed] if isinstance(seed, str) else scenario(seed)
