"""
Workers by the dozen: a process that forks one for every run of the operator, with everything imported already.

Where :mod:`tests.chaos.station` is a real Airflow, this is only the operator with a stand-in for the task instance. It
is fast enough to kill a worker at every single point that there is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from tests.chaos import station


class _TaskInstance:
    """What the operator needs of a task instance."""

    def __init__(self, run_id: str, max_tries: int) -> None:
        self.dag_id, self.task_id, self.run_id, self.map_index = "forge", "upload", run_id, -1
        self.max_tries, self.try_number = max_tries, 1
        self.pushed: list[dict[str, Any]] | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep what was pushed."""
        assert key
        self.pushed = value


class _Forge:
    """Runs workers."""

    def __init__(self) -> None:
        # Imported before anything is forked.
        import amili_provider.api.client
        import amili_provider.delivery.run
        import amili_provider.hooks.amili
        import amili_provider.ledger.sql  # noqa: F401

    def run(self, *, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run workers at the same time, and tell for each how it ended: ``killed``, an error's class, or ``done``."""
        children = [self._fork(run) for run in runs]
        return [self._ended(*child) for child in children]

    def _fork(self, run: dict[str, Any]) -> tuple[int, int]:
        reading, writing = os.pipe()
        if not (child := os.fork()):
            os.close(reading)
            try:
                told = json.dumps(_work(**run)).encode()
                while told:
                    told = told[os.write(writing, told) :]
            finally:
                os._exit(0)
        os.close(writing)
        return child, reading

    @staticmethod
    def _ended(child: int, reading: int) -> dict[str, Any]:
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        return json.loads(told) if told else {"how": "killed", "receipts": None}


def _work(
    *, plan: dict[str, Any], run_id: str, max_tries: int = 0, arguments: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run the operator in this process."""
    from amili_provider.operators.amili import AmiliFileUploadOperator
    from tests.chaos import saboteur

    ti = _TaskInstance(run_id, max_tries)
    try:
        saboteur.carry_out({"clock": 0.0, **plan})
        operator = AmiliFileUploadOperator(task_id="upload", **(arguments or {}))
        return {"how": "done", "receipts": operator.execute({"ti": ti})}  # type: ignore[typeddict-item]
    except BaseException as error:  # noqa: BLE001 - told to the test, which judges it
        return {"how": type(error).__name__, "receipts": ti.pushed, "said": str(error)}


if __name__ == "__main__":
    station.serve(int(sys.argv[2]), _Forge())
