"""Poll until all is settled, or the time is up; from a trigger, or from a task on an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from enum import Enum
from types import TracebackType
from typing import Self

from airflow.providers.common.compat.sdk import mask_secret

from amili_provider.api.results import Meaning, Vocabulary
from amili_provider.api.transport import LONGEST_WAIT_SECONDS
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliConnectionError, AmiliError
from amili_provider.receipts import one_line
from amili_provider.triggers.amili import MOST_FAILURES, AmiliTrigger, Pace, Time
from amili_provider.triggers.clients import MOST_IN_FLIGHT, Overrides, aclient, asettings
from amili_provider.triggers.questions import (
    Ask,
    Client,
    Key,
    Open,
    ResultStatus,
    Settled,
    WaitEvent,
    failed,
    is_doubtful,
)

log = logging.getLogger(__name__)
Question = Callable[[Client, Vocabulary], Ask]
_CLOSING_SECONDS = 10.0


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
        self._time = time or Time()
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
        return self._deadline is not None and self._time.now() >= self._deadline

    async def poll(self, ask: Ask) -> Polled:
        """
        Ask once for everything that is open.

        :param ask: the question.
        :raises AmiliConnectionError: if it failed for transient causes as often as it may.
        :raises AmiliPermanentError: if asking is of no use.
        """
        unanswered = list(self._open)
        failures = 0
        while unanswered:
            unanswered, trouble = await self._round(ask, unanswered)
            if trouble is None:
                break
            failures += 1
            if not is_transient(trouble) or failures >= self._attempts:
                if failures > 1:
                    trouble.message += f" {failures} attempts in a row failed like this."
                raise trouble
            if not await self._paused(trouble, failures):
                return Polled.TIME_IS_UP
            if self.not_before is not None:
                return Polled.OPEN
        return Polled.OPEN if self._open else Polled.SETTLED

    async def _paused(self, trouble: AmiliError, failures: int) -> bool:
        """Wait before the next attempt; False if the time is up first."""
        asked = getattr(trouble, "retry_after", None)
        wait = self._pace.after_failure(failures, asked, self._time.random())
        left = None if self._deadline is None else self._deadline - self._time.now()
        log.warning(
            "Asking Amili for results failed (%s of %s attempts): %s",
            failures,
            self._attempts,
            trouble.message,
        )
        # What this poll has settled already would be asked for again, and perhaps be in the way for ever.
        gives_back = self._gives_back and asked is not None and (not self._settled or wait > LONGEST_WAIT_SECONDS)
        if left is not None and left <= wait:
            self._note(trouble)
            await self._time.sleep(0.0 if gives_back else max(left, 0.0))
            return False
        if gives_back:
            self._note(trouble)
            self.not_before = self._time.now() + wait
            return True
        await self._time.sleep(wait)
        return True

    def _note(self, trouble: AmiliError) -> None:
        self._open = {key: one_line(f"the last question failed: {trouble.message}") for key in self._open}

    async def _round(self, ask: Ask, keys: list[Key]) -> tuple[list[Key], AmiliError | None]:
        """
        Ask for *keys*; begin no more requests after one has failed.

        :returns: those that got no answer, and the failure: a permanent one if there is one.
        """
        waiting = iter(keys)
        unanswered: list[Key] = []
        troubles: list[AmiliError] = []

        async def ask_on() -> None:
            while not troubles and (key := next(waiting, None)) is not None:
                try:
                    said = await ask(key)
                except AmiliError as trouble:
                    troubles.append(trouble)
                    unanswered.append(key)
                else:
                    self._take(key, said)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(MOST_IN_FLIGHT, len(keys))):
                group.create_task(ask_on())
        permanent = [t for t in troubles if not is_transient(t)]
        return [*unanswered, *waiting], next(iter(permanent or troubles), None)

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
    pace = Pace(trigger.poke_interval, trigger.exponential_backoff, trigger.max_wait)
    keys = trigger.keys()
    waiting = Wait(keys, pace, deadline=trigger.deadline, time=trigger.time)
    overrides = Overrides(
        trigger.result_path, trigger.accepted_results, trigger.refused_results, trigger.pending_results
    )
    settings = overrides.applied_to(await asettings(trigger.amili_conn_id))
    try:
        async with aclient(settings, len(keys)) as client:
            ask = trigger.question(client, client.vocabulary)
            settled = await _until_settled(trigger, waiting, ask, pace)
    except AmiliError as error:
        return failed(error, waiting.settled, waiting.open)
    return WaitEvent(ending="settled" if settled else "timed_out", settled=waiting.settled, open=waiting.open)


async def _until_settled(trigger: AmiliTrigger, waiting: Wait, ask: Ask, pace: Pace) -> bool:
    """Poll until all is settled, or the time is up; even a trigger that comes too late asks once."""
    time = trigger.time
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
            polled = await waiting.poll(ask)
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


class Poller:
    """
    One wait of one task process: its client, token and memory are kept from poke to poke.

    The same code polls here and in the triggerer, so that poke, reschedule and deferrable mode cannot differ. The
    loop has a thread of its own: what Airflow raises into a task that is stopped, or whose time is up, strikes the
    main thread between any two steps, and an event loop there could swallow it.

    :param settings: the connection.
    :param wait: what is waited for.
    :param question: how it is asked for.
    """

    def __init__(self, settings: AmiliSettings, wait: Wait, question: Question) -> None:
        self.wait = wait
        self._settings = settings
        self._question = question
        self._stack = AsyncExitStack()
        self._ask: Ask | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="amili-poking", daemon=True)
        self._news: queue.SimpleQueue[tuple[str, asyncio.Event] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CLOSING_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSING_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()

    def poll(self) -> Polled:
        """Ask once for everything that is open; see :meth:`~amili_provider.triggers.polling.Wait.poll`."""
        polling = asyncio.run_coroutine_threadsafe(self._poll(), self._loop)
        polling.add_done_callback(lambda _: self._news.put(None))
        try:
            while (news := self._news.get()) is not None:
                token, told = news
                mask_secret(token)
                self._loop.call_soon_threadsafe(told.set)
        except BaseException:
            polling.cancel()
            raise
        return polling.result()

    async def _poll(self) -> Polled:
        if self._ask is None:
            opened = aclient(self._settings, len(self.wait.open), on_token=self._mask)
            client = await self._stack.enter_async_context(opened)
            self._ask = self._question(client, client.vocabulary)
        return await self.wait.poll(self._ask)

    async def _close(self) -> None:
        """End a poll that was given up, then close the client."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._stack.aclose()

    async def _mask(self, token: str) -> None:
        """Have the task's own thread tell Airflow a secret: from another one it would block."""
        told = asyncio.Event()
        self._news.put((token, told))
        await told.wait()
