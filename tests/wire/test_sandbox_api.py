"""The sandbox's API on real sockets, called by the standard library."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amili_provider.sandbox.results import Step
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import attempts_in
from tests.wire.sandbox_calls import FILE_TYPE, Caller, file


@pytest.fixture(name="amili")
def _amili(amili_sandbox: SandboxServer) -> Caller:
    """Return a caller that has a token."""
    caller = Caller(amili_sandbox)
    caller.log_in()
    return caller


def test_token_answer_is_the_documented_one(amili_sandbox: SandboxServer) -> None:
    """The token answer has the documented fields, as numbers or, if told so, as text."""
    caller = Caller(amili_sandbox)
    answer = caller.log_in().json()
    assert set(answer) == {
        "access_token",
        "token_type",
        "not_before",
        "expires_in",
        "expires_on",
        "resource",
    }
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    amili_sandbox.tokens.numbers_as_text = True
    assert caller.log_in().json()["expires_in"] == "3600"
    assert amili_sandbox.tokens.minted == 2


def test_token_needs_the_right_credentials(amili_sandbox: SandboxServer) -> None:
    """Wrong secret, wrong id, wrong grant, wrong content type: no token."""
    caller = Caller(amili_sandbox)
    assert caller.log_in("wrong").status == 401
    assert caller.log_in(client_id="somebody").status == 401
    assert caller.log_in(grant_type="password").status == 400
    assert caller.call("POST", "/token", b"{}", Content_Type="application/json").status == 400
    assert amili_sandbox.tokens.minted == 0


@pytest.mark.parametrize("path", ["/", "/admin/uploads", "/health", "/arm/v1/clients/2218/files"])
@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "127.0.0.1.nip.io",
        "localhost.example.",
        "evil.local",
        "a{b.evil.example",
        "1@evil.example",
        "a{b",
    ],
)
def test_a_name_that_anybody_may_own_is_refused(amili: Caller, path: str, name: str) -> None:
    """A page of the Internet whose name is resolved to this machine reads nothing."""
    assert amili.call("GET", path, Host=f"{name}:{amili.server.port}").status == 421


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "[::1]", "LOCALHOST", "sandbox", "amili.localhost", "host.docker.internal", "a.svc.cluster.local."],
)
def test_names_that_nobody_can_own_are_served(amili: Caller, name: str) -> None:
    """Addresses, services of Docker and Kubernetes, and what else no public name service knows."""
    assert amili.call("GET", "/health", Host=f"{name}:{amili.server.port}").status == 200


def test_a_public_name_is_served_once_it_is_said() -> None:
    """The refusal names the option, and a sandbox that has it answers."""
    with SandboxServer() as one:
        refused = Caller(one).call("GET", "/health", Host="Amili.example.com")
        assert refused.body.decode().endswith("amili-sandbox serve --name amili.example.com\n")
    with SandboxServer(names=["amili.example.com."]) as one:
        assert Caller(one).call("GET", "/health", Host="Amili.example.com").status == 200


def test_no_token_or_an_expired_one_is_401(amili: Caller) -> None:
    """401 before anything else is looked at; a token lives until it expires."""
    assert amili.upload(file("a")).status == 200
    amili.server.tokens.expire_all()
    reply = amili.upload(file("b"))
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    amili.server.tokens.admit("ready-made")
    amili.token = "ready-made"
    assert amili.upload(file("b")).status == 200
    assert [u.file_id for u in amili.server.uploads] == ["a", "b"]


def test_all_accepted_is_the_documented_answer(amili: Caller) -> None:
    """200 with the example's words, and the files on disk with their hashes."""
    reply = amili.upload(file("File001", b"This is an example"), file("File002", b""))
    assert reply.status == 200
    assert reply.json() == {
        "status": "PROCESSED",
        "result": "CREATED",
        "message": "File(s) uploaded",
        "clientNo": 2218,
        "files": [
            {"fileId": n, "status": "PROCESSED", "result": "CREATED", "message": "File uploaded"}
            for n in ("File001", "File002")
        ],
    }
    first, second = amili.server.uploads
    assert Path(str(first.path)).read_bytes() == b"This is an example"
    assert first.sha256 == hashlib.sha256(b"This is an example").hexdigest()
    assert (first.size, first.name, first.file_type, first.client_no) == (
        18,
        "File001.csv",
        FILE_TYPE,
        "2218",
    )
    assert Path(str(second.path)).read_bytes() == b""


