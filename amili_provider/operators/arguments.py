"""
The operator's arguments, checked after templates were rendered: a wrong one is a ValueError that names it.

Templated values arrive as text, so numbers and booleans are read from text too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from amili_provider.connection.values import as_bool, checked_client_no
from amili_provider.delivery.options import Options
from amili_provider.operators.task import this_run
from amili_provider.operators.templates import renamer
from amili_provider.storage.names import KINDS_IGNORED

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_PRINTED = re.compile(r"^\s*[\[({].*[\])}]\s*$", re.DOTALL)
"""Text that looks like a list, tuple, set or dictionary that was printed."""


def options_of(task: Any, context: Context) -> Options:
    """
    Check every argument of an upload, before anything is sent.

    :param task: the :class:`~amili_provider.operators.amili.AmiliFileUploadOperator`, rendered.
    :param context: Airflow's; an empty one will do.
    :raises ValueError: for the first argument that is wrong.
    """
    return Options(
        source=source_of(task.source),
        source_conn_id=optional_text("source_conn_id", task.source_conn_id),
        file_type=file_type_of(task.file_type),
        client_no="" if task.client_no is None else checked_client_no(task.client_no, "client_no"),
        user_id=optional_text("user_id", task.user_id),
        rename=renamer(task, task.file_name, context),
        ignore=kinds_of(task.ignore, KINDS_IGNORED),
        stable_for=seconds_of("stable_for", task.stable_for),
        max_files=number_of("max_files", task.max_files),
        expect=expect_of(task.expect),
        min_files=min_files_of(task.min_files),
        if_no_files=choice_of("if_no_files", task.if_no_files, ("fail", "skip", "succeed")),
        if_unknown=if_unknown_of(task.if_unknown),
        if_duplicate=if_duplicate_of(task.if_duplicate),
        force=bool_of("force", task.force),
        ledger=ledger_of(task.ledger),
        archive_to=optional_text("archive_to", task.archive_to),
        reject_to=optional_text("reject_to", task.reject_to),
        dry_run=bool_of("dry_run", task.dry_run),
        max_concurrent_requests=number_of("max_concurrent_requests", task.max_concurrent_requests),
        max_memory_bytes=number_of("max_memory_bytes", task.max_memory_bytes, least=1024 * 1024),
        run=this_run(context, task.task_id),
    )


def source_of(value: Any) -> str | list[str]:
    """
    Return *source*: a path, or a list of paths.

    :raises ValueError: if it is empty, of another type, or text that looks like a printed list.
    """
    if isinstance(value, str):
        return _path(value)
    if hasattr(value, "__fspath__") or hasattr(value, "as_uri") or type(value).__name__ == "ObjectStoragePath":
        return _path(str(value))
    if isinstance(value, Mapping) or not isinstance(value, Sequence | set | frozenset):
        raise ValueError(  # noqa: TRY004 - every wrong argument is a ValueError
            f"source must be a path or a list of paths, not {type(value).__name__}. Give for example "
            f"source='s3://bucket/outbound/*.csv', or source=list_task.output."
        )
    paths = [str(v) for v in value] if not isinstance(value, set | frozenset) else sorted(str(v) for v in value)
    return [_path(path) for path in paths]


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("source is empty. Give a file, a folder (ending in '/'), a glob, or a list of these.")
    if _PRINTED.match(text) and ("," in text or "'" in text or '"' in text):
        raise ValueError(
            "source looks like a list that was printed as text. Pass the list itself: source=list_task.output (or set "
            "render_template_as_native_obj=True on the DAG)."
        )
    return text


def file_type_of(value: Any) -> str:
    """Return *file_type* without blanks around it; ValueError if it is empty or not one line of text."""
    if not isinstance(value, str) or value.strip() in ("", "None"):
        raise ValueError(
            "file_type is empty. Give one of the OS file types that Amili configured for the client, for example "
            "file_type='InvoiciaFormatDocFile'."
        )
    if not value.isprintable() or len(value) > 200:  # noqa: PLR2004
        raise ValueError(f"file_type must be one line of at most 200 printable characters, not {value[:80]!r}.")
    return value.strip()


def choice_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return *value* if it is one of *choices* (without case); ValueError if not."""
    text = str(value).strip().casefold() if isinstance(value, str) else value
    if text not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
    return str(text)


def if_unknown_of(value: Any) -> Literal["fail", "check", "resend", "ask"]:
    """Return *if_unknown*; ValueError if it is none of the four."""
    choices = ("fail", "check", "resend", "ask")
    return cast("Literal['fail', 'check', 'resend', 'ask']", choice_of("if_unknown", value, choices))


