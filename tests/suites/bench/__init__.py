"""
A test bench: a whole Airflow (scheduler, triggerer, API server, dag processor) and local Amilis, driven from outside.

::

    python -m tests.suites.bench                                # on SQLite
    python -m tests.suites.bench --database postgres            # on a PostgreSQL of its own (group bench)
    python -m tests.suites.bench success killed_triggerer       # some scenarios only
    python -m tests.suites.bench --list

Every scenario has an Amili, a DAG and a connection of its own, and many run at the same time. Whatever the bench starts
lives on loopback, on free ports, in one temporary folder, and is ended by the bench.
"""

from __future__ import annotations
