"""Names, patterns and order: the parts of the storage that need none."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.storage.base import read_entry
from amili_provider.storage.connections import Kind, StorageConnection, said, split_url
from amili_provider.storage.errors import explain
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import unstable_files
from amili_provider.storage.locations import Levels, Location, Storage, natural_key
from amili_provider.storage.names import (
    _SYSTEM_FILES,
    _TEMPORARY_BEGINNINGS,
    _TEMPORARY_ENDINGS,
    KINDS_IGNORED,
    checked_name,
    comparable,
    reason_to_ignore,
    safe_name,
    sendable,
    split_suffix,
    unique_name,
    with_suffix,
)


def _file(path: str, *, asked: str = "/in/*", size: int = 1, literal: bool = False, **facts: Any) -> StorageFile:
    storage = Storage(Kind("memory", "memory", ("memory",), ()), MemoryFileSystem(), None, "", "memory://")
    root = Location(storage.fs, asked, f"memory://{asked}", None, "memory", storage)
    fields: dict[str, Any] = {"fingerprint": "v1", "modified": 1.0, "local_path": None, **facts}
    return StorageFile(
        location_root=root,
        path=path,
        url=f"memory://{path}",
        name=path.rpartition("/")[2],
        size=size,
        literal=literal,
        **fields,
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (" a.csv", "blanks"),
        (".", "path"),
        ("..", "path"),
        ("a/b.csv", "path"),
        ("..\\b.csv", "path"),
        ("a\x00.csv", "control"),
        ("a\r\nb.csv", "control"),
        ("a\u202efdp.csv", "invisible"),
        ("a\udc80.csv", "not UTF-8"),
        ("a\u200d.csv\u200d", "invisible"),
        ("a\u200c\u200d.csv", "invisible"),
        ("ø" * 200, "longer"),
    ],
)
def test_names_that_mislead_are_refused(name: str, words: str) -> None:
    """Traversal, control characters, turned writing and over-long names are refused, saying which."""
    with pytest.raises(ValueError, match=words):
        checked_name(name)


def test_names_are_composed() -> None:
    """A name goes out in NFC, whatever the storage has."""
    assert checked_name(unicodedata.normalize("NFD", "blåbær.csv")) == "blåbær.csv"


@pytest.mark.parametrize("name", ["👨\u200d👩\u200d👧.csv", "می\u200cروم.csv", "#1001.csv", "å *?:.csv"])
def test_names_as_people_write_them_are_sent(name: str) -> None:
    """What joins two letters or pictures belongs to them; signs that can be seen and typed are as good as letters."""
    assert checked_name(name) == safe_name(name, "/in") == name


@given(st.text(st.characters() | st.sampled_from("./\\ \n\u200b\u200d\udce6\ud800"), max_size=300))
def test_every_file_can_be_given_a_name_that_can_be_sent(name: str) -> None:
    """Whatever a storage calls it: its safe name, its unique name, and its index with its suffix are names."""
    for made in (safe_name(name, "/in/1"), unique_name(name, "/in/1"), f"0{sendable(split_suffix(name)[1])}"):
        assert checked_name(made) == made
    assert unique_name(name, "/in/1") != unique_name(name, "/in/2")


def test_equal_names_are_those_that_look_alike() -> None:
    """Case and composition make no difference."""
    alike = [("A.csv", "a.CSV"), ("blå.csv", unicodedata.normalize("NFD", "BLÅ.csv")), ("c.csv", "c\u200d.csv")]
    assert all(comparable(one) == comparable(other) for one, other in alike)
    assert len({comparable(one) for one, _ in alike}) == len(alike)


@given(st.text())
def test_comparing_is_stable(name: str) -> None:
    """A comparable name compares to itself."""
    assert comparable(comparable(name)) == comparable(name)


@pytest.mark.parametrize(
    ("path", "asked", "skipped"),
    [
        ("/in/a.csv", "/in/*", None),
        ("/in/.a.csv", "/in/*", "hidden"),
        ("/in/_SUCCESS", "/in/*", "hidden"),
        ("/in/.trash/a.csv", "/in/**", "hidden"),
        ("/in/Thumbs.db", "/in/*", "hidden"),
        ("/in/.trash/a.csv", "/in/.trash/*", None),
        ("/in/.a.csv", "/in/.*", None),
        ("/home/.cache/in/a.csv", "/home/.cache/in/*", None),
        ("/in/a.csv.part", "/in/*", "temporary"),
        ("/in/~$a.xlsx", "/in/*", "temporary"),
        ("/in/a.csv~", "/in/*", "temporary"),
        ("/in/a.csv.TMP", "/in/*", "temporary"),
        ("/in/a.tmp", "/in/*.tmp", None),
        ("/in/#1001.csv", "/in/*", None),
        ("/in/#1001.csv#", "/in/*", "temporary"),
        ("/in/#1001.csv#", "/in/#*#", None),
        ("/in/#", "/in/*", None),
        ("/in/a.csv", "/in", None),
    ],
)
def test_kinds_that_are_skipped(path: str, asked: str, skipped: str | None) -> None:
    """Hidden and temporary files are skipped, unless the pattern itself asks for them."""
    reason = reason_to_ignore(_file(path, asked=asked), KINDS_IGNORED)
    assert (reason is None) if skipped is None else (reason is not None and skipped in reason)
    assert reason_to_ignore(_file(path, asked=asked), ()) is None


def test_every_form_of_a_name_that_is_skipped_is_documented() -> None:
    """Nobody has to read the code to know why a file was skipped."""
    told = (Path(__file__).parents[2] / "docs" / "operator.md").read_text("utf-8")
    for form in (*(f"`{one}x`" for one in _TEMPORARY_BEGINNINGS), *(f"`x{one}`" for one in _TEMPORARY_ENDINGS)):
        assert form in told
    for form in ("`#x#`", "`.x`", "`_x`", *(f"`{one}`" for one in _SYSTEM_FILES)):
        assert form.casefold() in told.casefold()


def test_what_is_named_is_meant() -> None:
    """A named file is skipped only if it is empty."""
    assert reason_to_ignore(_file("/in/.a.csv.tmp", literal=True), KINDS_IGNORED) is None
    assert "empty" in str(reason_to_ignore(_file("/in/a.csv", literal=True, size=0), KINDS_IGNORED))


def test_a_suffix_keeps_the_extension_and_the_limit() -> None:
    """A name with a suffix fits on every disk, and keeps what it ends with."""
    assert with_suffix("a.csv", "id") == "a_id.csv"
    assert with_suffix("a", "id") == "a_id"
    assert with_suffix("a\udce6.csv", "id") == "a\udce6_id.csv"
    assert len(with_suffix("a." + "b" * 300, "id").encode()) == 255
    long = with_suffix("ø" * 120 + ".csv", "0" * 32)
    assert len(long.encode()) <= 255
    assert long.endswith(("0_" + "0" * 32 + ".csv", "ø_" + "0" * 32 + ".csv"))


def test_natural_order() -> None:
    """Numbers count, folders come before what is in later ones, and any order in gives one order out."""
    wanted = ["a1/x", "a2/x", "a10/x", "b", "b2", "b02", "b10"]
    wanted.sort(key=natural_key)
    assert wanted.index("a2/x") < wanted.index("a10/x")
    shuffled = random.Random(1).sample(wanted, len(wanted))
    assert sorted(shuffled, key=natural_key) == wanted


def test_a_name_comes_before_the_same_name_with_more_to_it() -> None:
    """A suffix is no part of the name: the plain one comes first, as people expect it."""
    wanted = ["in/good", "in/good.csv", "in/good.txt", "in/good2.csv", "in/good10.csv", "in/good_x.csv"]
    mixed = random.Random(1).sample(wanted, len(wanted))
    assert sorted(mixed, key=natural_key) == wanted


@given(st.lists(st.text(alphabet="ab1290/.²٣ ", max_size=8), max_size=12))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    """No mixture of digits and letters, of any alphabet, makes names that cannot be compared."""
    backwards = list(reversed(names))
    assert sorted(backwards, key=natural_key) == sorted(names, key=natural_key)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a/b/c", True),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "b/a/c", False),
        ("**/**/c", "a/c", True),
        ("[!a]*", "b1", True),
        ("[!a]*", "a1", False),
        ("a?", "a\n", True),
        ("A*", "a", False),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    """A star is within a level, two stars are any number of levels, and case counts."""
    levels = Levels(pattern.split("/"))
    states = levels.start()
    for segment in path.split("/"):
        states = levels.step(states, segment, folder_link=False)
    assert levels.matches(states) is matches


def test_two_stars_do_not_follow_links_to_folders() -> None:
    """A link to a folder may be a loop; named in the pattern, it is followed."""
    levels = Levels(["**", "c"])
    assert not levels.goes_on(levels.step(levels.start(), "link", folder_link=True))
    named = Levels(["link", "c"])
    assert named.goes_on(named.step(named.start(), "link", folder_link=True))


def test_urls_are_taken_as_they_are() -> None:
    """Nothing in a path is decoded or cut off."""
    assert split_url("s3://b/a#b?c%20 d") == ("s3", "b/a#b?c%20 d")
    assert split_url("S3://b/a") == ("s3", "b/a")
    assert split_url("/in/a:b//c") == (None, "/in/a:b//c")


def test_unfinished_files_are_named_with_the_reason() -> None:
    """Another size, version or time, or gone: skipped until the next run; the rest is finished."""
    before = [_file(f"/in/{name}") for name in ("same", "grown", "rewritten", "touched", "gone")]
    after = [
        _file("/in/same"),
        _file("/in/grown", size=2),
        _file("/in/rewritten", fingerprint="v2"),
        _file("/in/touched", modified=2.0),
    ]
    reasons = {path: why for (*_, path), why in unstable_files(before, after, 30).items()}
    assert set(reasons) == {f"/in/{name}" for name in ("grown", "rewritten", "touched", "gone")}
    assert "1 bytes" in reasons["/in/grown"]


@pytest.mark.parametrize(
    ("details", "fingerprint", "modified"),
    [
        ({"ETag": '"abc"', "LastModified": "2026-01-01T00:00:00+00:00"}, "abc", 1767225600.0),
        ({"generation": "7", "etag": "x", "updated": "2026-01-01T00:00:00.000Z"}, "7", 1767225600.0),
        ({"mtime": 12.5}, "12.500000", 12.5),
        ({"LastModified": "", "mtime": None}, None, None),
    ],
)
def test_versions_are_read_from_every_listing(
    details: dict[str, Any], fingerprint: str | None, modified: float | None
) -> None:
    """ETag, generation or time: what a storage has is what a version is known by."""
    entry = read_entry({"name": "b/a.csv", "type": "file", "size": 3, **details})
    assert (entry.path, entry.size, entry.fingerprint, entry.modified) == ("b/a.csv", 3, fingerprint, modified)


def test_folder_markers_are_folders() -> None:
    """An object whose name ends with a slash remembers a folder, and is no file."""
    entry = read_entry({"name": "b/folder/", "type": "file", "size": 0})
    assert (entry.is_file, entry.is_folder, entry.path) == (False, True, "b/folder")


def test_no_secret_in_a_storage_s_words() -> None:
    """Passwords, secret extras and logins in addresses are masked in whatever a library says."""
    connection = StorageConnection("c", "sftp", password="canary", secrets=frozenset({"canary", "other-canary"}))
    error = OSError("failed with canary at ftp://me:pw@host/x and other-canary")
    words = said(error, connection)
    assert "canary" not in words
    assert "me:pw" not in words
    assert "\n" not in str(explain("read", "ftp://host/x", connection, OSError("a\nb")))
