"""What every storage owes: files listed as they are, and no failure that reads as "no files"."""

from __future__ import annotations

import unicodedata
from functools import partial
from typing import Any

import pytest

from amili_provider.exceptions import AmiliError, AmiliStorageError, AmiliStorageSettingsError
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files, unstable_files
from amili_provider.storage.opening import open_sources
from tests.storage.backends.base import Backend, OnDisk
from tests.storage.backends.smb import Smb

_DENIED = (
    r"Cannot list .*locked.* with the connection 'partner': permission denied.*Give its login the right to list it"
)


def _names(files: list[StorageFile]) -> list[str]:
    return [file.name for file in files]


def _list(store: Backend, path: str = "", **options: int) -> list[StorageFile]:
    return list_files(store.url(path), "partner", **options)


def test_folder_gives_its_own_files_in_natural_order(store: Backend) -> None:
    """A folder gives the files directly in it, counted as people count."""
    for name in ("f10.csv", "f9.csv", "f1.csv", "F2.csv", "deeper/x.csv"):
        store.put(name, name.encode())
    files = _list(store)
    assert _names(files) == ["F2.csv", "f1.csv", "f9.csv", "f10.csv"]
    assert [file.size for file in files] == [6, 6, 6, 7]
    assert not any(file.literal for file in files)


def test_folder_means_the_same_with_and_without_its_slash(store: Backend) -> None:
    """``folder`` and ``folder/`` give the same files."""
    store.put("in/a.csv", b"a")
    assert _names(_list(store, "in")) == _names(_list(store, "in/")) == ["a.csv"]


def test_pattern_matches_within_its_level(store: Backend) -> None:
    """A star stops at the slash, and a question mark is one character."""
    for name in ("a1.csv", "a2.csv", "a10.csv", "b1.csv", "sub/a3.csv", "a1.txt"):
        store.put(name, b"x")
    assert _names(_list(store, "a?.csv")) == ["a1.csv", "a2.csv"]
    assert _names(_list(store, "a*.csv")) == ["a1.csv", "a2.csv", "a10.csv"]
    assert _names(_list(store, "*/*.csv")) == ["a3.csv"]
    assert _names(_list(store, "[ab]1.csv")) == ["a1.csv", "b1.csv"]


def test_two_stars_go_down_any_number_of_levels(store: Backend) -> None:
    """``**`` finds files at every depth, each once."""
    for name in ("top.csv", "x/one.csv", "x/y/two.csv", "x/y/z/three.csv", "x/y/no.txt"):
        store.put(name, b"x")
    assert sorted(_names(_list(store, "**/*.csv"))) == ["one.csv", "three.csv", "top.csv", "two.csv"]
    assert sorted(_names(_list(store, "x/**/z/*"))) == ["three.csv"]
    assert len(_list(store, "**")) == 5


def test_awkward_names_come_out_as_they_are(store: Backend) -> None:
    """Letters of other alphabets, spaces and characters that mean something in URLs are just names."""
    names = [f"å{sign}æ ø.csv" for sign in store.awkward] + ["two  spaces.csv", "日本.csv", "plain.csv", "100%25.csv"]
    for name in names:
        store.put(name, name.encode())
    files = _list(store)
    assert sorted(_names(files)) == sorted(names)
    for file in files:
        with file.open() as stream:
            assert stream.read() == file.name.encode()


def test_each_awkward_name_can_be_named(store: Backend) -> None:
    """After ``exact:`` a path means the file of that name, whatever else it would match as a pattern."""
    for sign in store.awkward:
        store.put(f"br{sign}1.csv", sign.encode())
    store.put("br[1].csv", b"brackets")
    store.put("br1.csv", b"none")
    for name in [f"br{sign}1.csv" for sign in store.awkward] + ["br[1].csv"]:
        [file] = list_files(f"exact:{store.url(name)}", "partner")
        assert (file.name, file.literal) == (name, True)
    [file] = list_files(f"exact:{store.bare('br[1].csv')}", "partner")
    with file.open() as stream:
        assert stream.read() == b"brackets"
    with pytest.raises(FileNotFoundError, match=r"br\[2\]"):
        list_files(f"exact:{store.url('br[2].csv')}", "partner")


