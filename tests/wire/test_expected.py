"""What must be there: some file at all, each name that is expected, and enough of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliDeliveryFailed,
    AmiliDeliveryIncomplete,
    AmiliFilesMissing,
    AmiliPermanentError,
    AmiliUploadRejected,
)
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.server import SandboxServer
from tests.wire.conftest import FakeTaskInstance, Upload
from tests.words import across_lines, one_line


def write(folder: Path, *names: str) -> None:
    """Write a file of its own bytes for each name."""
    for name in names:
        (folder / name).write_bytes(name.encode())


def names(folder: Path) -> list[str]:
    """Return the names in a folder that may not be there."""
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def outcomes(ti: FakeTaskInstance) -> dict[str, str]:
    """Return what was published."""
    return {r["name"]: r["outcome"] for r in ti.pushed["return_value"]}


@pytest.fixture(name="said")
def _said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return what was logged so far, line by line; Airflow's versions differ in where a task's logger writes."""
    caplog.set_level("INFO")

    def lines() -> list[str]:
        return (caplog.text + capfd.readouterr().out).splitlines()

    return lines


# No files


def test_a_day_without_files_fails_unless_another_end_is_chosen(upload: Upload, outbound: Path) -> None:
    """Airflow retries the failure; a skip and an empty success have to be asked for."""
    ti = FakeTaskInstance()
    with pytest.raises(AmiliFilesMissing, match=across_lines(f"No files match file://{outbound}/")) as caught:
        upload(ti)
    assert isinstance(caught.value, FileNotFoundError)
    assert not isinstance(caught.value, AmiliPermanentError)
    assert ti.pushed["return_value"] == []
    with pytest.raises(AmiliFilesMissing, match="No files match an empty list of paths"):
        upload(source=[])
    assert upload(if_no_files="succeed") == []
    assert upload(if_no_files="succeed", source=[]) == []


def test_the_way_out_that_the_message_names_works(upload: Upload, outbound: Path) -> None:
    """Whoever says ``if_no_files='skip'`` is skipped."""
    with pytest.raises(AmiliFilesMissing, match="say if_no_files='skip'"):
        upload()
    ti = FakeTaskInstance()
    with pytest.raises(AirflowSkipException, match=f"No files match file://{outbound}/"):
        upload(ti, if_no_files="skip")
    assert ti.pushed["return_value"] == []


@pytest.mark.parametrize("pattern", ["2025-03-01/*.csv", "2025-03-01/", "2025-03-01/**"])
def test_the_missing_folder_of_a_day_is_a_day_without_files(upload: Upload, outbound: Path, pattern: str) -> None:
    """As on an object store, which has no folders; the sentence says which folder it is."""
    source = f"{outbound}/{pattern}"
    with pytest.raises(AirflowSkipException, match=across_lines(r"No files match .*2025-03-01 does not exist\.")):
        upload(source=source, if_no_files="skip")
    assert upload(source=source, if_no_files="succeed") == []
    with pytest.raises(AmiliFilesMissing, match=across_lines(r"2025-03-01 does not exist\.")):
        upload(source=source)


@pytest.mark.parametrize("missing", ["{tmp}/missing.csv", "{tmp}/share/2025-03-01/*.csv", "{tmp}/share/2025-03-01/"])
@pytest.mark.parametrize("end", ["fail", "skip", "succeed"])
def test_a_missing_file_or_share_is_an_error_whatever_is_chosen(
    upload: Upload, tmp_path: Path, missing: str, end: str
) -> None:
    """A file that was named, or a folder whose own folder is missing (a share that is not mounted), is no empty day."""
    with pytest.raises(
        FileNotFoundError, match=r"\nCorrect the path, or create the folder if it names one\.$"
    ) as caught:
        upload(if_no_files=end, source=missing.format(tmp=tmp_path))
    assert not isinstance(caught.value, AmiliFilesMissing)


