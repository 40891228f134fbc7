"""Judging Amili's answers: never more than they say."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amili_provider.api.results import (
    Meaning,
    UnreadableAnswer,
    Vocabulary,
    parse_verdicts,
    read_message,
    read_upload_answer,
    without_content,
)
from amili_provider.api.upload import takes_something
from amili_provider.receipts import Outcome, Verdict, escaped, one_line, unescaped

WORDS = Vocabulary()


def _judge(answer: Any, *ids: str, vocabulary: Vocabulary = WORDS) -> dict[str, Verdict]:
    return parse_verdicts(read_upload_answer(json.dumps(answer).encode()), ids or ("f1",), vocabulary)


def _entry(
    status: Any = "PROCESSED", result: Any = "CREATED", file_id: Any = "f1", message: Any = "m"
) -> dict[str, Any]:
    return {"fileId": file_id, "status": status, "result": result, "message": message}


def test_documented_answer_is_accepted() -> None:
    """The example of the API's page means uploaded."""
    answer = {
        "status": "PROCESSED",
        "result": "CREATED",
        "message": "File(s) uploaded",
        "clientNo": 2218,
        "files": [{"fileId": "File001", "status": "PROCESSED", "result": "CREATED", "message": "File uploaded"}],
    }
    assert _judge(answer, "File001") == {
        "File001": Verdict(Outcome.UPLOADED, "PROCESSED", "CREATED", "File uploaded", per_file=True)
    }


@pytest.mark.parametrize(
    ("status", "result", "outcome"),
    [
        ("processed", " Created ", Outcome.UPLOADED),
        ("PROCESSED", "FAILED", Outcome.REJECTED),
        ("failed", None, Outcome.REJECTED),
        ("PROCESSED", "BATCH-REJECTED", Outcome.REJECTED),
        ("PROCESSED", None, Outcome.UNKNOWN),
        ("PROCESSED", "UPDATED", Outcome.UNKNOWN),
        ("QUEUED", "PENDING", Outcome.UNKNOWN),
        ("CREATED", "PROCESSED", Outcome.UNKNOWN),
        (200, 1, Outcome.UNKNOWN),
        ({"a": 1}, ["CREATED"], Outcome.UNKNOWN),
    ],
)
def test_words_are_compared_without_case_and_nothing_is_guessed(status: Any, result: Any, outcome: Outcome) -> None:
    """Only the documented pair is accepted, only known words refuse, all else is unknown."""
    assert _judge({"files": [_entry(status, result)]})["f1"].outcome is outcome


def test_missing_file_is_unknown() -> None:
    """A file that the answer does not name is not accepted, whatever the whole says."""
    verdicts = _judge({"status": "PROCESSED", "result": "CREATED", "files": [_entry()]}, "f1", "f2")
    assert verdicts["f1"].outcome is Outcome.UPLOADED
    assert verdicts["f2"].outcome is Outcome.UNKNOWN
    assert not verdicts["f2"].per_file


def test_two_verdicts_for_one_file_are_unknown() -> None:
    """An answer that contradicts itself is believed in neither half."""
    verdict = _judge({"files": [_entry(), _entry(result="FAILED")]})["f1"]
    assert verdict.outcome is Outcome.UNKNOWN
    assert "contradicts" in str(verdict.message)


def test_a_whole_that_refuses_over_files_that_accept_is_unknown() -> None:
    """The two levels must not disagree."""
    assert _judge({"status": "FAILED", "files": [_entry()]})["f1"].outcome is Outcome.UNKNOWN
    assert _judge({"status": "FAILED", "files": [_entry("FAILED")]})["f1"].outcome is Outcome.REJECTED
    assert _judge({"status": "PARTIAL", "files": [_entry()]})["f1"].outcome is Outcome.UPLOADED


@pytest.mark.parametrize("files", [None, {}, "f1", 7, {"f1": _entry()}, [None, 1, "x", [], {}, {"fileId": None}]])
def test_files_of_another_shape_are_unknown(files: Any) -> None:
    """A list that is not one, or holds none of ours, accepts nothing."""
    assert _judge({"status": "PROCESSED", "result": "CREATED", "files": files})["f1"].outcome is Outcome.UNKNOWN


def test_numeric_file_ids_are_matched_as_text() -> None:
    """An id echoed as a number is still that id."""
    assert _judge({"files": [_entry(file_id=17)]}, "17")["17"].outcome is Outcome.UPLOADED


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b"<html>ok</html>", b"[1]", b'"PROCESSED"', b"{", b"NaN", b"[" * 100_000]
)
def test_unreadable_answers_say_so(body: bytes) -> None:
    """Nothing but a JSON object is an answer."""
    with pytest.raises(UnreadableAnswer):
        read_upload_answer(body)


