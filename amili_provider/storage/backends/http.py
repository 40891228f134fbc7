"""Single files by HTTP(S), as Airflow's own HTTP hook reads the connection: headers, login, proxies, certificates."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import BinaryIO, cast
from urllib.parse import unquote, urljoin, urlsplit

import requests

from amili_provider.connection.proxies import environment_proxy
from amili_provider.receipts import one_line
from amili_provider.storage.backends.sessions import close_session
from amili_provider.storage.base import Entry, object_entry
from amili_provider.storage.connections import StorageConnection
from amili_provider.storage.errors import WrongSettings

_SECONDS = (30, 120)
_BLOCK = 256 * 1024
# Bytes as they are. What a server compresses all the same is unpacked: it is the file that was asked for.
_HEADERS = {"Accept-Encoding": "identity"}
_UNPACKED = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


class HttpFiles:
    """
    Files that have an address of their own. They can be read, not listed or written.

    :param session: headers, login, proxies and certificates.
    :param base: the address that the connection names; paths without a scheme start there.
    """

    def __init__(self, session: requests.Session, base: str) -> None:
        self._session = session
        self.base = base

    @classmethod
    def from_connection(cls, connection: StorageConnection | None) -> HttpFiles:
        """Return the files behind an Airflow connection, or of anybody. Only from the task's own thread."""
        if connection is None:
            return cls(requests.Session(), "")
        from airflow.providers.http.hooks.http import HttpHook

        hook = HttpHook(method="GET", http_conn_id=connection.conn_id)
        try:
            session = hook.get_conn()
        except Exception as error:  # noqa: BLE001 - the hook's versions differ in what they raise
            raise WrongSettings(f"the connection cannot be used for HTTP ({error})") from None
        return cls(session, hook.base_url)

    def close(self) -> None:
        """Close the connections; who asks again opens new ones."""
        close_session(self._session)

    def path_of(self, scheme: str, rest: str) -> str:
        """Return the address; a host there must be the connection's."""
        address = f"{scheme}://{rest}"
        if "@" in rest.partition("/")[0]:
            raise ValueError(f"The {scheme}:// path names a user. Put the login into an Airflow connection.")
        if self.base and urlsplit(address)[:2] != urlsplit(self.base)[:2]:
            raise ValueError(
                f"The path is at {scheme}://{urlsplit(address).netloc}, but the connection is to "
                f"{urlsplit(self.base).scheme}://{urlsplit(self.base).netloc}. Choose another connection, or none."
            )
        return address

    @staticmethod
    def file_name(path: str) -> str:
        """Return the name of the file at an address."""
        return unquote(urlsplit(path).path.rsplit("/", 1)[-1])

    def info(self, path: str) -> Entry:
        """Return size and version of the file at *path*."""
        answer = self._ask("HEAD", path)
        if answer.status_code in (400, 403, 405, 501) or _length(answer) in (None, 0):
            # Servers that do not know HEAD, or say nothing or 0 to it; and addresses signed for GET alone.
            answer.close()
            answer = self._ask("GET", path)
        with answer:
            self._check(answer, path)
            size = _length(answer)
            if size is None:
                # The only way to know it is to read it.
                size = sum(len(block) for block in _blocks(answer))
            modified = _moment(answer.headers.get("Last-Modified"))
            version = answer.headers.get("ETag") or (None if modified is None else str(modified))
            return object_entry(path, size, version, modified)

    def open(self, path: str, _size: int, _version: str | None, /) -> BinaryIO:
        """Return a stream of the file at *path*."""
        answer = self._ask("GET", path)
        try:
            self._check(answer, path)
        except BaseException:
            answer.close()
            raise
        return cast("BinaryIO", _Body(answer))

    def _ask(self, method: str, path: str) -> requests.Response:
        proxies = self._proxies(path)
        try:
            return self._session.request(
                method, path, headers=_HEADERS, stream=True, timeout=_SECONDS, allow_redirects=False, proxies=proxies
            )
        except requests.RequestException as error:
            # Its text holds the whole address, whose query may be a signature.
            raise OSError(f"no answer from {urlsplit(path).netloc} ({type(error).__name__})") from None

    def _proxies(self, address: str) -> dict[str, str] | None:
        """Return the way to an address, read from the environment as for Amili; None: as the connection says."""
        if self._session.proxies or not self._session.trust_env:
            return None
        try:
            return {urlsplit(address).scheme: environment_proxy(address, "requests") or ""}
        except ValueError as reason:
            raise WrongSettings(str(reason)) from None

    @staticmethod
    def _check(answer: requests.Response, path: str) -> None:
        said = f"HTTP {answer.status_code} {answer.reason}"
        if answer.status_code in (404, 410):
            raise FileNotFoundError(said)
        if answer.status_code in (401, 403):
            raise PermissionError(said)
        if answer.is_redirect:
            # The connection's headers would go along, and what is there may be a log-in page.
            raise WrongSettings(
                f"the server answered {said}, a redirect to {_host(answer)}, which is not followed; "
                "name the address of the file itself"
            )
        if answer.status_code != 200:  # noqa: PLR2004 - the one status that promises a whole file
            raise OSError(f"the server answered {said}")
        packed = {one.strip().casefold() for one in answer.headers.get("Content-Encoding", "").split(",")}
        if unknown := packed - _UNPACKED:
            raise WrongSettings(
                f"the server packs it with {one_line(', '.join(sorted(unknown)), 40)}, unasked, which is not unpacked "
                f"here. Let it send the file as it is, or packed with gzip"
            )
        if not urlsplit(path).path.strip("/"):
            raise OSError("the address has no file name")


def _moment(words: str | None) -> float | None:
    if not words:
        return None
    try:
        moment = parsedate_to_datetime(words)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _length(answer: requests.Response) -> int | None:
    """Return the length of the file, or None where the server does not tell it, or tells that of its packed form."""
    if answer.headers.get("Content-Encoding", "identity").strip().casefold() not in ("", "identity"):
        return None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _host(answer: requests.Response) -> str:
    return one_line(urlsplit(urljoin(answer.url, answer.headers["Location"])).netloc.rpartition("@")[2], 80)


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    return iter(lambda: answer.raw.read(_BLOCK, decode_content=True), b"")


class _Body(io.RawIOBase):
    """
    The bytes of a file in an answer, unpacked if they came packed.

    :param answer: an answer whose body was not read.
    """

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self._answer = answer

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        wanted = _BLOCK if size is None or size < 0 else min(size, _BLOCK)
        return bytes(self._answer.raw.read(wanted, decode_content=True))

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            super().close()
            self._answer.close()
