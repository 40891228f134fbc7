"""Odd names through the front door: each is one receipt, costs no other file anything, and has a way out that works."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import AmiliArgumentError, AmiliDeliveryFailed
from amili_provider.operators.assets import dataset_of
from amili_provider.operators.buckets import AmiliFileBucketsOperator
from amili_provider.sandbox.server import SandboxServer
from amili_provider.storage.listing import list_files
from tests.wire.conftest import FakeTaskInstance, Upload

ODD = {
    "soft hyphen": "fak\u00adtura.csv",
    "zero-width space": "fak\u200btura.csv",
    "byte order mark": "\ufefffaktura.csv",
    "trailing blank": "faktura.csv ",
    "leading blank": " faktura.csv",
    "backslash": "in\\faktura.csv",
    "direction mark": "faktura\u202efdp.csv",
    "doubled joiner": "fak\u200d\u200dtura.csv",
    "not UTF-8": "faktura\udce6.csv",
    "line break": "faktura.csv\n[2026-01-01] INFO - uploaded: forged.csv",
    "escape code": "fak\x1b[2J\x1b]0;t\x07tura.csv",
    "control": "fak\x01tura\x7f\x85.csv",
    "nothing to see": "\u200b",
    "long and odd": "\u200b" * 40 + "fakturå" * 15 + ".csv",
    "in the suffix": "faktura.c\u00adsv\u200b ",
}
ADVICE = re.compile(r"file_name='(.*?)'")


def _put(folder: Path, name: str, data: bytes = b"odd") -> None:
    with open(os.fsencode(folder) + b"/" + os.fsencode(name), "wb") as out:  # noqa: PTH123 - a name that is no text
        out.write(data)


def _refused(upload: Upload, **arguments: Any) -> tuple[list[dict[str, Any]], str]:
    """Return the receipts and the message of a run that cannot send a file."""
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryFailed) as caught:
        upload(ti, **arguments)
    return ti.pushed["return_value"], str(caught.value)


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_an_odd_name_is_one_receipt_and_following_its_message_delivers_it(
    name: str, upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """The others go out, the receipt names this very file in one safe line, and its advice, taken literally, works."""
    _put(outbound, name)
    (outbound / "good.csv").write_bytes(b"good")
    receipts, message = _refused(upload)
    assert sorted(r["outcome"] for r in receipts) == ["not_sent", "uploaded"]
    odd = next(r for r in receipts if r["outcome"] == "not_sent")
    assert json.dumps(receipts, ensure_ascii=False).encode()
    assert len(odd["message"]) <= 300
    assert all(line.isprintable() for line in (odd["name"], odd["source"], odd["message"], *message.splitlines()))
    assert odd["source"].strip() in message
    [found] = list_files(f"exact:{odd['source']}", None)
    assert found.path == f"{outbound}/{name}"

    advice = ADVICE.search(message)
    assert advice is not None
    assert advice[0] in odd["message"]
    receipts = upload(file_name=advice[1])
    assert sorted(r["outcome"] for r in receipts) == ["already_uploaded", "uploaded"]
    assert {(u.name, u.sha256) for u in amili_sandbox.uploads} == {(r["name"], r["sha256"]) for r in receipts}
    assert next(r["name"] for r in receipts if r["outcome"] == "already_uploaded") == "good.csv"


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_an_index_and_the_suffix_are_a_name_for_every_file(name: str, upload: Upload, outbound: Path) -> None:
    """A template that leaves out the stem needs to know nothing of what a suffix may hold."""
    _put(outbound, name)
    [receipt] = upload(file_name="{{ file.index }}{{ file.suffix }}")
    assert receipt["outcome"] == "uploaded"
    assert receipt["name"] in ("0", "0.csv")


def test_all_odd_names_at_once_are_told_apart(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names that look alike stay different, here and at Amili, and none makes a line of the log."""
    for number, name in enumerate(ODD.values()):
        _put(outbound, name, b"%d" % number)
    receipts, message = _refused(upload)
    assert [r["outcome"] for r in receipts] == ["not_sent"] * len(ODD)
    assert len({r["source"] for r in receipts}) == len(ODD)
    assert all(line.isprintable() for line in message.splitlines())
    receipts = upload(file_name="{{ file.safe_name }}")
    assert len({u.name for u in amili_sandbox.uploads}) == len(ODD)
    assert {receipt["outcome"] for receipt in receipts} == {"uploaded"}
    assert all("".join(dataset_of(r["source"])).isprintable() for r in receipts)
    told = capfd.readouterr()
    assert "forged" in told.out
    assert not re.search(r"^\[2026|\x1b\[2J", told.out + told.err, re.MULTILINE)


def test_a_joined_emoji_is_a_name_like_another(upload: Upload, outbound: Path, amili_sandbox: SandboxServer) -> None:
    """What joins its pictures belongs to it, and Amili gets it as it is."""
    _put(outbound, "👨\u200d👩\u200d👧.csv")
    [receipt] = upload()
    assert (receipt["outcome"], receipt["name"]) == ("uploaded", "👨\u200d👩\u200d👧.csv")
    assert [u.name for u in amili_sandbox.uploads] == ["👨\u200d👩\u200d👧.csv"]


