"""
Who a file is: 32 hex characters that say environment, client, file type and content.

The same bytes in another folder or from another storage are the same file. What was tried in staging is still sent in
production. The value goes to Amili as ``fileId`` and names the attempts, so it may never change:
``tests/unit/test_ledger_identity.py`` holds golden values.

**Equal bytes under another name.** The name that Amili gets is part of an identity in one case only: Amili has accepted
the bytes under another name, and the user says that they are to be sent under this one, too (``if_duplicate="send"``).
What was accepted stays accepted. So the rule for every look-up, whatever the user says now: ask by content; if
the bytes were accepted, and under other names only, ask by content and name. No identity with a name in it exists of
bytes that were never accepted without.
"""

from __future__ import annotations

import hashlib
import json
import re

from amili_provider.storage.names import comparable

FILE_ID_CHARACTERS = 32
_FILE_ID = re.compile(rf"[0-9a-f]{{{FILE_ID_CHARACTERS}}}")
_as_text = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def file_id(*, environment: str, client_no: str, file_type: str, sha256: str, name: str | None = None) -> str:
    """
    Return the identity of a file.

    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number; compared as text, without the blanks around it.
    :param file_type: compared without case.
    :param sha256: hash of the content, hex.
    :param name: as given to Amili, if it is part of the identity; compared as :func:`same_name` does.
    """
    parts = [
        environment.strip().casefold(),
        client_no.strip(),
        file_type.strip().casefold(),
        sha256.strip().lower(),
    ]
    if name is not None:
        parts.append(comparable(name))
    # A JSON list cannot be read in two ways, whatever the parts contain.
    return hashlib.sha256(_as_text(parts).encode("ascii")).hexdigest()[:FILE_ID_CHARACTERS]


def same_name(one: str, other: str) -> bool:
    """
    Return whether two names for Amili are one: without case, as Unicode NFC.

    :param one: a name; an empty one is not known (its attempt could not be read), and contradicts none.
    :param other: another.
    """
    return not one or not other or comparable(one) == comparable(other)


def is_file_id(text: str) -> bool:
    """Return whether *text* can be a file's identity."""
    return _FILE_ID.fullmatch(text) is not None
