"""An S3 server on a free loopback port, with the day's files in a bucket."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from amili_provider.sandbox.demo.invoices import Invoices

BUCKET, LEDGER_BUCKET = "invoices", "amili-ledger"

_KEYS = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo-secret", "region_name": "us-east-1"}
_PART_BYTES = 32 * 1024 * 1024


class Bucket:
    """
    The bucket of the demo.

    :param url: where the S3 server listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Nothing of the person's own AWS settings takes part: no proxy, no profile, keys that are worth nothing.
        settings = Config(proxies={}, retries={"max_attempts": 2}, parameter_validation=False)
        self._client = boto3.client("s3", endpoint_url=url, config=settings, **_KEYS)
        for bucket in (BUCKET, LEDGER_BUCKET):
            self._client.create_bucket(Bucket=bucket)

    def put(self, day: date, file: Invoices) -> None:
        """Write one file where the example DAG looks for it."""
        key = f"outbound/{day}/{file.name}"
        if file.times == 1:
            self._client.put_object(Bucket=BUCKET, Key=key, Body=file.content)
            return
        upload = self._client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        parts = []
        for number, part in enumerate(_parts(file), start=1):
            facts = {"Bucket": BUCKET, "Key": key, "UploadId": upload, "PartNumber": number}
            parts.append({"PartNumber": number, "ETag": self._client.upload_part(**facts, Body=part)["ETag"]})
        self._client.complete_multipart_upload(
            Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def ledger_keys(self) -> list[str]:
        """Return the names of the receipts in the ledger."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=LEDGER_BUCKET)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def connection_json(self) -> str:
        """Return the Airflow connection to this server."""
        extra = {"endpoint_url": self.url, "region_name": _KEYS["region_name"]}
        keys = {"login": _KEYS["aws_access_key_id"], "password": _KEYS["aws_secret_access_key"]}
        return json.dumps({"conn_type": "aws", **keys, "extra": extra})

    def close(self) -> None:
        """Close the connections to the server."""
        self._client.close()


def _parts(file: Invoices) -> Iterator[bytes]:
    part = io.BytesIO()
    for block in file.blocks():
        part.write(block)
        if part.tell() >= _PART_BYTES:
            yield part.getvalue()
            part = io.BytesIO()
    if part.tell():
        yield part.getvalue()


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """Run an S3 server while the block lasts."""
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
