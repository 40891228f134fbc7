"""A trigger asks at the sensor's pace, a bounded number of times, and never anything but questions."""

from __future__ import annotations

import asyncio
import json
import threading
from itertools import pairwise
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import BaseHook, Connection

import amili_provider.api.exchange
from amili_provider.api import exchange
from amili_provider.api.exchange import AmiliAsyncClient
from amili_provider.api.responses import Asked
from amili_provider.triggers import questions
from amili_provider.triggers.amili import MOST_FAILURES, AmiliBatchTrigger, AmiliFileResultTrigger
from amili_provider.triggers.clients import MOST_IN_FLIGHT
from tests.unit.simulated import ACCEPTED, EPOCH, QUEUED, World, first_event, settle_in

HOUR = 3600.0


@pytest.fixture(name="world")
def _world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Give simulated time, and an Amili that answers by script."""
    world = World()
    settle_in(world, monkeypatch)
    return world


def file_trigger(**changes: Any) -> AmiliFileResultTrigger:
    """Return a trigger that waits an hour for the file ``a``, from now on."""
    arguments: dict[str, Any] = {
        "file_ids": {"2218": ["a"]},
        "amili_conn_id": "amili_default",
        "poke_interval": 60.0,
        "started_at": EPOCH,
        "deadline": EPOCH + HOUR,
        **changes,
    }
    return AmiliFileResultTrigger(**arguments)


def batch_trigger(**changes: Any) -> AmiliBatchTrigger:
    """Return the same for the batch ``a``."""
    arguments: dict[str, Any] = {
        "client_no": "2218",
        "batch_uuid": "a",
        "amili_conn_id": "amili_default",
        "poke_interval": 60.0,
        "started_at": EPOCH,
        "deadline": EPOCH + HOUR,
        **changes,
    }
    return AmiliBatchTrigger(**arguments)


ONCE, TWICE, BOUNDED, WHOLE_HOUR = 1, 2, MOST_FAILURES, range(54, 61)
BEHAVIOURS: dict[str, tuple[Any, Any, Any, str]] = {
    # what Amili does: (answer, questions for a file, for a batch, how it ends)
    "400": (400, ONCE, ONCE, "AmiliRequestError"),
    "401": (401, TWICE, TWICE, "AmiliAuthenticationError"),
    "403": (403, ONCE, ONCE, "AmiliAuthenticationError"),
    "404": (404, WHOLE_HOUR, BOUNDED, ""),
    "406": (406, ONCE, ONCE, "AmiliRequestError"),
    "422": (422, ONCE, ONCE, "AmiliRequestError"),
    "429": (429, BOUNDED, BOUNDED, "AmiliConnectionError"),
    "500": (500, BOUNDED, BOUNDED, "AmiliConnectionError"),
    "503": (503, BOUNDED, BOUNDED, "AmiliConnectionError"),
    "garbage": ("<h1>Gateway</h1>", BOUNDED, BOUNDED, "AmiliResponseError"),
    "refused connection": (httpx.ConnectError("refused"), BOUNDED, BOUNDED, "AmiliConnectionError"),
    "slow answer": (httpx.ReadTimeout("slow"), BOUNDED, BOUNDED, "AmiliConnectionError"),
    "202": ((202, {}), WHOLE_HOUR, WHOLE_HOUR, ""),
}


@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("make", [file_trigger, batch_trigger])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_questions_in_a_simulated_hour(behaviour: str, make: Any, random: float, world: World) -> None:
    """Whatever Amili does for an hour, a trigger asks at most 60 times and the documented attempts."""
    answer, for_file, for_batch, error = BEHAVIOURS[behaviour]
    world.random = random
    world.scripts["a"] = [answer]
    event = asyncio.run(first_event(make()))
    expected = for_file if make is file_trigger else for_batch
    asked = len(world.requests)
    assert asked in (expected if isinstance(expected, range) else (expected,))
    assert asked <= 60
    ending = (event["ending"], event["error"])
    if error and not isinstance(expected, range):
        assert ending == ("failed", error)
    elif make is batch_trigger and behaviour == "404":
        assert ending == ("failed", "AmiliRequestError")
    else:
        assert ending == ("timed_out", None)
        assert world.now == EPOCH + HOUR


def test_polls_keep_their_distance(world: World) -> None:
    """Between two polls lies at least the interval, and not much more."""
    world.scripts["a"] = [QUEUED]
    asyncio.run(first_event(file_trigger()))
    moments = [EPOCH, *(moment for moment, _ in world.requests)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(60 <= gap <= 68 for gap in gaps[:-1])


def test_failed_polls_are_tried_again_at_growing_distances(world: World) -> None:
    """After a failure the next attempt waits a little, then longer, never longer than the interval."""
    world.scripts["a"] = [500]
    asyncio.run(first_event(file_trigger()))
    moments = [moment for moment, _ in world.requests]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= 4
    assert gaps[-1] <= 60
    assert sum(gaps) > 300


def test_amili_is_not_asked_before_it_wants_to_be(world: World) -> None:
    """Retry-After is never shortened."""
    world.scripts["a"] = [(429, {"Retry-After": "500"}), ACCEPTED]
    event = asyncio.run(first_event(file_trigger()))
    (first, _), (second, _) = world.requests
    assert second - first >= 500
    assert event["ending"] == "settled"


def test_a_wish_to_wait_beyond_the_deadline_ends_the_wait_at_the_deadline(world: World) -> None:
    """If Amili wants to be asked after the time is up, it is not asked again."""
    world.scripts["a"] = [(503, {"Retry-After": "86400"})]
    event = asyncio.run(first_event(file_trigger()))
    assert len(world.requests) == 1
    assert world.now == EPOCH + HOUR
    assert event["ending"] == "timed_out"
    assert "503" in event["open"][0]["said"]


def test_failures_are_counted_in_a_row(world: World) -> None:
    """A good answer forgives the failures before it."""
    world.scripts["a"] = [*([500] * (MOST_FAILURES - 1) + [QUEUED]) * 3, ACCEPTED]
    event = asyncio.run(first_event(file_trigger(deadline=EPOCH + 10 * HOUR)))
    assert event["ending"] == "settled"


def test_a_restart_does_not_begin_the_time_anew(world: World) -> None:
    """A trigger that is started again ends at the deadline of the first one."""
    world.scripts["a"] = [QUEUED]
    stored = json.loads(json.dumps(file_trigger().serialize()[1]))
    world.now = EPOCH + 3000
    event = asyncio.run(first_event(AmiliFileResultTrigger(**stored)))
    assert world.now == EPOCH + HOUR
    assert event["ending"] == "timed_out"


@pytest.mark.parametrize(("answer", "ending"), [(ACCEPTED, "settled"), (QUEUED, "timed_out")])
def test_a_trigger_that_comes_too_late_asks_once(answer: Any, ending: str, world: World) -> None:
    """After a triggerer was down beyond the deadline, the result may be there all the same."""
    world.scripts["a"] = [answer]
    world.now = EPOCH + 2 * HOUR
    event = asyncio.run(first_event(file_trigger()))
    assert len(world.requests) == 1
    assert event["ending"] == ending
    assert world.now == EPOCH + 2 * HOUR


def test_restarted_triggers_are_spread_over_one_interval(world: World) -> None:
    """A thousand triggers that come back at the same moment do not ask at the same moment."""
    world.scripts["a"] = [ACCEPTED]
    waits = []
    for random in (0.0, 0.3, 0.9):
        world.random, world.now = random, EPOCH + 1000
        asyncio.run(first_event(file_trigger()))
        waits.append(world.now - EPOCH - 1000)
    assert waits == pytest.approx([0.0, 18.0, 54.0])


def test_an_interval_of_nothing_does_not_spin(world: World) -> None:
    """With poke_interval=0 a trigger still asks at most once a second."""
    world.scripts["a"] = [QUEUED]
    asyncio.run(first_event(file_trigger(poke_interval=0, deadline=EPOCH + 60)))
    assert 1 < len(world.requests) <= 60


def test_silent_fail_passes_over_outages_until_the_time_is_up(world: World) -> None:
    """With silent_fail an outage never ends the wait, and is still not asked into the ground."""
    world.scripts["a"] = [500]
    event = asyncio.run(first_event(file_trigger(silent_fail=True)))
    assert event["ending"] == "timed_out"
    assert len(world.requests) <= 60 + 3 * MOST_FAILURES


def test_many_files_share_a_wait(world: World) -> None:
    """Files are asked for a few at a time, each once per poll, and not again once they are final."""
    ids = [f"file-{n:03}" for n in range(200)]
    world.scripts = {one: [ACCEPTED] for one in ids}
    world.scripts["file-007"] = [QUEUED, QUEUED, ACCEPTED]
    event = asyncio.run(first_event(file_trigger(file_ids={"2218": ids[:150], "2219": ids[150:]})))
    assert len(world.requests) == 202
    assert event["ending"] == "settled"
    assert {(one["client_no"], one["id"]) for one in event["settled"]} == {
        *(("2218", one) for one in ids[:150]),
        *(("2219", one) for one in ids[150:]),
    }


def test_questions_in_flight_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files there are, only a few questions are under way at once."""
    under_way = most = 0

    async def slowly(_client: Any, client_no: str, file_id: str) -> Asked:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(5):
            await asyncio.sleep(0)
        under_way -= 1
        return Asked(None, not_found=True, status_code=404)

    monkeypatch.setattr(AmiliAsyncClient, "ask_for_result", slowly)
    ids = [f"file-{n:03}" for n in range(100)]
    asyncio.run(first_event(file_trigger(file_ids={"2218": ids}, deadline=EPOCH + 61)))
    assert most == MOST_IN_FLIGHT