def test_a_mixture_is_207_with_a_result_per_file(amili: Caller) -> None:
    """Files are refused by their content, their name or a pattern; the others are accepted."""
    amili.server.rules.refuse_name("late-*.csv", "Too late")
    reply = amili.upload(
        file("a"),
        file("b", b"REJECT: no such debtor\nmore"),
        file("c", name="Rejected_today.csv"),
        file("d", name="late-1.csv"),
        file("e"),
    )
    assert (reply.status, reply.json()["status"], reply.json()["result"]) == (207, "PROCESSED", "PARTIAL")
    assert [(f["fileId"], f["status"], f["result"], f["message"]) for f in reply.json()["files"]] == [
        ("a", "PROCESSED", "CREATED", "File uploaded"),
        ("b", "FAILED", "REJECTED", "no such debtor"),
        ("c", "FAILED", "REJECTED", "File refused: its name says so"),
        ("d", "FAILED", "REJECTED", "Too late"),
        ("e", "PROCESSED", "CREATED", "File uploaded"),
    ]
    assert [u.file_id for u in amili.server.uploads] == ["a", "e"]
    assert [r.file_id for r in amili.server.refusals] == ["b", "c", "d"]
    assert on_disk(amili) == 2
    assert amili.upload(file("b", b"REJECT")).json()["result"] == "REJECTED"


def test_a_poisoned_file_spoils_its_request(amili: Caller) -> None:
    """Nothing of the request is accepted, and the answer does not say which file it was."""
    reply = amili.upload(file("a"), file("b", b"POISON"))
    assert (reply.status, "files" in reply.json()) == (422, False)
    amili.server.rules.poison_status = 400
    assert amili.upload(file("b", b"POISON")).status == 400
    assert amili.server.uploads == []
    assert on_disk(amili) == 0


def test_the_same_file_again_is_accepted_and_counted(amili: Caller) -> None:
    """Amili documents no rule for duplicates: each acceptance is a record of its own."""
    for file_id in ("a", "A", "b"):
        amili.upload(file(file_id))
    assert [(u.file_id, u.earlier) for u in amili.server.uploads] == [("a", 0), ("A", 1), ("b", 0)]


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ([file("a", content="QQ")], 422, "cut off or lacks its padding"),
        ([file("a", content="Q*==")], 422, "not base64"),
        ([file("a", content="QQ==QQ==")], 422, "base64"),
        ([file("a", content=...)], 422, "'content' is missing"),
        ([file("a", content=17)], 422, "'content' is missing or not text"),
        ([file("a", content={"content": "QQ=="})], 422, "'content' is missing or not text"),
        ([file("a", fileId=...)], 422, "'fileId'"),
        ([file("a", fileId=7)], 422, "'fileId'"),
        ([file("a", type=" ")], 422, "'type'"),
        ([file("a", name=None)], 422, "'name'"),
        ([file("a", name="../a.csv")], 422, "'name' must be a file name"),
        ([file("a", name="a\nb.csv")], 422, "'name' must be a file name"),
        ([file("a", name="a" * 256)], 422, "'name' must be a file name"),
        ([file("a"), file("b"), file("A")], 422, "files[2]: duplicate fileId"),
        ([file("a"), "b"], 422, "files[1]: must be an object"),
        ([], 422, "not empty"),
        ([file("a", type="OtherFile")], 403, "file type not configured"),
        ([file("a", type=FILE_TYPE.upper())], 200, "uploaded"),
    ],
)
def test_validation_of_files(amili: Caller, files: list[Any], status: int, words: str) -> None:
    """A request with one wrong file is refused as a whole, in words that say which and why."""
    reply = amili.upload(*files)
    assert reply.status == status
    assert words in reply.json()["message"]
    assert len(amili.server.uploads) == (status == 200)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"files": [}', 400),
        (b'{"files": []} x', 400),
        (b'{"files": [{"content": "QQ==', 400),
        (b'{"files": [{"content": "Q\n=="}]}', 400),
        (b'{"files": [{"content": "\xff"}]}', 400),
        (b"\xff\xfe{}", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"files": {}}', 422),
        (b'{"metadata": 1, "files": [1]}', 422),
        (b'{"metadata": {"userId": 1}, "files": [1]}', 422),
    ],
)
def test_validation_of_the_body(amili: Caller, body: bytes, status: int) -> None:
    """Malformed JSON is 400; JSON of another shape is 422."""
    assert amili.post(body).status == status
    assert amili.server.uploads == []
    assert on_disk(amili) == 0


