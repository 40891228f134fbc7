"""Actions on the ledger of a connection: for the command, and for the form of its DAG."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from amili_provider.connection.settings import AmiliSettings
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger import Ledger, questions, settling, transfer
from amili_provider.ledger.attempts import Run
from amili_provider.ledger.opening import is_none, ledger_from, store_from
from amili_provider.ledger.questions import Row
from amili_provider.ledger.settling import Person
from amili_provider.ledger.stores import LedgerStore
from amili_provider.report_lines import laid_out_errors

_DAYS = 30
"""Days of a report that names no first day."""
_NO_MATCH = "No file matches."
log = logging.getLogger(__name__)
Form = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """
    A ledger as a person names it. These look up Airflow connections: call them from a task's own thread.

    :param conn_id: the connection to Amili.
    :param ledger: a table, a SQLite file or a prefix; None for the connection's.
    :param client_no: Amili's client number; None for the connection's, and to read, for all.
    :param login: as whom the person is logged in.
    :param run: the run in which they act.
    """

    conn_id: str = "amili_default"
    ledger: str | None = None
    client_no: str | None = None
    login: str = ""
    run: Run = field(default_factory=Run)

    def create(self) -> str:
        """Create the ledger, if it is not there; return what was done."""
        with closing(store_from(self._name(), self._settings(), create=True)) as store:
            who, new = store.create()
            done = "is created" if new else "is there already, nothing was changed"
            return f"The ledger {store.shown} {done}: {who}."

    def find(self, text: str, since: str | None = None, until: str | None = None) -> list[Row]:
        """Return what became of files; see :func:`~amili_provider.ledger.questions.find`."""
        with self._reading() as (store, only):
            return questions.find(store, text, since=since, until=until, **only)

    def not_found(self, text: str, since: str | None, until: str | None) -> str:
        """Return the sentence for a search that found nothing: on these days, or at all."""
        elsewhere = len(self.find(text)) if since or until else 0
        return f"No file matches on these days; {elsewhere} attempt(s) on others do." if elsewhere else _NO_MATCH

    def unknown(self) -> list[Row]:
        """Return the files whose outcome is unknown."""
        with self._reading() as (store, only):
            return questions.unknown(store, **only)

    def report(self, since: str | None = None, until: str | None = None) -> list[Row]:
        """Return the numbers of each day; without a first day, of the last thirty."""
        if not since and not until:
            since = (datetime.now(UTC).date() - timedelta(days=_DAYS)).isoformat()
        with self._reading() as (store, only):
            return questions.report(store, since=since, until=until, **only)

    def settle(
        self,
        name: str,
        reason: str,
        *,
        arrived: bool,
        file_ids: Sequence[str] = (),
        request: str | None = None,
        run: str | None = None,
    ) -> list[Row]:
        """
        Settle unknown files; see :func:`~amili_provider.ledger.settling.settle`.

        :param run: the DAG and its run, with a slash between.
        """
        person = self._person(name, reason)
        dag_id, _, run_id = (run or "").strip().partition("/")
        if run and not (dag_id and run_id):
            raise ValueError(f"{run[:80]!r} names no run of a DAG. Write both: DAG/RUN.")
        chosen = (dag_id, run_id) if run else None
        with self._writing() as ledger:
            return settling.settle(
                ledger, person, arrived=arrived, file_ids=file_ids, request=(request or "").strip() or None, run=chosen
            )

    def check(self) -> Iterator[Row]:
        """Ask Amili for the unknown files, and yield what became of each."""
        with AmiliHook(self.conn_id) as hook, self._writing() as ledger:
            yield from settling.check(ledger, hook.get_conn(), self.run)

    def adopt(
        self,
        name: str,
        reason: str,
        source: str,
        source_conn_id: str | None = None,
        *,
        file_type: str,
        dry_run: bool = False,
    ) -> list[Row]:
        """Record files as delivered without sending them; see :func:`~amili_provider.ledger.transfer.adopt`."""
        person = self._person(name, reason)
        with self._writing() as ledger:
            return transfer.adopt(ledger, person, source, source_conn_id, file_type=file_type, dry_run=dry_run)

    def export(self) -> Iterator[str]:
        """Yield the whole ledger, of all clients, as lines of JSON."""
        with closing(store_from(self._name(), self._settings())) as store:
            yield from transfer.export(store)

    def import_lines(self, lines: Iterable[str]) -> str:
        """Write into the ledger what another exported; return what was done."""
        with closing(store_from(self._name(), self._settings())) as store:
            store.open()
            return _imported(store, lines)

    def copy(self, to: str, conn_id: str | None = None) -> str:
        """
        Copy the whole ledger to another, which is created if it is not there; return what was done.

        :param to: a table, a SQLite file or a prefix.
        :param conn_id: the connection of its database or bucket.
        """
        settings = dataclasses.replace(self._settings(), ledger=to, ledger_conn_id=conn_id)
        with closing(store_from(None, settings, create=True)) as store:
            store.create()
            return _imported(store, self.export())

    def _name(self) -> str | None:
        if self.ledger and is_none(self.ledger):
            raise ValueError("'Ledger' is 'none', but this is about a ledger. Name it, or leave the field empty.")
        return self.ledger or None

    def _settings(self) -> AmiliSettings:
        with AmiliHook(self.conn_id) as hook:
            return hook.settings

    def _person(self, name: str, reason: str) -> Person:
        return Person(name, reason, self.login, self.run)

    @contextmanager
    def _reading(self) -> Iterator[tuple[LedgerStore, dict[str, Any]]]:
        settings = self._settings()
        with closing(store_from(self._name(), settings)) as store:
            store.open(read_only=True)
            yield store, {"environment": settings.environment, "client_no": self.client_no}

    @contextmanager
    def _writing(self) -> Iterator[Ledger]:
        ledger = ledger_from(self._name() or "", self._settings(), client_no=self.client_no)
        assert ledger is not None
        with ledger:
            yield ledger


def _imported(store: LedgerStore, lines: Iterable[str]) -> str:
    done = transfer.import_lines(store, lines)
    told = f"{done.written} attempt(s) are new in {store.shown}, {done.same} were there already"
    if done.differing:
        raise ValueError(
            f"The import is not complete: {len(done.differing)} attempt(s) are there with another owner or outcome, "
            f"and were left as they are: {', '.join(done.differing[:5])}. Import into an empty ledger. {told}."
        )
    return f"{told}."


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
