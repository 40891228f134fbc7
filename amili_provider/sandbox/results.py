"""What the sandbox says when it is asked later: about one file, or about one batch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

NO_BATCH = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One answer of a script.

    :param status: the word ``status``.
    :param result: the word ``result``.
    :param message: the words of the message.
    :param http: the HTTP status; one of 400 and above has only the message.
    """

    status: str | None = None
    result: str | None = None
    message: str | None = None
    http: int = 200


QUEUED = Step("QUEUED", None, "File is queued")
CREATED = Step("PROCESSED", "CREATED", "File uploaded")
FAILED = Step("FAILED", "REJECTED", "File refused")
UNKNOWN = Step(message="No such file", http=404)
WORKING = Step("QUEUED", None, "Batch is being processed", http=202)
PARTLY = Step("PARTIAL", None, "Batch is partly processed", http=206)
DONE = Step("PROCESSED", "CREATED", "Batch is processed")
NO_SUCH_BATCH = Step(message="No such batch", http=404)

_BY_NAME = {
    "queued": QUEUED,
    "created": CREATED,
    "failed": FAILED,
    "unknown": UNKNOWN,
    "working": WORKING,
    "partly": PARTLY,
    "done": DONE,
}


def as_step(said: Step | str | int | dict[str, Any]) -> Step:
    """
    Return *said* as a step.

    :param said: a step, a name (``queued``, ``created``, ``failed``, ``unknown``, ``working``, ``partly``,
        ``done``), an HTTP status, or the fields of a step.
    """
    if isinstance(said, Step):
        return said
    if isinstance(said, str):
        if said not in _BY_NAME:
            raise ValueError(f"a step must be one of {', '.join(_BY_NAME)}, not {said!r}")
        return _BY_NAME[said]
    if isinstance(said, dict):
        return Step(**said)
    by_code = {200: DONE, 202: WORKING, 206: PARTLY}
    return by_code.get(said) or Step(message=f"Answer {said} by script", http=said)


class Scripts:
    """
    Answers by script, each asked for once, the last one for ever.

    Ids are compared without case. The script of ``*`` serves ids that have none of their own, each from its
    beginning.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: dict[str, tuple[Step, ...]] = {}
        self._asked: dict[str, int] = {}

    def set(self, wanted_id: str, *steps: Step | str | int | dict[str, Any]) -> None:
        """
        Say what the next answers about an id are.

        :param wanted_id: a file's id, a batch's uuid, or ``*``.
        :param steps: see :func:`as_step`; the last one is repeated.
        """
        if not steps:
            raise ValueError("a script has at least one step")
        with self._lock:
            self._scripts[wanted_id.casefold()] = tuple(as_step(s) for s in steps)
            self._asked.pop(wanted_id.casefold(), None)

    def next(self, wanted_id: str) -> Step | None:
        """Return the next answer about an id, or None if no script says."""
        wanted_id = wanted_id.casefold()
        with self._lock:
            script = self._scripts.get(wanted_id, self._scripts.get("*"))
            if script is None:
                return None
            asked = self._asked.get(wanted_id, 0)
            self._asked[wanted_id] = asked + 1
            return script[min(asked, len(script) - 1)]

    def clear(self) -> None:
        """Forget all scripts."""
        with self._lock:
            self._scripts.clear()
            self._asked.clear()
