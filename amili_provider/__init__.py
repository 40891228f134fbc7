"""Airflow provider that delivers files to Amili (Norway) and keeps receipts."""

from __future__ import annotations

__version__ = "0.2.0.dev0"
