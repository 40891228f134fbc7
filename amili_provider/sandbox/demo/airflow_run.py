"""
Airflow's side of the demo, in a process of its own: does one thing for each line on standard input.

A line is a JSON object: ``dag_id``, ``dags`` (the folder) and ``day`` run the example DAG, ``amili_ledger`` (arguments)
runs that command. What came of it goes as one line of JSON to the file descriptor given as the only argument;
everything that Airflow says goes to the standard streams.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any


def run(dag_id: str, dags: str, day: str) -> dict[str, Any]:
    """Run a DAG for a day with ``dag.test()``; return its state, its tasks' states and results, and the seconds."""
    from airflow.models.dagbag import DagBag

    bag = DagBag(dags)
    if bag.import_errors:
        return {"error": "\n".join(bag.import_errors.values())}
    dag = bag.get_dag(dag_id)
    if dag is None:
        return {"error": f"there is no DAG {dag_id!r} in {dags}"}
    before = time.monotonic()
    dag_run = dag.test(run_conf={"day": day})
    tasks = dag_run.get_task_instances()
    return {
        "seconds": time.monotonic() - before,
        "state": str(dag_run.state),
        "tasks": {task.task_id: str(task.state) for task in tasks},
        "returned": {task.task_id: task.xcom_pull(task_ids=task.task_id) for task in tasks},
    }


def ask_ledger(arguments: list[str]) -> dict[str, Any]:
    """Run ``amili-ledger``; return what it printed."""
    from amili_provider.command.cli import main as amili_ledger

    with redirect_stdout(io.StringIO()) as printed:
        code = amili_ledger(arguments)
    if code:
        return {"error": f"'amili-ledger {' '.join(arguments)}' failed"}
    return {"printed": printed.getvalue()}


def main() -> None:
    """Follow the orders until there are no more."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            try:
                order = json.loads(line)
                answer = ask_ledger(order["amili_ledger"]) if "amili_ledger" in order else run(**order)
            except Exception as error:  # noqa: BLE001 - said to the person who watches
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer, default=str) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
