"""The task around an upload: which executions are one chain of attempts, and how long Airflow waits before the next."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS, get_base_airflow_version_tuple

from amili_provider.exceptions import AmiliConnectionError, AmiliDeliveryIncomplete, AmiliStorageError
from amili_provider.operators.task import AmiliRetryPolicy, policy_for, this_run

needs_policies = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="retry policies came with Airflow 3.3")
PAUSES = "reschedule" if get_base_airflow_version_tuple() >= (3, 4) else "retry"
LOOP = UUID("0193f3a0-0000-7000-8000-000000000001")


def _chain(**facts: Any) -> str:
    usual = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "max_tries": 3, "try_number": 1}
    ti: Any = SimpleNamespace(**{**usual, **facts})
    return this_run({"ti": ti}, "t").chain


def test_a_retry_goes_on_with_the_chain() -> None:
    """Also one on Airflow 3.4, which says of each task in which region it is: outside of loops in none."""
    assert _chain(try_number=2) == _chain()
    assert _chain(region_id=UUID(int=0), region_index=-1) == _chain()
    assert _chain(region_id=None) == _chain()
    assert _chain(region_id=LOOP, region_index=1, try_number=2) == _chain(region_id=LOOP, region_index=1)


def test_a_clear_a_map_index_and_an_iteration_are_chains_of_their_own() -> None:
    """Each is what was asked for once."""
    iterations = [_chain(region_id=LOOP, region_index=index) for index in range(3)]
    assert len({_chain(), _chain(max_tries=7), _chain(map_index=0), *iterations}) == 6


def _decided(
    error: BaseException, *, retry_delay: Any = timedelta(minutes=5), allowed: int = 3, paused: int = 0
) -> tuple[str, timedelta | None]:
    task = SimpleNamespace(retry_delay=retry_delay, retries=allowed)
    context = {"task": task, "task_reschedule_count": paused}
    decision = AmiliRetryPolicy().evaluate(error, 1, 3, context)
    return decision.action.value, decision.retry_delay


@needs_policies
@pytest.mark.parametrize("kind", [AmiliDeliveryIncomplete, AmiliConnectionError])
def test_a_longer_pause_that_amili_asked_for_is_kept(kind: Any) -> None:
    """Airflow waits, and no worker is held meanwhile."""
    assert _decided(kind("busy", retry_after=3600.0)) == (PAUSES, timedelta(hours=1))


@needs_policies
@pytest.mark.parametrize("state", [{"allowed": 0}, {"paused": 5}])
def test_a_task_without_retries_and_a_try_that_paused_often_use_them_up(state: dict[str, Any]) -> None:
    """An author's word holds, and an Amili that is busy all day is heard of."""
    assert _decided(AmiliDeliveryIncomplete("busy", retry_after=3600.0), **state) == ("retry", timedelta(hours=1))
    assert _decided(AmiliDeliveryIncomplete("busy", retry_after=3600.0), paused=4)[0] == PAUSES


@needs_policies
@pytest.mark.parametrize("error", [AmiliDeliveryIncomplete("busy"), AmiliStorageError("gone"), ValueError("wrong")])
def test_whatever_asks_for_no_pause_is_retried_as_the_task_says(error: Exception) -> None:
    """The task's own retry_delay and back-off stand."""
    assert _decided(error) == ("default", None)


@needs_policies
def test_a_pause_shorter_than_the_tasks_own_changes_nothing() -> None:
    """The task would not come back earlier anyway."""
    assert _decided(AmiliDeliveryIncomplete("busy", retry_after=60.0)) == ("default", None)
    assert _decided(AmiliDeliveryIncomplete("busy", retry_after=60.0), retry_delay=None)[0] == PAUSES


@needs_policies
def test_an_absurd_pause_is_a_day() -> None:
    """Nobody should wonder for a year why a task is not retried."""
    assert _decided(AmiliDeliveryIncomplete("busy", retry_after=1e9)) == (PAUSES, timedelta(days=1))


@needs_policies
def test_without_a_context_it_decides_all_the_same() -> None:
    """Airflow may have none to give."""
    decision = AmiliRetryPolicy().evaluate(AmiliDeliveryIncomplete("busy", retry_after=60.0), 1, 3, None)
    assert decision.retry_delay == timedelta(minutes=1)


def test_a_policy_of_the_author_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tasks that name none get ours, and only where Airflow knows policies."""
    named = object()
    assert policy_for(named) is named
    monkeypatch.setattr("amili_provider.operators.task.AIRFLOW_V_3_3_PLUS", False)
    assert policy_for(None) is None


@needs_policies
def test_a_task_without_a_policy_gets_ours() -> None:
    """It is set where it is asked: in the task's process."""
    assert isinstance(policy_for(None), AmiliRetryPolicy)
