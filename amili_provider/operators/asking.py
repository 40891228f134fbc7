"""
Asking a person in Airflow whether Amili has files of unknown outcome, and taking the answer (``if_unknown="ask"``).

The task gives its worker back while it waits: from Airflow 3.3 on it awaits input, on 3.1 and 3.2 it is deferred. What
it needs afterwards is read again; Airflow keeps the ids of the files for it, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_1_PLUS,
    AIRFLOW_V_3_3_PLUS,
    get_base_airflow_version_tuple,
)

from amili_provider.delivery.options import Options
from amili_provider.delivery.report import failure as failure_of
from amili_provider.exceptions import AmiliError, AmiliOutcomeUnknown, AmiliPermanentError
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger import History, Ledger, settling
from amili_provider.ledger.attempts import Run
from amili_provider.ledger.opening import ledger_from
from amili_provider.ledger.settling import Person
from amili_provider.operators import question
from amili_provider.receipts import Outcome, Receipt, one_line, receipt_from
from amili_provider.report_lines import LOG_WIDTH, LONGEST_CLASS, wrapped

GOES_ON_IN = "execute_complete"
"""The operator's method that gets the answer."""
ASKED_BEFORE = "A person was asked in this try, and these are unknown again: clear the task to be asked anew."
Asked = Mapping[str, Sequence[int]]
"""The files that were asked about, by id, and the numbers of their attempts whose outcome was unknown then."""
_REASON = "reason"
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Asking:
    """
    How a task asks.

    :param users: the only ones who may answer; None for all who may act on the DAG.
    :param timeout: how long to wait for the answer; None for ever.
    :param options: of the task, which names its ledger.
    :param conn_id: its connection to Amili.
    :param log: its logger.
    """

    users: list[dict[str, str]] | None
    timeout: timedelta | None
    options: Options
    conn_id: str
    log: logging.Logger

    @contextmanager
    def open_ledger(self) -> Iterator[Ledger]:
        """
        Open the task's ledger for a moment. Call it from the task's own thread.

        :raises AmiliLedgerUnavailable: if that cannot be done.
        """
        with AmiliHook(self.conn_id) as hook:
            ledger = ledger_from(
                self.options.ledger, hook.settings, client_no=hook.client_no(self.options.client_no or None)
            )
        assert ledger is not None  # without one, nothing is asked
        with ledger:
            yield ledger

    def or_fail(self, failure: AmiliError, receipts: Sequence[Receipt], ti: Any) -> NoReturn:
        """
        Ask, by raising what makes Airflow wait; or raise the error to end with where nothing is to be asked.

        Only where the task is not tried again anyway, so that everything else was delivered before.

        :param failure: what the task fails with otherwise.
        :param receipts: of the task.
        :param ti: the task instance; None outside of Airflow.
        :raises AmiliLedgerUnavailable: if it cannot be asked what is unknown.
        """
        unknown = [receipt for receipt in receipts if receipt.outcome is Outcome.UNKNOWN]
        retried = not isinstance(failure, AmiliPermanentError) and ti is not None and ti.try_number <= ti.max_tries
        if not unknown or retried or any(receipt.unwritten for receipt in receipts):
            raise failure
        if (obstacle := _obstacle(ti)) is not None:
            self.log.warning("%s", obstacle)
            raise with_words(obstacle, failure)
        file_ids = list(dict.fromkeys(receipt.file_id or "" for receipt in unknown))
        known = self._unknown(file_ids)
        if len(known) < len(file_ids):
            # Settled at this moment, or sent by two runs at once: then a look at the ledger comes first.
            raise failure
        self.log.info("Asking a person about %d file(s): see Required Actions", len(known))
        _wait_for_answer(self, ti, known)

    def again(self, answer: Answer, file_ids: Asked, ti: Any) -> None:
        """
        Ask about the same files once more, since the reason was empty; return if all are settled by now, as answered.

        :raises AmiliOutcomeUnknown: if the ledger says otherwise of one of them by now.
        """
        with self.open_ledger() as ledger:
            try:
                settling.check_settling(ledger, list(file_ids), arrived=answer.arrived is True)
            except ValueError as refused:
                raise _otherwise(answer, refused) from None
        if known := self._unknown(list(file_ids)):
            self.log.warning("The answer gives no reason, so nothing is settled, and the question is asked again.")
            _wait_for_answer(self, ti, known)

    def _unknown(self, file_ids: Sequence[str]) -> list[History]:
        with self.open_ledger() as ledger:
            known = ledger.look_up(file_ids)
        return [history for history in known.values() if history.open]


