"""
The API of Amili over HTTP; the only place that knows httpx.

``client`` is the client of tasks, ``async_client`` the one of triggers; both are made of the same pure parts.
"""

from __future__ import annotations
