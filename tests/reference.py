"""Tables of the reference pages, made from docstrings, signatures, the ledger's table and the commands' parsers."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from amili_provider import exceptions
from amili_provider.connection.fields import LEDGER_FROM_CONNECTION

_PARAMETER = re.compile(r"^:param (?P<name>\w+):(?P<meaning>.*?)(?=^:|^\S|\Z)", re.MULTILINE | re.DOTALL)
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"))
_FAMILIES = frozenset({exceptions.AmiliError, exceptions.AmiliPermanentError})
_HOOK_METHODS = (
    "upload_files", "request", "paginate", "get_batch", "get_file_result", "test_connection", "close",
)  # fmt: skip


def operator_table() -> str:
    """Return the parameters of the upload operator."""
    from amili_provider.operators.amili import AmiliFileUploadOperator

    return class_table(AmiliFileUploadOperator)


def buckets_table() -> str:
    """Return the parameters of the operator that makes buckets."""
    from amili_provider.operators.buckets import AmiliFileBucketsOperator

    return class_table(AmiliFileBucketsOperator)


def file_sensor_table() -> str:
    """Return the parameters of the sensor for files, without those of both sensors."""
    from amili_provider.sensors.amili import AmiliFileResultSensor

    return class_table(AmiliFileResultSensor)


def batch_sensor_table() -> str:
    """Return the parameters of the sensor for batches, without those of both sensors."""
    from amili_provider.sensors.amili import AmiliBatchSensor

    return class_table(AmiliBatchSensor)


def sensors_table() -> str:
    """Return the parameters that both sensors have."""
    from amili_provider.sensors.base import AmiliSensor

    return class_table(AmiliSensor)


def faults_table() -> str:
    """Return the fields of a fault of the sandbox."""
    from amili_provider.sandbox.faults import Fault

    meanings = documented(Fault)
    own = {name: parameter for name, parameter in inspect.signature(Fault).parameters.items() if name in meanings}
    rows = [(f"`{name}`", _default_of(p), meanings[name]) for name, p in own.items()]
    return table(("field", "default", "meaning"), rows)


def receipt_table() -> str:
    """
    Return the fields of a receipt.

    :raises ValueError: if published and documented fields differ.
    """
    from amili_provider.receipts import Receipt

    meanings = documented(Receipt)
    published = list(Receipt(name="", source="", client_no="", file_type="").as_dict())
    if published != list(meanings):
        raise ValueError(f"Receipt: documented are {', '.join(meanings)}, published {', '.join(published)}")
    return table(("field", "meaning"), [(f"`{name}`", meaning) for name, meaning in meanings.items()])


def columns_table() -> str:
    """Return the columns of the ledger's table: type, whether empty is allowed, meaning."""
    from amili_provider.ledger.attempts import Attempt
    from amili_provider.ledger.table import attempts_table

    meanings = documented(Attempt)
    rows = [
        (f"`{column.name}`", str(column.type), "yes" if column.nullable else "", meanings[column.name])
        for column in attempts_table().columns
    ]
    return table(("column", "type", "may be NULL", "meaning"), rows)


def exceptions_table() -> str:
    """Return every exception that a user meets, and whether Airflow retries."""
    found = [
        kind
        for kind in vars(exceptions).values()
        if inspect.isclass(kind)
        and kind.__module__ == exceptions.__name__
        and not kind.__name__.startswith("_")
        and kind not in _FAMILIES
    ]
    rows = []
    for kind in sorted(found, key=lambda kind: (issubclass(kind, exceptions.AmiliPermanentError), kind.__name__)):
        permanent = issubclass(kind, exceptions.AmiliPermanentError)
        also = [base.__name__ for base in (ValueError, FileNotFoundError) if issubclass(kind, base)]
        name = f"`{kind.__name__}`" + "".join(f", a `{base}`" for base in also)
        rows.append((name, one_line(_first_paragraph(kind)), "no" if permanent else "yes"))
    return table(("exception", "when", "retried by Airflow"), rows)


def hook_table() -> str:
    """Return the methods of the hook: how each is called, and what it does."""
    from amili_provider.hooks.amili import AmiliHook

    rows = []
    for name in _HOOK_METHODS:
        method = getattr(AmiliHook, name)
        own = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
        shown = ", ".join(p.name if p.default is inspect.Parameter.empty else f"{p.name}=" for p in own)
        rows.append((f"`{name}({shown})`", one_line(_first_paragraph(method))))
    return table(("method", "what it does"), rows)


def ledger_command() -> str:
    """Return the subcommands of ``amili-ledger``."""
    from amili_provider.command.cli import _Parser

    return command_tables(_Parser().parser)


