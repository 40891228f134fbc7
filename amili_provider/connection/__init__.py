"""
What a connection of type ``amili`` says: its fields, the forms made of them, and the settings read from it.

``fields`` is the one table; ``form`` turns it into Airflow's connection form and into the guide's table, and knows
which keys count; ``settings`` reads a connection by it; ``values`` checks single values. Nothing here imports Airflow.
"""

from __future__ import annotations

from amili_provider.connection.fields import LEDGER_FROM_CONNECTION
from amili_provider.connection.fields import label as field_label
from amili_provider.connection.form import (
    conn_fields,
    form_widgets,
    readme_table,
    ui_field_behaviour,
    ui_field_behaviour_kebab,
)
from amili_provider.connection.proxies import environment_proxy
from amili_provider.connection.settings import AmiliSettings, settings_from
from amili_provider.connection.values import as_bool, as_count, as_words, checked_client_no, checked_result_path

__all__ = [
    "LEDGER_FROM_CONNECTION",
    "AmiliSettings",
    "as_bool",
    "as_count",
    "as_words",
    "checked_client_no",
    "checked_result_path",
    "conn_fields",
    "environment_proxy",
    "field_label",
    "form_widgets",
    "readme_table",
    "settings_from",
    "ui_field_behaviour",
    "ui_field_behaviour_kebab",
]
