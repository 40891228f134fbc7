"""Hand files from any Airflow storage connection to Amili."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow.providers.common.compat.sdk import AirflowSkipException

from amili_provider.connection.fields import LEDGER_FROM_CONNECTION
from amili_provider.operators.assets import AmiliReceiptsLink
from amili_provider.operators.templates import SourceOperator
from amili_provider.report_lines import laid_out_errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from amili_provider.delivery.options import Options
    from amili_provider.delivery.run import UploadRun
    from amili_provider.operators.asking import Asking
    from amili_provider.receipts import Receipt


class _Stopped(BaseException):
    """Ends a delivery from a signal handler in its own thread; nothing on the way may take it for an error."""


class AmiliFileUploadOperator(SourceOperator):
    """
    Upload files from any Airflow storage connection to Amili, and return a receipt for each.

    Green means that Amili's answer accepts every file, now or in an earlier run: what the ledger says was accepted
    is not sent again. Files that Amili refuses never stop the others. The receipts are the task's XCom, also when
    it fails. Source of the API: "POST (upload) one or more OS files".

    :param source: a file, a folder, a glob, or a list of these: ``s3://bucket/outbound/*.csv``, or
        a path without scheme, for the storage of *source_conn_id*; ``exact:`` before it: no glob. (templated)
    :param file_type: one of the OS file types that Amili configured for the client, for example
        ``InvoiciaFormatDocFile``. (templated)
    :param source_conn_id: connection of the storage; None for files of the worker or default credentials. (templated)
    :param client_no: Amili's client number; default: the connection's. (templated)
    :param user_id: ``metadata.userId`` of the request; default: the connection's. (templated)
    :param amili_conn_id: connection of type ``amili``. (templated)
    :param file_name: template for the name that Amili gets, rendered for each file with ``file.name``, ``file.stem``,
        ``file.suffix``, ``file.path``, ``file.index``, ``file.safe_name``, ``file.unique_name`` and the task's context;
        default: the file's base name.
    :param ignore: kinds of files that are skipped: any of ``hidden``, ``temporary``, ``empty``.
    :param stable_for: seconds for which a file must not have changed; others are not sent, and Airflow retries.
    :param max_files: more files than this are an error before anything is sent.
    :param if_no_files: ``fail``, ``skip`` or ``succeed`` if nothing matches, or only files that are ignored.
    :param expect: a pattern of base names, or a list of these; a file must match each. What is there is delivered,
        then the task fails if one is missing. (templated)
    :param min_files: the least number of files; with fewer, what is there is delivered, then the task fails.
        (templated)
    :param if_unknown: what to do about files whose outcome is unknown: ``fail``; ``check`` asks Amili's result endpoint
        about those of earlier runs and never sends; ``resend`` asks, and sends what is answered with 404; ``ask``
        delivers the others, then asks a person in Airflow (3.1 and newer), and goes on as they say. (templated)
    :param assigned_users: the only users who may answer, as Airflow's ``HITLOperator`` has them; default: all who may
        act on the DAG.
    :param response_timeout: how long to wait for the answer, a timedelta; default: for ever. Then as ``fail``.
    :param if_duplicate: what to do about a file whose bytes Amili accepted under another name, before or in this run:
        ``fail`` sends the others and fails the task; ``skip`` takes it as ``already_uploaded``, with a warning;
        ``send`` sends it, once. (templated)
    :param force: send files again that were accepted before, under whatever name; Airflow's retries do not repeat it.
        (templated)
    :param ledger: another ledger than the connection's: a table of its database, a SQLite file
        (``sqlite:////path/ledger.db``) or a prefix of a bucket (``s3://bucket/prefix``), which must have been created;
        ``None`` to work without one and accept that a re-run may send files twice. (templated)
    :param archive_to: folder to which delivered files are moved. (templated)
    :param reject_to: folder to which refused files are moved. (templated)
    :param dry_run: list, hash and ask the ledger, send nothing, end as skipped. (templated)
    :param max_concurrent_requests: requests in flight at once.
    :param max_memory_bytes: bytes of content held in memory at once.
    :raises AmiliArgumentError: for a wrong argument, before anything is sent; also a ``ValueError``; no retry.
    :raises FileNotFoundError: if a named file or the folder of a pattern is missing; Airflow retries.
    :raises AmiliFilesMissing: if nothing is there and *if_no_files* is ``fail``, or not all that *expect* and
        *min_files* ask for; also a ``FileNotFoundError``; Airflow retries.
    :raises AmiliStorageError: if the storage cannot be listed; Airflow retries.
    :raises AmiliStorageSettingsError: if the storage cannot work as configured, or there are too many files; no retry.
    :raises AmiliLedgerUnavailable: if the ledger does not exist or cannot be reached, before anything is sent; Airflow
        retries.
    :raises AmiliDeliveryIncomplete: if files could not be tried for causes that pass; Airflow retries.
    :raises AmiliOutcomeUnknown: if files were sent and the answer was lost or not understood; no retry.
    :raises AmiliUploadRejected: if Amili refused files; no retry.
    :raises AmiliDuplicateFiles: if Amili accepted the bytes of files under another name; no retry.
    :raises AmiliAuthenticationError: if Amili does not let us in; no retry.
    :raises AmiliRequestError: if the request as such is refused (wrong URL or client); no retry.
    :raises AmiliDeliveryFailed: if files cannot be sent as they are; no retry.
    """

    template_fields: Sequence[str] = (
        "source",
        "source_conn_id",
        "file_type",
        "client_no",
        "user_id",
        "amili_conn_id",
        "expect",
        "min_files",
        "if_unknown",
        "if_duplicate",
        "force",
        "ledger",
        "archive_to",
        "reject_to",
        "dry_run",
    )
    ui_color = "#d9e8e3"
    operator_extra_links = (AmiliReceiptsLink(),)

    _base_url: str = ""
    _receipts: Sequence[Receipt] = ()
    _delivering: bool = False
    """Of the last execution in this process, for lineage."""

    def __init__(
        self,
        *,
        source: str | Sequence[str],
        file_type: str,
        source_conn_id: str | None = None,
        client_no: str | int | None = None,
        user_id: str | None = None,
        amili_conn_id: str = "amili_default",
        file_name: str | None = None,
        ignore: Sequence[str] = ("hidden", "temporary", "empty"),
        stable_for: float | timedelta | None = None,
        max_files: int = 10_000,
        if_no_files: Literal["fail", "skip", "succeed"] = "fail",
        expect: str | Sequence[str] | None = None,
        min_files: int | str | None = None,
        if_unknown: str = "fail",
        assigned_users: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        response_timeout: timedelta | None = None,
        if_duplicate: str = "fail",
        force: bool | str = False,
        ledger: str | None = LEDGER_FROM_CONNECTION,
        archive_to: str | None = None,
        reject_to: str | None = None,
        dry_run: bool | str = False,
        max_concurrent_requests: int = 4,
        max_memory_bytes: int = 64 * 1024 * 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.file_type = file_type
        self.source_conn_id = source_conn_id
        self.client_no = client_no
        self.user_id = user_id
        self.amili_conn_id = amili_conn_id
        self.file_name = file_name
        self.ignore = ignore
        self.stable_for = stable_for
        self.max_files = max_files
        self.if_no_files = if_no_files
        self.expect = expect
        self.min_files = min_files
        self.if_unknown = if_unknown
        self.assigned_users = assigned_users
        self.response_timeout = response_timeout
        self.if_duplicate = if_duplicate
        self.force = force
        self.ledger = ledger
        self.archive_to = archive_to
        self.reject_to = reject_to
        # An attribute has its parameter's name, so this one hides BaseOperator.dry_run(), which renders and prints.
        self.dry_run = dry_run  # type: ignore[method-assign,assignment]
        self.max_concurrent_requests = max_concurrent_requests
        self.max_memory_bytes = max_memory_bytes

    @laid_out_errors()
    def execute(self, context: Context) -> list[dict[str, Any]]:
        """
        Deliver the files and return their receipts.

        :param context: Airflow's; an empty one will do.
        """
        from amili_provider.exceptions import wrong_arguments_are_permanent
        from amili_provider.operators.arguments import options_of

        self._receipts = ()
        with wrong_arguments_are_permanent():
            options = options_of(self, context)
            asking = self._asking(options) if options.if_unknown == "ask" else None
        return self._deliver(options, context, asking)

    @laid_out_errors()
    def execute_complete(
        self, context: Context, event: Mapping[str, Any], file_ids: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        """
        Settle what a person answered, deliver once more, and return the receipts; Airflow calls this.

        :param context: Airflow's.
        :param event: the answer, or why there is none.
        :param file_ids: the files that were asked about, and their attempts of unknown outcome then.
        """
        from amili_provider.exceptions import AmiliOutcomeUnknown, wrong_arguments_are_permanent
        from amili_provider.operators import asking as questions
        from amili_provider.operators.arguments import options_of

        ti: Any = context["ti"]
        self._receipts = earlier = questions.earlier_receipts(ti, self.task_id)
        with wrong_arguments_are_permanent():
            options = options_of(self, context)
            asking = self._asking(options)
        answer = questions.answer_of(event, asking.timeout)
        self.log.info("%s", answer.words)
        if answer.arrived is None:
            raise questions.left_unknown(answer, earlier, file_ids)
        if answer.lacks_reason:
            asking.again(answer, file_ids, ti)
        else:
            with asking.open_ledger() as ledger:
                known = questions.settle(ledger, answer, file_ids, options.run)
            earlier = questions.as_answered(earlier, answer, known)
        try:
            return self._deliver(options, context, None, earlier)
        except AmiliOutcomeUnknown as failure:
            raise questions.with_words(questions.ASKED_BEFORE, failure) from None

    def _deliver(
        self, options: Options, context: Context, asking: Asking | None, earlier: Sequence[Receipt] = ()
    ) -> list[dict[str, Any]]:
        from amili_provider.delivery.run import UploadRun
        from amili_provider.exceptions import AmiliError, wrong_arguments_are_permanent
        from amili_provider.hooks.amili import AmiliHook
        from amili_provider.operators.task import policy_for

        # Here and not in __init__: it is asked in this process, of mapped tasks too, and nothing has to be serialized.
        self.retry_policy = policy_for(getattr(self, "retry_policy", None))
        started = time.monotonic()
        with AmiliHook(self.amili_conn_id) as hook:
            with wrong_arguments_are_permanent():
                self._base_url = hook.settings.base_url
            log = cast("logging.Logger", self.log)
            run = UploadRun(options, hook, log=log, earlier=earlier, goes_on=asking is not None)
            stopped = False
            try:
                self._delivering = True
                run.run()
            except _Stopped:
                stopped = True
            except BaseException as error:
                non_retryable_error = run.non_retryable_error(error)
                try:
                    self._publish(context, run.receipts)
                finally:
                    if non_retryable_error is not None:
                        raise non_retryable_error from error
                raise
            finally:
                self._delivering = False
                self._receipts = run.receipts
        try:
            return self._concluded(
                run, options, context, None if stopped else asking, stopped=stopped, seconds=time.monotonic() - started
            )
        except (AirflowSkipException, AmiliError):
            raise
        except BaseException as error:
            if (non_retryable_error := run.non_retryable_error(error)) is not None:
                raise non_retryable_error from error
            raise

    def _concluded(
        self,
        run: UploadRun,
        options: Options,
        context: Context,
        asking: Asking | None,
        *,
        stopped: bool,
        seconds: float,
    ) -> list[dict[str, Any]]:
        """Tell what became of the files, and return their receipts if the task succeeds."""
        from amili_provider.delivery.progress import tell_end
        from amili_provider.exceptions import AmiliDeliveryIncomplete
        from amili_provider.operators.task import end_with_nothing

        receipts = run.receipts
        log = cast("logging.Logger", self.log)
        tell_end(log, receipts, seconds)
        published = [receipt.as_dict() for receipt in receipts]
        if (failure := run.failure()) is not None:
            self._publish(context, receipts)
            if asking is not None:
                asking.or_fail(failure, receipts, context.get("ti"))
            raise failure
        if stopped and not run.listed:
            self._publish(context, receipts)
            raise AmiliDeliveryIncomplete("The task was told to stop before it had listed the files. Nothing was sent.")
        if (nothing := run.nothing_there()) is not None:
            self._publish(context, receipts)
            end_with_nothing(nothing, options.if_no_files, self.log, receipts)
        elif options.dry_run:
            self._publish(context, receipts)
            raise AirflowSkipException(f"Dry run: nothing was sent; {len(receipts)} receipt(s) say what would be.")
        self._fill_outlets(context, receipts)
        return published

    def on_kill(self) -> None:
        """
        Stop; Airflow calls this from a signal handler when a running task is cleared, marked, or its worker goes away.

        What was not sent is not sent, answers on their way get a moment, and what is known is written down, all within
        the five seconds that Airflow gives. Without this, Airflow 3 would let the task go on until it kills it.
        """
        if self._delivering:
            self._delivering = False
            raise _Stopped

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:  # noqa: ARG002
        """
        Return one input per file that this execution uploaded, also if the task failed; OpenLineage asks.

        :param task_instance: not needed.
        """
        from amili_provider.operators.assets import facets

        return facets(self._receipts, self._base_url)

    def _asking(self, options: Options) -> Asking:
        """Return how to ask a person."""
        from amili_provider.operators.asking import asking_of

        log = cast("logging.Logger", self.log)
        return asking_of(self.assigned_users, self.response_timeout, options, self.amili_conn_id, log)

    def _publish(self, context: Context, receipts: Sequence[Receipt]) -> None:
        """Push the receipts of a task that does not succeed; a successful one returns them."""
        ti = context.get("ti")
        if ti is not None and self.do_xcom_push:
            ti.xcom_push(key="return_value", value=[receipt.as_dict() for receipt in receipts])

    def _fill_outlets(self, context: Context, receipts: Sequence[Receipt]) -> None:
        from amili_provider.operators.assets import fill_outlet_events

        if any(receipt.outcome.delivered for receipt in receipts):
            fill_outlet_events(context, self.outlets, receipts)
        else:
            # Airflow emits an event for each outlet of a task that succeeds; this object is this execution's alone.
            self.outlets = []
