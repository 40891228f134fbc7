"""Which executions of a task are one chain of attempts, in which nothing is sent again by force."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from amili_provider.operators.task import this_run

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
