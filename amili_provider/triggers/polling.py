"""
Poll until all is settled, or the time is up.

:class:`Wait` has the rules, and neither asks nor waits. A trigger follows them on the event loop, and a task with the
blocking client, so that poke, reschedule and deferrable mode cannot differ.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Generator, Iterable
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from airflow.providers.common.compat.sdk import mask_secret

from amili_provider.api.results import Meaning
from amili_provider.api.transport import LONGEST_WAIT_SECONDS
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliConnectionError, AmiliError
from amili_provider.receipts import one_line
from amili_provider.triggers.amili import MOST_FAILURES, AmiliTrigger, Pace, Time
from amili_provider.triggers.clients import MOST_IN_FLIGHT, aclient, asettings, for_questions, overridden
from amili_provider.triggers.questions import (
    Key,
    Open,
    Question,
    ResultStatus,
    Settled,
    WaitEvent,
    failed,
    is_doubtful,
)
from amili_provider.workers import Workers

if TYPE_CHECKING:
    from amili_provider.api.exchange import AmiliAsyncClient

log = logging.getLogger(__name__)
_CLOSING_SECONDS = 10.0
Answers = dict[Key, ResultStatus | AmiliError]
"""What came of the keys that were asked for."""
Steps = Generator[list[Key] | float, Answers, "Polled"]


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
    :param gives_back: whether whoever polls can come back later, and is not to wait when Amili says when
        (``Retry-After``): :attr:`not_before` is that moment then.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        pace: Pace,
        *,
        deadline: float | None = None,
        time: Time | None = None,
        attempts: int = MOST_FAILURES,
        gives_back: bool = False,
    ) -> None:
        self.not_before: float | None = None
        """When Amili wants to be asked again, in seconds since the epoch; None if it said nothing."""
        self._gives_back = gives_back
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
        unanswered = list(self._open)
        failures = 0
        while unanswered:
            answers = yield unanswered
            troubles = [answer for answer in answers.values() if isinstance(answer, AmiliError)]
            for key, answer in answers.items():
                if isinstance(answer, ResultStatus):
                    self._take(key, answer)
            unanswered = [key for key in unanswered if not isinstance(answers.get(key), ResultStatus)]
            if not troubles:
                break
            trouble = next((one for one in troubles if not is_transient(one)), troubles[0])
            failures += 1
            if not is_transient(trouble) or failures >= self._attempts:
                if failures > 1:
                    trouble.message += f" {failures} attempts in a row failed like this."
                raise trouble
            if not (yield from self._paused(trouble, failures)):
                return Polled.TIME_IS_UP
            if self.not_before is not None:
                return Polled.OPEN
        return Polled.OPEN if self._open else Polled.SETTLED

    def _paused(self, trouble: AmiliError, failures: int) -> Generator[float, Any, bool]:
        """Wait before the next attempt; False if the time is up first."""
        asked = getattr(trouble, "retry_after", None)
        wait = self._pace.after_failure(failures, asked, self.time.random())
        left = None if self._deadline is None else self._deadline - self.time.now()
        told = "Asking Amili for results failed (%s of %s attempts): %s"
        log.warning(told, failures, self._attempts, trouble.message)
        # What this poll has settled already would be asked for again, and perhaps be in the way for ever.
        gives_back = self._gives_back and asked is not None and (not self._settled or wait > LONGEST_WAIT_SECONDS)
        if left is not None and left <= wait:
            self._note(trouble)
            yield 0.0 if gives_back else max(left, 0.0)
            return False
        if gives_back:
            self._note(trouble)
            self.not_before = self.time.now() + wait
            return True
        yield wait
        return True

    def _note(self, trouble: AmiliError) -> None:
        self._open = {key: one_line(f"the last question failed: {trouble.message}") for key in self._open}

    def _take(self, key: Key, said: ResultStatus) -> None:
        if said.meaning in (Meaning.ACCEPTED, Meaning.REFUSED):
            del self._open[key]
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


def is_transient(error: AmiliError) -> bool:
    """Return whether another attempt at the same poll may help."""
    return isinstance(error, AmiliConnectionError) or is_doubtful(error)


async def wait(trigger: AmiliTrigger) -> WaitEvent:
    """
    Wait as *trigger* says.

    :returns: how it ended; what is no failure of asking, such as a bug or a wrong connection, is raised as it is.
    """
    waiting = Wait(trigger.keys(), trigger.pace, deadline=trigger.deadline, time=trigger.time)
    settings = overridden(await asettings(trigger.amili_conn_id), trigger)
    try:
        async with aclient(settings, len(waiting.open)) as client:
            settled = await _until_settled(trigger, waiting, client)
    except AmiliError as error:
        return failed(error, waiting.settled, waiting.open)
    return WaitEvent(ending="settled" if settled else "timed_out", settled=waiting.settled, open=waiting.open)


async def _until_settled(trigger: AmiliTrigger, waiting: Wait, client: AmiliAsyncClient) -> bool:
    """Poll until all is settled, or the time is up; even a trigger that comes too late asks once."""
    time, pace = trigger.time, trigger.pace
    question = trigger.question(client.vocabulary)
    interval = pace.first_interval(time.now() - trigger.started_at, time.random())
    told = 0
    while True:
        if (still_open := len(waiting.open)) != told:
            told = still_open
            log.info("Waiting for %s result(s); the next question is in %.0f s", still_open, interval)
        left = trigger.deadline - time.now()
        last = left <= interval
        await time.sleep(max(min(interval, left), 0.0))
        try:
            polled = await _polled(waiting.poll(), client, question, time)
        except AmiliConnectionError as trouble:
            if not trigger.silent_fail:
                raise
            log.warning("A poll failed and is passed over, as silent_fail says: %s", trouble.message)
            polled = Polled.OPEN
        if polled is Polled.SETTLED:
            return True
        if last or polled is Polled.TIME_IS_UP or waiting.is_over:
            return False
        interval = pace.interval(time.now() - trigger.started_at, time.random())


async def _polled(steps: Steps, client: AmiliAsyncClient, question: Question, time: Time) -> Polled:
    """Follow the steps of a poll on the event loop."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, list):
                step = steps.send(await _asked(step, client, question))
            else:
                await time.sleep(step)
                step = next(steps)
    except StopIteration as end:
        return cast("Polled", end.value)


