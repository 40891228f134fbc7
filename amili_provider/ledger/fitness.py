"""Proof that a table is fit for a ledger: its server keeps unique keys, and the table what is written."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import FIELDS, Attempt, timestamp
from amili_provider.ledger.dialects import Dialect
from amili_provider.ledger.table import IDENTITY, KEY, SAID, row_of
from amili_provider.receipts import Outcome, Verdict

_ALL_KINDS = "Æ€😀'\\%"
"""Characters of one to four bytes, and those that statements are made of."""


def refuse_unfit(connection: sa.engine.Connection, dialect: Dialect, table: sa.Table, shown: str) -> None:
    """
    Refuse a database that cannot keep a ledger.

    :param shown: the ledger as messages name it.
    :raises ValueError: if it is Airflow's own, or Redshift.
    :raises AmiliLedgerUnavailable: if it cannot be written.
    """
    if any(
        all(dialect.has_table(connection, name, schema) for name in ("task_instance", "dag_run"))
        for schema in {None, table.schema}
    ):
        raise ValueError(
            f"The ledger cannot be kept in Airflow's own metadata database ({shown}): it is migrated, cleaned "
            f"and reset by Airflow. Give the ledger a database of its own, on the same server if you like."
        )
    dialect.refuse_server(connection, shown)


def refuse_strangers(path: str | None, shown: str) -> None:
    """
    Refuse to open a file that this user may not write: SQLite makes files beside it that lock others out.

    :param path: SQLite's file; None for a server.
    :param shown: the ledger as messages name it.
    :raises AmiliLedgerUnavailable: if this user may not write it.
    """
    if path is None:
        return
    try:
        with Path(path).open("r+b"):
            pass
    except PermissionError as error:
        raise AmiliLedgerUnavailable(
            f"The ledger {shown} cannot be opened: {error.strerror}. SQLite makes files beside it even to read, and "
            "those of another user would lock the tasks out. Run this as the user who runs the tasks, who may write "
            "the folder and all files in it."
        ) from None


def try_out(
    connection: sa.engine.Connection,
    table: sa.Table,
    insert: Callable[[sa.engine.Connection, Sequence[Attempt]], None],
    shown: str,
) -> None:
    """
    Claim and settle a file as a delivery does, and then let it be as if it had not been.

    :param insert: writes attempts as a delivery does.
    :param shown: the ledger as messages name it.
    :raises ValueError: if the table takes a key twice, or does not keep what is written.
    """
    trial = connection.begin_nested()
    attempt = Attempt(
        attempt=0, owner=secrets.token_hex(16), **IDENTITY | {"file_id": secrets.token_hex(16)}, name=_ALL_KINDS
    )
    insert(connection, [attempt])
    attempt.settle(Verdict(Outcome.UPLOADED, _ALL_KINDS, "", _ALL_KINDS))
    attempt.stamp_settled(0.0)
    row = row_of(attempt)
    # By the whole key: MySQL locks what it looks at, and others open the ledger at the same moment.
    mine = sa.and_(*(table.c[field] == row[field] for field in KEY))
    said = {name: row[name] for name in SAID}
    done = connection.execute(sa.update(table).where(mine).values(said))
    found = connection.execute(sa.select(*(table.c[field] for field in FIELDS)).where(mine)).all()
    if done.rowcount != 1 or [tuple(one) for one in found] != [tuple(row.values())]:
        raise ValueError(
            f"The ledger cannot be kept in {shown}: it does not keep what is written. Remove triggers, rules "
            f"and policies from its table, and let the database, the table and the connection keep every character "
            f"of Unicode (UTF8; MySQL: utf8mb4, and as charset in the connection's extra)."
        )
    # In all but the key another's: a key that holds more, as of a table in partitions, would take it.
    others = replace(attempt, owner=secrets.token_hex(16), claimed_at=timestamp(0.0), settled_at=None, name="b")
    others = replace(others, uploaded_at=None, size=1, file_type="b", dag_id="b", run_id="b", request="b")
    try:
        with connection.begin_nested():
            insert(connection, [others])
    except IntegrityError:
        trial.rollback()
    else:
        raise ValueError(
            f"The ledger cannot be kept in {shown}: its table takes a key twice, so two tasks could send one "
            f"file. Give it back its primary key ({', '.join(KEY)}), or create another ledger and import this one."
        )