@pytest.mark.parametrize("end", ["fail", "skip", "succeed"])
def test_a_day_of_which_every_file_is_skipped_ends_like_one_without_files(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, said: Callable[[], list[str]], end: str
) -> None:
    """Nothing was delivered, so the task is not green by itself; each reason is counted and names its files."""
    write(outbound, "a.csv.part", ".hidden.csv")
    for number in range(5):
        (outbound / f"empty{number}.csv").touch()
    ti = FakeTaskInstance()
    if end == "succeed":
        assert len(upload(ti, if_no_files=end)) == 7
    else:
        expected = AmiliFilesMissing if end == "fail" else AirflowSkipException
        with pytest.raises(expected, match="^All 7 files that match") as caught:
            upload(ti, if_no_files=end)
        if isinstance(caught.value, AmiliFilesMissing):
            assert caught.value.receipts == ti.pushed["return_value"]
    assert set(outcomes(ti).values()) == {"skipped"}
    assert not amili_sandbox.uploads
    last = one_line(" ".join(said()))
    assert f"file://{outbound}/*" in last
    assert "5 file(s), empty0.csv, empty1.csv, empty2.csv and 2 more: It is empty (0 bytes)." in last
    assert "1 file(s), a.csv.part: Its name is that of a temporary file." in last
    assert "1 file(s), .hidden.csv: It is hidden" in last


def test_no_asset_event_without_a_delivery(connect: Callable[..., SandboxServer], outbound: Path) -> None:
    """A green task that delivered nothing has no outlets left; one whose files were all delivered before keeps them."""
    connect()

    class Asset:
        uri = "amili://delivered"

    def outlets_after(**arguments: Any) -> list[Any]:
        operator = AmiliFileUploadOperator(
            task_id="upload", source=f"{outbound}/*", file_type="InvoiciaFormatDocFile", **arguments
        )
        operator.outlets = [Asset()]
        operator.execute({})
        return list(operator.outlets)

    assert outlets_after(if_no_files="succeed") == []
    (outbound / "empty.csv").touch()
    assert outlets_after(if_no_files="succeed") == []
    write(outbound, "a.csv")
    assert len(outlets_after()) == 1
    assert len(outlets_after()) == 1  # a retry of a task that was killed after it had delivered


# The log


def test_the_first_lines_say_where_to_and_the_next_from_where(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """Client number, file type, address and ledger come first, then the source as it was rendered."""
    write(outbound, "a.csv")
    upload()
    lines = said()
    places = [
        next(number for number, line in enumerate(lines) if words in line)
        for words in (
            f"Delivering as client 2218, InvoiciaFormatDocFile, to {amili_sandbox.url}/arm/v1",
            f"Ledger: sqlite:///{tmp_path}/amili-ledger.db, table amili_attempts (",
            f"Found 1 file(s), 5 B, in file://{outbound}/*",
            "Request ",
        )
    ]
    assert places == sorted(places)


def test_a_long_list_of_paths_shows_the_first(upload: Upload, outbound: Path, said: Callable[[], list[str]]) -> None:
    """A thousand paths do not fill the log."""
    write(outbound, *(f"{number}.csv" for number in range(5)))
    upload(source=[f"{outbound}/{number}.csv" for number in range(5)])
    found = next(line for line in said() if "Found 5 file(s)" in line)
    assert "1.csv, file://" in found
    assert "2.csv and 2 more" in found
    assert "3.csv" not in found


@pytest.fixture(name="site")
def _site() -> Iterator[str]:
    """The address of a web server that has one file at every path."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"one")

        do_HEAD = do_GET  # noqa: N815 - the name that the server asks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_the_signature_of_an_address_is_in_no_line(upload: Upload, site: str, said: Callable[[], list[str]]) -> None:
    """The line that names the source, and the sentence of what is missing in it, show the address without its query."""
    with pytest.raises(AmiliFilesMissing, match=f"{site}/a.csv\n") as caught:
        upload(source=f"{site}/a.csv?signature=canary", expect="b.csv")
    assert "canary" not in str(caught.value)
    lines = said()
    assert any(f"in {site}/a.csv (" in line for line in lines)
    assert not any("canary" in line for line in lines)


# Expected files


def test_what_is_there_is_delivered_and_what_is_missing_is_named(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The failure is one that Airflow retries, and names the patterns and the source."""
    write(outbound, "fees_01.csv", "invoices_01.csv")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliFilesMissing) as caught:
        upload(ti, expect=["invoices_*.csv", "fees_*.csv", "credits_*.csv", "log.txt"])
    assert not isinstance(caught.value, AmiliPermanentError)
    assert outcomes(ti) == {"fees_01.csv": "uploaded", "invoices_01.csv": "uploaded"}
    assert len(amili_sandbox.uploads) == 2
    assert caught.value.missing == ["No file matches 'credits_*.csv'.", "No file matches 'log.txt'."]
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["Missing: no file matches 'credits_*.csv'.", "Missing: no file matches 'log.txt'."]
    assert f"file://{outbound}/*" in " ".join(lines[2:4])
    assert lines[-1] == "2 file(s): 2 uploaded (client 2218, InvoiciaFormatDocFile)"
    write(outbound, "credits_01.csv", "log.txt")
    receipts = upload(ti, expect=["invoices_*.csv", "fees_*.csv", "credits_*.csv", "log.txt"])
    assert sorted(r["outcome"] for r in receipts) == ["already_uploaded"] * 2 + ["uploaded"] * 2


