"""
Spreading a long listing over several tasks: balanced buckets, each within bounds.

What a bucket costs is its bytes and its files: ten thousand small files take longer than one large one of as many
bytes. The costliest files are placed first, each into the bucket that costs least so far.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from amili_provider.storage.names import comparable

FILE_COSTS_BYTES = 256 * 1024
"""What a file costs besides its bytes: reading a name, a request to the storage, a claim and a receipt."""


class Sized(Protocol):
    """What has to be known of a file to place it; ``storage.listing.StorageFile`` is one."""

    @property
    def name(self) -> str:
        """Base name."""

    @property
    def size(self) -> int:
        """Bytes."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    What one bucket holds at most.

    :param files: how many files.
    :param size: how many bytes; a larger file gets a bucket of its own.
    """

    files: int
    size: int


def balanced_buckets(files: Sequence[Sized], bounds: Bounds) -> list[list[int]]:
    """
    Return the positions of *files*, spread over as few buckets as their bounds allow, of about equal cost.

    The same files always give the same buckets; each keeps the order of the listing. Files with equal names stay
    together in twos and threes, also where that exceeds the bounds: the upload of a bucket sees them side by side,
    and refuses them as it would have done with the whole listing before it.

    :param files: a listing.
    :param bounds: of one bucket.
    """
    units = _units(files)
    units.sort(key=lambda unit: (-unit.cost, unit.positions))
    count = _fewest(files, bounds)
    while True:
        buckets = _spread(units, count, bounds)
        if len(buckets) <= count:
            break
        # The bounds did not let everything in: spread anew, so that what was left over has no bucket to itself.
        count = len(buckets)
    placed = [sorted(bucket.positions) for bucket in buckets if bucket.positions]
    return sorted(placed)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Files that stay together."""

    positions: tuple[int, ...]
    size: int

    @property
    def cost(self) -> int:
        return self.size + FILE_COSTS_BYTES * len(self.positions)


class _Bucket:
    def __init__(self) -> None:
        self.positions: list[int] = []
        self.size = 0
        self.cost = 0

    def has_room(self, unit: _Unit, bounds: Bounds) -> bool:
        return not self.positions or (
            len(self.positions) + len(unit.positions) <= bounds.files and self.size + unit.size <= bounds.size
        )

    def add(self, unit: _Unit) -> None:
        self.positions.extend(unit.positions)
        self.size += unit.size
        self.cost += unit.cost


def _fewest(files: Sequence[Sized], bounds: Bounds) -> int:
    """Return a number of buckets below which the files cannot fit."""
    size = sum(min(file.size, bounds.size) for file in files)
    return max(1, -(-len(files) // bounds.files), -(-size // bounds.size))


def _units(files: Sequence[Sized]) -> list[_Unit]:
    by_name: dict[str, list[int]] = {}
    for position, file in enumerate(files):
        by_name.setdefault(comparable(file.name), []).append(position)
    units = []
    for positions in by_name.values():
        # Twos, and a three at the end of an odd number: none is left alone, and none is too large to balance.
        while positions:
            taken = len(positions) if len(positions) <= 3 else 2  # noqa: PLR2004 - the last three stay together
            together, positions = positions[:taken], positions[taken:]  # noqa: PLW2901
            units.append(_Unit(tuple(together), sum(files[p].size for p in together)))
    return units


def _spread(units: Sequence[_Unit], count: int, bounds: Bounds) -> list[_Bucket]:
    """Return the buckets, at least *count*; more if the bounds do not let everything into these."""
    buckets = [_Bucket() for _ in range(count)]
    cheapest = [(0, number) for number in range(count)]
    for unit in units:
        passed: list[tuple[int, int]] = []
        while cheapest and not buckets[cheapest[0][1]].has_room(unit, bounds):
            number = heapq.heappop(cheapest)[1]
            if len(buckets[number].positions) < bounds.files:
                passed.append((buckets[number].cost, number))
        if cheapest:
            number = heapq.heappop(cheapest)[1]
        else:
            number = len(buckets)
            buckets.append(_Bucket())
        buckets[number].add(unit)
        for entry in [*passed, (buckets[number].cost, number)]:
            heapq.heappush(cheapest, entry)
    return buckets
