"""
Attempts, as each ledger keeps them, and file ids.

**A file id** is 32 hex characters that say environment, client, file type and content. The same bytes in another
folder or from another storage are the same file. It goes to Amili as ``fileId`` and names the attempts, so it may never
change: ``tests/unit/test_ledger_identity.py`` holds golden values.

**Equal bytes under another name.** The name that Amili gets is part of an identity in one case only: Amili has accepted
the bytes under another name, and the user says that they are to be sent under this one, too (``if_duplicate="send"``).
What was accepted stays accepted. So the rule for every look-up, whatever the user says now: ask by content; if
the bytes were accepted, and under other names only, ask by content and name. No identity with a name in it exists of
bytes that were never accepted without.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from amili_provider.receipts import Outcome, Verdict, one_line
from amili_provider.storage.names import comparable

_LONGEST_REASON = 160
FORMAT = 1
"""The version of what is written; a ledger of a later one is refused."""


class AttemptState(StrEnum):
    """How far an attempt has come."""

    CLAIMED = "claimed"
    SETTLED = "settled"


class Origin(StrEnum):
    """Where the outcome of an attempt comes from."""

    DELIVERY = "delivery"
    """The answer to the upload, or its absence."""
    CHECK = "check"
    """Amili's result endpoint, asked later."""
    PERSON = "person"
    """A person who asked Amili."""
    ADOPTED = "adopted"
    """Delivered by other means, before this ledger was created."""


SETTLING_OUTCOMES = frozenset({Outcome.UPLOADED, Outcome.REJECTED, Outcome.UNKNOWN, Outcome.NOT_SENT})
"""What an attempt can end with. The others are about files that were never claimed."""


@dataclass(frozen=True, slots=True)
class Run:
    """
    Which task run this is, for claims and messages; an empty text is "not known".

    :param dag_id: which DAG.
    :param run_id: which run of it.
    :param task_id: which task.
    :param map_index: which of the mapped tasks, -1 if it is not mapped.
    :param try_number: which try of Airflow.
    :param chain: the same for all attempts of Airflow at one task run, another after a clear.
    """

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    chain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFacts:
    """
    What a claim says of its file and its task.

    :param file_type: as given to Amili.
    :param name: as given to Amili.
    :param source: where the file is, without secrets.
    :param size: bytes.
    :param sha256: hash of the content, 64 hex characters.
    :param run: which task run claims.
    :param request: which request of the task, to find it in the log.
    """

    file_type: str
    name: str
    source: str
    size: int
    sha256: str
    run: Run
    request: str = ""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """
    One attempt at one file. The store stamps its times; all else is said by who claims and settles it.

    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number.
    :param file_id: who the file is; see :mod:`amili_provider.ledger.attempts`.
    :param attempt: 1, 2, …
    :param owner: unguessable; whoever has it may settle this attempt.
    :param chain: the attempts of Airflow that belong together.
    :param state: ``claimed`` or ``settled``.
    :param outcome: what became of it; None while it is claimed.
    :param file_type: as given to Amili.
    :param name: as given to Amili.
    :param source: where the file was, without secrets.
    :param size: bytes.
    :param sha256: hash of the content, 64 hex characters.
    :param status: Amili's status.
    :param result: Amili's result.
    :param message: Amili's message, or ours.
    :param claimed_at: when the attempt was claimed. All times: UTC, ISO 8601, milliseconds, by the store's clock.
    :param expires_at: from when on a claim without an outcome is an unknown outcome.
    :param settled_at: when the outcome was written.
    :param uploaded_at: when Amili had accepted it.
    :param dag_id: which DAG.
    :param run_id: which run of it.
    :param task_id: which task.
    :param map_index: which of the mapped tasks, -1 if it is not mapped.
    :param try_number: which try of Airflow.
    :param host: on which machine.
    :param request: which request of the task, to find it in the log.
    :param origin: where the outcome comes from.
    :param settled_by: who settled it, if it was not the delivery.
    :param reason: why, in that person's words.
    :param resolves: attempts with an unknown outcome that this one settles.
    """

    environment: str
    client_no: str
    file_id: str
    attempt: int
    owner: str
    chain: str = ""
    state: AttemptState = AttemptState.CLAIMED
    outcome: Outcome | None = None
    file_type: str = ""
    name: str = ""
    source: str = ""
    size: int = 0
    sha256: str = ""
    status: str | None = None
    result: str | None = None
    message: str | None = None
    claimed_at: str = ""
    expires_at: str = ""
    settled_at: str | None = None
    uploaded_at: str | None = None
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    host: str = ""
    request: str = ""
    origin: Origin = Origin.DELIVERY
    settled_by: str | None = None
    reason: str | None = None
    resolves: tuple[int, ...] = ()

    def settle(self, verdict: Verdict) -> None:
        """
        Take *verdict* for the outcome; the store writes and dates it.

        :raises ValueError: if that is nothing an attempt can end as.
        """
        if verdict.outcome not in SETTLING_OUTCOMES:
            raise ValueError(f"an attempt cannot end as {verdict.outcome!s}")
        self.state, self.outcome = AttemptState.SETTLED, verdict.outcome
        self.status, self.result, self.message = verdict.status, verdict.result, verdict.message

    def stamp(self, now: float, seconds: float) -> None:
        """
        Date a new attempt.

        :param now: the store's time, seconds since the epoch.
        :param seconds: how long its claim lives.
        """
        self.claimed_at, self.expires_at = timestamp(now), timestamp(now + seconds)
        self.settled_at = None
        if self.state is AttemptState.SETTLED:
            self.stamp_settled(now)

    def stamp_settled(self, now: float) -> None:
        """Date the outcome; see :meth:`stamp`. The day of an acceptance that a person named stays."""
        self.settled_at = timestamp(now)
        if self.outcome is Outcome.UPLOADED:
            self.uploaded_at = self.uploaded_at or self.settled_at

    def is_live(self, now: float) -> bool:
        """Return whether this is a claim whose owner may still be sending."""
        return self.state is AttemptState.CLAIMED and self.expires_at > timestamp(now)

    @property
    def has_end(self) -> bool:
        """Whether it is known what became of it."""
        return self.outcome not in (None, Outcome.UNKNOWN)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self) | {"resolves": list(self.resolves)}

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
        if self.state is AttemptState.SETTLED:
            # Nothing is settled about a file whose outcome is not known.
            when = f"{'no verdict by' if self.outcome is Outcome.UNKNOWN else 'settled'} {self.settled_at}"
        outcome = f"{self.outcome}, " if self.outcome else ""
        return f"attempt {self.attempt} ({outcome}claimed {self.claimed_at}, {when}; {who or 'no run named'}{said})"


