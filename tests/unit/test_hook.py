"""The hook: an Airflow connection becomes settings, and settings become one client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from pytest_mock import MockerFixture

from amili_provider.api.client import AmiliClient
from amili_provider.api.responses import RefusedBy, UploadReply
from amili_provider.api.results import Vocabulary
from amili_provider.exceptions import (
    AmiliArgumentError,
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliDeliveryFailed,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliStorageError,
    AmiliUploadRejected,
)
from amili_provider.hooks.amili import AmiliHook
from amili_provider.triggers.clients import asettings

CONNECTION: dict[str, Any] = {
    "conn_type": "amili",
    "login": "id",
    "password": "canary-secret",
    "extra": {"environment": "staging", "client_no": 2218, "user_id": "me"},
}
Connect = Callable[..., None]


@pytest.fixture(name="connect", autouse=True)
def _connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    def connect(**changes: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps({**CONNECTION, **changes}))

    connect()
    return connect


def test_connection_becomes_settings() -> None:
    """The connection of the environment is read, and its id is known to messages."""
    settings = AmiliHook().settings
    assert (settings.conn_id, settings.environment, settings.client_id) == ("amili_default", "staging", "id")


def test_connection_is_read_once(mocker: MockerFixture) -> None:
    """Settings and client are kept by the hook, so that threads need not ask Airflow."""
    looked_up = mocker.spy(BaseHook, "get_connection")
    with AmiliHook() as hook:
        assert hook.settings is hook.settings
        assert hook.get_conn() is hook.get_conn()
    assert looked_up.call_count == 1


def test_nothing_happens_when_a_hook_is_made(mocker: MockerFixture) -> None:
    """A hook in a DAG file looks nothing up."""
    looked_up = mocker.patch.object(BaseHook, "get_connection", autospec=True, side_effect=AssertionError)
    AmiliHook("other")
    assert not looked_up.called


def test_wrong_connection_is_one_sentence(connect: Connect) -> None:
    """What the form says is wrong comes out as it is."""
    connect(extra={"environment": "moon"})
    with pytest.raises(ValueError, match="^Connection 'amili_default': 'Environment' .* is 'moon'"):
        _ = AmiliHook().settings


_MISSING = (
    r"^There is no Airflow connection with the id 'nowhere'\. Create it \(type Amili\), set AIRFLOW_CONN_NOWHERE, or "
    r"correct amili_conn_id\.$"
)


def test_missing_connection_is_permanent_and_says_what_to_do() -> None:
    """A connection that does not exist is one sentence and no retry, in tasks and in triggers alike."""
    with pytest.raises(AmiliArgumentError, match=_MISSING):
        _ = AmiliHook("nowhere").settings
    with pytest.raises(AmiliArgumentError, match=_MISSING):
        asyncio.run(asettings("nowhere"))


def test_airflow_that_looks_into_no_database_is_said(mocker: MockerFixture) -> None:
    """Airflow 3.1.0, outside of a task, knows of no supervisor to ask: that is one sentence with the ways on."""
    error = ImportError("cannot import name 'SUPERVISOR_COMMS' from 'airflow.sdk.execution_time.task_runner'")
    mocker.patch.object(BaseHook, "get_connection", autospec=True, side_effect=error)
    words = r"connection 'nowhere' in its database\. Set AIRFLOW_CONN_NOWHERE, or install Airflow 3\.1\.1 or newer\.$"
    with pytest.raises(AmiliArgumentError, match=words):
        _ = AmiliHook("nowhere").settings


@pytest.mark.parametrize("error", [ModuleNotFoundError("no module"), RuntimeError("the supervisor is away")])
def test_a_look_up_that_failed_for_another_reason_stays_what_it_is(error: Exception, mocker: MockerFixture) -> None:
    """Only a connection that is not there is called missing."""
    mocker.patch.object(BaseHook, "get_connection", autospec=True, side_effect=error)
    mocker.patch("amili_provider.triggers.clients.get_async_connection", autospec=True, side_effect=error)
    with pytest.raises(type(error), match=str(error)):
        _ = AmiliHook("nowhere").settings
    with pytest.raises(type(error), match=str(error)):
        asyncio.run(asettings("nowhere"))


def test_closed_hook_can_be_used_again() -> None:
    """Closing ends the client; the next one is new."""
    hook = AmiliHook()
    first = hook.get_conn()
    hook.close()
    hook.close()
    assert hook.get_conn() is not first
    hook.close()


@pytest.fixture(name="client")
def _client(mocker: MockerFixture) -> Iterator[Any]:
    """Stand in for the client that the hook makes."""
    made = mocker.create_autospec(AmiliClient, instance=True)
    mocker.patch("amili_provider.api.client.AmiliClient", autospec=True, return_value=made)
    return made


@pytest.fixture(name="hook")
def _hook(client: Any) -> AmiliHook:
    hook = AmiliHook()
    client.settings = hook.settings
    client.vocabulary = Vocabulary()
    return hook


def test_other_endpoints_go_to_the_client(hook: AmiliHook, client: Any) -> None:
    """The hook adds the client number and hands on."""
    hook.request("PUT", "/x", params={"a": 1}, json={"b": 2}, headers={"C": "3"})
    client.request.assert_called_once_with("PUT", "/x", params={"a": 1}, json={"b": 2}, headers={"C": "3"})
    client.paginate.return_value = iter([{"n": 1}])
    assert list(hook.paginate("/y", params={"a": 1})) == [{"n": 1}]
    client.paginate.assert_called_once_with("/y", params={"a": 1}, max_pages=10_000)
    hook.get_batch("u")
    client.get_batch.assert_called_once_with("2218", "u")
    hook.get_file_result("f", client_no=77)
    client.get_file_result.assert_called_once_with("77", "f")


def test_client_number_is_needed_somewhere(connect: Connect) -> None:
    """Without one in the connection, the call must name it."""
    connect(extra={"environment": "staging"})
    assert AmiliHook().client_no(" 5 ") == "5"
    with pytest.raises(ValueError, match="client_no is missing.*'Client number' .* of connection 'amili_default'"):
        AmiliHook().client_no()


def test_tokens_are_masked_from_the_tasks_own_thread(mocker: MockerFixture) -> None:
    """A token that another thread got is held back until the task's thread comes by."""
    masked: list[str] = []
    mocker.patch("amili_provider.hooks.amili.mask_secret", autospec=True, side_effect=masked.append)
    hook = AmiliHook()
    hook._mask("first")
    thread = threading.Thread(target=hook._mask, args=("second",))
    thread.start()
    thread.join()
    assert masked == ["first"]
    hook.close()
    assert masked == ["first", "second"]


