"""A run that is stopped (Ctrl-C, a time-out, a kill of the task) stops promptly and leaves the truth behind."""

from __future__ import annotations

import http.server
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import (
    AmiliDeliveryFailed,
    AmiliDeliveryIncomplete,
    AmiliOutcomeUnknown,
    AmiliPermanentError,
)
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.server import SandboxServer
from tests.wire.conftest import FakeTaskInstance, Upload


class Timeout(BaseException):
    """Like Airflow's own: raised in the task's thread, from a signal handler."""


@pytest.fixture(name="stop_when")
def _stop_when() -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Raise Timeout in the main thread as soon as a condition holds."""

    def ring(*_: Any) -> None:
        raise Timeout

    before = signal.signal(signal.SIGUSR1, ring)
    over = threading.Event()
    watchers: list[threading.Thread] = []

    def stop_when(condition: Callable[[], bool]) -> None:
        def watch() -> None:
            while not over.wait(0.02):
                if condition():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                    return

        watchers.append(threading.Thread(target=watch))
        watchers[-1].start()

    yield stop_when
    over.set()
    for watcher in watchers:
        watcher.join()
    signal.signal(signal.SIGUSR1, before)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _amili_threads() -> list[str]:
    of_runs = ("amili-read", "amili-hash", "amili-send", "amili-move")
    return [t.name for t in threading.enumerate() if t.name.startswith(of_runs)]


def test_stopped_while_waiting_for_an_answer_is_unknown(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, stop_when: Callable[[Callable[[], bool]], None]
) -> None:
    """The answer gets a moment, then the outcome is written as unknown, in the receipts and in the ledger."""
    (outbound / "a.csv").write_bytes(b"1")
    amili_sandbox.faults.add("upload", delay=60, stage="accepted")
    ti = FakeTaskInstance()
    stop_when(lambda: bool(amili_sandbox.uploads))
    started = time.monotonic()
    with pytest.raises(Timeout):
        upload(ti)
    assert time.monotonic() - started < 20
    assert ti.pushed["return_value"][0]["outcome"] == "unknown"
    assert not _amili_threads()
    with pytest.raises(AmiliOutcomeUnknown):
        upload()
    assert len(amili_sandbox.uploads) == 1


def test_stopped_before_the_tail_is_not_sent_and_the_next_run_sends(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
) -> None:
    """Nothing can have been accepted, so nothing is unknown; no spool and no descriptor stay behind."""
    for number in range(3):
        (outbound / f"{number}.csv").write_bytes(os.urandom(24 * 1024 * 1024))
    spools = tmp_path / "spool"
    spools.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spools))
    # The server stops reading in the middle of each body.
    amili_sandbox.faults.add("upload", after_bytes=100_000, delay=60, times=None)
    descriptors = _descriptors()
    ti = FakeTaskInstance()
    stop_when(lambda: any(r.body_bytes >= 100_000 for r in amili_sandbox.requests))
    with pytest.raises(Timeout):
        upload(ti)
    assert {r["outcome"] for r in ti.pushed["return_value"]} == {"not_sent"}
    assert not _amili_threads()
    assert not list(spools.iterdir())
    assert not amili_sandbox.uploads
    amili_sandbox.faults.clear()
    amili_sandbox.reset()
    assert {r["outcome"] for r in upload()} == {"uploaded"}
    # The server lives in this process, too, and lets go of its own when it gets to it.
    deadline = time.monotonic() + 10
    while (left := _descriptors()) > descriptors + 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left <= descriptors + 4


def test_a_task_that_is_told_to_stop_waits_for_the_answer_on_its_way(
    outbound: Path, connect: Callable[..., SandboxServer]
) -> None:
    """Airflow 3 calls on_kill from a signal handler and kills five seconds later: what is known by then is written."""
    amili = connect(max_files_per_request=1)
    for name in ("a", "b"):
        (outbound / f"{name}.csv").write_bytes(name.encode())
    operator = AmiliFileUploadOperator(
        task_id="upload", source=f"{outbound}/*", file_type="InvoiciaFormatDocFile", max_concurrent_requests=1
    )  # fmt: skip
    amili.faults.add("upload", delay=1.0, stage="accepted")
    over = threading.Event()

    def watch() -> None:
        while not amili.uploads and not over.wait(0.01):
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: operator.on_kill())
    watcher = threading.Thread(target=watch)
    watcher.start()
    ti = FakeTaskInstance()
    try:
        with pytest.raises(AmiliDeliveryIncomplete, match=r"[ab]\.csv.*The run was stopped"):
            operator.execute({"ti": ti})  # type: ignore[typeddict-item]
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)
    # Which of the two is read first, and so sent, is left to chance.
    told = {r["outcome"]: r["name"] for r in ti.pushed["return_value"]}
    assert set(told) == {"uploaded", "not_sent"}
    assert [upload.name for upload in amili.uploads] == [told["uploaded"]]
    # When nothing is being delivered there is nothing to stop; Airflow calls it after a time-out, too.
    operator.on_kill()


@pytest.mark.parametrize("books", ["ledger", "none"])
def test_a_time_out_after_something_was_accepted_is_final_without_a_ledger(
    upload: Upload,
    connect: Callable[..., SandboxServer],
    outbound: Path,
    amili_sandbox: SandboxServer,
    stop_when: Callable[[Callable[[], bool]], None],
    books: str,
) -> None:
    """Airflow retries what timed out; without a ledger the retry would send what was accepted a second time."""
    for name in ("a", "b"):
        (outbound / f"{name}.csv").write_bytes(name.encode())
    amili_sandbox.faults.add("upload", delay=1.0, stage="accepted")
    stop_when(lambda: bool(amili_sandbox.uploads))
    connect(max_files_per_request=1)
    ti = FakeTaskInstance()
    if books == "ledger":
        with pytest.raises(Timeout):
            upload(ti, max_concurrent_requests=1)
    else:
        with pytest.raises(AmiliDeliveryFailed, match=r"(?s)ledger=None.*does not retry.*[ab]\.csv") as caught:
            upload(ti, ledger=None, max_concurrent_requests=1)
        assert isinstance(caught.value.__cause__, Timeout)
    assert sorted(r["outcome"] for r in ti.pushed["return_value"]) == ["not_sent", "uploaded"]


def test_what_fails_after_all_was_accepted_is_final_without_a_ledger(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it in our own last steps: a retry would send everything again."""

    def broken(*_: Any) -> None:
        raise RuntimeError("the asset event cannot be filled")

    monkeypatch.setattr("amili_provider.operators.assets.fill_outlet_events", broken)
    (outbound / "a.csv").write_bytes(b"1")
    with pytest.raises(AmiliPermanentError, match=r"(?s)1 file\(s\) were delivered.*RuntimeError: the asset event"):
        upload(ledger=None)
    with pytest.raises(RuntimeError):
        upload()  # with a ledger a retry repeats nothing
    assert len(amili_sandbox.uploads) == 2


