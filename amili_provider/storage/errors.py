"""
Errors of storages as ours, in one sentence: what was tried, with which connection, what to do.

The one place where the errors of a dozen storage libraries become ours.
"""

from __future__ import annotations

import re

from amili_provider.exceptions import AmiliError, AmiliStorageError, AmiliStorageSettingsError
from amili_provider.report_lines import GONE
from amili_provider.storage.connections import BY_SCHEME, StorageConnection, said


class WrongSettings(OSError):  # noqa: N818 - a state of the storage, as in the tree of exceptions
    """
    The server is there, but not as the connection says: raised by our own filesystems.

    :param words: what the server said, and what to do.
    """


# What the object storage libraries call credentials that are missing or wrong. They share no base class, and
# importing them only to name them would load every library.
_WRONG_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "NoAuthTokenError",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "DefaultCredentialsError",
        "InvalidOperation",  # an anonymous one that the server wants renewed
        "RefreshError",
        "HTTP 401",
        "Unauthorized",
        "MalformedError",
        "ClientAuthenticationError",
        "AzureSigningError",
        "CredentialUnavailableError",
        "AuthenticationFailed",
        "AuthorizationFailure",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
    }
)
# A service that gives tokens and was not reached, which Google's library reports as a refused login too; a session that
# is over, where the next try may be given another.
_PASSING = frozenset({"TransportError", "retryable", "ExpiredToken", "ExpiredTokenException"})
_NO_BUCKET = frozenset(
    {
        "NoSuchBucket",
        "ContainerNotFound",
        "InvalidBucketName",
        "InvalidResourceName",
        "ParamValidationError",
        "BadRequest",
    }
)
_SETTINGS = (
    (_WRONG_CREDENTIALS, " Correct the credentials in the connection."),
    (_NO_BUCKET, " Correct the bucket or container in the path, or choose another connection."),
)
# No server answered at all.
_UNREACHED = frozenset(
    {
        "ConnectionError",
        "ConnectionRefusedError",
        "NewConnectionError",
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ConnectTimeout",
        "NoValidConnectionsError",
        "ServiceRequestError",
        "SMBConnectionClosed",
        "gaierror",
    }
)
MISSING = re.compile(r"no such|not found|not exist|cannot find", re.IGNORECASE)
"""How a server says that a file is missing, and nothing else."""
# What systems say of a file that is missing or locked, which the sentence around it says already.
_PLAIN = frozenset({"no such file or directory", "no such file", "not found", "permission denied"})


def explain(action: str, url: str, connection: StorageConnection | None, error: BaseException) -> Exception:
    """
    Return *error* as one of ours, with a sentence that a person can act on.

    :param action: what was tried, as a verb: ``list``, ``read``, ``open``.
    :param url: on what.
    :param connection: with which connection, if any.
    """
    if isinstance(error, AmiliError):
        return error
    through = f" with the connection {connection.conn_id!r}" if connection else ""
    tried = f"Cannot {action} {url}{through}"
    words = said(error, connection)
    codes = _codes(error)
    settings_advice = next((advice for known, advice in _SETTINGS if codes & known), None)
    if isinstance(error, WrongSettings):
        return AmiliStorageSettingsError(f"{tried}: {words}.")
    if settings_advice is not None:
        said_so = f"{tried}: {words}.{settings_advice}"
        return AmiliStorageError(said_so) if codes & _PASSING else AmiliStorageSettingsError(said_so)
    if isinstance(error, UnicodeError) and url.partition(":")[0] in ("ftp", "ftps"):
        return AmiliStorageSettingsError(
            f"{tried}: its name is not in the character set that is spoken with the server. Name the server's in the "
            f"connection's extra 'encoding'."
        )
    if isinstance(error, FileNotFoundError):
        # Only what somebody named can be corrected: what was listed and is gone since is nobody's mistake.
        advice = _path_advice(url) if action == "list" else ""
        missing = GONE if action == "read" else "it does not exist"
        if words.startswith("550") and not MISSING.search(words):
            # FTP has one code for both, and many servers do not say which.
            missing = f"{missing}, or its login has no right to {action} it"
            advice = advice and f"{advice} Or give its login the right."
        return FileNotFoundError(f"{tried}: {missing}{_detail(words, url)}.{advice}")
    if isinstance(error, NotADirectoryError):
        return NotADirectoryError(f"{tried}: it is a file, not a folder.")
    if isinstance(error, PermissionError) or "HTTP 403" in codes:
        whom = "its login" if connection else "the worker"
        words = f"permission denied{_detail(words, url)}. Give {whom} the right to {action} it"
    elif type(error).__name__ not in words and type(error) is not OSError:
        words = f"{type(error).__name__}: {words}"
    return AmiliStorageError(f"{tried}: {words}.{_server_advice(connection, error, codes)}")


def _path_advice(url: str) -> str:
    scheme = url.partition(":")[0]
    if scheme in ("http", "https"):
        return " Correct the address; HTTP has no listing, so that a pattern is an address like any other."
    braces = " Braces are no pattern: give a list of paths." if "{" in url else ""
    if BY_SCHEME[scheme].object_store if scheme in BY_SCHEME else False:
        return f" Correct the path.{braces}"
    return f" Correct the path, or create the folder if it names one.{braces}"


def _server_advice(connection: StorageConnection | None, error: BaseException, codes: set[str]) -> str:
    """Return what to do if no server was reached."""
    if not isinstance(error, ConnectionError) and not codes & _UNREACHED:
        return ""
    if connection is None:
        return " See that the server runs and can be reached."
    if connection.conn_type == "aws" and connection.host and "endpoint_url" not in str(connection.extra):
        return (
            f" The field Host of connection {connection.conn_id!r} is not read: name the server in its extra "
            f"'endpoint_url'."
        )
    return f" See that the server runs, and check the host and port of connection {connection.conn_id!r}."


def _detail(words: str, url: str) -> str:
    """Return what the server said, if it says more than the name of the file."""
    plain = words.strip("'\"").rstrip("/")
    known = not plain or plain.casefold() in _PLAIN or url.rstrip("/").endswith(plain)
    return "" if known else f" ({words})"


def _codes(error: BaseException) -> set[str]:
    """Return the names by which *error* and what caused it can be known: classes and the services' own codes."""
    found: set[str] = set()
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            break
        found.add(type(seen).__name__)
        found.add(f"HTTP {getattr(seen, 'status_code', None)}")  # Azure's
        if getattr(seen, "retryable", None) is True:  # google-auth
            found.add("retryable")
        code = getattr(seen, "error_code", None)
        if code is not None:
            found.add(str(getattr(code, "value", code)))
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            found.add(str(response.get("Error", {}).get("Code", "")))
        seen = seen.__cause__ or seen.__context__
    return found
