"""A real Airflow: a throw-away home with its database migrated, the example DAGs as its DAGs folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture(scope="session", name="airflow_home")
def _airflow_home() -> Path:
    """Migrate the database of the session's Airflow home, once."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        check=True,
        capture_output=True,
        timeout=240,
    )
    return Path(os.environ["AIRFLOW_HOME"])
