"""Azure Blob Storage: Azurite."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.processes import end, free_port, wait_for
from tests.storage.backends.base import ObjectStore, program
from tests.storage.backends.wire import Wire

ACCOUNT = "devstoreaccount1"
# Azurite's published development key: a secret only in the sense that no message may contain it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
WRONG_KEY = "d3JvbmctY2FuYXJ5d3JvbmctY2FuYXJ5"
CONTAINER = "contract"
_DENIED = (
    b"<?xml version='1.0'?><Error><Code>AuthorizationPermissionMismatch</Code>"
    b"<Message>This request is not authorized to perform this operation using this permission.</Message></Error>"
)
DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"x-ms-error-code: AuthorizationPermissionMismatch\r\nContent-Length: %d\r\n\r\n%s" % (len(_DENIED), _DENIED)
)


class Azure(ObjectStore):
    """A container of Azure's, through a ``wasb`` connection."""

    name = "abfs"
    conn_type = "wasb"

    def start(self) -> None:
        azurite = program("azurite-blob", "npm install -g azurite")
        try:
            from azure.storage.blob import BlobServiceClient
            from azure.storage.blob._shared import policies
        except ImportError:
            pytest.skip("Azure's library is not installed: pip install 'airflow-provider-amili[azure]'")
        # A server that is gone is asked four times, but the minute between need not be waited for here.
        self._pauses = policies.ExponentialRetry.get_backoff_time
        policies.ExponentialRetry.get_backoff_time = lambda *_: 0.0
        port = free_port()
        data = self.scratch / "azurite"
        data.mkdir()
        self._process = subprocess.Popen(
            [
                *(azurite, "--location", str(data), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
                *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(port, lambda: self._process.poll() is None)
        self.wire = Wire(port)
        self._client = BlobServiceClient.from_connection_string(self.connection_string(port))
        self._container = self._client.create_container(CONTAINER)

    @staticmethod
    def connection_string(port: int) -> str:
        """Return how Azure's libraries name this server."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        )

    def stop(self) -> None:
        from azure.storage.blob._shared import policies

        policies.ExponentialRetry.get_backoff_time = self._pauses
        super().stop()
        self._client.close()
        end(self._process)

    def connection(self) -> dict[str, Any]:
        assert self.wire is not None
        return {"conn_type": "wasb", "extra": {"connection_string": self.connection_string(self.wire.port)}}

    def wrong_login(self) -> dict[str, Any] | None:
        assert self.wire is not None
        string = self.connection_string(self.wire.port).replace(KEY, WRONG_KEY)
        return {"conn_type": "wasb", "extra": {"connection_string": string}}

    def secrets(self) -> list[str]:
        return [KEY, WRONG_KEY]

    def url(self, path: str = "") -> str:
        return f"abfs://{CONTAINER}/{self.day}/{path}"

    def bare(self, path: str = "") -> str:
        return f"/{CONTAINER}/{self.day}/{path}"

    def put(self, path: str, data: bytes) -> None:
        self._container.upload_blob(f"{self.day}/{path}", data, overwrite=True)

    def put_packed(self, path: str, data: bytes) -> None:
        from azure.storage.blob import ContentSettings

        packed = ContentSettings(content_encoding="gzip")
        self._container.upload_blob(f"{self.day}/{path}", data, content_settings=packed)

    def remove(self, path: str) -> None:
        self._container.delete_blob(f"{self.day}/{path}")

    def read(self, path: str) -> bytes | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return bytes(self._container.download_blob(f"{self.day}/{path}").readall())
        except ResourceNotFoundError:
            return None

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        assert self.wire is not None
        self.wire.forbid(f"prefix={quote(f'{self.day}/{path}', safe='')}".encode(), DENIED)
        try:
            yield
        finally:
            self.wire.mend()
