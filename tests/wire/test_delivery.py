"""From files to receipts against a real HTTP server: exact, complete, never falsely green."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amili_provider.command.desk import Desk
from amili_provider.delivery import reader
from amili_provider.delivery.item import joined
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliDeliveryFailed,
    AmiliDeliveryIncomplete,
    AmiliOutcomeUnknown,
    AmiliPermanentError,
    AmiliRequestError,
    AmiliUploadRejected,
)
from amili_provider.sandbox.server import SandboxServer
from amili_provider.storage.reading import read_content, read_small_contents
from tests.ledgers import attempts_in, new_ledger
from tests.wire.conftest import FakeTaskInstance, Upload
from tests.words import one_line

FIELDS = [
    "file_id", "name", "source", "size", "sha256", "client_no", "file_type", "outcome", "status", "result",
    "message", "uploaded_at", "request",
]  # fmt: skip


def _write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / f"{name}.csv").write_bytes(data)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _outcomes(receipts: list[dict[str, Any]]) -> dict[str, str]:
    return {r["name"]: r["outcome"] for r in receipts}


def _posts(amili: SandboxServer) -> int:
    return sum(r.kind == "upload" for r in amili.requests)


def test_files_arrive_byte_for_byte_with_a_receipt_each(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """What arrives is what lay there, and each receipt can be traced."""
    _write(outbound, b2=b"two", b10=b"ten", b1="én".encode())
    receipts = upload()
    assert [r["name"] for r in receipts] == ["b1.csv", "b2.csv", "b10.csv"]
    assert all(list(r) == FIELDS for r in receipts)
    for receipt, data in zip(receipts, ("én".encode(), b"two", b"ten"), strict=True):
        assert (receipt["outcome"], receipt["status"], receipt["result"]) == ("uploaded", "PROCESSED", "CREATED")
        assert (receipt["sha256"], receipt["size"]) == (_sha(data), len(data))
        assert receipt["source"].endswith(receipt["name"])
        assert receipt["uploaded_at"]
    assert {(u.name, u.sha256, u.file_id) for u in amili_sandbox.uploads} == {
        (r["name"], r["sha256"], r["file_id"]) for r in receipts
    }
    assert _posts(amili_sandbox) == 1


def test_a_second_run_sends_nothing(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """What the ledger says was accepted is not sent again, also moved, or renamed and said to be the same."""
    _write(outbound, a=b"one", b=b"two")
    upload()
    (outbound / "moved").mkdir()
    (outbound / "b.csv").rename(outbound / "moved" / "b.csv")
    (outbound / "a.csv").rename(outbound / "renamed.csv")
    receipts = upload(source=f"{outbound}/**", if_duplicate="skip")
    assert _outcomes(receipts) == {"b.csv": "already_uploaded", "renamed.csv": "already_uploaded"}
    assert "a.csv" in next(r["message"] for r in receipts if r["name"] == "renamed.csv")
    assert all(r["uploaded_at"] for r in receipts)
    assert _posts(amili_sandbox) == 1


def test_changed_content_under_the_same_name_is_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A corrected file is another file."""
    _write(outbound, a=b"wrong")
    upload()
    _write(outbound, a=b"right")
    assert _outcomes(upload()) == {"a.csv": "uploaded"}
    assert [u.sha256 for u in amili_sandbox.uploads] == [_sha(b"wrong"), _sha(b"right")]


