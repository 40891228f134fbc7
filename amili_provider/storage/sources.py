"""What a source names: files, folders and patterns, on open storages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from amili_provider.receipts import unescaped
from amili_provider.storage.connections import split_host, split_url
from amili_provider.storage.locations import Location, Storage
from amili_provider.storage.opening import open_storage, split_conn_id

EXACT = "exact:"
"""What a path begins with that means one file or folder, whatever its name holds; the rest is as receipts show it."""
_MOST_SHOWN = 3
"""Paths of a list that a sentence shows."""
_PRINTED_LIST = re.compile(r"""\s*[\[(]\s*(['"].*['"]\s*,?)?\s*[\])]\s*""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sources:
    """
    What a source names, on open storages.

    :param locations: one for each path.
    :param missing: folders that were not there when they were listed, as people see them.
    :param other_case: of a pattern that matched nothing, a name that it would match if case did not count.
    """

    locations: Sequence[Location]
    missing: list[str] = field(default_factory=list)
    other_case: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Close the connections to the storages."""
        for storage in {id(location.storage): location.storage for location in self.locations}.values():
            storage.close()

    @property
    def shown(self) -> str:
        """The paths as people see them, without secrets; of a long list the first ones."""
        if not self.locations:
            return "an empty list of paths"
        first = ", ".join(location.url for location in self.locations[:_MOST_SHOWN])
        more = len(self.locations) - _MOST_SHOWN
        return f"{first} and {more} more" if more > 0 else first


def open_sources(source: str | Sequence[str], conn_id: str | None) -> Sources:
    """
    Open the storages that *source* names; close them when their files were read. Only from the task's own thread.

    :param source: a file, a folder (its own files; ``**`` goes deeper), a pattern, or a list of these. What is called
        like the pattern is listed with what the pattern matches; ``exact:`` before a path names it alone.
    :param conn_id: the Airflow connection.
    :raises AmiliStorageSettingsError: if a storage cannot work as configured.
    :raises ValueError: if a path cannot be understood.
    """
    storages: dict[tuple[str | None, ...], Storage] = {}
    locations = []
    try:
        for one in _paths(source):
            exact = one.startswith(EXACT)
            url, conn = split_conn_id(unescaped(one.removeprefix(EXACT)) if exact else one, conn_id or None)
            scheme, rest = split_url(url)
            key = (scheme, conn, split_host(rest)[0] if scheme in ("http", "https") else None)
            if key not in storages:
                storages[key] = open_storage(url, conn)
            locations.append(storages[key].locate(url, exact=exact))
    except BaseException:
        for storage in storages.values():
            storage.close()
        raise
    return Sources(locations)


def _paths(source: str | Sequence[str]) -> list[str]:
    many = [source] if isinstance(source, str) else source
    if not isinstance(many, (list, tuple)) or not many:
        raise ValueError(f"source must be a path or a list of paths, not {type(source).__name__}.")
    for one in many:
        if not isinstance(one, str) or not one.strip():
            raise ValueError(f"source must name a path, not {one!r}.")
        if (one != one.strip() and not one.startswith(EXACT)) or "\n" in one or "\r" in one:
            raise ValueError(
                f"source begins or ends with blanks, or holds a line break: {_without_query(one)!r:.100}. Write the "
                f"path alone, on one line, and several paths as a list. A name that is really written so is found by a "
                f"pattern, or named as its receipt shows it after {EXACT}"
            )
        if _PRINTED_LIST.fullmatch(one):
            raise ValueError(
                "source looks like a list that was printed as text. Pass the list itself: source=task.output "
                "rather than a template, or render_template_as_native_obj=True on the DAG."
            )
    return list(many)


def _without_query(path: str) -> str:
    """Return a path as a message may show it: what is cut in the middle is masked no more, and a query may sign."""
    return path.partition("?")[0]
