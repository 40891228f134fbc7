"""The note on the DAG run (Airflow 3.4 and newer): "upload: 1 unknown, 1 rejected, 412 uploaded"."""

from __future__ import annotations

from collections.abc import Sequence
from logging import Logger
from typing import Any

from amili_provider.receipts import Receipt, one_line
from amili_provider.report_lines import in_numbers

_LONGEST = 1000
"""Characters that Airflow keeps."""


def note_on_run(context: Any, task_id: str, receipts: Sequence[Receipt], log: Logger) -> None:
    """
    Write the numbers of files by outcome into the run's note, if Airflow can.

    Lines of other tasks are kept where Airflow shows them to this one. A mapped task writes none: there is one note for
    all of a run, and hundreds of map indexes would only replace each other's. A note that fails fails no delivery.

    :param context: Airflow's.
    :param task_id: the operator's.
    :param receipts: of the run.
    :param log: the task's logger.
    """
    ti = context.get("ti")
    if not receipts or not hasattr(ti, "update_dagrun_note") or getattr(ti, "map_index", -1) not in (None, -1):
        return
    before = str(getattr(context.get("dag_run"), "note", None) or "").splitlines()
    others = [line for line in before if not line.startswith(f"{task_id}: ")]
    mine = f"{task_id}: {in_numbers([receipt.as_dict() for receipt in receipts])}"
    note = "\n".join([*others, mine])
    try:
        ti.update_dagrun_note(note if len(note) <= _LONGEST else mine[:_LONGEST])
    except Exception as error:  # noqa: BLE001 - whatever Airflow raises is about the note
        log.warning("The run's note could not be written: %s", one_line(f"{type(error).__name__}: {error}", 200))