def test_following_the_message_makes_equal_names_differ(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Whatever the names are, two folders or two ways to write one: the advice, taken literally, works."""
    longest = "ø" * 125 + ".csv"
    for number, path in enumerate(("x/a.csv", "y/A.csv", f"x/{longest}", f"y/{longest}")):
        (outbound / path).parent.mkdir(exist_ok=True)
        (outbound / path).write_bytes(b"%d" % number)
    receipts, _ = _refused(upload, source=f"{outbound}/**")
    assert {r["outcome"] for r in receipts} == {"not_sent"}
    advice = ADVICE.search(receipts[0]["message"])
    assert advice is not None
    assert {r["outcome"] for r in upload(source=f"{outbound}/**", file_name=advice[1])} == {"uploaded"}
    assert len({u.name for u in amili_sandbox.uploads}) == 4


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ file.stem.split('_')[1].upper() }}.csv", "UndefinedError"),
        ("{{ 1 // (file.stem | length - 3) }}{{ file.name }}", "ZeroDivisionError"),
        ("{% if '_' in file.name %}{{ file.name }}{% else %}{{ 'a\n' + 1 }}{% endif %}", "TypeError"),
        ("{% if '_' in file.name %}{{ file.name }}{% endif %}", "rendered to an empty name"),
    ],
)
def test_a_template_that_fails_for_a_file_fails_that_file(
    template: str, error: str, upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """Whatever it raises is that file's reason, in one line; the others are uploaded."""
    for name in ("x_11.csv", "x_22.csv", "bad.csv"):
        (outbound / name).write_bytes(name.encode())
    receipts, _ = _refused(upload, file_name=template)
    assert {r["source"].rpartition("/")[2]: r["outcome"] for r in receipts} == {
        "x_11.csv": "uploaded", "x_22.csv": "uploaded", "bad.csv": "not_sent",
    }  # fmt: skip
    [bad] = [r for r in receipts if r["outcome"] == "not_sent"]
    assert (bad["name"], bad["message"].isprintable()) == ("bad.csv", True)
    assert "file_name fails for it" in bad["message"]
    assert error in bad["message"]
    assert len(amili_sandbox.uploads) == 2


@pytest.mark.parametrize("template", ["{{ file.name", "{{ file.name | no_such_filter }}", "{% if %}"])
def test_what_is_no_template_is_a_wrong_argument(
    template: str, upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """It is told before the storage or Amili is asked for anything, and is not retried."""
    with pytest.raises(AmiliArgumentError, match="file_name"):
        upload(file_name=template, source=f"{outbound}/no-such-folder/*")
    assert amili_sandbox.requests == []


def test_names_like_orders_are_sent(upload: Upload, outbound: Path) -> None:
    """Only a name between two signs is an editor's."""
    for name in ("#1001.csv", "#1002.csv", "#1001.csv#"):
        (outbound / name).write_bytes(name.encode())
    assert {r["name"]: r["outcome"] for r in upload()} == {
        "#1001.csv": "uploaded", "#1002.csv": "uploaded", "#1001.csv#": "skipped",
    }  # fmt: skip


def _day_with_names_like_patterns(outbound: Path) -> dict[str, str]:
    """Fill the folder; return what each pattern has to find."""
    for name in ("a.csv", "b.csv", "c.csv", "*.csv", "a[1].txt", "a1.txt", "[*].csv"):
        (outbound / name).write_bytes(name.encode())
    for day in ("2025-01-*", "2025-01-01", "2025-01-02"):
        (outbound / day).mkdir()
        (outbound / day / f"x{day}.csv").write_bytes(day.encode())
    return {
        "*.csv": "*.csv a.csv b.csv c.csv [*].csv",
        "2025-01-*/": "x2025-01-*.csv x2025-01-01.csv x2025-01-02.csv",
        "a[1].txt": "a[1].txt a1.txt",
        "[*].csv": "[*].csv *.csv",
    }


@pytest.mark.parametrize("pattern", ["*.csv", "2025-01-*/", "a[1].txt", "[*].csv"])
def test_what_is_called_like_the_pattern_hides_nothing(
    pattern: str, upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """It is delivered with all that the pattern matches."""
    wanted = _day_with_names_like_patterns(outbound)[pattern].split()
    receipts = upload(source=f"{outbound}/{pattern}")
    assert sorted(r["name"] for r in receipts) == sorted(wanted)
    assert {r["outcome"] for r in receipts} == {"uploaded"}
    assert len(amili_sandbox.uploads) == len(wanted)


def test_every_path_of_a_bucket_is_that_file_alone(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """One file a bucket, names like patterns and odd names among them: each is uploaded by its own bucket, once."""
    _day_with_names_like_patterns(outbound)
    for name in ODD.values():
        _put(outbound, name, name.encode("utf-8", "surrogateescape"))
    operator = AmiliFileBucketsOperator(task_id="buckets", source=f"{outbound}/**", max_files_per_bucket=1)
    buckets = json.loads(json.dumps(operator.execute({}), ensure_ascii=False).encode())
    assert {len(bucket) for bucket in buckets} == {1}
    assert f"file://{outbound}/a.csv" in [path for [path] in buckets]
    for bucket in buckets:
        [receipt] = upload(source=bucket, file_name="{{ file.safe_name }}")
        assert (receipt["outcome"], bucket[0].removeprefix("exact:")) == ("uploaded", receipt["source"])
    assert len(amili_sandbox.uploads) == len(buckets) == 10 + len(ODD)


def test_odd_names_are_archived_as_they_are(upload: Upload, outbound: Path, tmp_path: Path) -> None:
    """A move keeps the name, adds to one that is taken, and tells of it in one safe line."""
    for run in (1, 2):
        for name in ODD.values():
            _put(outbound, name, f"{run}{name}".encode("utf-8", "surrogateescape"))
        receipts = upload(file_name="{{ file.safe_name }}", archive_to=f"{tmp_path}/done")
        assert all("Moved to " in r["message"] and r["message"].isprintable() for r in receipts)
    archived = {path.name for path in (tmp_path / "done").iterdir()}
    assert len(archived) == 2 * len(ODD)
    assert set(ODD.values()) < archived
    assert not list(outbound.iterdir())
