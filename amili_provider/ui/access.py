"""What a person who opens the page may see, and which ledgers there are: Airflow is asked, in the API server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.configuration import conf
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from amili_provider.connection.settings import AmiliSettings
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger.opening import store_from
from amili_provider.ledger.stores import LedgerStore

_ENVIRONMENT = "AIRFLOW_CONN_"
_SHOWN = ("outcome", "name", "source", "client_no", "file_id", "status", "result", "message", "request")


@dataclass(frozen=True, slots=True)
class Reader:
    """
    The person who asks.

    :param user: as Airflow knows them.
    """

    user: BaseUser

    def may_read(self, conn_id: str) -> bool:
        """Return whether they may read a connection."""
        team = {"team_name": Connection.get_team_name(conn_id)} if hasattr(Connection, "get_team_name") else {}
        details = ConnectionDetails(conn_id=conn_id, **team)
        return bool(get_auth_manager().is_authorized_connection(method="GET", details=details, user=self.user))

    def dags(self, conn_id: str) -> frozenset[str] | None:
        """
        Return the DAGs whose deliveries they may see; None for all that the ledger holds.

        :param conn_id: the connection to Amili: who may read it may see all.
        """
        if self.may_read(conn_id):
            return None
        return frozenset(get_auth_manager().get_authorized_dag_ids(user=self.user, method="GET"))

    def may_see(self, dag_id: str, *, xcom: bool = False) -> bool:
        """Return whether they may read a DAG's task instances, or the XComs of these."""
        team = {"team_name": DagModel.get_team_name(dag_id)} if hasattr(DagModel, "get_team_name") else {}
        entity = DagAccessEntity.XCOM if xcom else DagAccessEntity.TASK_INSTANCE
        details = DagDetails(id=dag_id, **team)
        return bool(
            get_auth_manager().is_authorized_dag(method="GET", access_entity=entity, details=details, user=self.user)
        )


def connection_ids() -> list[str]:
    """
    Return the ids of the connections to Amili.

    Those that ``[amili] deliveries_conn_ids`` names, else those that are in Airflow's database or in the environment: a
    secrets backend cannot be asked for a list.
    """
    named = [one.strip() for one in conf.get("amili", "deliveries_conn_ids", fallback="").split(",")]
    if any(named):
        return [one for one in named if one]
    with create_session() as session:
        found = set(session.scalars(sa.select(Connection.conn_id).where(Connection.conn_type == AmiliHook.conn_type)))
    for name, value in os.environ.items():
        if name.startswith(_ENVIRONMENT) and _is_amili(value):
            found.add(name.removeprefix(_ENVIRONMENT).lower())
    # The usual one may be in a secrets backend.
    return sorted(found) or [AmiliHook.default_conn_name]


def _is_amili(value: str) -> bool:
    if not value.lstrip().startswith("{"):
        return value.lower().startswith(f"{AmiliHook.conn_type}:")
    try:
        found = json.loads(value)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("conn_type") == AmiliHook.conn_type


@contextmanager
def opened(conn_id: str) -> Iterator[tuple[AmiliSettings, LedgerStore]]:
    """
    Open the ledger that a connection to Amili names, to read.

    :param conn_id: the connection.
    :raises ValueError: if it cannot be read, or names no ledger.
    :raises AmiliError: if there is no such connection, or its ledger cannot be read.
    """
    with AmiliHook(conn_id) as hook:
        settings = hook.settings
    store = store_from(None, settings)
    try:
        store.open(read_only=True)
        yield settings, store
    finally:
        store.close()


def receipts(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[dict[str, Any]] | None:
    """
    Return the receipts that a task instance published; none if its XCom is gone.

    :returns: None if it holds something else, as with an XCom backend that keeps values outside of the database.
    """
    mine = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index, "key": "return_value"}
    with create_session() as session:
        found = session.scalars(sa.select(XComModel).filter_by(**mine)).first()
        value = None if found is None else XComModel.deserialize_value(found)
    if not isinstance(value, list):
        return [] if found is None else None
    return [_receipt(one) for one in value if isinstance(one, dict) and isinstance(one.get("outcome"), str)]


def _receipt(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a receipt; another task may have published something else."""
    shown: dict[str, Any] = {name: str(found.get(name) or "") for name in _SHOWN}
    return shown | {"size": found["size"] if isinstance(found.get("size"), int) else None}
