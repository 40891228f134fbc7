"""Which files travel together: requests bounded by bytes and count."""

from __future__ import annotations

from collections import deque

from amili_provider.api.upload import base64_bytes
from amili_provider.delivery.item import Item
from amili_provider.delivery.options import Options

_AROUND_CONTENT_BYTES = 160
"""JSON around a file's content, its name left out."""


class Packer:
    """
    Packs items into batches, one batch a request.

    :param options: its bounds.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ready: deque[list[Item]] = deque()
        self._open: list[Item] = []
        self._open_bytes = 0

    def __len__(self) -> int:
        return len(self._open) + sum(len(batch) for batch in self._ready)

    def add(self, item: Item) -> None:
        """Take *item* into the batch being packed; a file too large to share a request gets one of its own."""
        assert item.content is not None
        size = base64_bytes(item.content.size) + 6 * len(item.receipt.name) + _AROUND_CONTENT_BYTES
        limit = base64_bytes(self._options.batch_bytes)
        if item.content.size > self._options.in_memory_bytes or size > limit:
            self._ready.append([item])
            return
        if self._open and self._open_bytes + size > limit:
            self._close()
        self._open.append(item)
        self._open_bytes += size
        if len(self._open) >= self._options.max_files_per_request:
            self._close()

    def next_batch(self, *, even_if_not_full: bool) -> list[Item] | None:
        """Return the next batch, or None if there is none yet."""
        if not self._ready and even_if_not_full and self._open:
            self._close()
        return self._ready.popleft() if self._ready else None

    def drain(self) -> list[Item]:
        """Return everything that was not handed out."""
        items = [item for batch in self._ready for item in batch] + self._open
        self._ready.clear()
        self._open, self._open_bytes = [], 0
        return items

    def _close(self) -> None:
        self._ready.append(self._open)
        self._open, self._open_bytes = [], 0
