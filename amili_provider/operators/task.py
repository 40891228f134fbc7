"""The task around an upload: which run it is, its end with nothing to deliver, and its retry policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from amili_provider.ledger.attempts import Run

if TYPE_CHECKING:
    from logging import Logger

    from airflow.providers.common.compat.sdk import Context

    from amili_provider.receipts import Receipt

if TYPE_CHECKING or AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import RetryDecision, RetryPolicy
else:
    # Below 3.3 no policy is asked; the task's own retry_delay stands.
    RetryPolicy = object

MAY_COME = "They may still come: Airflow looks again as often as the task's retries say."
_PAUSES = 5
"""Pauses of one try at most. Somebody must hear of an Amili that is busy all day."""


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


class AmiliRetryPolicy(RetryPolicy):
    """
    Waits before the next try for as long as Amili asked (``Retry-After``), if that is longer than ``retry_delay``.

    From Airflow 3.4 on the first five pauses of a try use up no retry, and call no ``on_retry_callback``; on 3.3 each
    does. A task without retries fails at once, and which errors are never retried stays as it is. Upload tasks that
    name no ``retry_policy`` of their own use this one.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow's signature
        max_tries: int,  # noqa: ARG002
        context: Any = None,
    ) -> RetryDecision:
        """
        Decide how long to wait.

        :param exception: what the task failed with; ours say in ``retry_after`` what Amili asked for.
        :param try_number: not used.
        :param max_tries: not used.
        :param context: Airflow's; knows the task's ``retry_delay`` and ``retries``, and how often the try has paused.
        """
        from amili_provider.api.transport import LONGEST_ASKED_SECONDS

        asked = getattr(exception, "retry_after", None)
        if not isinstance(asked, int | float) or isinstance(asked, bool):
            return RetryDecision.default()
        pause = timedelta(seconds=min(asked, LONGEST_ASKED_SECONDS))
        known = context or {}
        task = known.get("task")
        usual = getattr(task, "retry_delay", None)
        if isinstance(usual, timedelta) and pause <= usual:
            return RetryDecision.default()
        reason = f"Amili asked for a pause of {pause.total_seconds():.0f} seconds."
        reschedule = getattr(RetryDecision, "reschedule", None)
        if reschedule is None or not getattr(task, "retries", 0) or known.get("task_reschedule_count", 0) >= _PAUSES:
            return RetryDecision.retry(pause, reason)
        decision: RetryDecision = reschedule(pause, max_reschedules=_PAUSES, reason=reason)
        return decision


def policy_for(named: Any) -> Any:
    """
    Return the retry policy of an upload task.

    :param named: the one that the DAG's author gave it, if any.
    """
    return named if named is not None or not AIRFLOW_V_3_3_PLUS else AmiliRetryPolicy()
