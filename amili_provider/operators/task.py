"""The task around an upload: which run of which task it is, and how it ends if nothing is there to deliver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from airflow.providers.common.compat.sdk import AirflowSkipException

from amili_provider.ledger.attempts import Run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
if TYPE_CHECKING:
    from logging import Logger

    from amili_provider.receipts import Receipt


def this_run(context: Context, task_id: str) -> Run:
    """
    Return who is delivering.

    :param context: Airflow's; an empty one will do, and is a chain of its own.
    :param task_id: the operator's.
    """
    ti = context.get("ti")
    if ti is None:
        return Run(task_id=task_id, chain=uuid4().hex)
    facts = {
        "dag_id": str(getattr(ti, "dag_id", "")),
        "run_id": str(getattr(ti, "run_id", "")),
        "task_id": str(getattr(ti, "task_id", task_id)),
    }
    map_index = getattr(ti, "map_index", -1)
    # A retry keeps max_tries, a clear raises it: so a chain is what the user asked for once.
    chain = "/".join([*facts.values(), str(map_index), str(getattr(ti, "max_tries", 0)), *_place_in_loop(ti)])
    return Run(
        **facts,
        map_index=-1 if map_index is None else int(map_index),
        try_number=int(getattr(ti, "try_number", 1) or 1),
        chain=chain,
    )


def _place_in_loop(ti: Any) -> list[str]:
    """Return what tells the iterations of a loop apart (Airflow 3.4 and newer); outside of loops nothing."""
    region = getattr(ti, "region_id", None)
    return [str(region), str(ti.region_index)] if isinstance(region, UUID) and region.int else []


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
    from amili_provider.report_lines import laid_out

    if if_no_files == "fail":
        words = f"{sentence} {MAY_COME} If there may be none, say if_no_files='skip'."
        log.error("%s", laid_out(words))
        raise AmiliFilesMissing(words, receipts=[receipt.as_dict() for receipt in receipts], missing=[sentence])
    log.warning("%s", laid_out(sentence))
    if if_no_files == "skip":
        raise AirflowSkipException(sentence)