def test_vocabulary_is_configurable() -> None:
    """A client whose Amili says other words sets them on the connection."""
    words = Vocabulary(accepted=("DONE/OK", "STORED"), refused=("NOPE",))
    assert words.meaning("done", "ok") is Meaning.ACCEPTED
    assert words.meaning(None, "stored") is Meaning.ACCEPTED
    assert words.meaning("DONE", "x") is Meaning.UNCLEAR
    assert words.meaning("stored", "nope") is Meaning.REFUSED


@pytest.mark.parametrize("refusal", ["FAILED", "rejected", "ERROR", "Invalid", "BATCH-REJECTED"])
@pytest.mark.parametrize("accepted", [("PROCESSED",), ("FAILED", "REJECTED", "ERROR", "INVALID", "BATCH-REJECTED")])
def test_own_words_take_no_refusal_away(refusal: str, accepted: tuple[str, ...]) -> None:
    """Words of one's own are added to the refusals that always count, and none can be made to mean accepted."""
    words = Vocabulary(accepted=accepted, refused=("DENIED",))
    for status, result in ((refusal, None), (None, refusal), ("PROCESSED", refusal), (refusal, "CREATED")):
        assert words.meaning(status, result) is Meaning.REFUSED
    assert words.meaning("PROCESSED", "DENIED") is Meaning.REFUSED


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["PROCESSED", "CREATED", "FAILED", "f1", "fileId", "files", "status", "result"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["files", "fileId", "status", "result", "message", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


def _accepts(answer: Any) -> bool:
    """Say, in another way than the code does, whether an answer accepts f1."""
    if not isinstance(answer, dict) or not isinstance(answer.get("files"), list):
        return False
    mine = [
        e
        for e in answer["files"]
        if isinstance(e, dict) and isinstance(e.get("fileId"), str) and e["fileId"].strip().lower() == "f1"
    ]
    return bool(mine) and all(
        str(e.get("status")).strip().upper() == "PROCESSED" and str(e.get("result")).strip().upper() == "CREATED"
        for e in mine
    )


def _grown(rng: random.Random, depth: int = 0) -> Any:
    """Return a random answer, near enough to a real one to be dangerous."""
    kind = rng.randrange(10) if depth < 4 else rng.randrange(5)
    words = ("PROCESSED", "CREATED", "FAILED", "processed", "created ", "f1", " F1", "", "QUEUED", "f2", "\x00")
    if kind < 4:
        return rng.choice(words)
    if kind == 4:
        return rng.choice((None, True, False, 0, -1, 17, 2**70, 1.5, [], {}))
    if kind < 7:
        return [_grown(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ("files", "fileId", "status", "result", "message", "clientNo")
    return {key: _grown(rng, depth + 1) for key in keys if rng.random() < 0.7}


def test_thousands_of_random_answers_are_never_accepted_by_accident() -> None:
    """Twenty thousand malformed answers, the same at every run; some of them do accept, so the test can fail."""
    rng = random.Random(2218)
    answers = [{"files": _grown(rng)} if rng.random() < 0.6 else _grown(rng) for _ in range(20_000)]
    entry = {"fileId": "f1", "status": "PROCESSED", "result": "CREATED"}
    answers += [{"files": [dict(entry, **{rng.choice(list(entry)): _grown(rng)})]} for _ in range(2_000)]
    accepted = sum(_check(answer) for answer in answers)
    assert accepted > 10


@settings(max_examples=300, deadline=None)
@given(answer=_JSON)
def test_random_answers_are_never_accepted_by_accident(answer: Any) -> None:
    """Malformed answers of any shape: only documented errors, and accepted only where every entry says so."""
    _check(answer)


def _check(answer: Any) -> bool:
    """Judge an answer; return whether it accepts f1, which it must say itself."""
    try:
        verdict = _judge(answer)["f1"]
    except UnreadableAnswer:
        assert not isinstance(answer, dict)
        return False
    if verdict.outcome is Outcome.UPLOADED:
        assert _accepts(answer)
    return verdict.outcome is Outcome.UPLOADED


def test_their_words_become_one_safe_line() -> None:
    """Control characters go, national ids are masked, length is bounded."""
    assert one_line("a\r\nb\x00\u202ec\td") == "a b c d"
    assert one_line("fnr 01017012345, kid 010170123456") == "fnr ***********, kid 010170123456"
    assert len(one_line("x" * 10_000_000)) == 300


@pytest.mark.parametrize(
    "written",
    [
        "01019012345",
        "010190 12345",
        "010190\xa012345",
        "010190\u202f12345",
        "010190-12345",
        "010190\u201112345",
        "010190 - 12345",
        "010190\u201312345",
        "010190.12345",
        "010190/12345",
        "010190_12345",
        "010190 123 45",
        "01.01.90 12345",
        "01.01.90-12345",
        "01 01 90 12345",
        "01-01-90-12345",
        "01/01/90 12345",
        "01.01.1990 12345",
        "01.01.2003 12345",
        "10042_01.01.90 12345",
        "7042-01.01.1990 12345",
        "2026/01.01.90 12345",
        "410190 12345",  # a D-number
        "014190 12345",  # an auxiliary number
        "018190 12345",  # a made-up person
    ],
)
@pytest.mark.parametrize(
    "around",
    ["fnr {} is wrong", "{}", "row 1:{},{}.", "kvittering_{}.pdf", "nr.7-{}", f"{'ab8' * 10}01_{{}}", "7042;{}"],
)
def test_a_national_id_is_masked_however_people_write_it(written: str, around: str) -> None:
    """No form in which people write a national id survives, whatever stands around it."""
    shown = one_line(around.replace("{}", written))
    assert not any(part in shown for part in ("010190", "410190", "014190", "018190", "90", "123"))
    assert "***********" in shown


@pytest.mark.parametrize(
    "words",
    [
        "invoice 123456-78901 of customer 543210",  # no month is the 34th
        "invoices 1001234, 1001235 and 2025-10-12345",
        "amount 110190.50, 12 345 678,90 and 12.345.678",
        "due 01.01.2025 12345 kr",
        "due 01.01.90 12345,50 kr",
        "2025-01-10 1234567",
        "faktura_2025-01-10-1234567.csv",
        "2025-01-10T12:34:56.12345Z",
        "12.10.2025 12:34:56",
        "kid 010170123456, account 9 digits 123456785",
        "port 22 33 44 55 of 10.12.25.130:12345",
        "invoices_20250110_12345.csv",
        "invoices_221126_12345" + "abc" * 9,
        "run manual 22.11.26 12345" + "abc" * 9,
        "file 9bd56e089199b2fa01019012345b7298 with the hash " + "01019012345c" * 2 + "f" * 40 + ".",
    ],
)
def test_other_numbers_stay_readable(words: str) -> None:
    """Numbers of invoices, amounts, dates and times are not taken for national ids."""
    assert one_line(words) == words


@pytest.mark.parametrize("written", ["01019012345", "010190 12345", "01.01.90 12345"])
def test_no_national_id_is_shown_in_part(written: str) -> None:
    """Where a long text is cut, no part of an id is left at its end."""
    for before in range(300 * 4 + 64 - len(written), 300 * 4 + 64 + 2):
        shown = one_line("x" + " " * (before - 1) + written + " and more of it" * 100)
        assert not any(digit in shown for digit in "0123459")


ONE, TWO = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    "answer",
    [
        {"results": {ONE: "PROCESSED/CREATED", TWO: "FAILED"}},
        {"results": {ONE.upper(): {"state": "stored"}, TWO: {"status": "FAILED"}}},
        {"results": {"0.csv": "OK", "1.csv": "FAILED"}},
        {"accepted": [ONE], "rejected": [TWO]},
        {"accepted": ["0.csv"], "rejected": ["1.csv"]},
        {"accepted": ONE, "rejected": TWO},
        {"status": "FAILED", "accepted": [ONE]},
        {"status": "FAILED", "results": {ONE: "OK"}},
        {"errors": [{"id": TWO, "others": [ONE]}]},
        {"files": [{"id": ONE, "status": "ACCEPTED"}]},
        {"files": [{"name": "0.csv", "status": "OK"}, {"name": "1.csv", "status": "FAILED"}]},
        {"files": [{"file": {"id": ONE}, "status": "FAILED"}]},
        {"fileId": [ONE]},
        {"state": "PROCESSED"},
        {"state": ["processed/created"]},
        {"outcome": "QUEUED"},
        {"outcome": "partially_done"},
        {"processed": 1, "failed": 1},
        {"status": "ACCEPTED"},
        {"success": True},
    ],
    ids=str,
)
def test_what_names_a_file_or_takes_it_in_any_shape_may_have_taken_it(answer: Any) -> None:
    """An id, a name or a word that takes counts wherever it stands, unless something there refuses it."""
    assert takes_something(json.dumps(answer).encode(), WORDS, (ONE, TWO, "0.csv", "1.csv"))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"message": f"File {ONE} (0.csv) could not be processed"},
        {"status": "PROCESSED", "result": "FAILED", "files": [{"fileId": ONE, "status": "failed", "name": "0.csv"}]},
        {"files": [{"id": ONE, "Status": "PROCESSED", "Result": "FAILED"}, {"name": "1.csv", "status": "REJECTED"}]},
        {"results": {ONE: "FAILED", TWO: "PROCESSED/FAILED", "0.csv": {"status": "INVALID"}}},
        {"rejected": [ONE, "1.csv"], "success": False, "created": "2026-11-27T10:00:00Z", "processed": 0},
        {"errors": {ONE: ["is no base64"], "1.csv": "is too large"}},
        {"errors": [{"file": "0.csv", "message": "is no base64"}]},
        {"title": "Bad", "status": 422, "errors": {"files[0].content": ["is no base64"]}},
        {"message": "no", "others": ["c" * 32, "2.csv"]},
    ],
    ids=str,
)
def test_a_refusal_takes_nothing(answer: Any) -> None:
    """Sentences, refused files, and ids that are not of the request leave a refusal what it is."""
    assert not takes_something(json.dumps(answer).encode(), WORDS, (ONE, TWO, "0.csv", "1.csv"))