def test_the_password_of_a_proxy_is_masked(connect: Connect, mocker: MockerFixture) -> None:
    """As it is written and as it is meant, whether or not Airflow masks the field, in a task and in the triggerer."""
    masked: list[str] = []
    for module in ("hooks.amili", "triggers.clients"):
        mocker.patch(f"amili_provider.{module}.mask_secret", autospec=True, side_effect=masked.append)
    connect(extra={"environment": "staging", "proxy": "http://me:canary%2Fproxy@proxy.example:3128"})
    assert AmiliHook().settings.proxy
    assert sorted(masked) == ["canary%2Fproxy", "canary/proxy"]
    assert asyncio.run(asettings("amili_default")).proxy
    assert sorted(masked) == ["canary%2Fproxy"] * 2 + ["canary/proxy"] * 2


@pytest.mark.parametrize("where", ["task", "triggerer"])
def test_a_client_number_is_no_reason_for_a_warning(
    connect: Connect, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow warns, once in every process, that a value is too short to be masked; other connections have theirs."""
    maskers = [m.SecretsMasker for n, m in list(sys.modules.items()) if n.endswith("secrets_masker") and m]

    def warn_again() -> None:
        for masker in maskers:
            if hasattr(masker, "_has_warned_short_secret"):
                monkeypatch.setattr(masker, "_has_warned_short_secret", False)

    warn_again()
    connect(extra={"environment": "staging", "client_no": "2218", "verify": "true"})
    settings = AmiliHook().settings if where == "task" else asyncio.run(asettings("amili_default"))
    assert settings.client_no == "2218"
    assert "too short" not in caplog.text
    if any(hasattr(masker, "_has_warned_short_secret") for masker in maskers):  # 2.11 does not warn
        warn_again()
        assert BaseHook.get_connection("amili_default").extra_dejson["client_no"] == "2218"
        assert "too short" in caplog.text


# The hook's own upload.


def reply(body: bytes, **of: Any) -> UploadReply:
    """Answer an upload as documented; *of* maps names to results."""
    files = [
        {"fileId": f["fileId"], "status": "PROCESSED", "result": of.get(f["name"].split(".")[0], "CREATED")}
        for f in json.loads(body)["files"]
    ]
    return UploadReply(200, json.dumps({"status": "PROCESSED", "result": "CREATED", "files": files}).encode())


def answering(client: Any, *answers: Any) -> list[dict[str, Any]]:
    """Let the client answer uploads; return where the requests are noted."""
    requests: list[dict[str, Any]] = []
    rest = list(answers)

    def post(_client_no: str, body: Any) -> UploadReply:
        sent = b"".join(body)
        requests.append(json.loads(sent))
        assert len(sent) == body.content_length
        answer = rest.pop(0) if rest else reply
        if isinstance(answer, Exception):
            raise answer
        return answer(sent) if callable(answer) else answer

    client.post_files.side_effect = post
    return requests


def test_upload_of_paths_and_bytes(hook: AmiliHook, client: Any, tmp_path: Path) -> None:
    """Files of this machine and bytes go in one request, and each has a receipt."""
    (tmp_path / "a.csv").write_bytes(b"one")
    requests = answering(client)
    receipts = hook.upload_files([tmp_path / "a.csv", ("b.csv", b"two"), ("c.csv", b"")], "Type")
    assert [f["name"] for f in requests[0]["files"]] == ["a.csv", "b.csv", "c.csv"]
    assert [f["content"] for f in requests[0]["files"]] == ["b25l", "dHdv", ""]
    assert requests[0]["metadata"] == {"userId": "me"}
    assert [(r["name"], r["outcome"], r["size"], r["client_no"]) for r in receipts] == [
        ("a.csv", "uploaded", 3, "2218"),
        ("b.csv", "uploaded", 3, "2218"),
        ("c.csv", "uploaded", 0, "2218"),
    ]
    assert receipts[0]["source"] == str(tmp_path / "a.csv")
    assert receipts[0]["uploaded_at"]
    assert len({r["file_id"] for r in receipts}) == 3


def test_upload_of_nothing(hook: AmiliHook, client: Any) -> None:
    """No files, no request."""
    requests = answering(client)
    assert hook.upload_files([], "Type") == []
    assert requests == []


def test_upload_is_packed_by_the_connection(hook: AmiliHook, client: Any, connect: Connect) -> None:
    """The connection's bounds make the requests; a file that is larger goes alone."""
    connect(extra={**CONNECTION["extra"], "max_files_per_request": 2, "max_request_bytes": 1000})
    hook._settings = None
    client.settings = hook.settings
    requests = answering(client)
    files = [(f"{n}.csv", b"x" * size) for n, size in enumerate((1, 1, 1, 5000, 300, 300))]
    hook.upload_files(files, "Type")
    assert [[f["name"] for f in r["files"]] for r in requests] == [
        ["0.csv", "1.csv"],
        ["2.csv"],
        ["3.csv"],
        ["4.csv", "5.csv"],
    ]


def test_refused_file_is_an_error_with_all_receipts(hook: AmiliHook, client: Any) -> None:
    """One refusal among many fails the call, names the file and carries what became of the others."""
    answering(client, lambda body: reply(body, b="FAILED"))
    with pytest.raises(AmiliUploadRejected, match=r"1 of 2 file\(s\) rejected: b.csv") as failure:
        hook.upload_files([("a.csv", b"1"), ("b.csv", b"2")], "Type")
    assert [r["outcome"] for r in failure.value.receipts] == ["uploaded", "rejected"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (UploadReply(200, b"<html>"), AmiliOutcomeUnknown),
        (UploadReply(200, b'{"files": []}'), AmiliOutcomeUnknown),
        (UploadReply(422, b'{"message": "bad base64"}', RefusedBy.AMILI, "bad base64"), AmiliUploadRejected),
        (UploadReply(413, b"", RefusedBy.GATEWAY, "too large"), AmiliRequestError),
        (AmiliOutcomeUnknown("lost"), AmiliOutcomeUnknown),
        (AmiliConnectionError("down"), AmiliConnectionError),
        (AmiliAuthenticationError("who?"), AmiliAuthenticationError),
    ],
)
def test_upload_is_never_falsely_green(hook: AmiliHook, client: Any, answer: Any, kind: type[AmiliError]) -> None:
    """Only an answer that names each file as accepted is a success."""
    answering(client, answer)
    with pytest.raises(kind):
        hook.upload_files([("a.csv", b"1")], "Type")


