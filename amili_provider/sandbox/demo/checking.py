"""What must hold for the demo to end well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from amili_provider.sandbox.demo.invoices import REASON, Day
from amili_provider.sandbox.records import Upload

Receipts = Sequence[Mapping[str, Any]]


def check(
    day: Day, uploads: Sequence[Upload], accepted_first: int, first: Receipts, second: Receipts
) -> list[tuple[bool, str]]:
    """
    Compare what was sent with what arrived.

    :param day: what was sent.
    :param uploads: what the sandbox accepted in both runs, hashed by the sandbox itself.
    :param accepted_first: how many of them in the first run.
    :param first: the receipts of the first run.
    :param second: the receipts of the second run, after the refused file was corrected and the copy taken away.
    :returns: for each promise, whether it holds, and its words.
    """
    sent = {f.sha256(): f.name for f in day.files if f not in (day.refused, day.copy)}
    sent[day.corrected.sha256()] = day.corrected.name
    arrived = Counter(u.sha256 for u in uploads)
    outcomes = [Counter(r["outcome"] for r in receipts) for receipts in (first, second)]
    named = [(r["name"], r["message"]) for r in first if r["outcome"] == "rejected"]
    total = len(day.files)
    return [
        (
            set(arrived) == set(sent),
            f"All {len(sent)} different files arrived byte-identical, by SHA-256",
        ),
        (set(arrived.values()) == {1}, "Each of them was accepted exactly once"),
        (
            named == [(day.refused.name, REASON)],
            f"The refused file was named, in Amili's words: {day.refused.name}",
        ),
        (
            outcomes[0] == {"uploaded": total - 2, "duplicate": 1, "rejected": 1},
            f"The same bytes under a second name were sent once, and named: {day.copy.name}",
        ),
        (
            outcomes[1] == {"uploaded": 1, "already_uploaded": total - 2} and len(uploads) == accepted_first + 1,
            f"The second run sent one file, the corrected one, and none of the other {total - 2}",
        ),
    ]
