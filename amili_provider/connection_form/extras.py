"""Which keys of a connection's extra count, and what is said of those that do not."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from typing import Any

from amili_provider.connection_form.fields import EXTRA_NAMES, FIELDS, label

_OTHER_FIELDS = {
    "token_url": "auth_url",
    "client_id": "login",
    "client_secret": "password",
    "base_url": "host",
    "base_path": "schema",
}


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]", "", key.casefold())


# Who reads the form and writes JSON calls a field by its label; units in brackets are no part of it.
_BY_ANY_NAME = {
    **{_folded(field.label.partition("(")[0]): field.name for field in FIELDS if not field.standard},
    **{_folded(name): name for name in sorted(EXTRA_NAMES)},
}
_LONGEST_KEY_SHOWN = 60

log = logging.getLogger(__name__)


def known_extras(extra: Any, conn_id: str) -> dict[str, Any]:
    """
    Return the extras that count and are not empty.

    One that is misspelt, or called by its label, is an error, since it would be ignored; what is like no field may be a
    note of somebody's own, and is warned of.

    :param extra: the connection's extra, parsed.
    :param conn_id: for the warning.
    :raises ValueError: naming the key that is wrong.
    """
    if not isinstance(extra, Mapping):
        raise ValueError("'Extra' is not a JSON object.")  # noqa: TRY004 - one kind for all wrong connections
    ignored: list[str] = []
    for key in extra:
        if key in EXTRA_NAMES or not isinstance(key, str):
            continue
        if key in _OTHER_FIELDS:
            raise ValueError(f"extra {key!r} is not a field of this connection; use {label(_OTHER_FIELDS[key])}.")
        if close := difflib.get_close_matches(_folded(key), _BY_ANY_NAME, n=1, cutoff=0.85):
            meant = _BY_ANY_NAME[close[0]]
            raise ValueError(f"extra {key!r} is not a field of this connection; did you mean {meant!r}?")
        ignored.append(key)
    if ignored:
        # Keys only: a value may be a secret.
        shown = ", ".join(repr(key[:_LONGEST_KEY_SHOWN]) for key in ignored)
        log.warning("Connection %r: ignored in the extra, since no field is called so: %s.", conn_id, shown)
    return {
        k: v
        for k, v in extra.items()
        if k in EXTRA_NAMES and v is not None and not (isinstance(v, str) and not v.strip())
    }
