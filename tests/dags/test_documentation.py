"""The README and the pages: what they show parses, and what they say of it happens, on a real Airflow."""

from __future__ import annotations

import asyncio
import email
import email.policy
import html
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pendulum
import pytest
from aiosmtpd.controller import Controller
from airflow.providers.common.compat.sdk import BaseHook, Connection
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from sqlalchemy import select

from amili_provider.reports import delivery_report
from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import Outcome, RunDag, load_dag
from tests.processes import free_port
from tests.readme import DOCS, ROOT, pages
from tests.storage.backends.base import Backend
from tests.storage.backends.sftp import Sftp
from tests.storage.conftest import running
from tests.suites.bench.airflow import until

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_DAG_ID = re.compile(r'dag_id="(\w+)"')
BLOCKS = [(page, m["code"]) for page in pages() for m in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
DAGS = {found[1]: code for _, code in BLOCKS if (found := _DAG_ID.search(code))}
"""Every block that defines a DAG, by the DAG's id."""
OTHERS = [(page.name, code) for page, code in BLOCKS if not _DAG_ID.search(code)]
DAY = "2025-03-01"

Recipe = Callable[..., Outcome]


def test_no_two_blocks_define_one_dag() -> None:
    """Whoever copies two recipes gets two DAGs."""
    assert len(DAGS) == len(BLOCKS) - len(OTHERS)
    assert len(DAGS) >= 14


@pytest.mark.parametrize("dag_id", DAGS)
def test_every_dag_parses_without_asking_anybody(dag_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket is opened and no connection looked up while Airflow reads a file."""
    skip_if_older(dag_id)

    def refuse(*asked: Any, **_: Any) -> None:
        raise AssertionError(f"asked for {asked} at parse")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    for name in ("get", "get_connection_from_secrets"):
        if hasattr(Connection, name):
            monkeypatch.setattr(Connection, name, refuse)
    assert load_dag(dag_id, written(dag_id, tmp_path)).task_ids


@pytest.mark.parametrize(("page", "code"), OTHERS, ids=[name for name, _ in OTHERS])
def test_every_other_block_does_what_it_shows(
    page: str, code: str, amili: SandboxServer, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as it stands against the sandbox; what it defines as a test is called as pytest would."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("invoices.csv").write_bytes(b"one")
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)  # that is the point
    for name, value in list(names.items()):
        if name.startswith("test_"):
            value(amili_sandbox=amili, tmp_path=tmp_path)
    assert amili.uploads or amili.requests or names.get("pytest_plugins")


ASKS_A_PERSON = "guide_approval"
"""The DAG whose operators Airflow has from 3.1 on."""


def skip_if_older(dag_id: str) -> None:
    """Skip a test of a DAG that this Airflow is too old for."""
    if dag_id == ASKS_A_PERSON and not AIRFLOW_V_3_1_PLUS:
        pytest.skip("Airflow asks people from 3.1 on")


def written(dag_id: str, folder: Path, **changes: str) -> Path:
    """Write a block as a DAG file, with other words for those that a user would change."""
    code = DAGS[dag_id]
    for word, other in changes.items():
        assert word in code
        code = code.replace(word, other)
    file = folder / f"{dag_id}.py"
    file.write_text(code, encoding="utf-8")
    return file


@pytest.fixture(name="recipe")
def _recipe(run_dag: RunDag, bundle: Path) -> Recipe:
    """Run a block of the documentation as it stands; the pool that it names is Airflow's own, nothing is retried."""

    def run(
        dag_id: str,
        *,
        conf: dict[str, Any] | None = None,
        day: str | None = DAY,
        change: Callable[[Any], None] = lambda _dag: None,
        **changes: str,
    ) -> Outcome:
        def here(dag: Any) -> None:
            change(dag)
            # Airflow 3.3's dag.test() does not survive the success of a DAG with a deadline.
            dag.deadline = None
            # What is retried would be waited for, for minutes.
            for one in dag.tasks:
                for name, value in (("pool", "default_pool"), ("retries", 0)):
                    if isinstance(getattr(one, "partial_kwargs", None), dict):
                        one.partial_kwargs[name] = value
                    else:
                        setattr(one, name, value)

        file = written(dag_id, bundle, **changes)
        return run_dag(dag_id, day=day, conf=conf, file=file, change=here)

    return run


def names_at(amili: SandboxServer) -> list[str]:
    """Return the names of what has arrived."""
    return sorted(upload.name for upload in amili.uploads)


def put(s3: Any, **contents: bytes) -> None:
    """Write the files of the day; a name stands for itself with ``.csv``."""
    for name, content in contents.items():
        s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/{name}.csv", Body=content)


def keys(s3: Any, prefix: str) -> list[str]:
    """Return what is below a prefix."""
    return [o["Key"] for o in s3.list_objects_v2(Bucket="invoices", Prefix=prefix).get("Contents", ())]


def test_the_first_dag_of_the_readme_runs(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """Copied with its connection ids, it delivers the day once."""
    put(s3, one=b"1", two=b"2")
    for expected in ("uploaded", "already_uploaded"):
        outcome = recipe("invoices_to_amili")
        assert outcome.state == "success"
        assert [r["outcome"] for r in outcome.xcom["upload_invoices"]] == [expected] * 2
    assert names_at(amili) == ["one.csv", "two.csv"]


def test_daily_upload_archives(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """What was delivered is in the archive and nowhere else."""
    put(s3, one=b"1")
    assert recipe("recipe_daily").state == "success"
    assert names_at(amili) == ["one.csv"]
    assert keys(s3, "outbound/") == []
    assert keys(s3, "archive/") == [f"archive/{DAY}/one.csv"]


def test_three_files_are_waited_for(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """What is there is delivered and stays; once the rest has come, all of it is delivered and archived."""
    put(s3, invoices_1=b"1", fees_1=b"2")
    outcome = recipe("recipe_three_files")
    assert outcome.task_states == {"upload": "failed"}
    assert "no file matches 'credits_*.csv'." in outcome.log
    assert names_at(amili) == ["fees_1.csv", "invoices_1.csv"]
    assert keys(s3, "archive/") == []
    put(s3, credits_1=b"3")
    assert recipe("recipe_three_files").state == "success"
    assert names_at(amili) == ["credits_1.csv", "fees_1.csv", "invoices_1.csv"]
    assert keys(s3, "outbound/") == []
    assert len(keys(s3, "archive/")) == 3


@pytest.fixture(name="sftp")
def _sftp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """A partner's server."""
    for server in running(Sftp):
        server.begin_day()
        monkeypatch.setenv("AIRFLOW_CONN_SFTP_PARTNER", json.dumps(server.connection()))
        yield server


def test_a_partners_drop_is_emptied(s3: Any, amili: SandboxServer, recipe: Recipe, sftp: Backend) -> None:
    """Delivered and refused files go their ways, half a file stays; the next run has nothing left to fail on."""
    for name, content in (("good.csv", b"1"), ("bad.csv", b"REJECT: no such debtor"), ("half.csv.part", b"1")):
        sftp.put(f"outbound/{name}", content)
    changes = {"sftp:///outbound": sftp.url("outbound"), "stable_for=30": "stable_for=0.1"}
    assert recipe("recipe_sftp_drop", **changes).state == "failed"
    assert names_at(amili) == ["good.csv"]
    for path in ("outbound/done/good.csv", "outbound/refused/bad.csv", "outbound/half.csv.part"):
        assert sftp.read(path) is not None
    again = recipe("recipe_sftp_drop", **changes)
    assert again.task_states == {"upload": "skipped"}, again.log


def test_backfill_finds_the_day_and_sends_what_is_missing(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """The day is the run's; what an earlier run delivered is not sent again."""
    put(s3, one=b"1")
    recipe("recipe_daily", **{'        archive_to=f"s3://invoices/archive/{LAST_COMPLETE_DAY}/",\n': ""})
    put(s3, two=b"2")
    outcome = recipe("recipe_backfill")
    assert outcome.state == "success"
    assert [r["outcome"] for r in outcome.xcom["upload"]] == ["already_uploaded", "uploaded"]
    assert names_at(amili) == ["one.csv", "two.csv"]


def test_every_client_gets_its_own_files(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """One mapped upload per client, the same bytes for both."""
    amili.rules.clients = dict.fromkeys(("2218", "2219"), ("InvoiciaFormatDocFile",))
    for number in ("2218", "2219"):
        s3.put_object(Bucket="invoices", Key=f"{number}/{DAY}/a.csv", Body=b"same")
    assert recipe("recipe_clients").state == "success"
    assert sorted(upload.client_no for upload in amili.uploads) == ["2218", "2219"]


def test_a_huge_day_is_spread(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """Buckets become uploads."""
    put(s3, **{f"inv{number}": b"%d" % number for number in range(5)})
    outcome = recipe("recipe_huge_day", **{"max_files_per_bucket=1_000": "max_files_per_bucket=3"})
    assert outcome.state == "success"
    assert sorted(map(len, outcome.xcom["buckets"])) == [2, 3]
    assert len(names_at(amili)) == 5


class _Post:
    """A mail server: keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a mail."""
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"


@pytest.fixture(name="post")
def _post(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Post]:
    """A mail server on loopback, and the connection ``smtp_default`` to it."""
    post = _Post()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Controller(post, hostname="127.0.0.1", port=port)
    server.start()
    extra = {"disable_ssl": True, "disable_tls": True}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    yield post
    server.stop()


_LOST = {"drop": "reset", "stage": "accepted"}
_FAILURES = pytest.mark.parametrize(
    ("files", "fault", "told"),
    [
        ({"good": b"1", "bad": b"REJECT: no such debtor"}, None, ["bad.csv", "no such debtor", "1 rejected"]),
        ({"lost": b"1"}, _LOST, ["lost.csv", "amili_ledger", "1 unknown", "request [0-9a-f]{8}-1"]),
        ({}, None, ["No files match", f"outbound/{DAY}"]),
        ({"good": b"1"}, {"on": "connection", "drop": "reset", "times": None}, ["good.csv", "1 not_sent"]),
    ],
    ids=["rejected", "unknown", "none", "not reached"],
)


@_FAILURES
def test_people_hear_of_what_failed_and_the_run_stays_red(
    s3: Any, amili: SandboxServer, recipe: Recipe, post: _Post, files: Any, fault: Any, told: list[str]
) -> None:
    """The failed task's callback mails what is not delivered, in Amili's words, by Airflow's own notifier."""
    put(s3, **files)
    if fault is not None:
        amili.faults.add(**{"on": "upload", **fault})
    outcome = recipe("recipe_alert")
    assert outcome.state == "failed", outcome.log
    (mail,) = post.mails
    assert "recipe_alert failed" in mail["Subject"]
    body = mail.get_body(("html",))
    assert body is not None
    said = " ".join(html.unescape(body.get_content()).split())
    for words in told:
        assert re.search(words, said)


def test_nobody_is_mailed_about_a_good_day(s3: Any, amili: SandboxServer, recipe: Recipe, post: _Post) -> None:
    """The alert is for what failed."""
    put(s3, good=b"1")
    assert recipe("recipe_alert").state == "success"
    assert not post.mails


def test_a_delivery_by_six(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """It delivers on every Airflow, and fails on a day without files, so that the deadline is not met."""
    assert recipe("recipe_by_six").state == "failed"
    put(s3, one=b"1")
    assert recipe("recipe_by_six").state == "success"
    assert names_at(amili) == ["one.csv"]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow has deadlines from 3.2 on")
def test_people_hear_of_a_late_delivery(s3: Any, amili: SandboxServer, recipe: Recipe, post: _Post) -> None:
    """Two hours after a run was queued, at four in Oslo, Airflow's triggerer sends the mail that names it."""
    from airflow.models.deadline import Deadline
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.triggers.callback import CallbackTrigger
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    async def in_the_triggerer(data: dict[str, Any]) -> list[Any]:
        return [event.payload async for event in CallbackTrigger(data["path"], data["kwargs"]).run()]

    recipe("recipe_by_six")  # so that the database knows the DAG
    with create_session() as session:
        dag: Any = SerializedDagModel.get_dag("recipe_by_six", session=session)
        clocks_change = pendulum.datetime(2026, 3, 29, 12, tz="Europe/Oslo")
        interval = dag.timetable.infer_manual_data_interval(run_after=clocks_change)
        assert interval.end == clocks_change.set(hour=4)
        run = dag.create_dagrun(
            run_id="scheduled__by_six",
            logical_date=interval.start,
            data_interval=interval,
            run_after=interval.end,
            run_type=DagRunType.SCHEDULED,
            state="queued",
            triggered_by=DagRunTriggeredByType.TIMETABLE,
            session=session,
        )
        session.flush()
        (deadline,) = session.scalars(select(Deadline).where(Deadline.dagrun_id == run.id))
        assert deadline.deadline_time - run.queued_at == timedelta(hours=2)
        deadline.handle_miss(session)
        callback = dict(deadline.callback.data)
    told = asyncio.run(in_the_triggerer(callback))
    assert told[-1]["state"] == "success", told
    (mail,) = post.mails
    assert (mail["To"], mail["Subject"]) == (
        "collections@example.com",
        "Not with Amili by six o'clock: recipe_by_six",
    )
    body = mail.get_body(("html",))
    assert body is not None
    assert "runs/scheduled__by_six'>scheduled__by_six</a> is queued." in body.get_content()


@_FAILURES
def test_a_run_with_a_task_that_tells_stays_red(
    s3: Any, amili: SandboxServer, recipe: Recipe, files: Any, fault: Any, told: list[str]
) -> None:
    """The task behind the upload succeeds, and the run fails all the same."""
    put(s3, **files)
    if fault is not None:
        amili.faults.add(**{"on": "upload", **fault})
    outcome = recipe("recipe_watcher")
    assert outcome.task_states == {"upload": "failed", "tell": "success", "watcher": "failed"}
    assert outcome.state == "failed"
    assert told[0] in outcome.log


def test_the_watcher_lets_a_good_day_be_green(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """It is skipped where nothing failed, and the run succeeds."""
    put(s3, good=b"1")
    outcome = recipe("recipe_watcher")
    assert outcome.task_states == {"upload": "success", "tell": "success", "watcher": "skipped"}
    assert outcome.state == "success"


def test_a_name_is_no_command_to_a_chat() -> None:
    """The template of the recipe calls nobody, links nowhere and closes no block for what a file is called."""
    page = (DOCS / "alerts.md").read_text(encoding="utf-8")
    (template,) = re.findall(r"^````jinja\n(.*?\n)````$", page, re.MULTILINE | re.DOTALL)
    name = "<!channel> ``` <http://g|x> & co.csv"
    ti = SimpleNamespace(
        dag_id="d", log_url="http://log", task_id="t", map_index=-1, xcom_pull=lambda **_: [{"name": name}]
    )
    said = jinja2.Environment(autoescape=False).from_string(template).render(ti=ti, delivery_report=delivery_report)
    _, _, report = said.partition("```")
    assert "&lt;!channel&gt; ''' &lt;http://g|x&gt; &amp; co.csv" in report
    assert report.count("```") == 1


def test_one_file_is_sent_again(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """What was accepted goes out a second time, since somebody says so."""
    put(s3, a=b"1", b=b"2")
    recipe("invoices_to_amili")
    outcome = recipe("recipe_replay", conf={"file": f"s3://invoices/outbound/{DAY}/a.csv"}, day=None)
    assert outcome.state == "success"
    assert names_at(amili) == ["a.csv", "a.csv", "b.csv"]


def test_an_unknown_outcome_waits_for_a_word(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """Nothing is resent until somebody triggers the day with another word; then what Amili has is not sent again."""
    put(s3, a=b"1")
    amili.faults.add("upload", drop="reset", stage="accepted")
    for _ in range(2):
        outcome = recipe("recipe_if_unknown")
        assert outcome.task_states == {"upload": "failed"}
        assert outcome.xcom["upload"][0]["outcome"] == "unknown"
    outcome = recipe("recipe_if_unknown", day=None, conf={"day": DAY, "if_unknown": "check"})
    assert outcome.state == "success", outcome.log
    assert outcome.xcom["upload"][0]["outcome"] == "already_uploaded"
    assert names_at(amili) == ["a.csv"]


def test_equal_bytes_under_another_name_wait_for_a_word(s3: Any, amili: SandboxServer, recipe: Recipe) -> None:
    """A second file with the same bytes fails the task, until somebody triggers the day and says that it is meant."""
    put(s3, a=b"1", b=b"1")
    outcome = recipe("recipe_if_unknown")
    assert outcome.task_states == {"upload": "failed"}
    assert [r["outcome"] for r in outcome.xcom["upload"]] == ["uploaded", "duplicate"]
    outcome = recipe("recipe_if_unknown", day=None, conf={"day": DAY, "if_duplicate": "send"})
    assert outcome.state == "success", outcome.log
    assert [r["outcome"] for r in outcome.xcom["upload"]] == ["already_uploaded", "uploaded"]
    assert names_at(amili) == ["a.csv", "b.csv"]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 a question waits in the triggerer")
@pytest.mark.parametrize(("answer", "sent", "state"), [("Approve", ["a.csv"], "success"), ("Reject", [], "skipped")])
def test_nothing_is_sent_before_a_person_approves(
    s3: Any, amili: SandboxServer, recipe: Recipe, answer: str, sent: list[str], state: str
) -> None:
    """The question shows what would be sent; what is approved goes out, and what is rejected is skipped."""
    from airflow.sdk.exceptions import TaskAwaitingInput

    put(s3, a=b"1")
    asked: list[tuple[str, list[str]]] = []

    def answered(dag: Any) -> None:
        approve = dag.task_dict["approve"]
        ask = approve.execute

        def execute(context: Any) -> Any:
            with pytest.raises(TaskAwaitingInput):  # dag.test() would wait for ever
                ask(context)
            asked.append((context["task"].body, names_at(amili)))
            event = {"chosen_options": [answer], "params_input": {}, "responded_at": pendulum.now()}
            return approve.execute_complete(context, {**event, "responded_by_user": None})

        approve.execute = execute

    outcome = recipe("guide_approval", change=answered)
    ((body, before),) = asked
    assert all(words in body for words in ("a.csv", "would be sent"))
    assert before == []
    assert outcome.task_states["look"] == "skipped"
    assert outcome.task_states["upload"] == state, outcome.log
    assert names_at(amili) == sent


@pytest.mark.long
def test_your_own_dag_runs_against_the_sandbox(amili_sandbox: SandboxServer, tmp_path: Path) -> None:
    """The guides' commands, as a shell runs them: the file is delivered once, and the page of that Airflow shows it."""
    page = (DOCS / "sandbox.md").read_text(encoding="utf-8")
    _, chapter, _ = re.split(r"^## (?:Your own DAG|In tests).*$", page, flags=re.MULTILINE)
    prepare, run = re.findall(r"^```bash\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    dag = written("try_amili", tmp_path)
    # The Python of these tests stands for the .venv that the demo makes.
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    connection = os.environ["AIRFLOW_CONN_AMILI_DEFAULT"]
    lines = (
        prepare,
        f"export AIRFLOW_CONN_AMILI_DEFAULT={shlex.quote(connection)}",
        f'cp {shlex.quote(str(dag))} "$AIRFLOW_HOME/dags/try_amili.py"',
        run,
        run,
    )
    environment = {n: v for n, v in os.environ.items() if not n.startswith("AIRFLOW_")}
    environment |= {"TMPDIR": str(tmp_path), "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        ["bash", "-euc", "\n".join(lines)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert said.returncode == 0, said.stdout
    outcomes = re.findall(r"^(uploaded|already_uploaded) +1 ", said.stdout, re.MULTILINE)
    assert outcomes == ["uploaded", "already_uploaded"]
    assert names_at(amili_sandbox) == ["one.csv"]
    (home,) = tmp_path.glob("tmp.*")
    local = (DOCS / "getting-started/local.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(airflow .+)\n```", local, re.MULTILINE)
    port = str(free_port())
    environment |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__API__PORT": port}
    environment |= {f"AIRFLOW__LOGGING__{name}_LOG_SERVER_PORT": str(free_port()) for name in ("WORKER", "TRIGGER")}
    environment |= {"AIRFLOW__API__HOST": "127.0.0.1", "AIRFLOW__CORE__PARALLELISM": "2"}
    environment |= {"AIRFLOW_CONN_AMILI_DEFAULT": connection, "PATH": f"{tmp_path}/.venv/bin:{environment['PATH']}"}
    with subprocess.Popen(
        ["bash", "-euc", f"exec {block}"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as standalone:  # fmt: skip
        try:
            passwords = home / "simple_auth_manager_passwords.json.generated"
            url = f"http://127.0.0.1:{port}"
            page = until("the page is there", lambda: _deliveries(url, passwords), 300)
        finally:
            standalone.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                standalone.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(standalone.pid, signal.SIGKILL)
    assert "one.csv" in page


def _deliveries(url: str, passwords: Path) -> str:
    """Return the Deliveries page of an Airflow, as the only user that it has; nothing while it starts."""
    try:
        ((name, password),) = json.loads(passwords.read_text("utf-8")).items()
        login = urllib.request.Request(
            f"{url}/auth/token",
            data=json.dumps({"username": name, "password": password}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(login, timeout=30) as answer:
            token = json.load(answer)["access_token"]
        page = urllib.request.Request(f"{url}/amili/deliveries", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(page, timeout=60) as answer:
            return str(answer.read().decode())
    except (OSError, ValueError):
        return ""
