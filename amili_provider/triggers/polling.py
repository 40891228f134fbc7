"""
The rules of a wait: poll until all is settled, or the time is up; and the event that ends it.

:class:`Wait` neither asks nor waits. A trigger follows its steps on the event loop, and a task with the blocking client
(:mod:`amili_provider.triggers.clients`), so that poke, reschedule and deferrable mode cannot differ. The event crosses
a database and perhaps an upgrade of this package: it is typed, versioned, and checked again when it arrives.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from amili_provider.api.results import Meaning
from amili_provider.api.transport import LONGEST_WAIT_SECONDS
from amili_provider.exceptions import (
    AmiliArgumentError,
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliRequestError,
    AmiliResponseError,
)
from amili_provider.receipts import one_line
from amili_provider.triggers.amili import MOST_FAILURES, Pace, Time
from amili_provider.triggers.questions import Key, ResultStatus, is_doubtful

log = logging.getLogger(__name__)
Answers = dict[Key, ResultStatus | AmiliError]
"""What came of the keys that were asked for."""
Steps = Generator[list[Key] | float, Answers, "Polled"]
VERSION: Literal[1] = 1
"""Raised whenever an older sensor would misunderstand a newer trigger."""
_ERRORS: dict[str, type[AmiliError]] = {
    cls.__name__: cls
    for cls in (
        AmiliArgumentError,
        AmiliAuthenticationError,
        AmiliConnectionError,
        AmiliRequestError,
        AmiliResponseError,
    )
}
_MOST_NAMED, _MOST_GROUPS = 3, 10
CLEAR = "Nothing is assumed: the task fails, and a retry asks Amili again."


class Polled(Enum):
    """How a poll ended."""

    SETTLED = "everything has a final result"
    OPEN = "something has none yet"
    TIME_IS_UP = "something has none, and there is no time left to try a failed poll again"


class Wait:
    """
    Files or batches whose results are waited for.

    One poll asks for everything that is open, a few at a time, and never again for what is settled. A poll
    that fails for a transient cause is tried again here, within the poll, and not counted over several polls: a
    sensor in reschedule mode keeps no memory between its pokes, and all modes are to end alike.

    :param keys: what to wait for; each is asked for once per poll.
    :param pace: the intervals.
    :param deadline: when there is no time left, in seconds since the epoch; None if nobody knows.
    :param time: the clock.
    :param attempts: how often a poll is tried in a row.
    :param forgets: whether whoever polls comes back later, and remembers nothing then: it is not to wait for long when
        Amili says when (``Retry-After``), :attr:`not_before` is that moment, and a refusal is not to be put off.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        pace: Pace,
        *,
        deadline: float | None = None,
        time: Time | None = None,
        attempts: int = MOST_FAILURES,
        forgets: bool = False,
    ) -> None:
        self.not_before: float | None = None
        """When Amili wants to be asked again, in seconds since the epoch; None if it said nothing."""
        self.forgets = forgets
        self._open: dict[Key, str | None] = dict.fromkeys(keys)
        self._settled: dict[Key, Settled] = {}
        self._pace = pace
        self._deadline = deadline
        self.time = time or Time()
        self._attempts = attempts

    @property
    def settled(self) -> list[Settled]:
        """What has a final result."""
        return list(self._settled.values())

    @property
    def open(self) -> list[Open]:
        """What has none."""
        return [Open(client_no=no, id=wanted, said=said) for (no, wanted), said in self._open.items()]

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._deadline is not None and self.time.now() >= self._deadline

    def poll(self) -> Steps:
        """
        Ask once for everything that is open, in steps that block nothing: whoever follows them asks and waits.

        A step is the keys to ask for, and is answered with what came of each; once one has failed, no more need be
        asked. Or it is a number of seconds to wait.

        :returns: a generator of steps, which returns how the poll ended.
        :raises AmiliConnectionError: if it failed for transient causes as often as it may.
        :raises AmiliPermanentError: if asking is of no use.
        """
        unanswered = asked = list(self._open)
        failures = 0
        while unanswered:
            given = yield unanswered
            answers = {key: given[key] for key in unanswered if key in given}  # in whichever order they came
            troubles = [answer for answer in answers.values() if isinstance(answer, AmiliError)]
            for key, answer in answers.items():
                if isinstance(answer, ResultStatus):
                    self._take(key, answer)
            unanswered = [key for key in unanswered if not isinstance(answers.get(key), ResultStatus)]
            if not troubles:
                break
            trouble = next((one for one in troubles if not is_transient(one)), troubles[0])
            # What was answered meanwhile shows that asking is of use, and so does a long pause that Amili asks for.
            pause = getattr(trouble, "retry_after", None) or 0.0
            if len(troubles) < len(answers):
                failures = 1
            elif pause <= LONGEST_WAIT_SECONDS:
                failures += 1
            if not is_transient(trouble) or max(failures, 1) >= self._attempts:
                if failures > 1:
                    trouble.message += f" {failures} attempts in a row failed like this."
                raise trouble
            # What this poll has heard would be asked for again, and what it has not heard perhaps never.
            gives_back = self.forgets and pause > LONGEST_WAIT_SECONDS and len(unanswered) == len(asked)
            if not (yield from self._paused(trouble, max(failures, 1), unanswered, gives_back=gives_back)):
                return Polled.TIME_IS_UP
            if self.not_before is not None:
                return Polled.OPEN
        return Polled.OPEN if self._open else Polled.SETTLED

    def _paused(
        self, trouble: AmiliError, failures: int, unanswered: Iterable[Key], *, gives_back: bool
    ) -> Generator[float, Any, bool]:
        """Wait before the next attempt; False if the time is up first."""
        asked = getattr(trouble, "retry_after", None)
        wait = self._pace.after_failure(failures, asked, self.time.random())
        left = None if self._deadline is None else self._deadline - self.time.now()
        late = left is not None and left <= wait
        then = "No time is left for another one." if late else f"The next attempt is in {wait:.0f} s."
        told = "Asking Amili for results failed (%s of %s attempts): %s %s"
        log.warning(told, failures, self._attempts, trouble.message, then)
        if late or gives_back:
            self._open.update(dict.fromkeys(unanswered, one_line(f"the last question failed: {trouble.message}")))
        if late:
            yield 0.0 if gives_back else max(left or 0.0, 0.0)
            return False
        if gives_back:
            self.not_before = self.time.now() + wait
            return True
        yield wait
        return True

    def _take(self, key: Key, said: ResultStatus) -> None:
        if said.meaning in (Meaning.ACCEPTED, Meaning.REFUSED):
            del self._open[key]
            if said.meaning is Meaning.REFUSED and self._open and not self.forgets:
                log.warning("Amili refused %s (%s). The others are waited for.", key[1], said.words)
            self._settled[key] = Settled(
                client_no=key[0],
                id=key[1],
                meaning="accepted" if said.meaning is Meaning.ACCEPTED else "refused",
                status=said.status,
                result=said.result,
                message=said.message,
            )
        else:
            self._open[key] = said.words


