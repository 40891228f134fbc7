"""Arguments of a sensor, checked after templates were rendered; and mapped uploads that left no receipts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from amili_provider.connection.values import checked_client_no
from amili_provider.receipts import Outcome, one_line

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_REMEDY = {
    "receipts": "pass what the upload returned, for example receipts=upload.output",
    "file_ids": "pass a list of ids, for example file_ids=my_task.output or file_ids=['…']",
}
_LONGEST_ID = 200
_LONGEST_WAIT = timedelta(days=366)
_SENT = (Outcome.UPLOADED, Outcome.ALREADY_UPLOADED, Outcome.UNKNOWN)
"""Outcomes of files that Amili has, or may have."""
_HOPELESS = (Outcome.DUPLICATE, Outcome.REJECTED, Outcome.NOT_SENT)
"""Outcomes of files that Amili does not have (a duplicate: not under its name): there is nothing to wait for."""


@dataclass(slots=True)
class Asked:
    """
    What is waited for.

    :param files: per file its client number (None: the connection's) and its id; each once, in the order given.
    :param names: the names of the files, by id.
    :param undeliverable: receipts of files that never arrived.
    :param skipped: how many files were skipped by choice, and need nothing.
    """

    files: list[tuple[str | None, str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    undeliverable: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0


def asked_for(receipts: Any, file_ids: Any, client_no: Any) -> Asked:
    """
    Return what is waited for.

    :param receipts: what an upload returned, or several uploads.
    :param file_ids: ids instead.
    :param client_no: the client number; None for the receipts' own, or the connection's.
    :raises ValueError: naming the argument and the remedy.
    """
    number = None if client_no is None or client_no == "" else checked_client_no(client_no, "client_no")
    if receipts is not None and file_ids is not None:
        raise ValueError("receipts and file_ids are both given; give one of them.")
    if receipts is None and file_ids is None:
        raise ValueError(
            f"receipts and file_ids are None, so there is nothing to wait for: either {_REMEDY['receipts']}, or "
            f"{_REMEDY['file_ids']}. (An empty list would succeed.)"
        )
    asked = Asked()
    if receipts is not None:
        for receipt in _flat(receipts, "receipts"):
            _add_receipt(asked, receipt, number)
    else:
        for file_id in _flat(file_ids, "file_ids"):
            asked.files.append((number, _checked_id(file_id, "file_ids")))
    asked.files = list(dict.fromkeys(asked.files))
    return asked


def _flat(given: Any, name: str) -> Iterator[Any]:
    """Yield the entries of lists in lists: a mapped upload returns one list per mapped task."""
    if given is None or isinstance(given, str | bytes) or not isinstance(given, Iterable):
        what = "None" if given is None else f"{type(given).__name__} {one_line(given, 80)!r}"
        raise ValueError(
            f"{name} is {what}; {_REMEDY[name]}. A template such as '{{{{ ti.xcom_pull(...) }}}}' gives text "
            "unless the DAG sets render_template_as_native_obj=True."
        )
    if isinstance(given, Mapping):
        # Mapped over receipts (`.expand(receipts=upload.output)`), each task gets a single one.
        yield given
        return
    entries = list(given)
    if name == "receipts" and (absent := sum(entry is None for entry in entries)):
        raise ValueError(
            f"receipts holds those of {len(entries) - absent} of {len(entries)} uploads; the others left None, so what "
            f"became of their files is not known here. See the logs of these tasks; {_REMEDY[name]}."
        )
    for entry in entries:
        if isinstance(entry, str) and name == "file_ids":
            yield entry
        else:
            yield from _flat(entry, name)


def _add_receipt(asked: Asked, receipt: Any, number: str | None) -> None:
    try:
        outcome = Outcome(receipt.get("outcome"))
    except ValueError:
        raise ValueError(
            f"receipts holds something that is no receipt (its outcome is "
            f"{one_line(receipt.get('outcome'), 40)!r}); {_REMEDY['receipts']}."
        ) from None
    if outcome is Outcome.SKIPPED:
        asked.skipped += 1
        return
    if outcome in _HOPELESS:
        asked.undeliverable.append(dict(receipt))
        return
    assert outcome in _SENT  # the rest; an outcome added later must not slip through
    file_id = _checked_id(receipt.get("file_id"), "receipts: file_id")
    own = receipt.get("client_no")
    own = None if own is None else checked_client_no(own, "receipts: client_no")
    if number is not None and own is not None and number != own:
        raise ValueError(
            f"client_no is {number!r}, but a receipt is for client {own!r}; leave client_no out: receipts say it."
        )
    asked.files.append((number or own, file_id))
    if receipt.get("name"):
        asked.names.setdefault(file_id, one_line(receipt["name"], 200))


def _checked_id(value: Any, where: str) -> str:
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or len(text) > _LONGEST_ID or not text.isprintable() or text in (".", ".."):
        raise ValueError(f"{where} holds {one_line(repr(value), 80)}, which is no file id.")
    return text


def check_wait(name: str, seconds: float | None) -> None:
    """
    Check an interval of a sensor, of which Airflow checks only the sign; None is none.

    :param name: of the argument.
    :param seconds: the interval.
    :raises ValueError: if it is no number, or so long that adding it to a date fails in the middle of a wait.
    """
    if seconds is not None and not 0 <= seconds <= _LONGEST_WAIT.total_seconds():
        raise ValueError(f"{name} is {seconds:g} seconds; write at most those of {_LONGEST_WAIT.days} days.")


def checked_uuid(value: Any) -> str:
    """
    Return *batch_uuid*; ValueError if it cannot be one.

    :param value: the argument, rendered.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > _LONGEST_ID or not text.isprintable() or " " in text or text in (".", ".."):
        raise ValueError(
            f"batch_uuid is {one_line(repr(value), 80)}; pass the batchUuid of Amili's answer to the batch, for "
            "example batch_uuid=post_batch.output."
        )
    return text


_NOTHING_SENT = ("removed", "skipped")
"""States of tasks that may have no receipts because nothing was sent."""
_MOST_SHOWN = 20


def without_receipts(uploads: Sequence[str | None], receipts: Any, context: Context) -> list[str]:
    """
    Return in words what is missing from the receipts of mapped uploads, a sentence for each task.

    :param uploads: the task of each part of *receipts*; None for one that has none, or several.
    :param receipts: what Airflow put in their place.
    :param context: Airflow's.
    """
    ti: Any = context.get("ti")
    parts = receipts if isinstance(receipts, list | tuple) and len(receipts) == len(uploads) else [receipts]
    found = []
    for task_id, part in zip(uploads, parts, strict=False):
        # What one upload returned is a list; Airflow reads those of a mapped one as they are asked for.
        if ti is None or task_id is None or isinstance(part, list | tuple) or not isinstance(part, Sequence):
            continue
        states = _states(ti, task_id)
        if len(part) >= len(states):
            continue
        lost = {
            index: state
            for index, state in sorted(states.items())
            if state not in _NOTHING_SENT and ti.xcom_pull(task_ids=task_id, map_indexes=index) is None
        }
        if lost:
            shown = ", ".join(f"{index} ({state})" for index, state in list(lost.items())[:_MOST_SHOWN])
            others = f" and {len(lost) - _MOST_SHOWN} more" if len(lost) > _MOST_SHOWN else ""
            found.append(
                f"Receipts came from {len(part)} of {len(states)} uploads of task {task_id!r}; none came from map "
                f"index {shown}{others}."
            )
    return found


def _states(ti: Any, task_id: str) -> dict[int, str]:
    """Return the state of each map index of a task in this run."""
    if hasattr(ti, "get_task_states"):
        told = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id]).get(ti.run_id, {})
        # The keys are task ids, with the map index after them.
        return {int(key.removeprefix(f"{task_id}_")): str(state) for key, state in told.items() if key != task_id}
    # Airflow 2.11 asks its database.
    return {
        other.map_index: str(other.state)
        for other in ti.get_dagrun().get_task_instances()
        if other.task_id == task_id and other.map_index >= 0
    }
