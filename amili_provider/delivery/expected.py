"""What a task expects to find, and the sentences for what is not there."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Sequence

from amili_provider.receipts import one_line
from amili_provider.storage.sources import Sources

_MOST_NAMED = 3
"""Files that a sentence names for one reason."""

Skipped = tuple[str, str]
"""A file's name, and why it is not sent."""


def nothing_there(sources: Sources, skipped: Sequence[Skipped]) -> str:
    """
    Return the sentence for a listing with nothing to deliver.

    :param sources: what was listed.
    :param skipped: the files that it found.
    """
    if not skipped:
        missing = "".join(f" {folder} does not exist." for folder in sources.missing)
        for name in sources.other_case[:1]:
            missing += f" {one_line(name, 80)} is there: patterns tell upper case from lower."
        if any("\\" in location.path for location in sources.locations):
            missing += " A backslash is a character of names there: write / between folders."
        return f"No files match {sources.shown}.{missing}"
    all_of_them = "The one file that matches" if len(skipped) == 1 else f"All {len(skipped)} files that match"
    was = "was" if len(skipped) == 1 else "were"
    return f"{all_of_them} {sources.shown} {was} skipped, so there is nothing to deliver. {_reasons(skipped)}"


def _reasons(skipped: Sequence[Skipped]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in skipped:
        names.setdefault(reason, []).append(one_line(name, 80))
    sentences = []
    for reason, having in names.items():
        more = len(having) - _MOST_NAMED
        named = ", ".join(having[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        sentences.append(f"{len(having)} file(s), {named}: {reason}")
    return " ".join(sentences)


def missing(
    expect: Sequence[str],
    min_files: int | None,
    there: Sequence[str],
    skipped: Sequence[Skipped],
    absent: Sequence[str] = (),
) -> list[str]:
    """
    Return what is missing, a sentence each.

    :param expect: patterns of base names, each of which a file must match.
    :param min_files: the least number of files.
    :param there: base names of the files that were delivered or tried.
    :param skipped: the other files of the listing. One that was skipped did not arrive.
    :param absent: folders that should have been listed, and do not exist.
    """
    sentences = [
        f"No file matches {pattern!r}{_perhaps(pattern, there, skipped)}."
        for pattern in expect
        if not any(_matches(name, pattern) for name in there)
    ]
    if min_files is not None and len(there) < min_files:
        besides = f", and {len(skipped)} that are skipped" if skipped else ""
        sentences.append(f"There are {len(there)} file(s){besides}; min_files={min_files}.")
    return sentences and [*sentences, *(f"The folder {folder} does not exist." for folder in absent)]


def _matches(name: str, pattern: str) -> bool:
    # A name may hold the signs of a pattern.
    pattern = unicodedata.normalize("NFC", pattern)
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _perhaps(pattern: str, there: Sequence[str], skipped: Sequence[Skipped]) -> str:
    """Return what may be the file that is missing, in brackets."""
    for name, reason in skipped:
        if _matches(name, pattern):
            return f" ({one_line(name, 80)} is there, but skipped: {reason[:1].lower()}{reason[1:].rstrip('.')})"
    for name in [*there, *(name for name, _ in skipped)]:
        if _matches(name.casefold(), pattern.casefold()):
            return f" ({one_line(name, 80)} is there: upper and lower case differ)"
    return ""
