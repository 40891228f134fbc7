"""Google Cloud Storage: google-cloud-storage, with the credentials that Airflow's ``GoogleBaseHook`` reads."""

# ruff: noqa: SLF001 - the library has no doors for its session, its cache and the address of an object's bytes

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import requests
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import (
    ClientError,
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    from_http_response,
)
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from amili_provider.storage.backends.objects import THREADS, asked_of, refuse_encoded, refuse_other, refuse_other_span
from amili_provider.storage.backends.pool import close_session
from amili_provider.storage.base import Entry, object_entry
from amili_provider.storage.connections import StorageConnection, is_on
from amili_provider.storage.errors import WrongSettings

RETRY_SECONDS = 30.0
"""How long a request is tried again that a server does not answer, or tells to come later."""
_TIMEOUT = (10.0, 60.0)  # to be reached, and to go on
_ONE_REQUEST_BYTES = 8 * 1024 * 1024
_FIELDS = "items(name,size,generation,updated),prefixes,nextPageToken"


class GcsClient:
    """
    Google Cloud Storage, by one connection.

    :param client: of google-cloud-storage.
    :param user_project: the project that pays for requests, of buckets that ask for that.
    """

    def __init__(self, client: Any, *, user_project: str | None = None) -> None:
        self._client = client
        self._user_project = user_project
        self._retry = DEFAULT_RETRY.with_timeout(RETRY_SECONDS)
        self._patience = {"retry": self._retry, "timeout": _TIMEOUT}
        self._http = client._http
        for adapter in self._http.adapters.values():
            # Its pools are smaller than the requests that are on their way at once. It may know a client's certificate.
            adapter.init_poolmanager(THREADS, THREADS)
        # For traces it asks for every bucket by itself, in threads that nobody ends.
        client._bucket_metadata_cache = None

    @classmethod
    def from_connection(cls, connection: StorageConnection | None) -> GcsClient:
        """Return the client of *connection*; without one, of what the machine itself may do."""
        if connection is None:
            return cls(Client(project=None))  # not every login has a project, and none is needed
        hook: Any = GoogleBaseHook(gcp_conn_id=connection.conn_id)
        # Older ones know no universes.
        options = hook.get_client_options() if hasattr(hook, "get_client_options") else ClientOptions()
        if endpoint := connection.extra.get("gcs.endpoint"):
            options.api_endpoint = str(endpoint)
        try:
            project, login = hook.project_id, hook.get_credentials()
        except (AirflowException, FileNotFoundError, PermissionError, ValueError, KeyError) as error:
            # A key that is not there, or is none: what it leads to is not there either, or so it would read.
            raise WrongSettings(
                f"its login cannot be read ({type(error).__name__}: {error}). Correct the credentials in the connection"
            ) from None
        client = Client(credentials=login, project=project, client_options=options)
        pays = is_on(connection.extra.get("gcs.requester-pays"))
        return cls(client, user_project=project if pays else None)

    def _bucket(self, name: str) -> Any:
        try:
            return self._client.bucket(name, user_project=self._user_project)
        except ValueError as error:
            raise WrongSettings(f"{name!r} is no bucket: {error} Correct the path") from None

    def pages(self, bucket: str, prefix: str, *, flat: bool) -> Iterator[tuple[list[Entry], list[str]]]:
        """Yield what begins with *prefix*; see ``ObjectClient.pages``."""
        levels = None if flat else "/"
        listed = self._client.list_blobs(
            self._bucket(bucket), prefix=prefix or None, delimiter=levels, fields=_FIELDS, **self._patience
        )
        token = None
        try:
            for page in listed.pages:
                if "error" in (getattr(page, "raw_page", None) or {}) or token == (listed.next_page_token or ""):
                    raise OSError("the server's answer is no listing, or the same page again")
                token = listed.next_page_token
                yield [_entry(bucket, blob) for blob in page], sorted(page.prefixes)
        except NotFound:
            raise WrongSettings(
                f"the bucket {bucket!r} does not exist. Correct the path, or choose another connection"
            ) from None

    def stat(self, bucket: str, key: str) -> Entry:
        """Return what is said of one object; see ``ObjectClient.stat``."""
        blob = self._bucket(bucket).blob(key)
        blob.reload(**self._patience)
        return _entry(bucket, blob)

    def read(self, bucket: str, key: str, version: str | None, span: tuple[int, int] | None) -> bytes:
        """Return the bytes of one object; see ``ObjectClient.read``."""
        generation = None if version is None else int(version)
        # The library's own download takes a block in pieces of 8 KiB, which costs four times as much.
        address = self._bucket(bucket).blob(key)._get_download_url(self._client, if_generation_match=generation)
        headers = {"Accept-Encoding": "gzip"}  # otherwise the server unpacks what is stored so
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"

        def ask() -> bytes:
            with self._http.get(address, headers=headers, timeout=_TIMEOUT, stream=True) as answer:
                if not answer.ok:
                    raise from_http_response(answer)  # type: ignore[no-untyped-call]
                refuse_encoded(key, answer.headers.get("Content-Encoding"))
                refuse_other(version, answer.headers.get("X-Goog-Generation"))
                refuse_other_span(span, answer.headers.get("Content-Range"))
                told = answer.headers.get("Content-Length")
                most = asked_of(span, told and int(told))
                data = bytes(answer.raw.read(most, decode_content=False))
                if most is not None and told and len(data) < most:
                    raise requests.ConnectionError(f"the answer broke off after {len(data)} of {most} bytes")
                return data

        return bytes(self._retry(ask)())

    def write(self, bucket: str, key: str, stream: BinaryIO, size: int, *, new: bool) -> None:
        """Write one object; see ``ObjectClient.write``."""
        blob = self._bucket(bucket).blob(key)
        how = {
            "content_type": "application/octet-stream",
            "if_generation_match": 0 if new else None,
            **self._patience,
        }
        if size <= _ONE_REQUEST_BYTES:
            blob.upload_from_string(stream.read(size), **how)
        else:
            blob.chunk_size = _ONE_REQUEST_BYTES
            blob.upload_from_file(stream, size=size, **how)

    def delete(self, bucket: str, key: str, version: str | None) -> None:
        """Delete one object; see ``ObjectClient.delete``."""
        generation = None if version is None else int(version)
        self._bucket(bucket).blob(key).delete(if_generation_match=generation, **self._patience)

    def meaning(self, error: Exception) -> Exception:
        """Return *error* as what it means; see ``ObjectClient.meaning``."""
        kind = next((kind for known, kind in _MEANINGS if isinstance(error, known)), None)
        return error if kind is None else kind(_words(error))

    def close(self) -> None:
        """Close the connections, those to the service that gives tokens too."""
        close_session(self._http)


_MEANINGS: tuple[tuple[type[ClientError] | tuple[type[ClientError], ...], type[OSError]], ...] = (
    (NotFound, FileNotFoundError),
    ((PreconditionFailed, Conflict), FileExistsError),
    (Forbidden, PermissionError),
)


def _words(error: Any) -> str:
    """Return what the server said: around it the library writes the address, and what else it would have liked."""
    said = error.response.text.strip() if error.response is not None else ""
    with suppress(ValueError, KeyError, TypeError):
        said = error.response.json()["error"]["message"]
    return str(said or error.message)


def _entry(bucket: str, blob: Any) -> Entry:
    updated = blob.updated
    return object_entry(f"{bucket}/{blob.name}", int(blob.size), str(blob.generation), updated and updated.timestamp())
