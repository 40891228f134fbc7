"""
The API of Amili over HTTP; the only place that knows httpx.

``AmiliClient`` is the client of tasks, ``AmiliAsyncClient`` the one of triggers; both are made of the same pure parts.
"""

from __future__ import annotations
