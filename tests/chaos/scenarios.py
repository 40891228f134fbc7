"""What happens in a scenario, drawn from its seed: files, faults, kills, and in which order people re-run what."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import databases
from tests.chaos.saboteur import POINTS

ANSWER_TIMEOUT = 1.5
"""Seconds; a slow answer takes longer."""
AN_HOUR = 3600.0
"""Long enough for every claim to expire."""
KINDS = ("alone", "two runs", "mapped", "two connections", "two environments")
LYING = frozenset({"all-refused"})
"""An answer that refuses what was accepted: nobody can tell it from the truth."""


@dataclass(frozen=True)
class Deeds:
    """
    What happens to one attempt, besides the sandbox's faults.

    :param worker: entries of the saboteur's plan.
    """

    worker: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """
    One round: a try of each task.

    :param later: whether an hour has passed since the round before.
    :param if_unknown: what the person who starts it chose.
    :param force: whether that person wants everything sent again.
    :param together: whether two tasks run at the same time, or one after the other.
    :param sync: how two tasks at the same time are brought together: ``meet`` (both look up before one claims),
        ``order`` (the second runs while the first holds its claims), or left to chance.
    :param deeds: for the first and the second task.
    :param faults: of the sandbox.
    :param pause: seconds that Airflow is to wait before the next try, if that is to be checked.
    :param again: how a task that has ended is run again: clear, new run, backfill, or not at all.
    """

    later: bool = False
    if_unknown: str = "fail"
    force: bool = False
    together: bool = True
    sync: str | None = None
    deeds: tuple[Deeds, Deeds] = (Deeds(), Deeds())
    faults: tuple[dict[str, Any], ...] = ()
    again: str = "clear"
    pause: float | None = None


@dataclass(frozen=True)
class Scenario:
    """
    A whole scenario.

    :param seed: it all follows from this; a name for those that are not drawn.
    :param kind: which tasks there are; one of :data:`KINDS`.
    :param blind: whether the result endpoint knows nothing; then unknown files are settled by hand at the end.
    :param files: name and content of each file.
    :param if_duplicate: what is to become of equal bytes under another name; of files that then fail, people say in the
        end that they are known.
    :param overlap: whether the second task takes only some of the files.
    :param extras: of the connection.
    :param always: entries of every attempt's plan.
    :param steps: before the end, which is always: faults over, an hour later, run until everything is green.
    """

    seed: int | str
    kind: str = "alone"
    blind: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    if_duplicate: str = "fail"
    overlap: bool = False
    extras: dict[str, Any] = field(default_factory=dict)
    always: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        sizes = [len(content) for content in self.files.values()]
        knows = ", result endpoint knows nothing" * self.blind
        lines = [
            (
                f"seed {self.seed!r}: {self.kind}{knows}, if_duplicate={self.if_duplicate}, {len(sizes)} file(s) of "
                f"{min(sizes)} to {max(sizes)} bytes, {self.extras} {self.always}"
            )
        ]
        for number, step in enumerate(self.steps, 1):
            deeds = [d.worker for d in step.deeds if d.worker]
            how = f"if_unknown={step.if_unknown}{', force' * step.force}{', an hour later' * step.later}"
            lines.append(f"  {number}. {how}; worker: {deeds}; Amili: {list(step.faults)}; then {step.again}")
        return "\n".join(lines)


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    rng = random.Random(seed)
    kind = rng.choices(KINDS, (8, 4, 4, 2, 2))[0]
    blind = rng.random() < 0.4
    files = _files(rng, seed)
    extras: dict[str, Any] = {"answer_timeout": ANSWER_TIMEOUT, "connect_timeout": ANSWER_TIMEOUT}
    if rng.random() < 0.5:
        extras["max_files_per_request"] = rng.choice((1, 2, 3))
    if rng.random() < 0.4:
        extras["max_request_bytes"] = rng.choice((4_000, 100_000, 2_000_000))
    always: dict[str, Any] = {}
    if rng.random() < 0.3:
        always["remote"] = rng.choice((True, "stays"))
    if rng.random() < 0.5:
        always["sizes"] = rng.choice(("known", "forgotten"))
    steps = tuple(_step(rng, list(files), blind=blind) for _ in range(rng.choice((1, 2, 2, 3, 4))))
    return Scenario(
        seed=seed, kind=kind, blind=blind, files=files, overlap=rng.random() < 0.5, extras=extras, always=always,
        steps=steps, if_duplicate=rng.choice(("fail", "skip", "send")),
    )  # fmt: skip


def _files(rng: random.Random, seed: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(rng.choice((1, 1, 2, 3, 4, 6, 9))):
        size = rng.choices(
            (rng.randint(1, 3_000), rng.randint(90_000, 400_000), rng.randint(1_000_000, 3_000_000), 9_500_000),
            (60, 25, 12, 3),
        )[0]
        head = b"invoice %d of seed %d\n" % (number, seed)
        content = (head + rng.randbytes(max(0, size - len(head)))) if size > len(head) else head[:size]
        fate = rng.random()
        if fate < 0.06:
            content = b"REJECT: no such debtor\n" + content
        elif fate < 0.09:
            content = b"POISON " + content
        elif fate < 0.16 and files:
            content = rng.choice(list(files.values()))
        elif fate < 0.18:
            content = b""
        files[f"f{number}.csv"] = content
    return files


def _step(rng: random.Random, names: list[str], *, blind: bool) -> Step:
    deeds = (Deeds(_worker(rng, names)), Deeds(_worker(rng, names) if rng.random() < 0.6 else {}))
    return Step(
        later=rng.random() < 0.5,
        # An endpoint that knows nothing, and a person who has it sent again all the same: that is twice by request.
        if_unknown=rng.choice(("fail", "fail", "check") if blind else ("fail", "fail", "check", "resend")),
        force=rng.random() < 0.06,
        together=rng.random() < 0.75,
        sync=rng.choice((None, None, "meet", "order")),
        deeds=deeds,
        faults=tuple(_fault(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))),
        again=rng.choice(("clear", "clear", "new run", "backfill failed", "backfill completed", "backfill none")),
    )


def _worker(rng: random.Random, names: list[str]) -> dict[str, Any]:
    plan: dict[str, Any] = {}
    if rng.random() < 0.45:
        plan["kill"] = _kill(rng)
    if rng.random() < 0.2:
        plan["ledger"] = {
            "operations": rng.choice((["claim"], ["settle"], ["look_up"], ["claim", "settle"])),
            "nth": rng.choice((1, 1, 2, 2, 3, 4, 6)),
            "times": rng.choice((1, 2, 3, 6, 10_000)),
            "done": rng.random() < 0.4,
        }  # fmt: skip
    if rng.random() < 0.2:
        plan["database"] = {
            "how": rng.choice(databases.ALL),
            "at": rng.choice(("start", "looked up", "before commit", "before commit", "claimed", "after tail")),
            "nth": rng.choice((1, 1, 2, 2, 3, 4)),
            "times": rng.choice((1, 1, 2, 10_000)),
            "done": rng.random() < 0.5,
            "seconds": rng.choice((0.3, 1.0, 4.0)),
        }
    if rng.random() < 0.15:
        plan["storage"] = {
            "how": rng.choice(("list", "fail", "fail", "short", "hang")),
            "nth": rng.choice((1, 1, 2, 3, 5)),
            "times": rng.choice((1, 2, 10_000)),
            "share": rng.random(),
        }
    if rng.random() < 0.12:
        plan["change"] = {
            "path": rng.choice(names),
            "how": rng.choice(("grow", "edit")),
            "when": rng.choice(("reading", "sending")),
            "chunk": rng.choice((0, 0, 1, 2)),
        }
    return plan


def _kill(rng: random.Random) -> dict[str, Any]:
    at = rng.choice(POINTS)
    plan: dict[str, Any] = {"at": at, "nth": rng.choice((1, 1, 1, 2, 3))}
    if at == "moment":
        plan["seconds"] = rng.choice((0.001, 0.01, 0.03, 0.1, 0.3)) * (0.5 + rng.random())
        plan["gently"] = rng.random() < 0.4
    elif at == "byte":
        plan["share"] = rng.choice((rng.random(), 0.999, 1.0, 1.0))
    elif at == "ledger step":
        plan["nth"] = rng.randint(1, 40)
    return plan


def _fault(rng: random.Random) -> dict[str, Any]:
    drop = rng.choice(("reset", "close"))
    some = {"nth": rng.choice((1, 1, 2, 3)), "times": rng.choice((1, 1, 2, 4, None))}
    stage = rng.choice(("head", "body"))
    retry_after = {"headers": {"Retry-After": rng.choice(("0", "0", "600"))}}
    from amili_provider.sandbox.garbage import GARBAGE

    kinds: list[dict[str, Any]] = [
        {"on": "connection", "drop": drop, **some},
        {"on": "token", "drop": drop, **some},
        {"on": "token", "status": rng.choice((401, 429, 500, 503)), **some},
        {"on": "token", "body": rng.choice(("", "{", '{"access_token": 7}', "<html>")), **some},
        {"on": "upload", "drop": drop, "stage": "head", **some},
        {"on": "upload", "drop": drop, "stage": "body", **some},
        {"on": "upload", "drop": drop, "stage": "accepted", **some},
        {"on": "upload", "drop": drop, "after_bytes": rng.choice((1, 200, 5_000, 200_000, 1_500_000)), **some},
        {"on": "upload", "expire_tokens": True, **some},
        {"on": "upload", "status": 401, **some},
        {"on": "upload", "status": 429, "stage": stage, **retry_after, **some},
        {"on": "upload", "status": 503, "stage": rng.choice(("head", "body", "accepted")), **retry_after, **some},
        {"on": "upload", "status": rng.choice((302, 303, 304)), "stage": "accepted", **some},
        {"on": "upload", "status": rng.choice((400, 403, 422)), "garbage": "missing-file", **some},
        {"on": "upload", "status": rng.choice((403, 404, 413)), "garbage": "html", "stage": "body", **some},
        {"on": "upload", "status": rng.choice((400, 403, 404, 413, 415, 422)), **some},
        {"on": "upload", "status": rng.choice((302, 500, 502, 503, 504)), "stage": "head", **some},
        {"on": "upload", "status": rng.choice((202, 204, 408, 409, 500, 502, 503)), "stage": "accepted", **some},
        {"on": "upload", "status": rng.choice((202, 204, 408, 409, 500, 502, 503)), "stage": "body", **some},
        {"on": "upload", "garbage": rng.choice(sorted(set(GARBAGE) - LYING)), **some},
        {"on": "upload", "cut_answer_at": rng.choice((0, 1, 20, 100)), "drop": drop, **some},
        {"on": "upload", "trickle": 0.05, **some},
        {"on": "upload", "delay": 2 * ANSWER_TIMEOUT, "stage": rng.choice(("head", "body", "accepted")), **some},
        {"on": "upload", "delay": 0.2, "stage": rng.choice(("head", "body", "accepted")), **some},
        {"on": "result", "status": rng.choice((202, 204, 401, 404, 429, 500, 503)), **some},
        {"on": "result", "drop": drop, **some},
        {"on": "result", "body": rng.choice(("", "{", "[]", '{"files": []}')), **some},
    ]  # fmt: skip
    return rng.choice(kinds)
