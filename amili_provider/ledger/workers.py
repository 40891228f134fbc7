"""A few threads for what waits on a storage: bounded, kept while the ledger is open."""

from __future__ import annotations

import itertools
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

        def run(share: Sequence[T]) -> list[BaseException | None]:
            return [_failure(operation, item) for item in share]

        failed = self.in_shares(run, items)
        for error in failed:
            if error is not None and not isinstance(error, expected):
                raise error
        return failed

    def in_shares(
        self, operation: Callable[[Sequence[T]], list[R]], items: Sequence[T], *, at_least: int = 1
    ) -> list[R]:
        """
        Run *operation* on shares of *items* at the same time, wait for all, and return the results in the items' order.

        A job for each item would cost as much as a receipt on a local disk.

        :param operation: gets a share, and returns a result for each of its items.
        :param at_least: how many items make a share worth a thread.
        """
        count = min(self.count, max(1, len(items) // at_least))
        if count == 1:
            return operation(items)
        # Every so many-th item, so that shares are alike.
        jobs = [self.submit(operation, items[first::count]) for first in range(count)]
        wait(jobs)
        found = dict(
            itertools.chain.from_iterable(
                zip(range(first, len(items), count), job.result(), strict=True) for first, job in enumerate(jobs)
            )
        )
        return [found[index] for index in range(len(items))]

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def _failure(operation: Callable[[T], object], item: T) -> BaseException | None:
    try:
        operation(item)
    except BaseException as error:  # noqa: BLE001 - told apart by the caller, when all have been tried
        return error
    return None
