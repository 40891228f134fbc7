"""
Receipts as they lie in the ledger: JSON that a person can read, and that is believed only if it is whole.

A receipt is written when an attempt is claimed and once more when it is settled. Anything that cannot be read
as a whole receipt of this format (torn by a kill, edited by hand, written by a later version) is a
:class:`TornReceipt`: it counts as "unknown" for its file, and for no other.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from amili_provider.models import Outcome, one_line

_LONGEST_REASON = 160
FORMAT = 1
"""Raised when a reader of today could misunderstand what is written."""


class RecordState(StrEnum):
    """How far an attempt has come."""

    CLAIMED = "claimed"
    SETTLED = "settled"


class Origin(StrEnum):
    """Where the outcome of a receipt comes from."""

    DELIVERY = "delivery"
    """The answer to the upload, or its absence."""
    CHECK = "check"
    """Amili's result endpoint, asked later."""
    PERSON = "person"
    """Somebody who looked at the other side."""
    ADOPTED = "adopted"
    """Delivered by other means, before this ledger was begun."""


SETTLING_OUTCOMES = frozenset({Outcome.UPLOADED, Outcome.REJECTED, Outcome.UNKNOWN, Outcome.NOT_SENT})
"""What an attempt can end with. The others are about files that were never claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReceipt:
    """
    One attempt at one file. The order of the fields is their order in the JSON.

    :param format: version of what is written.
    :param file_id: who the file is; see :mod:`amili_provider.ledger.identity`.
    :param attempt: 1, 2, …; part of the receipt's name.
    :param chain: the attempts of Airflow that belong together; early in the text, so that a torn receipt
        still tells.
    :param state: ``claimed`` or ``settled``.
    :param outcome: what became of it; None while it is claimed.
    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number.
    :param file_type: as given to Amili.
    :param name: as given to Amili.
    :param source: where the file was, without secrets.
    :param size: bytes.
    :param sha256: hash of the content.
    :param status: Amili's status.
    :param result: Amili's result.
    :param message: Amili's message, or ours.
    :param claimed_at: when the attempt was claimed, UTC.
    :param expires_at: from when on a claim without a verdict is an unknown outcome, UTC.
    :param settled_at: when the outcome was written, UTC.
    :param uploaded_at: when Amili had accepted it, UTC.
    :param dag_id: which DAG.
    :param run_id: which run of it.
    :param task_id: which task.
    :param map_index: which of the mapped tasks, -1 if it is not mapped.
    :param try_number: which try of Airflow.
    :param host: on which machine.
    :param request: which request of the task, to find it in the log.
    :param owner: unguessable; who may rewrite this receipt.
    :param origin: where the outcome comes from.
    :param settled_by: who settled it, if it was not the delivery.
    :param reason: why, in that person's words.
    :param resolves: attempts with an unknown outcome that this receipt settles.
    """

    format: int = FORMAT
    file_id: str
    attempt: int
    chain: str
    state: RecordState
    outcome: Outcome | None = None
    environment: str
    client_no: str
    file_type: str
    name: str
    source: str
    size: int
    sha256: str
    status: str | None = None
    result: str | None = None
    message: str | None = None
    claimed_at: str
    expires_at: str
    settled_at: str | None = None
    uploaded_at: str | None = None
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    host: str = ""
    request: str = ""
    owner: str
    origin: Origin = Origin.DELIVERY
    settled_by: str | None = None
    reason: str | None = None
    resolves: tuple[int, ...] = ()

    def is_live(self, now: float) -> bool:
        """Return whether this is a claim whose owner may still be sending."""
        return self.state is RecordState.CLAIMED and epoch(self.expires_at) > now

    def to_json(self) -> bytes:
        """Return the receipt as it is written."""
        entries = {name: getattr(self, name) for name in _FIELDS}
        # One field a line, much as ``indent`` would write it, which is done in Python and costs more than twice that.
        return f"{{\n  {_as_text(entries)[1:-1]}\n}}\n".encode()

    def in_short(self) -> str:
        """Return what came of this attempt, then its day and run, as a part of a sentence; the rest is the ledger's."""
        words = "/".join(w for w in (self.status, self.result) if w)
        said = one_line(": ".join(w for w in (words, self.message) if w) or "no answer recorded", _LONGEST_REASON)
        run = f"DAG {self.dag_id}, run {self.run_id}" if self.dag_id else "no run of Airflow"
        return f"{said.rstrip('.')} ({self.claimed_at[:10]}, {run})"

    def describe(self) -> str:
        """Return who made this attempt and what is known of it, as a part of a sentence."""
        who = ", ".join(
            f"{label} {value}"
            for label, value in (
                ("DAG", self.dag_id),
                ("run", self.run_id),
                ("task", self.task_id),
                ("map index", self.map_index if self.map_index >= 0 else ""),
                ("try", self.try_number if self.dag_id else ""),
                ("host", self.host),
                ("request", self.request),
            )
            if value != ""
        )
        words = "/".join(w for w in (self.status, self.result) if w)
        said = f"; {words}" if words else ""
        said += f"; {self.message}" if self.message else ""
        if self.settled_by:
            said += f"; settled by {self.settled_by}" + (f": {self.reason}" if self.reason else "")
        when = "no answer recorded"
        if self.state is RecordState.SETTLED:
            # Nothing is settled about a file whose outcome is not known.
            when = f"{'no verdict by' if self.outcome is Outcome.UNKNOWN else 'settled'} {self.settled_at}"
        outcome = f"{self.outcome}, " if self.outcome else ""
        who = who or "no run named"
        return f"attempt {self.attempt} ({outcome}claimed {self.claimed_at}, {when}; {who}{said})"


