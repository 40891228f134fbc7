"""
The log, the metrics and the spans of a run, while it goes on and at its end.

Metrics and spans are per run and per request, never per file; ``docs/metrics.md`` lists every name. Airflow's ``Stats``
and OpenTelemetry's tracer do nothing where they are not switched on. All of it happens in the task's own thread:
senders only keep times. A meter that fails fails no delivery.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats, conf
from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

from amili_provider.receipts import Outcome, Receipt, one_line

if TYPE_CHECKING:
    from amili_provider.delivery.item import Item, Post, Sent
    from amili_provider.delivery.options import Options


TELL_EVERY_SECONDS = 30.0
MOST_WARNINGS = 20
"""Files that one warning names at most; every one is in the receipts."""
MOST_RECEIPTS = 1_000
"""Receipts shown in the log at most; all are in the task's XCom."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
FILES = "amili.files."
"""Counter, one for each outcome: its name follows."""
BYTES = "amili.bytes.uploaded"
REQUESTS = "amili.requests"
REQUEST_SECONDS = "amili.request.duration"
RUN_SECONDS = "amili.run.duration"
RUN_SPAN, REQUEST_SPAN = "amili.run", "amili.request"
_NANO = 1_000_000_000
_LONGEST_TAG = 64
"""Three such tags, with the longest name, fit into the 250 characters that Airflow sends."""


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


class Telemetry:
    """
    Counts, times and traces one run.

    :param options: whose run and client are the tags.
    """

    def __init__(self, options: Options) -> None:
        tags = {"dag_id": options.run.dag_id, "task_id": options.run.task_id, "client_no": options.client_no}
        self._tags = {name: value for name, value in tags.items() if value}
        self._of_metrics = self._tags
        with contextlib.suppress(Exception):
            self._of_metrics = _tags_of_metrics(self._tags)
        self._tracer = trace.get_tracer(__name__)
        self._span: Span = trace.INVALID_SPAN

    @contextmanager
    def run(self, items: Iterable[Item]) -> Iterator[None]:
        """Measure a run: its span encloses those of its requests, and at its end its files are counted."""
        began = time.monotonic()
        everything = list(items)
        # What an error says may hold names and paths, so that its class alone is told.
        span = contextlib.ExitStack()
        with contextlib.suppress(Exception):
            self._span = span.enter_context(
                self._tracer.start_as_current_span(RUN_SPAN, record_exception=False, set_status_on_exception=False)
            )
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(Exception):
                self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            with contextlib.suppress(Exception):
                self._count(everything, time.monotonic() - began)
            with contextlib.suppress(Exception):
                span.close()

    def request(self, post: Post) -> None:
        """Tell of a request that has ended."""
        with contextlib.suppress(Exception):
            Stats.incr(REQUESTS, 1, tags=self._of_metrics)
            Stats.timing(REQUEST_SECONDS, timedelta(seconds=post.ended - post.began), tags=self._of_metrics)
            span = self._tracer.start_span(REQUEST_SPAN, start_time=int(post.began * _NANO))
            # The request's name is the one in log, receipts and ledger.
            span.set_attributes({"amili.request": post.label, **_attributes(post.files, post.size, post.outcomes)})
            if Outcome.UNKNOWN in post.outcomes:
                span.set_status(Status(StatusCode.ERROR, str(Outcome.UNKNOWN)))
            span.end(int(post.ended * _NANO))

    def _count(self, items: list[Item], seconds: float) -> None:
        outcomes = Counter(item.receipt.outcome for item in items)
        for outcome, number in outcomes.items():
            Stats.incr(f"{FILES}{outcome}", number, tags=self._of_metrics)
        sent = sum(item.file.size for item in items if item.receipt.outcome is Outcome.UPLOADED)
        Stats.incr(BYTES, sent, tags=self._of_metrics)
        Stats.timing(RUN_SECONDS, timedelta(seconds=seconds), tags=self._of_metrics)
        size = sum(item.file.size for item in items)
        self._span.set_attributes({**self._tags, **_attributes(len(items), size, outcomes)})


def _tags_of_metrics(tags: Mapping[str, str]) -> dict[str, str]:
    """
    Return *tags* as the configured StatsD takes them.

    With InfluxDB's tags they are a part of the name, and Airflow drops a metric whose name is long, or has a letter
    beyond ASCII, as a DAG's id may.
    """
    if not conf.getboolean("metrics", "statsd_influxdb_enabled", fallback=False):
        return dict(tags)
    return {name: re.sub(r"[^\w./-]", "_", value, flags=re.ASCII)[:_LONGEST_TAG] for name, value in tags.items()}


def _attributes(files: int, size: int, outcomes: Mapping[Outcome, int]) -> dict[str, Any]:
    return {
        "amili.files": files,
        "amili.bytes": size,
        **{f"{FILES}{outcome}": number for outcome, number in outcomes.items()},
    }
