"""An S3 server on a free loopback port, with the day's files in a bucket."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from amili_provider.sandbox.demo.invoices import BUCKET, Invoices
from amili_provider.sandbox.demo.throwaway_airflow import NO_AWS_FILES

_KEYS = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo-secret", "region_name": "us-east-1"}


class Bucket:
    """
    The bucket of the demo.

    :param url: where the S3 server listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # No proxy, and keys that are worth nothing.
        settings = Config(proxies={}, retries={"max_attempts": 2}, request_checksum_calculation="when_required")
        self._client = boto3.Session().client("s3", endpoint_url=url, config=settings, **_KEYS)
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, day: date, file: Invoices) -> None:
        """Write one file where the example DAG looks for it."""
        key = self._key(day, file)
        with tempfile.TemporaryFile() as body:
            for block in file.blocks():
                body.write(block)
            body.seek(0)
            self._client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def remove(self, day: date, file: Invoices) -> None:
        """Take one file away again."""
        self._client.delete_object(Bucket=BUCKET, Key=self._key(day, file))

    @staticmethod
    def _key(day: date, file: Invoices) -> str:
        return f"outbound/{day}/{file.name}"

    def connection_json(self) -> str:
        """Return the Airflow connection to this server."""
        extra = {"endpoint_url": self.url, "region_name": _KEYS["region_name"]}
        keys = {"login": _KEYS["aws_access_key_id"], "password": _KEYS["aws_secret_access_key"]}
        return json.dumps({"conn_type": "aws", **keys, "extra": extra})

    def close(self) -> None:
        """Close the connections to the server."""
        self._client.close()


@contextmanager
def _no_settings_of_their_own() -> Iterator[None]:
    """Let nothing of the person's own AWS settings take part: no profile, no file, no variable."""
    theirs = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    os.environ.update(NO_AWS_FILES)
    try:
        yield
    finally:
        for name in NO_AWS_FILES:
            del os.environ[name]
        os.environ.update(theirs)


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """Run an S3 server while the block lasts."""
    with _no_settings_of_their_own(), _s3_server() as bucket:
        yield bucket


@contextmanager
def _s3_server() -> Iterator[Bucket]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        bucket = Bucket(f"http://{host}:{port}")
        try:
            yield bucket
        finally:
            bucket.close()
    finally:
        server.stop()
