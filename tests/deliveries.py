"""A ledger such as a team has after some weeks, for what is shown of it, and an API server of Airflow to show it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from amili_provider.ledger.attempts import Attempt, AttemptState, Origin, timestamp
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.sql import SqlStore
from amili_provider.receipts import Outcome, Verdict
from tests.ledger_cases import ACCEPTED, LOST
from tests.processes import end, free_port
from tests.suites.bench.airflow import until

REFUSED = Verdict(
    Outcome.REJECTED, "FAILED", "REJECTED", "row 14: no such debtor, the customer number 100042 is not registered"
)
HOSTILE = "=HYPERLINK(1)<script>alert('name')</script>.csv"
"""A file's name, as an attacker would choose it."""
LONG = "invoices_of_all_legal_entities_in_norway_" + "and_of_those_that_were_merged_" * 5 + ".csv"
"""A name as long as a person would give it, without a place to break it."""
USERS = {"anna": "admin", "vera": "viewer"}
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
_DAY_OFF = 23
_START_SECONDS = 300.0


def attempt(name: str, when: datetime, number: int = 1, **more: Any) -> Attempt:
    """Return an attempt at a file, which was claimed at a moment."""
    usual: dict[str, Any] = {
        "environment": "staging",
        "client_no": "2218",
        "file_id": hashlib.sha256(name.encode()).hexdigest()[:32],
        "owner": "a" * 32,
        "file_type": "InvoiciaFormatDocFile",
        "name": name,
        "source": f"s3://invoices/outbound/{when:%Y-%m-%d}/{name}",
        "size": 20_000 + len(name) * 977,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "dag_id": "invoices_to_amili",
        "run_id": f"scheduled__{when:%Y-%m-%d}T06:00:00+00:00",
        "task_id": "upload",
        "host": "worker-1",
        "request": "#1",
    }
    made = Attempt(attempt=number, **usual | more)
    made.stamp(when.timestamp(), 660.0)
    return made


def ended(made: Attempt, verdict: Verdict) -> Attempt:
    """Return an attempt with its outcome, seven seconds after its claim."""
    made.settle(verdict)
    made.stamp_settled(datetime.fromisoformat(made.claimed_at).timestamp() + 7)
    return made


def date_off(now: datetime) -> date:
    """Return the day on which nothing was delivered, though it may be a weekday."""
    return (now - timedelta(days=_DAY_OFF)).date()


