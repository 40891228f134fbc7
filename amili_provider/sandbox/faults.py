"""Faults by script: which request suffers, when, and what happens to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from amili_provider.sandbox.garbage import GARBAGE

KINDS = ("token", "upload", "list", "result", "batch", "health", "connection", "any")
STAGES = ("head", "body", "accepted")
DROPS = ("reset", "close")


@dataclass
class Fault:
    """
    One scripted fault. Without an action it only counts the requests that it takes.

    **Which request.** Faults are asked in the order in which they were added. The first that applies takes
    the request, and those after it do not count it; so two faults added one after the other happen one after
    the other.

    **When.** ``stage="head"``: before the body is read. ``"body"``: after the whole body was read, nothing of
    it accepted. ``"accepted"``: after it was accepted and written down. Unless given: ``head`` for a drop,
    ``body`` for a status, ``accepted`` for everything else.

    :param on: kind of the request: token, upload, list, result, batch, health, any; or connection (then only
        a drop, before a single byte is read).
    :param nth: the n-th such request from now on, 1 the next.
    :param times: how many from there on; None for all.
    :param path: text that the path must contain.
    :param stage: see above.
    :param after_bytes: act when this many bytes of the body were read (a drop or a delay; nothing is
        accepted).
    :param delay: seconds to wait before the answer or the drop.
    :param status: answer with this status.
    :param headers: and these headers, for example ``Retry-After``.
    :param body: and this body; text, or anything that JSON can say.
    :param garbage: name of a nonsensical answer, one of :data:`amili_provider.sandbox.garbage.GARBAGE`.
    :param drop: end the connection: ``reset`` (RST) or ``close`` (FIN).
    :param cut_answer_at: send this many bytes of the answer's body, then end the connection (by ``drop``,
        else close).
    :param trickle: send the answer byte by byte, this many seconds apart.
    :param expire_tokens: first make every token invalid, so that the request meets 401.
    """

    on: str = "upload"
    nth: int = 1
    times: int | None = 1
    path: str = ""
    stage: str | None = None
    after_bytes: int | None = None
    delay: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    garbage: str | None = None
    drop: str | None = None
    cut_answer_at: int | None = None
    trickle: float = 0.0
    expire_tokens: bool = False
    number: int = 0
    """Set when it is added."""
    seen: int = 0
    """Matching requests that came as far as this fault."""
    hits: int = 0
    """Requests that it took."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("on", self.on, KINDS),
            ("stage", self.stage, (None, *STAGES)),
            ("drop", self.drop, (None, *DROPS)),
            ("garbage", self.garbage, (None, *GARBAGE)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(str(a) for a in allowed if a)}, not {value!r}")
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise ValueError("nth and times count from 1")
        if self.on == "connection" and not self.drop:
            raise ValueError("a fault on a connection can only drop it: drop='reset' or 'close'")
        if self.after_bytes is not None and not (self.drop or self.delay):
            raise ValueError("after_bytes needs a drop or a delay")
        if self.stage is None:
            self.stage = self._natural_stage()

    def _natural_stage(self) -> str:
        if self.expire_tokens or (self.drop and self.cut_answer_at is None):
            return "head"
        return "body" if self.status is not None and self.garbage is None else "accepted"

    @property
    def replaces_answer(self) -> bool:
        """Whether the ordinary answer is not given."""
        return self.status is not None or self.body is not None or self.garbage is not None

    def _applies(self, kind: str, path: str) -> bool:
        alike = self.on == kind or (self.on == "any" and kind != "connection")
        return alike and self.path in path

    def _takes_next(self) -> bool:
        self.seen += 1
        late_enough = self.seen >= self.nth
        return late_enough and (self.times is None or self.seen < self.nth + self.times)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON."""
        return asdict(self)


class Faults:
    """The faults of a sandbox, in the order in which they were added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._numbers = 0

    def add(self, on: str = "upload", **action: Any) -> Fault:
        """
        Add a fault.

        :param on: see :class:`Fault`, as for all that follows.
        :returns: the fault; its ``hits`` counts the requests that it took.
        """
        known = {f.name for f in fields(Fault)} - {"number", "seen", "hits"}
        if unknown := sorted(set(action) - known):
            raise ValueError(f"a fault has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        fault = Fault(on=on, **action)
        with self._lock:
            self._numbers += 1
            fault.number = self._numbers
            self._faults.append(fault)
        return fault

    def take(self, kind: str, path: str) -> Fault | None:
        """Return the fault that takes this request, if one does."""
        with self._lock:
            for fault in self._faults:
                if fault._applies(kind, path) and fault._takes_next():  # noqa: SLF001 - its own class
                    fault.hits += 1
                    return fault
        return None

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._faults.clear()

    def __iter__(self) -> Any:
        return iter(list(self._faults))

    def __len__(self) -> int:
        return len(self._faults)