def test_a_failure_stops_the_questions_of_its_poll(world: World) -> None:
    """When Amili fails, the files still to be asked for wait for the next attempt."""
    ids = [f"file-{n:03}" for n in range(100)]
    world.scripts = {"*": [503]}
    asyncio.run(first_event(file_trigger(file_ids={"2218": ids})))
    assert len(world.requests) <= MOST_FAILURES * MOST_IN_FLIGHT


def test_an_answer_of_the_failed_poll_still_counts(world: World) -> None:
    """What was answered before a poll failed is not asked for again in the next attempt."""
    world.scripts = {"a": [ACCEPTED], "b": [500, QUEUED, ACCEPTED], "c": [QUEUED, ACCEPTED]}
    event = asyncio.run(first_event(file_trigger(file_ids={"2218": ["a", "b", "c"]})))
    assert event["ending"] == "settled"
    asked = [one for _, one in world.requests]
    assert (asked.count("a"), asked.count("b"), asked.count("c")) == (1, 3, 2)


def test_one_token_serves_a_wait(world: World) -> None:
    """A token is minted in the trigger, used for all questions, and renewed when it is refused."""
    world.scripts["a"] = [QUEUED, QUEUED, 401, QUEUED, ACCEPTED]
    event = asyncio.run(first_event(file_trigger()))
    assert event["ending"] == "settled"
    assert world.minted == 2


