"""Azure Blob Storage: azure-storage-blob, as Airflow's ``WasbHook`` makes its client of a connection."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, BinaryIO

import requests
from airflow.providers.microsoft.azure.hooks.wasb import WasbHook
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobPrefix, BlobServiceClient

from amili_provider.storage.backends.objects import THREADS, refuse_encoded, refuse_other, refuse_other_span
from amili_provider.storage.backends.pool import close_session, pooled
from amili_provider.storage.base import Entry, object_entry
from amili_provider.storage.connections import StorageConnection, is_on
from amili_provider.storage.errors import WrongSettings

ONE_REQUEST_BYTES = 8 * 1024 * 1024
"""Larger blobs are written in blocks."""
_LONGEST = 1 << 50
OPTIONS: Mapping[str, Any] = {
    "retry_total": 3,
    "initial_backoff": 1,
    "increment_base": 2,
    "random_jitter_range": 1,
    "connection_timeout": 5,
    "read_timeout": 60,
    "connection_data_block_size": 256 * 1024,
    "max_single_put_size": ONE_REQUEST_BYTES,
    "max_single_get_size": _LONGEST,
}
"""What the client is told where the connection's extra says nothing: a server that is gone costs half a minute."""
_VARIABLE = "AZURE_STORAGE_CONNECTION_STRING"
# The last: whoever may create, but not overwrite, meets what is there.
_CONDITION = frozenset({"BlobAlreadyExists", "ConditionNotMet", "UnauthorizedBlobOverwrite"})
_DENIED = frozenset({"AuthorizationPermissionMismatch", "InsufficientAccountPermissions"})
_NOT_FOUND, _PRECONDITION_FAILED, _NO_SUCH_RANGE = 404, 412, 416


class _Hook(WasbHook):
    """
    The hook, told what the connection says in words that each of its versions takes.

    By itself it takes no pool of connections; no ``.dfs.`` address; no whole URL with a SAS token but of ``https``;
    in old versions no token without its question mark, and no ``account_key``; and no key where the address does not
    begin with the account's name.

    :param connection: what the Airflow connection says.
    :param session: keeps the connections.
    """

    def __init__(self, connection: StorageConnection, session: requests.Session) -> None:
        extra = {name.removeprefix(f"extra__{connection.conn_type}__"): v for name, v in connection.extra.items()}
        super().__init__(connection.conn_id, public_read=is_on(extra.pop("anon", None)))
        for name in ("account_url", "credential"):  # the hook passes all of the extra on, and these two itself
            extra.pop(name, None)
        host, sas = connection.host, str(extra.get("sas_token") or "").lstrip("?")
        if sas.startswith(("https://", "http://")):
            host, _, sas = sas.partition("?")
        options = _options(session, extra)
        key: Any = extra.get("shared_access_key") or ("" if sas else connection.password or extra.get("account_key"))
        if key and connection.login and ".core." not in host:
            key = AzureNamedKeyCredential(connection.login, str(key))
        if extra.get("tenant_id"):
            tokens = {"transport": options["transport"], **(extra.get("client_secret_auth_config") or {})}
            options["client_secret_auth_config"] = tokens
        self._read = SimpleNamespace(
            # The same account, by the address of its blobs.
            host=host.replace(".dfs.core.", ".blob.core."),
            login=connection.login,
            password=connection.password,
            extra_dejson={**options, "shared_access_key": key, "sas_token": sas and f"?{sas}"},
        )

    def get_connection(self, conn_id: str) -> Any:  # type: ignore[override] # noqa: ARG002 - of this one hook
        """Return what the connection says."""
        return self._read


