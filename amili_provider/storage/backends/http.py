"""Single files by HTTP(S), as Airflow's own HTTP hook reads the connection: headers, login, proxies, certificates."""

from __future__ import annotations

import gzip
import ssl
import zlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import BinaryIO, cast
from urllib.parse import unquote, urljoin, urlsplit

import requests

from amili_provider.connection.addresses import environment_proxy
from amili_provider.receipts import one_line
from amili_provider.storage.backends.pool import close_session
from amili_provider.storage.base import Entry, ReadStream, object_entry
from amili_provider.storage.connections import StorageConnection
from amili_provider.storage.errors import WrongSettings

_SECONDS = (30, 120)
_BLOCK = 256 * 1024
# Bytes as they are. What a server compresses all the same is unpacked: it is the file that was asked for.
_HEADERS = {"Accept-Encoding": "identity"}
_PLAIN, _GZIP = frozenset({"", "identity"}), frozenset({"gzip", "x-gzip"})


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
                content = _content(answer)
                size = sum(len(block) for block in iter(lambda: content.read(_BLOCK), b""))
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
        return _content(answer)

    def _ask(self, method: str, path: str) -> requests.Response:
        session, proxies = self._session, self._proxies(path)
        # What the connection says counts: requests would prefer a bundle that the environment names to its
        # certificates, and a login in ~/.netrc to its header.
        verify = None if session.verify is True else session.verify
        auth = _as_it_is if session.auth is None and "Authorization" in session.headers else None
        try:
            return session.request(
                method, path, headers=_HEADERS, stream=True, timeout=_SECONDS, allow_redirects=False, proxies=proxies,
                verify=verify, auth=auth,
            )  # fmt: skip
        except requests.RequestException as error:
            # Its text holds the whole address, whose query may be a signature.
            why = f"{type(error).__name__}{_certificate_problem(error)}"
            raise OSError(f"no answer from {urlsplit(path).netloc} ({why})") from None

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
        if unknown := {*_packings(answer)} - _GZIP:
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
    if _packings(answer):
        return None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _host(answer: requests.Response) -> str:
    return one_line(urlsplit(urljoin(answer.url, answer.headers["Location"])).netloc.rpartition("@")[2], 80)


def _packings(answer: requests.Response) -> list[str]:
    words = (one.strip().casefold() for one in answer.headers.get("Content-Encoding", "").split(","))
    return [word for word in words if word not in _PLAIN]


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _certificate_problem(error: BaseException | None) -> str:
    """Return what is wrong with the server's certificate, if that is what an error of requests wraps."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f": {error.verify_message}"
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        error = inner if isinstance(inner, BaseException) else None
    return ""


def _content(answer: requests.Response) -> BinaryIO:
    """Return the bytes of a file in an answer, unpacked if they came packed."""
    content = cast("BinaryIO", _Body(answer))
    for _ in _packings(answer):
        content = cast("BinaryIO", _Unpacked(content))
    return content


class _Body(ReadStream):
    """
    What an answer holds, as it comes.

    :param answer: an answer whose body was not read.
    """

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self._answer = answer

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        wanted = _BLOCK if size is None or size < 0 else min(size, _BLOCK)
        return bytes(self._answer.raw.read(wanted, decode_content=False))

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            super().close()
            self._answer.close()


class _Unpacked(ReadStream):
    """
    What was packed with gzip, to its end: urllib3 takes one that is cut off for whole.

    :param packed: as it comes.
    """

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._packed = packed
        self._content = gzip.GzipFile(fileobj=packed, mode="rb")

    def read(self, size: int | None = -1, /) -> bytes:
        """
        Return at most *size* bytes; none at the end.

        :raises OSError: if it is cut off or damaged.
        """
        try:
            return self._content.read(_BLOCK if size is None or size < 0 else min(size, _BLOCK))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise OSError(f"what the server packed with gzip is damaged: {error}") from None

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            super().close()
            self._packed.close()
