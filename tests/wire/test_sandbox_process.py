"""The sandbox as a person meets it: the command, its page, and its admin endpoints from another process."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amili_provider.connection.fields import FIELDS
from amili_provider.sandbox.cli import main
from amili_provider.sandbox.results import FAILED, Step
from amili_provider.sandbox.server import SandboxServer
from amili_provider.terminal import READER_GONE
from tests.readme import ROOT
from tests.wire.sandbox_admin import SandboxAdmin
from tests.wire.sandbox_calls import Caller, Calls, file


class Served:
    """
    ``amili-sandbox serve`` in a process of its own.

    :param process: the process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""
        assert process.stdout is not None
        for line in process.stdout:
            self.text += line
            if line.startswith("Ctrl-C"):
                break
        variable = next(line for line in self.text.splitlines() if line.startswith("export "))
        self.connection = json.loads(variable.partition("=")[2].strip("'"))
        self.port = int(self.connection["port"])
        self.admin = SandboxAdmin(self.connection["extra"]["auth_url"])
        self.caller = Calls("127.0.0.1", self.port)
        self.caller.log_in()

    def end(self, number: int) -> int:
        """End it with a signal; return its exit code."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.text += self.process.stdout.read()
        return self.process.wait(10)


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[Served]:
    """Run the command on a free port, with this added to its environment."""
    command = [sys.executable, "-m", "amili_provider.sandbox.cli", "serve", "--port", "0", *options]
    env = {**os.environ, **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


def test_serve_says_what_is_needed_and_leaves_nothing() -> None:
    """It prints the addresses and a connection that works, and Ctrl-C ends it without a trace."""
    with serving("--client", "1", "--client", "2", "--file-type", "A", "--file-type", "B") as amili:
        assert amili.connection["extra"]["client_no"] == "1"
        assert f"http://127.0.0.1:{amili.port}/arm/v1" in amili.text
        assert amili.caller.upload(file("a", type="B"), client_no="2").status == 200
        assert amili.caller.upload(file("a", type="C"), client_no="2").status == 403
        assert amili.caller.upload(file("a", type="B"), client_no="2218").status == 404
        (upload,) = amili.admin.uploads
        kept = Path(str(upload.path))
        assert kept.read_bytes() == b"data"
        assert amili.end(signal.SIGINT) == 0
        assert "Ctrl-C stops it, and deletes its files and ledger.\n" in amili.text
        assert "1 file(s) accepted, 0 refused.\nFiles and ledger are deleted; --data DIR keeps them.\n" in amili.text
        assert not kept.exists()


def test_serve_names_the_fields_of_the_form() -> None:
    """Each by the label that the form has, with the value that the connection of the shell has."""
    with serving() as amili:
        _, _, rest = amili.text.partition("connection amili_default of type Amili:\n")
        shown = dict(re.findall(r"^  (.+?)  +(.+)$", rest.partition("\n\n")[0], re.MULTILINE))
        fields = {field.label: field for field in FIELDS}
        assert len(shown) == 8
        for label, value in shown.items():
            field = fields[label]
            assert value == str((amili.connection if field.standard else amili.connection["extra"])[field.name])


def test_the_guides_lines_for_bad_days_work() -> None:
    """What the guide gives to curl makes an upload whose answer is lost, and a result that comes at the second look."""
    page = (ROOT / "docs/sandbox.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if b.startswith("curl ")]
    with serving() as amili:
        command = block.replace("8642", str(amili.port))
        subprocess.run(
            ["bash", "-euc", command], check=True, timeout=30, capture_output=True, env={**os.environ, "no_proxy": "*"}
        )
        with pytest.raises((OSError, http.client.HTTPException)):
            amili.caller.upload(file("a"))
        (upload,) = amili.admin.uploads
        path = f"/clients/2218/files/{upload.file_id}"
        assert [amili.caller.get(path).json()["status"] for _ in range(3)] == ["QUEUED", "PROCESSED", "PROCESSED"]


def test_a_killed_sandbox_remembers_what_it_accepted(tmp_path: Path) -> None:
    """After SIGKILL the next sandbox on the same folder still knows each acceptance."""
    for earlier in (0, 1):
        with serving("--data", str(tmp_path)) as amili:
            assert amili.caller.upload(file("a")).status == 200
            assert [u.earlier for u in amili.admin.uploads] == list(range(earlier + 1))
            amili.end(signal.SIGKILL if earlier == 0 else signal.SIGTERM)
            assert "Ctrl-C stops it, and keeps its files and ledger.\n" in amili.text
    assert "2 file(s) accepted, 0 refused.\nFiles and ledger are kept.\n" in amili.text
    assert (tmp_path / "accepted.jsonl").read_text().count("\n") == 2


def test_no_encoding_ends_the_sandbox(tmp_path: Path) -> None:
    """A folder whose name the terminal's encoding lacks is shown by escapes."""
    with serving("--data", str(tmp_path / "żółw"), PYTHONIOENCODING="ascii") as amili:
        assert f"{tmp_path}/\\u017c\\xf3\\u0142w" in amili.text


