"""Answers from hell to an upload, against a whole task: nothing is sent twice, and green is only what was accepted."""

from __future__ import annotations

import functools
import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from amili_provider.api import transport
from amili_provider.exceptions import AmiliError
from amili_provider.hooks.amili import AmiliHook
from amili_provider.operators.amili import AmiliFileUploadOperator
from tests.ledgers import new_ledger
from tests.wire.conftest import FakeTaskInstance
from tests.wire.rawserver import Conversation, RawServer, head, whole_answer

Ids = list[str]
Reply = Callable[[Ids], bytes]
UNKNOWN, UPLOADED, REJECTED, NOT_SENT = "unknown", "uploaded", "rejected", "not_sent"
PAGE = b"<!doctype html><title>Log in</title>"


def entry(file_id: str, status: Any = "PROCESSED", result: Any = "CREATED", **more: Any) -> dict[str, Any]:
    """Return a result of one file."""
    return {"fileId": file_id, "status": status, "result": result, **more}


def results(code: int = 200, whole: Any = "PROCESSED", **words: Any) -> Reply:
    """Return an answer that names every file, in these words."""
    return lambda ids: whole_answer(code, {"status": whole, "files": [entry(i, **words) for i in ids]})


def body(status: int, content: Any, **headers: str) -> Reply:
    """Return an answer of which the request's files are no part."""
    return lambda _: whole_answer(status, content, {k.replace("_", "-"): v for k, v in headers.items()})


def entries(make: Callable[[Ids], Any], status: int = 200) -> Reply:
    """Return an answer whose ``files`` *make* makes."""
    return lambda ids: whole_answer(status, {"files": make(ids)})


def raw(first: bytes, *, body: Callable[[bytes], bytes] = lambda good: good) -> Reply:
    """Return an answer of these bytes, with *body* made of what would be a good one."""
    return lambda ids: first + body(json.dumps({"files": [entry(i) for i in ids]}).encode())


def chunked(good: bytes, end: bytes = b"\r\n0\r\n\r\n") -> bytes:
    """Return a body in one chunk."""
    return b"%x;a=b\r\n" % len(good) + good + end


def _behind_it(behind: bytes, good: bytes) -> bytes:
    return gzip.compress(good) + behind


def unreadable(code: int, change: Callable[[bytes], bytes]) -> Case:
    """Return a refusal that accepts the first of two files, changed so that it cannot be read."""
    good = functools.partial(json.dumps, ensure_ascii=False)
    answer: Reply = lambda ids: whole_answer(  # noqa: E731 - one of many
        code, change(good({"files": [entry(ids[0]), entry(ids[1], "FAILED", message="Blåbærsyltetøy")]}).encode())
    )
    return Case(answer, f"{UNKNOWN} {UNKNOWN}", files=2)


def taken(code: int, make: Callable[[Ids], Any]) -> Case:
    """Return a refusal that may take something of two files, in words or a shape of its own."""
    return Case(lambda ids: whole_answer(code, make(ids)), f"{UNKNOWN} {UNKNOWN}", files=2)


def first_only(ids: Ids) -> list[dict[str, Any]]:
    """Name the first file of several."""
    return [entry(ids[0])]


@dataclass(frozen=True)
class Case:
    """
    An answer.

    :param reply: bytes for the ids of the request.
    :param outcomes: of each file in turn; one for all if there is one.
    :param words: what the first failed file's message says.
    :param files: how many.
    :param then: bytes sent again and again, until nobody takes them any more.
    :param pause: seconds between these.
    :param reset: end the connection without a farewell.
    :param before: answer after so many bytes of the request, instead of after the whole.
    :param interim: send 100 before anything of the request's body is read.
    :param wholes: how often the server may get a whole request of one file in the first run.
    :param extras: of the connection.
    """

    reply: Reply
    outcomes: str = UNKNOWN
    words: str = ""
    files: int = 1
    then: bytes = b""
    pause: float = 0.0
    reset: bool = False
    before: int | None = None
    interim: bool = False
    wholes: int = 1
    extras: dict[str, Any] = field(default_factory=dict)


def _endless(first: bytes, then: bytes, pause: float = 0.001) -> Case:
    return Case(lambda _: first, then=then, pause=pause, extras={"answer_timeout": 0.3}, words="did not answer")


