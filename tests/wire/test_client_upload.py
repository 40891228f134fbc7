"""Uploads over real sockets: what is sent again, what never is, and what each answer becomes."""

from __future__ import annotations

import gc
import json
import socket
import threading
import weakref
from email.utils import formatdate
from typing import Any

import pytest

from amili_provider.api.client import AmiliClient
from amili_provider.api.responses import RefusedBy
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
)
from tests.wire.rawserver import (
    CLIENT_SECRET,
    TOKEN_CANARY,
    Body,
    Conversation,
    Step,
    answer,
    cut,
    early_answer,
    give_token,
    head,
    lost_answer,
    raw_answer,
    scripted_amili,
    settings_for,
    silence,
    trickle,
    whole_answer,
)

DONE = {"status": "PROCESSED", "result": "CREATED", "files": []}


class Waits:
    """Counts waits instead of waiting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        """Note a wait."""
        self.seconds.append(seconds)


@pytest.fixture(name="waits")
def _waits() -> Waits:
    return Waits()


def test_request_is_the_documented_one(waits: Waits) -> None:
    """Path, headers and body arrive as documented, with an exact length and nothing chunked."""
    body = Body()
    with scripted_amili(answer(200, DONE)) as amili, AmiliClient(amili.settings, sleep=waits) as client:
        reply = client.post_files("2218", body)
    assert (reply.status_code, json.loads(reply.body)) == (200, DONE)
    request = amili.api.requests[0]
    assert (request.method, request.target) == ("POST", "/arm/v1/clients/2218/files")
    assert request.body == body.data
    assert request.headers["content-length"] == str(len(body.data))
    assert "transfer-encoding" not in request.headers
    assert request.headers["authorization"] == f"Bearer {TOKEN_CANARY}-1"
    assert request.headers["user-agent"].startswith("airflow-provider-amili/")


@pytest.mark.parametrize("after", [0, 1, 100_000])
def test_connection_cut_before_the_end_is_tried_again(after: int, waits: Waits) -> None:
    """A connection that ends in mid-body accepted nothing: the same bytes go again, on a new connection."""
    body = Body(b"x" * 8_000_000, b"]}")
    with scripted_amili(cut(after=after), answer(200, DONE)) as amili:
        assert AmiliClient(amili.settings, sleep=waits).post_files("2218", body).status_code == 200
    assert amili.api.requests[1].body == body.data
    assert (body.iterations, len(waits.seconds)) == (2, 1)


def test_connection_cut_before_the_tail_is_tried_again(waits: Waits) -> None:
    """The tail was handed out, but could not be written any more: nobody can have the whole request."""
    done = threading.Event()
    body = Body(b"x" * 1000, b"]}", before_tail=lambda: done.wait(10))
    with scripted_amili(cut(after=1000, done=done), answer(200, DONE)) as amili:
        assert AmiliClient(amili.settings, sleep=waits).post_files("2218", body).status_code == 200
    assert amili.api.requests[1].body == body.data
    assert (body.iterations, len(waits.seconds)) == (2, 1)


def test_answer_lost_after_the_last_byte_is_unknown(waits: Waits) -> None:
    """Everything was sent and no answer came: exactly one POST, and an outcome that is unknown."""
    with scripted_amili(lost_answer()) as amili, pytest.raises(AmiliOutcomeUnknown, match="may have accepted"):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert len(amili.api.requests) == 1
    assert amili.api.requests[0].body == Body().data
    assert waits.seconds == []


def test_what_was_sent_is_let_go_at_once(waits: Waits) -> None:
    """A request and its content go with their last user, not when Python looks for rings: a day's files are many."""
    gc.disable()
    try:
        body = Body(b"x" * 1000, b"]}")
        gone = weakref.ref(body)
        with scripted_amili(answer(200, DONE)) as amili, AmiliClient(amili.settings, sleep=waits) as client:
            client.post_files("2218", body)
            del body
            assert gone() is None
    finally:
        gc.enable()


