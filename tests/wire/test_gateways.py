"""What stands before Amili is not Amili: its answers are no verdict on a file, and one file's trouble is no other's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amili_provider.connection.fields import MOST_FILES_PER_REQUEST
from amili_provider.delivery import item
from amili_provider.delivery.item import UNKNOWN_REQUESTS
from amili_provider.exceptions import (
    AmiliDeliveryFailed,
    AmiliDeliveryIncomplete,
    AmiliPermanentError,
    AmiliRequestError,
    AmiliUploadRejected,
)
from amili_provider.hooks.amili import AmiliHook
from amili_provider.operators.amili import AmiliFileUploadOperator
from tests.ledgers import new_ledger
from tests.wire.conftest import FakeTaskInstance
from tests.wire.rawserver import Conversation, RawServer, whole_answer

PAGE = b"<!doctype html><title>Request blocked</title>"
Files = list[dict[str, Any]]


def accepted(files: Files, **more: Any) -> bytes:
    """Accept everything."""
    done = {"status": "PROCESSED", "result": "CREATED", **more}
    return whole_answer(200, {"status": "PROCESSED", "files": [{"fileId": f["fileId"], **done} for f in files]})


class Before:
    """
    A server that answers each upload with what *judge* says of its files, and remembers what it accepted.

    :param judge: the answer; None accepts all.
    """

    def __init__(self, judge: Callable[[Files], bytes | None]) -> None:
        self._judge = judge
        self.requests: list[list[str]] = []
        self.accepted: Counter[str] = Counter()

    def __call__(self, talk: Conversation) -> None:
        """Play one connection."""
        talk.read_head()
        content = talk.read_body()
        if len(content) < talk.length:
            return  # cut before its tail
        files = json.loads(content)["files"]
        self.requests.append([file["name"] for file in files])
        reply = self._judge(files)
        if reply is None:
            self.accepted.update(self.requests[-1])
        talk.send(reply or accepted(files))


@contextmanager
def _amili(judge: Callable[[Files], bytes | None], folder: Path, **extra: Any) -> Iterator[Before]:
    before = Before(judge)
    with RawServer(otherwise=before) as server, pytest.MonkeyPatch.context() as patched:
        extras = {"access_token": "t", "client_no": "2218", "ledger": new_ledger(folder), "answer_timeout": 10}
        connection = {"conn_type": "amili", "host": server.url, "extra": {**extras, **extra}}
        patched.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
        yield before


def _upload(
    folder: Path, run_id: str = "first", **arguments: Any
) -> tuple[dict[str, dict[str, Any]], Exception | None]:
    """Run the operator; return the receipts by name, and what it failed with."""
    ti = FakeTaskInstance(run_id=run_id)
    arguments = {"file_type": "InvoiciaFormatDocFile", "max_concurrent_requests": 1, **arguments}
    operator = AmiliFileUploadOperator(task_id="upload", source=f"{folder}/out/*", **arguments)
    try:
        receipts, failure = operator.execute({"ti": ti}), None  # type: ignore[typeddict-item]
    except Exception as error:  # noqa: BLE001 - the test looks at it
        receipts, failure = ti.pushed["return_value"], error
    return {r["name"]: r for r in receipts}, failure


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


def _write(folder: Path, *names: str, size: int = 1) -> None:
    for name in names:
        (folder / "out" / name).write_bytes(name.encode() * size)


def _outcomes(receipts: dict[str, dict[str, Any]]) -> Counter[str]:
    return Counter(r["outcome"] for r in receipts.values())


def test_a_firewall_that_dislikes_one_name_does_not_end_the_run(folder: Path) -> None:
    """Its page costs one file, for good and every day; the others are delivered, and nothing is moved."""
    bad = "O'Hara' or 1=1.csv"
    _write(folder, bad, *(f"{n:02}.csv" for n in range(10)))
    (folder / "refused").mkdir()

    def judge(files: Files) -> bytes | None:
        return whole_answer(403, PAGE) if any(f["name"] == bad for f in files) else None

    with _amili(judge, folder, max_files_per_request=2) as amili:
        receipts, failure = _upload(folder, reject_to=f"{folder}/refused/")
        assert _outcomes(receipts) == {"uploaded": 10, "not_sent": 1}
        assert "Refused by what stands before Amili" in receipts[bad]["message"]
        assert isinstance(failure, AmiliDeliveryFailed)
        again, _ = _upload(folder, "second", reject_to=f"{folder}/refused/")
    assert _outcomes(again) == {"already_uploaded": 10, "not_sent": 1}
    assert set(amili.accepted.values()) == {1}
    assert (folder / "out" / bad).exists()
    assert not list((folder / "refused").iterdir())


def test_a_gateways_limit_is_no_verdict_on_a_file(folder: Path) -> None:
    """A body that is too large for it: the file stays where it is, and says whose limit it was; the others arrive."""
    _write(folder, "a.csv", "b.csv", "c.csv")
    _write(folder, "big.csv", size=20_000)
    (folder / "refused").mkdir()

    def judge(files: Files) -> bytes | None:
        return whole_answer(413, PAGE) if len(json.dumps(files)) > 50_000 else None

    with _amili(judge, folder) as amili:
        receipts, failure = _upload(folder, reject_to=f"{folder}/refused/")
    assert _outcomes(receipts) == {"uploaded": 3, "not_sent": 1}
    assert "Refused by what stands before Amili" in receipts["big.csv"]["message"]
    assert "too large for it" in receipts["big.csv"]["message"]
    assert isinstance(failure, AmiliPermanentError)
    assert amili.accepted == {"a.csv": 1, "b.csv": 1, "c.csv": 1}
    assert (folder / "out" / "big.csv").exists()
    assert not list((folder / "refused").iterdir())


def test_a_gateway_that_lets_nothing_through_is_not_asked_for_each_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong base path is answered with a page for everything: soon nobody looks for the one bad file any more."""
    monkeypatch.setattr(item, "REFUSED_FILES", 10)
    _write(folder, *(f"{n:03}.csv" for n in range(200)))
    with _amili(lambda _: whole_answer(404, PAGE), folder, max_files_per_request=50) as amili:
        receipts, failure = _upload(folder)
    assert _outcomes(receipts) == {"not_sent": 200}
    assert all("check 'Base path'" in r["message"] for r in receipts.values())
    assert isinstance(failure, AmiliPermanentError)
    assert len(amili.requests) < 40
    assert "each alone" in receipts["199.csv"]["message"]
    assert {name for request in amili.requests for name in request} == set(receipts)