def test_equal_bytes_in_one_listing_are_sent_once(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """Each path keeps its receipt; the second follows the first."""
    _write(outbound, a=b"same", b=b"same", c=b"other")
    receipts = upload(if_duplicate="skip")
    assert _outcomes(receipts) == {"a.csv": "uploaded", "b.csv": "already_uploaded", "c.csv": "uploaded"}
    assert receipts[0]["file_id"] == receipts[1]["file_id"]
    assert "a.csv" in receipts[1]["message"]
    assert Counter(u.sha256 for u in amili_sandbox.uploads) == {_sha(b"same"): 1, _sha(b"other"): 1}


def test_equal_names_in_two_folders_are_refused_and_the_others_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Amili could not tell them apart; a name template can."""
    for folder, data in (("x", b"1"), ("y", b"2")):
        (outbound / folder).mkdir()
        (outbound / folder / "a.csv").write_bytes(data)
    _write(outbound, other=b"3")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryFailed, match=r"(?s)a\.csv.*file_name"):
        upload(ti, source=f"{outbound}/**")
    for receipt in (r for r in ti.pushed["return_value"] if r["name"] == "a.csv"):
        assert all(f"{outbound}/{folder}/" in receipt["message"] for folder in ("x", "y"))
    assert Counter(r["outcome"] for r in ti.pushed["return_value"]) == {"not_sent": 2, "uploaded": 1}
    # What Amili has already gets another name, too.
    arguments = {"source": f"{outbound}/**", "file_name": "{{ file.index }}_{{ file.name }}"}
    receipts = upload(**arguments, if_duplicate="skip")
    assert sorted(r["name"] for r in receipts if r["outcome"] == "uploaded") == ["1_a.csv", "2_a.csv"]
    assert len(amili_sandbox.uploads) == 3


def test_rejected_files_fail_the_task_and_the_others_arrive(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A 207 is never green: the message names the refused file with Amili's words; a re-run tries it again."""
    _write(outbound, good=b"1", bad=b"REJECT: no such debtor\n")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliUploadRejected, match=r"(?s)1 of 2.*bad\.csv.*no such debtor"):
        upload(ti)
    assert _outcomes(ti.pushed["return_value"]) == {"bad.csv": "rejected", "good.csv": "uploaded"}
    with pytest.raises(AmiliUploadRejected):
        upload(ti)
    assert _outcomes(ti.pushed["return_value"]) == {"bad.csv": "rejected", "good.csv": "already_uploaded"}
    assert len(amili_sandbox.uploads) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_poisoned_file_among_200_is_isolated(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, status: int
) -> None:
    """199 arrive exactly once, one is named; the ledger has Amili's words about requests that were refused whole."""
    amili_sandbox.rules.poison_status = status
    for number in range(200):
        (outbound / f"{number}.csv").write_bytes(b"POISON" if number == 137 else b"%d" % number)
    with pytest.raises(AmiliUploadRejected, match=r"(?s)1 of 200.*137\.csv"):
        upload()
    assert Counter(Counter(u.file_id for u in amili_sandbox.uploads).values()) == {1: 199}
    given_back = {a.message for a in attempts_in(new_ledger(tmp_path)) if a.outcome == "not_sent"}
    assert given_back
    assert all(
        re.match(rf"Nothing of the request was accepted\. .*{status}.* cannot be processed", str(said))
        for said in given_back
    )


def test_isolation_can_be_turned_off(upload: Upload, outbound: Path, connect: Callable[..., SandboxServer]) -> None:
    """Who doubts that such a code means that nothing was taken gets unknown outcomes, and nothing is resent."""
    amili = connect(isolate_refused=False)
    _write(outbound, a=b"1", b=b"POISON")
    with pytest.raises(AmiliOutcomeUnknown):
        upload()
    assert _posts(amili) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"drop": "reset", "stage": "accepted"},
        {"drop": "close", "stage": "body"},
        {"garbage": "html"},
        {"garbage": "empty"},
        {"cut_answer_at": 20},
        {"status": 500, "stage": "accepted"},
        {"status": 503, "stage": "body"},
        {"status": 503, "stage": "accepted", "headers": {"Retry-After": "0"}},
        {"status": 503, "stage": "accepted", "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}},
        {"status": 302, "stage": "accepted", "headers": {"Location": "http://127.0.0.1:9/"}},
        {"status": 303, "stage": "accepted"},
        {"status": 502, "garbage": "html"},
        {"status": 202, "stage": "accepted"},
        {"status": 204, "stage": "accepted"},
        {"status": 409, "stage": "accepted"},
        {"status": 408, "stage": "body"},
    ],
    ids=str,
)
def test_a_lost_or_strange_answer_is_unknown_and_never_resent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, fault: dict[str, Any]
) -> None:
    """Exactly one POST, AmiliOutcomeUnknown, and every later run says the same."""
    _write(outbound, a=b"1", b=b"2")
    amili_sandbox.faults.add("upload", **fault)
    ti = FakeTaskInstance()
    with pytest.raises(AmiliOutcomeUnknown, match=r"(?s)2 of 2.*if_unknown='check'.*a\.csv.*b\.csv"):
        upload(ti)
    assert _outcomes(ti.pushed["return_value"]) == {"a.csv": "unknown", "b.csv": "unknown"}
    assert _posts(amili_sandbox) == 1
    (request,) = {r["request"] for r in ti.pushed["return_value"]}
    assert re.fullmatch(r"[0-9a-f]{8}-1", request)
    with pytest.raises(AmiliOutcomeUnknown, match="Sent before, outcome unknown"):
        upload(ti)
    assert _posts(amili_sandbox) == 1
    assert {r["request"] for r in ti.pushed["return_value"]} == {None}


