"""The run of a trigger: open a client, wait at the sensor's pace, and say how it ended."""

from __future__ import annotations

import logging

from amili_provider.exceptions import AmiliConnectionError, AmiliError
from amili_provider.triggers.connecting import Overrides, aclient, asettings
from amili_provider.triggers.events import WaitEvent, failed
from amili_provider.triggers.pace import Pace
from amili_provider.triggers.polling import Polled, Wait
from amili_provider.triggers.questions import Ask
from amili_provider.triggers.waiting import AmiliTrigger

log = logging.getLogger(__name__)


async def wait(trigger: AmiliTrigger) -> WaitEvent:
    """
    Wait as *trigger* says.

    :returns: how it ended; what is no failure of asking, such as a bug or a wrong connection, is raised as it is.
    """
    pace = Pace(trigger.poke_interval, trigger.exponential_backoff, trigger.max_wait)
    keys = trigger.keys()
    waiting = Wait(keys, pace, deadline=trigger.deadline, time=trigger.time)
    overrides = Overrides(
        trigger.result_path, trigger.accepted_results, trigger.refused_results, trigger.pending_results
    )
    settings = overrides.applied_to(await asettings(trigger.amili_conn_id))
    try:
        async with aclient(settings, len(keys)) as client:
            ask = trigger.question(client, client.vocabulary)
            settled = await _until_settled(trigger, waiting, ask, pace)
    except AmiliError as error:
        return failed(error, waiting.settled, waiting.open)
    return WaitEvent(ending="settled" if settled else "timed_out", settled=waiting.settled, open=waiting.open)


async def _until_settled(trigger: AmiliTrigger, waiting: Wait, ask: Ask, pace: Pace) -> bool:
    """Poll until all is settled, or the time is up; even a trigger that comes too late asks once."""
    time = trigger.time
    interval = pace.first_interval(time.now() - trigger.started_at, time.dice())
    told = 0
    while True:
        if (still_open := len(waiting.open)) != told:
            told = still_open
            log.info("Waiting for %s result(s); the next question is in %.0f s", still_open, interval)
        left = trigger.deadline - time.now()
        last = left <= interval
        await time.sleep(max(min(interval, left), 0.0))
        try:
            polled = await waiting.poll(ask)
        except AmiliConnectionError as trouble:
            if not trigger.silent_fail:
                raise
            log.warning("A poll failed and is passed over, as silent_fail says: %s", trouble.message)
            polled = Polled.OPEN
        if polled is Polled.SETTLED:
            return True
        if last or polled is Polled.TIME_IS_UP or waiting.is_over:
            return False
        interval = pace.interval(time.now() - trigger.started_at, time.dice())