def still_open(waiting: Sequence[Open], settled: Sequence[Settled], names: Mapping[str, str]) -> str:
    """
    Return what has no final result, and what Amili says of it, as one line for a log.

    :param names: of what is waited for, by id, as far as they are known.
    """
    refused = sum(one.meaning == "refused" for one in settled)
    counted = f"{len(waiting)} of {len(waiting) + len(settled)} without a final result"
    return f"{counted}{f', {refused} refused' if refused else ''}: {grouped(waiting, names)}"


def grouped(waiting: Sequence[Open], names: Mapping[str, str]) -> str:
    """Return names by what Amili said last, the commonest words first; a few names each."""
    groups: dict[str, list[str]] = {}
    for one in waiting:
        groups.setdefault(one.said or "no final answer", []).append(names.get(one.id, one.id))
    commonest = sorted(groups.items(), key=lambda group: -len(group[1]))
    shown = [
        f"{', '.join(some[:_MOST_NAMED])}{f' and {len(some) - _MOST_NAMED} more' * (len(some) > _MOST_NAMED)} ({said})"
        for said, some in commonest[:_MOST_GROUPS]
    ]
    rest = sum(len(some) for _, some in commonest[_MOST_GROUPS:])
    return "; ".join(shown) + (f"; and {rest} more" if rest else "")


def is_transient(error: AmiliError) -> bool:
    """Return whether another attempt at the same poll may help."""
    return isinstance(error, AmiliConnectionError) or is_doubtful(error)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Settled(_Strict):
    """A final result."""

    client_no: str
    id: str
    """The file's id, or the batch's uuid."""
    meaning: Literal["accepted", "refused"]
    status: str | None = None
    """Amili's words, each as one safe line."""
    result: str | None = None
    message: str | None = None


class Open(_Strict):
    """What has no final result."""

    client_no: str
    id: str
    said: str | None = None
    """What Amili said last, as one safe line."""


class WaitEvent(_Strict):
    """How a wait ended."""

    version: Literal[1] = VERSION
    ending: Literal["settled", "timed_out", "failed"]
    """Everything has a final result; the time is up; or asking further is of no use."""
    settled: list[Settled] = []
    open: list[Open] = []
    error: (
        Literal[
            "AmiliArgumentError",
            "AmiliAuthenticationError",
            "AmiliConnectionError",
            "AmiliRequestError",
            "AmiliResponseError",
        ]
        | None
    ) = None
    """The class of the error that ended the wait."""
    message: str = ""
    """Its message."""
    status_code: int | None = None
    """The HTTP status it comes from."""

    def payload(self) -> dict[str, Any]:
        """Return the event as plain JSON, for Airflow."""
        return self.model_dump(mode="json")

    def raise_error(self) -> NoReturn:
        """Raise the error that ended the wait, as it was raised where the asking was done."""
        cls = _ERRORS.get(self.error or "")
        if cls is None:
            raise AmiliError(f"The trigger failed without saying why. {CLEAR}")
        raise cls(self.message, **({} if self.status_code is None else {"status_code": self.status_code}))


def failed(error: AmiliError, settled: list[Settled], still_open: list[Open]) -> WaitEvent:
    """Return the event for *error*, one of those that asking for results can raise."""
    return WaitEvent.model_validate(
        {
            "ending": "failed",
            "settled": settled,
            "open": still_open,
            "error": type(error).__name__,
            "message": error.message,
            "status_code": getattr(error, "status_code", None),
        }
    )


def read_event(payload: Any) -> WaitEvent:
    """
    Return what a trigger said.

    :param payload: what Airflow hands over; None if there is nothing.
    :raises AmiliError: if it is not understood. That is no verdict about any file, so Airflow may retry.
    """
    try:
        return WaitEvent.model_validate(payload)
    except ValidationError as reason:
        # The input is not repeated: an event that is not understood may hold anything.
        fields = sorted({".".join(str(step) for step in error["loc"]) or "event" for error in reason.errors()})
        raise AmiliError(
            f"The trigger's event is not understood (see {', '.join(fields)[:200]}); worker and triggerer may "
            f"run different versions of airflow-provider-amili. {CLEAR}"
        ) from None
