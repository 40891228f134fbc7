"""
Who asks: a trigger on the event loop that all triggers share, and a task from threads of its own.

:mod:`amili_provider.triggers.polling` has the rules. Nothing here blocks the event loop: what takes long is done in a
thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import queue
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import mask_secret

from amili_provider.connection.settings import AmiliSettings, settings_from
from amili_provider.connection.values import as_words, checked_result_path
from amili_provider.exceptions import AmiliConnectionError, AmiliError
from amili_provider.hooks.amili import missing_connection, short_extras
from amili_provider.triggers.amili import AmiliTrigger, Time
from amili_provider.triggers.polling import Answers, Polled, Steps, Wait, WaitEvent, failed, still_open
from amili_provider.triggers.questions import Key, Question
from amili_provider.workers import Workers

if TYPE_CHECKING:
    from amili_provider.api.exchange import AmiliAsyncClient

log = logging.getLogger(__name__)
LONGEST_ANSWER_SECONDS = 60.0
"""For the answer to one question: ``answer_timeout`` is made for uploads, which take longer."""
MOST_IN_FLIGHT = 8
"""Requests of one wait at the same time."""
_CLOSING_SECONDS = 2.0
"""For the threads of a task to end: Airflow kills one that does not end within five."""
_LOOKS_SECONDS = 0.1

_auths: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[tuple[Any, ...], Any]] = WeakKeyDictionary()
"""Who we are, per event loop and credentials: a thousand waits of one connection share one token."""


def overridden(settings: AmiliSettings, trigger: AmiliTrigger) -> AmiliSettings:
    """
    Return *settings* with what a sensor says instead of the connection; its refused words come beside the connection's.

    :raises ValueError: naming the argument that is wrong.
    """
    changed: dict[str, Any] = {
        name: as_words(value, name)
        for name in ("accepted_results", "refused_results", "pending_results")
        if (value := getattr(trigger, name)) is not None
    }
    if trigger.result_path is not None:
        changed["result_path"] = checked_result_path(trigger.result_path, "result_path")
    if "refused_results" in changed:
        changed["refused_results"] += settings.refused_results or ()
    return dataclasses.replace(settings, **changed) if changed else settings


def for_questions(settings: AmiliSettings) -> AmiliSettings:
    """Return *settings* with the time-out of a question."""
    bound = min(settings.answer_timeout, LONGEST_ANSWER_SECONDS)
    return dataclasses.replace(settings, answer_timeout=bound)


async def asettings(conn_id: str) -> AmiliSettings:
    """
    Return the settings of a connection, fetched without blocking.

    :raises ValueError: if the connection is wrong or incomplete.
    :raises AmiliArgumentError: if there is no such connection.
    """
    try:
        with short_extras():
            connection = await get_async_connection(conn_id)
            extra = await get_async_extra_dejson(connection)
    except Exception as error:
        if (missing := missing_connection(error, conn_id)) is not None:
            raise missing from None
        raise
    settings = settings_from(
        conn_id,
        login=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        extra=extra,
    )
    for password in settings.proxy_passwords:
        await amask(password)
    return settings


async def amask(secret: str) -> None:
    """Have a token masked in logs; telling the supervisor may take a while, so not on the event loop."""
    await asyncio.to_thread(mask_secret, secret)


@asynccontextmanager
async def aclient(settings: AmiliSettings, questions: int) -> AsyncIterator[AmiliAsyncClient]:
    """
    Give a client that asks each question once, and close it in every ending.

    :param settings: the connection.
    :param questions: how many there are per poll.
    :raises AmiliArgumentError: if the environment names a proxy that cannot be used.
    """
    tls = await asyncio.to_thread(_made_ready, settings)
    from amili_provider.api import exchange  # imported in the thread above

    opened = exchange.AmiliAsyncClient(
        for_questions(settings),
        verify=tls,
        auth=_shared_auth(settings),
        attempts=1,
        # A few questions leave no connection open until the next poll; many of them share a few.
        keep_alive=0 if questions <= MOST_IN_FLIGHT else MOST_IN_FLIGHT,
    )
    try:
        yield opened
    finally:
        await opened.aclose()


def _made_ready(settings: AmiliSettings) -> Any:
    """
    Import the client, and return the TLS settings. To be run in a thread, since each part may take long.

    The first import of the HTTP library takes up to 200 ms; its first request on an event loop would import another
    100 ms of its own library for events, which a rehearsal here brings forward; reading certificates takes 20 ms.
    """
    from amili_provider.api import exchange, transport

    exchange.rehearse()
    return transport.ssl_context(settings)


def _shared_auth(settings: AmiliSettings) -> Any:
    auths = _auths.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    identity = (
        settings.auth_url,
        settings.client_id,
        settings.client_secret,
        settings.access_token,
        settings.scope,
        settings.verify,
        settings.ca_file,
        settings.proxy,
    )
    auth = auths.get(identity)
    if auth is None:
        from amili_provider.api.auth import auth_of

        auth = auths[identity] = auth_of(settings, on_token=amask)
    return auth


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
    # Past it is after a restart, when all triggers begin at once: then their questions are spread as ever.
    if (asked := trigger.not_before) is not None and asked > time.now():
        interval = asked - time.now()
    while True:
        left = trigger.deadline - time.now()
        last = left <= interval
        seconds = max(min(interval, left), 0.0)
        log.info("The next question is in %.0f s: %s", seconds, still_open(waiting.open, waiting.settled, {}))
        await time.sleep(seconds)
        if asked is not None and trigger.deadline < asked:
            return False  # Amili wants to be asked when the time is up
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
                found = await question.fetch(client, key)
                answers[key] = await client.apart(getattr(found, "content", b""), partial(question.read, found))
            except AmiliError as trouble:
                answers[key] = trouble
                for _ in waiting:
                    pass  # what is not begun never is

    async with asyncio.TaskGroup() as group:
        for _ in range(min(MOST_IN_FLIGHT, len(keys))):
            group.create_task(ask_on())
    return answers


class _Round:
    """What the threads of one round tell the task's own: tokens to be masked, and that they have ended."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[tuple[str, queue.SimpleQueue[None]] | BaseException | None] = queue.SimpleQueue()
        self.over = False
        """Whether nobody listens any more: a round that was broken off may have threads left."""


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
        self._round = _Round()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._round.over = True
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
        round_ = self._round = _Round()

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
            round_.news.put(ended)

        going = min(MOST_IN_FLIGHT, len(keys))
        try:
            for number in range(going):
                self._workers.give(ask_on, number + 1)
            while going:
                told = round_.news.get()
                if isinstance(told, tuple):
                    mask_secret(told[0])
                    told[1].put(None)
                else:
                    going -= 1
                    bug = bug or told
        finally:
            round_.over = True
            for _ in waiting:
                pass  # as above
        if bug is not None:
            raise bug
        return answers

    def _mask(self, token: str) -> None:
        """Have the task's own thread tell Airflow a secret, and wait until it has."""
        told: queue.SimpleQueue[None] = queue.SimpleQueue()
        round_ = self._round
        round_.news.put((token, told))
        while not round_.over:
            with suppress(queue.Empty):
                return told.get(timeout=_LOOKS_SECONDS)
        raise AmiliConnectionError("The task was told to stop; nothing was asked.")
