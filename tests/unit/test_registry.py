"""``.airflow-registry.yaml`` says what the package says of itself."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from amili_provider.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
INFO = get_provider_info()
KINDS = ("hooks", "operators", "sensors", "triggers")


@pytest.fixture(name="registry")
def _registry() -> dict[str, Any]:
    """The file, as read."""
    read: dict[str, Any] = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text(encoding="utf-8"))
    return read


def test_name_and_description_are_those_of_the_metadata(registry: dict[str, Any]) -> None:
    """One package has one name."""
    assert registry["package-name"] == INFO["package-name"]
    assert registry["display-name"] == INFO["name"]
    assert registry["description"] == INFO["description"]
    assert all((ROOT / registry[key]).is_file() for key in ("logo", "docs-url"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_public_class_is_listed(kind: str, registry: dict[str, Any]) -> None:
    """Each class that the named modules define for DAG authors, and no other."""
    public = {
        f"{name}.{found.__name__}"
        for entry in INFO[kind]
        for name in entry["python-modules"]
        for found in vars(importlib.import_module(name)).values()
        if inspect.isclass(found) and not inspect.isabstract(found)
        if found.__module__ == name and found.__name__.startswith("Amili")
    }
    assert {entry["module"] for entry in registry[kind]} == public
    assert all(entry["description"].endswith(".") for entry in registry[kind])
