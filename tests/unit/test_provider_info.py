"""The provider's metadata: a wrong key can stop a whole Airflow, and the form comes from here."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator

from amili_provider.connection.fields import FIELDS
from amili_provider.get_provider_info import get_provider_info
from amili_provider.hooks.amili import AmiliHook

AIRFLOW = Path(airflow.__file__).parent
INFO = get_provider_info()


def test_metadata_fit_the_schema_that_airflow_ships() -> None:
    """The schema of the installed Airflow, which refuses everything else at start-up, accepts them."""
    jsonschema.validate(INFO, json.loads((AIRFLOW / "provider_info.schema.json").read_text()))


def test_metadata_have_no_key_that_nobody_reads() -> None:
    """A misspelt key would be ignored in silence."""
    properties = json.loads((AIRFLOW / "provider_info.schema.json").read_text())["properties"]
    if "integrations" in properties:  # Airflow 2 lists only the keys that it reads itself
        assert set(INFO) <= set(properties)
    known = {"connection-type", "hook-class-name", "hook-name", "conn-fields", "ui-field-behaviour"}
    assert {key for entry in INFO["connection-types"] for key in entry} <= known


def test_name_is_the_canonical_one() -> None:
    """Another spelling of the distribution's name stops `airflow providers list`."""
    name = INFO["package-name"]
    assert name == name.lower().replace("_", "-")
    (found,) = [e for e in entry_points(group="apache_airflow_provider") if e.value.startswith("amili_provider.")]
    assert found.dist is not None
    assert found.dist.name == name
    assert found.load() is get_provider_info


@pytest.mark.parametrize(
    ("kind", "base"), [("hooks", BaseHook), ("operators", BaseOperator), ("sensors", BaseSensorOperator)]
)
def test_named_modules_hold_what_they_say(kind: str, base: type) -> None:
    """Every module that is named can be imported and has a class of its kind."""
    integrations = {entry["integration-name"] for entry in INFO["integrations"]}
    for entry in INFO[kind]:
        assert entry["integration-name"] in integrations
        for name in entry["python-modules"]:
            module = importlib.import_module(name)
            own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name]
            assert any(issubclass(v, base) for v in own), name


def test_named_triggers_exist() -> None:
    """The triggers' modules can be found."""
    for entry in INFO["triggers"]:
        assert all(importlib.util.find_spec(name) for name in entry["python-modules"])


def test_connection_type_is_the_hooks() -> None:
    """Metadata and hook say the same of the connection."""
    (entry,) = INFO["connection-types"]
    module, _, name = entry["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is AmiliHook
    assert (entry["connection-type"], entry["hook-name"]) == (AmiliHook.conn_type, AmiliHook.hook_name)


# Newer Airflow wants tasks to ask elsewhere, which older Airflow does not have.
@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
def test_airflow_takes_the_connection_type(caplog: pytest.LogCaptureFixture) -> None:
    """Airflow's own registry finds the hook, and has nothing to complain of."""
    from airflow.providers_manager import ProvidersManager

    info = ProvidersManager().hooks["amili"]
    assert info is not None
    assert (info.hook_class_name, info.hook_name) == ("amili_provider.hooks.amili.AmiliHook", "Amili")
    assert info.connection_id_attribute_name == "amili_conn_id"
    assert info.connection_testable
    assert "amili" not in caplog.text


def _form() -> dict[str, Any]:
    """Return what the endpoint behind the connection form answers for our type."""
    services = pytest.importorskip("airflow.api_fastapi.core_api.services.ui.connections")
    (entry,) = [h for h in services.HookMetaService.hook_meta_data() if h.connection_type == "amili"]
    data: dict[str, Any] = entry.model_dump()
    return data


def test_form_has_every_field() -> None:
    """The endpoint behind the form gives all extras with label, description and schema, in the table's order."""
    form = _form()
    extras = [f for f in FIELDS if not f.standard]
    assert form["hook_name"] == "Amili"
    assert list(form["extra_fields"]) == [f.name for f in extras]
    for f in extras:
        shown = form["extra_fields"][f.name]
        assert shown["schema"]["title"] == f.label
        assert f.description in shown["description"]
        assert shown["value"] is None


def test_form_names_the_standard_fields() -> None:
    """Airflow's own fields carry our labels."""
    standard = _form()["standard_fields"]
    assert standard["login"]["title"] == "Client id"
    assert standard["password"]["title"] == "Client secret"
    assert standard["url_schema"]["title"] == "Base path"
    assert standard["host"]["placeholder"]


def test_form_of_older_airflow() -> None:
    """The form of Airflow before 3.2 has the same fields, in text boxes: what is saved is what is shown."""
    pytest.importorskip("flask_appbuilder", reason="only Airflow 2 draws its form with it")
    extras = [f for f in FIELDS if not f.standard]
    widgets = AmiliHook.get_connection_form_widgets()
    assert list(widgets) == [f.name for f in extras]
    for f in extras:
        unbound = widgets[f.name]
        secret = f.schema is not None and f.schema.get("format") == "password"
        assert unbound.field_class.__name__ == ("PasswordField" if secret else "StringField"), f.name
        assert f.description in unbound.kwargs["description"]
    schema = json.loads((AIRFLOW / "customized_form_field_behaviours.schema.json").read_text())
    jsonschema.validate(AmiliHook.get_ui_field_behaviour(), schema)


def test_reading_metadata_imports_nothing_heavy() -> None:
    """Every process of Airflow reads the metadata: no HTTP library, no models, no Airflow because of them."""
    heavy = ("httpx", "pydantic", "airflow", "fsspec", "amili_provider.api", "amili_provider.hooks")
    code = (
        "import sys; import amili_provider.get_provider_info as g; g.get_provider_info();"
        f"print([m for m in sys.modules if m.startswith({heavy!r})])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