def test_any_order_of_keys_and_any_spacing(amili: Caller) -> None:
    """The content may come first, last, twice or between unknown keys, with escaped slashes."""
    content = base64.b64encode(b"\xff\xff\xff\xfe?").decode()
    assert "/" in content
    text = (
        '\r\n{ "later" : {"files": [{"content": "not base64 at all"}]}, "files":[\t{"content":"'
        + content.replace("/", "\\/")
        + '" ,"x":[1,{"content":"y"}],"name":"bl\\u00e5b\xe6r.csv","type":"'
        + FILE_TYPE
        + '","fileId":"a"} ] , "metadata":{} } \n'
    )
    assert amili.post(text.encode()).status == 200
    (upload,) = amili.server.uploads
    assert upload.name == "blåbær.csv"
    assert Path(str(upload.path)).read_bytes() == b"\xff\xff\xff\xfe?"


def test_clients_and_limits(amili: Caller) -> None:
    """404 for an unknown client, 403 for one without uploads, 413 above each limit, 415 for no JSON."""
    amili.server.rules.clients = {"2218": (FILE_TYPE, "Other"), "7": ()}
    assert amili.upload(file("a"), client_no="1").status == 404
    assert amili.upload(file("a"), client_no="7").status == 403
    assert amili.upload(file("a", type="other")).status == 200
    assert amili.post(b"{}", Content_Type="text/plain").status == 415
    amili.server.rules.max_files = 2
    assert amili.upload(file("a"), file("b"), file("c")).status == 413
    amili.server.rules.max_file_bytes = 10
    assert amili.upload(file("a", b"x" * 11)).status == 413
    amili.server.rules.max_body_bytes = 1000
    assert amili.upload(file("a", b"x" * 1000)).status == 413
    chunked = iter([b'{"files": [{"content": "', *[b"QUJD" * 100] * 10, b'"}]}'])
    assert amili.post(chunked).status == 413
    assert len(amili.server.uploads) == 1


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("megabytes", [1, 40])
def test_an_early_error_can_be_read_by_who_writes_on(amili: Caller, megabytes: int, connection: str) -> None:
    """A caller that writes its whole body before it reads finds the 401, 404 and 413."""
    block = bytes(1024 * 1024)
    length = str(megabytes * len(block))

    def send(client_no: str = "2218") -> int:
        body = iter([block] * megabytes)
        return amili.post(body, client_no, Content_Length=length, Connection=connection).status

    assert send("1") == 404
    amili.server.rules.max_body_bytes = 1000
    assert send() == 413
    amili.token = "wrong"
    assert send() == 401


def test_a_large_upload_takes_no_memory(amili: Caller) -> None:
    """512 MiB arrive byte-identical while the process grows by less than 24 MiB."""
    block = os.urandom(3 * 256 * 1024)
    encoded, times = base64.b64encode(block), 683
    head = b'{"files":[{"type":"%b","name":"big.csv","content":"' % FILE_TYPE.encode()
    tail = b'","fileId":"big"}]}'
    expected = hashlib.sha256()
    amili.server.records.keep_contents = False

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(times):
            expected.update(block)
            yield encoded
        yield tail

    amili.upload(file("warm-up", block))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    length = len(head) + times * len(encoded) + len(tail)
    assert amili.post(body(), Content_Length=str(length)).status == 200
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    amili.server.records.keep_contents = True
    upload = amili.server.uploads[-1]
    assert (upload.size, upload.sha256) == (times * len(block), expected.hexdigest())
    assert upload.size > 512 * 1024 * 1024
    assert grown < 24 * 1024, f"{grown} KiB more"


def test_a_body_that_does_not_arrive_whole_is_not_accepted(amili: Caller) -> None:
    """A cut in front of the last byte: nothing accepted, nothing on disk, and the request is on record."""
    body = json.dumps({"files": [file("a")]}).encode()

    with socket.create_connection((amili.server.host, amili.server.port)) as connection:
        connection.sendall(
            b"POST /arm/v1/clients/2218/files HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (amili.token.encode(), len(body))
        )
        connection.sendall(body[:-1])
    wait_for_request(amili, 2)
    assert amili.server.uploads == []
    assert on_disk(amili) == 0
    record = amili.server.requests[-1]
    assert (record.kind, record.status, record.ended) == ("upload", None, "left")
    assert (record.body_bytes, record.body_complete) == (len(body) - 1, False)


