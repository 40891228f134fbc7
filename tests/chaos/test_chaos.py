"""
The bounded part of the chaos suite: every directed scenario, a few drawn ones, and the bugs that it must catch.

The full run is ``python -m tests.chaos --scenarios 500``; all planted bugs are ``python -m tests.chaos --mutations``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import ledgers, running
from tests.chaos.bugs import BUGS
from tests.chaos.directed import DIRECTED
from tests.databases import ServerMissing

pytestmark = pytest.mark.timeout(2400)
"""Whichever test comes first plays everything."""
DRAWN = (1, 2, 3)
CAUGHT = (
    "no claim",
    "every claim is won",
    "claim after the tail",
    "settle before the answer",
    "resend on read time-out",
    "expired claims are free",
    "claims never expire",
    "no environment in the key",
    "unwritten outcomes are ignored",
    "duplicates are green",
    "send forgets what it sent",
)
ON_POSTGRES = (
    "two at once",
    "mapped tasks at once",
    "a claim's COMMIT is cut",
    "a claim's COMMIT is cut, and was done",
    "an outcome's COMMIT is cut, and was done",
    "locked for long before the outcome",
    "a replica from the beginning",
    "restarted before the claim's COMMIT",
    "restarted while Amili answers",
)
"""What goes wrong otherwise with a server than with a file; everything else is played with a file of SQLite."""
SEEDS: tuple[int | str, ...] = (*DIRECTED, *DRAWN)
JOBS: list[running.Job] = [(seed, None) for seed in SEEDS] + [(BUGS[bug].caught_by[0], bug) for bug in CAUGHT]


@pytest.fixture(scope="module", name="played")
def _played(chaos_home: Path) -> dict[running.Job, running.Found]:
    """Play all at once, two at a time; each test looks at one."""
    return {found[0]: found for found in running.played(JOBS, lanes=2, home=chaos_home)}


@pytest.fixture(scope="module", name="played_on_postgres")
def _played_on_postgres(chaos_home: Path) -> dict[running.Job, running.Found]:
    """The same, with ledgers in PostgreSQL."""
    try:
        with ledgers.kept_in("postgres"):
            jobs = [(seed, None) for seed in ON_POSTGRES]
            return {found[0]: found for found in running.played(jobs, lanes=2, home=chaos_home)}
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(played: dict[running.Job, running.Found], seed: int | str) -> None:
    """Nothing twice, nothing lost, nothing falsely green, and a way to green from everywhere."""
    _, violation, story, _ = played[seed, None]
    assert violation is None, f"{story}\n{violation}\nagain with: python -m tests.chaos --seed {seed!r}"


@pytest.mark.parametrize("seed", ON_POSTGRES)
def test_every_promise_holds_on_a_server(played_on_postgres: dict[running.Job, running.Found], seed: str) -> None:
    """Whatever becomes of the server, the connection to it, and the answer to a COMMIT."""
    _, violation, story, _ = played_on_postgres[seed, None]
    assert violation is None, (
        f"{story}\n{violation}\nagain with: python -m tests.chaos --ledger postgres --seed {seed!r}"
    )


@pytest.mark.parametrize("bug", CAUGHT)
def test_a_planted_bug_is_caught(played: dict[running.Job, running.Found], bug: str) -> None:
    """A suite that misses one of these would miss the mistake."""
    _, violation, story, _ = played[BUGS[bug].caught_by[0], bug]
    assert violation is not None, story
    assert violation.startswith("Violation"), violation
