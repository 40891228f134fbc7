"""Failing or skipping by the same rules in every mode, where Airflow's own differ."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    Context,
)

from amili_provider.exceptions import AmiliArgumentError
from amili_provider.report_lines import laid_out_errors
from amili_provider.triggers.amili import SHORTEST_WAIT_SECONDS

_SHORTEST_POKE_SECONDS = 0.05
_FAILED_WHILE_DEFERRED = "__fail__"
"""The method that Airflow resumes if the trigger broke, or if the time of the deferral was up."""


def first_reschedule_date(sensor: BaseSensorOperator, context: Context) -> datetime | None:
    """Return when a sensor in reschedule mode began to wait; None if it begins now."""
    ti: Any = context.get("ti")
    if ti is None:
        return None
    if hasattr(ti, "get_first_reschedule_date"):
        asked: datetime | None = ti.get_first_reschedule_date(context)
        return asked
    # Airflow 2.11 asks its database, in a function of the module of BaseSensorOperator, by the same arguments.
    query: Any = sys.modules[BaseSensorOperator.__module__]._orig_start_date  # noqa: SLF001
    first_try = (ti.max_tries or 0) - (sensor.retries or 0) + 1
    key = {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    began: datetime | None = query(**key, try_number=first_try)
    return began


class SensorThatEndsAsPokeWould(BaseSensorOperator):
    """
    A sensor whose flags mean the same in every mode.

    ``soft_fail`` skips what is late, and nothing else: a refusal, or a mistake, is not soft. Airflow would skip these
    too, and after a deferral every other failure; ``never_fail`` is unknown there before Airflow 3.
    """

    def execute(self, context: Context) -> Any:
        """Poke until the end, and take back the skip of a failure that is not soft."""
        try:
            return super().execute(context)
        except AirflowSkipException as skip:
            failure = skip.__cause__
            if isinstance(failure, Exception) and not self.is_skip(failure):
                raise failure from failure.__cause__
            raise

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """
        Return the seconds until the next poke: no fewer than of a trigger, and the last when the time is up.

        Airflow's own intervals go on past the time-out, and those that grow overflow after a thousand pokes.
        """
        left = self.timeout - run_duration()
        try:
            interval = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        except OverflowError:
            interval = left if self.max_wait is None else self.max_wait.total_seconds()
        return max(min(max(interval, SHORTEST_WAIT_SECONDS), left), _SHORTEST_POKE_SECONDS)

    @abstractmethod
    def out_of_time(self) -> Exception:
        """Return what to raise if Airflow says that the time of the deferral is up."""

    @laid_out_errors()
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral."""
        error = str((next_kwargs or {}).get("error"))
        if next_method == _FAILED_WHILE_DEFERRED and "timeout" in error.casefold():
            self.end_as_poke_would(self.out_of_time())
        try:
            # Past the rules of BaseSensorOperator, which are the ones that differ.
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException:
            raise
        except Exception as failure:  # noqa: BLE001 - decides only whether it is a failure or a skip
            self.end_as_poke_would(failure)

    def end_as_poke_would(self, failure: BaseException) -> NoReturn:
        """Fail or skip, as :meth:`execute` does with what ``poke`` raises."""
        if self.is_skip(failure):
            self.log.warning("Skipped instead of failed: %s", failure)
            name = "soft_fail" if self.soft_fail else "never_fail"
            raise AirflowSkipException(f"Skipping due to {name} is set to True.") from failure
        raise failure

    def is_skip(self, failure: BaseException) -> bool:
        """Return whether the sensor's flags turn *failure* into a skip."""
        late = isinstance(failure, AirflowSensorTimeout | AirflowTaskTimeout)
        return (self.never_fail and not isinstance(failure, AmiliArgumentError)) or (self.soft_fail and late)
