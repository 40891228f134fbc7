"""Equal bytes under another name: loud unless somebody chose otherwise, and never sent twice under one name."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import (
    AmiliDeliveryIncomplete,
    AmiliDuplicateFiles,
    AmiliOutcomeUnknown,
    AmiliPermanentError,
    AmiliUploadRejected,
)
from amili_provider.ledger import Ledger
from amili_provider.ledger.attempts import timestamp
from amili_provider.sandbox.results import Step
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import new_ledger, taking_no_outcome
from tests.wire.conftest import FakeTaskInstance, Upload, a_run_that_has_claimed

LARGE = b"a line of a long file\n" * 420_000
"""More than 8 MiB: streamed, and hashed while it is sent where its size is new."""
LOST = {"drop": "reset", "stage": "accepted"}
UNHEARD = {"drop": "reset", "stage": "body"}
MODES = ("fail", "skip", "send")


def _write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / f"{name}.csv").write_bytes(data)


def _rename(folder: Path, old: str, new: str) -> None:
    (folder / f"{old}.csv").rename(folder / f"{new}.csv")


def _accepted(amili: SandboxServer) -> dict[str, int]:
    return dict(Counter(u.name.removesuffix(".csv") for u in amili.uploads))


def _said(receipts: list[dict[str, Any]]) -> dict[str, str]:
    return {r["name"].removesuffix(".csv"): r["outcome"] for r in receipts}


@pytest.fixture(name="run")
def _run(upload: Upload) -> Callable[..., tuple[dict[str, str], BaseException | None]]:
    """Run the operator as a new run, and return what its receipts say and what it raised."""
    numbers = iter(range(1, 1000))

    def run(ti: FakeTaskInstance | None = None, **arguments: Any) -> tuple[dict[str, str], BaseException | None]:
        ti = ti or FakeTaskInstance(run_id=f"run {next(numbers)}")
        try:
            return _said(upload(ti, **arguments)), None
        except AmiliPermanentError as error:
            return _said(ti.pushed["return_value"]), error
        except AmiliDeliveryIncomplete as error:
            return _said(ti.pushed["return_value"]), error

    return run


Run = Callable[..., tuple[dict[str, str], BaseException | None]]


def test_bytes_that_were_accepted_under_another_name_fail_loudly_and_the_others_go_out(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Last month's fees and this month's: the error names both files, both days and the three ways on; no retry."""
    _write(outbound, fees_10=b"fees")
    (first,) = upload(FakeTaskInstance(run_id="scheduled__2025-10-31"))
    _rename(outbound, "fees_10", "fees_11")
    _write(outbound, other=b"other")
    ti = FakeTaskInstance(run_id="scheduled__2025-11-30")
    with pytest.raises(AmiliDuplicateFiles) as raised:
        upload(ti)
    assert _said(ti.pushed["return_value"]) == {"fees_11": "duplicate", "other": "uploaded"}
    message = " ".join(str(raised.value).split())
    today = timestamp(time.time())[:10]
    assert f"'fees_10.csv' on {first['uploaded_at'][:10]}" in message
    assert f"fees_11.csv: Amili accepted the same bytes as 'fees_10.csv' on {first['uploaded_at'][:10]} (" in message
    assert f"not sent again on {today}" in message
    assert "scheduled__2025-10-31" in message
    for way in ("if_duplicate='skip'", "if_duplicate='send'", "correct the file, or its name"):
        assert way in message
    assert [r["name"] for r in raised.value.receipts] == ["fees_11.csv"]
    assert raised.value.receipts[0]["file_id"] == first["file_id"]
    assert _accepted(amili_sandbox) == {"fees_10": 1, "other": 1}


