"""
What all triggers of this package have: their arguments, and a run that ends with one event.

Airflow imports a trigger's module on the event loop; so this one, and those of the triggers, import little.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from amili_provider.triggers.pace import Time

if TYPE_CHECKING:
    from amili_provider.api.results import Vocabulary
    from amili_provider.triggers.events import WaitEvent
    from amili_provider.triggers.questions import Ask, Client, Key


class AmiliTrigger(BaseTrigger):
    """
    Waits for results in the triggerer. It only asks; it never uploads, so that running twice does no harm.

    Its arguments are stored in Airflow's database: ids, numbers and words, never a secret or a file's content.

    :param amili_conn_id: the connection.
    :param poke_interval: seconds between polls.
    :param started_at: when the sensor asked first, in seconds since the epoch.
    :param deadline: when the time is up, likewise: absolute, so that a restart does not begin anew.
    :param exponential_backoff: whether the intervals grow.
    :param max_wait: the longest interval, in seconds.
    :param silent_fail: whether polls that fail for passing causes never end the wait.
    :param accepted_results: words that mean accepted, instead of the connection's.
    :param refused_results: words that mean refused, besides the connection's.
    :param pending_results: words that mean "not yet", instead of the connection's.
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
        self.result_path: str | None = None

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
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and all arguments, for Airflow's database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    def keys(self) -> list[Key]:
        """Return what is waited for."""
        raise NotImplementedError

    def question(self, client: Client, vocabulary: Vocabulary) -> Ask:
        """Return how it is asked for."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event. What is no failure of asking, such as a bug, comes out as it is."""
        # The first trigger of a process imports what a wait needs; in a thread, all others go on meanwhile.
        running = await asyncio.to_thread(importlib.import_module, "amili_provider.triggers.running")
        event: WaitEvent = await running.wait(self)
        yield TriggerEvent(event.payload())


def _plain(words: Sequence[str] | str | None) -> list[str] | str | None:
    return words if words is None or isinstance(words, str) else list(words)
