"""What the page's address asks: words that a person typed, which become a filter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from amili_provider.ui.filters import KINDS, NOT_DELIVERED, OUTCOMES, Filter, Key

_WORDS = ("conn", "client", "q", "since", "until", "outcome", "type", "dag", "run", "after")
_KEY = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z)~([0-9a-f]{0,32})~(\d{1,9})")
_FIRST_YEAR = 2000
_LONGEST = 500


class NotUnderstood(ValueError):  # noqa: N818 - told to a person
    """A word of the address that is none; the message is for the person who typed it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """
    The words of an address, without blanks around them and without empty ones.

    :param words: by name.
    """

    words: Mapping[str, str]

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """Return what a query string asks; words that the page does not know are left out."""
        found = {name: query.get(name, "").replace("\x00", "").strip()[:_LONGEST] for name in _WORDS}
        return cls({name: value for name, value in found.items() if value})

    def get(self, name: str) -> str:
        """Return a word; empty if it is not there."""
        return self.words.get(name, "")

    def filter(self, dags: frozenset[str] | None = None) -> Filter:
        """
        Return what is asked for.

        :param dags: the DAGs whose deliveries the reader may see; None for all.
        :raises NotUnderstood: if a word is none that the page understands.
        """
        kind = self.get("outcome") or None
        if kind is not None and kind not in OUTCOMES:
            raise NotUnderstood(f"{kind[:40]!r} is no outcome. It is one of {', '.join(OUTCOMES)}.")
        return Filter(
            client_no=self.get("client") or None,
            text=self.get("q") or None,
            since=self._day("since"),
            until=self._day("until"),
            kind=kind if kind in KINDS else None,
            undelivered=kind == NOT_DELIVERED,
            file_type=self.get("type") or None,
            dag_id=self.get("dag") or None,
            run_id=self.get("run") or None,
            dags=dags,
        )

    @property
    def after(self) -> Key | None:
        """
        After which row the page begins.

        :raises NotUnderstood: if it is no row's key.
        """
        if not (written := self.get("after")):
            return None
        if (found := _KEY.fullmatch(written)) is None:
            raise NotUnderstood("The address's 'after' is no place in the list. Begin again without it.")
        return found[1], found[2], int(found[3])

    def link(self, **changes: str | None) -> str:
        """
        Return the query string of this address with changes; the list begins anew unless they say where.

        :param changes: words by name; None to leave one out.
        """
        words = {name: value for name, value in self.words.items() if name != "after"} | changes
        return "?" + urlencode({name: value for name, value in words.items() if value})

    def _day(self, name: str) -> str | None:
        if not (written := self.get(name)):
            return None
        try:
            day = date.fromisoformat(written)
        except ValueError:
            day = None
        if day is None or day.year < _FIRST_YEAR:
            raise NotUnderstood(f"{written[:40]!r} is no day of a delivery. Write it as 2026-11-22.")
        return day.isoformat()


def written(key: Key) -> str:
    """Return a row's key as an address holds it."""
    return "~".join(map(str, key))
