"""
Which storages there are: one table of schemes, connection types and the extra that each needs.

The table feeds the resolution of paths, the messages and the README.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from amili_provider.receipts import escaped

DISTRIBUTION = "airflow-provider-amili"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of storage.

    :param protocol: the scheme that we show, and that Airflow and fsspec know.
    :param title: what people call it.
    :param schemes: the schemes that users may write.
    :param conn_types: the connection types that lead here.
    :param extra: the extra of this package that brings what it needs; None if nothing is needed.
    :param modules: what must be importable.
    :param object_store: whether folders exist only as parts of names.
    :param lists: whether it can be listed at all.
    """

    protocol: str
    title: str
    schemes: tuple[str, ...]
    conn_types: tuple[str, ...]
    extra: str | None = None
    modules: tuple[str, ...] = field(default=())
    object_store: bool = False
    lists: bool = True

    @property
    def server(self) -> bool:
        """Whether it is a server with an address of its own, which its connection names."""
        return self.protocol != "file" and not self.object_store

    @property
    def needs_connection(self) -> bool:
        """Whether nothing can be opened without a connection."""
        return self.server and self.lists


KINDS = (
    Kind("file", "local files", ("file", "local"), ("fs",)),
    Kind(
        "s3",
        "Amazon S3 and compatible",
        ("s3", "s3a", "s3n"),
        ("aws", "s3"),
        "s3",
        ("airflow.providers.amazon", "boto3"),
        object_store=True,
    ),
    Kind(
        "gs",
        "Google Cloud Storage",
        ("gs", "gcs"),
        ("google_cloud_platform",),
        "gcs",
        ("airflow.providers.google", "google.cloud.storage"),
        object_store=True,
    ),
    Kind(
        "abfs",
        "Azure Blob Storage",
        ("abfs", "abfss", "az", "wasb", "wasbs"),
        ("wasb", "adls"),
        "azure",
        ("airflow.providers.microsoft.azure", "azure.storage.blob"),
        object_store=True,
    ),
    Kind(
        "sftp",
        "SFTP",
        ("sftp", "ssh"),
        ("sftp", "ssh"),
        "sftp",
        ("airflow.providers.ssh", "paramiko"),
    ),
    Kind("ftp", "FTP and FTPS", ("ftp", "ftps"), ("ftp", "ftps"), "ftp", ("airflow.providers.ftp",)),
    Kind(
        "smb",
        "SMB (Windows shares, Samba)",
        ("smb",),
        ("samba",),
        "smb",
        ("airflow.providers.samba",),
    ),
    Kind(
        "http",
        "HTTP(S), single files",
        ("http", "https"),
        ("http",),
        "http",
        ("airflow.providers.http",),
        lists=False,
    ),
)

BY_SCHEME = {scheme: kind for kind in KINDS for scheme in kind.schemes}
BY_CONN_TYPE = {conn_type: kind for kind in KINDS for conn_type in kind.conn_types}


def split_url(url: str) -> tuple[str | None, str]:
    """
    Split *url* into its scheme (lower case, or None) and all that follows.

    Nothing is decoded: ``%``, ``#`` and ``?`` are characters of names on every storage but HTTP.
    """
    match = _URL.fullmatch(url)
    return (match["scheme"].lower(), match["rest"]) if match else (None, url)


def split_host(rest: str) -> tuple[str, str]:
    """Split what follows ``scheme://`` into the host part and the path, which keeps its slash."""
    host, slash, path = rest.partition("/")
    return host, slash + path


def shown(url: str) -> str:
    """Return *url*, which nobody has looked at yet, as one safe line: what follows ``?`` may be a signature."""
    scheme, _ = split_url(url)
    # Without a scheme it may be a path on a connection's web server.
    kind = BY_SCHEME.get(scheme) if scheme else None
    return escaped(url if kind is not None and kind.protocol != "http" else url.partition("?")[0].partition("#")[0])


def what_works() -> str:
    """Return the storages that work, with their schemes and connection types, as one phrase."""
    return "; ".join(
        f"{kind.title} ({kind.schemes[0]}://, connection type {' or '.join(kind.conn_types)})" for kind in KINDS
    )


def install_hint(extra: str) -> str:
    """Return the command that brings what an extra needs."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
