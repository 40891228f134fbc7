"""Looking up a connection without the warning that Airflow makes of a client number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _NoSecret(logging.Filter):
    """Drops Airflow's warning that a value is too short to be masked."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "too short" not in record.getMessage()


_NO_SECRET = _NoSecret()


@contextmanager
def short_extras() -> Iterator[None]:
    """
    Look up a connection to Amili, whose extra has values that are short and no secrets.

    Airflow has every value of an extra masked, and warns in the log of every task that a client number of four digits
    is too short for that. Secrets are masked all the same.
    """
    # The masker lives in several modules, one for each part of Airflow, and elsewhere in each version.
    known = logging.Logger.manager.loggerDict.items()
    maskers = [logger for name, logger in list(known) if name.endswith("secrets_masker")]
    loggers = [logger for logger in maskers if isinstance(logger, logging.Logger)]
    for logger in loggers:
        logger.addFilter(_NO_SECRET)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_NO_SECRET)