def test_what_is_called_like_the_pattern_is_listed_with_its_matches(store: Backend) -> None:
    """A file or a folder called like the pattern neither hides what the pattern matches, nor is hidden by it."""
    for name in ("f[12].csv", "f1.csv", "f2.csv", "f3.csv", "d[12]/x.csv", "d1/x.csv", "d2/y.csv", "d3/x.csv"):
        store.put(name, name.encode())

    def found(path: str) -> list[str]:
        return [
            file.path.removeprefix(file.path.partition(store.day)[0] + store.day + "/")
            for file in list_files(path, "partner")
        ]

    assert found(store.url("f[12].csv")) == ["f1.csv", "f2.csv", "f[12].csv"]
    assert found(store.url("d[12]/")) == ["d1/x.csv", "d2/y.csv", "d[12]/x.csv"]
    assert found(store.url("d[12]/x.csv")) == ["d1/x.csv", "d[12]/x.csv"]
    assert found(f"exact:{store.url('f[12].csv')}") == ["f[12].csv"]
    assert found(f"exact:{store.url('d[12]/')}") == ["d[12]/x.csv"]
    if "?" in store.awkward:
        store.put("*.csv", b"stray")
        assert found(store.url("*.csv")) == ["*.csv", "f1.csv", "f2.csv", "f3.csv", "f[12].csv"]
        assert found(f"exact:{store.url('*.csv')}") == ["*.csv"]


def test_a_pattern_that_matches_only_what_is_called_like_it(store: Backend) -> None:
    """A file that only its own name finds is found; when it is gone, the pattern matches nothing."""
    store.put("g[12].csv", b"x")
    assert _names(_list(store, "g[12].csv")) == ["g[12].csv"]
    store.remove("g[12].csv")
    store.put("other.csv", b"x")
    assert _list(store, "g[12].csv") == []


def test_names_are_given_in_one_normal_form(store: Backend) -> None:
    """A name that the storage keeps decomposed is NFC to us, and can still be read."""
    decomposed = unicodedata.normalize("NFD", "blåbær.csv")
    store.put(decomposed, b"berries")
    [file] = _list(store, "blå*.csv")
    assert file.name == unicodedata.normalize("NFC", decomposed)
    with file.open() as stream:
        assert stream.read() == b"berries"


def test_a_list_of_paths_keeps_its_order_and_gives_each_file_once(store: Backend) -> None:
    """Several paths are listed one after another; what two of them match is there once."""
    for name in ("a.csv", "b.csv", "c.csv"):
        store.put(name, b"x")
    files = list_files([store.url("c.csv"), store.url("*.csv"), store.url("a.csv")], "partner")
    assert _names(files) == ["c.csv", "a.csv", "b.csv"]


def test_an_empty_folder_is_an_empty_list(store: Backend) -> None:
    """A folder that exists and has nothing in it is a listing that succeeded."""
    store.make_folder("empty")
    assert _list(store, "empty/") == []
    assert _list(store, "empty/*.csv") == []


def test_nothing_that_matches_is_an_empty_list(store: Backend) -> None:
    """A pattern without a match in a folder that exists is a listing that succeeded."""
    store.put("a.txt", b"x")
    assert _list(store, "*.csv") == []
    assert _list(store, "**/*.csv") == []


def test_a_named_file_that_is_missing_is_an_error(store: Backend) -> None:
    """A file without a wildcard must be there."""
    with pytest.raises(FileNotFoundError, match=r"missing\.csv.*'partner'.*does not exist"):
        _list(store, "missing.csv")


def test_a_folder_that_is_missing_is_an_error_where_folders_exist(store: Backend) -> None:
    """The fixed part of a pattern must exist; object storages have no folders that could be missing."""
    if store.object_store:
        assert _list(store, "nowhere/*.csv") == []
        return
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _list(store, "nowhere/*.csv")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _list(store, "nowhere/")