def test_triggers_of_one_connection_share_a_token(world: World) -> None:
    """Many waits in one triggerer ask the token service once."""
    world.scripts["*"] = [QUEUED, ACCEPTED]
    world.together = 50

    async def many() -> list[Any]:
        late = EPOCH + 1000 * HOUR
        triggers = [file_trigger(file_ids={"2218": [f"file-{n}"]}, deadline=late) for n in range(50)]
        return await asyncio.gather(*(first_event(trigger) for trigger in triggers))

    events = asyncio.run(many())
    assert {event["ending"] for event in events} == {"settled"}
    assert world.minted == 1


def test_a_token_service_that_is_down_counts_as_an_outage(world: World) -> None:
    """No token is a failure like any other: tried again for a while, then the task may retry."""
    world.scripts["a"] = [ACCEPTED]
    world.tokens = [500]
    event = asyncio.run(first_event(file_trigger()))
    assert (event["error"], world.minted) == ("AmiliConnectionError", MOST_FAILURES)
    assert not world.requests


def test_wrong_credentials_end_the_wait_at_once(world: World) -> None:
    """Credentials that the token service refuses are not tried again."""
    world.tokens = [401]
    event = asyncio.run(first_event(file_trigger()))
    assert (event["error"], world.minted) == ("AmiliAuthenticationError", 1)
    assert "a-client-secret" not in json.dumps(event)


