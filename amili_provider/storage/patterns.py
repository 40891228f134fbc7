"""What a pattern matches, level by level, and the order in which people expect files."""

from __future__ import annotations

import fnmatch
import functools
import posixpath
import re
import unicodedata

_MAGIC = re.compile(r"[*?\[]")
_NUMBERS = re.compile("([0-9]+)")


def is_pattern(path: str) -> bool:
    """Return whether *path* has wildcards in it."""
    return _MAGIC.search(path) is not None


def natural_key(path: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Return what sorts ``file2`` before ``file10``, folder by folder; the path itself settles ties."""
    folder, slash, name = path.rpartition("/")
    # The suffix apart, so that "a.csv" comes before "a2.csv" and "a b.csv".
    stem, suffix = posixpath.splitext(name)
    return (*(_folder_key(folder) if slash else ()), _segment_key(stem), _suffix_key(suffix)), path


@functools.lru_cache(maxsize=64)
def _folder_key(folder: str) -> tuple[tuple[str | int, ...], ...]:
    # The files of a folder share it: it is not taken apart, nor compared piece by piece, for each of them.
    return tuple(_segment_key(segment) for segment in folder.split("/"))


@functools.lru_cache(maxsize=64)
def _suffix_key(suffix: str) -> tuple[str | int, ...]:
    return _segment_key(suffix)


def _segment_key(segment: str) -> tuple[str | int, ...]:
    # Text and numbers alternate, so that like is compared with like.
    return tuple(int(part) if index % 2 else part for index, part in enumerate(_NUMBERS.split(segment)))


class Levels:
    """
    A pattern of several levels, as a small automaton: a state is how many levels are matched.

    :param segments: one pattern per level; ``**`` stands for any number of levels.
    :param any_case: whether upper and lower case count as equal.
    """

    def __init__(self, segments: list[str], *, any_case: bool = False) -> None:
        flags = re.IGNORECASE if any_case else re.NOFLAG
        self._segments = [
            None if segment == "**" else re.compile(fnmatch.translate(unicodedata.normalize("NFC", segment)), flags)
            for segment in segments
        ]

    def start(self) -> frozenset[int]:
        """Return the states before the first level."""
        return self._spread({0})

    def _spread(self, states: set[int]) -> frozenset[int]:
        # "**" may stand for no level at all.
        for state in sorted(states):
            following = state
            while following < len(self._segments) and self._segments[following] is None:
                following += 1
                states.add(following)
        return frozenset(states)

    def step(self, states: frozenset[int], name: str, *, folder_link: bool) -> frozenset[int]:
        """
        Return the states after a level called *name*.

        :param folder_link: whether it is a link to a folder; ``**`` does not follow these, for they may be loops.
        """
        name = unicodedata.normalize("NFC", name)
        reached: set[int] = set()
        for state in states:
            if state == len(self._segments):
                continue
            segment = self._segments[state]
            if segment is None:
                if not folder_link:
                    reached.add(state)
            elif segment.match(name):
                reached.add(state + 1)
        return self._spread(reached)

    def goes_on(self, states: frozenset[int]) -> bool:
        """Return whether something deeper could match."""
        return any(state < len(self._segments) for state in states)

    def matches(self, states: frozenset[int]) -> bool:
        """Return whether the whole pattern is matched."""
        return len(self._segments) in states
