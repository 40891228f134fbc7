"""Run the operator once in a process of its own, and print its receipts and the memory it took beyond idling."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any


def peak_kib() -> int:
    """Return the largest memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Take the operator's arguments as JSON; warm up on a small file first, so that imports are not counted."""
    from amili_provider.operators.amili import AmiliFileUploadOperator

    arguments: dict[str, Any] = json.loads(sys.argv[1])
    for source in json.loads(sys.argv[2]):
        operator = AmiliFileUploadOperator(task_id="upload", **{**arguments, "source": source})
        operator.execute({})
    idle = peak_kib()
    operator = AmiliFileUploadOperator(task_id="upload", **arguments)
    receipts = operator.execute({})
    print(json.dumps({"receipts": receipts, "beyond_idle_mib": (peak_kib() - idle) / 1024}))  # noqa: T201


if __name__ == "__main__":
    main()
