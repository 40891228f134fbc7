"""Which ledger a command or a form means. These look up Airflow connections: call them from a task's own thread."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from amili_provider.connection_form import AmiliSettings
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger.opening import store_from
from amili_provider.ledger.stores import Identity


@dataclass(frozen=True, slots=True)
class Named:
    """
    A ledger as a person names it.

    :param conn_id: the connection to Amili.
    :param ledger: a table, a SQLite file or a prefix; None for the connection's.
    :param client_no: Amili's client number; None for the connection's, and to read, for all.
    """

    conn_id: str = "amili_default"
    ledger: str | None = None
    client_no: str | None = None

    @property
    def settings(self) -> AmiliSettings:
        """What the connection to Amili says."""
        with AmiliHook(self.conn_id) as hook:
            return hook.settings

    def create(self) -> tuple[str, Identity, bool]:
        """
        Create the ledger, if it is not there.

        :returns: where it is, which one it is, and whether it is new.
        :raises AmiliLedgerUnavailable: if it cannot be created; of a database, the message holds the statements.
        """
        with closing(store_from(self.ledger, self.settings, create=True)) as store:
            who, new = store.create()
            return store.shown, who, new