@pytest.mark.parametrize("ledger", ["with a ledger", None])
@pytest.mark.parametrize("content", [b"same", LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("if_duplicate", "second", "sent"),
    [("fail", "duplicate", {"a": 1}), ("skip", "already_uploaded", {"a": 1}), ("send", "uploaded", {"a": 1, "b": 1})],
)
def test_of_equal_bytes_in_one_run_the_first_of_the_listing_is_sent(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, ledger: str | None, content: bytes, if_duplicate: str,
    second: str, sent: dict[str, int],
) -> None:  # fmt: skip
    """Small or streamed, with a ledger or without."""
    _write(outbound, a=content, b=content)
    said, error = run(if_duplicate=if_duplicate, **({} if ledger else {"ledger": None}))
    assert said == {"a": "uploaded", "b": second}
    assert isinstance(error, AmiliDuplicateFiles) is (second == "duplicate")
    assert _accepted(amili_sandbox) == sent
    assert len({u.file_id for u in amili_sandbox.uploads}) == len(sent)


def test_the_first_of_the_listing_is_sent_also_if_it_is_read_last(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers overtake one another; what becomes of a file does not depend on that."""
    from amili_provider.delivery.pipeline import Pipeline
    from amili_provider.delivery.reader import Reader

    _write(outbound, a=LARGE, b=LARGE, c=b"small")
    read, on_read = Reader.read, Pipeline._on_read
    b_is_read = threading.Event()

    def read_late(reader: Reader, job: Any) -> Any:
        if job[0].receipt.name == "a.csv":
            b_is_read.wait(20)
        return read(reader, job)

    def tell(delivery: Pipeline, outcomes: Any, *more: Any, **how: Any) -> None:
        on_read(delivery, outcomes, *more, **how)
        if outcomes[0][0].receipt.name == "b.csv":
            b_is_read.set()

    monkeypatch.setattr(Reader, "read", read_late)
    monkeypatch.setattr(Pipeline, "_on_read", tell)
    said, _ = run()
    assert said == {"a": "uploaded", "b": "duplicate", "c": "uploaded"}
    assert _accepted(amili_sandbox) == {"a": 1, "c": 1}


@pytest.mark.parametrize("if_duplicate", MODES)
def test_the_same_name_again_is_already_uploaded_in_every_mode(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, if_duplicate: str
) -> None:
    """Names are compared without case, as Amili compares values; the folder does not count."""
    _write(outbound, a=b"same")
    run()
    _rename(outbound, "a", "A")
    (outbound / "below").mkdir()
    (outbound / "A.csv").rename(outbound / "below" / "A.csv")
    assert run(if_duplicate=if_duplicate, source=f"{outbound}/**") == ({"A": "already_uploaded"}, None)
    assert _accepted(amili_sandbox) == {"a": 1}


def test_skip_is_green_with_a_warning(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It counts as delivered, is archived, and log and receipt say under which name Amili has it."""
    _write(outbound, a=b"same")
    upload()
    _rename(outbound, "a", "b")
    with caplog.at_level(logging.WARNING):
        (receipt,) = upload(if_duplicate="{{ 'skip' }}".strip("{} '"), archive_to=f"{tmp_path}/archive/")
    assert (receipt["outcome"], receipt["uploaded_at"] is not None) == ("already_uploaded", True)
    assert "'a.csv'" in receipt["message"]
    assert "if_duplicate='skip'" in receipt["message"]
    said = caplog.text + capfd.readouterr().out
    assert "1 file(s) were not sent, since Amili has the same bytes under another name" in said
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["b.csv"]
    assert _accepted(amili_sandbox) == {"a": 1}


def test_what_send_sent_is_never_sent_again_and_known_by_its_name_ever_after(
    run: Run, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Re-run, clear, retry, any mode; a third name is for the user to decide again."""
    _write(outbound, a=b"same", b=b"same")
    assert run(if_duplicate="send")[0] == {"a": "uploaded", "b": "uploaded"}
    for if_duplicate in MODES:
        assert run(if_duplicate=if_duplicate) == ({"a": "already_uploaded", "b": "already_uploaded"}, None)
    (outbound / "a.csv").unlink()
    assert run() == ({"b": "already_uploaded"}, None)
    _rename(outbound, "b", "c")
    assert run()[0] == {"c": "duplicate"}
    assert run(if_duplicate="skip")[0] == {"c": "already_uploaded"}
    assert run()[0] == {"c": "duplicate"}
    assert run(if_duplicate="send")[0] == {"c": "uploaded"}
    assert run()[0] == {"c": "already_uploaded"}
    assert _accepted(amili_sandbox) == {"a": 1, "b": 1, "c": 1}
    assert len({u.file_id for u in amili_sandbox.uploads}) == 3


@pytest.mark.parametrize("if_duplicate", MODES)
def test_what_was_sent_as_it_was_hashed_is_recognised_before_its_tail(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, if_duplicate: str
) -> None:
    """A large file of a size that is new is known only when nearly all of it is sent; then each mode is as ever."""
    _write(outbound, a=LARGE)
    run()
    monkeypatch.setattr(Ledger, "has_size", lambda *_: False)
    _rename(outbound, "a", "b")
    outcome = {"fail": "duplicate", "skip": "already_uploaded", "send": "uploaded"}[if_duplicate]
    assert run(if_duplicate=if_duplicate)[0] == {"b": outcome}
    assert run(if_duplicate=if_duplicate)[0] == {"b": "duplicate" if outcome == "duplicate" else "already_uploaded"}
    assert _accepted(amili_sandbox) == {"a": 1, **({"b": 1} if if_duplicate == "send" else {})}


def test_a_retry_of_send_sends_only_what_is_missing(run: Run, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """The first is accepted, Amili asks for a pause before the second: the retry sends the second."""
    _write(outbound, a=b"same", b=b"same")
    amili_sandbox.faults.add("upload", nth=2, status=429, headers={"Retry-After": "600"})
    said, error = run(FakeTaskInstance(max_tries=2), if_duplicate="send")
    assert said == {"a": "uploaded", "b": "not_sent"}
    assert isinstance(error, AmiliDeliveryIncomplete)
    amili_sandbox.faults.clear()
    again = FakeTaskInstance(max_tries=2, try_number=2)
    assert run(again, if_duplicate="send") == ({"a": "already_uploaded", "b": "uploaded"}, None)
    assert _accepted(amili_sandbox) == {"a": 1, "b": 1}


@pytest.mark.parametrize("if_duplicate", MODES)
def test_equal_bytes_that_are_in_flight_elsewhere_wait(
    run: Run, upload: Upload, outbound: Path, amili_sandbox: SandboxServer, if_duplicate: str
) -> None:
    """Two tasks at once, two names: the second is retried, and then it is as if it had come later."""
    _write(outbound, a=b"same")
    with a_run_that_has_claimed(upload):
        _rename(outbound, "a", "b")
        said, error = run(if_duplicate=if_duplicate)
        assert said == {"b": "not_sent"}
        assert isinstance(error, AmiliDeliveryIncomplete)
        assert "In flight elsewhere as a.csv" in " ".join(str(error).split())
        _rename(outbound, "b", "a")
    _rename(outbound, "a", "b")
    outcome = {"fail": "duplicate", "skip": "already_uploaded", "send": "uploaded"}[if_duplicate]
    assert run(if_duplicate=if_duplicate)[0] == {"b": outcome}
    assert _accepted(amili_sandbox) == {"a": 1, **({"b": 1} if if_duplicate == "send" else {})}


@pytest.mark.parametrize("if_duplicate", MODES)
def test_two_tasks_that_meet_at_the_claim_send_one_name_first(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, if_duplicate: str
) -> None:
    """Both have looked up, another has the bytes accepted meanwhile under its name: the claim finds that out."""
    _write(outbound, b=b"same")
    claim = Ledger.claim
    met = threading.Event()

    def claim_late(ledger: Ledger, wanted: Any) -> Any:
        if not met.is_set():
            met.set()
            _rename(outbound, "b", "a")
            assert run(FakeTaskInstance(run_id="faster"))[0] == {"a": "uploaded"}
            _rename(outbound, "a", "b")
        return claim(ledger, wanted)

    monkeypatch.setattr(Ledger, "claim", claim_late)
    lost = {"fail": "duplicate", "skip": "already_uploaded", "send": "not_sent"}[if_duplicate]
    then = {"fail": "duplicate", "skip": "already_uploaded", "send": "uploaded"}[if_duplicate]
    said, error = run(FakeTaskInstance(run_id="slower"), if_duplicate=if_duplicate)
    assert said == {"b": lost}
    assert isinstance(error, AmiliDeliveryIncomplete) is (if_duplicate == "send")
    assert run(FakeTaskInstance(run_id="slower"), if_duplicate=if_duplicate)[0] == {"b": then}
    assert _accepted(amili_sandbox) == {"a": 1, **({"b": 1} if if_duplicate == "send" else {})}


@pytest.mark.parametrize("if_duplicate", MODES)
def test_bytes_whose_outcome_is_unknown_under_one_name_are_unknown_under_every_name(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, if_duplicate: str
) -> None:
    """Whether Amili has them decides what becomes of the other name; until then nothing is sent."""
    _write(outbound, a=b"same")
    amili_sandbox.faults.add("upload", **LOST)
    run()
    _rename(outbound, "a", "b")
    said, error = run(if_duplicate=if_duplicate)
    assert said == {"b": "unknown"}
    assert "Sent before as a.csv" in " ".join(str(error).split())
    # Asked for, it is the first name that arrived.
    outcome = {"fail": "duplicate", "skip": "already_uploaded", "send": "uploaded"}[if_duplicate]
    assert run(if_duplicate=if_duplicate, if_unknown="check")[0] == {"b": outcome}
    _rename(outbound, "b", "a")
    assert run()[0] == {"a": "already_uploaded"}
    assert _accepted(amili_sandbox) == {"a": 1, **({"b": 1} if if_duplicate == "send" else {})}


@pytest.mark.parametrize("if_duplicate", MODES)
def test_a_second_name_whose_answer_is_lost_is_unknown_in_every_mode(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, if_duplicate: str
) -> None:
    """What 'send' sent under the other name is never sent on its own again; asking settles that name alone."""
    _write(outbound, a=b"same")
    run()
    _write(outbound, b=b"same")
    amili_sandbox.faults.add("upload", **LOST)
    assert run(if_duplicate="send")[0] == {"a": "already_uploaded", "b": "unknown"}
    assert run(if_duplicate=if_duplicate)[0] == {"a": "already_uploaded", "b": "unknown"}
    assert run(if_duplicate=if_duplicate, if_unknown="check") == (
        {"a": "already_uploaded", "b": "already_uploaded"}, None
    )  # fmt: skip
    assert _accepted(amili_sandbox) == {"a": 1, "b": 1}


def test_a_second_name_that_never_arrived_is_resent_only_by_both_words(
    run: Run, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Amili does not know it: 'resend' or 'force' alone leaves it unknown, with 'send' it goes out, once."""
    _write(outbound, a=b"same")
    run()
    _write(outbound, b=b"same")
    amili_sandbox.faults.add("upload", **UNHEARD)
    assert run(if_duplicate="send")[0]["b"] == "unknown"
    for if_duplicate in ("fail", "skip"):
        said, error = run(if_unknown="resend", if_duplicate=if_duplicate)
        assert said["b"] == "unknown"
        assert "if_unknown='resend' with if_duplicate='send' sends it again" in " ".join(str(error).split())
    assert run(if_duplicate="send", if_unknown="resend")[0]["b"] == "uploaded"
    assert run(if_duplicate="send", if_unknown="resend")[0]["b"] == "already_uploaded"
    assert _accepted(amili_sandbox) == {"a": 1, "b": 1}


def test_a_name_that_was_overtaken_while_unknown_is_not_sent_on_its_own(
    run: Run, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Its answer was lost, somebody had the same bytes resent under another name: 'send' alone must not guess."""
    amili_sandbox.knows_uploads = False
    _write(outbound, b=b"same")
    amili_sandbox.faults.add("upload", **LOST)
    assert run()[0] == {"b": "unknown"}
    _rename(outbound, "b", "a")
    assert run(if_unknown="resend")[0] == {"a": "uploaded"}
    _rename(outbound, "a", "b")
    said, error = run(if_duplicate="send")
    assert said == {"b": "unknown"}
    assert "if_unknown='resend' with if_duplicate='send' sends it again" in " ".join(str(error).split())
    assert _accepted(amili_sandbox) == {"a": 1, "b": 1}
    assert run(if_duplicate="send", if_unknown="resend")[0] == {"b": "uploaded"}
    assert run(if_duplicate="send")[0] == {"b": "already_uploaded"}


def test_what_was_refused_is_refused_for_every_name_and_accepted_bytes_stay_duplicates(
    run: Run, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Amili refuses bytes; a duplicate is no refusal: it stays where it is, whatever else becomes of the run."""
    _write(outbound, a=b"REJECT: no such debtor\n", b=b"REJECT: no such debtor\n", c=b"fine", d=b"fine")
    said, error = run(reject_to=f"{tmp_path}/refused/", archive_to=f"{tmp_path}/archive/")
    assert said == {"a": "rejected", "b": "rejected", "c": "uploaded", "d": "duplicate"}
    assert isinstance(error, AmiliUploadRejected)
    assert [path.name for path in outbound.iterdir()] == ["d.csv"]


def test_force_sends_what_was_accepted_before_under_whatever_name_and_not_twice_in_one_run(
    run: Run, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """It sets aside what earlier runs did; its retry, and a second file of the same run, are as without it."""
    _write(outbound, a=b"same")
    run()
    _rename(outbound, "a", "b")
    forced = FakeTaskInstance(run_id="forced", max_tries=2)
    assert run(forced, force=True) == ({"b": "uploaded"}, None)
    assert run(forced, force=True) == ({"b": "already_uploaded"}, None)
    assert run()[0] == {"b": "already_uploaded"}
    _write(outbound, a=b"same")
    cleared = FakeTaskInstance(run_id="forced", max_tries=5)
    assert run(cleared, force=True)[0] == {"a": "uploaded", "b": "duplicate"}
    assert run(cleared, force=True, if_duplicate="send")[0] == {"a": "already_uploaded", "b": "uploaded"}
    assert run(cleared, force=True, if_duplicate="send") == ({"a": "already_uploaded", "b": "already_uploaded"}, None)
    assert _accepted(amili_sandbox) == {"a": 2, "b": 2}


def test_a_dry_run_says_what_would_be_a_duplicate(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """Of an earlier run or of this one, in each mode; nothing is sent."""
    from airflow.providers.common.compat.sdk import AirflowSkipException

    _write(outbound, a=b"same")
    upload()
    _rename(outbound, "a", "b")
    _write(outbound, c=b"new", d=b"new")
    expected = {
        "fail": ("would be duplicate: ", "would be sent", "would be duplicate: "),
        "skip": ("if_duplicate='skip'", "would be sent", "would be already_uploaded: "),
        "send": ("would be sent",) * 3,
    }
    for if_duplicate, parts in expected.items():
        ti = FakeTaskInstance()
        with pytest.raises(AirflowSkipException):
            upload(ti, if_duplicate=if_duplicate, dry_run=True)
        messages = [r["message"] for r in ti.pushed["return_value"]]
        assert all(part in message for part, message in zip(parts, messages, strict=True)), messages
    assert _accepted(amili_sandbox) == {"a": 1}


def test_a_changed_name_template_makes_duplicates_and_the_message_says_so(
    run: Run, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The name is the one that Amili got, not the file's."""
    _write(outbound, a=b"one", b=b"two")
    run(file_name="{{ file.name }}")
    said, error = run(file_name="x_{{ file.name }}")
    assert said == {"x_a": "duplicate", "x_b": "duplicate"}
    assert isinstance(error, AmiliDuplicateFiles)
    assert "file_name was changed" in " ".join(str(error).split())
    assert run(file_name="x_{{ file.name }}", if_duplicate="skip")[1] is None
    assert _accepted(amili_sandbox) == {"a": 1, "b": 1}


def test_results_of_a_second_name_are_asked_for_by_its_own_id(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Amili gets another fileId for the second name, so that each has a result of its own."""
    _write(outbound, a=b"same", b=b"same")
    receipts = upload(if_duplicate="send")
    amili_sandbox.results.set(receipts[1]["file_id"], Step("FAILED", "REJECTED", "second one refused later"))
    assert receipts[0]["file_id"] != receipts[1]["file_id"]
    assert {u.name: u.file_id for u in amili_sandbox.uploads} == {r["name"]: r["file_id"] for r in receipts}


def test_an_unwritten_outcome_stops_the_second_name(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that could not be told of the first name would not know why the second has an identity of its own."""
    _write(outbound, a=b"same", b=b"same")
    monkeypatch.setattr("amili_provider.ledger.ledger.SETTLE_SECONDS", 0.0)
    ti = FakeTaskInstance()
    with taking_no_outcome(new_ledger(tmp_path)), pytest.raises(AmiliOutcomeUnknown):
        upload(ti, if_duplicate="send")
    assert _said(ti.pushed["return_value"]) == {"a": "uploaded", "b": "not_sent"}
    assert _accepted(amili_sandbox) == {"a": 1}