def test_results_tell_what_became_of_a_file(amili: Caller) -> None:
    """By default a file's result is that of its upload; unknown files and clients are 404."""
    amili.upload(file("good"), file("bad", b"REJECT: why"))
    assert amili.get("/clients/2218/files/good").json() == {
        "clientNo": 2218,
        "fileId": "good",
        "status": "PROCESSED",
        "result": "CREATED",
        "message": "File uploaded",
    }
    bad = amili.get("/clients/2218/files/bad").json()
    assert (bad["status"], bad["result"], bad["message"]) == ("FAILED", "REJECTED", "why")
    assert amili.get("/clients/2218/files/nobody").status == 404
    assert amili.get("/clients/1/files/good").status == 404
    amili.server.knows_uploads = False
    assert amili.get("/clients/2218/files/good").status == 404


def test_results_by_script(amili: Caller) -> None:
    """Scripted answers come one after the other, and the last one for ever."""
    amili.server.results.set("a", "queued", "queued", 503, Step("DONE", "WELL", "indeed"))
    answers = [amili.get("/clients/2218/files/A") for _ in range(5)]
    assert [a.status for a in answers] == [200, 200, 503, 200, 200]
    assert [a.json().get("status") for a in answers] == ["QUEUED", "QUEUED", None, "DONE", "DONE"]
    amili.server.results.set("*", "queued", "failed")
    for file_id in ("b", "c"):
        words = [amili.get(f"/clients/2218/files/{file_id}").json()["status"] for _ in range(2)]
        assert words == ["QUEUED", "FAILED"]
    with pytest.raises(ValueError, match="one of queued, created"):
        amili.server.results.set("a", "nonsense")


def test_batches_by_script(amili: Caller) -> None:
    """A batch answers by script: 202, 206, 200, 406; without a script, and for the nil uuid, 404."""
    uuid = "11111111-2222-4333-8444-555555555555"
    amili.server.batches.set(uuid, 202, 206, 406, 200)
    amili.server.batches.set("*", 200)
    assert [amili.get(f"/clients/2218/batches/{uuid}").status for _ in range(5)] == [202, 206, 406, 200, 200]
    assert amili.get("/clients/2218/batches/00000000-0000-0000-0000-000000000000").status == 404
    assert amili.get(f"/clients/1/batches/{uuid}").status == 404
    amili.server.reset()
    amili.log_in()
    assert amili.get(f"/clients/2218/batches/{uuid}").status == 404


def test_list_of_files_in_pages(amili: Caller) -> None:
    """The list has the documented envelope, and its next pages lead through all files once."""
    amili.upload(*(file(f"f{n}") for n in range(23)))
    page = amili.get("/clients/2218/files?pagesize=10").json()
    assert set(page["summary"]) == {
        *("pageNo", "currentPageSize", "pageSizeLimit", "totalPages", "totalCount"),
        *("maximumCount", "nextPage", "lastPage", "queryId"),
    }
    assert page["summary"]["totalCount"] == 23
    seen = [f["fileId"] for f in page["files"]]
    while next_page := page["summary"].get("nextPage"):
        assert next_page.startswith(amili.server.base_url)
        page = amili.get(next_page.removeprefix(amili.server.base_url)).json()
        seen += [f["fileId"] for f in page["files"]]
    assert seen == [f"f{n}" for n in range(23)]
    assert amili.get("/clients/2218/files?pagesize=2").json()["summary"]["pageSizeLimit"] == 10
    assert amili.get("/clients/2218/files?pageno=x").status == 400
    assert amili.get("/clients/1/files").status == 404


def test_health_and_the_rest(amili: Caller) -> None:
    """Health is open; what the API does not have is 404, and needs a token like everything else."""
    assert amili.call("GET", "/health").status == 200
    assert amili.call("GET", "/arm/v1/health").status == 200
    assert amili.get("/clients/2218/nonsense").status == 404
    assert amili.call("GET", "/arm/v1/clients/2218/nonsense").status == 401


