"""The connection form as Airflow's own endpoints give it, and a connection that is saved and read through them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_2_PLUS

from amili_provider.connection.fields import FIELDS, TUNING
from amili_provider.hooks.amili import AmiliHook
from tests.suites.upgrade.old_form import OldForm, kept

EXTRAS = [f for f in FIELDS if not f.standard]
SAVED = {
    "environment": "staging",
    "client_no": "2218",
    "ledger": "s3://invoices/amili-ledger",
    "access_token": "canary-access",
    "answer_timeout": 900,
    "verify": "false",
}
MENDED = {"access_token": ""}


@pytest.fixture(name="api")
def _api(airflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Airflow's API with everybody an administrator, called without a network."""
    if not AIRFLOW_V_3_0_PLUS:
        pytest.skip("Airflow 2 has no such API")
    assert airflow_home
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 128)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://testserver")
    with warnings.catch_warnings():
        # What Airflow says of itself is not ours to fail on.
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_app
        from fastapi.testclient import TestClient

        with TestClient(create_app(apps="core")) as client:
            token = client.get("/auth/token").json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client


def test_the_endpoint_of_the_form_gives_every_field(api: Any) -> None:
    """What the browser draws: the name in the list of types, our labels, every extra in the table's order."""
    (form,) = [h for h in api.get("/ui/connections/hook_meta").json() if h["connection_type"] == "amili"]
    assert form["hook_name"] == "Amili"
    assert form["standard_fields"]["login"]["title"] == "Client id"
    assert list(form["extra_fields"]) == [f.name for f in EXTRAS]
    assert list(form["extra_fields"])[:3] == ["environment", "client_no", "ledger"]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow before 3.2 draws the form without headings")
def test_tuning_comes_last_under_a_heading_of_its_own(api: Any) -> None:
    """The fields that everybody fills in are Airflow's own section, and nothing of the last section comes before."""
    (form,) = [h for h in api.get("/ui/connections/hook_meta").json() if h["connection_type"] == "amili"]
    sections = [field["schema"].get("section") for field in form["extra_fields"].values()]
    assert sections == sorted(sections, key=bool)
    assert set(sections) == {None, TUNING}


def _kept(conn_id: str) -> str:
    """Return what a task would get, as a URI."""
    from airflow.models.connection import Connection  # the row, not the task's view of it
    from airflow.utils.session import create_session

    with create_session() as session:
        uri: str = session.query(Connection).filter_by(conn_id=conn_id).one().get_uri()
    return uri


def test_a_connection_reads_back_as_it_was_saved(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the API, with the token and the password masked, and whole for a task."""
    connection = {"connection_id": "amili_saved", "conn_type": "amili", "login": "me", "password": "canary-secret"}
    answer = api.post("/api/v2/connections", json={**connection, "extra": json.dumps(SAVED)})
    assert answer.status_code == 201, answer.text
    try:
        text = api.get("/api/v2/connections/amili_saved").text
        shown = json.loads(json.loads(text)["extra"])
        assert "canary" not in text
        assert shown == {**SAVED, "access_token": "***"}
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_SAVED", _kept("amili_saved"))
        with pytest.raises(ValueError, match="'Access token' .* is given together with 'Client id'"):
            assert AmiliHook("amili_saved").settings
        api.patch("/api/v2/connections/amili_saved", json={**connection, "extra": json.dumps({**SAVED, **MENDED})})
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_SAVED", _kept("amili_saved"))
        settings = AmiliHook("amili_saved").settings
        assert (settings.environment, settings.client_no, settings.answer_timeout) == ("staging", "2218", 900.0)
        assert (settings.verify, settings.client_secret) == (False, "canary-secret")
    finally:
        api.delete("/api/v2/connections/amili_saved")


def test_the_form_of_airflow_2_has_every_field() -> None:
    """There the form comes from the hook, through Airflow's registry of providers."""
    if AIRFLOW_V_3_0_PLUS:
        pytest.skip("from 3.0 on the form comes from the endpoint above")
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    widgets = [key for key in manager.connection_form_widgets if key.startswith("extra__amili__")]
    assert sorted(widgets) == sorted(f"extra__amili__{f.name}" for f in EXTRAS)
    behaviour = manager.field_behaviours["amili"]
    assert behaviour["relabeling"]["login"] == "Client id"


# What Airflow 2 says of its own parts is not ours to fail on.
@pytest.mark.filterwarnings("ignore")
def test_the_form_of_airflow_2_reads_back_as_saved(airflow_home: Path) -> None:
    """A secret shows as a mask, a change of another field leaves it, and emptying its field removes it."""
    if AIRFLOW_V_3_0_PLUS:
        pytest.skip("from 3.0 on the form is another")
    assert airflow_home
    form = OldForm()
    typed = {**{name: str(value) for name, value in SAVED.items()}, "proxy": "http://me:canary-proxy@proxy.example:1"}
    form.add("amili_old", typed)
    assert kept("amili_old") == typed
    shown = form.edit("amili_old", {"client_no": "2219"})
    assert "canary" not in str(shown)
    assert {name: shown[name] for name in ("client_no", "verify", "answer_timeout")} == {
        "client_no": "2218",
        "verify": "false",
        "answer_timeout": "900",
    }
    assert kept("amili_old") == {**typed, "client_no": "2219"}
    form.edit("amili_old", {"proxy": ""})
    assert set(typed) - set(kept("amili_old")) == {"proxy"}