def sandbox_command() -> str:
    """Return the subcommands of ``amili-sandbox``."""
    from amili_provider.sandbox.cli import _parser

    return command_tables(_parser())


def command_tables(parser: argparse.ArgumentParser) -> str:
    """
    Return one table of a command's subcommands, and one of their options.

    :param parser: of the command.
    """
    (subcommands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    words = {choice.dest: choice.help or "" for choice in subcommands._choices_actions}
    overview, options = [], []
    for name, sub in subcommands.choices.items():
        own = [a for a in sub._actions if not isinstance(a, argparse._HelpAction)]
        called = [f"{parser.prog} {name}", *(_argument(a) for a in own if not a.option_strings)]
        overview.append((f"`{' '.join(called)}`", words[name]))
        options += [(f"`{_option(a)}`", name, _help(a)) for a in own]
    merged: dict[tuple[str, str], list[str]] = {}
    for option, name, meaning in options:
        merged.setdefault((option, meaning), []).append(f"`{name}`")
    everywhere = len(subcommands.choices)
    rows = [
        (option, "each" if len(names) == everywhere else ", ".join(names), meaning)
        for (option, meaning), names in merged.items()
    ]
    rows.sort(key=lambda row: row[1] != "each")
    return "\n\n".join(
        (table(("command", "what it does"), overview), table(("argument", "of", "meaning"), rows)),
    )


def _argument(action: argparse.Action) -> str:
    return f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()


def _option(action: argparse.Action) -> str:
    if not action.option_strings:
        return _argument(action)
    if action.nargs == 0:
        return action.option_strings[-1]
    value = action.metavar or action.dest.upper()
    return f"{action.option_strings[-1]} {value}{' ...' if action.nargs == '+' else ''}"


def _help(action: argparse.Action) -> str:
    shown = (action.help or "") % {"default": action.default, "prog": ""}
    return f"{shown}; required" if action.required and action.option_strings else shown


def class_table(documented_class: type) -> str:
    """
    Return one line per parameter of an operator or sensor: name, default, whether it is templated, and its meaning.

    :param documented_class: the class, with a ``:param:`` for each parameter.
    :raises ValueError: if a parameter is not documented, or one is documented that there is not.
    """
    name, meanings = documented_class.__name__, documented(documented_class)
    signature = inspect.signature(documented_class)
    own = {p.name: p for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    # Of a sensor: what every sensor has. It has no default that could be told.
    others = {p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD} & set(meanings)
    if wrong := {*own, *others} ^ set(meanings):
        raise ValueError(f"{name}: documented and real parameters differ in {', '.join(sorted(wrong))}")
    templated, rows = set(getattr(documented_class, "template_fields", ())), []
    marked = any("(templated)" in meaning for meaning in meanings.values())
    for parameter in own.values():
        meaning = meanings[parameter.name].replace(" (templated)", "")
        if marked and ("(templated)" in meanings[parameter.name]) != (parameter.name in templated):
            raise ValueError(f"{name}: {parameter.name} is said to be templated and is not, or is")
        mark = "yes" if parameter.name in templated else ""
        rows.append((f"`{parameter.name}`", _default_of(parameter), mark, meaning))
    return table(("parameter", "default", "templated", "meaning"), rows)


def documented(thing: Callable[..., Any]) -> dict[str, str]:
    """Return what the docstring of a class says of each parameter."""
    return {m["name"]: one_line(m["meaning"]) for m in _PARAMETER.finditer(inspect.getdoc(thing) or "")}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    Return a Markdown table.

    :param head: the titles of its columns.
    :param rows: their cells; a line that separates columns is escaped.
    """
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("|" + "|".join(f" {cell} " if cell != "---" else cell for cell in line) + "|" for line in lines)


def one_line(text: str) -> str:
    """Return a docstring's words as Markdown in one line; emphasis names a parameter, and a role a class."""
    line = " ".join(textwrap.dedent(text).split()).replace("``", "`")
    line = re.sub(r":\w+:`~?([\w.]+)`", lambda role: f"`{role[1].rpartition('.')[2]}`", line)
    return re.sub(r"(?<![\w/*`])\*(\w+)\*(?![\w*`])", r"`\1`", line)


def _first_paragraph(thing: Callable[..., Any]) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0]


def _default_of(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return "required"
    if default == LEDGER_FROM_CONNECTION:
        return LEDGER_FROM_CONNECTION
    if type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        return "none"
    if isinstance(default, int) and not isinstance(default, bool):
        for size, unit in _UNITS:
            if default >= size and default % size == 0:
                return f"`{default // size} * 1024**{2 if unit == 'MiB' else 3}` ({default // size} {unit})"
        return f"`{default:_}`" if default >= 10_000 else f"`{default}`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default!r}`".replace("'", '"')
