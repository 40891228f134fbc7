"""Amazon S3: moto's server."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.storage.backends.base import ObjectStore
from tests.storage.backends.wire import Wire

_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_DENIED), _DENIED)
)
_UNKNOWN = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>No such access key.</Message></Error>"
UNKNOWN = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_UNKNOWN), _UNKNOWN)
)
BUCKET = "contract"


def _one_at_a_time(answer: Callable[..., Any]) -> Callable[..., Any]:
    lock = threading.Lock()

    @functools.wraps(answer)
    def alone(*given: Any, **named: Any) -> Any:
        with lock:
            return answer(*given, **named)

    return alone


class S3(ObjectStore):
    """An S3 bucket, through an ``aws`` connection with an endpoint of its own."""

    name = "s3"
    conn_type = "aws"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)

    def start(self) -> None:
        import boto3
        import botocore.session
        import moto.s3.responses
        from moto.server import ThreadedMotoServer

        # Amazon's If-None-Match is atomic; moto looks first, and then writes, in many threads.
        response = moto.s3.responses.S3Response
        if not hasattr(response.put_object, "__wrapped__"):
            response.put_object = _one_at_a_time(response.put_object)
        # Each of a test's many clients would read Amazon's models of its services anew, for a fifth of a second.
        if not hasattr(botocore.session.create_loader, "cache_info"):
            botocore.session.create_loader = functools.cache(botocore.session.create_loader)

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]
        self.wire = Wire(self._port)
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="eu-north-1",
        )
        self._make_bucket()

    def _make_bucket(self) -> None:
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})

    def stop(self) -> None:
        super().stop()
        self.client.close()
        self._server.stop()

    def begin_day(self) -> None:
        # Another test's server in this process shares moto's memory, and may have wiped it.
        self._make_bucket()
        super().begin_day()

    def connection(self) -> dict[str, Any]:
        assert self.wire is not None
        return {
            "conn_type": "aws",
            "login": "AKIATESTING",
            "password": "s3-secret-canary",
            "extra": {
                "endpoint_url": f"http://127.0.0.1:{self.wire.port}",
                "region_name": "eu-north-1",
                "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2},
            },
        }

    def wrong_login(self) -> dict[str, Any] | None:
        # moto lets everybody in: what Amazon answers to a key it does not know comes from the wire. Only to the
        # listing: an answer to HEAD has no body, and so no words.
        assert self.wire is not None
        self.wire.forbid(b"list-type=2", UNKNOWN)
        return {**self.connection(), "login": "CANARYWRONG", "password": "wrong-canary"}

    def url(self, path: str = "") -> str:
        return f"s3://{BUCKET}/{self.day}/{path}"

    def bare(self, path: str = "") -> str:
        return f"/{BUCKET}/{self.day}/{path}"

    def put(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.day}/{path}", Body=data)

    def put_packed(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.day}/{path}", Body=data, ContentEncoding="gzip")

    def remove(self, path: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.day}/{path}")

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self.client.get_object(Bucket=BUCKET, Key=f"{self.day}/{path}")["Body"].read())
        except self.client.exceptions.NoSuchKey:
            return None

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        assert self.wire is not None
        # A listing names the folder in its query, a request for an object in its path.
        for folder in (f"{self.day}/{path}/", f"{self.day}/{path}/".replace("/", "%2F")):
            self.wire.forbid(f"prefix={folder}".encode(), DENIED)
        try:
            yield
        finally:
            self.wire.mend()