def test_an_outcome_that_came_too_late_is_still_told(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
) -> None:
    """A sender that settles longer than a stopped run waits has the last word in the receipts."""
    from amili_provider.delivery import pipeline
    from amili_provider.delivery.ledger_session import LedgerSession

    (outbound / "a.csv").write_bytes(b"1")
    (outbound / "the same.csv").write_bytes(b"1")
    settling = threading.Event()
    settle = LedgerSession.settle

    def slowly(*given: Any) -> Any:
        settling.set()
        time.sleep(1.5)
        return settle(*given)

    monkeypatch.setattr(LedgerSession, "settle", slowly)
    monkeypatch.setattr(pipeline, "GRACE_SECONDS", 0.2)
    stop_when(settling.is_set)
    ti = FakeTaskInstance()
    with pytest.raises(Timeout):
        upload(ti)
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["uploaded", "duplicate"]
    assert not _amili_threads()


def test_a_second_exception_while_stopping_ends_the_request_on_its_way(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time-out, and then a kill: nobody waits for an answer that may take ten minutes."""
    from amili_provider.delivery.pipeline import Pipeline

    (outbound / "a.csv").write_bytes(b"1")
    amili_sandbox.faults.add("upload", delay=60, stage="accepted")
    next_event = Pipeline._next_event

    def interrupted(delivery: Pipeline, *given: Any, **more: Any) -> None:
        if amili_sandbox.uploads:
            raise Timeout
        next_event(delivery, timeout=0.05)

    monkeypatch.setattr(Pipeline, "_next_event", interrupted)
    ti = FakeTaskInstance()
    started = time.monotonic()
    with pytest.raises(Timeout):
        upload(ti)
    assert time.monotonic() - started < 15
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["unknown"]
    assert not _amili_threads()


def test_a_second_exception_while_receipts_are_made_final_loses_none(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
) -> None:
    """What was sent is not called "not tried": without a ledger, a retry would send it twice."""
    from amili_provider.delivery import pipeline

    for number in range(10):
        (outbound / f"{number}.csv").write_bytes(b"%d" % number)
    amili_sandbox.faults.add("upload", delay=1.0, stage="accepted")
    monkeypatch.setattr(pipeline, "GRACE_SECONDS", 0.2)
    settle_rest = pipeline.Pipeline._settle_rest
    struck: list[bool] = []

    def interrupted(delivery: pipeline.Pipeline, items: Any) -> None:
        if not struck:
            struck.append(True)
            raise Timeout
        settle_rest(delivery, items)

    monkeypatch.setattr(pipeline.Pipeline, "_settle_rest", interrupted)
    stop_when(lambda: bool(amili_sandbox.uploads))
    ti = FakeTaskInstance()
    with pytest.raises(AmiliOutcomeUnknown):
        upload(ti, ledger=None)
    assert {r["outcome"] for r in ti.pushed["return_value"]} == {"unknown"}
    assert len(amili_sandbox.uploads) == 10


def test_a_reader_that_breaks_does_not_hold_up_the_run(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library's panic is no Exception; the run would wait for that reader for ever."""
    from amili_provider.delivery.reader import Reader

    def panic(*_: Any) -> Any:
        raise Timeout("panic")

    monkeypatch.setattr(Reader, "read", panic)
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryIncomplete, match="panic"):
        upload(ti)
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["not_sent"]
    assert not amili_sandbox.uploads


