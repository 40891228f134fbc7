"""
What the form of ``example_dags/amili_ledger.py`` asks for.

Call these from a task's own thread: they look up connections.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from amili_provider.connection_form import LEDGER_FROM_CONNECTION, AmiliSettings
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger import adoption, copying, ways_out
from amili_provider.ledger.chosen import conn_id_for, ledger_from
from amili_provider.ledger.folders import Folder
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.places import open_folder
from amili_provider.reports import laid_out_errors

log = logging.getLogger(__name__)


@laid_out_errors()
def list_unknown(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files whose outcome is unknown, of the form's client or of all in the environment."""
    params = context["params"]
    settings = _settings(params)
    folder = _folder(params, settings)
    found = ways_out.list_unknown(folder, environment=settings.environment, client_no=params["client_no"])
    for file in found:
        log.info("%s %s (%s): %s", file.file_id, file.name, file.source, file.known)
    log.info("%d file(s) in %s whose outcome is unknown, in %s", len(found), folder.url, settings.environment)
    return [file.as_dict() for file in found]


@laid_out_errors()
def settle(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settle the form's files, and return what was written of each."""
    params = context["params"]
    arrived = params["action"] == "settle as arrived"
    file_ids = [file_id.strip() for file_id in params["file_ids"] if file_id.strip()]
    if not file_ids:
        raise ValueError("'File ids' is empty. 'list unknown' shows the ids; write one per line.")
    who, why = _who(context), params["why"] or ""
    with _ledger(params) as ledger:
        receipts = [
            ways_out.settle_unknown(ledger, file_id, arrived=arrived, who=who, why=why, run=_run(context))
            for file_id in file_ids
        ]
        for receipt in receipts:
            log.info("%s: %s", ledger.receipt_url(receipt.file_id, receipt.attempt), receipt.describe())
    return [{"file_id": r.file_id, "name": r.name, "outcome": str(r.outcome), "attempt": r.attempt} for r in receipts]


@laid_out_errors()
def adopt(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Adopt what the form's source matches, and return what became of each file."""
    params = context["params"]
    if not params["source"]:
        raise ValueError("'Source' is empty. Name what was delivered by other means: s3://bucket/sent/*.csv")
    with _ledger(params) as ledger:
        adopted = adoption.adopt(
            ledger,
            params["source"],
            params["source_conn_id"],
            file_type=params["file_type"] or "",
            who=_who(context),
            why=params["why"] or "",
            dry_run=bool(params["dry_run"]),
            run=_run(context),
        )
    for file in adopted:
        log.info("%s: %s %s", file.source, file.outcome, file.note)
    log.info("%s", dict(Counter(file.outcome for file in adopted)) or "No file matches.")
    return [file.as_dict() for file in adopted]


@laid_out_errors()
def copy(context: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the ledger to where the form says, and return what was done; an incomplete copy is an error."""
    params = context["params"]
    if not params["copy_to"]:
        raise ValueError("'Copy to' is empty. Name a folder on any storage.")
    origin = _folder(params, _settings(params))
    target = open_folder(params["copy_to"], params["copy_to_conn_id"])
    done = copying.copy_ledger(origin, target)
    log.info(
        "%d receipt(s) copied from %s to %s, %d were there already", done.copied, origin.url, target.url, done.same
    )
    if not done.complete:
        raise ValueError(
            f"The copy is not complete. Live claims, not copied: {len(done.live)} {done.live[:5]}: pause the uploads, "
            f"wait until their claims end, and copy again. Receipts that are there with other content: "
            f"{len(done.differing)} {done.differing[:5]}: copy to an empty folder."
        )
    return done.as_dict()


def _settings(params: Mapping[str, Any]) -> AmiliSettings:
    with AmiliHook(params["amili_conn_id"]) as hook:
        return hook.settings


def _ledger(params: Mapping[str, Any]) -> Ledger:
    ledger = ledger_from(params["ledger"] or LEDGER_FROM_CONNECTION, _settings(params), client_no=params["client_no"])
    if ledger is None:
        raise ValueError("'Ledger folder' is 'none', but this is about a ledger. Name its folder.")
    return ledger


def _folder(params: Mapping[str, Any], settings: AmiliSettings) -> Folder:
    url = params["ledger"] or settings.ledger
    if not url or url.strip().casefold() == "none":
        raise ValueError(
            f"No ledger: neither the form nor connection {settings.conn_id!r} names one. Fill in 'Ledger folder'."
        )
    return open_folder(url, conn_id_for(url, settings))


def _who(context: Mapping[str, Any]) -> str:
    """Return who uses the form; Airflow 3 knows, if they do not say."""
    return context["params"]["who"] or getattr(context.get("dag_run"), "triggering_user_name", None) or ""


def _run(context: Mapping[str, Any]) -> ways_out.ByHand:
    ti = context["ti"]
    return ways_out.ByHand(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id)
