"""A bucket of named objects is looked at in parallel, and comes out as if it had been one after another."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.listing import list_files


@pytest.fixture(name="bucket")
def _bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 bucket on loopback, and the connection ``s3_here`` to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        # Its memory is the process's, and another test may have left something there.
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(
            "AIRFLOW_CONN_S3_HERE",
            json.dumps({"conn_type": "aws", "extra": {"endpoint_url": endpoint, "region_name": "eu-north-1"}}),
        )
        client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-north-1")
        client.create_bucket(Bucket="day", CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
        yield client
        client.close()
    finally:
        server.stop()


def test_many_named_objects_are_looked_at_at_once(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order given, with size and fingerprint; names with glob characters as they are; requests overlap."""
    from amili_provider.storage.backends.s3 import S3Client

    names = [f"f{number}.csv" for number in range(60, 0, -1)]
    names[7] = "br[1].csv"
    for number, name in enumerate(names):
        bucket.put_object(Bucket="day", Key=f"out/{name}", Body=b"x" * number)
    stat, lock, now, most = S3Client.stat, threading.Lock(), 0, 0

    def counted(self: Any, bucket: str, key: str) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return stat(self, bucket, key)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(S3Client, "stat", counted)
    files = list_files([f"s3://day/out/{name}" for name in names], "s3_here")
    assert [file.name for file in files] == names
    assert [file.size for file in files] == list(range(60))
    assert all(file.literal and file.fingerprint for file in files)
    assert most > 8


def test_one_missing_object_among_many_is_named(bucket: Any) -> None:
    """The error is that of the missing one; a pattern and a folder in the same list are still read as such."""
    for name in ("a.csv", "b.csv", "sub/c.csv"):
        bucket.put_object(Bucket="day", Key=name, Body=b"1")
    found = list_files(["s3://day/b.csv", "s3://day/a*.csv", "s3://day/sub/", "s3://day/b.csv"], "s3_here")
    assert [file.url for file in found] == ["s3://day/b.csv", "s3://day/a.csv", "s3://day/sub/c.csv"]
    with pytest.raises(FileNotFoundError, match="missing"):
        list_files(["s3://day/a.csv", "s3://day/missing.csv", "s3://day/b.csv"], "s3_here")
    with pytest.raises(AmiliStorageSettingsError, match="max_files=1"):
        list_files(["s3://day/a.csv", "s3://day/b.csv"], "s3_here", max_files=1)


def test_times_are_read_as_s3_writes_them(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of listings and of single objects, as botocore reads them, and without the library that guesses."""
    bucket.put_object(Bucket="day", Key="a.csv", Body=b"1")
    (listed,) = bucket.list_objects_v2(Bucket="day")["Contents"]
    single = bucket.head_object(Bucket="day", Key="a.csv")

    def guesses(_: str) -> None:
        raise AssertionError("botocore's own way")

    monkeypatch.setattr("botocore.parsers.DEFAULT_TIMESTAMP_PARSER", guesses)
    (found,) = list_files("s3://day/*", "s3_here", max_files=10)
    assert found.modified == listed["LastModified"].timestamp()
    (found,) = list_files("s3://day/a.csv", "s3_here", max_files=10)
    assert found.modified == single["LastModified"].timestamp()


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-22T06:00:04.000Z",
        "2026-11-22T06:00:04Z",
        "2026-11-22T07:00:04+01:00",
        "Sun, 22 Nov 2026 06:00:04 GMT",
        # Not as S3 writes them, which botocore reads all the same.
        "20261122T060004Z",
        "20261122200009Z",
        "Nov 22 2026 06:00:04 UTC",
        "1795327204",
        "2026-11-22T06:00:04",
    ],
)
def test_a_time_is_the_one_that_botocore_reads(written: str) -> None:
    """However it is written: what is read in another way means the same moment."""
    from botocore.utils import parse_timestamp

    from amili_provider.storage.backends.s3 import read_time

    assert read_time(written).timestamp() == parse_timestamp(written).timestamp()