def test_files_that_a_gateway_refuses_do_not_hide_those_that_it_lets_through(folder: Path) -> None:
    """Many of the first are refused, and share a request with others: each of those is accepted once."""
    bad, good = [f"a{n:02}.csv" for n in range(30)], [f"b{n}.csv" for n in range(8)]
    _write(folder, *bad, *good)

    def judge(files: Files) -> bytes | None:
        return whole_answer(403, PAGE) if any(f["name"].startswith("a") for f in files) else None

    with _amili(judge, folder, max_files_per_request=4) as amili:
        receipts, _ = _upload(folder)
    assert {name for name, r in receipts.items() if r["outcome"] == "uploaded"} == set(good)
    assert set(amili.accepted.values()) == {1}


@pytest.mark.parametrize("status", [400, 405, 413, 415, 422])
@pytest.mark.parametrize("named", [False, True])
def test_one_file_that_amili_refuses_is_found_whatever_the_code(folder: Path, status: int, named: bool) -> None:
    """Named or not, it alone is rejected; the claims of the others are given back before they are sent again."""
    _write(folder, *(f"{n}.csv" for n in range(7)))

    def judge(files: Files) -> bytes | None:
        bad = [
            {"fileId": f["fileId"], "status": "FAILED", "message": "no such debtor"}
            for f in files
            if f["name"] == "5.csv"
        ]
        return whole_answer(status, {"message": "no such debtor", "files": bad if named else []}) if bad else None

    with _amili(judge, folder) as amili:
        receipts, failure = _upload(folder)
    assert _outcomes(receipts) == {"uploaded": 6, "rejected": 1}
    assert "no such debtor" in receipts["5.csv"]["message"]
    assert isinstance(failure, AmiliUploadRejected)
    assert set(amili.accepted.values()) == {1}
    assert len(amili.requests) == 2 if named else len(amili.requests) <= 7


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_bad_hour_does_not_make_everything_unknown(folder: Path, at_once: int) -> None:
    """After two requests in a row whose answer tells nothing, the rest is left for the retry, which repeats nothing."""
    _write(folder, *(f"{n:02}.csv" for n in range(20)))
    down = True

    def judge(_: Files) -> bytes | None:
        return whole_answer(503, PAGE, {"Retry-After": "0"}) if down else None

    with _amili(judge, folder, max_files_per_request=1) as amili:
        receipts, failure = _upload(folder, max_concurrent_requests=at_once)
        unknown = _outcomes(receipts)["unknown"]
        assert UNKNOWN_REQUESTS <= unknown <= UNKNOWN_REQUESTS + at_once - 1
        assert _outcomes(receipts) == {"unknown": unknown, "not_sent": 20 - unknown}
        assert len(amili.requests) == unknown
        assert isinstance(failure, AmiliDeliveryIncomplete)
        down = False
        again, failure = _upload(folder, "second", max_concurrent_requests=at_once)
    assert _outcomes(again) == {"unknown": unknown, "uploaded": 20 - unknown}
    assert isinstance(failure, AmiliPermanentError)


