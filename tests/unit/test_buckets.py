"""Buckets for mapped uploads: complete, balanced, the same for the same listing, within bounds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from amili_provider.exceptions import AmiliArgumentError, AmiliFilesMissing, AmiliStorageSettingsError
from amili_provider.operators.buckets import AmiliFileBucketsOperator, Bounds, balanced_buckets
from amili_provider.storage.names import comparable
from tests.words import across_lines

MIB = 1024 * 1024


@dataclass(frozen=True)
class Listed:
    """What has to be known of a file."""

    name: str
    size: int


class FakeTaskInstance:
    """Keeps what is pushed."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep it."""
        self.pushed[key] = value


def listing(*sizes: int) -> list[Listed]:
    """Return files of these sizes, with names of their own."""
    return [Listed(f"{number}.csv", size) for number, size in enumerate(sizes)]


def execute(ti: FakeTaskInstance | None = None, **arguments: Any) -> list[list[str]]:
    """Run the operator."""
    operator = AmiliFileBucketsOperator(task_id="buckets", **arguments)
    return operator.execute({"ti": ti} if ti else {})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("seed", range(40))
def test_every_file_is_in_one_bucket_and_bounds_hold(seed: int) -> None:
    """Random listings with equal names: each position once, in order, and bounds hold for all that can be split."""
    rng = random.Random(seed)
    files = [
        Listed(f"{rng.randrange(400) if rng.random() < 0.3 else 1000 + n}.csv", int(2 ** rng.uniform(0, 34)))
        for n in range(rng.randrange(1, 700))
    ]
    bounds = Bounds(files=rng.randrange(1, 60), size=int(2 ** rng.uniform(24, 36)))
    buckets = balanced_buckets(files, bounds)
    assert sorted(position for bucket in buckets for position in bucket) == list(range(len(files)))
    assert all(bucket == sorted(bucket) for bucket in buckets)
    assert buckets == sorted(buckets)
    for bucket in buckets:
        names = Counter(comparable(files[p].name) for p in bucket)
        together = len(names) == 1 and len(bucket) <= 3
        assert together or (len(bucket) <= bounds.files and sum(files[p].size for p in bucket) <= bounds.size)
    assert buckets == balanced_buckets(files, bounds)


def test_buckets_are_balanced_in_bytes_and_in_files() -> None:
    """A day of small files with some large ones: no bucket costs much more than another."""
    rng = random.Random(7)
    files = listing(*[rng.choice((10_000, 20_000, 5 * MIB, 200 * MIB)) for _ in range(5000)])
    buckets = balanced_buckets(files, Bounds(files=1000, size=1024**4))
    assert len(buckets) == 5
    sizes = [sum(files[p].size for p in bucket) for bucket in buckets]
    assert max(sizes) / min(sizes) < 1.01
    assert max(map(len, buckets)) - min(map(len, buckets)) < 250


def test_equal_files_make_equal_buckets() -> None:
    """10,000 files of one size in ten buckets of 1,000."""
    buckets = balanced_buckets(listing(*[10_240] * 10_000), Bounds(files=1000, size=1024**3))
    assert [len(bucket) for bucket in buckets] == [1000] * 10


