"""One task's delivery from its options to its receipts: list, name, deliver, move."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from amili_provider import fault_points
from amili_provider.api.client import AmiliClient
from amili_provider.connection.addresses import ENVIRONMENTS
from amili_provider.connection.settings import AmiliSettings
from amili_provider.delivery.item import EarlyStop, Item
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.moving import Moving, keep_apart
from amili_provider.delivery.options import FileFacts, Options
from amili_provider.delivery.pipeline import Pipeline
from amili_provider.delivery.progress import Telemetry, shown_bytes
from amili_provider.delivery.report import Skipped, failure, non_retryable_error, nothing_there, what_is_missing
from amili_provider.exceptions import AmiliError, wrong_arguments_are_permanent
from amili_provider.ledger import Ledger
from amili_provider.ledger.opening import ledger_from
from amili_provider.receipts import Outcome, Receipt, escaped, no_longer_listed, one_line, restore
from amili_provider.report_lines import groups
from amili_provider.storage import names
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files, unstable_files
from amili_provider.storage.opening import Sources, open_sources
from amili_provider.storage.reading import more_than_told

# Without blanks, so that a line of the log never ends within a template.
_ARCHIVED = (
    " An earlier run may have archived them: 'amili-ledger find' and a part of their path says what was delivered."
)
_NOT_TRIED = "Not tried."
_SAFE_NAME = "Give it another: file_name='{{file.safe_name}}' does so, and keeps the names that can be sent."
_UNIQUE_NAME = "Make them differ, for example with file_name='{{file.unique_name}}'."
_ENCODING = "Name the server's character set in the extra 'encoding' of the FTP connection, for example 'iso-8859-1'."


class Amili(Protocol):
    """What a delivery needs of the hook."""

    @property
    def settings(self) -> AmiliSettings:
        """What the connection says."""

    def client_no(self, given: Any = None) -> str:
        """Return the client number: the given one, or the connection's."""

    def get_conn(self) -> AmiliClient:
        """Return the client."""


