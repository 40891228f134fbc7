"""
Object storages have no folders: a prefix without objects is an empty folder, a missing bucket is an error.

Both come back as ``FileNotFoundError``, so the storage is asked once more, with the same right that listing needs.
"""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from amili_provider.storage.troubles import WrongSettings


def folder_may_be_empty(fs: AbstractFileSystem, protocol: str, folder: str, error: FileNotFoundError) -> None:
    """
    Return if *folder* is an empty prefix of a bucket that exists; raise if it is not.

    :param error: what the listing raised.
    """
    bucket, _, prefix = folder.partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    try:
        if protocol == "s3":
            fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        elif protocol == "gs":
            fs.call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=1, json_out=True)
        elif protocol == "abfs":
            sync(fs.loop, _ask_container, fs, bucket, prefix)
        else:
            raise AssertionError(f"{protocol} is no object storage") from error
    except FileNotFoundError:
        raise WrongSettings(
            f"the bucket {bucket!r} does not exist. Correct the path, or choose another connection"
        ) from None


async def _ask_container(fs: Any, container: str, prefix: str) -> None:
    async with fs.service_client.get_container_client(container=container) as client:
        pages = client.list_blobs(name_starts_with=prefix, results_per_page=1).by_page()
        async for _ in pages:
            break
