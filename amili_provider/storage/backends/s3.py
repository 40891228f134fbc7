"""Amazon S3 and what speaks like it: boto3, as Airflow's ``AwsGenericHook`` makes it of a connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO

import tenacity
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.utils import parse_timestamp
from urllib3.exceptions import HTTPError

from amili_provider.storage.backends.objects import THREADS, asked_of, refuse_encoded, refuse_other, refuse_other_span
from amili_provider.storage.base import Entry, object_entry
from amili_provider.storage.connections import StorageConnection, is_on
from amili_provider.storage.errors import WrongSettings

PART_BYTES = 16 * 1024 * 1024
"""Larger objects are written in parts of this size, of which S3 takes 10,000."""
_MISSING = frozenset({"404", "NoSuchKey"})
# Stores that speak S3 differ in whether they name the condition; the last: somebody else writes it at this moment.
_CONDITION = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})
_DENIED = frozenset({"403", "AccessDenied", "Forbidden"})
_OF_A_LISTING = frozenset({"IsTruncated", "KeyCount", "MaxKeys", "Name"})
_OF_A_PART = ("ETag", "ChecksumCRC32")
_UNKNOWN_CONDITION = frozenset({"501", "NotImplemented"})


class S3Client:
    """
    S3, by one connection.

    :param client: of boto3.
    :param requester_pays: whether whoever reads pays for it, of buckets that ask for that.
    """

    def __init__(self, client: Any, *, requester_pays: bool = False) -> None:
        self._client = client
        self._pays = {"RequestPayer": "requester"} if requester_pays else {}

    @classmethod
    def from_connection(cls, connection: StorageConnection | None) -> S3Client:
        """Return the client of *connection*; without one, of what the machine itself may do."""
        hook: Any = AwsGenericHook(aws_conn_id=connection.conn_id if connection else None, client_type="s3")
        # What the connection says of it counts more.
        config = Config(max_pool_connections=THREADS).merge(hook.config)
        pays = is_on(connection.extra.get("requester_pays")) if connection else False
        client = hook.get_client_type(config=config)
        with suppress(AttributeError):  # botocore has no other way in; without it, it only takes longer
            parsers = client._endpoint._response_parser_factory  # noqa: SLF001
            parsers.set_parser_defaults(timestamp_parser=read_time)
        return cls(client, requester_pays=pays)

    def pages(self, bucket: str, prefix: str, *, flat: bool) -> Iterator[tuple[list[Entry], list[str]]]:
        """Yield what begins with *prefix*; see ``ObjectClient.pages``."""
        levels = {} if flat else {"Delimiter": "/"}
        paginator = self._client.get_paginator("list_objects_v2")
        for page in paginator.paginate(Bucket=bucket, Prefix=prefix, **levels, **self._pays):
            if not page.keys() & _OF_A_LISTING:
                raise OSError("the server's answer is no listing")  # a gateway's page, say, which has no objects
            if page.get("IsTruncated") and not page.get("NextContinuationToken"):
                raise WrongSettings("the server cuts the listing off, and does not tell how it goes on")
            objects = [_entry(bucket, one["Key"], one["Size"], one) for one in page.get("Contents", ())]
            yield objects, [one["Prefix"] for one in page.get("CommonPrefixes", ())]

    def stat(self, bucket: str, key: str) -> Entry:
        """Return what is said of one object; see ``ObjectClient.stat``."""
        said = self._client.head_object(Bucket=bucket, Key=key, **self._pays)
        return _entry(bucket, key, said["ContentLength"], said)

    # botocore tries a request again, but not an answer that breaks off.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type((HTTPClientError, IncompleteReadError, HTTPError)),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random(0, 0.5),
        reraise=True,
    )
    def read(self, bucket: str, key: str, version: str | None, span: tuple[int, int] | None) -> bytes:
        """Return the bytes of one object; see ``ObjectClient.read``."""
        asked = dict(self._pays)
        if version is not None:
            asked["IfMatch"] = f'"{version}"'
        if span is not None:
            asked["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        said = self._client.get_object(Bucket=bucket, Key=key, **asked)
        with said["Body"] as body:
            refuse_encoded(key, said.get("ContentEncoding"))
            refuse_other(version, said.get("ETag"))
            refuse_other_span(span, said.get("ContentRange"))
            most = asked_of(span, said.get("ContentLength"))
            data = bytes(body.read(most))
            # Of a part of an answer botocore does not see that it broke off.
            if most is not None and len(data) < most and "ContentLength" in said:
                raise IncompleteReadError(actual_bytes=len(data), expected_bytes=most)
            return data

    def write(self, bucket: str, key: str, stream: BinaryIO, size: int, *, new: bool) -> None:
        """Write one object; see ``ObjectClient.write``."""
        at = {"Bucket": bucket, "Key": key, **self._pays}
        condition = {"IfNoneMatch": "*"} if new else {}
        if size <= PART_BYTES:
            self._client.put_object(**at, **condition, Body=stream.read(size))
            return
        # Without a word on the first request Amazon expects other checksums than those that botocore adds to the parts.
        summed = getattr(self._client.meta.config, "request_checksum_calculation", "") == "when_supported"
        kind = {"ChecksumAlgorithm": "CRC32"} if summed else {}
        at["UploadId"] = self._client.create_multipart_upload(**at, **kind)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            while data := stream.read(PART_BYTES):
                number = len(parts) + 1
                made = self._client.upload_part(**at, **kind, PartNumber=number, Body=data)
                parts.append({"PartNumber": number, **{name: made[name] for name in _OF_A_PART if name in made}})
            self._client.complete_multipart_upload(**at, **condition, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):  # the failure before this one is what has to be told
                self._client.abort_multipart_upload(**at)
            raise

    def delete(self, bucket: str, key: str, version: str | None) -> None:
        """Delete one object; see ``ObjectClient.delete``. Not every store knows the condition."""
        at = {"Bucket": bucket, "Key": key, **self._pays}
        condition = {} if version is None else {"IfMatch": f'"{version}"'}
        try:
            self._client.delete_object(**at, **condition)
        except ClientError as error:
            if not condition or _code(error) not in _UNKNOWN_CONDITION:
                raise
            self._client.delete_object(**at)

    def meaning(self, error: Exception) -> Exception:
        """Return *error* as what it means; see ``ObjectClient.meaning``."""
        code = _code(error) if isinstance(error, ClientError) else ""
        kind = next((kind for codes, kind in _MEANINGS if code in codes), None)
        return error if kind is None else kind(str(error))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def read_time(written: str) -> datetime:
    """
    Return a moment as S3 writes it in listings (ISO 8601) and headers (RFC 9110).

    botocore reads it with dateutil, which knows every way of writing, and takes a tenth of the time of a small object.

    :param written: by the server.
    """
    try:
        # Python takes any character for the one between day and time, a digit of the hour among them.
        iso = written[10:11] in ("T", "t", " ")
        found = datetime.fromisoformat(written) if iso else parsedate_to_datetime(written)
    except (TypeError, ValueError):
        found = None
    return found if found is not None and found.tzinfo is not None else parse_timestamp(written)


_MEANINGS: tuple[tuple[frozenset[str], type[OSError]], ...] = (
    (_MISSING, FileNotFoundError),
    (_CONDITION, FileExistsError),
    (_DENIED, PermissionError),
)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _entry(bucket: str, key: str, size: int, said: dict[str, Any]) -> Entry:
    etag = said.get("ETag")
    return object_entry(f"{bucket}/{key}", size, etag and etag.strip('"'), said["LastModified"].timestamp())