@dataclass(frozen=True, slots=True)
class TornReceipt:
    """
    A receipt that cannot be read: its file's outcome is unknown.

    :param attempt: taken from its name.
    :param why: what is wrong with it.
    :param chain: the chain of attempts, if the text got that far.
    """

    attempt: int
    why: str
    chain: str | None = None

    def in_short(self) -> str:
        """Return what is known of it, as a part of a sentence."""
        return self.describe()

    def describe(self) -> str:
        """Return what is known of it, as a part of a sentence."""
        return f"attempt {self.attempt} (its receipt cannot be read: {self.why})"


_CHAIN_LINE = re.compile(r'^  "chain": ("(?:[^"\\]|\\.)*"),$', re.MULTILINE)
_TEXT = frozenset({
    "file_id", "chain", "environment", "client_no", "file_type", "name", "source", "sha256", "claimed_at",
    "expires_at", "dag_id", "run_id", "task_id", "host", "request", "owner",
})  # fmt: skip
_TEXT_OR_NONE = frozenset({
    "status", "result", "message", "settled_at", "uploaded_at", "settled_by", "reason",
})  # fmt: skip
_NUMBERS = frozenset({"format", "attempt", "size", "map_index", "try_number"})
_as_text = json.JSONEncoder(ensure_ascii=False, separators=(",\n  ", ": ")).encode
_FIELDS = tuple(f.name for f in fields(LedgerReceipt))


def parse(data: bytes, *, file_id: str, attempt: int) -> LedgerReceipt | TornReceipt:
    """
    Read a receipt.

    :param data: what lies in the ledger.
    :param file_id: the id in the receipt's name; another one inside means that the receipt is not to be
        believed.
    :param attempt: the attempt in the receipt's name.
    """
    try:
        text = data.decode()
        entries = json.loads(text)
    except ValueError as error:
        why = "it is empty" if not data.strip() else f"it is not whole JSON ({error})"
        return TornReceipt(attempt, why, _salvaged_chain(data))
    try:
        receipt = _checked(entries)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        chain = entries.get("chain") if isinstance(entries, dict) else None
        why = f"no field {error}" if isinstance(error, KeyError) else str(error)
        return TornReceipt(attempt, why, chain if isinstance(chain, str) else None)
    if (receipt.file_id, receipt.attempt) != (file_id, attempt):
        return TornReceipt(attempt, f"it says file {receipt.file_id}, attempt {receipt.attempt}", receipt.chain)
    return receipt


def _salvaged_chain(data: bytes) -> str | None:
    found = _CHAIN_LINE.search(data.decode(errors="ignore"))
    try:
        return str(json.loads(found[1])) if found else None
    except ValueError:
        return None


def _checked(entries: dict[str, Any]) -> LedgerReceipt:
    if entries["format"] != FORMAT:
        raise ValueError(f"format {entries['format']!r} is not known to this version")
    values: dict[str, Any] = {name: entries[name] for name in _FIELDS}
    for name, value in values.items():
        if name in _TEXT or name in _TEXT_OR_NONE:
            if not (isinstance(value, str) or (value is None and name in _TEXT_OR_NONE)):
                raise TypeError(f"field {name!r} is not text")
        elif name in _NUMBERS and (not isinstance(value, int) or isinstance(value, bool)):
            raise TypeError(f"field {name!r} is not a number")
    values["state"] = RecordState(values["state"])
    values["origin"] = Origin(values["origin"])
    values["outcome"] = None if values["outcome"] is None else Outcome(values["outcome"])
    if (values["state"] is RecordState.SETTLED) != (values["outcome"] in SETTLING_OUTCOMES):
        raise ValueError(f"state {values['state']!s} and outcome {values['outcome']!s} contradict each other")
    resolves = values["resolves"]
    if not isinstance(resolves, list) or not all(type(n) is int for n in resolves):
        raise TypeError("field 'resolves' is not a list of attempts")
    values["resolves"] = tuple(resolves)
    epoch(values["expires_at"])
    return LedgerReceipt(**values)


def timestamp(now: float) -> str:
    """Return *now* as it is written: UTC, ISO 8601, milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch(written: str) -> float:
    """Return what :func:`timestamp` was given."""
    moment = datetime.fromisoformat(written)
    if moment.tzinfo is None:
        raise ValueError(f"time {written!r} has no time zone")
    return moment.timestamp()
