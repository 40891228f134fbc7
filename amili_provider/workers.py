"""
Worker threads that are given jobs without a lock, since a signal may strike the task's own thread anywhere.

Airflow's time-outs and kills do that in the task's own thread. Whatever takes a lock there (an executor, a future, a
condition) may keep it then, and its workers wait for that lock for ever. A :class:`queue.SimpleQueue` has none to keep.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable


class Workers:
    """
    Threads that do jobs in the order in which they were given.

    :param name: what the threads are called, before their number.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def give(self, job: Callable[[], None], going: int) -> None:
        """
        Have *job* done, which raises nothing.

        :param going: how many jobs there are with it; so many threads there will be, or fewer if the system lets no
            more begin.
        :raises RuntimeError: if it lets none begin.
        """
        self._jobs.put(job)
        while len(self._threads) < going:
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            outer = sys.exception()
            try:
                thread.start()
            except RuntimeError as error:
                # A signal's exception can strike within a lock of start(), which then complains of the lock instead.
                if (signal := error.__context__) is not None and signal is not outer:
                    raise signal from None
                # The system lets no more threads begin.
                self._threads.remove(thread)
                if not self._threads:
                    raise
                return

    def end(self, seconds: float | None) -> bool:
        """
        Wait until the jobs are done and the threads have ended.

        :param seconds: for how long at most; None for as long as it takes.
        :returns: whether they have. If not, they end when their job does, and hold up nothing. Nor does a thread whose
            start a signal's exception broke off: it may stay, is not seen here, and does no job.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():  # else an exception came before it was started
                thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
