"""How each kind of storage is opened with the connection that Airflow has for it."""

from __future__ import annotations

import logging
from typing import Any

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage import attached
from amili_provider.storage.connections import StorageConnection, look_up
from amili_provider.storage.kinds import Kind, shown, what_works
from amili_provider.storage.local import LocalFiles
from amili_provider.storage.locations import Storage
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
    if not kind.own:
        return _by_airflow(kind, connection)
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

        asked = str(connection.extra.get("tls", "")).strip().lower() in ("true", "1", "yes", "on")
        fs = FtpFiles(connection, tls=scheme == "ftps" or connection.conn_type == "ftps" or asked)
    else:
        from amili_provider.storage.smb import SmbFiles

        fs = SmbFiles(connection)
    home = fs.home()
    attached.replace_attached(kind.protocol, connection.conn_id, fs)
    return Storage(kind, fs, connection, home, fs.prefix())


def _by_airflow(kind: Kind, connection: StorageConnection | None) -> Storage:
    conn_id = connection.conn_id if connection else None
    options = None
    if kind.protocol == "abfs" and connection:
        from amili_provider.storage.azure import azure_options

        options = azure_options(connection)
    fs = attached.build(kind.protocol, conn_id, options)
    attached.replace_attached(kind.protocol, conn_id, fs)
    return Storage(kind, fs, connection, _base_bucket(kind, connection), f"{kind.protocol}://")


def _base_bucket(kind: Kind, connection: StorageConnection | None) -> str:
    """Return the bucket that an aws connection names for S3 (``service_config``), where it does."""
    if kind.protocol != "s3" or connection is None:
        return ""
    services: Any = connection.extra.get("service_config")
    s3: Any = services.get("s3") if isinstance(services, dict) else None
    return str(s3.get("bucket_name") or "") if isinstance(s3, dict) else ""


def open_other(scheme: str, url: str, conn_id: str | None) -> Storage:
    """Open a scheme that only Airflow, or whoever attached a filesystem, knows."""
    kind = Kind(scheme, scheme, (scheme,), ())
    if not attached.has_fs(scheme):
        fs = attached.find_attached(scheme, conn_id)
        if fs is None:
            through = f", with the connection {conn_id!r} or without" if conn_id else ""
            raise AmiliStorageSettingsError(
                f"Nothing here can open {scheme}:// ({shown(url)}){through}. What works: {what_works()}."
            )
        return Storage(kind, fs, None, "", f"{scheme}://")
    connection = look_up(conn_id, shown(url)) if conn_id else None
    log.warning("%s:// is passed through to Airflow's own filesystem; this package does not test it.", scheme)
    try:
        return Storage(kind, attached.build(scheme, conn_id), connection, "", f"{scheme}://")
    except Exception as error:  # noqa: BLE001 - whatever that provider raises
        raise explain("open", f"{scheme}://", connection, error) from None
