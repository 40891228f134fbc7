"""
Metrics and spans of a delivery: per run and per request, never per file. ``docs/metrics.md`` lists every name.

Airflow's ``Stats`` and OpenTelemetry's tracer do nothing where they are not switched on. All of it happens in the
task's own thread: senders only keep times. A meter that fails fails no delivery.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats, conf
from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

from amili_provider.receipts import Outcome

if TYPE_CHECKING:
    from amili_provider.delivery.item import Item, Post
    from amili_provider.delivery.options import Options

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
