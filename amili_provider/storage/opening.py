"""How each kind of storage is opened with the connection that Airflow has for it."""

from __future__ import annotations

import logging
from typing import Any

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.base import ObjectClient
from amili_provider.storage.connections import StorageConnection, is_on, look_up
from amili_provider.storage.kinds import Kind, shown, what_works
from amili_provider.storage.local import LocalFiles
from amili_provider.storage.locations import Storage
from amili_provider.storage.objects import ObjectFiles
from amili_provider.storage.troubles import explain

log = logging.getLogger(__name__)


def open_kind(kind: Kind, scheme: str | None, connection: StorageConnection | None) -> Storage:
    """
    Open a storage of *kind*. What its libraries raise comes out as it is.

    :param scheme: what the user wrote; ``ftps`` is not ``ftp``.
    :param connection: the Airflow connection.
    """
    if kind.protocol == "file":
        return _local(kind, connection)
    if kind.object_store:
        return _objects(kind, connection)
    if kind.protocol == "http":
        from amili_provider.storage.http import HttpFiles

        pages = HttpFiles.from_connection(connection)
        return Storage(kind, pages, connection, pages.base, "")
    assert connection is not None
    return _server(kind, scheme, connection)


def _local(kind: Kind, connection: StorageConnection | None) -> Storage:
    base = str(connection.extra.get("path") or "") if connection else ""
    if base and not base.startswith("/"):
        raise AmiliStorageSettingsError(
            f"The base path of the connection {connection.conn_id if connection else None!r} must be absolute, "
            f"not {base!r}. Correct the 'path' in its extra."
        )
    return Storage(kind, LocalFiles(), connection, base.rstrip("/") or base[:1], "file://")


def _server(kind: Kind, scheme: str | None, connection: StorageConnection) -> Storage:
    fs: Any
    if kind.protocol == "sftp":
        from amili_provider.storage.sftp import SftpFiles

        fs = SftpFiles.from_connection(connection)
    elif kind.protocol == "ftp":
        from amili_provider.storage.ftp import FtpFiles

        asked = scheme == "ftps" or connection.conn_type == "ftps" or is_on(connection.extra.get("tls"))
        fs = FtpFiles(connection, tls=asked)
    else:
        from amili_provider.storage.smb import SmbFiles

        fs = SmbFiles(connection)
    return Storage(kind, fs, connection, fs.home(), fs.prefix())


def _objects(kind: Kind, connection: StorageConnection | None) -> Storage:
    client: ObjectClient
    if kind.protocol == "s3":
        from amili_provider.storage.s3 import S3Client

        client = S3Client.from_connection(connection)
    elif kind.protocol == "gs":
        from amili_provider.storage.gcs import GcsClient

        client = GcsClient.from_connection(connection)
    else:
        from amili_provider.storage.azure import AzureClient

        client = AzureClient.from_connection(connection)
    return Storage(kind, ObjectFiles(client), connection, _base_bucket(kind, connection), f"{kind.protocol}://")


def _base_bucket(kind: Kind, connection: StorageConnection | None) -> str:
    """Return the bucket that an aws connection names for S3 (``service_config``), where it does."""
    if kind.protocol != "s3" or connection is None:
        return ""
    services: Any = connection.extra.get("service_config")
    s3: Any = services.get("s3") if isinstance(services, dict) else None
    return str(s3.get("bucket_name") or "") if isinstance(s3, dict) else ""


def open_other(scheme: str, url: str, conn_id: str | None) -> Storage:
    """Open a scheme that only Airflow, or whoever attached a filesystem, knows."""
    from amili_provider.storage.others import OtherFiles

    connection = look_up(conn_id, shown(url)) if conn_id and OtherFiles.knows(scheme) else None
    log.warning("%s:// is passed through to Airflow's own filesystem; this package does not test it.", scheme)
    try:
        files = OtherFiles.of(scheme, conn_id)
    except Exception as error:  # noqa: BLE001 - whatever that provider raises
        raise explain("open", f"{scheme}://", connection, error) from None
    if files is None:
        through = f", with the connection {conn_id!r} or without" if conn_id else ""
        raise AmiliStorageSettingsError(
            f"Nothing here can open {scheme}:// ({shown(url)}){through}. What works: {what_works()}."
        )
    return Storage(Kind(scheme, scheme, (scheme,), ()), files, connection, "", f"{scheme}://")