def asking_of(users: Any, timeout: Any, options: Options, conn_id: str, log: logging.Logger) -> Asking:
    """
    Return how a task asks that has ``if_unknown="ask"``.

    :param users: ``assigned_users`` as Airflow's operators have it.
    :param timeout: ``response_timeout``, likewise.
    :param options: of the task.
    :param conn_id: its connection to Amili.
    :param log: its logger.
    :raises ValueError: if an argument is wrong, or there is no ledger to keep the answer.
    """
    if options.ledger is None:
        raise ValueError("if_unknown='ask' needs a ledger, which keeps the answer. Name one, or leave ledger= out.")
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout <= timedelta(0)):
        raise ValueError(f"response_timeout must be a timedelta, for example timedelta(hours=8), not {timeout!r}.")
    listed = [users] if isinstance(users, Mapping) else users
    if listed is not None and (not isinstance(listed, list | tuple) or not listed or not all(map(_is_user, listed))):
        raise ValueError(
            f"assigned_users must be a list of users as Airflow names them, for example "
            f"[{{'id': 'kari', 'name': 'Kari Nordmann'}}], not {users!r}."
        )
    named = None if listed is None else [{"id": user["id"], "name": user["name"]} for user in listed]
    return Asking(named, timeout, options, conn_id, log)


def _is_user(user: Any) -> bool:
    return isinstance(user, Mapping) and all(isinstance(user.get(k), str) and user[k].strip() for k in ("id", "name"))


def _obstacle(ti: Any) -> str | None:
    version = get_base_airflow_version_tuple()
    if not AIRFLOW_V_3_1_PLUS:
        shown = ".".join(map(str, version))
        return f"if_unknown='ask' needs Airflow 3.1 or newer, and this is {shown}: it ends as if_unknown='fail' does."
    if getattr(ti, "id", None) is None:
        return "if_unknown='ask' needs a task that Airflow runs: without one it ends as if_unknown='fail' does."
    return None


def _wait_for_answer(asking: Asking, ti: Any, unknown: Sequence[History]) -> NoReturn:
    from airflow.sdk import Param
    from airflow.sdk.execution_time.hitl import HITLUser, upsert_hitl_detail

    reason = Param(
        "",
        type=["null", "string"],
        maxLength=_LONGEST_REASON,
        title="Reason",
        description="How you know. Needed to settle them, and kept in the ledger with your name.",
    )
    # Before 3.1.3 Airflow kept plain values.
    params = {_REASON: reason.serialize() if get_base_airflow_version_tuple() >= (3, 1, 3) else reason.value}
    upsert_hitl_detail(
        ti_id=ti.id,
        options=list(question.OPTIONS),
        subject=question.subject(len(unknown)),
        body=question.body(unknown),
        defaults=None,
        multiple=False,
        params=params,
        assigned_users=None if asking.users is None else [HITLUser(id=u["id"], name=u["name"]) for u in asking.users],
    )
    kept = {"file_ids": {history.file_id: list(history.open) for history in unknown}}
    if AIRFLOW_V_3_3_PLUS:
        from airflow.sdk.exceptions import TaskAwaitingInput

        raise TaskAwaitingInput(method_name=GOES_ON_IN, kwargs=kept, timeout=asking.timeout)
    from airflow.providers.common.compat.sdk import TaskDeferred
    from airflow.providers.standard.triggers.hitl import HITLTrigger

    trigger = HITLTrigger(
        ti_id=ti.id,
        options=list(question.OPTIONS),
        params=params,
        defaults=None,
        multiple=False,
        timeout_datetime=None if asking.timeout is None else datetime.now(UTC) + asking.timeout,
    )
    raise TaskDeferred(trigger=trigger, method_name=GOES_ON_IN, kwargs=kept)