class AzureClient:
    """
    Azure Blob Storage, by one connection. A container is its bucket.

    :param service: the ``BlobServiceClient``.
    :param session: its connections.
    """

    def __init__(self, service: Any, session: requests.Session) -> None:
        self._service = service
        self._session = session

    @classmethod
    def from_connection(cls, connection: StorageConnection | None) -> AzureClient:
        """Return the client of *connection*; without one, of what the variable of Azure's own tools says."""
        # The client's own pool is smaller than the requests that are on their way at once.
        session = pooled(requests.Session(), THREADS)
        if connection is not None:
            return cls(_Hook(connection, session).get_conn(), session)
        if not (known := os.environ.get(_VARIABLE)):
            raise WrongSettings(f"Azure needs a connection of type wasb or adls, or {_VARIABLE} in the environment")
        return cls(BlobServiceClient.from_connection_string(known, **_options(session, {})), session)

    def pages(self, bucket: str, prefix: str, *, flat: bool) -> Iterator[tuple[list[Entry], list[str]]]:
        """Yield what begins with *prefix*; see ``ObjectClient.pages``."""
        container = self._service.get_container_client(bucket)
        # Only the metadata tells which empty blobs stand for folders.
        asked = {"name_starts_with": prefix or None, "include": ["metadata"]}
        listed = container.list_blobs(**asked) if flat else container.walk_blobs(**asked, delimiter="/")
        pages, token = listed.by_page(), None
        for page in pages:
            if token and token == pages.continuation_token:
                raise OSError("the server gives the same page again")
            token = pages.continuation_token
            blobs, folders = [], []
            for one in page:
                if isinstance(one, BlobPrefix):
                    folders.append(one.name)
                else:
                    blobs.append(_entry(bucket, one.name, one))
            yield blobs, folders

    def stat(self, bucket: str, key: str) -> Entry:
        """Return what is said of one blob; see ``ObjectClient.stat``."""
        return _entry(bucket, key, self._blob(bucket, key).get_blob_properties())

    def read(self, bucket: str, key: str, version: str | None, span: tuple[int, int] | None) -> bytes:
        """Return the bytes of one blob; see ``ObjectClient.read``."""
        # Without a span the client would ask twice for an empty blob.
        start, end = span or (0, _LONGEST)
        blob = self._blob(bucket, key)
        try:
            answer = blob.download_blob(start, end - start, **_condition(version), decompress=False)
        except HttpResponseError as error:
            # An empty blob has no first byte that could be asked for.
            if start == 0 and error.status_code == _NO_SUCH_RANGE:
                return b""
            raise
        refuse_encoded(key, answer.properties.content_settings.content_encoding)
        refuse_other(version, answer.properties.etag)
        refuse_other_span(span, answer.properties.content_range)
        return bytes(answer.readall())

    def write(self, bucket: str, key: str, stream: BinaryIO, size: int, *, new: bool) -> None:
        """Write one blob; see ``ObjectClient.write``."""
        blob = self._blob(bucket, key)
        if size <= ONE_REQUEST_BYTES:
            blob.upload_blob(stream.read(size), overwrite=not new)
        else:
            blob.upload_blob(stream, length=size, overwrite=not new)

    def delete(self, bucket: str, key: str, version: str | None) -> None:
        """Delete one blob; see ``ObjectClient.delete``. Its snapshots go too: none can be without their blob."""
        self._blob(bucket, key).delete_blob(delete_snapshots="include", **_condition(version))

    def meaning(self, error: Exception) -> Exception:
        """Return *error* as what it means; see ``ObjectClient.meaning``."""
        if not isinstance(error, HttpResponseError):
            return error
        code: Any = getattr(error, "error_code", None)
        code, status = getattr(code, "value", code), error.status_code
        kind: type[OSError]
        if code == "BlobNotFound" or (not code and status == _NOT_FOUND):
            kind = FileNotFoundError
        elif code in _CONDITION or (not code and status == _PRECONDITION_FAILED):
            kind = FileExistsError
        elif code in _DENIED:
            kind = PermissionError
        else:
            return error
        # Numbers of the request and the answer's XML follow.
        return kind(str(error.message).partition("\n")[0])

    def close(self) -> None:
        """Close the connections."""
        close_session(self._session)

    def _blob(self, bucket: str, key: str) -> Any:
        if not {".", ".."}.isdisjoint(key.split("/")):
            # Whatever sends the request would take the step, and reach another key.
            raise WrongSettings("its key has a step called . or .., which no address can name; copy it to another key")
        return self._service.get_blob_client(bucket, key)


def _options(session: requests.Session, extra: Mapping[str, Any]) -> dict[str, Any]:
    options = {**OPTIONS, **extra}
    # It reads the time-outs, which the client would not tell it.
    transport = RequestsTransport(**{**options, "session": session, "session_owner": False})
    return {**options, "transport": transport}


def _condition(version: str | None) -> dict[str, Any]:
    return {} if version is None else {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified}


def _entry(bucket: str, key: str, said: Any) -> Entry:
    folder = any(name.casefold() == "hdi_isfolder" and is_on(v) for name, v in (said.metadata or {}).items())
    etag, modified = said.etag, said.last_modified
    return object_entry(
        f"{bucket}/{key}", int(said.size), etag and etag.strip('"'), modified and modified.timestamp(), folder=folder
    )
