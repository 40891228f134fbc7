"""Google Cloud Storage: an emulator from PyPI."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from tests.storage.backends.base import Backend
from tests.storage.backends.wire import Wire

_DENIED = b'{"error": {"code": 403, "message": "Access denied."}}'
DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_DENIED), _DENIED)
)
_UNKNOWN = b'{"error": {"code": 401, "message": "Invalid Credentials"}}'
UNKNOWN = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_UNKNOWN), _UNKNOWN)
)
BUCKET = "contract"


class _Hasty:
    """asyncio, but nobody sleeps."""

    @staticmethod
    async def sleep(_seconds: float) -> None:
        """Return at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class Gcs(Backend):
    """A bucket of Google's, through a ``google_cloud_platform`` connection with an endpoint of its own."""

    name = "gs"
    conn_type = "google_cloud_platform"
    object_store = True

    def start(self) -> None:
        try:
            from gcp_storage_emulator.handlers.buckets import create_bucket
            from gcp_storage_emulator.server import RequestHandler
            from gcp_storage_emulator.storage import Storage
        except ImportError:
            pytest.skip("the GCS emulator is not installed: pip install gcp-storage-emulator")
        import gcsfs.retry
        import requests

        # A server that is gone is asked six times, but the pauses between need not be waited for here.
        gcsfs.retry.asyncio = _Hasty()
        logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
        self.storage = Storage(use_memory_fs=True)
        create_bucket(BUCKET, self.storage)
        # Its own server answers one request at a time, and waits for ever for the second of two at once.
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RequestHandler, self.storage))
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.wire = Wire(self._port)
        self._session = requests.Session()
        self._root = f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        import gcsfs.retry

        super().stop()
        self._session.close()
        gcsfs.retry.asyncio = asyncio
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def connection(self) -> dict[str, Any]:
        assert self.wire is not None
        return {
            "conn_type": "google_cloud_platform",
            "extra": {
                "project": "contract",
                "is_anonymous": True,
                "gcs.endpoint": f"http://127.0.0.1:{self.wire.port}",
                "key_canary_secret": "gcs-secret-canary",
            },
        }

    def wrong_login(self) -> dict[str, Any] | None:
        # The emulator lets everybody in: what Google answers to a token it does not know comes from the wire.
        assert self.wire is not None
        self.wire.forbid(self.day.encode(), UNKNOWN)
        return self.connection()

    def secrets(self) -> list[str]:
        return ["gcs-secret-canary"]

    def url(self, path: str = "") -> str:
        return f"gs://{BUCKET}/{self.day}/{path}"

    def bare(self, path: str = "") -> str:
        return f"/{BUCKET}/{self.day}/{path}"

    def _object(self, path: str) -> str:
        from urllib.parse import quote

        return f"{self._root}/storage/v1/b/{BUCKET}/o/{quote(f'{self.day}/{path}', safe='')}"

    def put(self, path: str, data: bytes) -> None:
        # In two parts: the emulator does not take an empty file any other way.
        about = json.dumps({"name": f"{self.day}/{path}", "contentType": "application/octet-stream"}).encode()
        body = b"--part\r\nContent-Type: application/json\r\n\r\n%s\r\n" % about
        body += b"--part\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--part--\r\n" % data
        self._session.post(
            f"{self._root}/upload/storage/v1/b/{BUCKET}/o",
            params={"uploadType": "multipart"},
            data=body,
            headers={"Content-Type": "multipart/related; boundary=part"},
        ).raise_for_status()

    def remove(self, path: str) -> None:
        self._session.delete(self._object(path)).raise_for_status()

    def read(self, path: str) -> bytes | None:
        answer = self._session.get(self._object(path), params={"alt": "media"})
        return answer.content if answer.status_code == 200 else None

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        assert self.wire is not None
        self.wire.forbid(f"prefix={self.day}/{path}/".encode(), DENIED)
        self.wire.forbid(f"prefix={self.day}%2F{path}%2F".encode(), DENIED)
        try:
            yield
        finally:
            self.wire.mend()
