"""
The README's tables, made from the code: ``python -m tests.readme`` writes them, ``--check`` only compares.

The connection's table comes from the table of fields that also makes the form, the operator's from its signature and
its docstring. A part is what stands between ``<!-- name -->`` and ``<!-- /name -->``.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amili_provider.connection_form import LEDGER_FROM_CONNECTION, readme_table
from amili_provider.storage.connections import KINDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

_PARAMETER = re.compile(r"^:param (?P<name>\w+):(?P<meaning>.*?)(?=^:|\Z)", re.MULTILINE | re.DOTALL)
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"))


def operator_table() -> str:
    """Return the parameters of the upload operator as a table."""
    from amili_provider.operators.amili import AmiliFileUploadOperator

    return class_table(AmiliFileUploadOperator)


def buckets_table() -> str:
    """Return the parameters of the operator that makes buckets as a table."""
    from amili_provider.operators.buckets import AmiliFileBucketsOperator

    return class_table(AmiliFileBucketsOperator)


def class_table(documented: type) -> str:
    """
    Return one line per parameter of an operator: name, default, whether it is templated, and what it means.

    :param documented: the operator's class, with a ``:param:`` for each parameter.
    :raises ValueError: if a parameter is not documented, or one is documented that there is not.
    """
    meanings = {m["name"]: _one_line(m["meaning"]) for m in _PARAMETER.finditer(inspect.getdoc(documented) or "")}
    signature = inspect.signature(documented)
    own = [p for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if wrong := {p.name for p in own} ^ set(meanings):
        raise ValueError(f"{documented.__name__}: documented and real parameters differ in {', '.join(sorted(wrong))}")
    rows = ["| parameter | default | templated | meaning |", "|---|---|---|---|"]
    templated = set(getattr(documented, "template_fields", ()))
    for parameter in own:
        meaning = meanings[parameter.name].replace(" (templated)", "")
        if ("(templated)" in meanings[parameter.name]) != (parameter.name in templated):
            raise ValueError(f"{documented.__name__}: {parameter.name} is said to be templated and is not, or is")
        mark = "yes" if parameter.name in templated else ""
        rows.append(f"| `{parameter.name}` | {_shown(parameter.default)} | {mark} | {meaning} |")
    return "\n".join(rows)


def _one_line(text: str) -> str:
    """Return a docstring's words as Markdown in one line: its emphasis is a parameter's name."""
    line = " ".join(textwrap.dedent(text).split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r"(?<![\w/*`])\*(\w+)\*(?![\w*`])", r"`\1`", line)


def _shown(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if default == LEDGER_FROM_CONNECTION:
        return LEDGER_FROM_CONNECTION
    if isinstance(default, int) and not isinstance(default, bool):
        for size, unit in _UNITS:
            if default >= size and default % size == 0:
                return f"`{default // size} * 1024**{2 if unit == 'MiB' else 3}` ({default // size} {unit})"
        return f"`{default:_}`" if default >= 10_000 else f"`{default}`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default!r}`".replace("'", '"')


def storage_table() -> str:
    """Return the storages that files can come from, and what each needs."""
    rows = ["| storage | path | connection type | extra |", "|---|---|---|---|"]
    for kind in KINDS:
        schemes = ", ".join(f"`{scheme}://`" for scheme in kind.schemes)
        types = ", ".join(f"`{conn_type}`" for conn_type in kind.conn_types)
        # Where the connection is ours to read, and there is something to list, nothing works without one.
        types += "" if kind.needs_connection else ", or none"
        rows.append(f"| {kind.title} | {schemes} | {types} | {f'`{kind.extra}`' if kind.extra else ''} |")
    return "\n".join(rows)


PARTS: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"connection-table": readme_table, "operator-table": operator_table, "storage-table": storage_table},
    ROOT / "docs" / "operator.md": {"buckets-table": buckets_table},
    ROOT / "docs" / "storages.md": {"storage-table": storage_table},
}
"""Which parts of which file are made, and by what."""


def filled(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """
    Return *text* with its parts made anew.

    :param text: of the file.
    :param parts: what makes each part.
    :raises ValueError: if a part has no place.
    """
    for name, make in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"no place for {name}: write {start.strip()} and {end} on lines of their own")
        text = f"{before}{start}{make().strip()}\n{end}{after}"
    return text


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(arguments: list[str] | None = None) -> int:
    """Write the tables, or say with ``--check`` what is not current."""
    parser = argparse.ArgumentParser(prog="python -m tests.readme", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is not current")
    check = parser.parse_args(arguments).check
    stale = False
    for file, parts in PARTS.items():
        old = file.read_text(encoding="utf-8")
        new = filled(old, parts)
        if new == old:
            continue
        stale = True
        if check:
            names = (str(file.relative_to(ROOT)), "as the code says")
            sys.stdout.writelines(difflib.unified_diff(_lines(old), _lines(new), *names, n=0))
        else:
            file.write_text(new, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
