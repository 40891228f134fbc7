"""
What a path means on an object store: a key, the keys right below it, or a pattern of keys.

Keys are compared as they are. Only a pattern reads them as levels, and a level may be empty: ``out//*.csv`` finds
``out//a.csv`` and not ``out/b.csv``, and ``**`` finds both, in one listing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from amili_provider.storage.base import Entry, object_entry
from amili_provider.storage.objects import ObjectFiles
from amili_provider.storage.patterns import Levels

_PLAIN = re.compile(r"[ -)+->@-Z\\-~]*")
"""What a level begins with that is one and the same in every spelling of Unicode: ASCII, but for wildcards."""


def look_at_key(files: ObjectFiles, path: str) -> Entry | None:
    """Return the object at *path*; a folder if there is none with content, but others below it; None if neither."""
    entry = None
    if "/" not in path:
        files.any_below(f"{path}/")  # whether there is such a bucket
        return object_entry(path, 0, None, None, folder=True)
    if not path.endswith("/"):
        try:
            entry = files.info(path)
        except FileNotFoundError:
            pass  # or its bucket does not exist, which the listing tells
        except Exception:
            # An answer to HEAD has no words, and 403 is also said of what is not there: a listing tells more.
            if next((one for one in files.scan(path) if one.path == path), None) is not None:
                raise
        if entry is not None and entry.size:
            return entry
    folder = path if path.endswith("/") else f"{path}/"
    return object_entry(path, 0, None, None, folder=True) if files.any_below(folder) else entry


def right_below(files: ObjectFiles, path: str) -> Iterator[Entry]:
    """Yield the objects in the folder *path*, none deeper; none if there are none, but their bucket must exist."""
    folder = path if path.endswith("/") else f"{path}/"
    return (entry for entry in files.scan(folder) if entry.is_file)


def matching(files: ObjectFiles, base: str, segments: list[str], *, any_case: bool = False) -> Iterator[Entry]:
    """
    Yield the objects below *base* that match a pattern; those below ``**`` in one listing.

    :param base: a bucket, and the levels before the first wildcard.
    :param segments: the levels from the first wildcard on.
    :param any_case: whether upper and lower case count as equal.
    """
    base += "/"
    levels, beginning = Levels(segments, any_case=any_case), _beginning(segments[0], any_case=any_case)
    if "**" in segments:
        for entry in files.scan(base + beginning, flat=True):
            states = levels.start()
            for name in entry.path[len(base) :].split("/"):
                states = levels.step(states, name, folder_link=False)
            if levels.matches(states):
                yield entry
        return
    folders = [(base, beginning, levels.start())]
    while folders:
        folder, beginning, states = folders.pop()
        for entry in files.scan(folder + beginning):
            name = entry.path[len(folder) :]
            reached = levels.step(states, name.removesuffix("/") if entry.is_folder else name, folder_link=False)
            if entry.is_folder and levels.goes_on(reached):
                folders.append((entry.path, "", reached))
            elif entry.is_file and levels.matches(reached):
                yield entry


def _beginning(segment: str, *, any_case: bool) -> str:
    """Return what every name that matches *segment* begins with, so that a store need not list the others."""
    plain = _PLAIN.match("" if any_case else unicodedata.normalize("NFC", segment))
    assert plain is not None
    return plain[0]