def test_a_file_larger_than_a_bucket_is_alone() -> None:
    """It cannot be split, and nothing is added to it."""
    files = listing(50, 1, 2, 3, 4)
    assert balanced_buckets(files, Bounds(files=10, size=10)) == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize("number", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("files_per_bucket", [1, 2, 1000])
def test_no_file_is_parted_from_all_of_its_equal_names(number: int, files_per_bucket: int) -> None:
    """The upload of a bucket refuses equal names only if it sees two; so none is ever alone, in any case of letters."""
    files = [Listed("a.csv" if n % 2 else "A.CSV", 1) for n in range(number)] + listing(*[1] * 20)
    for bucket in balanced_buckets(files, Bounds(files=files_per_bucket, size=1000)):
        assert sum(files[p].name.casefold() == "a.csv" for p in bucket) != 1


def test_nothing_makes_no_bucket() -> None:
    """An empty listing is not one empty bucket."""
    assert balanced_buckets([], Bounds(files=1, size=1)) == []


def test_the_operator_returns_paths_that_list_again_to_the_same_files(tmp_path: Path) -> None:
    """Paths in natural order, also those with glob characters in their names; the XCom is plain JSON."""
    from amili_provider.storage.listing import list_files

    names = ["br[1].csv", "a*.csv", "a?.csv", "x10.csv", "x9.csv", "plain.csv", "år.csv", "{{ ds }}.csv"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    buckets = execute(source=f"{tmp_path}/", max_files_per_bucket=3)
    assert sorted(len(bucket) for bucket in buckets) == [2, 3, 3]
    assert all(type(path) is str for bucket in buckets for path in bucket)
    again = [file for bucket in buckets for file in list_files(bucket, None)]
    assert sorted(file.name for file in again) == sorted(names)
    assert all(file.literal for file in again)


def test_what_the_upload_would_skip_is_left_out_and_told(tmp_path: Path) -> None:
    """A file named in a bucket counts as meant, so hidden, temporary and empty ones must not get into one."""
    for name, data in {".hidden.csv": b"1", "b.csv.tmp": b"1", "empty.csv": b"", "good.csv": b"1"}.items():
        (tmp_path / name).write_bytes(data)
    ti = FakeTaskInstance()
    assert execute(ti, source=str(tmp_path)) == [[f"file://{tmp_path}/good.csv"]]
    assert {Path(one["source"]).name for one in ti.pushed["skipped"]} == {".hidden.csv", "b.csv.tmp", "empty.csv"}
    assert all(one["message"] for one in ti.pushed["skipped"])
    with pytest.raises(AmiliFilesMissing, match=across_lines(r"The one file .* skipped.* empty\.csv: It is empty \(0")):
        execute(source=f"{tmp_path}/emp*")
    with pytest.raises(AirflowSkipException, match="was skipped"):
        execute(source=f"{tmp_path}/emp*", if_no_files="skip")
    assert execute(source=f"{tmp_path}/emp*", if_no_files="succeed") == []
    assert execute(source=f"{tmp_path}/.hid*") == [[f"file://{tmp_path}/.hidden.csv"]]
    assert len(execute(source=str(tmp_path), ignore=(), max_files_per_bucket=1)) == 4


def test_nothing_that_matches_is_skipped_failed_or_empty_as_asked(tmp_path: Path) -> None:
    """As in the upload."""
    with pytest.raises(AmiliFilesMissing, match=across_lines(f"No files match file://{tmp_path}")):
        execute(source=str(tmp_path))
    with pytest.raises(AirflowSkipException):
        execute(source=str(tmp_path), if_no_files="skip")
    with pytest.raises(AirflowSkipException, match="day does not exist"):
        execute(source=f"{tmp_path}/day/*.csv", if_no_files="skip")
    assert execute(source=str(tmp_path), if_no_files="succeed") == []
    assert execute(source=[], if_no_files="succeed") == []
    with pytest.raises(FileNotFoundError):
        execute(source=f"{tmp_path}/missing.csv", if_no_files="succeed")


def test_too_many_buckets_or_files_are_an_error_before_anything_is_mapped(tmp_path: Path) -> None:
    """Airflow would fail the mapped task with less to say."""
    for number in range(5):
        (tmp_path / f"{number}.csv").write_bytes(b"1")
    with pytest.raises(AmiliStorageSettingsError, match=r"(?s)5 buckets.*max_buckets=4.*max_map_length"):
        execute(source=str(tmp_path), max_files_per_bucket=1, max_buckets=4)
    with pytest.raises(AmiliStorageSettingsError, match="max_files=4"):
        execute(source=str(tmp_path), max_files=4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": ""},
        {"max_files_per_bucket": 0},
        {"max_bytes_per_bucket": "many"},
        {"max_buckets": -1},
        {"if_no_files": "x"},
        {"ignore": ("odd",)},
    ],
    ids=str,
)
def test_wrong_arguments_are_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A permanent error, which Airflow does not retry, that names the argument."""
    (tmp_path / "a.csv").write_bytes(b"1")
    with pytest.raises(AmiliArgumentError, match=next(iter(wrong))):
        execute(**{"source": str(tmp_path), **wrong})


def test_a_hundred_thousand_files_are_spread_in_a_moment() -> None:
    """Ten thousand names occur twice, and the bounds need a thousand buckets."""
    rng = random.Random(3)
    files = [Listed(f"{n % 90_000}.csv", rng.randrange(1, 30 * MIB)) for n in range(100_000)]
    buckets = balanced_buckets(files, Bounds(files=100, size=1024**3 * 2))
    assert 1000 <= len(buckets) <= 1024
