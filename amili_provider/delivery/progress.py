"""What a person reads in the task's log while the run goes on, and at its end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from amili_provider.delivery.item import Item, Sent
from amili_provider.receipts import Outcome, Receipt, one_line

TELL_EVERY_SECONDS = 30.0
MOST_WARNINGS = 20
"""Files that one warning names at most; every one is in the receipts."""
MOST_RECEIPTS = 1_000
"""Receipts shown in the log at most; all are in the task's XCom."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def shown_bytes(size: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 - the step between the units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


class Progress:
    """
    Tells how a run goes: one line per request, and one now and then on long runs.

    :param log: the task's logger.
    :param files: files of the run.
    :param size: their bytes.
    :param clock: seconds from any start.
    """

    def __init__(
        self, log: logging.Logger, *, files: int, size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._files = files
        self._size = size
        self._clock = clock
        self._started = self._told = clock()
        self._done_files = 0
        self._done_bytes = 0

    def request(self, batch: Sequence[Item], sent: Sent) -> None:
        """Tell of one batch that came back."""
        if not sent.requests:
            return
        size = sum(item.file.size for item in batch)
        # The request was made; what Amili did not take may still be sent.
        counts = Counter(str(result.outcome).replace("not_sent", "not taken") for result in sent.results.values())
        first, last = sent.requests[0], sent.requests[-1]
        self._log.info(
            "Request %s: %d file(s), %s in %.1f s (%s/s): %s",
            first if first == last else f"{first} to {last} ({len(sent.requests)} requests)",
            len(batch),
            shown_bytes(size),
            sent.seconds,
            shown_bytes(size / sent.seconds if sent.seconds else 0),
            ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())),
        )

    def finished(self, item: Item) -> None:
        """Count one file that has its final receipt."""
        self._done_files += 1
        self._done_bytes += item.file.size

    def tell(self) -> None:
        """Tell how far the run is, if it was not told for a while."""
        now = self._clock()
        if now - self._told < TELL_EVERY_SECONDS:
            return
        self._told = now
        seconds = now - self._started
        self._log.info(
            "%d of %d files done, %s of %s, %s/s",
            self._done_files,
            self._files,
            shown_bytes(self._done_bytes),
            shown_bytes(self._size),
            shown_bytes(self._done_bytes / seconds if seconds else 0),
        )


def receipt_lines(receipts: Sequence[Receipt]) -> Iterator[str]:
    """Yield one line per receipt, what went wrong first; of an unknown file with what is needed to settle it."""
    for receipt in sorted(receipts, key=lambda r: not r.outcome.failed)[:MOST_RECEIPTS]:
        size = "" if receipt.size is None else f" {shown_bytes(receipt.size):>10}"
        said = f"  ({receipt.message})" if receipt.message else ""
        ids = ""
        if receipt.outcome is Outcome.UNKNOWN:
            ids = f"  file_id {receipt.file_id}" + (f", request {receipt.request}" if receipt.request else "")
        yield f"{receipt.outcome:<16}{size}  {receipt.name}{said}{ids}"
    if len(receipts) > MOST_RECEIPTS:
        yield f"... and {len(receipts) - MOST_RECEIPTS} more"


def summary(receipts: Sequence[Receipt], seconds: float) -> str:
    """Return a table of the outcomes of a run."""
    lines = [f"{'outcome':<18}{'files':>8}{'bytes':>12}"]
    for outcome in Outcome:
        mine = [r for r in receipts if r.outcome is outcome]
        if mine:
            lines.append(f"{outcome:<18}{len(mine):>8}{shown_bytes(sum(r.size or 0 for r in mine)):>12}")
    total = sum(r.size or 0 for r in receipts)
    lines.append(f"{'in all':<18}{len(receipts):>8}{shown_bytes(total):>12}   in {seconds:.1f} s")
    return "\n".join(lines)


def tell_end(log: logging.Logger, receipts: Sequence[Receipt], seconds: float) -> None:
    """Tell what became of the files of a run that took *seconds*."""
    if not receipts:
        return
    # Airflow's log view folds what stands between these two.
    log.info("::group::Receipts of %d file(s)", len(receipts))
    # One event: Airflow's logger takes longer over a line than a small file takes to be sent.
    log.info("%s", "\n".join(receipt_lines(receipts)))
    log.info("::endgroup::")
    log.info("Outcomes\n%s", summary(receipts, seconds))


def warn_of_duplicates(log: logging.Logger, receipts: Sequence[Receipt]) -> None:
    """Warn of files that count as delivered, and may not be what was meant."""
    if not receipts:
        return
    lines = [f"  {one_line(r.name)}: {r.message}" for r in receipts[:MOST_WARNINGS]]
    if len(receipts) > MOST_WARNINGS:
        lines.append(f"  ... and {len(receipts) - MOST_WARNINGS} more: see the receipts")
    log.warning(
        "%d file(s) were not sent, since Amili has the same bytes under another name, and if_duplicate='skip':\n%s",
        len(receipts),
        "\n".join(lines),
    )
