"""Which task is running: what receipts and claims say of it, and which of its tries belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from amili_provider.ledger.attempts import Run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


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
    chain = "/".join([*facts.values(), str(map_index), str(getattr(ti, "max_tries", 0))])
    return Run(
        **facts,
        map_index=-1 if map_index is None else int(map_index),
        try_number=int(getattr(ti, "try_number", 1) or 1),
        chain=chain,
    )
