"""The table of fields as Airflow's connection form; and which keys of an extra count."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from typing import Any

from amili_provider.connection.fields import EXTRA_NAMES, FIELDS, HIDDEN_STANDARD_FIELDS, ConnectionField, label

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


def shown_default(entry: ConnectionField) -> str:
    """Return the default as one writes it into the field."""
    if entry.default is None:
        return ""
    if isinstance(entry.default, bool):
        return str(entry.default).lower()
    return f"{entry.default:g}" if isinstance(entry.default, float) else str(entry.default)


def _description(entry: ConnectionField) -> str:
    """Return the description with the default. The default is not prefilled: saved, it would stay for ever."""
    shown = shown_default(entry)
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


_OTHER_FIELDS = {
    "token_url": "auth_url",
    "client_id": "login",
    "client_secret": "password",
    "base_url": "host",
    "base_path": "schema",
}


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]", "", key.casefold())


# Who reads the form and writes JSON calls a field by its label; units in brackets are no part of it.
_BY_ANY_NAME = {
    **{_folded(field.label.partition("(")[0]): field.name for field in FIELDS if not field.standard},
    **{_folded(name): name for name in sorted(EXTRA_NAMES)},
}
_LONGEST_KEY_SHOWN = 60

log = logging.getLogger(__name__)


def known_extras(extra: Any, conn_id: str) -> dict[str, Any]:
    """
    Return the extras that count and are not empty.

    One that is misspelt, or called by its label, is an error, since it would be ignored; what is like no field may be a
    note of somebody's own, and is warned of.

    :param extra: the connection's extra, parsed.
    :param conn_id: for the warning.
    :raises ValueError: naming the key that is wrong.
    """
    if not isinstance(extra, Mapping):
        raise ValueError("'Extra' is not a JSON object.")  # noqa: TRY004 - one kind for all wrong connections
    ignored: list[str] = []
    for key in extra:
        if key in EXTRA_NAMES or not isinstance(key, str):
            continue
        if key in _OTHER_FIELDS:
            raise ValueError(f"extra {key!r} is not a field of this connection; use {label(_OTHER_FIELDS[key])}.")
        if close := difflib.get_close_matches(_folded(key), _BY_ANY_NAME, n=1, cutoff=0.85):
            meant = _BY_ANY_NAME[close[0]]
            raise ValueError(f"extra {key!r} is not a field of this connection; did you mean {meant!r}?")
        ignored.append(key)
    if ignored:
        # Keys only: a value may be a secret.
        shown = ", ".join(repr(key[:_LONGEST_KEY_SHOWN]) for key in ignored)
        log.warning("Connection %r: ignored in the extra, since no field is called so: %s.", conn_id, shown)
    return {
        k: v
        for k, v in extra.items()
        if k in EXTRA_NAMES and v is not None and not (isinstance(v, str) and not v.strip())
    }
