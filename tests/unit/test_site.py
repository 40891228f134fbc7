"""The pages of the site: each is in the navigation, each block that they show is run by a test, and names are real."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from amili_provider import __version__
from amili_provider.command.cli import main
from amili_provider.connection.settings import settings_from
from tests import readme

PROJECT = tomllib.loads((readme.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?(?P<fence>```+)(?P<kind>\w*)\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
WHEEL = f"airflow_provider_amili-{__version__}-py3-none-any.whl"
PLATFORMS = {"docker", "kubernetes", "mwaa", "composer", "astronomer"}

# Who runs a block of the shell that has no name of its own, by how it begins.
SHELL = {
    "python3 -m venv .tools && ": ".ci/run",
    "export AIRFLOW_CONN_AMILI_DEFAULT=": "tests/unit/test_readme.py",
    "uv pip install './[s3,postgres]'": "test_what_is_to_be_installed_has_these_extras, .ci/wheel",
    "pip install './[s3,postgres]' --constraint ": "test_what_is_to_be_installed_has_these_extras",
    "amili-ledger create": "tests/unit/test_docs_ledger.py",
    "cp ": "tests/unit/test_readme.py",
    "amili-sandbox serve": "tests/wire/test_sandbox_process.py",
    "curl ": "tests/wire/test_sandbox_process.py",
    "export AIRFLOW_HOME=": "tests/dags/test_documentation.py",
    "airflow dags test try_amili": "tests/dags/test_documentation.py",
    "airflow standalone": "tests/dags/test_documentation.py",
}
# Who runs the blocks of other kinds. What has no kind is what a program prints, or a test looks for.
KINDS = {
    "python": "tests/dags/test_documentation.py",
    "jinja": "tests/dags/test_documentation.py",
    "sql": "tests/unit/test_docs_ledger.py",
    "py": "test_the_examples_are_shown_as_they_are",
    "": "tests/unit/test_reports.py",
    "json": "by its name",
    "yaml": "by its name",
    "dockerfile": "by its name",
    "text": "by its name",
}
NAMED = {
    "connections",
    "local",
    "connection",
    "helm",
    "dockerfile",
    "requirements",
    "policy",
    "some arrived",
    "adopt",
    "create",
    "commands",
}


def _blocks(page: Path) -> list[re.Match[str]]:
    return list(_BLOCK.finditer(page.read_text(encoding="utf-8")))


def _named(name: str) -> list[tuple[str, str]]:
    """Return page and text of each block of a name."""
    return [
        (page.stem, block["text"])
        for page in readme.pages()
        for block in _blocks(page)
        if block["mark"] == f"test: {name}"
    ]


def test_every_page_is_in_the_navigation() -> None:
    """A page that no menu names is a page that no reader finds; a menu without a page is one that errs."""

    def leaves(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [leaf for one in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(one)]

    named = leaves(yaml.safe_load((readme.ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(named) == sorted(str(page.relative_to(readme.DOCS)) for page in readme.DOCS.rglob("*.md"))


def test_no_block_escapes() -> None:
    """Each block of each page is of a kind that a test runs, or has a name by which one does."""
    pages = [page for page in readme.pages() if page.name != "CONTRIBUTING.md"]
    blocks = [(page.name, block) for page in pages for block in _blocks(page)]
    assert len(blocks) > 40
    for page, block in blocks:
        mark = (block["mark"] or "").removeprefix("test: ")
        if block["kind"] == "bash":
            assert mark in NAMED or any(block["text"].startswith(words) for words in SHELL), (page, block["text"])
        else:
            assert block["kind"] in KINDS, (page, block["kind"])
            assert KINDS[block["kind"]] != "by its name" or mark in NAMED, (page, block["text"])


def test_what_is_to_be_installed_has_these_extras() -> None:
    """Each extra that a page names is one of the package, and each command to install says it as the README does."""
    texts = {page.name: page.read_text("utf-8") for page in readme.pages()}
    named = re.findall(r"(?:airflow-provider-amili|'\./|-any\.whl|-\*\.whl\))\[([\w,]+)\]", "".join(texts.values()))
    assert {extra for extras in named for extra in extras.split(",")} <= set(
        PROJECT["project"]["optional-dependencies"]
    )
    commands = [
        [line for line in texts[name].splitlines() if line.startswith(("uv pip install", "pip install"))]
        for name in ("README.md", "local.md")
    ]
    assert commands[0] == commands[1]
    assert len(commands[0]) == 2


def test_a_ledger_on_one_machine_is_made_by_the_pages_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typed into a shell, they lead to a ledger that is created, and a second time stays as it is."""
    ((_, block),) = _named("local")
    folder = tmp_path / "amili"
    shell, command = block.replace("/var/lib/amili", str(folder)).rsplit("\n", 2)[:2]
    said = subprocess.run(
        ["bash", "-euc", f'sudo() {{ "$@"; }}\n{shell}\nprintf %s "$AIRFLOW_CONN_AMILI_DEFAULT"'],
        cwd=tmp_path,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", said.stdout)
    assert folder.stat().st_mode & 0o077 == 0
    for _ in range(2):
        assert command.startswith("amili-ledger ")
        assert main(command.split()[1:]) == 0
    assert "is there already, nothing was changed" in capsys.readouterr().out
    assert (folder / "ledger.db").is_file()


@pytest.mark.parametrize(("page", "text"), _named("connection"), ids=[page for page, _ in _named("connection")])
def test_the_connections_of_the_platforms_are_read(page: str, text: str) -> None:
    """Each makes settings, with a ledger that fits the platform: no file of a container's disk."""
    settings = _settings(json.loads(text))
    assert settings.environment == "staging"
    assert settings.ledger_conn_id
    assert not (settings.ledger or "").startswith("sqlite")
    assert page in PLATFORMS


def _settings(connection: dict[str, Any]) -> Any:
    assert connection.pop("conn_type") == "amili"
    fields: dict[str, Any] = dict.fromkeys(("host", "port", "schema"))
    return settings_from("amili_default", **fields, **connection)


def test_the_chart_passes_connections_that_are_read() -> None:
    """Each secret that an environment variable is made of is there; the one of Amili makes settings."""
    ((_, text),) = _named("helm")
    values = yaml.safe_load(text)
    found = {
        entry["envName"]: yaml.safe_load(values["extraSecrets"][entry["secretName"]]["stringData"])[entry["secretKey"]]
        for entry in values["secret"]
    }
    settings = _settings(json.loads(found["AIRFLOW_CONN_AMILI_DEFAULT"]))
    assert f"AIRFLOW_CONN_{settings.ledger_conn_id.upper()}" in found


def test_the_images_lines_install_the_wheel_that_is_beside_them(tmp_path: Path) -> None:
    """In a shell, the line that installs names that wheel with its extras, and the line before copies it there."""
    (tmp_path / WHEEL).touch()
    blocks = _named("dockerfile")
    assert {page for page, _ in blocks} == {"docker", "astronomer"}
    for _, text in blocks:
        (copied,) = re.findall(r"^COPY (\S+) /tmp/$", text, re.MULTILINE)
        assert fnmatch(WHEEL, copied)
        (run,) = re.findall(r"^RUN pip install (.*)$", text, re.MULTILINE)
        line = f"printf '%s\\n' {run.replace('/tmp/', f'{tmp_path}/')}"
        said = subprocess.run(["bash", "-ec", line], check=True, timeout=60, capture_output=True, text=True).stdout
        assert said.splitlines()[-1] == f"{tmp_path / WHEEL}[s3,postgres]"


def test_the_requirements_name_the_wheel_that_a_clone_builds() -> None:
    """Its name holds the version, so that this page changes with it."""
    ((_, text),) = _named("requirements")
    constraint, wheel = text.splitlines()
    assert constraint.startswith('--constraint "/')
    assert wheel.rpartition("/")[2] == f"{WHEEL}[s3,postgres]"


def test_what_is_not_tried_on_a_platform_says_so() -> None:
    """Only the page about one machine is what the tests do; each other says that it was not run there."""
    for page in (readme.DOCS / "getting-started").glob("*.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        said = re.search(r"has not been run on|tests do not run", text) is not None
        assert said is (page.stem in PLATFORMS), page.name


def test_the_examples_are_shown_as_they_are() -> None:
    """The page takes each file of the folder, and no other; its name is the heading by which pages link to it."""
    text = (readme.DOCS / "examples.md").read_text(encoding="utf-8")
    files = sorted(file.stem for file in (readme.ROOT / "example_dags").glob("*.py"))
    assert sorted(re.findall(r'^--8<-- "example_dags/(\w+)\.py"$', text, re.MULTILINE)) == files
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == files


def test_the_glossary_is_short() -> None:
    """Ten words at most are the package's own."""
    text = (readme.DOCS / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| (?!word |-)([\w ]+) \|", text, re.MULTILINE)
    assert 5 < len(words) <= 10
    assert words == sorted(words)


def test_the_tests_behind_the_promises_exist() -> None:
    """Each promise names a test, and each test that is named is there."""
    text = (readme.DOCS / "promises.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| **")]
    assert len(rows) > 8
    for row in rows:
        named = _NAMED_TEST.findall(row)
        assert named, row
        for file, test in named:
            tree = ast.parse((readme.ROOT / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, test)
