"""How long to wait: what was asked for, or a back-off; and when to stop."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from amili_provider.api.transport import Backoff, asked_to_wait

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("86399", 86399),
        (formatdate(NOW + 30, usegmt=True), 30),
        (formatdate(NOW, usegmt=True), None),
        (formatdate(NOW - 30, usegmt=True), None),
        ("Wed, 21 Oct 1015 07:28:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("Fri, 15 Jan 2027 08:00:10 -0000", 10),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("٣", None),
        ("99999999999999999999", None),
        ("999999999", 86_400.0),
        ("soon", None),
        ("", None),
        ("Fri, 99 Jan 2027 08:00:10 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Seconds and dates to come are understood; anything else, a past date too, counts as nothing asked."""
    assert asked_to_wait({"retry-after": value}, NOW) == seconds


def test_nothing_asked() -> None:
    """Without the header nothing is asked."""
    assert asked_to_wait({}, NOW) is None


def test_backoff_grows_and_is_spread() -> None:
    """Each wait is between half and all of a step that doubles up to eight seconds."""
    for seed in range(50):
        backoff = Backoff(7, jitter=random.Random(seed))
        waits = [backoff.next_wait(None) for _ in range(7)]
        assert waits[-1] is None
        for wait, longest in zip(waits[:-1], (1, 2, 4, 8, 8, 8), strict=True):
            assert wait is not None
            assert longest / 2 <= wait <= longest


def test_attempts_are_bounded() -> None:
    """Three attempts have two waits between them."""
    backoff = Backoff(3)
    assert [backoff.next_wait(1), backoff.next_wait(1), backoff.next_wait(1)] == [1, 1, None]
    assert backoff.tried == 3


def test_waits_are_bounded_together() -> None:
    """What is asked for is obeyed or left, never shortened."""
    assert Backoff(9).next_wait(60) == 60
    assert Backoff(9).next_wait(60.5) is None
    backoff = Backoff(9)
    assert [backoff.next_wait(35), backoff.next_wait(35)] == [35, None]
