"""The sentence for a connection to Amili that Airflow does not have."""

from __future__ import annotations

import os

from amili_provider.exceptions import AmiliArgumentError


def missing_connection(error: Exception, conn_id: str) -> AmiliArgumentError | None:
    """
    Return what to raise if *error* says that Airflow has no connection *conn_id*; None if it says anything else.

    :param error: what looking it up raised.
    :param conn_id: the id.
    """
    # By name and words: Airflow's versions differ in what they raise, and share no base.
    words = str(error)
    if type(error).__name__ != "AirflowNotFoundException" and not ("isn't defined" in words and conn_id in words):
        return None
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if os.environ.get(variable):
        # Airflow goes on to look elsewhere, and does not say why.
        return AmiliArgumentError(f"{variable} is set, but Airflow cannot read it. Correct it: is it whole JSON?")
    return AmiliArgumentError(
        f"There is no Airflow connection with the id {conn_id!r}. Create it (type Amili), set {variable}, or correct "
        f"amili_conn_id."
    )
