"""Polling from a task: the triggers' own poll, on an event loop of its own that lives as long as the task pokes."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from airflow.providers.common.compat.sdk import mask_secret

from amili_provider.api.results import Vocabulary
from amili_provider.connection.settings import AmiliSettings
from amili_provider.triggers.clients import aclient
from amili_provider.triggers.polling import Polled, Wait
from amili_provider.triggers.questions import Ask, Client

Question = Callable[[Client, Vocabulary], Ask]

_CLOSING_SECONDS = 10.0


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
