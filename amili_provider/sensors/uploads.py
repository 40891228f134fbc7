"""Which mapped uploads left no receipts: Airflow leaves them out of what it hands over, without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.sdk import Context, XComArg

_NOTHING_SENT = ("removed", "skipped")
"""States of tasks that may have no receipts because nothing was sent."""
_MOST_SHOWN = 20


def uploads_in(receipts: Any) -> list[str | None]:
    """
    Return the task of each part of *receipts*, before Airflow puts values in their place; None for one it cannot name.

    :param receipts: the sensor's argument: ``upload.output``, or a list of such, or anything else.
    """
    return [_upload(part) for part in (receipts if isinstance(receipts, list | tuple) else [receipts])]


def _upload(part: Any) -> str | None:
    tasks = [operator.task_id for operator, _ in XComArg.iter_xcom_references(part)]
    return tasks[0] if isinstance(part, XComArg) and len(tasks) == 1 else None


def without_receipts(uploads: Sequence[str | None], receipts: Any, context: Context) -> list[str]:
    """
    Return in words what is missing from the receipts of mapped uploads, a sentence for each task.

    :param uploads: from :func:`uploads_in`.
    :param receipts: what Airflow put in their place.
    :param context: Airflow's.
    """
    ti: Any = context.get("ti")
    parts = receipts if isinstance(receipts, list | tuple) and len(receipts) == len(uploads) else [receipts]
    found = []
    for task_id, part in zip(uploads, parts, strict=False):
        # What one upload returned is a list; Airflow reads those of a mapped one as they are asked for.
        if ti is None or task_id is None or isinstance(part, list | tuple) or not isinstance(part, Sequence):
            continue
        states = _states(ti, task_id)
        if len(part) >= len(states):
            continue
        lost = {
            index: state
            for index, state in sorted(states.items())
            if state not in _NOTHING_SENT and ti.xcom_pull(task_ids=task_id, map_indexes=index) is None
        }
        if lost:
            shown = ", ".join(f"{index} ({state})" for index, state in list(lost.items())[:_MOST_SHOWN])
            others = f" and {len(lost) - _MOST_SHOWN} more" if len(lost) > _MOST_SHOWN else ""
            found.append(
                f"Receipts came from {len(part)} of {len(states)} uploads of task {task_id!r}; none came from map "
                f"index {shown}{others}."
            )
    return found


def _states(ti: Any, task_id: str) -> dict[int, str]:
    """Return the state of each map index of a task in this run."""
    if hasattr(ti, "get_task_states"):
        told = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id]).get(ti.run_id, {})
        # The keys are task ids, with the map index after them.
        return {int(key.removeprefix(f"{task_id}_")): str(state) for key, state in told.items() if key != task_id}
    # Airflow 2.11 asks its database.
    return {
        other.map_index: str(other.state)
        for other in ti.get_dagrun().get_task_instances()
        if other.task_id == task_id and other.map_index >= 0
    }
