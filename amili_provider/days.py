"""
The day that a run delivers: the same one on each Airflow, whatever started the run.

Airflow's own words for a day (``ds``, ``logical_date``, ``data_interval_start``) mean other days on 2.11 than on 3, are
UTC, and are not there in each run.
"""

from __future__ import annotations

from typing import Final

LAST_COMPLETE_DAY: Final = (
    "{{ params.get('day')"
    " or ((partition_date | default(none)) and partition_date.astimezone(dag.timezone).date())"
    " or ((dag_run.run_type in ('scheduled', 'backfill') and dag_run.data_interval_end)"
    " or dag_run.logical_date or dag_run.run_after)"
    # The date before the subtraction: a day is not always 24 hours.
    ".astimezone(dag.timezone).date() - macros.timedelta(days=1) }}"
)
"""
Template of the last day that is over when a run is due, as ``YYYY-MM-DD``, for any templated field of any operator.

It is the first of these that the run has:

1. the parameter ``day``: the day that a person names;
2. the day of the run's partition (Airflow 3.2 and newer);
3. the day before the end of the data interval, in scheduled runs and backfills;
4. the day before the run's logical date, or, without one, before the moment when the run was asked for.

Days are those of the DAG's time zone, which is the one of its ``start_date``: give that the zone of the timetable.
"""
