"""Buckets, mapped uploads and their gathered receipts, on a real Airflow."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import RunDag

DAY = "2025-03-01"


def small_buckets(dag: Any) -> None:
    """Make buckets of three files."""
    dag.get_task("buckets").max_files_per_bucket = 3
    # The pools of a real Airflow are made by its operator.
    dag.get_task("upload").partial_kwargs["pool"] = "default_pool"


def test_a_day_is_spread_over_tasks_and_every_file_arrives_once(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """Ten files in four mapped tasks, names with glob characters and braces too; a second run sends nothing."""
    names = [*(f"sub/inv {number}.csv" for number in range(7)), "br[1].csv", "{{ ds }}.csv", "å*.csv"]
    for name in names:
        s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/{name}", Body=name.encode())
    s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/.hidden.csv", Body=b"left alone")
    for outcome in ("uploaded", "already_uploaded"):
        run = run_dag("amili_huge_day", day=DAY, change=small_buckets)
        assert run.state == "success"
        assert run.xcom["outcomes"] == {outcome: 10}
        assert sorted(map(len, run.xcom["buckets"])) == [2, 2, 3, 3]
    assert Counter(u.name for u in amili.uploads) == Counter(name.rpartition("/")[2] for name in names)


def test_the_receipts_of_failed_buckets_are_gathered_too(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """One refused file fails its own task only; what a task downstream gathers holds every file."""
    for number in range(7):
        s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/{number}.csv", Body=b"%d" % number)
    s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/bad.csv", Body=b"REJECT: no such debtor")
    run = run_dag("amili_huge_day", day=DAY, change=small_buckets)
    assert run.xcom["outcomes"] == {"uploaded": 7, "rejected": 1}
    assert len(amili.uploads) == 7


def test_equal_names_in_two_folders_are_refused_across_buckets(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """One file per bucket would hide them from each other; they stay together."""

    def one_file_each(dag: Any) -> None:
        small_buckets(dag)
        dag.get_task("buckets").max_files_per_bucket = 1

    for key in ("x/same.csv", "y/SAME.csv", "other.csv"):
        s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/{key}", Body=key.encode())
    run = run_dag("amili_huge_day", day=DAY, change=one_file_each)
    assert run.xcom["outcomes"] == {"uploaded": 1, "not_sent": 2}
    assert [u.name for u in amili.uploads] == ["other.csv"]


@pytest.mark.parametrize(
    ("end", "states"),
    [
        ("fail", {"buckets": "failed", "upload": "upstream_failed"}),
        ("skip", {"buckets": "skipped", "upload": "skipped"}),
    ],
)
def test_a_day_without_files_ends_as_chosen(
    s3: Any, amili: SandboxServer, run_dag: RunDag, end: str, states: dict[str, str]
) -> None:
    """No bucket, no upload; a failure unless it is chosen to be none."""

    def chosen(dag: Any) -> None:
        dag.get_task("buckets").if_no_files = end
        dag.get_task("buckets").retries = 0

    run = run_dag("amili_huge_day", day=DAY, change=chosen)
    assert {task: run.task_states[task] for task in states} == states
    assert amili.uploads == []