def test_answers_that_are_lost_now_and_then_stop_nothing(folder: Path) -> None:
    """Every other answer tells nothing: with an acceptance between, every file is tried."""
    _write(folder, *(f"{n}.csv" for n in range(9)))
    numbers = iter(range(9))

    def judge(_: Files) -> bytes | None:
        return None if next(numbers) % 2 else whole_answer(502, PAGE)

    with _amili(judge, folder, max_files_per_request=1) as amili:
        receipts, _ = _upload(folder)
    assert _outcomes(receipts) == {"unknown": 5, "uploaded": 4}
    assert len(amili.requests) == 9


def test_a_bad_hour_ends_the_search_for_a_bad_file_too(folder: Path) -> None:
    """Halving a refused request meets answers that are lost: two of them, and the rest of its files is left."""
    _write(folder, *(f"{n}.csv" for n in range(16)))

    def judge(files: Files) -> bytes | None:
        return whole_answer(422, {"message": "bad"}) if len(files) > 2 else whole_answer(500, {})

    with _amili(judge, folder):
        receipts, failure = _upload(folder)
    assert _outcomes(receipts) == {"unknown": 4, "not_sent": 12}
    assert isinstance(failure, AmiliDeliveryIncomplete)


def test_the_hook_sends_no_more_after_an_answer_that_tells_nothing(folder: Path) -> None:
    """The receipts say what is unknown, and what was not tried."""
    with _amili(lambda _: whole_answer(200, PAGE), folder, max_files_per_request=1) as amili, AmiliHook() as hook:
        with pytest.raises(AmiliPermanentError) as caught:
            hook.upload_files([(f"{n}.csv", b"1") for n in range(3)], "Type")
        assert [r["outcome"] for r in caught.value.receipts] == ["unknown", "not_sent", "not_sent"]  # type: ignore[attr-defined]
        assert len(amili.requests) == 1


def test_the_hook_calls_a_gateway_a_gateway(folder: Path) -> None:
    """Nothing was accepted, and it is no refusal by Amili."""
    with (
        _amili(lambda _: whole_answer(403, PAGE), folder),
        AmiliHook() as hook,
        pytest.raises(AmiliRequestError, match="Refused by what stands before Amili"),
    ):
        hook.upload_files([("a.csv", b"1")], "Type")


def test_the_answer_to_the_largest_request_can_be_read(folder: Path) -> None:
    """As many files as a connection may allow in one request, each with as long a message as is ever shown."""
    message = "Dokumentet er mottatt; " + "\N{LATIN SMALL LETTER O WITH STROKE}" * 200
    with _amili(lambda files: accepted(files, message=message), folder, max_files_per_request=5000) as amili:
        receipts = AmiliHook().upload_files([(f"{n}.csv", b"1") for n in range(MOST_FILES_PER_REQUEST)], "Type")
    assert Counter(r["outcome"] for r in receipts) == {"uploaded": MOST_FILES_PER_REQUEST}
    assert len(amili.requests) == 1


def test_a_request_of_more_files_is_a_wrong_setting(folder: Path) -> None:
    """Its answer could not be read, so that all would be unknown: nothing is sent."""
    _write(folder, "a.csv")
    with _amili(lambda _: None, folder, max_files_per_request=MOST_FILES_PER_REQUEST + 1) as amili:
        ti = FakeTaskInstance()
        operator = AmiliFileUploadOperator(task_id="upload", source=f"{folder}/out/*", file_type="Type")
        with pytest.raises(ValueError, match=r"(?s)'Files per request'.* is 5001; write a whole number of at"):
            operator.execute({"ti": ti})  # type: ignore[typeddict-item]
    assert amili.requests == []
