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
    Add the numbers of files by outcome to the run's note, if Airflow can.

    The lines of people and of other tasks stay; where there is no room beside them, the note stays as it is. A mapped
    task writes none: there is one note for all of a run, and hundreds of map indexes would only replace each other's. A
    note that fails fails no delivery.

    :param context: Airflow's.
    :param task_id: the operator's.
    :param receipts: of the run.
    :param log: the task's logger.
    """
    ti = context.get("ti")
    if not receipts or not hasattr(ti, "update_dagrun_note") or getattr(ti, "map_index", -1) not in (None, -1):
        return
    mine = f"{task_id}: {in_numbers([receipt.as_dict() for receipt in receipts])}"
    try:
        others = [line for line in _note_now(ti).splitlines() if not line.startswith(f"{task_id}: ")]
        note = "\n".join([*others, mine])
        if len(note) <= _LONGEST:
            ti.update_dagrun_note(note)
        else:
            log.info("The run's note has no room for one more line, and stays as it is.")
    except Exception as error:  # noqa: BLE001 - whatever Airflow raises is about the note
        log.warning("The run's note could not be written: %s", one_line(f"{type(error).__name__}: {error}", 200))


def _note_now(ti: Any) -> str:
    """Return the run's note as it is now: the one in the context is as old as the task's beginning."""
    from airflow.sdk.execution_time import comms, task_runner

    run: Any = task_runner.SUPERVISOR_COMMS.send(comms.GetDagRun(dag_id=ti.dag_id, run_id=ti.run_id))
    return run.note or ""
