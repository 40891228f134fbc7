"""A few threads for what waits on a storage: bounded, kept while the ledger is open."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """
    Threads that are started when they are first needed.

    :param count: how many at most.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def submit(self, operation: Callable[[T], R], item: T) -> Future[R]:
        """Start *operation* on *item* in a thread."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="amili-ledger")
            return self._pool.submit(operation, item)

    def in_order(self, operation: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the result for each item, in their order, working ahead by a bounded number of items."""
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(self.submit(operation, item))
                if len(ahead) >= self.count * 4:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def failures(
        self, operation: Callable[[T], object], items: Sequence[T], expected: tuple[type[BaseException], ...]
    ) -> list[BaseException | None]:
        """
        Run *operation* on every item, wait for all, and return for each what it failed with.

        :param expected: errors that are returned; any other is raised.
        """
        if len(items) == 1:
            try:
                operation(items[0])
            except expected as failure:
                return [failure]
            return [None]

        def run(first: int) -> None:
            # Every so many-th item: a job for each would cost as much as a receipt on a local disk.
            for index in range(first, len(items), self.count):
                try:
                    operation(items[index])
                except BaseException as error:  # noqa: BLE001 - told apart below, when all have been tried
                    failed[index] = error

        failed: list[BaseException | None] = [None] * len(items)
        wait([self.submit(run, first) for first in range(min(self.count, len(items)))])
        for error in failed:
            if error is not None and not isinstance(error, expected):
                raise error
        return failed

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
