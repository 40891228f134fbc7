"""
Spread a long listing over workers: list once, and return balanced buckets for dynamic task mapping.

What a bucket costs is its bytes and its files: ten thousand small files take longer than one large one of as many
bytes. The costliest files are placed first, each into the bucket that costs least so far.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from amili_provider.operators.templates import SourceOperator
from amili_provider.report_lines import laid_out_errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from amili_provider.delivery.report import Skipped
    from amili_provider.storage.files import StorageFile


FILE_COSTS_BYTES = 256 * 1024
"""What a file costs besides its bytes: reading a name, a request to the storage, a claim and a receipt."""
MOST_BUCKETS = 1024
"""Airflow's own bound on the map indexes of one task, ``[core] max_map_length``."""


class Sized(Protocol):
    """What has to be known of a file to place it; ``storage.files.StorageFile`` is one."""

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
    from amili_provider.storage.names import comparable

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


class AmiliFileBucketsOperator(SourceOperator):
    """
    List files once and return them in balanced buckets, for one upload task per bucket.

    ::

        buckets = AmiliFileBucketsOperator(task_id="buckets", source=f"s3://invoices/{LAST_COMPLETE_DAY}/**")
        AmiliFileUploadOperator.partial(
            task_id="upload", file_type="InvoiciaFormatDocFile", retries=3
        ).expand(source=buckets.output)

    A bucket is a list of paths. The same listing always gives the same buckets, about equal in bytes and files. A path
    that holds wildcards, or what cannot be seen, is written ``exact:...``, so that the upload takes that file only.
    Files that are skipped are named in the log and in the XCom ``skipped``, with the reason.

    :param source: a file, a folder, a glob, or a list of these, as for the upload. (templated)
    :param source_conn_id: connection of the storage, the same as the upload's. (templated)
    :param max_files_per_bucket: files in one bucket at most; equal names stay together in twos and threes.
    :param max_bytes_per_bucket: bytes in one bucket at most; a larger file gets a bucket of its own.
    :param max_buckets: more buckets than this are an error; Airflow's own bound is ``[core] max_map_length``.
    :param max_files: more files than this are an error: all paths together are one XCom.
    :param ignore: kinds of files that are skipped: any of ``hidden``, ``temporary``, ``empty``.
    :param if_no_files: ``fail``, ``skip`` or ``succeed`` if nothing matches, or only files that are ignored; no bucket
        skips the mapped task.
    :raises ValueError: for a wrong argument.
    :raises FileNotFoundError: if a named file or the folder of a pattern is missing; Airflow retries.
    :raises AmiliFilesMissing: if nothing is there and *if_no_files* is ``fail``; also a ``FileNotFoundError``; Airflow
        retries.
    :raises AmiliStorageError: if the storage cannot be listed; Airflow retries.
    :raises AmiliStorageSettingsError: if there are too many files or buckets; no retry.
    """

    template_fields: Sequence[str] = ("source", "source_conn_id")
    ui_color = "#d9e8e3"

    def __init__(
        self,
        *,
        source: str | Sequence[str],
        source_conn_id: str | None = None,
        max_files_per_bucket: int = 1_000,
        max_bytes_per_bucket: int = 10 * 1024**3,
        max_buckets: int = MOST_BUCKETS,
        max_files: int = 200_000,
        ignore: Sequence[str] = ("hidden", "temporary", "empty"),
        if_no_files: Literal["fail", "skip", "succeed"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.source_conn_id = source_conn_id
        self.max_files_per_bucket = max_files_per_bucket
        self.max_bytes_per_bucket = max_bytes_per_bucket
        self.max_buckets = max_buckets
        self.max_files = max_files
        self.ignore = ignore
        self.if_no_files = if_no_files

    @laid_out_errors()
    def execute(self, context: Context) -> list[list[str]]:
        """
        List the files and return the paths of each bucket.

        :param context: Airflow's; an empty one will do.
        """
        from amili_provider.exceptions import wrong_arguments_are_permanent

        with wrong_arguments_are_permanent():
            return self._buckets(context)

    def _buckets(self, context: Context) -> list[list[str]]:
        from contextlib import closing

        from amili_provider.delivery.report import nothing_there
        from amili_provider.exceptions import AmiliStorageSettingsError
        from amili_provider.operators import arguments
        from amili_provider.operators.task import end_with_nothing
        from amili_provider.storage.listing import list_files
        from amili_provider.storage.opening import Sources, open_sources

        bounds = Bounds(
            files=arguments.number_of("max_files_per_bucket", self.max_files_per_bucket),
            size=arguments.number_of("max_bytes_per_bucket", self.max_bytes_per_bucket),
        )
        most = arguments.number_of("max_buckets", self.max_buckets)
        if_no_files = arguments.choice_of("if_no_files", self.if_no_files, ("fail", "skip", "succeed"))
        max_files = arguments.number_of("max_files", self.max_files)
        conn_id = arguments.optional_text("source_conn_id", self.source_conn_id)
        source = arguments.source_of(self.source)

        sources = open_sources(source, conn_id) if source else Sources([])
        with closing(sources):
            listed = list_files(sources, max_files=max_files)
            self.log.info("Found %d file(s) in %s", len(listed), sources.shown)
            files, skipped = self._without_skipped(listed, context)
        if not files:
            end_with_nothing(nothing_there(sources, skipped), if_no_files, self.log)
            return []
        buckets = balanced_buckets(files, bounds)
        if len(buckets) > most:
            raise AmiliStorageSettingsError(
                f"{len(files)} file(s), {sum(f.size for f in files)} bytes, make {len(buckets)} buckets, which is more "
                f"than max_buckets={most}. Raise max_files_per_bucket or max_bytes_per_bucket, or max_buckets together "
                f"with Airflow's [core] max_map_length ({MOST_BUCKETS} unless set)."
            )
        self._tell(files, buckets)
        return [[_address(files[position], conn_id) for position in bucket] for bucket in buckets]

    def _without_skipped(
        self, listed: Sequence[StorageFile], context: Context
    ) -> tuple[list[StorageFile], list[Skipped]]:
        """Leave out what the upload would skip: it takes a file that is named, as those in a bucket are, as meant."""
        from amili_provider.operators import arguments
        from amili_provider.storage.names import IS_EMPTY, KINDS_IGNORED, reason_to_ignore
        from amili_provider.storage.reading import more_than_told

        kinds = arguments.kinds_of(self.ignore, KINDS_IGNORED)
        files: list[StorageFile] = []
        skipped: list[dict[str, str]] = []
        names: list[Skipped] = []
        for file in listed:
            reason = reason_to_ignore(file, kinds)
            # Of what gives more than was told, the upload says so.
            if reason is None or (reason == IS_EMPTY and more_than_told(file)):
                files.append(file)
            else:
                skipped.append({"source": file.url, "message": reason})
                names.append((file.name, reason))
        for reason, number in Counter(one["message"] for one in skipped).items():
            self.log.info("%d file(s) skipped: %s", number, reason)
        ti = context.get("ti")
        if skipped and ti is not None and self.do_xcom_push:
            ti.xcom_push(key="skipped", value=skipped)
        return files, names

    def _tell(self, files: Sequence[StorageFile], buckets: Sequence[Sequence[int]]) -> None:
        sizes = [sum(files[position].size for position in bucket) for bucket in buckets]
        self.log.info(
            "%d file(s) in %d bucket(s), each of %d to %d file(s) and %d to %d bytes",
            len(files),
            len(buckets),
            min(map(len, buckets)),
            max(map(len, buckets)),
            min(sizes),
            max(sizes),
        )


def _address(file: StorageFile, conn_id: str | None) -> str:
    """Return the path by which an upload with the same ``source_conn_id`` finds *file*."""
    from amili_provider.exceptions import AmiliStorageSettingsError
    from amili_provider.storage.locations import is_pattern
    from amili_provider.storage.opening import EXACT

    storage = file.location_root.storage
    as_it_is = storage.prefix + file.path == file.url
    if not as_it_is and not storage.kind.lists:
        # A query may be a signature, which is not for XCom.
        raise AmiliStorageSettingsError(
            f"{file.url} cannot be passed on in a bucket: its address has a query. Name it in an upload of its own."
        )
    address, named = file.url, file.location_root.conn_id
    if named not in (None, conn_id):
        scheme, _, rest = address.partition("://")
        address = f"{scheme}://{named}@{rest}"
    plain = as_it_is and address == address.strip() and not (storage.kind.lists and is_pattern(file.path))
    return address if plain else EXACT + address
