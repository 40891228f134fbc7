"""How a task ends that found nothing to deliver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

if TYPE_CHECKING:
    from logging import Logger

    from amili_provider.receipts import Receipt

MAY_COME = "They may still come: Airflow looks again as often as the task's retries say."


def end_with_nothing(sentence: str, if_no_files: str, log: Logger | Any, receipts: Sequence[Receipt] = ()) -> None:
    """
    End the task as *if_no_files* says; return where it shall succeed.

    The sentence is the last line of the task's own log: what Airflow says of an exception may be in a folded group.

    :param sentence: what was looked for and not found.
    :param if_no_files: ``fail``, ``skip`` or ``succeed``.
    :param log: the task's logger.
    :param receipts: of the files that were found and skipped.
    :raises AmiliFilesMissing: to fail; Airflow retries, for they may still come.
    :raises AirflowSkipException: to be skipped.
    """
    from amili_provider.exceptions import AmiliFilesMissing
    from amili_provider.reports import laid_out

    if if_no_files == "fail":
        words = f"{sentence} {MAY_COME} If there may be none, say if_no_files='skip'."
        log.error("%s", laid_out(words))
        raise AmiliFilesMissing(words, receipts=[receipt.as_dict() for receipt in receipts], missing=[sentence])
    log.warning("%s", laid_out(sentence))
    if if_no_files == "skip":
        raise AirflowSkipException(sentence)
