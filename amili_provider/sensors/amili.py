"""Sensors: wait until Amili has a final result, and fail by name what it refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import XComArg

from amili_provider.connection.fields import label as field_label
from amili_provider.connection.values import checked_client_no
from amili_provider.exceptions import AmiliResultFailed
from amili_provider.report_lines import MOST_LINES, by_outcome, told
from amili_provider.sensors.base import AmiliSensor, words_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from amili_provider.sensors.arguments import Asked
    from amili_provider.triggers.amili import AmiliTrigger
    from amili_provider.triggers.polling import Open, Settled
    from amili_provider.triggers.questions import Key

_PARTIAL_CHOICES = ("wait", "fail", "succeed")


class AmiliFileResultSensor(AmiliSensor):
    """
    Waits until each file has a final result, and fails naming those that Amili refused.

    The upload's own answer is the signal that Amili documents, and the upload operator judges it. This sensor asks
    again later, at an endpoint whose path and words are assumed: *result_path* and the words are configurable.

    Returns a list with ``file_id, name, client_no, status, result, message`` of each file that was asked for.

    :param receipts: what an upload returned (``upload.output``), mapped or not. Files that were ``rejected`` or
        ``not_sent`` fail the wait at once, and so does a mapped upload of which a part left no receipts; files that
        were ``skipped`` need nothing.
    :param file_ids: ids instead of receipts.
    :param result_path: the path of a file's result, with ``{clientno}`` and ``{fileid}`` in it; None for the
        connection's.
    :param arguments: see :class:`~amili_provider.sensors.base.AmiliSensor`.
    """

    template_fields: Sequence[str] = (*AmiliSensor.template_fields, "receipts", "file_ids", "result_path")
    template_fields_renderers: ClassVar[dict[str, str]] = {"receipts": "json", "file_ids": "json"}

    def __init__(
        self, *, receipts: Any = None, file_ids: Any = None, result_path: str | None = None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        # Now, since Airflow will put values in the place of references.
        parts = receipts if isinstance(receipts, list | tuple) else [receipts]
        self._uploads = [] if receipts is None else [_task_of(part) for part in parts]
        self._lost: list[str] = []
        self.receipts = receipts
        self.file_ids = file_ids
        self.result_path = result_path

    def execute(self, context: Context) -> Any:
        """Wait, if there are receipts of every upload."""
        from amili_provider.sensors.arguments import without_receipts

        self._lost = without_receipts(self._uploads, self.receipts, context)
        return super().execute(context)

    def _asked(self) -> Asked:
        from amili_provider.sensors.arguments import asked_for

        return asked_for(self.receipts, self.file_ids, self.client_no)

    def _wanted(self) -> list[tuple[str | None, str]]:
        return self._asked().files

    def _names(self) -> dict[str, str]:
        return self._asked().names

    def _hopeless(self) -> AmiliResultFailed | None:
        lost = self._asked().undeliverable
        if self._lost:
            remedy = "What became of the files of the others is not known here: see their logs, and clear them."
            return AmiliResultFailed("\n".join([*self._lost, remedy]), receipts=lost)
        if not lost:
            return None
        head = [
            f"{len(lost)} file(s) never arrived at Amili: there is no result to wait for.",
            "Let the upload deliver them first; its own message says what to do.",
        ]
        sections = [(f"{outcome} ({len(some)})", some) for outcome, some in by_outcome(lost).items()]
        return AmiliResultFailed("\n".join([*head, *told(sections, MOST_LINES - len(head))]), receipts=lost)

    def _trigger(self, keys: list[Key], **arguments: Any) -> AmiliTrigger:
        from amili_provider.triggers.amili import AmiliFileResultTrigger

        by_client: dict[str, list[str]] = {}
        for client_no, file_id in keys:
            by_client.setdefault(client_no, []).append(file_id)
        return AmiliFileResultTrigger(file_ids=by_client, result_path=self.result_path, **arguments)

    def _result(self, settled: dict[Key, Settled]) -> list[dict[str, Any]]:
        asked, by_id = self._asked(), {key[1]: one for key, one in settled.items()}
        found = [by_id[one] if number is None else settled[number, one] for number, one in asked.files]
        return [_shown(one, asked.names) for one in found]

    def _refused(self, refused: list[Settled], still_open: list[Open], total: int) -> AmiliResultFailed:
        names = self._asked().names
        head = [
            f"Amili refused {len(refused)} of {total} file(s).",
            "Correct them at their source, in the words of Amili below, and upload them again.",
        ]
        if still_open:
            head.append(f"{len(still_open)} of the others had no final result yet.")
        receipts = [_shown(one, names) for one in refused]
        rejected = [{**one, "name": one["name"] or one["file_id"], "outcome": "rejected"} for one in receipts]
        lines = told([(f"rejected ({len(rejected)})", rejected)], MOST_LINES - len(head))
        return AmiliResultFailed("\n".join([*head, *lines]), receipts=receipts)

    def _time_is_up_words(self, still_open: str) -> str:
        return (
            f"No final result within {self.timeout:g} s: {still_open or 'of any file that was still open'}. Where "
            "results are asked for is an assumption, Amili does not document it. If these files should have one, "
            f"ask Amili for the path and its words, and set {field_label('result_path')}, "
            f"{field_label('accepted_results')}, {field_label('refused_results')} and "
            f"{field_label('pending_results')} of connection {self.amili_conn_id!r}, or the sensor's arguments of "
            "the same names. What the upload itself returned is not put in doubt by this."
        )


class AmiliBatchSensor(AmiliSensor):
    """
    Waits until a batch is processed: ``GET /clients/{clientno}/batches/{batchuuid}`` (page "GET one batch").

    For what is posted through ``AmiliHook.request``, such as batches of documents or customers; uploaded files have
    no batch. 200 is done, 202 still working, 206 done in part; 404 for some minutes, and every other code, fails.
    A word that means refused, anywhere in the answer, outweighs a 200; one that means pending, or that nobody knows,
    is no acceptance either: the wait goes on.

    Returns ``batch_uuid, client_no, status, result, message``.

    :param batch_uuid: as Amili gave it.
    :param if_partial: what a batch that is done in part means: ``wait`` (it goes on, until the time-out), ``fail``,
        or ``succeed``.
    :param arguments: see :class:`~amili_provider.sensors.base.AmiliSensor`.
    """

    template_fields: Sequence[str] = (*AmiliSensor.template_fields, "batch_uuid", "if_partial")

    def __init__(self, *, batch_uuid: str, if_partial: str = "wait", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.batch_uuid = batch_uuid
        self.if_partial = if_partial

    def _wanted(self) -> list[tuple[str | None, str]]:
        from amili_provider.sensors.arguments import checked_uuid

        if self.if_partial not in _PARTIAL_CHOICES:
            raise ValueError(f"if_partial must be one of {', '.join(_PARTIAL_CHOICES)}, not {self.if_partial!r}.")
        given = self.client_no
        number = None if given is None or given == "" else checked_client_no(given, "client_no")
        return [(number, checked_uuid(self.batch_uuid))]

    def _trigger(self, keys: list[Key], **arguments: Any) -> AmiliTrigger:
        from amili_provider.triggers.amili import AmiliBatchTrigger

        ((client_no, batch_uuid),) = keys
        return AmiliBatchTrigger(client_no=client_no, batch_uuid=batch_uuid, if_partial=self.if_partial, **arguments)

    def _result(self, settled: dict[Key, Settled]) -> dict[str, Any]:
        (one,) = settled.values()
        return {"batch_uuid": one.id, **_facts(one)}

    def _refused(self, refused: list[Settled], _still_open: list[Open], _total: int) -> AmiliResultFailed:
        (one,) = refused
        return AmiliResultFailed(f"Amili refused batch {one.id}: {words_of(one)}")

    def _time_is_up_words(self, still_open: str) -> str:
        return (
            f"The batch was not processed within {self.timeout:g} s: {still_open or self.batch_uuid}. A batch that is "
            "processed in part (206) counts as unfinished; if_partial says otherwise. If words shown here mean that it "
            f"is processed, put them into {field_label('accepted_results')} of connection {self.amili_conn_id!r}, or "
            "into the sensor's argument accepted_results."
        )


def _task_of(part: Any) -> str | None:
    """Return the task whose receipts a part of the argument is; None for anything else, and for several tasks."""
    tasks = [operator.task_id for operator, _ in XComArg.iter_xcom_references(part)]
    return tasks[0] if isinstance(part, XComArg) and len(tasks) == 1 else None


def _facts(one: Settled) -> dict[str, Any]:
    return {"client_no": one.client_no, "status": one.status, "result": one.result, "message": one.message}


def _shown(one: Settled, names: dict[str, str]) -> dict[str, Any]:
    return {"file_id": one.id, "name": names.get(one.id), **_facts(one)}
