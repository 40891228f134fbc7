"""
The way of one small local file, from ``execute`` to its receipt: the modules whose functions it calls, in order.

``python -m tests.suites.one_file`` delivers a file to a sandbox, with a ledger in a file of SQLite, and prints them.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

_PACKAGE = "amili_provider."
_OTHER_END = "amili_provider.sandbox."


def modules_on_the_way(folder: Path) -> list[str]:
    """Deliver one file from *folder*, and return the package's modules that ran, in the order of their first call."""
    from amili_provider.ledger.opening import create_in_file
    from amili_provider.operators.amili import AmiliFileUploadOperator
    from amili_provider.sandbox.server import SandboxServer
    from tests.wire.conftest import FakeTaskInstance

    source = folder / "out"
    source.mkdir()
    with SandboxServer() as sandbox:
        os.environ["AIRFLOW_CONN_AMILI_DEFAULT"] = sandbox.connection_json()
        ledger = create_in_file(folder / "ledger.db")
        seen: dict[str, None] = {}

        def look(frame: FrameType, event: str, _: Any) -> None:
            name = str(frame.f_globals.get("__name__", ""))
            # What an import runs is no part of the way.
            if event == "call" and frame.f_code.co_name != "<module>" and name.startswith(_PACKAGE):
                seen.setdefault(name, None)

        def deliver(name: str) -> None:
            (source / name).write_text(f"{name}\n")
            operator = AmiliFileUploadOperator(
                task_id="upload", source=str(source / name), file_type="InvoiciaFormatDocFile", ledger=ledger
            )
            operator.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]

        deliver("first.csv")  # whatever is imported or opened once
        threading.setprofile(look)
        sys.setprofile(look)
        try:
            deliver("second.csv")
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return [name for name in seen if not name.startswith(_OTHER_END)]


def main() -> int:
    """Print the modules, and how many there are."""
    with tempfile.TemporaryDirectory(prefix="amili-one-file-") as folder:
        os.environ.setdefault("AIRFLOW_HOME", folder)
        names = modules_on_the_way(Path(folder))
    for number, name in enumerate(names, 1):
        print(f"{number:3} {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
