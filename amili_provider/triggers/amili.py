"""
The triggers of the sensors: their arguments, their clock, the intervals between polls.

Airflow imports a trigger's module on the event loop; so this one imports little.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from amili_provider.api.results import Vocabulary
    from amili_provider.triggers.questions import Key, Question


MOST_FAILURES = 10
"""A poll that fails for a transient cause is tried this often in a row: with the waits below, for six minutes."""
SHORTEST_WAIT_SECONDS = 1.0
"""Whatever the interval says: nobody is asked more often than this."""
_FIRST_FAILURE_WAIT_SECONDS = 5.0
_LONGEST_FAILURE_WAIT_SECONDS = 60.0
_JITTER = (0.02, 0.12)
"""A little slower than asked for, never faster: 60 polls an hour at 60 seconds, both ends included."""


class Time(NamedTuple):
    """
    The clock, the waiting and the chance of a wait; tests hand in their own.

    :param now: seconds since the epoch.
    :param sleep: waits without blocking the event loop.
    :param random: gives numbers from 0 to 1.
    :param pause: waits in a task.
    """

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    pause: Callable[[float], object] = time.sleep


class Pace(NamedTuple):
    """
    The intervals between polls, as a sensor's arguments say.

    :param poke_interval: seconds.
    :param exponential_backoff: whether intervals grow with the time that has passed.
    :param max_wait: seconds; None for no bound.
    """

    poke_interval: float
    exponential_backoff: bool = False
    max_wait: float | None = None

    def interval(self, waited: float, random: float) -> float:
        """
        Return the seconds until the next poll.

        With exponential back-off, Airflow doubles the interval with every poke, so that it is about as long
        as the wait so far. Written like this it needs no counter, and survives a restart of the triggerer.

        :param waited: seconds since the first poll.
        :param random: from 0 to 1.
        """
        if not self.exponential_backoff:
            low, high = _JITTER
            return max(self.poke_interval, SHORTEST_WAIT_SECONDS) * (1 + low + (high - low) * random)
        shortest = max(waited + self.poke_interval / 2, SHORTEST_WAIT_SECONDS)
        interval = shortest * (1 + random)
        return interval if self.max_wait is None else min(interval, max(self.max_wait, SHORTEST_WAIT_SECONDS))

    def first_interval(self, waited: float, random: float) -> float:
        """
        Return the seconds until the first poll of a trigger, whose sensor has asked before.

        After a restart the interval has passed already; then the polls of all triggers are spread over one.
        """
        left = self.interval(0.0, random) - waited
        return left if left > 0 else max(self.poke_interval, SHORTEST_WAIT_SECONDS) * random

    def after_failure(self, failures: int, asked: float | None, random: float) -> float:
        """
        Return the seconds until a poll that failed is tried again.

        :param failures: in a row, 1 for the first.
        :param asked: what Amili asked for (``Retry-After``): never shortened.
        :param random: from 0 to 1.
        """
        grown = _FIRST_FAILURE_WAIT_SECONDS * 2.0 ** (failures - 1)
        longest = max(min(self.poke_interval, _LONGEST_FAILURE_WAIT_SECONDS), SHORTEST_WAIT_SECONDS)
        return max(min(grown, longest) * (0.9 + 0.1 * random), SHORTEST_WAIT_SECONDS, asked or 0.0)


class AmiliTrigger(BaseTrigger):
    """
    Waits for results in the triggerer. It only asks; it never uploads, so that running twice does no harm.

    Its sensor asks as it says, too. Its arguments are stored in Airflow's database: ids, numbers and words, never a
    secret or a file's content.

    :param amili_conn_id: the connection.
    :param poke_interval: seconds between polls.
    :param started_at: when the sensor asked first, in seconds since the epoch.
    :param deadline: when the time is up, likewise: absolute, so that a restart does not begin anew.
    :param exponential_backoff: whether the intervals grow.
    :param max_wait: the longest interval, in seconds.
    :param silent_fail: whether polls that fail for transient causes never end the wait.
    :param accepted_results: words that mean accepted, instead of the connection's.
    :param refused_results: words that mean refused, besides the connection's.
    :param pending_results: words that mean "not yet", instead of the connection's.
    :param not_before: when Amili wants to be asked again, in seconds since the epoch; None if it said nothing.
    """

    time: ClassVar[Time] = Time()
    """The clock; tests put their own here."""

    def __init__(
        self,
        *,
        amili_conn_id: str,
        poke_interval: float,
        started_at: float,
        deadline: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        silent_fail: bool = False,
        accepted_results: Sequence[str] | str | None = None,
        refused_results: Sequence[str] | str | None = None,
        pending_results: Sequence[str] | str | None = None,
        not_before: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.amili_conn_id = amili_conn_id
        self.poke_interval = poke_interval
        self.started_at = started_at
        self.deadline = deadline
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.silent_fail = silent_fail
        self.accepted_results = accepted_results
        self.refused_results = refused_results
        self.pending_results = pending_results
        self.not_before = not_before
        self.result_path: str | None = None

    @property
    def pace(self) -> Pace:
        """The intervals between polls."""
        return Pace(self.poke_interval, self.exponential_backoff, self.max_wait)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that all triggers share, as plain JSON."""
        return {
            "amili_conn_id": self.amili_conn_id,
            "poke_interval": self.poke_interval,
            "started_at": self.started_at,
            "deadline": self.deadline,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self.max_wait,
            "silent_fail": self.silent_fail,
            "accepted_results": _plain(self.accepted_results),
            "refused_results": _plain(self.refused_results),
            "pending_results": _plain(self.pending_results),
            **({} if self.not_before is None else {"not_before": self.not_before}),
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and all arguments, for Airflow's database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    @abstractmethod
    def keys(self) -> list[Key]:
        """Return what is waited for."""

    @abstractmethod
    def question(self, vocabulary: Vocabulary) -> Question:
        """Return how it is asked for."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event. What is no failure of asking, such as a bug, comes out as it is."""
        # The first trigger of a process imports what a wait needs; in a thread, all others go on meanwhile.
        running = await asyncio.to_thread(importlib.import_module, "amili_provider.triggers.clients")
        event = await running.wait(self)
        yield TriggerEvent(event.payload())


def _plain(words: Sequence[str] | str | None) -> list[str] | str | None:
    return words if words is None or isinstance(words, str) else list(words)


class AmiliFileResultTrigger(AmiliTrigger):
    """
    Waits until each file has a final result.

    :param file_ids: the ids of the files, by client number.
    :param result_path: the path of a file's result, instead of the connection's.
    :param arguments: see :class:`~amili_provider.triggers.amili.AmiliTrigger`.
    """

    def __init__(
        self, *, file_ids: Mapping[str, Sequence[str]], result_path: str | None = None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.file_ids = file_ids
        self.result_path = result_path

    def arguments(self) -> dict[str, Any]:
        """Return all arguments, as plain JSON."""
        ids = {client_no: list(file_ids) for client_no, file_ids in self.file_ids.items()}
        return {"file_ids": ids, "result_path": self.result_path, **super().arguments()}

    def keys(self) -> list[Key]:
        """Return the files."""
        return [(client_no, file_id) for client_no, ids in self.file_ids.items() for file_id in ids]

    def question(self, vocabulary: Vocabulary) -> Question:
        """Ask at the path that the connection, or the sensor, assumes."""
        from amili_provider.triggers.questions import about_files

        return about_files(vocabulary)


class AmiliBatchTrigger(AmiliTrigger):
    """
    Waits until a batch is processed.

    :param client_no: the client number.
    :param batch_uuid: as Amili gave it.
    :param if_partial: what a batch that is processed in part means: ``wait``, ``fail`` or ``succeed``.
    :param arguments: see :class:`~amili_provider.triggers.amili.AmiliTrigger`.
    """

    def __init__(self, *, client_no: str, batch_uuid: str, if_partial: str = "wait", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.client_no = client_no
        self.batch_uuid = batch_uuid
        self.if_partial = if_partial

    def arguments(self) -> dict[str, Any]:
        """Return all arguments, as plain JSON."""
        mine = {"client_no": self.client_no, "batch_uuid": self.batch_uuid, "if_partial": self.if_partial}
        return {**mine, **super().arguments()}

    def keys(self) -> list[Key]:
        """Return the batch."""
        return [(self.client_no, self.batch_uuid)]

    def question(self, vocabulary: Vocabulary) -> Question:
        """Ask for the batch (page "GET one batch")."""
        from amili_provider.triggers.questions import about_batches

        return about_batches(vocabulary, self.if_partial)
