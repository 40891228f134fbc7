"""Polling from a task: the triggers' own poll, on an event loop that lives as long as the task pokes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from airflow.providers.common.compat.sdk import mask_secret

from amili_provider.connection_form import AmiliSettings
from amili_provider.models import Vocabulary
from amili_provider.triggers.connecting import aclient
from amili_provider.triggers.polling import Polled, Wait
from amili_provider.triggers.questions import Ask, Client

Question = Callable[[Client, Vocabulary], Ask]


class Poking:
    """
    One wait of one task process: its client, token and memory are kept from poke to poke.

    The same code polls here and in the triggerer, so that poke, reschedule and deferrable mode cannot differ.

    :param settings: the connection.
    :param wait: what is waited for.
    :param question: how it is asked for.
    """

    def __init__(self, settings: AmiliSettings, wait: Wait, question: Question) -> None:
        self.wait = wait
        self._settings = settings
        self._question = question
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._ask: Ask | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._stack.aclose())
        finally:
            self._runner.close()

    def poll(self) -> Polled:
        """Ask once for everything that is open; see :meth:`~amili_provider.triggers.polling.Wait.poll`."""
        return self._runner.run(self._poll())

    async def _poll(self) -> Polled:
        if self._ask is None:
            # This is the task's own thread, from which Airflow may be told a secret directly.
            opened = aclient(self._settings, len(self.wait.open), on_token=mask_secret)
            client = await self._stack.enter_async_context(opened)
            self._ask = self._question(client, client.vocabulary)
        return await self.wait.poll(self._ask)
