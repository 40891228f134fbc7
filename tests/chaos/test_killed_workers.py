"""A worker that is killed anywhere: not sent before the tail, never twice after it, and always a way on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.chaos.conftest import Place
from tests.chaos.saboteur import POINTS
from tests.ledgers import attempts_in

TAIL = len(b'", "fileId": "') + 32 + len(b'"}]}')
FILES = {"a": b"one" * 1000, "b": b"two"}


def _outcomes(ended: dict[str, Any]) -> Counter[str]:
    return Counter(r["outcome"] for r in ended["receipts"] or ())


@pytest.mark.parametrize(
    ("extras", "more"),
    [
        ({}, {}),
        ({"max_request_bytes": 50_000}, {"sizes": "known"}),
        ({"max_request_bytes": 50_000}, {"sizes": "forgotten"}),
        ({"max_request_bytes": 50_000}, {"sizes": "forgotten", "remote": "stays"}),
    ],
    ids=["in memory", "streamed", "hashed on its way", "read and hashed on its way"],
)
def test_killed_at_any_byte_before_the_tail_it_is_sent_and_not_unknown(
    place: Place, extras: dict[str, Any], more: dict[str, Any]
) -> None:
    """The very next run sends: no receipt, no waiting for a claim to expire."""
    place.extras |= extras
    for left in (0.0, 0.001, 0.1, 0.5, 0.9, 1.0):
        place.begin(a=b"x" * 600_001)
        whole = {"at": "byte", "share": left, "short_of": TAIL}
        assert place.run("first", plan={**more, "kill": whole})["how"] == "killed"
        assert not attempts_in(place.ledger)
        assert not place.sandbox.uploads
        second = place.run("second")
        assert (second["how"], _outcomes(second)) == ("done", {"uploaded": 1})
        assert place.accepted == ["a.csv"]


def _goes_on(place: Place) -> None:
    """After a kill: nothing is sent twice whoever runs what, and one word of the user ends it."""
    at_once = place.run("second")
    assert at_once["how"] in ("done", "AmiliDeliveryIncomplete", "AmiliOutcomeUnknown")
    later = place.run("third", later=True)
    assert later["how"] in ("done", "AmiliOutcomeUnknown")
    assert max(Counter(place.accepted).values(), default=1) == 1
    resent = place.run("fourth", later=True, if_unknown="resend")
    assert (resent["how"], len(resent["receipts"])) == ("done", 2)
    assert place.accepted == ["a.csv", "b.csv"]


@pytest.mark.parametrize("at", [at for at in POINTS if at not in ("byte", "moment", "ledger step")])
def test_killed_at_any_point(place: Place, at: str) -> None:
    """Each file in a request of its own, killed at the first or the second."""
    place.extras["max_files_per_request"] = 1
    for nth in (1, 2):
        place.begin(**FILES)
        place.run("first", plan={"kill": {"at": at, "nth": nth}})
        _goes_on(place)


def test_killed_at_any_step_that_the_database_takes(place: Place) -> None:
    """Before each statement, before and after each COMMIT: no request is ever half claimed."""
    for nth in range(1, 200):
        place.begin(**FILES)
        ended = place.run("first", plan={"kill": {"at": "ledger step", "nth": nth}})
        if ended["how"] == "done":
            break
        assert ended["how"] == "killed"
        _goes_on(place)
    assert 10 < nth < 200


def test_of_many_processes_one_sends_each_file(place: Place) -> None:
    """All look up before any claims: each file is accepted once, and nobody gives way for ever."""
    contents = {f"f{n}": b"invoice %d" % n for n in range(12)}
    for _ in range(3):
        place.begin(**contents)
        meeting = place.room / "meeting"
        meeting.mkdir()
        pair = [{"meet": {"folder": str(meeting), "me": me, "patience": 20.0}} for me in (0, 1)]
        requests = [place.request(f"run{n}", plan=plan) for n, plan in enumerate([*pair, {}, {}])]
        ended = place.work(*requests)
        assert place.accepted == sorted(f"{name}.csv" for name in contents)
        assert {e["how"] for e in ended} <= {"done", "AmiliDeliveryIncomplete"}
        assert sum((_outcomes(e) for e in ended), Counter())["uploaded"] == len(contents)
