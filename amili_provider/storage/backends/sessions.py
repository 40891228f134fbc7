"""Sessions of requests that keep as many connections as are used at once, and end them when they are closed."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter


def pooled(session: requests.Session, connections: int) -> requests.Session:
    """Let *session* keep as many *connections* to a server; return it."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    return session


def close_session(session: requests.Session) -> None:
    """Close *session* and its connections; who asks again opens new ones."""
    for adapter in session.adapters.values():
        # urllib3 only lets go of its pools, whose connections then stay open until they are collected.
        pools = adapter.poolmanager.pools if isinstance(adapter, HTTPAdapter) else {}
        for key in list(pools.keys()):
            if (pool := pools.get(key)) is not None:
                pool.close()
    session.close()
