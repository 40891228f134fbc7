"""Upload and check, on a real Airflow: the sensor defers, its trigger waits, the task resumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import Outcome, RunDag

Check = Callable[..., Outcome]


@pytest.fixture(name="check")
def _check(s3: Any, amili: SandboxServer, run_dag: RunDag) -> Check:
    """Run the example for a day with two files; the sensor asks every second."""
    assert amili
    for name in ("one", "two"):
        s3.put_object(Bucket="invoices", Key=f"outbound/2025-03-01/{name}.csv", Body=name.encode())

    def run(**changes: Any) -> Outcome:
        def change(dag: Any) -> None:
            sensor = dag.get_task("check_results")
            for name, value in {"poke_interval": 1.0, **changes}.items():
                assert hasattr(sensor, name)
                setattr(sensor, name, value)

        return run_dag("amili_upload_and_check", day="2025-03-01", change=change)

    return run


def test_results_are_waited_for_in_the_triggerer(check: Check, amili: SandboxServer) -> None:
    """The sensor defers, the trigger asks until all is final, and the results are in XCom."""
    amili.results.set("*", "queued", "unknown", "created")
    outcome = check()
    assert outcome.state == "success"
    receipts, results = outcome.xcom["upload_invoices"], outcome.xcom["check_results"]
    assert [one["file_id"] for one in results] == [one["file_id"] for one in receipts]
    assert {(one["name"], one["status"], one["result"]) for one in results} == {
        ("one.csv", "PROCESSED", "CREATED"),
        ("two.csv", "PROCESSED", "CREATED"),
    }
    assert amili.count("result") == 6
    assert len(amili.uploads) == 2


def test_results_that_are_there_need_no_triggerer(check: Check, amili: SandboxServer) -> None:
    """What is final at the first question ends the task at once."""
    assert check(poke_interval=3600.0).state == "success"
    assert amili.count("result") == 2


def test_a_refusal_fails_the_task_by_name(check: Check, amili: SandboxServer) -> None:
    """A file that Amili refuses later fails the sensor for good, whatever its retries; the upload stays green."""
    amili.results.set("*", "queued", {"status": "FAILED", "result": "REJECTED", "message": "Line 7 has no amount"})
    outcome = check()
    assert outcome.task_states == {"upload_invoices": "success", "check_results": "failed"}
    assert "one.csv" in outcome.log
    assert "Line 7 has no amount [FAILED/REJECTED]" in outcome.log


@pytest.mark.parametrize("deferrable", [True, False])
def test_soft_fail_skips_what_is_late_and_no_refusal(check: Check, amili: SandboxServer, deferrable: bool) -> None:
    """With soft_fail a time-out skips the sensor, in the triggerer and in the worker alike, and a refusal fails it."""
    amili.results.set("*", "queued")
    assert check(soft_fail=True, deferrable=deferrable, timeout=4).task_states["check_results"] == "skipped"
    amili.results.set("*", "failed")
    assert check(soft_fail=True, deferrable=deferrable).task_states["check_results"] == "failed"


def test_the_time_runs_out_without_airflows_help(check: Check, amili: SandboxServer) -> None:
    """``dag.test()`` ignores the time-out of a deferral; the trigger's own deadline ends the wait nevertheless."""
    amili.results.set("*", "queued")
    outcome = check(timeout=8)
    assert outcome.task_states["check_results"] == "failed"
    assert "is an assumption" in outcome.log
    assert amili.count("result") >= 4


def test_a_wait_survives_an_expired_token_and_an_outage(check: Check, amili: SandboxServer) -> None:
    """A token that is refused in mid-wait, and some failing answers, cost time and nothing else."""
    amili.results.set("*", "queued", "queued", "created")
    amili.faults.add("result", nth=3, expire_tokens=True)
    amili.faults.add("result", nth=1, times=2, status=503)
    assert check().state == "success"
    assert len(amili.uploads) == 2