def test_an_expected_file_that_was_skipped_did_not_arrive(upload: Upload, outbound: Path) -> None:
    """The message says that it is there, and why it does not count."""
    write(outbound, "a.csv", "c.csv.part")
    (outbound / "b.csv").touch()
    with pytest.raises(AmiliFilesMissing) as caught:
        upload(expect=["a.csv", "b.csv", "c.csv*"], min_files=3)
    assert caught.value.missing == [
        "No file matches 'b.csv' (b.csv is there, but skipped: it is empty (0 bytes)).",
        "No file matches 'c.csv*' (c.csv.part is there, but skipped: its name is that of a temporary file).",
        "There are 1 file(s), and 2 that are skipped; min_files=3.",
    ]
    assert {r["name"]: r["outcome"] for r in caught.value.receipts} == {"b.csv": "skipped", "c.csv.part": "skipped"}


@pytest.mark.parametrize("end", ["fail", "skip", "succeed"])
@pytest.mark.parametrize("wanted", [{"expect": "a.csv"}, {"min_files": "2"}], ids=str)
def test_what_is_expected_is_missing_also_where_there_is_nothing(
    upload: Upload, outbound: Path, wanted: dict[str, Any], end: str
) -> None:
    """Whoever expects a file is not content with none, nor with the missing folder of the day, which is named."""
    with pytest.raises(AmiliFilesMissing, match="^Missing: ") as caught:
        upload(if_no_files=end, **wanted)
    assert "does not exist" not in str(caught.value)
    day = f"{outbound}/2025-03-01"
    with pytest.raises(AmiliFilesMissing, match="^Missing: ") as caught:
        upload(source=f"{day}/*", if_no_files=end, **wanted)
    assert f"Missing: the folder file://{day} does not exist." in one_line(caught.value)


@pytest.mark.parametrize("number", [2, "2"])
def test_min_files_is_met_by_delivered_and_tried_files(upload: Upload, outbound: Path, number: Any) -> None:
    """A template gives text; what was delivered before counts."""
    write(outbound, "a.csv")
    with pytest.raises(AmiliFilesMissing, match=r"^Missing: there are 1 file\(s\); min_files=2\."):
        upload(min_files=number)
    write(outbound, "b.csv")
    assert len(upload(min_files=number)) == 2
    assert len(upload(min_files=number, expect=None)) == 2
    assert len(upload(min_files="None", expect="None")) == 2


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("br[1].csv", "br[1].csv"),
        ("br1.csv", "br[1].csv"),
        ("a*.csv", "a*.csv"),
        ("blåbær.csv", "bla\N{COMBINING RING ABOVE}b*.csv"),
        ("a.csv", "[!b].csv"),
    ],
)
def test_an_expected_name_matches_as_a_source_does(upload: Upload, outbound: Path, name: str, pattern: str) -> None:
    """As it is written or as a pattern, in any normal form."""
    write(outbound, name)
    assert len(upload(source=f"{outbound}/", expect=pattern)) == 1


def test_expected_is_the_name_at_the_source_and_case_counts(upload: Upload, outbound: Path) -> None:
    """The name that ``file_name`` makes for Amili is not looked at; a name of other case is pointed out."""
    write(outbound, "FEES_1.csv")
    assert len(upload(expect="FEES_?.csv", file_name="{{ file.index }}.csv")) == 1
    with pytest.raises(AmiliFilesMissing) as caught:
        upload(expect="fees_1.csv")
    assert "no file matches 'fees_1.csv' (FEES_1.csv is there: upper and lower case differ)." in one_line(caught.value)


