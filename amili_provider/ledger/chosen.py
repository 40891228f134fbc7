"""Which ledger a connection and a task mean, and the sentence for those who named none."""

from __future__ import annotations

from amili_provider.connection_form import LEDGER_FROM_CONNECTION, AmiliSettings, checked_client_no, field_label
from amili_provider.ledger.ledger import Ledger
from amili_provider.storage.kinds import split_url


def ledger_from(named: str | None, settings: AmiliSettings, *, client_no: str | int | None = None) -> Ledger | None:
    """
    Open the ledger that is meant; None if there shall be none. Only from the task's own thread.

    :param named: a folder, None or 'none' for no ledger, or ``LEDGER_FROM_CONNECTION``.
    :param settings: what the connection says.
    :param client_no: Amili's client number; default: the connection's.
    :raises ValueError: if neither names one, or the path cannot be understood.
    :raises AmiliLedgerUnavailable: if it cannot be read and written.
    """
    if named is None or named.strip().casefold() == "none":
        return None
    url = settings.ledger if named == LEDGER_FROM_CONNECTION else named.strip()
    if not url:
        raise ValueError(
            f"No ledger is named, and nothing was sent. Without one, nobody remembers what Amili accepted: a retry, a "
            f"cleared task or a backfill would invoice debtors twice. Either name a folder on any storage, in the "
            f"field {field_label('ledger')} of connection {settings.conn_id!r} or as "
            f"ledger='s3://bucket/amili-ledger/', or say ledger=None and accept that a re-run may send files twice."
        )
    number = checked_client_no(settings.client_no if client_no in (None, "") else client_no, "client_no")
    try:
        return Ledger.open(
            url,
            conn_id_for(url, settings),
            environment=settings.environment,
            client_no=number,
            answer_timeout=settings.answer_timeout,
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        # The storage knows paths only; whoever reads of one would look for it in the source.
        raise ValueError(f"The ledger cannot be opened: {error}") from None


def conn_id_for(url: str, settings: AmiliSettings) -> str | None:
    """
    Return the connection that opens the ledger *url*: the one named for the connection's ledger, unless it cannot be.

    :param url: the connection's ledger, or another that a task named.
    :param settings: what the connection says.
    """
    scheme = split_url(url)[0]
    if settings.ledger is None or scheme is None or scheme == split_url(settings.ledger)[0]:
        return settings.ledger_conn_id
    # Another kind of storage: its own conn id can stand in the URL (s3://conn_id@bucket/folder).
    return None
