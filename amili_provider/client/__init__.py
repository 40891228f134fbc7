"""
The API of Amili: paths, statuses, retries, and the one seam where httpx's errors become ours.

``blocking`` is the client of tasks, ``nonblocking`` the one of triggers; both are made of the same pure parts:
``addressing`` (URLs, headers, TLS), ``in_flight`` (one request on its way), ``answers`` (reading), ``seam`` (errors).
"""

from __future__ import annotations

from amili_provider.client.addressing import USER_AGENT
from amili_provider.client.answers import Answer, RefusedBy, UploadReply
from amili_provider.client.blocking import AmiliClient
from amili_provider.client.connecting import ssl_context
from amili_provider.client.identity import auth_of
from amili_provider.client.nonblocking import AmiliAsyncClient, rehearse

__all__ = [
    "USER_AGENT",
    "AmiliAsyncClient",
    "AmiliClient",
    "Answer",
    "RefusedBy",
    "UploadReply",
    "auth_of",
    "rehearse",
    "ssl_context",
]
