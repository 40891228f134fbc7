"""``python -m tests.suites.browser``: form, log and Deliveries page, as a person uses them; pictures."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from pathlib import Path

from amili_provider.connection.fields import FIELDS
from tests.suites.browser import deliveries
from tests.suites.browser.log_view import look
from tests.suites.browser.pages import ConnectionForm, Graph, open_browser
from tests.suites.browser.throwaway import airflow

CONN_ID = "amili_default"
DAG_ID = "amili_upload_and_check"
IMAGES = Path(__file__).parents[3] / "docs" / "images"

VALUES = {
    "login": "my-integration",
    "password": "canary-secret",
    "host": "",
    "port": "",
    "schema": "",
    "environment": "staging",
    "client_no": "2218",
    "user_id": "airflow",
    "ledger": "s3://invoices/amili-ledger",
    "ledger_conn_id": "aws_default",
    "auth_url": "https://auth.staging.amili.no",
    "scope": "arm",
    "access_token": "canary-access",
    "connect_timeout": "7.5",
    "answer_timeout": "900",
    "verify": "true",
    "ca_file": "/etc/ssl/ca.pem",
    "proxy": "http://proxy.example.com:3128",
    "allow_http": "false",
    "max_request_bytes": "1048576",
    "max_files_per_request": "50",
    "result_path": "/clients/{clientno}/files/{fileid}",
    "accepted_results": "PROCESSED/CREATED",
    "refused_results": "FAILED, REJECTED",
    "pending_results": "QUEUED",
    "isolate_refused": "false",
    "not_taken_statuses": "429, 503",
}
MASKED = ("password", "access_token", "proxy")
"""What Airflow does not show again: a proxy's URL may hold a password."""
PICTURED = ("login", "password", "environment", "client_no", "user_id", "ledger", "ledger_conn_id")
"""Fields that most people fill in, and no other, are in the picture."""


def differences(form: ConnectionForm) -> list[str]:
    """Return what the form shows otherwise than it was saved; secrets must not be shown at all."""
    found = []
    for field in FIELDS:
        shown, saved = form.read(field), VALUES[field.name]
        right = saved not in shown if field.name in MASKED else _same(shown, saved)
        if not right:
            found.append(f"{field.label}: saved {saved!r}, shown {shown!r}")
    return found


def _same(shown: str, saved: str) -> bool:
    # Number fields may write 900 as 900.0 or 1,048,576.
    return shown == saved or (
        saved.replace(".", "").isdigit() and float(shown.replace(",", "") or "nan") == float(saved)
    )


def kept(url: str) -> dict[str, object]:
    """Return the connection's extra as Airflow's API gives it."""
    with urllib.request.urlopen(f"{url}/api/v2/connections/{CONN_ID}", timeout=60) as answer:
        extra: dict[str, object] = json.loads(json.load(answer)["extra"])
    return extra


def lost(shown: str) -> list[str]:
    """Return what is in the database otherwise than it was typed: masks must not have been saved."""
    (connection,) = json.loads(shown)
    found = {**connection["extra_dejson"], "login": connection["login"], "password": connection["password"]}
    return [
        f"{n}: typed {v!r}, kept {found.get(n)!r}" for n, v in VALUES.items() if v and not _same(str(found.get(n)), v)
    ]


def main(images: Path, log_picture: Path | None) -> int:
    """Do it all, and return the exit code."""
    missing = [f.name for f in FIELDS if f.name not in VALUES]
    assert not missing, f"new fields that are not tried: {missing}"
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="amili-chromium-") as profile, airflow(DAG_ID) as here:
        url = here.url
        driver = open_browser(Path(profile))
        try:
            driver.set_window_size(1280, 1500)
            form = ConnectionForm(driver, url)
            form.add(CONN_ID)
            for field in FIELDS:
                if VALUES[field.name] and field.name in PICTURED:
                    form.fill(field, VALUES[field.name])
            form.resize(1000, 1160)
            form.to_top()
            form.picture(images / "connection.png")
            for field in FIELDS:
                if VALUES[field.name] and field.name not in PICTURED:
                    form.fill(field, VALUES[field.name])
            form.save()
            form.edit(CONN_ID)
            wrong = differences(form)
            extra = kept(url)
            wrong += [f"{name} is not masked" for name in MASKED if extra.get(name, "***") != "***"]
            # Saved once more without a change, everything must still be there.
            form.save()
            wrong += [f"{n} changed by saving: {v!r}" for n, v in kept(url).items() if v != extra[n]]
            wrong += lost(here.command("connections", "get", CONN_ID, "--output", "json"))
            graph = Graph(driver, url)
            graph.resize(1100, 560)
            graph.open(DAG_ID, ["upload_invoices", "check_results"])
            graph.picture(images / "graph.png")
            wrong += look(driver, log_picture)
            wrong += deliveries.look(driver, images)
        finally:
            driver.quit()
    for line in wrong:
        print(line)  # noqa: T201 - a command's report
    print(f"{len(FIELDS)} fields, {len(wrong)} differences. Pictures: {images}/*.png")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.suites.browser", description=__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the screenshots")
    parser.add_argument("--log-picture", type=Path, help="file of a screenshot of the log, which shows local paths")
    given = parser.parse_args()
    sys.exit(main(given.images, given.log_picture))