OK, NO_LENGTH = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
PAST = {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}
COME_BACK = {"Retry_After": "90"}
ONE_NAMED = f"{UPLOADED} {UNKNOWN} {UNKNOWN}"

CASES: dict[str, Case] = {
    # How it comes over the wire.
    "100 before it": Case(raw(b"HTTP/1.1 100 Continue\r\n\r\n" + NO_LENGTH), UPLOADED),
    "102, 103 before it": Case(raw(b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + NO_LENGTH), UPLOADED),
    "100 and the end": Case(lambda _: b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints without end": _endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "a status line without end": _endless(b"HTTP/1.1 200 ", b"O"),
    "headers that trickle": _endless(OK + b"X: ", b"a", 0.02),
    "headers without end": Case(lambda _: OK + b"X-Header: " + b"a" * 1_000_000 + b"\r\n"),
    "a body that trickles": _endless(head(200, {"Content-Length": "9999"}), b" ", 0.02),
    "silence": Case(lambda _: b"", then=b"", pause=2.0, extras={"answer_timeout": 0.3}),
    "reset": Case(lambda _: b"", reset=True),
    "reset in the body": Case(raw(NO_LENGTH, body=lambda good: good[:30]), reset=True),
    "nothing and the end": Case(lambda _: b""),
    "not HTTP": Case(lambda _: b"SSH-2.0-OpenSSH_9.2\r\n"),
    "HTTP/2 without being asked": Case(raw(b"HTTP/2 200\r\n\r\n")),
    "HTTP/1.0": Case(raw(b"HTTP/1.0 200 OK\r\n\r\n"), UPLOADED),
    "a status of two digits": Case(raw(b"HTTP/1.1 20 OK\r\n\r\n")),
    "status 0": Case(raw(b"HTTP/1.1 000 OK\r\n\r\n")),
    "status 999": Case(raw(b"HTTP/1.1 999 OK\r\n\r\n")),
    "101": Case(raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")),
    "no length, closed": Case(raw(NO_LENGTH), UPLOADED),
    "no length, cut": Case(raw(NO_LENGTH, body=lambda good: good[:-5])),
    "more promised than sent": Case(raw(head(200, {"Content-Length": "9999"}))),
    "less promised than sent": Case(raw(head(200, {"Content-Length": "20"}))),
    "two lengths": Case(raw(OK + b"Content-Length: 20\r\nContent-Length: 9\r\n\r\n")),
    "a length and chunks": Case(
        raw(head(200, {"Content-Length": "5", "Transfer-Encoding": "chunked"}), body=chunked), UPLOADED
    ),
    "chunks": Case(raw(head(200, {"Transfer-Encoding": "chunked"}), body=chunked), UPLOADED),
    "chunks without their end": Case(
        raw(head(200, {"Transfer-Encoding": "chunked"}), body=lambda good: chunked(good, b"\r\n"))
    ),
    "a chunk that is too short": Case(raw(head(200, {"Transfer-Encoding": "chunked"}) + b"fff\r\n")),
    "packed in chunks twice": Case(raw(head(200, {"Transfer-Encoding": "gzip, chunked"}), body=chunked)),
    "packed": Case(raw(head(200, {"Content-Encoding": "gzip"}), body=gzip.compress), UPLOADED),
    "packed, cut": Case(raw(head(200, {"Content-Encoding": "gzip"}), body=lambda good: gzip.compress(good)[:-9])),
    "packed in two": Case(
        raw(
            head(200, {"Content-Encoding": "gzip"}),
            body=lambda good: gzip.compress(good[:20]) + gzip.compress(b"") + gzip.compress(good[20:]),
        ),
        UPLOADED,
    ),
    **{
        f"packed, then {what}": Case(
            raw(head(200, {"Content-Encoding": "gzip"}), body=functools.partial(_behind_it, behind))
        )
        for what, behind in {
            "a refusal": gzip.compress(b'{"status": "FAILED", "result": "REJECTED"}'),
            "a page": b"<html>error 500",
            "the beginning of more": b"\x1f\x8b\x08",
        }.items()
    },
    "422 packed, cut in its head": Case(lambda _: head(422, {"Content-Encoding": "gzip"}) + b"\x1f\x8b\x08"),
    "said to be packed": Case(raw(head(200, {"Content-Encoding": "gzip"}))),
    "packed as nobody asked": Case(raw(head(200, {"Content-Encoding": "zstd"}))),
    "a bomb": Case(
        raw(head(200, {"Content-Encoding": "gzip"}), body=lambda good: gzip.compress(b" " * 9_000_000 + good)),
        words="larger than 8 MiB",
    ),
    "9 MiB": Case(raw(NO_LENGTH + b" " * 9_000_000), words="larger than 8 MiB"),
    "a second answer behind it": Case(lambda ids: results()(ids) + whole_answer(500), UPLOADED),
    "a second answer that accepts": Case(lambda ids: body(500, {})(ids) + results()(ids)),
    # What it says.
    "201": Case(results(201), UPLOADED),
    "207": Case(results(207), UPLOADED),
    "accepted twice": Case(entries(lambda ids: [entry(i) for i in ids * 2]), UPLOADED),
    "in small letters": Case(results(status="processed", result=" created "), UPLOADED),
    "another client's number": Case(lambda ids: whole_answer(200, {"clientNo": 9, "files": [entry(ids[0])]}), UPLOADED),
    "id in capitals": Case(entries(lambda ids: [entry(ids[0].upper())]), UPLOADED),
    "id cut": Case(entries(lambda ids: [entry(ids[0][:31])]), words="does not name this file"),
    "id longer": Case(entries(lambda ids: [entry(ids[0] + "0")])),
    "another file's id": Case(entries(lambda _: [entry("0" * 32)])),
    "id in a list": Case(entries(lambda ids: [entry(ids)])),  # type: ignore[arg-type]
    "whole refused, file accepted": Case(results(whole="FAILED"), words="as a whole says FAILED"),
    "accepted and refused": Case(entries(lambda ids: [entry(ids[0]), entry(ids[0], "FAILED")]), words="contradicts"),
    "accepted and queued": Case(entries(lambda ids: [entry(ids[0]), entry(ids[0], "QUEUED", None)])),
    "queued": Case(results(status="QUEUED", result=None)),
    "without a result": Case(results(result=None)),
    "the wrong way round": Case(results(status="CREATED", result="PROCESSED")),
    "duplicate": Case(results(result="DUPLICATE"), words="words that are not known"),
    "true for words": Case(results(status=True, result=True)),
    "refused": Case(results(status="FAILED", result="REJECTED", message="no such debtor"), REJECTED, "no such debtor"),
    "refused, then accepted": Case(
        raw(NO_LENGTH, body=lambda good: good.replace(b'"status"', b'"status": "FAILED", "status"')),
        words="a name stands twice",
    ),
    "refused in a 207": Case(results(207, status="FAILED", result=None, message="no"), REJECTED),
    "no files": Case(body(200, {"status": "PROCESSED", "result": "CREATED"}), words="no 'files'"),
    "files is an object": Case(entries(lambda ids: {ids[0]: entry(ids[0])})),
    "files is text": Case(entries(lambda ids: json.dumps([entry(ids[0])]))),
    "files within files": Case(entries(lambda ids: [[entry(ids[0])]])),
    "a list": Case(lambda ids: whole_answer(200, [entry(ids[0])])),
    "a byte order mark": Case(raw(NO_LENGTH + b"\xef\xbb\xbf")),
    "files twice": Case(raw(NO_LENGTH, body=lambda good: good[:-1] + b', "files": []}')),
    "deep": Case(raw(NO_LENGTH + b'{"files": ' + b"[" * 100_000)),
    "a log-in page": Case(body(200, PAGE), words="a page (HTML or XML), not JSON: it says nothing of the files"),
    "empty": Case(body(200, b""), words="empty"),
    # Codes that do not tell what was taken.
    "202": Case(results(202), words="202"),
    "203": Case(results(203)),
    "204": Case(lambda _: head(204, {})),
    "206": Case(results(206)),
    "302": Case(body(302, b"", Location="/elsewhere"), words="which is not followed"),
    "303": Case(body(303, b"", Location="/arm/v1/clients/2218/files/1")),
    "304": Case(lambda _: head(304, {})),
    "307": Case(body(307, b"", Location="/arm/v1/clients/2218/files")),
    "408": Case(body(408, {})),
    "409": Case(body(409, {"message": "there is one"})),
    "409 that accepts": Case(results(409)),
    "500": Case(body(500, {})),
    "500 that accepts": Case(results(500)),
    "502 page": Case(body(502, PAGE), words="A gateway or proxy before Amili answered 502"),
    "503": Case(body(503, {})),
    "503, come back": Case(body(503, {}, **COME_BACK)),
    "503, come back at once": Case(body(503, {}, Retry_After="0")),
    "503, come back in the past": Case(body(503, PAGE, **PAST)),
    "504": Case(body(504, b"")),
    "511": Case(body(511, PAGE)),
    "429 for those who do not believe it": Case(
        body(429, {}, Retry_After="0"), extras={"not_taken_statuses": "none"}, words="429"
    ),
    # Refusals that may have taken something.
    **{f"{code} that accepts": Case(results(code), UPLOADED) for code in (400, 403, 404, 410, 413, 422, 429)},
    **{
        f"{code} that accepts one of three": Case(entries(first_only, code), ONE_NAMED, "does not name", files=3)
        for code in (400, 403, 404, 413, 422, 429)
    },
    "422 that queues one of three": Case(
        entries(lambda ids: [entry(ids[0], "QUEUED", None)], 422), f"{UNKNOWN} {UNKNOWN} {UNKNOWN}", files=3
    ),
    "422 that accepts without names": Case(
        entries(lambda _: [{"status": "PROCESSED", "result": "CREATED"}], 422), f"{UNKNOWN} {UNKNOWN}", files=2
    ),
    "422 that accepts as a whole": Case(
        body(422, {"status": "PROCESSED", "result": "CREATED"}), f"{UNKNOWN} {UNKNOWN}", files=2
    ),
    "422 in part": Case(body(422, {"status": "PROCESSED", "result": "PARTIAL"}), f"{UNKNOWN} {UNKNOWN}", files=2),
    "422 whole refused, one accepted": Case(
        lambda ids: whole_answer(422, {"status": "FAILED", "files": [entry(ids[0])]}), f"{UNKNOWN} {UNKNOWN}", files=2
    ),
    **{
        f"{code}, {how}": unreadable(code, change)
        for code in (422, 429)
        for how, change in {
            "with a byte order mark": lambda good: b"\xef\xbb\xbf" + good,
            "in Latin-1": lambda good: good.decode().encode("latin-1"),
            "in UTF-16": lambda good: good.decode().encode("utf-16"),
            "in UTF-16 without a mark": lambda good: good.decode().encode("utf-16-le"),
            "cut in mid-emoji": lambda good: good.replace("Blåbærsyltetøy".encode(), b"\\ud83d"),
            "with NaN": lambda good: good[:-1] + b', "left": NaN}',
            "that ends early, in full length": lambda good: good[:-2],
            "with something behind it": lambda good: good + b"\n<html>",
            "files twice": lambda good: good[:-1] + b', "files": []}',
            "a list": lambda good: b"[" + good + b"]",
        }.items()
    },
    "422, each file's words twice": Case(
        lambda ids: whole_answer(422, b'{"files":[{"fileId":"%s","status":"","status":"FAILED"}]}' % ids[0].encode())
    ),
    "422 that queues without names": taken(422, lambda _: {"files": [{"status": "QUEUED"}, {"status": "FAILED"}]}),
    "422 whose entries are text": taken(422, lambda ids: {"files": [f"{i}: PROCESSED/CREATED" for i in ids]}),
    "422, files in files": taken(422, lambda ids: {"files": [[entry(ids[0])]]}),
    "422, files elsewhere": taken(422, lambda ids: {"results": [entry(ids[0]), entry(ids[1], "FAILED")]}),
    "422, files deep": taken(422, lambda ids: {"data": {"files": [entry(ids[0])]}}),
    "422, by id": taken(422, lambda ids: {"results": {ids[0]: "PROCESSED/CREATED", ids[1]: "FAILED"}}),
    "429, by id": taken(429, lambda ids: {"results": {ids[0]: "OK", ids[1]: "FAILED"}}),
    "422, in lists": taken(422, lambda ids: {"accepted": ids[:1], "rejected": ids[1:]}),
    "422, by name": taken(422, lambda _: {"files": [{"name": "0.csv", "status": "OK"}]}),
    "401, by id": taken(401, lambda ids: {"files": [{"id": ids[0], "status": "ACCEPTED"}]}),
    "401 that queues": taken(401, lambda ids: {"files": [entry(ids[0], "QUEUED", None)]}),
    "401 that accepts": Case(results(401), UPLOADED),
    "422, in capitals": taken(422, lambda ids: {"Files": [{"FileId": ids[0], "Status": "QUEUED"}]}),
    "400, its word twice, once in capitals": taken(400, lambda _: {"status": "PROCESSED", "Status": "FAILED"}),
    "400 done": taken(400, lambda _: {"status": "PROCESSED"}),
    "400 created": taken(400, lambda _: {"result": "CREATED"}),
    "400 partly done": taken(400, lambda _: {"status": "PARTIALLY_PROCESSED"}),
    "422 cut": Case(lambda _: head(422, {"Content-Length": "999"}) + b'{"files": ['),
    "403 cut": Case(lambda _: head(403, {"Content-Length": "999"}) + b"{"),
    # Refusals, and nothing was taken.
    "422": Case(body(422, {"message": "bad base64"}), REJECTED, "bad base64"),
    "400 that names it": Case(results(400, status="FAILED", message="no"), REJECTED, "no"),
    "422 that says failed": Case(body(422, {"status": "FAILED", "errors": [{"status": 422}]}), REJECTED),
    "422 of a framework": Case(
        body(422, {"title": "Bad", "status": 422, "errors": {"files[0].content": ["is no base64"]}}), REJECTED
    ),
    "415": Case(body(415, {"message": "no"}), REJECTED),
    "403": Case(body(403, {"message": "no"}), NOT_SENT, "Check the file type"),
    "404": Case(body(404, {"message": "no"}), NOT_SENT, "Check the client number"),
    "403 page": Case(body(403, PAGE), NOT_SENT, "Refused by what stands before Amili"),
    "404 page": Case(body(404, PAGE), NOT_SENT, "Refused by what stands before Amili"),
    "413 page": Case(body(413, PAGE), NOT_SENT, "too large for it"),
    "431 without words": Case(body(431, b""), NOT_SENT, "Refused by what stands before Amili"),
    "401 for ever": Case(body(401, PAGE), NOT_SENT, "fresh token", wholes=2),
    "429, come back": Case(body(429, {}, **COME_BACK), NOT_SENT, "429"),
    "429 for ever": Case(body(429, {}, **PAST), NOT_SENT, "Tried 3 times", wholes=3),
    # Before the whole was there, nothing can have been taken.
    "200 too early": Case(results(), NOT_SENT, "before everything was sent", before=9, wholes=0),
    "409 too early": Case(body(409, {}), NOT_SENT, "before everything was sent", before=9, wholes=0),
    "503 too early": Case(body(503, {}, **PAST), NOT_SENT, "before everything was sent", before=9, wholes=0),
    "422 too early that accepts": Case(results(422), NOT_SENT, "before everything was sent", before=9, wholes=0),
    "100 too early": Case(results(), UPLOADED, interim=True),
    "302 too early": Case(body(302, b"", Location="/x"), NOT_SENT, "not followed", before=9, wholes=0),
    "413 page too early": Case(body(413, PAGE), NOT_SENT, "too large for it", before=9, wholes=0),
}  # fmt: skip


class Hell:
    """
    A server that gives a case's answer until it is told to be good, and counts what it got whole.

    :param case: the answer.
    """

    def __init__(self, case: Case) -> None:
        self.case: Case | None = case
        self.wholes: Counter[str] = Counter()

    def __call__(self, talk: Conversation) -> None:
        """Play one connection."""
        case = self.case
        if talk.read_head().target == "/token":
            talk.read_body()
            talk.send(whole_answer(200, {"access_token": "t", "expires_in": 3600}))
            return
        if case is not None and case.before is not None:
            talk.read_body(case.before)
            talk.send(case.reply(["0" * 32]))
            return
        if case is not None and case.interim:
            talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        ids = [file["fileId"] for file in json.loads(talk.read_body())["files"]]
        self.wholes.update(ids)
        talk.send((case.reply if case else results())(ids))
        if case and case.reset:
            talk.reset()
        while case and case.pause and not talk.server.ended.wait(case.pause) and talk.send(case.then) and case.then:
            pass


@pytest.mark.parametrize("name", CASES)
def test_an_answer_from_hell(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file has its outcome and words, is sent whole once, and is sent by the next run only if it was not taken."""
    case, hell = CASES[name], Hell(CASES[name])
    monkeypatch.setattr(transport, "_FIRST_BACKOFF_SECONDS", 0.01)
    (tmp_path / "out").mkdir()
    for number in range(case.files):
        # An early answer is seen by those who still write.
        content = b"%d" % number * (1 if case.before is None else 9_000_000)
        (tmp_path / "out" / f"{number}.csv").write_bytes(content)
    expected = case.outcomes.split() if " " in case.outcomes else [case.outcomes] * case.files
    with RawServer(otherwise=hell) as server:
        _connect(monkeypatch, server, case, ledger=new_ledger(tmp_path))
        receipts, green = _run(tmp_path, "first")
        assert [r["outcome"] for r in receipts] == expected, receipts
        assert green is (set(expected) == {UPLOADED})
        assert case.words in next((r["message"] for r in receipts if r["outcome"] != UPLOADED), "")
        assert max(hell.wholes.values(), default=0) <= case.wholes

        taken = Counter(hell.wholes)
        hell.case = None
        again, _ = _run(tmp_path, "second")
        for before, after in zip(expected, again, strict=True):
            sent = hell.wholes[after["file_id"]] - taken[after["file_id"]]
            wanted = {UPLOADED: ("already_uploaded", 0), UNKNOWN: (UNKNOWN, 0)}.get(before, (UPLOADED, 1))
            assert (after["outcome"], sent) == wanted


@pytest.mark.long  # the quick run has them against a whole task
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not (c.then or c.pause or c.reset)])
def test_the_hook_judges_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own upload gives each file the same outcome, and sends it whole no more often."""
    case, hell = CASES[name], Hell(CASES[name])
    monkeypatch.setattr(transport, "_FIRST_BACKOFF_SECONDS", 0.01)
    expected = case.outcomes.split() if " " in case.outcomes else [case.outcomes] * case.files
    content = b"x" * (1 if case.before is None else 9_000_000)
    with RawServer(otherwise=hell) as server:
        _connect(monkeypatch, server, case)
        try:
            receipts = AmiliHook().upload_files([(f"{n}.csv", content) for n in range(case.files)], "Type")
            green = True
        except AmiliError as error:
            # Where nothing was accepted and nothing is uncertain, the error says it all.
            receipts = getattr(error, "receipts", None) or [{"outcome": NOT_SENT}] * case.files
            green = False
    assert [r["outcome"] for r in receipts] == expected
    assert green is (set(expected) == {UPLOADED})
    assert max(hell.wholes.values(), default=0) <= case.wholes


def _connect(monkeypatch: pytest.MonkeyPatch, server: RawServer, case: Case, **extras: Any) -> None:
    connection: dict[str, Any] = {"conn_type": "amili", "host": server.url, "login": "id", "password": "secret"}
    connection["extra"] = {"client_no": "2218", "auth_url": server.url, "answer_timeout": 10, **extras, **case.extras}
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))


def _run(folder: Path, run_id: str) -> tuple[list[dict[str, Any]], bool]:
    """Run the operator; return its receipts, and whether it succeeded."""
    ti = FakeTaskInstance(run_id=run_id)
    operator = AmiliFileUploadOperator(task_id="upload", source=f"{folder}/out/*", file_type="InvoiciaFormatDocFile")
    try:
        return operator.execute({"ti": ti}), True  # type: ignore[typeddict-item]
    except AmiliError:
        assert not [t for t in threading.enumerate() if t.name.startswith("amili-send")]
        return ti.pushed["return_value"], False