def test_an_echo_of_the_request_shows_no_content() -> None:
    """Base64 of some length is masked in every word of an answer; hashes, ids, names and addresses stay readable."""
    content = base64.b64encode(b"Kari Nordmann;Storgata 1;0155 Oslo;1250.00;2026-11-27").decode()
    echo = f'{{"name": "0.csv", "content": "{content}", "fileId": "{ONE}"}}'
    shown = f'{{"name": "0.csv", "content": "***", "fileId": "{ONE}"}}'
    verdict = _judge({"files": [_entry(echo, ["CREATED", content], message=echo)]})["f1"]
    assert (verdict.status, verdict.result) == (shown, "['CREATED', '***']")
    assert read_message(json.dumps({"message": echo}).encode()) == shown
    assert without_content(base64.b64encode(b"Kari Nordmann;" * 10_000).decode()) == "***"
    for readable in (
        f"sha256={'0123456789abcdef' * 4}",
        "ABCDEF0123456789" * 4,
        f"/arm/v1/clients/2218/files/{ONE}/{TWO}",
        "Invoices_Of_Customer_2218_For_November_2026_And_Some_More_Words-v2.csv",
        "https://api.staging.amili.no/arm/v1/clients/2218/Files/InvoiciaFormatDocFile",
    ):
        assert without_content(readable) == readable