def test_every_upload_has_a_connection_of_its_own(waits: Waits) -> None:
    """A kept connection that the other end closes in the same moment would be an answer that never comes."""

    def once_per_connection(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        talk.send(whole_answer(200, DONE, {"Connection": "keep-alive"}))
        talk.wait_for_end()

    with scripted_amili(otherwise=once_per_connection, answer_timeout=2) as amili:
        client = AmiliClient(amili.settings, sleep=waits)
        for _ in range(3):
            client.post_files("2218", Body())
    assert len(amili.api.requests) == 3


def test_connection_refused_then_accepted(waits: Waits) -> None:
    """A service that is not up yet is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with scripted_amili() as amili:
        settings = settings_for(f"http://127.0.0.1:{port}", amili.tokens.url)
        body = Body()

        class StartsLater(Waits):
            def __call__(self, seconds: float) -> None:
                """Start the service before the third attempt."""
                super().__call__(seconds)
                if len(self.seconds) == 2:
                    listener = socket.create_server(("127.0.0.1", port))
                    threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

            @staticmethod
            def serve(listener: socket.socket) -> None:
                """Take one upload."""
                with listener, listener.accept()[0] as connection:
                    got = b""
                    while not got.endswith(body.data):
                        got += connection.recv(65536)
                    connection.sendall(whole_answer(200, DONE))

        waiting = StartsLater()
        assert AmiliClient(settings, sleep=waiting).post_files("2218", body).status_code == 200
        assert len(waiting.seconds) == 2


def test_connection_refused_for_good_says_what_to_check(waits: Waits) -> None:
    """After three attempts the error names the address and the fields to check, and is one that Airflow retries."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with scripted_amili() as amili:
        settings = settings_for(f"http://127.0.0.1:{port}", amili.tokens.url)
        with pytest.raises(AmiliConnectionError, match=rf"127.0.0.1:{port} refuses connections.*'Host'.*Tried 3 times"):
            AmiliClient(settings, sleep=waits).post_files("2218", Body())
    assert len(waits.seconds) == 2


def test_refused_token_is_renewed_once_and_the_same_bytes_go_again(waits: Waits) -> None:
    """A 401 leads to one new token and one replay, byte for byte."""
    body = Body()
    with scripted_amili(answer(401), answer(200, DONE)) as amili:
        AmiliClient(amili.settings, sleep=waits).post_files("2218", body)
    assert [r.body for r in amili.api.requests] == [body.data, body.data]
    assert [r.headers["authorization"][-1] for r in amili.api.requests] == ["1", "2"]
    assert len(amili.tokens.requests) == 2


def test_second_401_is_final(waits: Waits) -> None:
    """A token that is refused fresh from the service is a matter of the configuration."""
    with (
        scripted_amili(answer(401, {"message": "who are you?"}), answer(401, {"message": "who are you?"})) as amili,
        pytest.raises(AmiliAuthenticationError, match=r"401, who are you\?.*fresh token.*'Client id'") as failure,
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert failure.value.status_code == 401
    assert len(amili.tokens.requests) == 2


def test_connection_cut_in_the_replay_is_judged_by_the_replay(waits: Waits) -> None:
    """What the first iteration released was refused with the 401: a cut in the replay accepted nothing."""
    body = Body(b"x" * 5_000_000, b"]}")
    with scripted_amili(answer(401), cut(after=10), answer(200, DONE)) as amili:
        assert AmiliClient(amili.settings, sleep=waits).post_files("2218", body).status_code == 200
    assert len(amili.api.requests) == 3


def test_replay_that_does_not_connect_is_not_unknown(waits: Waits) -> None:
    """The token service fails after a 401 that came after the tail: still nothing was accepted."""
    with (
        scripted_amili(answer(401), otherwise=answer(401), tokens=[give_token(), *[lost_answer()] * 3]) as amili,
        pytest.raises(AmiliConnectionError, match="no token, since"),
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())


@pytest.mark.parametrize("status", [200, 201, 207])
@pytest.mark.parametrize("content", [b"", b"<html>", b'{"message": "see here"}'])
def test_answers_that_only_their_content_explains_are_handed_on(status: int, content: bytes, waits: Waits) -> None:
    """After the tail these codes are answers about the files: one POST, and the body for the caller to judge."""
    with scripted_amili(answer(status, content)) as amili:
        reply = AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert (reply.status_code, reply.body, reply.refused_by) == (status, content, None)
    assert len(amili.api.requests) == 1


@pytest.mark.parametrize("status", [400, 405, 413, 415, 422, 499])
def test_who_refused_is_told_by_whose_words_they_are(status: int, waits: Waits) -> None:
    """A JSON object is Amili's; a page, an empty answer or other JSON is that of what stands before Amili."""
    amilis = [(b'{"message": "bad"}', RefusedBy.AMILI), (b"{}", RefusedBy.AMILI)]
    pages = [(body, RefusedBy.GATEWAY) for body in (b"", b"<html>no</html>", b'"no"', b"[]")]
    for body, refused_by in amilis + pages:
        with scripted_amili(answer(status, body)) as amili:
            reply = AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
        assert (reply.status_code, reply.refused_by) == (status, refused_by), body
        assert str(status) in reply.words
        assert len(amili.api.requests) == 1


@pytest.mark.parametrize("status", [202, 203, 204, 206, 300, 302, 303, 304, 307, 408, 409, 500, 502, 503, 599])
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Location": "/elsewhere"}], ids=str)
def test_answers_that_do_not_tell_what_was_taken_are_unknown(
    status: int, headers: dict[str, str], waits: Waits
) -> None:
    """After the tail: one POST, an unknown outcome, whatever the answer asks for."""
    content = b"" if status in (204, 304) else b'{"message": "see here"}'
    with (
        scripted_amili(answer(status, content, headers)) as amili,
        pytest.raises(AmiliOutcomeUnknown, match=rf"answered {status}.*may have the files"),
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert (len(amili.api.requests), waits.seconds) == (1, [])


@pytest.mark.parametrize(
    ("statuses", "taken", "not_taken"),
    [("429, 503", [502], [429, 503]), ("none", [429, 503], []), (503, [429, 500], [503]), (["409", 408], [429], [408])],
    ids=str,
)
def test_the_connection_says_which_statuses_took_nothing(
    statuses: Any, taken: list[int], not_taken: list[int], waits: Waits
) -> None:
    """Those that it names are sent again, as told; all others are unknown, 429 among them."""
    for status in taken:
        with (
            scripted_amili(answer(status, b"{}", {"Retry-After": "1"}), not_taken_statuses=statuses) as amili,
            pytest.raises(AmiliOutcomeUnknown),
        ):
            AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert waits.seconds == []
    for status in not_taken:
        steps = answer(status, b"{}", {"Retry-After": "1"}), answer(200, DONE)
        with scripted_amili(*steps, not_taken_statuses=statuses) as amili:
            assert AmiliClient(amili.settings, sleep=waits).post_files("2218", Body()).status_code == 200
    assert waits.seconds == [1.0] * len(not_taken)


@pytest.mark.parametrize(
    ("status", "body", "who"),
    [
        (502, b"<html>", "^A gateway or proxy before Amili answered 502: the answer is a page"),
        (504, b"", "^A gateway or proxy before Amili answered 504: the answer is empty"),
        (502, b'{"message": "upstream"}', "^Amili answered 502: upstream"),
        (500, b"<html>", "^Amili, or what stands before it, answered 500: the answer is a page"),
        (303, b"", "^Amili, or what stands before it, answered 303"),
        (409, b"<html>", r"^What stands before Amili \(a gateway, firewall or proxy\) answered 409"),
    ],
)
def test_a_gateway_is_not_called_amili(status: int, body: bytes, who: str, waits: Waits) -> None:
    """People are to ask those who answered."""
    with scripted_amili(answer(status, body)) as amili, pytest.raises(AmiliOutcomeUnknown, match=who):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, AmiliAuthenticationError, "ask Amili to allow them"),
        (404, AmiliRequestError, "Check the client number"),
    ],
)
def test_wrong_configuration_is_final(status: int, kind: type[AmiliError], words: str, waits: Waits) -> None:
    """These codes are about the connection, not about the files: one POST, and an error that Airflow does not retry."""
    with scripted_amili(answer(status, {"message": "no"})) as amili, pytest.raises(kind, match=words):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert len(amili.api.requests) == 1


