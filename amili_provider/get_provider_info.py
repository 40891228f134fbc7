"""What Airflow discovers of this package through the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
    return {
        "package-name": "airflow-provider-amili",
        "name": "Amili",
        "description": "Delivers files from any storage connection to Amili and keeps receipts.",
    }