def test_the_message_gives_what_settles_an_unknown_file(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The id that the message shows is the one that the ledger's form takes; the next run then has nothing to doubt."""
    _write(outbound, a=b"1")
    amili_sandbox.faults.add("upload", drop="reset", stage="accepted")
    with pytest.raises(AmiliOutcomeUnknown) as caught:
        upload()
    found = re.search(r"file_id (\w+), request ([0-9a-f]{8}-\d+)$", str(caught.value), re.MULTILINE)
    assert found
    Desk().settle("kari", "seen in the portal", arrived=True, file_ids=[found[1]])
    assert _outcomes(upload()) == {"a.csv": "already_uploaded"}
    assert _posts(amili_sandbox) == 1


def test_a_later_run_tells_why_a_file_is_unknown(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """What came back then is first, then day, DAG and run; host and times are the ledger's."""
    _write(outbound, a=b"1")
    amili_sandbox.faults.add("upload", status=500, stage="accepted", body={"message": "Internal error of the day"})
    with pytest.raises(AmiliOutcomeUnknown):
        upload(FakeTaskInstance(run_id="manual__2026-11-26T18:27:37.955477+00:00"))
    with pytest.raises(AmiliOutcomeUnknown) as caught:
        upload(FakeTaskInstance(run_id="second"))
    said = one_line(caught.value)
    (message,) = [receipt["message"] for receipt in caught.value.receipts]
    assert "Internal error of the day" in message
    assert re.search(r" \(20\d\d-\d\d-\d\d, DAG dag1, run manual__2026-11-26T18:27:37\.955477\+00:00\)$", message)
    assert message in said


def test_a_receipt_of_what_was_delivered_before_is_not_cut(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Amili's words, then the day and the run, before the path."""
    _write(outbound, a=b"1")
    upload(FakeTaskInstance(run_id="first"))
    (receipt,) = upload(FakeTaskInstance(run_id="second"))
    pattern = (
        r"Accepted before as a\.csv: PROCESSED/CREATED: File uploaded \(20\S+, DAG dag1, run first\), from file://"
    )
    assert re.match(pattern, receipt["message"])
    assert len(amili_sandbox.uploads) == 1


def test_the_log_tells_of_each_file_in_the_words_of_its_outcome(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    """A file that is skipped is named as skipped, one that cannot be sent as not sent, whatever their number."""
    caplog.set_level("INFO")
    _write(outbound, empty=b"", a=b"1", b=b"2")
    with pytest.raises(AmiliDeliveryFailed):
        upload(file_name="same.csv")
    out = capfd.readouterr()
    said = caplog.text + out.out + out.err
    assert "skipped: empty.csv: It is empty" in said
    assert "not_sent: a.csv, b.csv: Another file of this run has the name" in said
    assert "not sent: It is empty" not in said


@pytest.mark.parametrize(
    ("fault", "posts", "tokens"),
    [
        ({"on": "connection", "drop": "reset"}, 1, 1),
        ({"drop": "reset", "after_bytes": 10}, 2, 1),
        ({"drop": "close", "after_bytes": 100_000}, 2, 1),
        ({"drop": "reset"}, 2, 1),
        ({"status": 429, "headers": {"Retry-After": "0"}}, 2, 1),
        ({"expire_tokens": True}, 2, 2),
        ({"on": "token", "status": 500}, 1, 2),
        ({"on": "token", "drop": "reset"}, 1, 2),
        ({"on": "token", "delay": 1.5}, 1, 1),
    ],
    ids=str,
)
def test_what_cannot_have_been_accepted_is_sent_again_and_arrives_once(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, fault: dict[str, Any], posts: int, tokens: int
) -> None:
    """Cut before the tail, told to wait, token expired, token service slow or down: the run succeeds."""
    _write(outbound, a=b"1" * 1_000_000, b=b"2")
    amili_sandbox.faults.add(**fault)
    assert _outcomes(upload()) == {"a.csv": "uploaded", "b.csv": "uploaded"}
    assert Counter(u.sha256 for u in amili_sandbox.uploads) == {_sha(b"1" * 1_000_000): 1, _sha(b"2"): 1}
    assert _posts(amili_sandbox) == posts
    assert sum(r.kind == "token" for r in amili_sandbox.requests) == tokens


def test_a_pause_that_is_too_long_to_hold_a_worker_is_left_to_airflow(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The retryable error says how long; the next attempt sends."""
    _write(outbound, a=b"1")
    amili_sandbox.faults.add("upload", status=429, headers={"Retry-After": "600"})
    with pytest.raises(AmiliDeliveryIncomplete) as caught:
        upload()
    assert caught.value.retry_after == 600
    assert not isinstance(caught.value, AmiliPermanentError)
    assert _outcomes(upload()) == {"a.csv": "uploaded"}
    assert len(amili_sandbox.uploads) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 403}, AmiliAuthenticationError),
        ({"status": 401, "times": None}, AmiliAuthenticationError),
        ({"status": 404}, AmiliRequestError),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_permanent_and_the_rest_is_not_tried(
    upload: Upload,
    connect: Callable[..., SandboxServer],
    outbound: Path,
    amili_sandbox: SandboxServer,
    fault: dict[str, Any],
    error: type[Exception],
) -> None:
    """It is not the files' fault, and more requests would not help."""
    connect(max_files_per_request=1)
    for number in range(20):
        (outbound / f"{number}.csv").write_bytes(b"%d" % number)
    amili_sandbox.faults.add("upload", **{"times": None, **fault})
    ti = FakeTaskInstance()
    with pytest.raises(error) as caught:
        upload(ti, max_concurrent_requests=1)
    assert isinstance(caught.value, AmiliPermanentError)
    assert len(caught.value.receipts) == 20  # type: ignore[attr-defined]
    assert Counter(_outcomes(ti.pushed["return_value"]).values()) == {"not_sent": 20}
    assert _posts(amili_sandbox) <= 2
    amili_sandbox.faults.clear()
    assert Counter(_outcomes(upload()).values()) == {"uploaded": 20}


def test_amili_that_is_down_is_retryable(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """Nothing was sent, so Airflow may retry."""
    _write(outbound, a=b"1")
    amili_sandbox.stop()
    try:
        with pytest.raises(AmiliDeliveryIncomplete, match=r"a\.csv"):
            upload()
    finally:
        amili_sandbox.start()
    assert _outcomes(upload()) == {"a.csv": "uploaded"}


def test_small_files_do_not_wait_for_large_ones(
    upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files that take long to read leave readers for those behind them, which arrive meanwhile."""
    _write(outbound, **{f"a{n}": b"%d" % n * 9_000_000 for n in range(3)}, **{f"z{n}": b"%d" % n for n in range(4)})
    small = threading.Event()
    waited: list[bool] = []

    def slowly(*given: Any, **more: Any) -> Any:
        waited.append(small.wait(20))
        return read_content(*given, **more)

    def small_ones(*given: Any, **more: Any) -> Any:
        small.set()
        return read_small_contents(*given, **more)

    monkeypatch.setattr(reader, "read_content", slowly)
    monkeypatch.setattr(reader, "read_small_contents", small_ones)
    receipts = upload()
    assert set(_outcomes(receipts).values()) == {"uploaded"}
    assert waited == [True] * 3


def test_sentences_of_others_end_before_ours_begin() -> None:
    """Amili's words may have no full stop."""
    assert joined("File uploaded", "Moved to x.") == "File uploaded. Moved to x."
    assert joined("Refused!", None, "Not moved yet.") == "Refused! Not moved yet."
    assert joined(None, "Alone") == "Alone"