@pytest.mark.parametrize(
    "location", ["https://elsewhere.example/x?token=abc", "http://x:y:z", "http://x:99999999/", "\x80\xff", "//x", ""]
)
def test_redirects_are_not_followed(location: str, waits: Waits) -> None:
    """Wherever a redirect leads, and however broken, the token does not go there and its query is not shown."""
    with (
        scripted_amili(answer(307, b"", {"Location": location})) as amili,
        pytest.raises(AmiliOutcomeUnknown, match="not followed") as failure,
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert "abc" not in str(failure.value)
    assert len(amili.api.requests) == 1


def test_a_redirect_before_everything_was_sent_is_a_wrong_address(waits: Waits) -> None:
    """Nothing was accepted, and it would redirect the next time, too."""
    with (
        scripted_amili(early_answer(302, b"", {"Location": "https://elsewhere.example/"})) as amili,
        pytest.raises(AmiliRequestError, match=r"redirects to elsewhere\.example.*'Host'"),
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body(b"x" * 8_000_000, b"]}"))
    assert len(amili.api.requests) == 1


@pytest.mark.parametrize(
    ("headers", "first_wait"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "-1"}, None),
    ],
    ids=str,
)
def test_told_to_come_back(headers: dict[str, str], first_wait: float | None, waits: Waits) -> None:
    """A 429 took nothing: wait as told, or as usual where a past moment or nonsense is told; then the same bytes."""
    with scripted_amili(answer(429, b"", headers), answer(200, DONE)) as amili:
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert [r.body for r in amili.api.requests] == [Body().data] * 2
    assert waits.seconds == [first_wait] if first_wait else 0.5 <= waits.seconds[0] <= 1


