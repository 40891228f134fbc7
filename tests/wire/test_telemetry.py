"""What an upload tells Airflow's metrics and OpenTelemetry: per run and per request, never per file."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Stats
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from amili_provider.delivery import progress
from amili_provider.exceptions import AmiliDeliveryIncomplete, AmiliUploadRejected
from amili_provider.receipts import Outcome
from amili_provider.sandbox.server import SandboxServer
from tests.readme import ROOT
from tests.wire.conftest import FakeTaskInstance, Upload

Told = Callable[[], dict[str, list[str]]]


def _write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / f"{name}.csv").write_bytes(data)


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture(name="statsd", params=["plain", "influxdb"])
def _statsd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """A StatsD server, which Airflow's own client talks to; what it was told, by name."""
    if not AIRFLOW_V_3_3_PLUS:
        pytest.skip("Airflow before 3.3 makes its client when it is first imported")
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk.observability.metrics.statsd_logger import get_statsd_logger

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.5)
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(server.getsockname()[1]))
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", str(request.param == "influxdb"))

        def told() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            try:
                while True:
                    name, _, value = server.recv(65536).decode().partition(":")
                    found.setdefault(name, []).append(value)
            except TimeoutError:
                return found

        client: Any = get_statsd_logger()
        Stats.initialize(factory=lambda: client, export_legacy_names=False)
        yield told
        client.statsd.close()
        Stats.initialize(factory=NoStatsLogger, export_legacy_names=False)


@pytest.fixture(name="spans")
def _spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """The spans that have ended, within one of a task's."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    with provider.get_tracer("airflow").start_as_current_span("task"):
        yield lambda: list(exporter.get_finished_spans())
    provider.shutdown()


def test_a_statsd_server_is_told_of_files_bytes_requests_and_times(
    statsd: Told, upload: Upload, connect: Callable[..., SandboxServer], outbound: Path
) -> None:
    """Airflow's client sends one datagram a counter, with tags where the server knows such, and no name of a file."""
    connect(max_files_per_request=1)
    _write(outbound, a=b"one", b=b"two", secret_name=b"REJECT: row 14")
    with pytest.raises(AmiliUploadRejected):
        upload(FakeTaskInstance(), max_concurrent_requests=1)
    told = statsd()
    tags = {name.partition(",")[2] for name in told}
    told = {name.partition(",")[0]: values for name, values in told.items()}
    times = [value for name in ("request", "run") for value in told.pop(f"airflow.amili.{name}.duration")]
    assert told == {
        "airflow.amili.files.uploaded": ["2|c"],
        "airflow.amili.files.rejected": ["1|c"],
        "airflow.amili.bytes.uploaded": ["6|c"],
        "airflow.amili.requests": ["1|c"] * 3,
    }
    assert len(times) == 3 + 1
    assert all(value.endswith("|ms") for value in times)
    assert tags in ({""}, {"dag_id=dag1,task_id=upload,client_no=2218"})


def test_no_name_of_a_dag_keeps_a_metric_from_arriving(
    statsd: Told, upload: Upload, outbound: Path, spans: Callable[[], list[ReadableSpan]]
) -> None:
    """Letters beyond ASCII and long ids are made to fit where tags are a part of the name; spans have them whole."""
    ti = FakeTaskInstance()
    ti.dag_id, ti.task_id = "fakturaer_på_nett", "sende." * 40
    _write(outbound, a=b"one")
    upload(ti)
    upload(ti)
    told = {name.partition(",")[0]: name.partition(",")[2] for name in statsd()}
    names = ("uploaded", "already_uploaded")
    assert {f"airflow.amili.files.{name}" for name in names} <= set(told)
    assert set(told.values()) in ({""}, {f"dag_id=fakturaer_p__nett,task_id={ti.task_id[:64]},client_no=2218"})
    assert _attributes(spans()[-1])["dag_id"] == "fakturaer_på_nett"


def test_every_name_stands_in_the_docs() -> None:
    """A metric that is not documented is a metric that nobody finds, and one that is only documented a promise."""
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    table = text.partition("<!-- metrics -->")[2].partition("<!-- /metrics -->")[0]
    others = {progress.BYTES, progress.REQUESTS, progress.REQUEST_SECONDS, progress.RUN_SECONDS}
    assert set(re.findall(r"^\| `(amili\.\S+)`", table, re.MULTILINE)) == {
        *(f"{progress.FILES}{outcome}" for outcome in Outcome),
        *others,
    }
    assert {progress.RUN_SPAN, progress.REQUEST_SPAN} <= set(re.findall(r"^\| `(amili\.\w+)` \|", text, re.MULTILINE))


def test_a_run_is_a_span_and_each_request_one_within_it(
    spans: Callable[[], list[ReadableSpan]], upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Two hundred files, one request lost: few spans, numbers instead of names, and what is unknown is an error."""
    for number in range(200):
        (outbound / f"kari_nordmann_{number}.csv").write_text(str(number), "utf-8")
    amili_sandbox.faults.add("upload", status=429, headers={"Retry-After": "600"})
    with pytest.raises(AmiliDeliveryIncomplete):
        upload(FakeTaskInstance())
    upload(FakeTaskInstance())
    lost, first, request, run = spans()
    assert [span.name for span in (lost, first, request, run)] == ["amili.request", "amili.run"] * 2
    assert _attributes(lost)["amili.files.not_sent"] == 200
    assert _attributes(request) == {
        "amili.request": _attributes(request)["amili.request"],
        "amili.files": 200,
        "amili.bytes": 490,
        "amili.files.uploaded": 200,
    }
    assert _attributes(run) == {
        "dag_id": "dag1",
        "task_id": "upload",
        "client_no": "2218",
        "amili.files": 200,
        "amili.bytes": 490,
        "amili.files.uploaded": 200,
    }
    assert (request.parent, run.parent) == (run.context, trace.get_current_span().get_span_context())
    assert run.start_time <= request.start_time <= request.end_time <= run.end_time  # type: ignore[operator]
    assert "nordmann" not in "".join(span.to_json() for span in spans())


def test_what_is_unknown_is_an_error_of_its_request(
    spans: Callable[[], list[ReadableSpan]], upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The request that lost its answer stands out; the run itself came to its end."""
    _write(outbound, a=b"one")
    amili_sandbox.faults.add("upload", drop="reset", stage="accepted")
    with pytest.raises(Exception, match="1 unknown"):
        upload(FakeTaskInstance())
    request, run = spans()
    assert (request.status.is_ok, request.status.description) == (False, "unknown")
    assert run.status.is_ok


def test_a_meter_that_fails_fails_no_delivery(upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A StatsD client that raises is nothing that a debtor should pay for."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no route to the statsd host")

    for name in ("incr", "timing"):
        monkeypatch.setattr(Stats, name, staticmethod(broken))
    _write(outbound, a=b"one")
    assert [receipt["outcome"] for receipt in upload(FakeTaskInstance())] == ["uploaded"]


@pytest.mark.parametrize("when", ["on_start", "on_end"])
def test_a_tracer_that_fails_fails_no_delivery(
    upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Nor is a span processor that raises, at the beginning or after everything was accepted."""

    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if when == "on_start":
                raise RuntimeError("no collector")

        def on_end(self, span: Any) -> None:
            raise RuntimeError("no collector")

    provider = TracerProvider()
    provider.add_span_processor(Broken())
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    _write(outbound, a=b"one")
    assert [receipt["outcome"] for receipt in upload(FakeTaskInstance())] == ["uploaded"]
