"""Wrong arguments are one clear sentence, before anything is sent."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from amili_provider.exceptions import (
    AmiliArgumentError,
    AmiliDeliveryIncomplete,
    AmiliError,
    AmiliLedgerUnavailable,
    AmiliPermanentError,
)
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.report_lines import LOG_WIDTH
from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import new_ledger, run_sql
from tests.wire.conftest import FakeTaskInstance, Upload
from tests.words import across_lines, one_line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"if_no_files": "ignore"}, "if_no_files must be one of 'fail', 'skip', 'succeed'"),
        ({"if_unknown": "guess"}, "if_unknown must be one of 'fail', 'check', 'resend'"),
        ({"file_type": "  "}, "file_type is empty"),
        ({"file_type": "a\nb"}, "file_type must be one line"),
        ({"file_type": "None"}, "file_type is empty"),
        ({"client_no": "22/18"}, "client_no"),
        ({"client_no": "2218\r\n"}, "client_no"),
        ({"client_no": "22\n18"}, "client_no"),
        ({"force": "maybe"}, "force"),
        ({"dry_run": "maybe"}, "dry_run"),
        ({"force": 2}, "force"),
        ({"ledger": ""}, "ledger is empty"),
        ({"expect": "  "}, "expect holds '  '"),
        ({"expect": ["a.csv", ""]}, "expect holds ''"),
        ({"expect": ["a.csv", 7]}, "expect holds 7"),
        ({"expect": {"a.csv": 1}}, "expect must be a pattern of file names or a list"),
        ({"expect": 7}, "expect must be a pattern of file names or a list"),
        ({"expect": "['a.csv', 'b.csv']"}, r"expect looks like a list that was printed as text.*\.output"),
        ({"expect": "day/a*.csv"}, r"expect names files, not paths: write 'a\*\.csv'"),
        ({"min_files": 0}, "min_files must be at least 1"),
        ({"min_files": ""}, "min_files must be a whole number"),
        ({"max_files": 0}, "max_files must be at least 1"),
        ({"max_files": "many"}, "max_files must be a whole number"),
        ({"max_files": float("inf")}, "max_files must be a whole number"),
        pytest.param({"stable_for": 10**400}, "stable_for must be a number of seconds", id="a number without end"),
        ({"max_concurrent_requests": -2}, "max_concurrent_requests must be at least 1"),
        ({"max_memory_bytes": 10}, "max_memory_bytes must be at least"),
        ({"stable_for": -1}, "stable_for must be 0 or more"),
        ({"ignore": "odd"}, "ignore takes any of"),
        ({"ignore": 5}, "ignore must be a list of"),
        ({"amili_conn_id": None}, "amili_conn_id is None; name a connection"),
        ({"amili_conn_id": 5}, "amili_conn_id is 5; name a connection"),
        ({"source": ""}, "source is empty"),
        ({"source": "/in/*.csv\n"}, "holds a line break"),
        ({"source": "s3://"}, "names no bucket"),
        ({"source": "s3:///out/*.csv", "if_no_files": "succeed"}, "names no bucket"),
        ({"source": None}, "source must be a path or a list"),
        ({"source": 7}, "source must be a path or a list"),
        ({"source": "['/a.csv', '/b.csv']"}, r"printed as text.*\.output"),
        ({"source": "['https://h/a?s=canary', 'https://h/b']"}, r"^((?!canary).)*$"),
        ({"source": "https://h/a?s=canary\nhttps://h/b?s=canary"}, r"^((?!canary).)*$"),
        ({"source": ["/a.csv", ""]}, "source is empty"),
        ({"user_id": "a\nb"}, "user_id must be one line"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, arguments: dict[str, Any], words: str
) -> None:
    """ValueError names the argument; no request was made."""
    (outbound / "a.csv").write_bytes(b"1")
    with pytest.raises(ValueError, match=f"(?s){words}") as caught:
        upload(**arguments)
    assert isinstance(caught.value, AmiliPermanentError)  # a retry cannot help
    assert not amili_sandbox.requests


@pytest.mark.parametrize("seconds", [1e12, float("inf"), float("nan")], ids=str)
@pytest.mark.parametrize("name", ["answer_timeout", "connect_timeout"])
def test_an_absurd_time_out_is_found_at_the_start(
    upload: Upload, outbound: Path, connect: Any, name: str, seconds: float
) -> None:
    """A time-out that no system takes would break a request in its middle; it is a wrong field instead."""
    (outbound / "a.csv").write_bytes(b"1")
    amili = connect(**{name: seconds})
    with pytest.raises(AmiliArgumentError, match=across_lines(rf"extra '{name}'\) is .*up to 86400")):
        upload()
    assert not amili.requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": "outbound/*.csv"}, "The path 'outbound/\\*.csv' is relative"),
        ({"source": "file:/tmp"}, "The path 'file:/tmp' is relative"),
        ({"source": "file://tmp/x.csv"}, "names the host 'tmp'.*three slashes"),
        ({"archive_to": "{outbound}/"}, "archive_to=.* is inside the source"),
        ({"archive_to": "done"}, "The path 'done' is relative"),
        ({"reject_to": "{outbound}/*"}, "reject_to=.* is a pattern"),
        ({"ledger": "my-ledger"}, "The ledger cannot be kept in 'my-ledger'.*a table of a database"),
        ({"amili_conn_id": "nowhere"}, "There is no Airflow connection with the id 'nowhere'"),
    ],
    ids=str,
)
def test_a_wrong_path_is_permanent_and_one_sentence(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, arguments: dict[str, str], words: str
) -> None:
    """What is only found out while listing and opening ends the task as well, without a second traceback."""
    (outbound / "a.csv").write_bytes(b"1")
    given = {name: value.format(outbound=outbound) for name, value in arguments.items()}
    with pytest.raises(AmiliArgumentError, match=across_lines(words)) as caught:
        upload(**given)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None
    assert not amili_sandbox.requests


def test_a_value_error_that_is_none_about_an_argument_stays_what_it_is(
    upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text that cannot be decoded is no wrong argument: Airflow retries."""
    (outbound / "a.csv").write_bytes(b"1")

    def undecodable(*_: Any, **__: Any) -> Any:
        return b"\xff".decode()

    monkeypatch.setattr("amili_provider.delivery.run.list_files", undecodable)
    with pytest.raises(UnicodeDecodeError):
        upload()


