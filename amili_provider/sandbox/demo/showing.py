"""What the demo prints: steps while they run, a table for each run, and what was checked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from amili_provider.sandbox.page import readable_size

_COLOURS = {"good": "32", "bad": "31", "dim": "2", "bold": "1"}
_OUTCOMES = {
    "uploaded": ("good", "Amili accepted it now"),
    "already_uploaded": ("good", "Amili accepted it before"),
    "skipped": ("dim", "skipped by choice"),
    "duplicate": ("bad", "Amili has the same bytes under another name"),
    "rejected": ("bad", "Amili refused it, and says why"),
    "unknown": ("bad", "sent, answer lost: never resent on its own"),
    "not_sent": ("bad", "could not be tried"),
}
_LONGEST_NAMED = 5
_WIDE = 92


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the sandbox saw of one run."""

    requests: int
    files: int
    size: int
    seconds: float


class Shown:
    """Prints, in colour where a person watches."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str = "") -> None:
        """Print a line."""
        print(text, flush=True)  # noqa: T201 - a command talks to a person

    def tint(self, text: str, colour: str) -> str:
        """Return *text* in a colour."""
        return f"\033[{_COLOURS[colour]}m{text}\033[0m" if self._colour else text

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is being done, and how long it took."""
        before = time.monotonic()
        print(f"  {what:<58}", end="", flush=True)  # noqa: T201
        try:
            yield
        except BaseException:
            self.say()
            raise
        self.say(self.tint(f"{time.monotonic() - before:6.1f} s", "dim"))

    def title(self, text: str) -> None:
        """Begin a part."""
        self.say()
        self.say(self.tint(text, "bold"))

    def run(self, answer: Mapping[str, Any], receipts: Sequence[Mapping[str, Any]], delivery: Delivery) -> None:
        """Show one run as a table."""
        state = str(answer["state"])
        colour = "good" if state == "success" else "bad"
        self.say(f"  DAG run: {self.tint(state, colour)}")
        self.say("  " + "─" * _WIDE)
        self.say(self.tint(f"  {'outcome':<18}{'files':>6}{'size':>12}   what it means", "dim"))
        for outcome, (tint, meaning) in _OUTCOMES.items():
            these = [r for r in receipts if r["outcome"] == outcome]
            if not these:
                continue
            size = readable_size(sum(r["size"] or 0 for r in these))
            self.say(f"  {self.tint(f'{outcome:<18}', tint)}{len(these):>6}{size:>12}   {self.tint(meaning, 'dim')}")
            if tint == "bad":
                for receipt in these[:_LONGEST_NAMED]:
                    self.say(f"    {receipt['name']}: {receipt['message']}")
        self.say("  " + "─" * _WIDE)
        rate = delivery.size / max(delivery.seconds, 0.001)
        self.say(
            f"  Amili got {delivery.files} file(s), {readable_size(delivery.size)}, in {delivery.requests} request(s) "
            f"and {delivery.seconds:.2f} s: {readable_size(rate)}/s; the DAG run took {answer['seconds']:.1f} s"
        )

    def checks(self, checks: Sequence[tuple[bool, str]]) -> bool:
        """Show what was checked; return whether all of it is as it should be."""
        self.title("Checked")
        for right, what in checks:
            mark = self.tint("yes", "good") if right else self.tint("NO ", "bad")
            self.say(f"  {mark}  {what}")
        return all(right for right, _ in checks)
