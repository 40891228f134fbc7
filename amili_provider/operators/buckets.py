"""Spread a long listing over workers: list once, return buckets for dynamic task mapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from amili_provider.operators.templates import SourceOperator
from amili_provider.report_lines import laid_out_errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from amili_provider.delivery.report import Skipped
    from amili_provider.storage.files import StorageFile

MOST_BUCKETS = 1024
"""Airflow's own bound on the map indexes of one task, ``[core] max_map_length``."""


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

        from amili_provider.delivery.buckets import Bounds, balanced_buckets
        from amili_provider.delivery.report import nothing_there
        from amili_provider.exceptions import AmiliStorageSettingsError
        from amili_provider.operators import arguments
        from amili_provider.operators.task import end_with_nothing
        from amili_provider.storage.listing import list_files
        from amili_provider.storage.sources import Sources, open_sources

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
    from amili_provider.storage.patterns import is_pattern
    from amili_provider.storage.sources import EXACT

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
