"""A pause that Amili asks for is kept without holding a worker (Airflow 3.3+), and without using up a retry (3.4+)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from amili_provider.api.retry import LONGEST_ASKED_SECONDS

if TYPE_CHECKING or AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import RetryDecision, RetryPolicy
else:
    # Below 3.3 there is nobody to ask a policy; the task's own retry_delay stands.
    RetryPolicy = object


_PAUSES = 5
"""Pauses of one try at most. Somebody must hear of an Amili that is busy all day."""


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