def if_duplicate_of(value: Any) -> Literal["fail", "skip", "send"]:
    """Return *if_duplicate*; ValueError if it is none of the three."""
    return cast("Literal['fail', 'skip', 'send']", choice_of("if_duplicate", value, ("fail", "skip", "send")))


def expect_of(value: Any) -> tuple[str, ...]:
    """
    Return *expect*: patterns of base names, none for None; ValueError if one is empty, a path, or no text.

    A text that rendered to nothing is refused: it would expect nothing without a word.
    """
    if value is None or (isinstance(value, str) and value.strip() == "None"):
        return ()
    if isinstance(value, Mapping) or not isinstance(value, str | Sequence | set | frozenset):
        raise ValueError(  # noqa: TRY004 - every wrong argument is a ValueError
            f"expect must be a pattern of file names or a list of these, not {type(value).__name__}."
        )
    patterns = [value] if isinstance(value, str) else sorted(value) if isinstance(value, set | frozenset) else value
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.strip():
            raise ValueError(f"expect holds {pattern!r}, which is no pattern of names. Write for example 'a*.csv'.")
        if _PRINTED.match(pattern) and ("," in pattern or "'" in pattern or '"' in pattern):
            raise ValueError(
                f"expect looks like a list that was printed as text: {pattern[:80]!r}. Pass the list itself: "
                f"expect=names_task.output (or set render_template_as_native_obj=True on the DAG)."
            )
        if "/" in pattern:
            raise ValueError(f"expect names files, not paths: write {pattern.rpartition('/')[2]!r} for {pattern!r}.")
    return tuple(patterns)


def min_files_of(value: Any) -> int | None:
    """Return *min_files*, None for None (as text: 'None'); ValueError if it is no whole number of at least 1."""
    if value is None or (isinstance(value, str) and value.strip() == "None"):
        return None
    return number_of("min_files", value)


def bool_of(name: str, value: Any) -> bool:
    """Return *value* as a boolean; ValueError if it is neither a boolean nor a word for one."""
    return as_bool(value, name)


def number_of(name: str, value: Any, *, least: int = 1) -> int:
    """Return *value* as a whole number of at least *least*; ValueError if it is not one."""
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError  # noqa: TRY301 - the message below is the same for all
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}.")
    return number


def seconds_of(name: str, value: Any) -> float:
    """Return *value*, a number of seconds or a timedelta, as seconds, 0 for None; ValueError if it is negative."""
    if value is None or value == "":
        return 0.0
    total = getattr(value, "total_seconds", None)
    try:
        seconds = float(total()) if callable(total) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number of seconds or a timedelta, not {value!r}.") from None
    if isinstance(value, bool) or not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} must be 0 or more seconds, not {value!r}.")
    return seconds


def kinds_of(value: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return *ignore*: the kinds of files that are skipped; ValueError if one is not known."""
    if value is not None and not isinstance(value, str | Sequence | set | frozenset):
        raise ValueError(f"ignore must be a list of {', '.join(map(repr, allowed))}, not {value!r}.")
    kinds = [value] if isinstance(value, str) else list(value or ())
    for kind in kinds:
        if kind not in allowed:
            raise ValueError(f"ignore takes any of {', '.join(map(repr, allowed))}, not {kind!r}.")
    return tuple(kinds)


def optional_text(name: str, value: Any) -> str | None:
    """
    Return *value* without blanks around it, None for None or nothing; ValueError if it is not one line of text.

    "None" is what a template makes of None.
    """
    if value is None:
        return None
    text = str(value)
    if not text.replace(" ", "").isprintable():
        raise ValueError(f"{name} must be one line of printable text, not {text[:80]!r}.")
    return None if text.strip() in ("", "None") else text.strip()


def ledger_of(value: Any) -> str | None:
    """Return *ledger*: a table, a SQLite file or a prefix, or None for None or 'none'; ValueError if it is empty."""
    if value is None:
        return None
    text = str(value).strip()
    if not text:
        raise ValueError(
            "ledger is empty. Leave it out for the connection's, or name a table ('amili_attempts'), a SQLite file "
            "('sqlite:////var/lib/amili/ledger.db') or a prefix of a bucket ('s3://bucket/amili-ledger'), or say "
            "ledger=None (as text: 'none') to work without one and accept that a re-run may send files twice."
        )
    return None if text.casefold() == "none" else text
