"""The test of a connection: read-only, bounded, in words."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from amili_provider.connection_form import AmiliSettings, field_label
from amili_provider.exceptions import AmiliAuthenticationError, AmiliError, AmiliRequestError

if TYPE_CHECKING:
    from amili_provider.client import AmiliClient

TRIAL_SECONDS = 10.0
STEP_SECONDS = 4.0
_NOBODYS_BATCH = "00000000-0000-0000-0000-000000000000"
_NOT_FOUND = 404


def try_connection(settings: AmiliSettings, on_token: Callable[[str], None]) -> tuple[bool, str]:
    """
    Get a token, then ask for a batch that does not exist.

    :param settings: the connection.
    :param on_token: has the token masked.
    :returns: whether it works, and what was found, in words.
    """
    # A name server or a proxy that does not answer is bounded by nothing else; so the trial runs beside a clock.
    found: list[tuple[bool, str]] = []
    tokens: list[str] = []
    thread = threading.Thread(
        target=lambda: found.append(_trial(settings, tokens.append)), name="amili-connection-test", daemon=True
    )
    thread.start()
    thread.join(TRIAL_SECONDS)
    for token in tokens:
        on_token(token)
    if not found:
        return False, (
            f"No result within {TRIAL_SECONDS:g} s: {settings.base_url} or the token service does not answer. Check "
            f"{field_label('environment')}, {field_label('host')}, {field_label('port')} and {field_label('proxy')}."
        )
    return found[0]


def _trial(settings: AmiliSettings, on_token: Callable[[str], None]) -> tuple[bool, str]:
    from amili_provider.client import AmiliClient  # the HTTP library is slow to import

    brisk = dataclasses.replace(
        settings,
        connect_timeout=min(STEP_SECONDS, settings.connect_timeout),
        answer_timeout=min(STEP_SECONDS, settings.answer_timeout),
    )
    obtained = "A ready-made access token is set"
    try:
        with AmiliClient(brisk, on_token=on_token, attempts=1) as client:
            life = client.sign_in()
            if life is not None:
                obtained = f"Token obtained from {settings.auth_url}, valid for {life / 60:.0f} minutes"
            if settings.client_no is None:
                return life is not None, (
                    f"{obtained}. {field_label('client_no')} is empty, so it was not tried whether you may use "
                    f"the API at {settings.base_url}.{_ledger_note(settings)}"
                )
            return _asked(client, settings, obtained)
    except (AmiliError, ValueError) as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001 - the caller wants words whatever happens; texts may hold secrets
        return False, f"The test itself failed with a {type(error).__name__}; this is a fault of the provider."


def _asked(client: AmiliClient, settings: AmiliSettings, obtained: str) -> tuple[bool, str]:
    where = f"client {settings.client_no} at {settings.base_url}"
    try:
        client.get_batch(str(settings.client_no), _NOBODYS_BATCH)
    except AmiliRequestError as error:
        if error.status_code != _NOT_FOUND or not error.answer:
            return False, f"{obtained}, but: {error}"
        return True, (
            f"A wrong client number or base path may answer the same; the first upload will show. {obtained}. Asked as "
            f"{where} for a batch that does not exist, the API answered 404, as it should.{_ledger_note(settings)}"
        )
    except AmiliAuthenticationError as error:
        return False, f"{obtained}, but not allowed to read {where}: {error}"
    except AmiliError as error:
        return False, f"{obtained}, but: {error}"
    return True, f"{obtained}. Reading {where} is allowed.{_ledger_note(settings)}"


def _ledger_note(settings: AmiliSettings) -> str:
    # No fault of the connection, but the first upload would stop at it.
    return "" if settings.ledger else f" {field_label('ledger')} is empty: each upload then needs ledger=."