def test_requests_are_on_record(amili: Caller) -> None:
    """Every request is logged with its kind, status and size; the secret and the token are not."""
    amili.upload(file("a"))
    amili.get("/clients/2218/files/a")
    records = amili.server.requests
    assert [(r.kind, r.method, r.status, r.ended) for r in records] == [
        ("token", "POST", 200, "answered"),
        ("upload", "POST", 200, "answered"),
        ("result", "GET", 200, "answered"),
    ]
    assert records[1].body_bytes == records[1].content_length
    assert records[1].body_complete
    assert amili.server.count("upload") == 1
    assert "sandbox-secret" not in repr(records)
    assert amili.token not in repr(records)


def test_reset_forgets_everything(amili: Caller) -> None:
    """After a reset there are no records, files, faults, scripts, tokens or changed rules."""
    server = amili.server
    amili.upload(file("a"))
    server.faults.add("upload", status=500)
    server.results.set("a", "failed")
    server.rules.max_files = 1
    server.reset()
    assert (server.uploads, server.requests, len(server.faults), on_disk(amili)) == ([], [], 0, 0)
    assert amili.get("/clients/2218/files/a").status == 401
    amili.log_in()
    assert amili.get("/clients/2218/files/a").status == 404
    assert amili.upload(file("a"), file("b")).status == 200
    assert [u.number for u in server.uploads] == [1, 2]


def test_a_stopped_sandbox_refuses_and_comes_back_on_its_port() -> None:
    """Connection refused while it is stopped; the same port and memory afterwards."""
    with SandboxServer() as server:
        caller = Caller(server)
        caller.log_in()
        caller.upload(file("a"))
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            caller.upload(file("b"))
        server.start()
        assert caller.upload(file("b")).status == 200
        assert [u.file_id for u in server.uploads] == ["a", "b"]
        data = server.data
    assert not data.exists()


def test_a_data_folder_outlives_the_sandbox(tmp_path: Path) -> None:
    """What was accepted is known by the next sandbox on the same folder; half a line is not a record."""
    with SandboxServer(tmp_path) as server:
        caller = Caller(server)
        caller.log_in()
        caller.upload(file("a", b"kept"))
    with (tmp_path / "accepted.jsonl").open("a") as index:
        index.write('{"number": 2, "reque')
    with SandboxServer(tmp_path) as server:
        caller = Caller(server)
        caller.log_in()
        assert caller.get("/clients/2218/files/a").json()["status"] == "PROCESSED"
        caller.upload(file("a", b"kept"))
        assert [(u.number, u.earlier) for u in server.uploads] == [(1, 0), (2, 1)]
    assert Path(str(server.uploads[0].path)).read_bytes() == b"kept"


def test_the_connection_is_complete(amili_sandbox: SandboxServer, tmp_path: Path) -> None:
    """The fixture's environment variable holds everything that is needed, a new ledger too, not among the files."""
    connection = json.loads(os.environ["AIRFLOW_CONN_AMILI_DEFAULT"])
    ledger = connection["extra"].pop("ledger")
    assert connection == {
        "conn_type": "amili",
        "host": "http://127.0.0.1",
        "port": amili_sandbox.port,
        "schema": "arm/v1",
        "login": "sandbox",
        "password": "sandbox-secret",
        "extra": {"auth_url": amili_sandbox.url, "client_no": "2218"},
    }
    assert attempts_in(ledger) == []
    assert not list(tmp_path.iterdir())
    other = amili_sandbox.connection(client_no="7", ledger="sqlite:////tmp/ledger.db")["extra"]
    assert (other["client_no"], other["ledger"]) == ("7", "sqlite:////tmp/ledger.db")


def test_the_sandbox_shares_nothing_with_the_client_side() -> None:
    """Importing the sandbox imports no Airflow, no httpx, and of the rest only how a command prints."""
    program = (
        "import sys, amili_provider.sandbox.server, amili_provider.sandbox.cli;"
        "print([m for m in sys.modules if m.split('.')[0] in {'airflow', 'httpx', 'moto', 'boto3'} or"
        " (m.startswith('amili_provider.') and not m.startswith('amili_provider.sandbox'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['amili_provider.terminal']"


def on_disk(amili: Caller) -> int:
    """Count the files that the sandbox holds, those of unfinished requests included."""
    return sum(p.is_file() for folder in ("received", "incoming") for p in (amili.server.data / folder).rglob("*"))


def wait_for_request(amili: Caller, number: int) -> None:
    """Wait until the sandbox has seen that many requests and has finished them."""
    deadline = time.monotonic() + 5
    while len(amili.server.requests) < number and time.monotonic() < deadline:
        time.sleep(0.005)
    assert amili.server.wait_until_idle()
