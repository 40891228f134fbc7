"""The Airflow connection of a storage: looked up once, and its secrets kept out of every message."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.receipts import one_line

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