def test_error_answers_show_only_a_message() -> None:
    """A page that repeats what was sent is not shown."""
    assert read_message(b'{"message": "bad\\nclient"}') == "bad client"
    assert read_message(b'{"content": "c2VjcmV0"}') == "the answer has no message"
    assert read_message(b"secret") == "the answer is not JSON"
    assert read_message(b"\xef\xbb\xbf \n<html>secret</html>") == "the answer is a page (HTML or XML), not JSON"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("å%20 [1].csv", "å%20 [1].csv"),
        ("a\nINFO b\x1b[2K.csv", r"a\x0aINFO b\x1b[2K.csv"),
        ("faktura\udce6.csv", r"faktura\xe6.csv"),
        ("a\u00ad\u202e\x85\ud800\U000e0041", r"a\u00ad\u202e\u0085\ud800\U000e0041"),
        ("in\\dir\\a.csv", r"in\dir\a.csv"),
        (r"a\x0a.csv", r"a\x5cx0a.csv"),
    ],
)
def test_a_name_is_shown_as_one_line_that_means_it_alone(name: str, shown: str) -> None:
    """Escapes stand for what cannot be seen, a byte is told from a character, and nothing else changes."""
    assert escaped(name) == shown
    assert unescaped(shown) == name


@given(st.text(st.characters() | st.sampled_from("\\xuU0aed\n\x1b\u200b\udce6\udc0a\ud800")))
def test_no_two_names_are_shown_alike(name: str) -> None:
    """What is shown can be sent, stays on its line, and gives back the name."""
    shown = escaped(name)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert unescaped(shown) == name