def test_a_template_that_renders_to_nothing_is_named(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A typing error in ``file_name`` is told as that, not as a file without a name."""
    (outbound / "a.csv").write_bytes(b"1")
    with pytest.raises(AmiliPermanentError) as caught:
        upload(file_name="{{ file.nam }}")
    # The message is wrapped to a screen's width.
    said = " ".join(str(caught.value).split())
    assert "template file_name='{{ file.nam }}' rendered to an empty name" in said
    assert not amili_sandbox.uploads


@pytest.mark.parametrize("said", [True, "true", "1", "YES", False, "False", "0", "no", "", "none"])
def test_templated_booleans_are_read_in_any_case(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, said: Any
) -> None:
    """A template gives text; a dry run sends nothing and ends skipped, with receipts."""
    (outbound / "a.csv").write_bytes(b"1")
    ti = FakeTaskInstance()
    if said in (True, "true", "1", "YES"):
        with pytest.raises(AirflowSkipException, match="Dry run"):
            upload(ti, dry_run=said)
        assert ti.pushed["return_value"][0]["outcome"] == "skipped"
        assert "Dry run: would be sent" in ti.pushed["return_value"][0]["message"]
        assert not amili_sandbox.uploads
    else:
        assert upload(dry_run=said)[0]["outcome"] == "uploaded"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"auth_url": "http://auth.example.com"}, "Token service URL.*says http://"),
        ({"ledger": None}, r"No ledger is named.*ledger=None"),
        ({"client_no": None}, "Client number"),
        ({"answer_timeout": -5}, "Answer time-out"),
        ({"verify": "perhaps"}, "Verify TLS"),
        ({"ca_file": "/nowhere.pem"}, "CA file.*cannot be read"),
    ],
    ids=str,
)
def test_a_wrong_connection_is_one_sentence_naming_the_field(
    upload: Upload, outbound: Path, connect: Callable[..., SandboxServer], extra: dict[str, Any], words: str
) -> None:
    """The field is named as the form labels it; no request was made."""
    amili = connect(**extra)
    (outbound / "a.csv").write_bytes(b"1")
    with pytest.raises(ValueError, match=f"(?s){words}") as caught:
        upload()
    assert isinstance(caught.value, AmiliPermanentError)  # a retry cannot help
    assert not amili.requests


def test_too_many_files_are_an_error_before_anything_is_sent(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A wrong glob must not flood a collection agency."""
    for number in range(4):
        (outbound / f"{number}.csv").write_bytes(b"%d" % number)
    with pytest.raises(Exception, match="max_files=3"):
        upload(max_files=3)
    assert not amili_sandbox.requests


def test_hidden_temporary_and_empty_files_are_skipped_with_the_reason(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """What a partner's transfer program leaves around is not an invoice; a parameter says otherwise."""
    for name, data in ((".hidden.csv", b"1"), ("a.csv.part", b"2"), ("empty.csv", b""), ("a.csv", b"3")):
        (outbound / name).write_bytes(data)
    receipts = upload(source=f"{outbound}/")
    assert {r["name"]: r["outcome"] for r in receipts} == {
        ".hidden.csv": "skipped",
        "a.csv.part": "skipped",
        "empty.csv": "skipped",
        "a.csv": "uploaded",
    }
    assert all(r["message"] for r in receipts)
    assert len(amili_sandbox.uploads) == 1
    assert {r["outcome"] for r in upload(source=f"{outbound}/", ignore=())} == {"uploaded", "already_uploaded"}
    assert len(amili_sandbox.uploads) == 4


def test_a_file_still_being_written_is_not_sent_yet_and_named_in_the_log(
    upload: Upload,
    outbound: Path,
    amili_sandbox: SandboxServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """``stable_for`` tells a file that grows from one that is whole, and Airflow's retry sends it."""
    ti = FakeTaskInstance()
    (outbound / "whole.csv").write_bytes(b"whole")
    growing = outbound / "growing.csv"
    growing.write_bytes(b"beg")
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.02):
            with growing.open("ab") as file:
                file.write(b"x")

    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO):
        writing = pool.submit(write)
        try:
            with pytest.raises(AmiliDeliveryIncomplete, match=r"growing\.csv.*Still being written"):
                upload(ti, stable_for=1)
        finally:
            done.set()
        writing.result()
    receipts = ti.pushed["return_value"]
    assert {r["name"]: r["outcome"] for r in receipts} == {"growing.csv": "not_sent", "whole.csv": "uploaded"}
    assert [u.sha256 for u in amili_sandbox.uploads] == [hashlib.sha256(b"whole").hexdigest()]
    # Airflow's versions differ in where a task's logger writes.
    said = (caplog.text + capfd.readouterr().out).splitlines()
    found = {line.partition("Found 2 file(s), ")[2] for line in said} - {""}
    assert len(found) == 2, said  # before and after the wait: other sizes
    assert any("growing.csv" in line and "Still being written" in line for line in said), said
    assert {r["name"]: r["outcome"] for r in upload()} == {"growing.csv": "uploaded", "whole.csv": "already_uploaded"}


def test_without_a_ledger_a_task_that_sent_something_is_not_retried(
    upload: Upload, connect: Callable[..., SandboxServer], outbound: Path
) -> None:
    """A retry would send the accepted file again, so the failure is permanent and says so."""
    amili_sandbox = connect(max_files_per_request=1)
    (outbound / "a.csv").write_bytes(b"1")
    (outbound / "b.csv").write_bytes(b"2")
    busy = {"status": 429, "headers": {"Retry-After": "900"}, "times": None}
    amili_sandbox.faults.add("upload", nth=2, **busy)
    with pytest.raises(AmiliPermanentError, match=r"(?s)ledger=None.*[ab]\.csv"):
        upload(ledger="None", max_concurrent_requests=1)
    amili_sandbox.faults.clear()
    amili_sandbox.faults.add("upload", **busy)
    with pytest.raises(AmiliDeliveryIncomplete):
        upload(ledger=None)


def test_what_a_template_makes_of_none_is_none(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """``"{{ params.user }}"`` without a user is no user of the name None."""
    (outbound / "a.csv").write_bytes(b"1")
    none = dict.fromkeys(("user_id", "source_conn_id", "archive_to", "reject_to"), "None")
    (receipt,) = upload(**none)
    assert receipt["outcome"] == "uploaded"
    assert receipt["message"] is None or "oved" not in receipt["message"]
    assert (outbound / "a.csv").exists()
    assert len(amili_sandbox.uploads) == 1


@pytest.mark.parametrize("native", [True, False])
def test_a_file_name_is_text_also_where_templates_are_rendered_as_objects(
    outbound: Path, connect: Callable[..., SandboxServer], native: bool
) -> None:
    """``20250101_001`` is a number to Python."""
    from airflow.providers.common.compat.sdk import DAG

    amili = connect()
    (outbound / "20250101_001.csv").write_bytes(b"1")
    with DAG("native", schedule=None, render_template_as_native_obj=native):
        operator = AmiliFileUploadOperator(
            task_id="upload", source=f"{outbound}/*", file_type="InvoiciaFormatDocFile", file_name="{{ file.stem }}"
        )
    (receipt,) = operator.execute({})
    assert receipt["name"] == amili.uploads[0].name == "20250101_001"


def _fits(error: BaseException) -> bool:
    """Return whether Airflow's log view shows a message without scrolling; a path may be longer, but stands alone."""
    first, *others = str(error).splitlines()
    lines = [f"{type(error).__name__}: {first}", *others]
    return all(len(line) <= LOG_WIDTH or len(line.split()) == 1 for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        {"source": "{tmp}/outbound/*.csv"},
        {"source": "{tmp}/outbound/2026-11-20/*.csv"},
        {"source": "{tmp}/share-that-is-not-mounted/outbound/2026-11-20/*.csv"},
        {"source": "{tmp}/outbound/named.csv"},
        {"source": "{tmp}/outbound/skipped*"},
        {"ledger": ""},
        {"ledger": "sqlite:///{tmp}/share-that-is-not-mounted/ledger.db"},
        {"if_unknown": "a word that is none of those that this argument takes, however long it may be"},
        {"source": "ftp://server/outbound/*.csv"},
    ],
    ids=[
        "no files",
        "no folder",
        "no share",
        "no file",
        "all skipped",
        "no ledger",
        "ledger",
        "argument",
        "connection",
    ],
)
def test_what_ends_a_task_early_fits_the_log_view(
    upload: Upload, outbound: Path, tmp_path: Path, arguments: dict[str, str]
) -> None:
    """These are what a new user meets first, and Airflow wraps nothing."""
    for number in range(5):
        (outbound / f"skipped{number}.csv.part").write_bytes(b"1")
    with pytest.raises(Exception, match="^[A-Z'a-z]") as caught:
        upload(**{name: value.format(tmp=tmp_path) for name, value in arguments.items()})
    assert isinstance(caught.value, AmiliError | FileNotFoundError)
    assert len(str(caught.value)) > LOG_WIDTH  # else it proves nothing
    assert _fits(caught.value)


def test_a_ledger_without_rights_says_so_once(upload: Upload, outbound: Path, tmp_path: Path) -> None:
    """In words with a remedy, and without the database's error as a second traceback."""
    (outbound / "a.csv").write_bytes(b"1")
    run_sql(
        new_ledger(tmp_path),
        "CREATE TRIGGER no_rights BEFORE INSERT ON amili_attempts BEGIN SELECT RAISE(ABORT, 'no rights'); END",
    )
    with pytest.raises(AmiliLedgerUnavailable) as caught:
        upload()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    said = one_line(caught.value)
    assert f"sqlite:///{tmp_path}/amili-ledger.db, table amili_attempts" in said
    assert "no rights" in said
    assert "the user who runs the tasks may write the folder and all files in it" in said
    assert _fits(caught.value)


def test_a_file_without_rights_says_what_to_do(upload: Upload, outbound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry alone will not give the worker the right."""
    (outbound / "secret.csv").write_bytes(b"1")
    opened = os.open

    def refused(path: Any, *given: Any, **more: Any) -> int:
        if str(path).endswith("secret.csv"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *given, **more)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(AmiliDeliveryIncomplete) as caught:
        upload()
    said = one_line(caught.value)
    assert "secret.csv: Cannot read this file: permission denied. Give the worker the right to read it." in said
    assert "Errno" not in said
