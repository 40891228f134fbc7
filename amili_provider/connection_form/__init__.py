"""
What a connection of type ``amili`` says: its fields, the forms made of them, and the settings read from it.

``fields`` is the one table; ``forms`` turns it into Airflow's connection form and into the README's table;
``settings`` reads a connection by it, with ``extras`` for the keys; ``values`` checks single
values. Nothing here imports Airflow.
"""

from __future__ import annotations

from amili_provider.connection_form.fields import LEDGER_FROM_CONNECTION
from amili_provider.connection_form.fields import label as field_label
from amili_provider.connection_form.forms import (
    conn_fields,
    form_widgets,
    readme_table,
    ui_field_behaviour,
    ui_field_behaviour_kebab,
)
from amili_provider.connection_form.proxies import environment_proxy
from amili_provider.connection_form.settings import AmiliSettings, settings_from
from amili_provider.connection_form.values import as_bool, as_count, as_words, checked_client_no, checked_result_path

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