def test_a_wrong_connection_is_an_error_with_its_traceback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no failure of asking comes out of the trigger as it is."""
    settle_in(world, monkeypatch, environment="nowhere")
    with pytest.raises(ValueError, match="Environment"):
        asyncio.run(first_event(file_trigger()))


def test_a_bug_comes_out_as_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is not dressed up as an answer of Amili."""

    async def broken(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(AmiliAsyncClient, "ask_for_result", broken)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(first_event(file_trigger()))
    assert caught.group_contains(KeyError)


@pytest.mark.parametrize("answer", [ACCEPTED, 403, QUEUED, KeyError("a bug")])
def test_the_client_is_closed_in_every_ending(answer: Any, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Success, refusal, time-out or bug: what was opened is closed."""
    opened, closed = _counting(monkeypatch)
    world.scripts["a"] = [answer]
    try:
        asyncio.run(first_event(file_trigger()))
    except ExceptionGroup:
        assert isinstance(answer, KeyError)
    assert (len(opened), len(closed)) == (1, 1)


def test_the_client_is_closed_when_the_trigger_is_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger that Airflow cancels, in the middle of a wait, leaves nothing open."""
    opened, closed = _counting(monkeypatch)

    async def cancelled() -> None:
        asked = asyncio.Event()

        def answer(elapsed: float) -> Any:
            if elapsed > HOUR:
                asked.set()
            return QUEUED

        world.scripts["a"] = answer
        task = asyncio.create_task(first_event(file_trigger(deadline=EPOCH + 100 * HOUR)))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert (len(opened), len(closed)) == (1, 1)


def _counting(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    opened: list[Any] = []
    closed: list[Any] = []
    real = amili_provider.api.exchange.AmiliAsyncClient

    def make(*args: Any, **kwargs: Any) -> Any:
        client = real(*args, **kwargs)
        close = client.aclose

        async def aclose() -> None:
            closed.append(client)
            await close()

        client.aclose = aclose
        opened.append(client)
        return client

    monkeypatch.setattr(amili_provider.api.exchange, "AmiliAsyncClient", make)
    return opened, closed


@pytest.mark.skipif(not hasattr(Connection, "aextra_dejson"), reason="older Airflow fetches it in a thread")
def test_the_connection_is_fetched_without_blocking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trigger never calls the blocking look-ups, which ``dag.test()`` would not notice."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a blocking look-up in the event loop")

    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    monkeypatch.setattr(Connection, "extra_dejson", property(refuse))
    world.scripts["a"] = [ACCEPTED]
    assert asyncio.run(first_event(file_trigger()))["ending"] == "settled"


def test_a_trigger_only_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart from the token request, everything that leaves a trigger is a GET."""
    methods: list[tuple[str, str]] = []
    answer = world.answer

    def noting(request: httpx.Request) -> httpx.Response:
        methods.append((request.method, request.url.host))
        return answer(request)

    monkeypatch.setattr(world, "answer", noting)
    settle_in(world, monkeypatch)
    world.scripts["a"] = [QUEUED, 500, ACCEPTED]
    asyncio.run(first_event(file_trigger()))
    assert methods[0] == ("POST", "auth.staging.amili.no")
    assert set(methods[1:]) == {("GET", "api.staging.amili.no")}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("what", ["file", "batch"])
def test_a_large_answer_is_read_in_a_thread(
    what: str, large: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes of JSON take longer than all other waits of the triggerer may be held up; small ones need no thread."""
    others = [{"fileId": f"{number:032}", **ACCEPTED} for number in range(2_000 if large else 2)]
    world.scripts["a"] = [(200, [{"fileId": "a", **ACCEPTED}, *others])]
    read_in: list[threading.Thread] = []
    for module, name in ((exchange, "asked_about"), (questions, "batch_status"), (exchange, "without_secrets")):
        real = getattr(module, name)

        def read(*arguments: Any, real: Any = real) -> Any:
            read_in.append(threading.current_thread())
            return real(*arguments)

        monkeypatch.setattr(module, name, read)
    event = asyncio.run(first_event(file_trigger() if what == "file" else batch_trigger()))
    assert event["ending"] == "settled"
    assert len(read_in) == 2
    assert all((thread is not threading.main_thread()) is large for thread in read_in)


@pytest.mark.parametrize(("not_before", "first"), [(EPOCH + 300, 300), (EPOCH - 300, 30)])
def test_a_pause_that_has_passed_hurries_nobody(not_before: float, first: float, world: World) -> None:
    """A triggerer that restarts has all its triggers at once; what Amili asked for long ago is no reason to ask now."""
    world.scripts["a"] = [ACCEPTED]
    asyncio.run(first_event(file_trigger(started_at=EPOCH - 600, not_before=not_before)))
    assert [moment - EPOCH for moment, _ in world.requests] == [first]
