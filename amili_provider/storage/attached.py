"""
Airflow's registry of filesystems, the same on Airflow 2.11 to 3.3.

``attach`` keeps the first filesystem that it is given for a connection. What we open replaces it, so that a dead
filesystem does not stay for the life of the process, and an ``ObjectStoragePath`` sees what we see.
"""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem

# The two moved to Airflow's SDK one after the other.
try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2.11
    from airflow.io.store import attach  # type: ignore[no-redef,import-not-found]
try:
    from airflow.sdk.io import get_fs, has_fs
except ImportError:  # Airflow 2.11 to 3.1
    from airflow.io import get_fs, has_fs  # type: ignore[no-redef,attr-defined]

__all__ = ["build", "find_attached", "has_fs", "replace_attached"]


def build(protocol: str, conn_id: str | None, options: dict[str, Any] | None = None) -> AbstractFileSystem:
    """Return a filesystem as the Airflow provider of *protocol* builds it from the connection."""
    return get_fs(protocol, conn_id, options) if options else get_fs(protocol, conn_id)


def find_attached(protocol: str, conn_id: str | None) -> AbstractFileSystem | None:
    """Return the filesystem that somebody attached for a protocol that Airflow itself does not know, if any."""
    try:
        return attach(protocol=protocol, conn_id=conn_id).fs
    except Exception:  # noqa: BLE001 - not attached: Airflow has tried to build one, and does not know how
        return None


def replace_attached(protocol: str, conn_id: str | None, fs: AbstractFileSystem) -> None:
    """Make *fs* the filesystem that an ``ObjectStoragePath`` of this protocol and connection uses."""
    attach(protocol=protocol, conn_id=conn_id, fs=fs).fs = fs
