"""The command ``amili-ledger``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException

from amili_provider.command.ledgers import Named

_DESCRIPTION = "The ledger: create it, ask it what was delivered, and settle what only a person can know."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="amili-ledger", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=words)
        added.set_defaults(run=run)
        added.add_argument("--conn-id", default="amili_default", help="connection to Amili (default: %(default)s)")
        added.add_argument("--ledger", metavar="NAME", help="table, SQLite file or prefix (default: the connection's)")
        return added

    command("create", _create, "create the ledger, once; one that is there stays as it is")
    return parser


def _named(options: argparse.Namespace) -> Named:
    return Named(options.conn_id, options.ledger, getattr(options, "client_no", None))


def _create(options: argparse.Namespace) -> None:
    shown, who, new = _named(options).create()
    print(f"The ledger {shown} {'is created' if new else 'is there already, nothing was changed'}: {who}.")


@contextmanager
def _as_airflow_commands_do() -> Iterator[None]:
    """Let Airflow 3 look for connections where its own commands do, in its metadata database too."""
    variable = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(variable)
    os.environ.setdefault(variable, "server")
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``amili-ledger``; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with _as_airflow_commands_do():
            options.run(options)
    except (AirflowException, ValueError, OSError) as error:
        print(f"amili-ledger: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
