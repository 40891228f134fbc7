"""What is known of one request while it runs."""

from __future__ import annotations

import time
from types import SimpleNamespace

from amili_provider.api.in_flight import InFlight


def test_a_replay_is_not_late_because_the_request_before_it_was() -> None:
    """A 401 that came in the last moment, and the replay with a new token: the replay has a time of its own."""
    flight = InFlight(connect_seconds=1.0)
    answer = SimpleNamespace(method=b"POST", extensions={"answer_seconds": 0.001})
    flight.trace("http11.receive_response_headers.started", {"request": answer})
    end = time.monotonic() + 10
    while not flight.overdue and time.monotonic() < end:
        time.sleep(0.001)
    before = flight.overdue
    flight.trace("http11.send_request_headers.started", {})
    assert (before, flight.overdue) == (True, False)