def test_the_missing_folder_of_a_day_can_count_as_empty(store: Backend) -> None:
    """Alike on every storage: its own folder must be there and is listed; one further up is still an error."""
    store.put("outbound/earlier.csv", b"x")
    for path in ("outbound/2025-03-01/*.csv", "outbound/2025-03-01/", "outbound/2025-03-01/**"):
        sources = open_sources(store.url(path), "partner")
        assert list_files(sources) == []
        missing = [] if store.object_store else [f"/{store.day}/outbound/2025-03-01"]
        assert [shown[-len(missing[0]) :] for shown in sources.missing] == missing
    if not store.object_store:
        for path in ("nowhere/2025-03-01/*.csv", "nowhere/2025-03-01/", "outbound/missing.csv"):
            with pytest.raises(FileNotFoundError, match=path.rstrip("/*.csv").rstrip("/")):
                list_files(open_sources(store.url(path), "partner"))


def test_a_folder_that_its_own_folder_names_never_counts_as_empty(
    store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers say of a folder without rights that it does not exist."""
    if store.object_store:
        pytest.skip("no folders here")
    store.put("outbound/locked/a.csv", b"x")
    sources = open_sources(store.url("outbound/locked/*.csv"), "partner")
    fs = sources.locations[0].fs

    def lying(honest: Any, path: str, *args: Any, **more: Any) -> Any:
        if path.endswith("/locked"):
            raise FileNotFoundError(path)
        return honest(path, *args, **more)

    for name in ("ls", "scan"):
        if hasattr(fs, name):
            monkeypatch.setattr(fs, name, partial(lying, getattr(fs, name)))
    with pytest.raises(FileNotFoundError, match="locked"):
        list_files(sources)


def test_a_missing_bucket_is_an_error_however_it_is_asked_for(store: Backend) -> None:
    """A bucket that does not exist never reads as an empty one."""
    if not store.object_store:
        pytest.skip("no buckets here")
    scheme = store.url().partition("://")[0]
    for path in ("", "x.csv", "*.csv", "folder/", "folder/*.csv", "**/*.csv"):
        with pytest.raises(AmiliStorageSettingsError, match=r"no-such-bucket.*'partner'.*does not exist") as caught:
            list_files(f"{scheme}://no-such-bucket/{path}", "partner")
        assert str(caught.value).count("Correct the ") == 1


@pytest.mark.parametrize("rest", ["", "/", "/out/*.csv", "//out/", "partner@/out/*.csv"])
def test_an_address_without_a_bucket_is_refused(store: Backend, rest: str) -> None:
    """An empty template variable is no empty listing, and does not make a folder the bucket."""
    if not store.object_store:
        pytest.skip("no buckets here")
    scheme = store.url().partition("://")[0]
    for source in (f"{scheme}://{rest}", [store.url(), f"exact:{scheme}://{rest}"]):
        with pytest.raises(ValueError, match="names no bucket.*empty"):
            list_files(source, "partner")


def test_a_folder_without_permission_is_an_error_also_deep_inside(store: Backend) -> None:
    """A locked folder under ``**`` ends the listing; it is not skipped. Objects are listed at once, or not at all."""
    store.put("open/a.csv", b"x")
    store.put("open/locked/b.csv", b"x")
    pattern = "open/locked/**/*.csv" if store.object_store else "**/*.csv"
    with store.denied("open/locked"), pytest.raises(AmiliStorageError, match=_DENIED) as caught:
        list_files(store.url(pattern), "partner")
    assert not any(secret in str(caught.value) for secret in store.secrets())


def test_empty_files_are_listed(store: Backend) -> None:
    """A file of 0 bytes is a file."""
    store.put("empty.csv", b"")
    [file] = _list(store, "*.csv")
    assert file.size == 0
    with file.open() as stream:
        assert stream.read() == b""


def test_more_files_than_allowed_is_an_error_before_anything(store: Backend) -> None:
    """One file more than ``max_files`` is an error that names the number."""
    for number in range(4):
        store.put(f"{number}.csv", b"x")
    assert len(_list(store, max_files=4)) == 4
    with pytest.raises(AmiliStorageSettingsError, match="max_files=3"):
        _list(store, max_files=3)


def test_a_new_file_is_seen_at_once(store: Backend) -> None:
    """No listing is remembered from one call to the next."""
    store.put("a.csv", b"x")
    assert _names(_list(store)) == ["a.csv"]
    store.put("b.csv", b"x")
    assert _names(_list(store)) == ["a.csv", "b.csv"]


def test_without_a_scheme_the_connection_decides(store: Backend) -> None:
    """The same file is found by a path without a scheme."""
    store.put("a.csv", b"x")
    [with_scheme] = _list(store, "*.csv")
    [without] = list_files(store.bare("*.csv"), "partner")
    assert with_scheme.url == without.url
    assert list_files(without.url, "partner")[0].name == "a.csv"


def test_a_server_that_is_gone_is_an_error_and_comes_back(store: Backend) -> None:
    """A server that does not answer is an error for every kind of path; once it is back, all is well."""
    if store.wire is None:
        pytest.skip("no wire to cut")
    store.put("a.csv", b"x")
    store.wire.cut()
    for path in ("", "*.csv", "a.csv", "**/*.csv"):
        with pytest.raises((AmiliError, OSError)) as caught:
            _list(store, path)
        assert not isinstance(caught.value, FileNotFoundError)
        assert not any(secret in str(caught.value) for secret in store.secrets())
    store.wire.mend()
    assert _names(_list(store)) == ["a.csv"]


# What smbprotocol says when it closes a folder of a server that died.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_dies_while_listing_is_an_error(store: Backend) -> None:
    """A listing that is cut off at any byte is an error or whole, never shorter."""
    if store.wire is None:
        pytest.skip("no wire to cut")
    names = [f"file-{number:03}.csv" for number in range(60)]
    for name in names:
        store.put(name, b"x")
    whole = 0
    for count in (0, 40, 400, 1500, 4000, 9000, 20000):
        store.wire.mend()
        store.wire.cut_after(count)
        found = _list_or_none(store)
        if found is not None:
            whole += 1
            assert _names(found) == names
    store.wire.mend()
    assert whole < 7


def _list_or_none(store: Backend) -> list[StorageFile] | None:
    """Return the files, or None if that failed, as long as it does not look like a file that is missing."""
    try:
        return _list(store, "*.csv")
    except FileNotFoundError:
        raise
    except (AmiliError, OSError):
        return None


def test_five_gibibytes_are_listed(store: Backend) -> None:
    """Sizes beyond 32 bits are listed as they are, and reading starts at once (to the end: test_five_gibibytes.py)."""
    if not isinstance(store, OnDisk):
        pytest.skip("this server keeps its files in memory")
    store.put_sparse("large.bin", 5 * 1024**3)
    [file] = _list(store, "*.bin")
    assert file.size == 5 * 1024**3
    with file.open() as stream:
        assert stream.read(1024) == bytes(1024)


def test_a_file_that_grows_between_two_listings_is_not_finished(store: Backend) -> None:
    """What is still being written is told from what is whole, on every storage."""
    store.put("whole.csv", b"whole")
    store.put("growing.csv", b"beg")
    store.put("gone.csv", b"x")
    before = _list(store)
    store.put("growing.csv", b"begun")
    store.remove("gone.csv")
    reasons = unstable_files(before, _list(store), 30)
    assert {path.rpartition("/")[2] for *_, path in reasons} == {"growing.csv", "gone.csv"}


def test_windows_own_spelling_is_read(store: Backend) -> None:
    """Backslashes between folders, and the address of a share; a name there can hold none."""
    if not isinstance(store, Smb):
        pytest.skip("on other storages a backslash is a character of names")
    store.put("out/a.csv", b"a")
    store.put("out/b.csv", b"b")
    day = rf"{store.day}\out"
    for path in (rf"smb:///{day}\*.csv", rf"{day}\*.csv", rf"\\127.0.0.1\partner\{day}\*.csv"):
        assert _names(list_files(path, "partner")) == ["a.csv", "b.csv"], path
    assert [file.name for file in list_files(rf"{store.day}\out\a.csv", "partner")] == ["a.csv"]
