"""The form of ``example_dags/amili_ledger.py``: its fields become an action at the desk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amili_provider.command.desk import Desk
from amili_provider.ledger.attempts import Run
from amili_provider.ledger.questions import Row
from amili_provider.report_lines import laid_out_errors

log = logging.getLogger(__name__)


@laid_out_errors()
def act(context: Mapping[str, Any]) -> list[Row]:
    """
    Do what the form asks for, log it, and return it as rows. Only from a task's own thread.

    :param context: Airflow's, of a run with the form's fields for its parameters.
    :raises ValueError: if a field is missing or wrong.
    :raises AmiliError: if the ledger or Amili cannot be asked.
    """
    form, ti = context["params"], context["ti"]
    user = getattr(context.get("dag_run"), "triggering_user_name", None) or ""
    desk = Desk(
        form["amili_conn_id"],
        form["ledger"],
        form["client_no"],
        login=f"Airflow user {user}" if user else "",
        run=Run(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id),
    )
    rows: list[Row] = []
    try:
        rows.extend(_ACTIONS[form["action"]](desk, form, form["who"] or user))
    except BaseException:
        if rows:
            _tell(rows)
        raise
    _tell(rows)
    return rows


def _tell(rows: Sequence[Row]) -> None:
    # One event: Airflow's logger takes longer over a line than a ledger over a file.
    told = (", ".join(f"{name} {value}" for name, value in row.items() if value not in (None, "")) for row in rows)
    log.info("%d row(s)\n%s", len(rows), "\n".join(told))


Form = Mapping[str, Any]


def _create(desk: Desk, _form: Form, _who: str) -> list[Row]:
    return [{"done": desk.create()}]


def _find(desk: Desk, form: Form, _who: str) -> list[Row]:
    text = _filled(form, "find", "Find", "a part of a name or path, the beginning of a hash, or a file id")
    found = desk.find(text, form["first_day"], form["last_day"])
    if not found:
        log.info("%s", desk.not_found(text, form["first_day"], form["last_day"]))
    return found


def _settle(desk: Desk, form: Form, who: str) -> list[Row]:
    return desk.settle(
        who,
        form["why"] or "",
        arrived=form["action"] == "settle as arrived",
        file_ids=form["file_ids"],
        request=form["request"],
        run=form["run"],
    )


def _adopt(desk: Desk, form: Form, who: str) -> list[Row]:
    source = _filled(form, "source", "Source", "what was delivered by other means: s3://bucket/sent/*.csv")
    return desk.adopt(
        who,
        form["why"] or "",
        source,
        form["source_conn_id"],
        file_type=form["file_type"] or "",
        dry_run=bool(form["dry_run"]),
    )


def _copy(desk: Desk, form: Form, _who: str) -> list[Row]:
    to = _filled(form, "copy_to", "Copy to", "a table, a SQLite file or a prefix of a bucket")
    return [{"done": desk.copy(to, form["copy_to_conn_id"])}]


def _filled(form: Form, field: str, label: str, what: str) -> str:
    if not (value := str(form[field] or "").strip()):
        raise ValueError(f"'{label}' is empty. Name {what}.")
    return value


_ACTIONS: dict[str, Callable[[Desk, Form, str], Any]] = {
    "list unknown": lambda desk, _form, _who: desk.unknown(),
    "find": _find,
    "report": lambda desk, form, _who: desk.report(form["first_day"], form["last_day"]),
    "check with Amili": lambda desk, _form, _who: desk.check(),
    "settle as arrived": _settle,
    "settle as not arrived": _settle,
    "adopt": _adopt,
    "create": _create,
    "copy": _copy,
}
ACTIONS = tuple(_ACTIONS)
"""What the form offers."""
