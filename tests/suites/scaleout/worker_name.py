"""What a worker calls itself, so that two on one machine can be told apart."""

from __future__ import annotations

import os
import socket


def worker_name() -> str:
    """Return the worker's name, or the host's (Airflow's ``[core] hostname_callable``)."""
    return os.environ.get("SCALEOUT_WORKER") or socket.gethostname()