def test_a_reader_that_leaves_early_ends_the_sandbox_silently() -> None:
    """As with ordinary tools, such as in ``amili-sandbox serve | head -1``."""
    command = [sys.executable, "-m", "amili_provider.sandbox.cli", "serve", "--port", "0"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as out:
        ended = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (READER_GONE, "")


def test_a_port_that_is_taken_is_said(amili_sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1."""
    assert main(["serve", "--port", str(amili_sandbox.port)]) == 1
    assert f"Cannot listen on 127.0.0.1:{amili_sandbox.port}: Address already in use" in capsys.readouterr().err


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the extra, the command names it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert main(["serve"]) == 2
    assert "pip install 'airflow-provider-amili[sandbox]'" in capsys.readouterr().err


def test_the_admin_client_does_what_the_object_does(amili_sandbox: SandboxServer) -> None:
    """Faults, scripts, tokens, rules, records and reset, over HTTP."""
    admin, caller = SandboxAdmin(amili_sandbox.url), Caller(amili_sandbox)
    admin.wait_until_up()
    caller.log_in()
    number = admin.add_fault("upload", status=503, headers={"Retry-After": "1"}, nth=2)
    assert [caller.upload(file(n, b"REJECT" if n == "r" else b"x")).status for n in "abr"] == [200, 503, 207]
    assert admin.fault_hits(number) == 1
    admin.clear_faults()
    assert admin.wait_until_idle()
    assert (admin.uploads, admin.refusals) == (amili_sandbox.uploads, amili_sandbox.refusals)
    assert admin.requests == amili_sandbox.requests
    assert admin.count("upload") == 3
    admin.set_result("a", "queued", {"status": "FAILED", "result": "REJECTED", "message": "no"})
    assert amili_sandbox.results.next("a") == Step("QUEUED", None, "File is queued")
    assert amili_sandbox.results.next("a") == Step(FAILED.status, FAILED.result, "no")
    admin.set_batch("u", 202, 200)
    assert [caller.get("/clients/2218/batches/u").status for _ in range(3)] == [202, 200, 200]
    admin.rules(clients={"7": ["X"]}, max_files=1, knows_uploads=False)
    assert (amili_sandbox.rules.clients, amili_sandbox.rules.max_files) == ({"7": ("X",)}, 1)
    assert amili_sandbox.knows_uploads is False
    assert admin.tokens(expire=True, lifetime=5, numbers_as_text=True, admit="mine")["lifetime"] == 5
    caller.token = "mine"
    assert caller.get("/health").status == 200
    admin.reset()
    assert (admin.uploads, admin.requests, amili_sandbox.rules.max_files) == ([], [], 20_000)


def test_wrong_orders_are_refused(amili_sandbox: SandboxServer) -> None:
    """A mistake is an error in words; a page of another origin can order nothing."""
    admin = SandboxAdmin(amili_sandbox.url)
    for call, words in (
        (lambda: admin.add_fault("uplaod"), "on must be one of"),
        (lambda: admin.rules(max_file=1), "'max_file' is not known"),
        (lambda: admin.set_result("a"), "at least one step"),
        (lambda: admin.set_result("", "queued"), "'id' must be text"),
        (lambda: admin.set_result("a", {"statis": 1}), "statis"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    caller = Caller(amili_sandbox)
    assert caller.call("POST", "/admin/reset", b"{}", Content_Type="text/plain").status == 415
    assert caller.call("POST", "/admin/reset", b"[]", Content_Type="application/json").status == 400


def test_nobody_there_is_said() -> None:
    """Waiting for a sandbox that does not come ends with its address."""
    with pytest.raises(TimeoutError, match="no sandbox answers at http://127.0.0.1:1"):
        SandboxAdmin("http://127.0.0.1:1").wait_until_up(timeout=0)


def test_the_page_lists_what_arrived_and_trusts_no_name(amili_sandbox: SandboxServer) -> None:
    """Names, ids and reasons are escaped, and nothing but its own script may run."""
    caller = Caller(amili_sandbox)
    caller.log_in()
    evil = "<script>alert(1)<&'\"csv"
    caller.upload(
        file("<b>id</b>", bytes(3_000_000), name=evil),
        file("r", b"REJECT <img src=x onerror=alert(2)>", name="no.csv"),
    )
    caller.upload(file("<b>ID</b>", name="twice.csv"))
    amili_sandbox.faults.add("upload", drop="reset", stage="head")
    with pytest.raises(ConnectionError):
        caller.upload(file("c"))
    caller.get("/<i>path</i>")
    reply = caller.call("GET", "/")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/html")
    for tag in ("<script>", "<b>id", "<img", "<i>"):
        assert tag not in text
    for shown in (
        "&lt;script&gt;alert(1)&lt;&amp;",
        "2.9 MiB",
        "twice.csv",
        "again, 2 times now",
        "&lt;img src=x",
        "dropped",
    ):
        assert shown in text
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert amili_sandbox.count("other") == 1


def test_an_empty_page_says_what_to_do(amili_sandbox: SandboxServer) -> None:
    """Before the first file, the page names the address and the connection."""
    text = Caller(amili_sandbox).call("GET", "/").body.decode()
    assert f"{amili_sandbox.base_url}" in text
    assert "amili_default" in text
    assert amili_sandbox.requests == []