def test_told_to_come_back_on_a_date(waits: Waits) -> None:
    """The form of Retry-After with a date counts from the injected clock."""
    now = 1_800_000_000.0
    header = {"Retry-After": formatdate(now + 30, usegmt=True)}
    with scripted_amili(answer(429, b"", header), answer(200, DONE)) as amili:
        AmiliClient(amili.settings, sleep=waits, clock=lambda: now).post_files("2218", Body())
    assert waits.seconds == [30.0]


def test_told_to_come_back_much_later(waits: Waits) -> None:
    """More than a minute is for Airflow to wait: no wait here, and the error says how long."""
    with (
        scripted_amili(answer(429, {"message": "slow down"}, {"Retry-After": "3600"})) as amili,
        pytest.raises(AmiliConnectionError, match="429, slow down") as failure,
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert (failure.value.retry_after, failure.value.status_code, waits.seconds) == (3600.0, 429, [])


def test_waits_are_bounded_together(waits: Waits) -> None:
    """Two waits of forty seconds are more than a minute: the second is left to Airflow."""
    step = answer(429, b"", {"Retry-After": "40"})
    with scripted_amili(step, step) as amili, pytest.raises(AmiliConnectionError) as failure:
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert (failure.value.retry_after, waits.seconds) == (40.0, [40.0])


@pytest.mark.parametrize("status", [500, 502, 503, 408, 409, 429])
def test_early_trouble_is_tried_again(status: int, waits: Waits) -> None:
    """An answer in mid-body cannot have accepted anything."""
    body = Body(b"x" * 8_000_000, b"]}")
    with scripted_amili(early_answer(status), answer(200, DONE)) as amili:
        assert AmiliClient(amili.settings, sleep=waits).post_files("2218", body).status_code == 200
    assert body.iterations == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_early_refusal_is_handed_on(status: int, waits: Waits) -> None:
    """A refusal in mid-body is an answer about the content, and not a broken connection."""
    body = Body(b"x" * 8_000_000, b"]}")
    with scripted_amili(early_answer(status, {"message": "too much"})) as amili:
        reply = AmiliClient(amili.settings, sleep=waits).post_files("2218", body)
    assert (reply.status_code, body.released) == (status, False)


def test_early_success_is_not_believed(waits: Waits) -> None:
    """Nobody can have accepted files that were not sent completely."""
    with (
        scripted_amili(otherwise=early_answer(200, DONE)) as amili,
        pytest.raises(AmiliConnectionError, match="before everything was sent"),
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body(b"x" * 8_000_000, b"]}"))


@pytest.mark.parametrize(
    "step",
    [
        silence(),
        trickle(b"HTTP/1.1 200 OK\r\nX-Header: "),
        trickle(b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
        trickle(b" ", first=head(200, {}) + b"{}"),
        trickle(b" ", first=head(200, {"Content-Length": "99999"}) + b"{}"),
        raw_answer(head(200, {"Content-Length": "100"}) + b"{"),
        raw_answer(b"\x00\xff garbage\r\n\r\n"),
        raw_answer(b"HTTP/1.1 200 OK\r\nBroken header\r\n\r\n{}"),
        raw_answer(head(200, {"Content-Length": "-5"}) + b"{}"),
        raw_answer(head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n{}\r\n"),
        raw_answer(head(200, {"Content-Encoding": "gzip"}) + b"not packed"),
        raw_answer(head(200, {"Content-Encoding": "br"}) + b"not packed"),
        raw_answer(head(200, {}) + b" " * (9 * 1024 * 1024)),
        raw_answer(b""),
    ],
)
def test_answer_that_cannot_be_had_is_unknown(step: Step, waits: Waits) -> None:
    """Silence, dripping, garbage, too much and too little after the tail: one POST, an unknown outcome, no hang."""
    with (
        scripted_amili(step, answer_timeout=0.4) as amili,
        pytest.raises(AmiliOutcomeUnknown, match="everything was sent"),
    ):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert len(amili.api.requests) == 1


def test_packed_answer_is_unpacked_within_the_bound(waits: Waits) -> None:
    """A gateway that packs although nobody asked is understood; what unpacks to gigabytes is not read."""
    import gzip

    good = raw_answer(head(200, {"Content-Encoding": "gzip"}) + gzip.compress(b'{"status": "PROCESSED"}'))
    bomb = raw_answer(head(200, {"Content-Encoding": "gzip"}) + gzip.compress(b" " * (64 * 1024 * 1024)))
    with scripted_amili(good, bomb) as amili:
        client = AmiliClient(amili.settings, sleep=waits)
        assert json.loads(client.post_files("2218", Body()).body) == {"status": "PROCESSED"}
        with pytest.raises(AmiliOutcomeUnknown, match="larger than 8 MiB"):
            client.post_files("2218", Body())


@pytest.mark.parametrize("step", [trickle(b" ", first=head(429, {})), raw_answer(head(429, {"Content-Length": "99"}))])
def test_code_that_decides_needs_no_body(step: Step, waits: Waits) -> None:
    """A 429 is a 429, even if its body never ends or never comes."""
    with scripted_amili(step, answer(200, DONE), answer_timeout=1) as amili:
        assert AmiliClient(amili.settings, sleep=waits).post_files("2218", Body()).status_code == 200


@pytest.mark.parametrize("status", [200, 400, 403, 404, 422])
def test_an_answer_that_cannot_be_read_to_its_end_is_unknown(status: int, waits: Waits) -> None:
    """A refusal, too, might have gone on to accept a file by name."""
    cut_short = raw_answer(head(status, {"Content-Length": "99"}) + b'{"message": "no"')
    with scripted_amili(cut_short) as amili, pytest.raises(AmiliOutcomeUnknown, match="everything was sent"):
        AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert len(amili.api.requests) == 1


NAMED = {"fileId": "f1", "status": "PROCESSED", "result": "CREATED"}


@pytest.mark.parametrize("status", [400, 403, 404, 410, 413, 422, 429])
@pytest.mark.parametrize(
    "body",
    [
        {"files": [NAMED]},
        {"status": "FAILED", "files": [NAMED]},
        {"files": [{**NAMED, "status": "QUEUED", "result": None}]},
        {"files": [{k: v for k, v in NAMED.items() if k != "fileId"}]},
        {"files": {"f1": "PROCESSED"}},
        {"status": "PROCESSED", "result": "CREATED"},
        {"status": "PROCESSED", "result": "PARTIAL"},
        {"status": "QUEUED"},
    ],
    ids=str,
)
def test_a_refusal_that_may_have_taken_something_is_a_result(status: int, body: Any, waits: Waits) -> None:
    """Whatever the code: it is handed on to be judged file by file, and nothing of it is sent again."""
    with scripted_amili(answer(status, body)) as amili:
        reply = AmiliClient(amili.settings, sleep=waits).post_files("2218", Body())
    assert (reply.refused_by, len(amili.api.requests)) == (None, 1)


def test_an_early_refusal_that_accepts_is_not_believed(waits: Waits) -> None:
    """Nobody can have accepted a file of a request that was not sent completely; it is sent again."""
    with scripted_amili(early_answer(422, {"files": [NAMED]}), answer(200, DONE)) as amili:
        reply = AmiliClient(amili.settings, sleep=waits).post_files("2218", Body(b"x" * 8_000_000, b"]}"))
    assert (reply.status_code, len(amili.api.requests)) == (200, 2)


def test_error_of_the_body_comes_out_unchanged(waits: Waits) -> None:
    """What a file raises while it is read ends the request at once and is nobody else's business."""

    class StorageGoneError(OSError):
        pass

    def fail() -> None:
        raise StorageGoneError("the folder is away")

    arrived: list[bytes] = []
    ended = threading.Event()

    def step(talk: Conversation) -> None:
        talk.read_head()
        arrived.append(talk.read_body())
        ended.set()

    with scripted_amili(step) as amili:
        with pytest.raises(StorageGoneError, match="the folder is away"):
            AmiliClient(amili.settings, sleep=waits).post_files("2218", Body(before_tail=fail))
        assert ended.wait(10)
    assert arrived == [Body().data[:-2]]


def test_abort_ends_uploads_in_flight(waits: Waits) -> None:
    """Told to stop, uploads that wait for an answer end at once, and nothing is sent after."""
    arrived = threading.Event()

    def step(talk: Conversation) -> None:
        talk.read_head()
        talk.read_body()
        arrived.set()
        talk.wait_for_end()

    failures: list[Exception] = []
    with scripted_amili(step, answer_timeout=60) as amili:
        client = AmiliClient(amili.settings)

        def upload() -> None:
            try:
                client.post_files("2218", Body())
            except AmiliError as error:
                failures.append(error)

        thread = threading.Thread(target=upload)
        thread.start()
        assert arrived.wait(10)
        client.abort()
        thread.join(10)
        assert not thread.is_alive()
        with pytest.raises(AmiliConnectionError, match="told to stop"):
            client.post_files("2218", Body())
    assert [type(f) for f in failures] == [AmiliOutcomeUnknown]
    assert len(amili.api.requests) == 1


def test_abort_ends_waiting_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to stop, a back-off ends at once."""
    waiting = threading.Event()
    with scripted_amili(answer(429, b"", {"Retry-After": "50"})) as amili:
        client = AmiliClient(amili.settings)
        back_off = client._exchange._sleep

        def wait(seconds: float) -> object:
            waiting.set()
            return back_off(seconds)

        monkeypatch.setattr(client._exchange, "_sleep", wait)
        failures: list[Exception] = []

        def upload() -> None:
            try:
                client.post_files("2218", Body())
            except AmiliError as error:
                failures.append(error)

        thread = threading.Thread(target=upload)
        thread.start()
        assert waiting.wait(10)
        client.abort()
        thread.join(10)
        assert not thread.is_alive()
    assert isinstance(failures[0], AmiliConnectionError)


def test_no_secret_in_any_error_or_log(waits: Waits, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the secret nor a token nor content shows up in errors, representations and logs of any level."""
    caplog.set_level("DEBUG")
    content = b"canary-content" * 1000
    shown = []
    steps = [lost_answer(), answer(403), answer(404), answer(429), answer(500), raw_answer(b"garbage\r\n\r\n")]
    for step in steps:
        with scripted_amili(otherwise=step) as amili, AmiliClient(amili.settings, sleep=waits) as client:
            shown.append(repr(client) + repr(amili.settings))
            try:
                shown.append(repr(client.post_files("2218", Body(content, b"]}"))))
            except AmiliError as error:
                shown.append(f"{error!r} {error} {error.__cause__!r} {error.__dict__}")
    text = "\n".join(shown) + caplog.text
    for canary in (CLIENT_SECRET, TOKEN_CANARY, "canary-content"):
        assert canary not in text