class Hang:
    """What a storage does that does not answer: it holds whoever waits, until the test lets go, or for a long time."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.waited_for = False
        """Whether somebody waited until the end of the long time."""

    def wait(self) -> None:
        """Do not answer."""
        self.waited_for = not self._over.wait(30) or self.waited_for

    def let_go(self) -> None:
        """Answer at last."""
        self._over.set()


@pytest.fixture(name="hang")
def _hang() -> Iterator[Hang]:
    """Something that hangs until the end of a test."""
    hang = Hang()
    yield hang
    hang.let_go()
    for thread in threading.enumerate():
        # Not those of a ledger that was left open: they wait for work until the process ends.
        if thread.name.startswith(("amili-read", "amili-send", "amili-move")):
            thread.join(10)


def test_a_stopped_run_does_not_wait_for_a_reader_whose_storage_hangs(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    hang: Hang,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
) -> None:
    """What was delivered is published while the storage still hangs, and the next run sends the rest."""

    class Storage(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()

        def do_GET(self) -> None:
            hang.wait()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    storage = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    threading.Thread(target=storage.serve_forever, daemon=True).start()
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    sources = [f"{outbound}/a.csv", f"http://127.0.0.1:{storage.server_port}/b.csv"]
    monkeypatch.setattr("amili_provider.delivery.pipeline.FILES_PER_READ", 1)
    # A batch that is not full waits for what is still being read: the first goes alone.
    monkeypatch.setattr("amili_provider.delivery.options.Options.batch_bytes", 1)
    stop_when(lambda: bool(amili_sandbox.uploads))
    try:
        with pytest.raises(Timeout):
            upload(ti, source=sources)
        assert not hang.waited_for
        told = {r["name"]: r["outcome"] for r in ti.pushed["return_value"]}
        assert told == {"a.csv": "uploaded", "b.csv": "not_sent"}
    finally:
        hang.let_go()
        storage.shutdown()
        storage.server_close()


@pytest.mark.parametrize("books", ["ledger", "none"])
def test_a_stopped_run_does_not_wait_for_a_sender_whose_storage_hangs(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    hang: Hang,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
    books: str,
) -> None:
    """A large file of which the storage gives the beginning only: its tail is never released, so it is not sent."""
    from amili_provider.storage import content

    (outbound / "large.csv").write_bytes(os.urandom(24 * 1024 * 1024))
    read_fully, reached = content._read_fully, threading.Event()

    def read(descriptor: int, buffer: memoryview, position: int) -> int:
        if position > 8 * 1024 * 1024:
            reached.set()
            hang.wait()
        return read_fully(descriptor, buffer, position)

    monkeypatch.setattr(content, "_read_fully", read)
    stop_when(reached.is_set)
    ti = FakeTaskInstance()
    with pytest.raises(Timeout):
        upload(ti, **({} if books == "ledger" else {"ledger": None}))
    assert not hang.waited_for
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["not_sent"]
    hang.let_go()
    assert {r["outcome"] for r in upload()} == {"uploaded"}
    assert len(amili_sandbox.uploads) == 1


def test_a_stopped_run_does_not_wait_for_a_ledger_that_hangs(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    hang: Hang,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
) -> None:
    """Accepted, but the outcome cannot be written now: the receipt says unknown, as the ledger will."""
    from amili_provider.delivery.ledger_session import LedgerSession

    (outbound / "a.csv").write_bytes(b"1")
    settle, reached = LedgerSession.settle, threading.Event()

    def hanging(*given: Any) -> Any:
        reached.set()
        hang.wait()
        return settle(*given)

    monkeypatch.setattr(LedgerSession, "settle", hanging)
    stop_when(reached.is_set)
    ti = FakeTaskInstance()
    with pytest.raises(Timeout):
        upload(ti)
    assert not hang.waited_for
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["unknown"]
    assert len(amili_sandbox.uploads) == 1


def test_a_stopped_run_does_not_wait_for_a_move_that_hangs(
    upload: Upload,
    outbound: Path,
    tmp_path: Path,
    hang: Hang,
    monkeypatch: pytest.MonkeyPatch,
    stop_when: Callable[[Callable[[], bool]], None],
) -> None:
    """The files are delivered and settled; where they lie is the next run's business."""
    from amili_provider.storage.moves import Mover

    (outbound / "a.csv").write_bytes(b"1")
    move, reached = Mover.move, threading.Event()

    def hanging(*given: Any, **more: Any) -> Any:
        reached.set()
        hang.wait()
        return move(*given, **more)

    monkeypatch.setattr(Mover, "move", hanging)
    stop_when(reached.is_set)
    ti = FakeTaskInstance()
    with pytest.raises(Timeout):
        upload(ti, archive_to=f"{tmp_path}/archive/")
    assert not hang.waited_for
    assert [r["outcome"] for r in ti.pushed["return_value"]] == ["uploaded"]


def test_a_stopped_run_publishes_within_what_airflow_gives() -> None:
    """Airflow's supervisor kills five seconds after its signal; a second is kept for the receipts themselves."""
    from amili_provider.delivery.pipeline import GRACE_SECONDS, SETTLE_SECONDS

    assert GRACE_SECONDS + SETTLE_SECONDS <= 4