FIELDS = tuple(f.name for f in fields(Attempt))
TEXT_OR_NONE = frozenset({"status", "result", "message", "settled_at", "uploaded_at", "settled_by", "reason"})
NUMBERS = frozenset({"attempt", "size", "map_index", "try_number"})
_OTHER = frozenset({"state", "outcome", "origin", "resolves"})


def attempt_from(entries: Any) -> Attempt:
    """
    Return the attempt that :meth:`Attempt.as_dict` made *entries* of.

    :raises ValueError: if they are not a whole attempt; the message names the field.
    """
    if not isinstance(entries, Mapping):
        raise ValueError(f"it is a {type(entries).__name__}, not an object")  # noqa: TRY004 - of what is written
    values: dict[str, Any] = {name: entries.get(name) for name in FIELDS}
    for name, value in values.items():
        if name in NUMBERS:
            fits = isinstance(value, int) and not isinstance(value, bool)
        else:
            fits = name in _OTHER or isinstance(value, str) or (value is None and name in TEXT_OR_NONE)
        if not fits:
            raise ValueError(f"field {name!r} holds {type(value).__name__}")
    values["state"], values["origin"] = AttemptState(values["state"]), Origin(values["origin"])
    values["outcome"] = None if values["outcome"] is None else Outcome(values["outcome"])
    check_state(values["state"], values["outcome"])
    resolves = values["resolves"]
    if not isinstance(resolves, list) or not all(type(n) is int for n in resolves):
        raise ValueError("field 'resolves' is not a list of attempts")
    values["resolves"] = tuple(resolves)
    epoch(values["claimed_at"])
    epoch(values["expires_at"])
    return Attempt(**values)


@lru_cache(maxsize=64)
def check_state(state: AttemptState, outcome: Outcome | None) -> None:
    """Raise ValueError if an attempt cannot be in *state* with *outcome*."""
    if (state is AttemptState.SETTLED) != (outcome in SETTLING_OUTCOMES):
        raise ValueError(f"state {state!s} and outcome {outcome!s} contradict each other")


@lru_cache(maxsize=64)
def timestamp(now: float) -> str:
    """Return *now*, seconds since the epoch, as it is written: UTC, ISO 8601, milliseconds, always of one width."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch(written: str) -> float:
    """Return what :func:`timestamp` was given; ValueError if it is no time with a zone."""
    moment = datetime.fromisoformat(written)
    if moment.tzinfo is None:
        raise ValueError(f"time {written!r} has no time zone")
    return moment.timestamp()


FILE_ID_CHARACTERS = 32
_FILE_ID = re.compile(rf"[0-9a-f]{{{FILE_ID_CHARACTERS}}}")
_quoted = json.encoder.encode_basestring_ascii


def file_id(*, environment: str, client_no: str, file_type: str, sha256: str, name: str | None = None) -> str:
    """
    Return the identity of a file.

    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number; compared as text, without the blanks around it.
    :param file_type: compared without case.
    :param sha256: hash of the content, hex.
    :param name: as given to Amili, if it is part of the identity; compared as :func:`same_name` does.
    """
    text = f"{_target(environment, client_no, file_type)},{_quoted(sha256.strip().lower())}"
    if name is not None:
        text += f",{_quoted(comparable(name))}"
    # A JSON list cannot be read in two ways, whatever the parts contain.
    return hashlib.sha256(f"[{text}]".encode("ascii")).hexdigest()[:FILE_ID_CHARACTERS]


@lru_cache(maxsize=64)
def _target(environment: str, client_no: str, file_type: str) -> str:
    """Return what the identities of a run's files have in common."""
    parts = environment.strip().casefold(), client_no.strip(), file_type.strip().casefold()
    return ",".join(map(_quoted, parts))


def same_name(one: str, other: str) -> bool:
    """
    Return whether two names for Amili are one: without case, as Unicode NFC.

    :param one: a name; an empty one is not known (its attempt could not be read), and contradicts none.
    :param other: another.
    """
    return not one or not other or comparable(one) == comparable(other)


def is_file_id(text: str) -> bool:
    """Return whether *text* can be a file's identity."""
    return _FILE_ID.fullmatch(text) is not None
