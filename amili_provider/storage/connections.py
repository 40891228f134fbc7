"""Storages and their connections: one table of kinds; messages hold no secret of a connection."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.receipts import escaped, one_line

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


_SECRET_KEY = re.compile(
    r"pass|secret|token|key|credential|signature|connection_string|account_url|sas|auth|private|cert|proxy",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]*@")
# Azure's errors go on with numbers of the request and the answer's XML, which says the same once more.
_AZURE_PROTOCOL = re.compile(r"\n(?:RequestId|Time|ErrorCode|Content):")
# An address's query may be a signature, as Azure's is.
_QUERY = re.compile(r"\?[^\s?'\"()]*=[^\s'\")]*")
_SHORTEST_SECRET = 3


@dataclass(frozen=True, slots=True)
class StorageConnection:
    """
    What an Airflow connection says, without Airflow.

    :param conn_id: its id.
    :param conn_type: its type.
    :param secrets: what no message may repeat.
    """

    conn_id: str
    conn_type: str
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def look_up(conn_id: str, url: str) -> StorageConnection:
    """
    Return what the Airflow connection *conn_id* says. Only from the task's own thread.

    :param conn_id: its id.
    :param url: what it is wanted for, as it can be shown.
    :raises AmiliStorageSettingsError: if there is no such connection, or it cannot be read.
    :raises AmiliStorageError: if Airflow could not be asked.
    """
    try:
        found = BaseHook.get_connection(conn_id)
    except Exception as error:  # noqa: BLE001 - Airflow's versions differ in what they raise, and share no base
        if "NotFound" in type(error).__name__ or "isn't defined" in str(error):
            raise AmiliStorageSettingsError(
                f"Cannot open {url}: there is no Airflow connection with the id {conn_id!r}. Create it, or correct "
                f"the connection id."
            ) from None
        raise AmiliStorageError(
            f"Cannot open {url}: the Airflow connection {conn_id!r} could not be looked up: {type(error).__name__}."
        ) from None
    try:
        # Airflow 3 takes what cannot be read for nothing.
        json.loads(found.extra or "{}")
        extra = found.extra_dejson
    except Exception:  # noqa: BLE001 - the message of a JSON error may quote the secret it stumbled over
        extra = None
    if not isinstance(extra, dict):
        raise AmiliStorageSettingsError(
            f"Cannot open {url}: the extra of the connection {conn_id!r} is not a JSON object. Correct it in the "
            f"connection."
        )
    return StorageConnection(
        conn_id=conn_id,
        conn_type=found.conn_type or "",
        host=(found.host or "").strip(),
        port=found.port,
        login=found.login or "",
        password=found.password or "",
        schema=found.schema or "",
        extra=extra,
        secrets=frozenset(_secrets_in({"password": found.password, **extra})),
    )


def _secrets_in(values: Mapping[str, Any], *, all_of_it: bool = False) -> set[str]:
    found: set[str] = set()
    for key, value in values.items():
        secret = all_of_it or (bool(_SECRET_KEY.search(key)) and not key.endswith(("_file", "_path")))
        if isinstance(value, Mapping):
            found |= _secrets_in(value, all_of_it=secret)
        elif secret and isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
            found.add(value)
            found.update(part for part in value.splitlines() if len(part) > 2 * _SHORTEST_SECRET)
    return found


def said(error: BaseException, connection: StorageConnection | None) -> str:
    """Return an error's own words as one safe line: no secret of *connection*, no credentials in a URL."""
    # An OSError of the system repeats its number and the path, which the sentence around it has already.
    system = isinstance(error, OSError) and (error.filename or type(error).__module__ == "builtins")
    words = str((system and getattr(error, "strerror", None)) or str(error) or type(error).__name__)
    words = _AZURE_PROTOCOL.split(words, maxsplit=1)[0]
    for secret in sorted(connection.secrets if connection else (), key=len, reverse=True):
        words = words.replace(secret, "***")
    return one_line(_QUERY.sub("?***", _IN_URL.sub(r"\1***@", words))).rstrip(".")


def is_on(value: object) -> bool:
    """Return whether what an extra says means yes."""
    return str(value or "").strip().casefold() in ("true", "1", "yes", "on")