async def _asked(keys: list[Key], client: AmiliAsyncClient, question: Question) -> Answers:
    """Ask for *keys*, a few at a time; begin no more requests after one has failed."""
    waiting, answers = iter(keys), Answers()

    async def ask_on() -> None:
        for key in waiting:
            try:
                answers[key] = question.read(await question.fetch(client, key))
            except AmiliError as trouble:
                answers[key] = trouble
                for _ in waiting:
                    pass  # what is not begun never is

    async with asyncio.TaskGroup() as group:
        for _ in range(min(MOST_IN_FLIGHT, len(keys))):
            group.create_task(ask_on())
    return answers


class Poller:
    """
    One wait of one task process: its client, token and memory are kept from poke to poke.

    Questions are asked in threads. What Airflow raises into a task that is stopped, or whose time is up, strikes the
    main thread between any two steps; there it only waits for them, and tells Airflow secrets to be masked: from
    another thread that would block.

    :param settings: the connection, with what the sensor says instead.
    :param wait: what is waited for.
    :param trigger: how it is asked for.
    :raises AmiliArgumentError: if the environment names a proxy that cannot be used.
    """

    def __init__(self, settings: AmiliSettings, wait: Wait, trigger: AmiliTrigger) -> None:
        from amili_provider.api.client import AmiliClient

        self.wait = wait
        self._client = AmiliClient(for_questions(settings), on_token=self._mask, attempts=1)
        self._question = trigger.question(self._client.vocabulary)
        self._workers = Workers("amili-poking")
        self._news: queue.SimpleQueue[tuple[str, queue.SimpleQueue[None]] | BaseException | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.abort()
        self._workers.end(_CLOSING_SECONDS)
        self._client.close()

    def poll(self) -> Polled:
        """Ask once for everything that is open; see :meth:`~amili_provider.triggers.polling.Wait.poll`."""
        steps = self.wait.poll()
        try:
            step = next(steps)
            while True:
                if isinstance(step, list):
                    step = steps.send(self._asked(step))
                else:
                    self.wait.time.pause(step)
                    step = next(steps)
        except StopIteration as end:
            return cast("Polled", end.value)

    def _asked(self, keys: list[Key]) -> Answers:
        """Ask for *keys*, a few at a time; begin no more requests after one has failed."""
        waiting, answers, bug = iter(keys), Answers(), None

        def ask_on() -> None:
            ended = None
            try:
                for key in waiting:
                    try:
                        answers[key] = self._question.read(self._question.fetch(self._client, key))
                    except AmiliError as trouble:
                        answers[key] = trouble
                        for _ in waiting:
                            pass  # as above
            except Exception as error:  # noqa: BLE001 - raised in the task's own thread
                ended = error
            self._news.put(ended)

        going = min(MOST_IN_FLIGHT, len(keys))
        for number in range(going):
            self._workers.give(ask_on, number + 1)
        while going:
            news = self._news.get()
            if isinstance(news, tuple):
                token, told = news
                mask_secret(token)
                told.put(None)
            else:
                going -= 1
                bug = bug or news
        if bug is not None:
            raise bug
        return answers

    def _mask(self, token: str) -> None:
        """Have the task's own thread tell Airflow a secret, and wait until it has."""
        told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._news.put((token, told))
        told.get(timeout=_CLOSING_SECONDS)