# The answer


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What came of a question to a person.

    :param arrived: whether Amili has the files; None if they stay unknown.
    :param words: who said what, or why there is no answer, as a sentence.
    :param name: who answered.
    :param login: as whom they are logged in.
    :param reason: how they know.
    """

    arrived: bool | None
    words: str
    name: str = ""
    login: str = ""
    reason: str = ""

    @property
    def lacks_reason(self) -> bool:
        """Whether it would settle files, and does not say why."""
        return self.arrived is not None and not self.reason


def answer_of(event: Mapping[str, Any], timeout: timedelta | None) -> Answer:
    """
    Return what Airflow's event says; anything but a person's clear answer leaves the files unknown.

    :param event: of the question.
    :param timeout: how long it was waited for.
    """
    if "error" in event:
        if event.get("error_type") == "timeout":
            return Answer(None, f"No answer came within {timeout}: the files stay unknown.")
        return Answer(None, f"The answer cannot be taken ({one_line(event['error'], 120)}): the files stay unknown.")
    user, chosen = event.get("responded_by_user"), list(event.get("chosen_options") or [])
    if not isinstance(user, Mapping) or not (user.get("id") or user.get("name")):
        return Answer(None, "The answer names no person, so nothing is settled: the files stay unknown.")
    name, login = str(user.get("name") or user["id"]), f"Airflow user {user.get('id') or user['name']}"
    typed = event.get("params_input")
    reason = one_line((typed.get(_REASON) if isinstance(typed, Mapping) else "") or "", _LONGEST_REASON)
    arrived = {question.HAS_THEM: True, question.SEND_AGAIN: False}.get(chosen[0]) if len(chosen) == 1 else None
    said = {True: question.HAS_THEM, False: question.SEND_AGAIN, None: question.LEAVE_UNKNOWN}[arrived]
    # The reason may speak of people: it is in the ledger only.
    words = f"{one_line(name, 80)} answered: {said}."
    if arrived is None and chosen != [question.LEAVE_UNKNOWN]:
        words = f"The answer of {one_line(name, 80)} is none of those offered: the files stay unknown."
    return Answer(arrived, words, name, login, reason)


def settle(ledger: Ledger, answer: Answer, file_ids: Asked, run: Run) -> list[History]:
    """
    Write the answer into the ledger, about the attempts that were asked about; return what it knew of their files.

    :raises AmiliOutcomeUnknown: if the ledger says otherwise of one of them by now.
    :raises AmiliLedgerUnavailable: if it cannot be written; the next try asks again.
    """
    person = Person(answer.name, answer.reason, answer.login, run)
    try:
        known = ledger.look_up(list(file_ids))
        settling.settle(ledger, person, arrived=answer.arrived is True, file_ids=list(file_ids), attempts=file_ids)
    except ValueError as refused:
        raise _otherwise(answer, refused) from None
    return list(known.values())


def _otherwise(answer: Answer, refused: ValueError) -> AmiliOutcomeUnknown:
    return AmiliOutcomeUnknown(
        f"{answer.words} The ledger says otherwise by now. {refused} Clear the task: it then goes by the ledger, "
        "and asks about what is still unknown."
    )


def earlier_receipts(ti: Any, task_id: str) -> list[Receipt]:
    """Return the receipts that the task published before it asked; none if they are not kept."""
    found = ti.xcom_pull(task_ids=task_id, map_indexes=ti.map_index)
    return [receipt_from(fields) for fields in found or ()]


def as_answered(earlier: Sequence[Receipt], answer: Answer, known: Sequence[History]) -> list[Receipt]:
    """
    Return the receipts of the first part as the answer makes them.

    Those of files to be sent again say that they are gone, which stands if the second part does not find them.

    :param earlier: the receipts of the first part; none if Airflow did not keep them.
    :param answer: what was said.
    :param known: what the ledger knew of the files that were asked about.
    """
    mine, message = {history.file_id: history for history in known}, one_line(answer.words)
    outcome = Outcome.ALREADY_UPLOADED if answer.arrived else Outcome.NOT_SENT
    said = message if answer.arrived else f"{message} It is no longer at its source, and could not be sent."
    receipts = [
        replace(receipt, outcome=outcome, message=said, gone=not answer.arrived)
        if receipt.outcome is Outcome.UNKNOWN and receipt.file_id in mine
        else receipt
        for receipt in earlier
    ]
    kept = {receipt.file_id for receipt in receipts}
    return receipts + [
        Receipt(
            name=history.told.name,
            source=history.told.source,
            client_no=history.told.client_no,
            file_type=history.told.file_type,
            size=history.told.size,
            file_id=file_id,
            sha256=history.told.sha256,
            outcome=outcome,
            message=said,
            gone=not answer.arrived,
        )
        for file_id, history in mine.items()
        if file_id not in kept
    ]


def left_unknown(answer: Answer, earlier: Sequence[Receipt], file_ids: Asked) -> AmiliError:
    """Return the error of a task whose question was not answered, or answered so."""
    failure = failure_of(earlier, halt=None, has_ledger=True)
    if failure is None:
        shown = ", ".join(list(file_ids)[:5]) + (f" and {len(file_ids) - 5} more" if len(file_ids) > 5 else "")  # noqa: PLR2004
        failure = AmiliOutcomeUnknown(f"Unknown, by file id: {shown}. 'amili-ledger unknown' lists all.")
    return with_words(answer.words, failure)


def with_words(words: str, failure: AmiliError) -> AmiliError:
    """Return *failure* with *words* before its message."""
    failure.message = "\n".join([*wrapped(words, LOG_WIDTH - len(LONGEST_CLASS)), failure.message])
    failure.args = (failure.message,)
    return failure
