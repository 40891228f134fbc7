"""
The base of both sensors: one outcome for one course of events, in poke, reschedule and deferrable mode alike.

What only a wait needs is imported when it begins: pydantic's models alone cost a DAG file more than all operators.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    PokeReturnValue,
    conf,
)

from amili_provider.exceptions import AmiliError, AmiliResultFailed, wrong_arguments_are_permanent
from amili_provider.report_lines import laid_out, laid_out_errors
from amili_provider.sensors.soft_fail import SensorThatEndsAsPokeWould, first_reschedule_date
from amili_provider.triggers.amili import MOST_FAILURES, Time

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from amili_provider.triggers.amili import AmiliTrigger
    from amili_provider.triggers.clients import Poller
    from amili_provider.triggers.polling import Open, Settled
    from amili_provider.triggers.questions import Key

DEFAULT_TIMEOUT_SECONDS = 60 * 60
_GRACE_SECONDS = 120
"""Airflow's own time-out comes this much later than the trigger's, which knows what is missing."""
_AIRFLOWS_OWN = "Sensor has timed out"
"""What BaseSensorOperator says of a time-out that it finds by itself."""
_MOST_SHOWN = 20


def words_of(one: Settled) -> str:
    """Return what Amili said of a result."""
    shown = "/".join(w for w in (one.status, one.result) if w)
    return ": ".join(w for w in (shown, one.message) if w) or "no reason given"


class AmiliSensor(SensorThatEndsAsPokeWould):
    """
    Waits for results of Amili.

    All modes poll by the same rules and end alike, ``soft_fail``, ``silent_fail`` and ``never_fail`` included. With
    ``soft_fail`` only a time-out skips: what Amili refuses stays failed.

    :param amili_conn_id: the connection.
    :param client_no: the client number; None for the connection's.
    :param accepted_results: words that mean accepted, ``STATUS/RESULT`` or ``WORD``; None for the connection's.
    :param refused_results: more words that mean refused, besides the connection's and those that always do.
    :param pending_results: words that mean "not yet"; None for the connection's.
    :param deferrable: whether to wait in the triggerer; by default as ``[operators] default_deferrable`` says.
    :param timeout: seconds, or a timedelta; one hour by default.
    :param arguments: what every sensor has: ``poke_interval``, ``mode``, ``exponential_backoff``, ``max_wait``,
        ``soft_fail``, ``silent_fail``, ``never_fail``, ...
    :raises AmiliArgumentError: for a wrong argument or connection, before anything is asked; also a ``ValueError``; no
        retry.
    :raises AmiliResultFailed: if Amili refused something, in its own words; no retry.
    :raises AirflowSensorTimeout: if there is no final result in time; no retry.
    :raises AmiliConnectionError: if asking failed several times in a row for causes that pass; Airflow retries.
    :raises AmiliAuthenticationError: if Amili does not let us in; no retry.
    :raises AmiliRequestError: if the question as such is refused; no retry.
    :raises AmiliResponseError: if answers are not what the API describes; no retry.
    """

    template_fields: Sequence[str] = ("amili_conn_id", "client_no")
    ui_color = "#d8ecf3"
    time: ClassVar[Time] = Time()
    """The clock; tests put their own here."""
    _poking: Poller | None = None

    def __init__(
        self,
        *,
        amili_conn_id: str = "amili_default",
        client_no: str | int | None = None,
        accepted_results: str | Sequence[str] | None = None,
        refused_results: str | Sequence[str] | None = None,
        pending_results: str | Sequence[str] | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
        **arguments: Any,
    ) -> None:
        super().__init__(timeout=timeout, **arguments)
        self.amili_conn_id = amili_conn_id
        self.client_no = client_no
        self.accepted_results = accepted_results
        self.refused_results = refused_results
        self.pending_results = pending_results
        self.deferrable = deferrable

    # What a sensor of this kind waits for; see the subclasses.

    @abstractmethod
    def _wanted(self) -> list[tuple[str | None, str]]:
        """Return what is waited for, with None where the connection's client number counts. ValueErrors belong here."""

    def _names(self) -> dict[str, str]:
        """Return the names of what is waited for, by id, as far as they are known."""
        return {}

    def _hopeless(self) -> AmiliResultFailed | None:
        """Return why waiting is of no use, if it is."""
        return None

    @abstractmethod
    def _trigger(self, keys: list[Key], **arguments: Any) -> AmiliTrigger:
        """Return what waits for it in the triggerer, and says how it is asked for everywhere."""

    @abstractmethod
    def _result(self, settled: dict[Key, Settled]) -> Any:
        """Return the XCom of results that are all accepted."""

    @abstractmethod
    def _refused(self, refused: list[Settled], still_open: list[Open], total: int) -> AmiliResultFailed:
        """Return the error for results that are refusals."""

    @abstractmethod
    def _time_is_up_words(self, still_open: str) -> str:
        """Return the sentence for what has no result when the time is up."""

    # Modes.

    @laid_out_errors()
    def execute(self, context: Context) -> Any:
        """Wait. A wrong argument fails the task at once, whatever ``soft_fail`` says: it is a mistake in the DAG."""
        from amili_provider.sensors.arguments import check_wait

        started = self.time.now()
        with wrong_arguments_are_permanent():
            for name in ("timeout", "poke_interval", "max_wait"):
                wait = getattr(self, name)
                check_wait(name, wait.total_seconds() if isinstance(wait, timedelta) else wait)
            wanted = self._wanted()
            undeliverable = self._hopeless()
        if undeliverable is not None:
            self.end_as_poke_would(undeliverable)
        if not wanted:
            self.log.info("There is nothing to wait for.")
            return self._result({})
        with wrong_arguments_are_permanent():
            opened = self._opened(context, wanted, started)
        with opened as poking:
            self._poking = poking
            try:
                return self._defer_if_open(poking, started) if self.deferrable else super().execute(context)
            except (AirflowSensorTimeout, AirflowSkipException) as late:
                if not str(late).startswith(_AIRFLOWS_OWN):
                    raise
                # Airflow looked at its own clock after the last poke, and does not know what was refused.
                self.end_as_poke_would(self._time_is_up(poking.wait.settled, poking.wait.open))
            except Exception as again:
                # Airflow gives the slot back by an exception with the date of the next poke.
                if (not_before := poking.wait.not_before) is not None and hasattr(again, "reschedule_date"):
                    again.reschedule_date = max(again.reschedule_date, datetime.fromtimestamp(not_before, UTC))
                raise
            finally:
                self._poking = None

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Ask once for everything that has no final result yet."""
        try:
            if self._poking is not None:
                return self._poke(self._poking)
            with self._opened(context, self._wanted(), self.time.now()) as poking:
                return self._poke(poking)
        except (AmiliError, AirflowSensorTimeout) as failure:
            if self.is_skip(failure):
                self.log.warning("%s", failure)  # Airflow's skip will not say why
            raise

    def _poke(self, poking: Poller) -> bool | PokeReturnValue:
        from amili_provider.triggers.polling import Polled, still_open

        polled, wait = poking.poll(), poking.wait
        if polled is Polled.SETTLED:
            return PokeReturnValue(is_done=True, xcom_value=self._judged(wait.settled, []))
        if polled is Polled.TIME_IS_UP or wait.is_over:
            raise self._time_is_up(wait.settled, wait.open)
        if wait.forgets and any(one.meaning == "refused" for one in wait.settled):
            raise self._time_is_up(wait.settled, wait.open)
        self.log.info("%s", still_open(wait.open, wait.settled, self._names()))
        return False

    def _defer_if_open(self, poking: Poller, started: float) -> Any:  # noqa: RET503 - defer raises
        from amili_provider.triggers.polling import is_transient

        wait, asked = poking.wait, None
        try:
            done = self._poke(poking)
        except AmiliError as trouble:
            if not is_transient(trouble):
                self.end_as_poke_would(trouble)
            asked = getattr(trouble, "retry_after", None)
            self.log.warning("The first question failed, the triggerer asks again: %s", trouble.message)
        except (AirflowSensorTimeout, AirflowTaskTimeout) as late:
            self.end_as_poke_would(late)
        else:
            if isinstance(done, PokeReturnValue):
                return done.xcom_value
        trigger = self._wait_for([(still.client_no, still.id) for still in wait.open], started)
        trigger.not_before = None if asked is None else self.time.now() + asked
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"settled": [result.model_dump(mode="json") for result in wait.settled]},
            timeout=timedelta(seconds=max(trigger.deadline - self.time.now(), 0.0) + _GRACE_SECONDS),
        )

    def _wait_for(self, keys: list[Key], started: float) -> AmiliTrigger:
        return self._trigger(
            keys,
            amili_conn_id=self.amili_conn_id,
            poke_interval=self.poke_interval,
            started_at=started,
            deadline=started + self.timeout,
            exponential_backoff=self.exponential_backoff,
            max_wait=None if self.max_wait is None else self.max_wait.total_seconds(),
            silent_fail=self.silent_fail,
            accepted_results=self.accepted_results,
            refused_results=self.refused_results,
            pending_results=self.pending_results,
        )

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        settled: Sequence[Any] | None = None,
    ) -> Any:
        """
        Judge what the trigger says; what is not understood fails.

        :param context: Airflow's.
        :param event: the trigger's.
        :param settled: what was settled before the task was deferred; None if Airflow did not keep it, as
            ``dag.test()`` of Airflow 3 does not: Amili is asked for it again.
        """
        from pydantic import ValidationError

        from amili_provider.triggers.polling import CLEAR, Settled, read_event

        ended = read_event(event)
        try:
            known = [*(Settled.model_validate(one) for one in settled or ()), *ended.settled]
        except ValidationError:
            raise AmiliError(f"What this task knew before it was deferred cannot be read. {CLEAR}") from None
        if ended.ending == "failed":
            ended.raise_error()
        if ended.ending == "timed_out":
            raise self._time_is_up(known, ended.open)
        if settled is None and (lost := self._missing(known)):
            with self._opened(context, lost, self.time.now()) as poking:
                poking.poll()
                known += poking.wait.settled
        return self._judged(known, ended.open)

    def _opened(self, context: Context, wanted: list[tuple[str | None, str]], started: float) -> Poller:
        from amili_provider.hooks.amili import AmiliHook
        from amili_provider.triggers.clients import Poller, overridden
        from amili_provider.triggers.polling import Wait

        hook = AmiliHook(self.amili_conn_id)
        keys = [(hook.client_no() if number is None else number, one) for number, one in wanted]
        trigger = self._wait_for(keys, self._first_poke(context, started))
        wait = Wait(
            keys,
            trigger.pace,
            deadline=trigger.deadline,
            time=self.time,
            # Deferrable: the triggerer tries again, and no worker waits for it.
            attempts=1 if self.deferrable else MOST_FAILURES,
            forgets=self.reschedule and not self.deferrable,
        )
        return Poller(overridden(hook.settings, trigger), wait, trigger)

    def _first_poke(self, context: Context, now: float) -> float:
        """Return when the wait began: of a rescheduled task, only Airflow knows."""
        first = None if self.deferrable or not self.reschedule else first_reschedule_date(self, context)
        return now if first is None else first.timestamp()

    # Verdicts.

    def out_of_time(self) -> Exception:
        """Return what to raise when no event arrived in time: nobody here knows what is open."""
        return self._time_is_up([], [])

    def _judged(self, known: list[Settled], still_open: list[Open]) -> Any:
        """Return the XCom if everything that is waited for was accepted, and nothing else is left to doubt."""
        refused = [one for one in known if one.meaning == "refused"]
        if refused:
            raise self._refused(refused, still_open, len(known) + len(still_open))
        missing = self._missing(known)
        if missing or still_open:
            from amili_provider.triggers.polling import CLEAR

            raise AmiliError(f"The trigger ended without a result of {len(missing) or len(still_open)}. {CLEAR}")
        names = self._names()
        shown = [f"{names.get(one.id, one.id)} ({words_of(one)})" for one in known[:_MOST_SHOWN]]
        more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
        self.log.info("%d of %d accepted: %s%s", len(known), len(known), ", ".join(shown), more)
        return self._result({(one.client_no, one.id): one for one in known})

    def _missing(self, known: list[Settled]) -> list[tuple[str | None, str]]:
        """Return what of :meth:`_wanted` is not among *known*."""
        keys = {(one.client_no, one.id) for one in known}
        ids = {one.id for one in known}
        return [
            (number, one)
            for number, one in self._wanted()
            if (one not in ids if number is None else (number, one) not in keys)
        ]

    def _time_is_up(self, known: list[Settled], still_open: list[Open]) -> Exception:
        """Return what to raise when no time is left: that something was refused weighs more than that it is late."""
        from amili_provider.triggers.polling import grouped

        refused = [one for one in known if one.meaning == "refused"]
        if refused:
            return self._refused(refused, still_open, len(known) + len(still_open))
        return AirflowSensorTimeout(laid_out(self._time_is_up_words(grouped(still_open, self._names()))))
