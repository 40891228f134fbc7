"""The sandbox's scripted faults, as a plain caller meets them on real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from amili_provider.sandbox.garbage import GARBAGE
from amili_provider.sandbox.server import SandboxServer
from tests.wire.sandbox_calls import Caller, Reply, file

CUT = (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead)


@pytest.fixture(name="amili")
def _amili(amili_sandbox: SandboxServer) -> Caller:
    """Return a caller that has a token."""
    caller = Caller(amili_sandbox)
    caller.log_in()
    return caller


def test_status_with_headers_and_body(amili: Caller) -> None:
    """The next upload is read, not accepted, and answered as told; the one after is served."""
    fault = amili.server.faults.add("upload", status=503, headers={"Retry-After": "7"}, body={"message": "later"})
    reply = amili.upload(file("a"))
    assert (reply.status, reply.headers["retry-after"], reply.json()) == (503, "7", {"message": "later"})
    assert amili.server.uploads == []
    assert amili.server.requests[-1].body_complete
    assert amili.upload(file("a")).status == 200
    assert (fault.hits, amili.server.requests[1].fault) == (1, fault.number)


def test_status_at_each_stage(amili: Caller) -> None:
    """A status before the body or after it leaves nothing; after the acceptance the file is there."""
    for stage, accepted in (("head", 0), ("body", 0), ("accepted", 1)):
        amili.server.faults.add("upload", status=500, stage=stage)
        assert amili.upload(file(stage)).status == 500
        assert len(amili.server.uploads) == accepted


@pytest.mark.parametrize("status", [204, 302, 409, 429, 599])
def test_any_status_can_be_answered(amili: Caller, status: int) -> None:
    """Also those that have no body."""
    amili.server.faults.add("upload", status=status, body="")
    assert (amili.upload(file("a")).status, amili.server.requests[-1].status) == (status, status)


def test_which_request_suffers(amili: Caller) -> None:
    """The n-th, so many times, of one kind, on one path; one fault after the other."""
    faults = amili.server.faults
    faults.add("upload", nth=2, times=2, status=500)
    assert [amili.upload(file(str(n))).status for n in range(4)] == [200, 500, 500, 200]
    faults.clear()
    faults.add("upload", status=501)
    faults.add("upload", status=502, times=2)
    assert [amili.upload(file(str(n))).status for n in range(4)] == [501, 502, 502, 200]
    faults.clear()
    faults.add("result", path="/files/b", status=418, times=None)
    statuses = [amili.get(f"/clients/2218/files/{n}").status for n in ("3", "b", "b", "3")]
    assert statuses == [200, 418, 418, 200]
    faults.clear()
    faults.add("any", status=499, times=None)
    assert [amili.get("/health").status, amili.log_in().status, amili.get("/clients/1/batches/2").status] == [
        499,
        499,
        499,
    ]


@pytest.mark.parametrize("drop", ["reset", "close"])
@pytest.mark.parametrize(("stage", "accepted"), [("head", 0), ("body", 0), ("accepted", 1)])
def test_drop_at_each_stage(amili: Caller, drop: str, stage: str, accepted: int) -> None:
    """No answer; the file is there only if it was accepted before the drop, and the record says which."""
    amili.server.faults.add("upload", drop=drop, stage=stage)
    with pytest.raises(CUT):
        amili.upload(file("a"))
    assert amili.server.wait_until_idle()
    assert len(amili.server.uploads) == accepted
    record = amili.server.requests[-1]
    assert (record.status, record.ended, record.body_complete) == (None, "dropped", stage != "head")
    assert amili.upload(file("a")).status == 200
    assert amili.server.uploads[-1].earlier == accepted


@pytest.mark.parametrize("drop", ["reset", "close"])
def test_drop_in_the_middle_of_the_body(amili: Caller, drop: str) -> None:
    """After so many bytes of the body the connection ends, and nothing of it is accepted."""
    amili.server.faults.add("upload", drop=drop, after_bytes=100_000)
    with pytest.raises(CUT):
        amili.upload(file("a", bytes(20_000_000)))
    assert amili.server.wait_until_idle()
    record = amili.server.requests[-1]
    assert (amili.server.uploads, record.body_complete, record.ended) == ([], False, "dropped")
    assert 100_000 <= record.body_bytes < 20_000_000
    assert list((amili.server.data / "incoming").iterdir()) == []


@pytest.mark.parametrize("drop", ["reset", "close"])
def test_drop_of_the_connection_itself(amili: Caller, drop: str) -> None:
    """The connection ends before a request was read."""
    fault = amili.server.faults.add("connection", drop=drop, times=2)
    for _ in range(2):
        with pytest.raises(CUT):
            amili.upload(file("a"))
    assert (fault.hits, amili.server.count("upload")) == (2, 0)
    assert amili.upload(file("a")).status == 200


def test_the_answer_is_cut(amili: Caller) -> None:
    """The file was accepted, and its answer ends in the middle."""
    amili.server.faults.add("upload", cut_answer_at=10)
    with pytest.raises(http.client.IncompleteRead) as cut:
        amili.upload(file("a"))
    assert cut.value.partial == b'{"status":'
    assert [u.file_id for u in amili.server.uploads] == ["a"]
    amili.server.faults.add("upload", cut_answer_at=10, stage="body")
    with pytest.raises(http.client.IncompleteRead):
        amili.upload(file("b"))
    assert len(amili.server.uploads) == 1


def test_delay_and_trickle(amili: Caller) -> None:
    """The answer comes late, or byte by byte, but whole."""
    amili.server.faults.add("upload", delay=0.15)
    before = time.monotonic()
    assert amili.upload(file("a")).status == 200
    assert time.monotonic() - before >= 0.15
    amili.server.faults.add("upload", trickle=0.001)
    assert amili.upload(file("b")).json()["result"] == "CREATED"


def test_a_delay_ends_with_the_caller_the_reset_and_the_server(amili: Caller) -> None:
    """A request that waits for an hour holds up neither a reset nor a stop, and leaves no trace."""
    ends: list[Callable[[], object]] = [amili.server.reset, amili.server.stop]
    for end in ends:
        amili.log_in()
        amili.server.faults.add("upload", delay=3600, stage="body")
        errors: list[BaseException] = []
        waiting = threading.Thread(target=failing, args=(lambda: amili.upload(file("a")), errors))
        waiting.start()
        arrive_at(amili, lambda: bool(amili.server.count("upload") and amili.server.requests[-1].body_complete))
        end()
        waiting.join(5)
        assert [type(e) in CUT or isinstance(e, ConnectionError) for e in errors] == [True]
        assert amili.server.uploads == []
    amili.server.start()
    assert amili.server.in_flight == 0


def test_a_caller_that_falls_silent_holds_up_nothing(amili: Caller) -> None:
    """A body that never comes is dropped by a reset, and the next test begins with an empty record."""
    with socket.create_connection((amili.server.host, amili.server.port)) as connection:
        connection.sendall(
            b"POST /arm/v1/clients/2218/files HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: 9999\r\n\r\n{" % amili.token.encode()
        )
        arrive_at(amili, lambda: bool(amili.server.count("upload") and amili.server.requests[-1].body_bytes))
        amili.server.reset()
        assert (amili.server.in_flight, amili.server.requests) == (0, [])
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_delay_in_the_middle_of_the_body(amili: Caller) -> None:
    """A slow reader: the upload takes longer, and arrives."""
    amili.server.faults.add("upload", after_bytes=1000, delay=0.1)
    before = time.monotonic()
    assert amili.upload(file("a", bytes(5_000_000))).status == 200
    assert time.monotonic() - before >= 0.1


def test_tokens_expire(amili: Caller) -> None:
    """All tokens at once when a request comes, or each after its short life."""
    amili.server.faults.add("upload", nth=2, expire_tokens=True)
    assert [amili.upload(file(n)).status for n in ("a", "b", "c")] == [200, 401, 401]
    amili.log_in()
    assert amili.upload(file("c")).status == 200
    amili.server.tokens.lifetime = 0
    amili.log_in()
    assert amili.upload(file("d")).status == 401


def test_the_token_service_suffers_too(amili: Caller) -> None:
    """Faults of the token service are its own."""
    amili.server.faults.add("token", status=500, body="<h1>no</h1>", headers={"Content-Type": "text/html"})
    reply = amili.log_in()
    assert (reply.status, reply.body, reply.headers["content-type"]) == (500, b"<h1>no</h1>", "text/html")
    amili.server.faults.add("token", drop="reset")
    with pytest.raises(CUT):
        amili.log_in()
    assert amili.log_in().status == 200


def garbage(amili: Caller, name: str) -> Reply:
    """Upload two files and get that nonsense for an answer."""
    amili.server.faults.add("upload", garbage=name)
    return amili.upload(file("a"), file("b"))


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_garbage_is_answered_after_the_acceptance(amili: Caller, name: str) -> None:
    """Each nonsensical answer comes with 200 unless told otherwise, and the files were accepted."""
    reply = garbage(amili, name)
    assert reply.status == 200
    assert len(amili.server.uploads) == 2
    assert reply.body != amili.upload(file("a"), file("b")).body
    amili.server.faults.add("upload", garbage=name, status=207)
    assert amili.upload(file("a")).status == 207


def test_what_the_garbage_is(amili: Caller) -> None:
    """The names mean what they say."""

    def files(name: str) -> Any:
        return garbage(amili, name).json()["files"]

    assert garbage(amili, "empty").body == b""
    assert len(garbage(amili, "huge").body) > 10_000_000
    with pytest.raises(json.JSONDecodeError):
        garbage(amili, "truncated").json()
    with pytest.raises(UnicodeDecodeError):
        garbage(amili, "not-utf8").json()
    assert isinstance(files("files-not-a-list"), dict)
    assert [f["fileId"] for f in files("missing-file")] == ["b"]
    assert [(f["fileId"], f["status"]) for f in files("contradictory")] == [
        ("a", "PROCESSED"),
        ("b", "PROCESSED"),
        ("a", "FAILED"),
    ]
    assert {f["status"] for f in files("unknown-words")} == {"ARRIVED"}
    assert garbage(amili, "refused-as-a-whole").json()["files"][0]["status"] == "PROCESSED"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"on": "uploads"}, "on must be one of token, upload"),
        ({"stage": "tail"}, "stage must be one of head"),
        ({"drop": "gently"}, "drop must be one of reset"),
        ({"garbage": "rubbish"}, "garbage must be one of html"),
        ({"nth": 0}, "count from 1"),
        ({"times": 0}, "count from 1"),
        ({"on": "connection", "status": 500}, "can only drop"),
        ({"after_bytes": 5}, "needs a drop or a delay"),
        ({"statis": 500}, "a fault has no statis"),
        ({"hits": 5}, "a fault has no hits"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(amili: Caller, fault: dict[str, Any], words: str) -> None:
    """A mistake in a script is an error where it is written, not a fault that never strikes."""
    with pytest.raises(ValueError, match=words):
        amili.server.faults.add(**fault)
    assert len(amili.server.faults) == 0


def failing(call: Callable[[], object], errors: list[BaseException]) -> None:
    """Call, and keep the error."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - looked at by the test
        errors.append(error)


def arrive_at(amili: Caller, state: Callable[[], bool]) -> None:
    """Wait until the sandbox is in that state."""
    deadline = time.monotonic() + 5
    while not state() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert state()
