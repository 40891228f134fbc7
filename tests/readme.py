"""
The documentation's tables, made from the code: ``python -m tests.readme`` writes them, ``--check`` only compares.

A part is what stands between ``<!-- name -->`` and ``<!-- /name -->``. The connection's table comes from the table of
fields that also makes the form; the others are made by ``tests/reference.py``.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from amili_provider.connection.fields import FIELDS
from amili_provider.connection.form import shown_default
from amili_provider.storage.connections import KINDS
from tests import reference

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
_NAMED = re.compile(r"^<!-- test: (.+?) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def connection_table() -> str:
    """Return the fields as a Markdown table."""
    lines = ["| Form label | Key | Default | Meaning |", "|---|---|---|---|"]
    for f in FIELDS:
        key = f"`{f.name}`" if f.standard else f"extra `{f.name}`"
        shown = shown_default(f)
        what = f.description + (" *Assumed, not documented by Amili.*" if f.assumed else "")
        lines.append(f"| {f.label} | {key} | {f'`{shown}`' if shown else ''} | {what} |")
    return "\n".join(lines) + "\n"


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
    DOCS / "commands.md": {"amili-ledger": reference.ledger_command, "amili-sandbox": reference.sandbox_command},
    DOCS / "connection.md": {"connection-table": connection_table},
    DOCS / "hook.md": {"hook-table": reference.hook_table},
    DOCS / "ledger-table.md": {"columns-table": reference.columns_table},
    DOCS / "operator.md": {"operator-table": reference.operator_table, "buckets-table": reference.buckets_table},
    DOCS / "outcomes.md": {
        "receipt-table": reference.receipt_table,
        "exceptions-table": reference.exceptions_table,
    },
    DOCS / "sandbox.md": {"faults-table": reference.faults_table},
    DOCS / "sensors.md": {
        "file-sensor-table": reference.file_sensor_table,
        "batch-sensor-table": reference.batch_sensor_table,
        "sensors-table": reference.sensors_table,
    },
    DOCS / "storages.md": {"storage-table": storage_table},
}
"""Which parts of which file are made, and by what."""


def pages() -> list[Path]:
    """Return every page that a reader may see: those of the repository's root, and of the site."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def shown(name: str) -> str:
    """
    Return what a page shows below the comment ``<!-- test: NAME -->``.

    :param name: by which a test knows the block; no two pages have the same.
    """
    return all_shown()[name]


def all_shown() -> dict[str, str]:
    """Return each block that has a name, on whichever page it stands."""
    texts = (page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    return {name: block for text in texts for name, block in _NAMED.findall(text)}


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
