"""The test of a connection: it leaves nothing behind, is bounded, and speaks in words."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from amili_provider.connection.fields import label as field_label
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliAuthenticationError, AmiliError, AmiliRequestError
from amili_provider.ledger.opening import store_from
from amili_provider.ledger.stores import LedgerStore

if TYPE_CHECKING:
    from amili_provider.api.client import AmiliClient


TRIAL_SECONDS = 10.0
STEP_SECONDS = 4.0
_NOBODYS_BATCH = "00000000-0000-0000-0000-000000000000"
_NOT_FOUND = 404


def try_connection(settings: AmiliSettings, on_token: Callable[[str], None]) -> tuple[bool, str]:
    """
    Get a token, ask for a batch that does not exist, and open the ledger.

    :param settings: the connection.
    :param on_token: has the token masked.
    :returns: whether it works, and what was found, in words.
    """
    tokens: list[str] = []
    # A name server, a proxy or a database that does not answer is bounded by nothing else; so it runs beside a clock.
    trial = _beside(lambda: _trial(settings, tokens.append))
    opens, said = _ledger(settings)
    works, words = _result(
        trial,
        f"{settings.base_url} or the token service does not answer. Check {field_label('environment')}, "
        f"{field_label('host')}, {field_label('port')} and {field_label('proxy')}.",
    )
    for token in tokens:
        on_token(token)
    if not works:
        return False, words if opens else f"{words} {said}"
    return opens, f"{words} {said}" if opens else f"{said} All else works: {words}"


def _ledger(settings: AmiliSettings) -> tuple[bool, str]:
    if not (settings.ledger or settings.ledger_conn_id):
        # No fault of the connection, but the first upload would stop at it.
        return True, f"{field_label('ledger')} is empty: each upload then needs ledger=."
    try:
        # Airflow's connections are looked up here: its thread is the caller's.
        store = store_from(None, settings)
    except (AmiliError, ValueError) as error:
        return False, str(error)
    silence = (
        f"the ledger {store.shown} does not answer. Check {field_label('ledger')}, and host and port of the connection "
        f"in {field_label('ledger_conn_id')}."
    )
    return _result(_beside(partial(_opened, store)), silence)


@dataclass(frozen=True, slots=True)
class _Running:
    thread: threading.Thread
    found: list[tuple[bool, str]]
    until: float


def _beside(work: Callable[[], tuple[bool, str]]) -> _Running:
    found: list[tuple[bool, str]] = []
    thread = threading.Thread(target=lambda: found.append(work()), name="amili-connection-test", daemon=True)
    thread.start()
    return _Running(thread, found, time.monotonic() + TRIAL_SECONDS)


def _result(running: _Running, silence: str) -> tuple[bool, str]:
    running.thread.join(max(0.0, running.until - time.monotonic()))
    return running.found[0] if running.found else (False, f"No result within {TRIAL_SECONDS:g} s: {silence}")


def _opened(store: LedgerStore) -> tuple[bool, str]:
    try:
        with closing(store):
            return True, f"Ledger: {store.shown} ({store.open()})."
    except (AmiliError, ValueError) as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001 - the caller wants words whatever happens; texts may hold secrets
        return False, f"Opening the ledger failed with a {type(error).__name__}; this is a fault of the provider."


def _trial(settings: AmiliSettings, on_token: Callable[[str], None]) -> tuple[bool, str]:
    from amili_provider.api.client import AmiliClient  # the HTTP library is slow to import

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
                    f"the API at {settings.base_url}."
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
            f"{where} for a batch that does not exist, the API answered 404, as it should."
        )
    except AmiliAuthenticationError as error:
        return False, f"{obtained}, but not allowed to read {where}: {error}"
    except AmiliError as error:
        return False, f"{obtained}, but: {error}"
    return True, f"{obtained}. Reading {where} is allowed."
