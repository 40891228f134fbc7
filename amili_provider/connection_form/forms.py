"""The table of fields as Airflow's connection form (3.2 and newer, and before) and as the README's table."""

from __future__ import annotations

from typing import Any

from amili_provider.connection_form.fields import FIELDS, HIDDEN_STANDARD_FIELDS, ConnectionField

AIRFLOW_2_MASK = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"
"""What Airflow 2's form takes for "as it was": its ``airflow.www.views.SENSITIVE_FIELD_PLACEHOLDER``."""


class _Masked:
    """
    A password field of Airflow 2's form that shows its mask where something is saved.

    Drawn as usual such a field is empty, and Airflow would take that for the wish to remove what is saved. What was
    typed just now stays, where the form is shown again because of another field.

    :param drawn: the widget that draws it.
    """

    def __init__(self, drawn: Any) -> None:
        self._drawn = drawn

    def __call__(self, field: Any, **attributes: Any) -> Any:
        self._drawn.hide_value = False
        typed = next(iter(field.raw_data or []), "")
        return self._drawn(field, **{**attributes, "value": typed or (AIRFLOW_2_MASK if field.data else "")})


def _shown_default(entry: ConnectionField) -> str:
    """Return the default as one writes it into the field."""
    if entry.default is None:
        return ""
    if isinstance(entry.default, bool):
        return str(entry.default).lower()
    return f"{entry.default:g}" if isinstance(entry.default, float) else str(entry.default)


def _description(entry: ConnectionField) -> str:
    """Return the description with the default. The default is not prefilled: saved, it would stay for ever."""
    shown = _shown_default(entry)
    return f"{entry.description} Default: {shown}." if shown else entry.description


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return ``conn-fields`` of the provider's metadata (Airflow 3.2 and newer)."""
    return {
        f.name: {
            "label": f.label,
            "description": _description(f),
            # Airflow's form draws a heading of its own for each section, in the order of the fields.
            "schema": {**f.schema, "section": f.section} if f.section else dict(f.schema),
        }
        for f in FIELDS
        if f.schema is not None
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return what ``get_ui_field_behaviour`` of a hook returns (Airflow before 3.2)."""
    return {
        "hidden_fields": list(HIDDEN_STANDARD_FIELDS),
        "relabeling": {f.name: f.label for f in FIELDS if f.standard},
        "placeholders": {f.name: f.placeholder for f in FIELDS if f.placeholder},
    }


def ui_field_behaviour_kebab() -> dict[str, Any]:
    """Return ``ui-field-behaviour`` of the provider's metadata (Airflow 3.2 and newer)."""
    return {key.replace("_", "-"): value for key, value in ui_field_behaviour().items()}


def form_widgets() -> dict[str, Any]:
    """
    Return what ``get_connection_form_widgets`` of a hook returns (Airflow before 3.2).

    Numbers and choices are text fields there: what the form saves is then what it shows the next time.
    """
    # Only Airflow's web server calls this, and only there these packages are sure to exist.
    from flask_appbuilder.fieldwidgets import (  # noqa: PLC0415
        BS3PasswordFieldWidget,
        BS3TextFieldWidget,
    )
    from flask_babel import lazy_gettext  # noqa: PLC0415
    from wtforms import PasswordField, StringField  # noqa: PLC0415
    from wtforms.validators import Optional, any_of  # noqa: PLC0415

    widgets: dict[str, Any] = {}
    for f in FIELDS:
        if f.schema is None:
            continue
        validators: list[Any] = [Optional()]
        if "enum" in f.schema:
            validators.append(any_of(f.schema["enum"]))
        secret = f.schema.get("format") == "password"
        widgets[f.name] = (PasswordField if secret else StringField)(
            lazy_gettext(f.label),
            validators=validators,
            description=_description(f),
            widget=_Masked(BS3PasswordFieldWidget()) if secret else BS3TextFieldWidget(),
        )
    return widgets


def readme_table() -> str:
    """Return the fields as a Markdown table."""
    lines = ["| Form label | Key | Default | Meaning |", "|---|---|---|---|"]
    for f in FIELDS:
        key = f"`{f.name}`" if f.standard else f"extra `{f.name}`"
        shown = _shown_default(f)
        what = f.description + (" *Assumed, not documented by Amili.*" if f.assumed else "")
        lines.append(f"| {f.label} | {key} | {f'`{shown}`' if shown else ''} | {what} |")
    return "\n".join(lines) + "\n"
