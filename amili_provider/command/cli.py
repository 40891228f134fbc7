"""The command ``amili-ledger``."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import secrets
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowException

from amili_provider.command.desk import Desk
from amili_provider.ledger.questions import MOST_FOUND, Row
from amili_provider.receipts import one_line
from amili_provider.reports import as_csv
from amili_provider.terminal import ordinary_output

_DESCRIPTION = "The ledger: create it, ask it what was delivered, and settle what only a person can know."
_FOUND = (
    "name", "outcome", "when", "client_no", "file_type", "status", "result", "message", "source", "size", "sha256",
    "file_id", "attempt", "dag_id", "run_id", "request", "settled_by", "reason",
)  # fmt: skip
_UNKNOWN = (
    "file_id", "name", "since", "client_no", "file_type", "source", "size", "dag_id", "run_id", "request", "known",
)  # fmt: skip
_COUNTED = ("day", "client_no", "file_type", "uploaded", "rejected", "unknown", "adopted", "bytes")
_TOLD = ("file_id", "name", "outcome", "note")
_ADOPTED = ("outcome", "source", "file_id", "note")
_LONGEST_CELL = 120


class _Parser:
    """The options of each subcommand."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(prog="amili-ledger", description=_DESCRIPTION)
        self._commands = self.parser.add_subparsers(dest="command", required=True)

        self._add("create", _create, "create the ledger, once; one that is there stays as it is")
        find = self._table("find", _find, f"what became of files; the newest {MOST_FOUND} attempts")
        find.add_argument("text", help="a part of a name or path, the beginning of a hash, or a file id")
        report = self._table("report", _report, "files per day (UTC) and file type; by default of the last 30 days")
        for asks in (find, report):
            asks.add_argument("--from", dest="since", metavar="DAY", help="first day (UTC), for example 2026-11-22")
            asks.add_argument("--to", dest="until", metavar="DAY", help="last day")
        self._table("unknown", _unknown, "files that were sent, but whose answer was lost")
        settle = self._table("settle", _settle, "say if unknown files arrived; all are checked before one is written")
        settle.add_argument("what", choices=("arrived", "not-arrived"), help="whether Amili has them")
        which = settle.add_mutually_exclusive_group(required=True)
        which.add_argument("--request", metavar="ID", help="the files of this request, as in log and receipts")
        which.add_argument("--run", metavar="DAG/RUN", help="the files of this run of a DAG")
        which.add_argument("--file-id", metavar="ID", nargs="+", action="extend", default=[], help="these files")
        self._said(settle)
        self._table("check", _check, "ask Amili for the results of unknown files, and settle those that are final")
        adopt = self._table("adopt", _adopt, "record files as delivered, by other means, without sending them")
        adopt.add_argument("source", help="files, folders or patterns, as for the upload operator")
        adopt.add_argument("--source-conn-id", help="connection of their storage")
        adopt.add_argument("--file-type", required=True, help="as they were delivered")
        adopt.add_argument("--dry-run", action="store_true", help="only say what would be")
        self._said(adopt)
        export = self._add("export", _export, "write the whole ledger to a file of JSON lines")
        export.add_argument("file", help="where to; - for stdout")
        import_ = self._add("import", _import, "write an export into this ledger; nothing is overwritten")
        import_.add_argument("file", help="where from; - for stdin")

    def _add(self, name: str, act: Callable[[argparse.Namespace, Desk], None], words: str) -> argparse.ArgumentParser:
        added = self._commands.add_parser(name, help=words, description=words)
        added.set_defaults(act=act)
        added.add_argument("--conn-id", default="amili_default", help="connection to Amili (default: %(default)s)")
        added.add_argument("--ledger", metavar="NAME", help="table, SQLite file or prefix (default: the connection's)")
        added.add_argument("--client-no", metavar="N", help="client number (default: the connection's; to read: all)")
        return added

    def _table(self, name: str, act: Callable[[argparse.Namespace, Desk], None], words: str) -> argparse.ArgumentParser:
        added = self._add(name, act, words)
        added.add_argument("--csv", action="store_true", help="print CSV")
        return added

    @staticmethod
    def _said(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--reason", required=True, metavar="TEXT", help="how you know, in a few words")
        parser.add_argument("--by", metavar="NAME", help="who says so (default: the system's user)")


def _create(options: argparse.Namespace, desk: Desk) -> None:
    print(desk.create(), file=options.out)


def _find(options: argparse.Namespace, desk: Desk) -> None:
    rows = desk.find(options.text, options.since, options.until)
    _show(rows, _FOUND, options, "" if rows else desk.not_found(options.text, options.since, options.until))
    if len(rows) >= MOST_FOUND:
        print(
            f"There may be more than the newest {MOST_FOUND}: name more of it, or its days (--from, --to).",
            file=sys.stderr,
        )


def _report(options: argparse.Namespace, desk: Desk) -> None:
    _show(desk.report(options.since, options.until), _COUNTED, options, "No files on these days.")


def _unknown(options: argparse.Namespace, desk: Desk) -> None:
    _show(desk.unknown(), _UNKNOWN, options, "No file's outcome is unknown.")


def _settle(options: argparse.Namespace, desk: Desk) -> None:
    rows = desk.settle(
        options.by or _system_user(),
        options.reason,
        arrived=options.what == "arrived",
        file_ids=options.file_id,
        request=options.request,
        run=options.run,
    )
    _show(rows, _TOLD, options, "")


def _check(options: argparse.Namespace, desk: Desk) -> None:
    rows: list[Row] = []
    try:
        rows.extend(desk.check())
    finally:
        _show(rows, _TOLD, options, "No file's outcome was asked for.")


def _adopt(options: argparse.Namespace, desk: Desk) -> None:
    rows = desk.adopt(
        options.by or _system_user(),
        options.reason,
        options.source,
        options.source_conn_id,
        file_type=options.file_type,
        dry_run=options.dry_run,
    )
    _show(rows, _ADOPTED, options, "No file matches.")


def _export(options: argparse.Namespace, desk: Desk) -> None:
    if options.file == "-":
        options.out.writelines(desk.export())
        return
    path = Path(options.file)
    mode: int | None = None
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
    if mode is not None and not stat.S_ISREG(mode):  # a device or a pipe is written to, not replaced
        with path.open("w", encoding="utf-8") as file:
            file.writelines(desk.export())
        return
    # Where a link leads to, and under a name of its own until it is whole.
    target = path.resolve()
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            if mode is not None:
                part.chmod(stat.S_IMODE(mode))
            file.writelines(desk.export())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    print(f"The ledger is exported to {path}.", file=options.out)


def _import(options: argparse.Namespace, desk: Desk) -> None:
    if options.file == "-":
        print(desk.import_lines(sys.stdin), file=options.out)
        return
    with Path(options.file).open(encoding="utf-8") as file:
        print(desk.import_lines(file), file=options.out)


def _show(rows: Sequence[Row], fields: Sequence[str], options: argparse.Namespace, nothing: str) -> None:
    if options.csv:
        print(as_csv(fields, rows), end="", file=options.out)
        return
    lines = list(_table(rows, fields))
    if options.out.isatty() and shutil.get_terminal_size().columns < max(map(len, lines), default=0):
        lines = list(_records(rows, fields))
    print("\n".join(lines) or nothing, file=options.out)


def _records(rows: Sequence[Row], fields: Sequence[str]) -> Iterator[str]:
    """Yield a line for each value, for a terminal that is too narrow for a table: there each row would be torn."""
    for number, row in enumerate(rows):
        first, *others = (name for name in fields if row[name] not in (None, ""))
        width = max(map(len, others), default=0)
        yield from [""] * (number > 0)
        yield one_line(row[first])
        yield from (f"  {name.ljust(width)}  {one_line(row[name])}" for name in others)


def _table(rows: Sequence[Row], fields: Sequence[str]) -> Iterator[str]:
    """Yield aligned lines, of the columns that hold anything; numbers are at the right."""
    used = [name for name in fields if any(row[name] not in (None, "") for row in rows)]
    cells: list[Iterable[str]] = [used, *([_cell(row[name]) for name in used] for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [isinstance(rows[0][name], int) for name in used] if rows else []
    for line in cells:
        aligned = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def _cell(value: object) -> str:
    return "" if value is None else one_line(value, _LONGEST_CELL)


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"uid {os.getuid()}"


@contextmanager
def _as_airflow_commands_do() -> Iterator[None]:
    """
    Do as Airflow's own commands: look for connections in its metadata database, too, and keep logs and warnings back.

    What Airflow and the providers write to stdout all the same would stand among the rows.
    """
    variable = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(variable)
    os.environ.setdefault(variable, "server")
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if before is None:
            del os.environ[variable]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run ``amili-ledger``; return its exit code.

    :raises SystemExit: if the usage is wrong, or stdout has no reader any more.
    """
    try:
        with ordinary_output():
            options = _Parser().parser.parse_args(arguments)
            options.out = sys.stdout
            desk = Desk(options.conn_id, options.ledger, options.client_no, login=f"system user {_system_user()}")
            with _as_airflow_commands_do():
                options.act(options, desk)
    except (AirflowException, ValueError, OSError) as error:
        print(f"amili-ledger: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