def test_files_stay_until_all_that_are_expected_were_delivered(
    upload: Upload, outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """What the first try delivered is found by the second, which has the rest; then all of it is archived."""
    arguments = {"expect": ["a.csv", "b.csv"], "min_files": 2, "archive_to": str(tmp_path / "archive")}
    ti = FakeTaskInstance()
    write(outbound, "a.csv")
    with pytest.raises(AmiliFilesMissing, match=r"'b\.csv'"):
        upload(ti, **arguments)
    assert names(outbound) == ["a.csv"]
    assert "Not moved yet" in ti.pushed["return_value"][0]["message"]
    write(outbound, "b.csv")
    receipts = upload(ti, **arguments)
    assert {r["name"]: r["outcome"] for r in receipts} == {"a.csv": "already_uploaded", "b.csv": "uploaded"}
    assert names(outbound) == []
    assert names(tmp_path / "archive") == ["a.csv", "b.csv"]
    assert len(amili_sandbox.uploads) == 2


def test_files_stay_also_while_another_could_not_be_tried(
    upload: Upload, outbound: Path, tmp_path: Path, connect: Callable[..., SandboxServer]
) -> None:
    """A retry for another cause must find what is expected, too."""
    amili = connect(max_files_per_request=1)
    arguments = {"min_files": 2, "archive_to": str(tmp_path / "archive"), "max_concurrent_requests": 1}
    write(outbound, "a.csv", "b.csv")
    amili.faults.add("upload", nth=2, status=429, headers={"Retry-After": "900"})
    with pytest.raises(AmiliDeliveryIncomplete):
        upload(**arguments)
    assert names(outbound) == ["a.csv", "b.csv"]
    amili.faults.clear()
    assert sorted(r["outcome"] for r in upload(**arguments)) == ["already_uploaded", "uploaded"]
    assert names(tmp_path / "archive") == ["a.csv", "b.csv"]


def test_a_refused_file_is_not_moved_before_the_last_try(
    upload: Upload, outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """Were it out of the way, the retry that Airflow makes for another file would end green over it."""
    (outbound / "bad.csv").write_bytes(b"REJECT: no such debtor")
    write(outbound, "a.csv")
    arguments = {"reject_to": str(tmp_path / "refused"), "archive_to": str(tmp_path / "archive")}
    ti = FakeTaskInstance()
    with pytest.raises(AmiliFilesMissing, match=r"(?s)'b\.csv'.*bad\.csv.*no such debtor"):
        upload(ti, expect=["a.csv", "b.csv"], **arguments)
    assert outcomes(ti) == {"a.csv": "uploaded", "bad.csv": "rejected"}
    assert names(outbound) == ["a.csv", "bad.csv"]
    write(outbound, "b.csv")
    with pytest.raises(AmiliUploadRejected, match=r"bad\.csv"):
        upload(ti, expect=["a.csv", "b.csv"], **arguments)
    assert names(tmp_path / "refused") == ["bad.csv"]
    assert names(outbound) == ["a.csv", "b.csv"]
    assert len(upload(ti, expect=["a.csv", "b.csv"], **arguments)) == 2
    assert names(tmp_path / "archive") == ["a.csv", "b.csv"]
    assert len(amili_sandbox.uploads) == 2


def test_without_a_ledger_nothing_is_retried_for_what_is_missing(
    upload: Upload, outbound: Path, tmp_path: Path, amili_sandbox: SandboxServer
) -> None:
    """A retry would send what is there a second time; where nothing was sent, it may look again."""
    with pytest.raises(AmiliFilesMissing):
        upload(ledger=None, expect="b.csv")
    write(outbound, "a.csv")
    with pytest.raises(AmiliDeliveryFailed, match=r"(?s)ledger=None.*'b\.csv'"):
        upload(ledger=None, expect="b.csv", archive_to=str(tmp_path / "archive"))
    # Only its move keeps it from being sent again.
    assert names(tmp_path / "archive") == ["a.csv"]
    assert len(amili_sandbox.uploads) == 1


def test_a_wrong_configuration_does_not_wait_for_what_is_missing(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """No retry mends credentials; the message names both."""
    write(outbound, "a.csv")
    amili_sandbox.faults.add("upload", status=403, times=None)
    with pytest.raises(AmiliAuthenticationError, match=r"'b\.csv'"):
        upload(expect="b.csv")
