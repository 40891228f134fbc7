"""
The entry point ``apache_airflow_provider``: all that Airflow discovers of this package.

Airflow reads this in every process and refuses to start some commands if a part is of the wrong shape; so a test
holds it against the schema of each supported Airflow.
"""

from __future__ import annotations

from typing import Any

from amili_provider.connection.form import conn_fields, ui_field_behaviour_kebab

_NAME = "Amili"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
    return {
        # The distribution's name in its canonical form; another spelling stops `airflow providers list`.
        "package-name": "airflow-provider-amili",
        "name": _NAME,
        "description": "Delivers files from any storage connection to Amili and keeps receipts.",
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://docs.amili.dev",
                "logo": "docs/images/logo.svg",
                "tags": ["service"],
            },
        ],
        "operators": [
            {
                "integration-name": _NAME,
                "python-modules": ["amili_provider.operators.amili", "amili_provider.operators.buckets"],
            }
        ],
        "sensors": [{"integration-name": _NAME, "python-modules": ["amili_provider.sensors.amili"]}],
        "hooks": [{"integration-name": _NAME, "python-modules": ["amili_provider.hooks.amili"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": ["amili_provider.triggers.amili"]}],
        "connection-types": [
            {
                "connection-type": "amili",
                "hook-class-name": "amili_provider.hooks.amili.AmiliHook",
                "hook-name": _NAME,
                # Airflow 3.2 and newer draw the form from these two; older ones ask the hook.
                "conn-fields": conn_fields(),
                "ui-field-behaviour": ui_field_behaviour_kebab(),
            }
        ],
        # Without this, Airflow 2 does not draw the task's button.
        "extra-links": ["amili_provider.operators.assets.AmiliReceiptsLink"],
        "config": {
            "amili": {
                "description": "The page 'Amili deliveries' (Airflow 3.1 and newer).",
                "options": {
                    "deliveries_conn_ids": {
                        "description": (
                            "Ids of connections to Amili whose ledgers the page offers, with commas between them. "
                            "Empty: all in Airflow's database and in the API server's environment. A secrets backend "
                            "cannot be asked for a list: name its connections here."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "amili_default,amili_reading",
                        "default": "",
                    }
                },
            }
        },
        # Airflow 3: assets amili://<host>/<client number>, and the dataset that OpenLineage knows them as.
        "asset-uris": [
            {
                "schemes": ["amili"],
                "handler": "amili_provider.operators.assets.sanitize_uri",
                "to_openlineage_converter": "amili_provider.operators.assets.convert_asset_to_openlineage",
            }
        ],
    }