class UploadRun:
    """
    Delivers what a task's options say. Call it from the task's own thread: connections are looked up there.

    :param options: what to deliver.
    :param hook: the connection to Amili.
    :param log: the task's logger.
    :param earlier: receipts of the first part of this upload, before a person was asked.
    :param goes_on: whether the task goes on with a second part where outcomes are unknown.
    :param sleep: how to wait.
    """

    def __init__(
        self,
        options: Options,
        hook: Amili,
        *,
        log: logging.Logger,
        earlier: Sequence[Receipt] = (),
        goes_on: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._earlier = earlier
        self._goes_on = goes_on
        self._options = options
        self._hook = hook
        self._log = log
        self._sleep = sleep
        self._sources = Sources([])
        self._items: list[Item] = []
        self.listed = False
        """Whether it is known which files there are."""
        self._halt: EarlyStop | None = None
        self._abandoned = False
        self._has_ledger = False

    @property
    def receipts(self) -> list[Receipt]:
        """One receipt per listed file, in the order of the listing; final once :meth:`run` has ended."""
        return [*self._gone, *(item.receipt for item in self._items)]

    @property
    def _gone(self) -> list[Receipt]:
        return no_longer_listed(self._earlier, (item.receipt for item in self._items))

    def failure(self) -> AmiliError | None:
        """Return the error that the task must end with, or None."""
        wanted, absent = (self._options.expect, self._options.min_files), self._sources.missing
        missing = what_is_missing(*wanted, *self._found(), absent) if self.listed else []
        return failure(
            self.receipts,
            halt=self._halt,
            has_ledger=self._has_ledger,
            missing=missing,
            source=self._sources.shown,
        )

    def nothing_there(self) -> str | None:
        """Return the sentence for a listing with nothing to deliver, or None if a file was delivered or tried."""
        there, skipped = self._found()
        if there:
            return None
        archived = _ARCHIVED if self._options.archive_to and self._has_ledger and not skipped else ""
        return nothing_there(self._sources, skipped) + archived

    def _found(self) -> tuple[list[str], list[Skipped]]:
        """Return the names of the files that were delivered or tried, and the others with the reason."""
        there = [item.file.name for item in self._items if not item.skipped]
        there += [r.source.rpartition("/")[2] for r in self._gone if r.outcome is not Outcome.SKIPPED]
        return there, [(item.file.name, item.receipt.message or "") for item in self._items if item.skipped]

    def non_retryable_error(self, cause: BaseException) -> AmiliError | None:
        """Return the error to end with instead of *cause*, if a retry would send again what was accepted."""
        return non_retryable_error(self.receipts, has_ledger=self._has_ledger, cause=cause)

    def run(self) -> None:
        """
        List and deliver. What becomes of single files is in the receipts; what concerns all of them is raised.

        :raises AmiliArgumentError: for a wrong or missing argument or connection field.
        :raises FileNotFoundError: if a named file or folder does not exist.
        :raises AmiliStorageError: if the storage cannot be listed.
        :raises AmiliStorageSettingsError: if it cannot work as configured, or there are too many files.
        :raises AmiliLedgerUnavailable: if the ledger does not exist or cannot be reached; nothing was sent.
        """
        try:
            self._run()
        except (AmiliError, ValueError) as error:
            for receipt in self.receipts:
                if receipt.message == _NOT_TRIED:
                    receipt.message = one_line(f"Not tried: {error}")
            raise
        fault_points.reached("delivered")

    def _run(self) -> None:
        settings = self._hook.settings
        with wrong_arguments_are_permanent():
            options = self._options = replace(
                self._options,
                client_no=self._hook.client_no(self._options.client_no or None),
                environment=settings.environment,
                user_id=self._options.user_id or settings.user_id,
                max_request_bytes=settings.max_request_bytes,
                max_files_per_request=settings.max_files_per_request,
            )
            self._hook.get_conn()  # a wrong field of the connection shows before anything is read
            # The environment of a host of one's own is that host.
            to = f"{settings.environment}, " if settings.environment in ENVIRONMENTS else ""
            self._log.info(
                "Delivering as client %s, %s, to %s%s", options.client_no, options.file_type, to, settings.base_url
            )
            ledger = ledger_from(options.ledger, settings, client_no=options.client_no)
        if ledger is None:
            self._log.warning("No ledger: a re-run of this task may send files a second time.")
        else:
            self._log.info("Ledger: %s (%s)", ledger.store.shown, ledger.who)
        fault_points.reached("opened")
        self._has_ledger = ledger is not None
        with ExitStack() as closing:
            closing.callback(self._close_ledger, ledger)
            with wrong_arguments_are_permanent():
                if self._options.source:
                    self._sources = open_sources(self._options.source, self._options.source_conn_id)
                    closing.callback(self._sources.close)
                if ledger is not None:
                    keep_apart(ledger.store, self._sources.locations)
                self._items = self._prepare(self._list())
                self.listed = True
                moving = Moving(self._options, self._items, log=self._log)
                closing.callback(moving.close)
                if ledger is not None:
                    keep_apart(ledger.store, folders=moving.targets)
            telemetry = Telemetry(self._options)
            try:
                with telemetry.run(self._items):
                    self._deliver(ledger, telemetry)
            finally:
                restore(self._earlier, (item.receipt for item in self._items))
            goes_on = self._goes_on and any(item.receipt.outcome is Outcome.UNKNOWN for item in self._items)
            moving.move(self.failure(), has_ledger=self._has_ledger, goes_on=goes_on)

    def _close_ledger(self, ledger: Ledger | None) -> None:
        if ledger is not None and not self._abandoned:
            ledger.close()

    def _list(self) -> list[StorageFile]:
        started = time.monotonic()
        files = list_files(self._sources, max_files=self._options.max_files)
        fault_points.reached("listed")
        for folder in self._sources.missing:
            self._log.warning("%s does not exist.", folder)
        self._log.info(
            "Found %d file(s), %s, in %s (%.1f s)",
            len(files),
            shown_bytes(sum(f.size for f in files)),
            self._sources.shown,
            time.monotonic() - started,
        )
        return files

    def _prepare(self, files: Sequence[StorageFile]) -> list[Item]:
        """Give each file its item, and settle those that are not to be sent."""
        items = [
            Item(
                file,
                Receipt(
                    name=escaped(file.name) or file.url.rstrip("/").rpartition("/")[2] + "/",
                    source=file.url,
                    client_no=self._options.client_no,
                    file_type=self._options.file_type,
                    size=file.size,
                    message=_NOT_TRIED,
                    transient=True,
                ),
                index,
            )
            for index, file in enumerate(files)
        ]
        for item in items:
            if (reason := names.reason_to_ignore(item.file, self._options.ignore)) is not None:
                wrong = more_than_told(item.file) if reason == names.IS_EMPTY else None
                if wrong is None:
                    self._settle(item, Outcome.SKIPPED, reason)
                else:
                    self._settle(item, Outcome.NOT_SENT, str(wrong), transient=True)
            elif item.file.fault is not None:
                self._settle(item, Outcome.NOT_SENT, f"It cannot be read: {item.file.fault}.")
        self._wait_for_writers([item for item in items if not item.done])
        self._name([item for item in items if not item.done])
        return items

    def _wait_for_writers(self, items: Sequence[Item]) -> None:
        if not self._options.stable_for or not items:
            return
        seconds = self._options.stable_for
        self._log.info("Waiting %g s to see which of %d file(s) still change", seconds, len(items))
        self._sleep(seconds)
        unstable = unstable_files([item.file for item in items], self._list(), seconds)
        for item in items:
            if (reason := unstable.get(item.file.key)) is not None:
                self._settle(item, Outcome.NOT_SENT, reason, transient=True)

    def _name(self, items: Sequence[Item]) -> None:
        """Give each file the name that Amili gets, and refuse names that cannot be used."""
        for item in items:
            try:
                wanted = self._wanted_name(item)
            except Exception as error:  # noqa: BLE001 - whatever a template raises is about the file it was given
                said = one_line(f"{type(error).__name__}: {error}", 180).rstrip(".")
                self._settle(item, Outcome.NOT_SENT, f"file_name fails for it: {said}. Correct the template.")
                continue
            try:
                item.receipt.name = names.checked_name(wanted)
            except ValueError as error:
                in_other_bytes = item.file.location_root.protocol == "ftp" and names.is_undecoded(item.file.name)
                advice = _ENCODING if in_other_bytes else _SAFE_NAME
                self._settle(
                    item, Outcome.NOT_SENT, f"It cannot be sent under its name: {one_line(error, 180)}. {advice}"
                )
        going = [item for item in items if not item.done]
        first: dict[str, Item] = {}
        namesakes: dict[str, list[Item]] = {}
        for item in going:
            name = names.comparable(item.receipt.name)
            if (namesake := first.setdefault(name, item)) is not item:
                namesakes.setdefault(name, [namesake]).append(item)
        for same in namesakes.values():
            # One sentence for all of them, so that a report says it once.
            folders = list(dict.fromkeys(item.file.url.rpartition("/")[0] + "/" for item in same))
            places = " and ".join(folders[:2]) + (f" and {len(folders) - 2} more" if len(folders) > 2 else "")  # noqa: PLR2004
            reason = f"Another file of this run has the name '{same[0].receipt.name}'. {_UNIQUE_NAME} Found in {places}"
            for item in same:
                item.receipt.name = escaped(item.file.name)  # by which a person finds it
                self._settle(item, Outcome.NOT_SENT, reason)

    def _wanted_name(self, item: Item) -> str:
        file = item.file
        if self._options.rename is None:
            return file.name
        stem, suffix = names.split_suffix(file.name)
        address = file.location_root.storage.prefix + file.path
        return self._options.rename(
            FileFacts(
                name=file.name,
                stem=stem,
                suffix=names.sendable(suffix),
                path=file.url,
                index=item.index,
                safe_name=names.safe_name(file.name, address),
                unique_name=names.unique_name(file.name, address),
            )
        )

    def _settle(self, item: Item, outcome: Outcome, reason: str, *, transient: bool = False) -> None:
        """Settle a file that is not sent; a retry changes nothing about it unless *transient*."""
        item.receipt.outcome, item.receipt.message, item.receipt.transient = outcome, reason, transient
        item.skipped = outcome is Outcome.SKIPPED
        item.done = True

    def _deliver(self, ledger: Ledger | None, telemetry: Telemetry) -> None:
        going = [item for item in self._items if not item.done]
        for group in groups(item.receipt.as_dict() for item in self._items if item.done):
            self._log.info("%s: %s: %s", group.outcome, group.names, group.words)
        if not going:
            return
        client = self._hook.get_conn()
        session = LedgerSession(ledger, self._options, client)
        pipeline = Pipeline(self._options, client, session, log=self._log, telemetry=telemetry)
        try:
            pipeline.run(going)
        finally:
            self._halt, self._abandoned = pipeline.halt, pipeline.abandoned