def some_weeks(now: datetime) -> list[Attempt]:
    """Return what a team delivered in the weeks before *now*: on weekdays, but for one; with what goes wrong."""
    chance = random.Random(7)
    found: list[Attempt] = []
    for back in range(75, -1, -1):
        day = (now - timedelta(days=back)).replace(hour=6, minute=0, second=4, microsecond=0)
        if day.weekday() > 4 or back == _DAY_OFF or day > now:
            continue
        for number in range(chance.randrange(25, 70)):
            made = attempt(f"invoice_{day:%Y-%m-%d}_{number:04}.csv", day + timedelta(seconds=number // 10))
            found.append(ended(made, REFUSED if chance.random() < 0.006 else ACCEPTED))
    recent = (now - timedelta(days=1)).replace(hour=6, minute=2, second=11, microsecond=0)
    lost = ended(attempt("invoice_lost_0001.csv", recent), LOST)
    found += [lost, ended(attempt("invoice_lost_0002.csv", recent, dag_id="other_team"), LOST)]
    found.append(ended(attempt("invoice_refused_0001.csv", recent + timedelta(seconds=1)), REFUSED))
    markup = Verdict(Outcome.REJECTED, "FAILED", "<b>no</b>")
    found.append(ended(attempt(HOSTILE, recent + timedelta(seconds=2)), markup))
    earlier = recent - timedelta(days=20)
    found.append(ended(attempt(LONG, earlier, dag_id="all_invoices_of_all_legal_entities_to_amili"), REFUSED))
    found.append(ended(attempt("invoice_settled_0001.csv", earlier), LOST))
    words = {"origin": Origin.PERSON, "settled_by": "Kari Nordmann", "reason": "Amili's support found it: case 8123"}
    settled = attempt("invoice_settled_0001.csv", earlier + timedelta(hours=3), 2, resolves=(1,), dag_id="", **words)
    settled.run_id = settled.task_id = ""
    found.append(ended(settled, ACCEPTED))
    sending = attempt("invoice_sending_0001.csv", now - timedelta(minutes=1))
    sending.state, sending.expires_at = AttemptState.CLAIMED, timestamp(now.timestamp() + 86_400)
    return [*found, sending]


def ledger_of(path: Path, attempts: list[Attempt]) -> str:
    """Create a ledger in a file of SQLite with *attempts*, and return its name."""
    with closing(SqlStore(sqlite_engine(str(path), create=True), shown=str(path), path=str(path))) as store:
        store.create()
        store.restore(attempts)
    return f"sqlite:///{path}"


def amili_connection(ledger: str) -> str:
    """Return a connection to Amili with a ledger, as Airflow's environment holds it."""
    extra = {"environment": "staging", "client_no": "2218", "user_id": "airflow", "ledger": ledger}
    return json.dumps({"conn_type": "amili", "login": "id", "password": "canary-secret", "extra": extra})


@dataclass(frozen=True)
class ApiServer:
    """
    An API server that runs.

    :param url: of the UI and the API.
    :param environment: of its processes.
    """

    url: str
    environment: dict[str, str] = field(repr=False)

    def token(self, name: str) -> str:
        """Sign in with a user's name and password, and return what the API takes for it."""
        word = json.loads(Path(self.environment["AIRFLOW_HOME"], "passwords.json").read_text())[name]
        body = json.dumps({"username": name, "password": word}).encode()
        asked = urllib.request.Request(f"{self.url}/auth/token", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return str(json.load(answer)["access_token"])

    def get(self, path: str, token: str | None = None) -> tuple[int, str, dict[str, str]]:
        """Return the status, the text and the headers of an answer."""
        asked = urllib.request.Request(f"{self.url}{path}")
        if token is not None:
            asked.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)


def _make_fab_users(airflow: list[str], home: Path, environment: dict[str, str]) -> None:
    """Make the users that Airflow's other auth manager makes by itself, with a file of passwords like its."""
    passwords = {name: secrets.token_hex(16) for name in USERS}
    for name, role in USERS.items():
        user = ["--username", name, "--role", role.title(), "--password", passwords[name]]
        person = ["--firstname", name, "--lastname", name, "--email", f"{name}@example.com"]
        command = [*airflow, "users", "create", *user, *person]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    (home / "passwords.json").write_text(json.dumps(passwords))


@contextmanager
def api_server(
    home: Path, more: dict[str, str], *, python: str = sys.executable, fab: bool = False
) -> Iterator[ApiServer]:
    """
    Run an API server with two users, an administrator and a viewer, while the block lasts.

    :param home: an empty folder.
    :param more: of its environment.
    :param python: in whose environment Airflow is installed.
    :param fab: whether FAB's auth manager says who may do what, instead of Airflow's simple one.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment = {
        **mine,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        **({"AIRFLOW__CORE__AUTH_MANAGER": FAB} if fab else {}),
        **more,
    }
    (home / "dags").mkdir(exist_ok=True)
    airflow = [python, "-W", "ignore", "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=300)
    if fab:
        _make_fab_users(airflow, home, environment)
    with (home / "server.log").open("wb") as log:
        command = [*airflow, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
            server = ApiServer(url, environment)

            def healthy() -> bool:
                assert process.poll() is None, (home / "server.log").read_text(errors="replace")[-3000:]
                try:
                    return server.get("/api/v2/monitor/health")[0] == 200
                except OSError:
                    return False

            try:
                until("the API server answers", healthy, _START_SECONDS)
                yield server
            finally:
                end(process)


if __name__ == "__main__":
    # A server to look at, until it is interrupted.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="amili-deliveries-") as folder:
        its_ledger = ledger_of(Path(folder, "ledger.db"), some_weeks(datetime.now(UTC)))
        with api_server(Path(folder), {"AIRFLOW_CONN_AMILI_DEFAULT": amili_connection(its_ledger)}) as its_server:
            print(its_server.url, Path(folder, "passwords.json").read_text(), flush=True)  # noqa: T201
            while True:
                time.sleep(60)