def test_failure_after_a_success_is_permanent(hook: AmiliHook, client: Any, connect: Connect) -> None:
    """Some files were accepted, so that a retry of everything would send them twice."""
    connect(extra={**CONNECTION["extra"], "max_files_per_request": 1})
    hook._settings = None
    client.settings = hook.settings
    answering(client, reply, AmiliConnectionError("down"))
    with pytest.raises(AmiliDeliveryFailed, match=r"1 of 3 file\(s\) were uploaded.*down") as failure:
        hook.upload_files([("a.csv", b"1"), ("b.csv", b"2"), ("c.csv", b"3")], "Type")
    assert [r["outcome"] for r in failure.value.receipts] == ["uploaded", "not_sent", "not_sent"]
    assert client.post_files.call_count == 2


def test_file_that_changes_is_not_sent(hook: AmiliHook, client: Any, tmp_path: Path) -> None:
    """What was hashed is what is sent, or nothing."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")

    def post(_client_no: str, body: Any) -> UploadReply:
        path.write_bytes(b"two!")
        return reply(b"".join(body))

    client.post_files.side_effect = post
    with pytest.raises(AmiliStorageError, match="was changed"):
        hook.upload_files([path], "Type")


@pytest.mark.parametrize(
    ("files", "file_type", "words"),
    [
        ("a.csv", "Type", "files is one path"),
        (b"a.csv", "Type", "files is one path"),
        ([b"content"], "Type", "files holds a bytes"),
        ([("a.csv", "text")], "Type", "files holds a tuple"),
        ([("a.csv", b"1"), ("a.csv", b"2")], "Type", "'a.csv' twice"),
        ([("a/b.csv", b"1")], "Type", "not a file name"),
        ([("a\n.csv", b"1")], "Type", "not a file name"),
        ([(" ", b"1")], "Type", "not a file name"),
        ([("a.csv", b"1")], " ", "file_type is empty"),
        ([("a.csv", b"1")], "a\nb", "file_type is empty or holds invisible"),
    ],
)
def test_wrong_arguments(hook: AmiliHook, client: Any, files: Any, file_type: str, words: str) -> None:
    """Wrong arguments are refused before anything is sent."""
    requests = answering(client)
    with pytest.raises(ValueError, match=words):
        hook.upload_files(files, file_type)
    assert requests == []


def test_missing_file(hook: AmiliHook, client: Any, tmp_path: Path) -> None:
    """A file that is not there is that, and nothing is sent."""
    requests = answering(client)
    with pytest.raises(FileNotFoundError):
        hook.upload_files([("a.csv", b"1"), tmp_path / "b.csv"], "Type")
    assert requests == []


def test_a_connection_that_airflow_cannot_read_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow passes over a variable with broken JSON, and says that there is no connection."""
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", '{"conn_type": "amili", }')
    with pytest.raises(AmiliArgumentError, match="AIRFLOW_CONN_BROKEN is set, but Airflow cannot read it"):
        AmiliHook("broken").settings  # noqa: B018 - looking it up is what fails


def test_importing_the_hook_does_not_import_the_http_library() -> None:
    """On older Airflow the library costs a fifth of a second, which DAG files need not pay."""
    code = (
        "import airflow.providers.common.compat.sdk as sdk, sys; sdk.BaseHook; before = set(sys.modules);"
        "import amili_provider.hooks.amili;"
        "print([m for m in set(sys.modules) - before if m.startswith(('httpx', 'amili_provider.api'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip().splitlines()[-1] == "[]"
