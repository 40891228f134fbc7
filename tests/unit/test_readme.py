"""The README and the guides: their tables are those of the code, and what they point to is there."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from amili_provider.hooks.amili import AmiliHook
from amili_provider.operators.amili import AmiliFileUploadOperator
from tests import readme

PAGES = sorted([*readme.ROOT.glob("*.md"), *readme.ROOT.glob("docs/*.md")])
_FENCED = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<title>.+?)\s*$", re.MULTILINE)
# Put together here, so that this file names none either.
_REGISTRY = re.compile(r"\b(pypi|pythonhosted|anaconda|npmjs|docker|ghcr|quay)[.](org|com|io|python)\b", re.IGNORECASE)


@pytest.mark.parametrize("file", readme.PARTS, ids=lambda file: file.name)
def test_the_tables_are_those_of_the_code(file: Path) -> None:
    """``python -m tests.readme`` would change nothing."""
    text = file.read_text(encoding="utf-8")
    assert readme.filled(text, readme.PARTS[file]) == text, "run: python -m tests.readme"


def test_a_table_that_is_not_current_is_seen() -> None:
    """What somebody wrote into a part by hand does not survive, and a part without a place is an error."""
    assert readme.filled("<!-- a -->\nold\n<!-- /a -->", {"a": lambda: "new"}) == "<!-- a -->\nnew\n<!-- /a -->"
    with pytest.raises(ValueError, match="no place for b"):
        readme.filled("<!-- a -->\n<!-- /a -->", {"b": str})


def test_every_parameter_of_the_upload_is_in_the_readme() -> None:
    """A parameter that nobody documents is a parameter that nobody finds."""
    text = readme.README.read_text(encoding="utf-8")
    own = [
        name
        for name, parameter in inspect.signature(AmiliFileUploadOperator).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert len(own) > 15
    assert [name for name in own if f"\n| `{name}` |" not in text] == []


def test_a_parameter_without_words_is_an_error() -> None:
    """The table cannot be made of an operator whose docstring and signature differ."""

    class Silent:
        """Nothing said of its parameter."""

        def __init__(self, *, source: str) -> None: ...

    with pytest.raises(ValueError, match="source"):
        readme.class_table(Silent)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    """Files exist, and headings too."""
    broken = []
    for found in _LINK.finditer(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = found["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(found["target"])
    assert broken == []


def _anchors(file: Path) -> set[str]:
    titles = [m["title"] for m in _HEADING.finditer(_FENCED.sub("", file.read_text(encoding="utf-8")))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_the_host_of_a_registry(page: Path) -> None:
    """Where packages come from is for each installation to say."""
    assert _REGISTRY.findall(page.read_text(encoding="utf-8")) == []


def _shell(page: Path) -> list[str]:
    blocks: list[str] = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return blocks


def test_the_connection_in_the_readme_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that is given the block has a variable from which the hook gets settings."""
    (block,) = [b for b in _shell(readme.README) if b.startswith("export AIRFLOW_CONN_")]
    command = ["bash", "-euc", f'{block}printf %s "$AIRFLOW_CONN_AMILI_DEFAULT"']
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", said)
    settings = AmiliHook().settings
    assert (settings.environment, settings.client_no, settings.ledger_conn_id) == (
        "staging",
        "2218",
        "postgres_default",
    )


def test_no_block_for_the_shell_escapes() -> None:
    """
    Each is run: two by ``.ci/run``, one above, one below, the sandbox by its tests, its walk-through by ``tests/dags``.

    What pip is to install has those extras, also from a clone.
    """
    blocks = [block for page in PAGES for block in _shell(page) if page.name != "CONTRIBUTING.md"]
    ours = re.findall(r"^<!-- command: (?:demo|test) -->$", readme.README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(ours) == 2
    others = [b.strip() for b in blocks if not b.startswith(("export AIRFLOW_CONN_", "python3 -m venv .tools && "))]
    # The ledger's are run by tests/unit/test_docs_ledger.py.
    others = [b for b in others if not b.startswith("amili-ledger ")]
    *others, migrate, run = others
    install, constrained, copy, *others, faults = others
    assert install == "uv pip install './[s3,postgres]'"
    assert constrained.startswith(
        "pip install './[s3,postgres]' --constraint \"https://raw.githubusercontent.com/apache/airflow/"
    )
    assert copy.startswith("cp ")
    assert faults.startswith("curl ")
    assert others == ["amili-sandbox serve"]
    assert "airflow db migrate\n" in migrate
    assert run == "airflow dags test try_amili"
    extras = {
        extra
        for page in PAGES
        for extras in re.findall(r"(?:airflow-provider-amili|'\./)\[([\w,]+)\]", page.read_text("utf-8"))
        for extra in extras.split(",")
    }
    project = tomllib.loads((readme.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras <= set(project["optional-dependencies"])


def test_the_ledgers_dag_is_copied_out_of_the_installed_package(tmp_path: Path) -> None:
    """The command in the guide finds the DAG where the wheel puts it."""
    build = tomllib.loads((readme.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {"example_dags": "amili_provider/example_dags"}
    package, dags, programs = (tmp_path / name for name in ("site/amili_provider", "dags", "bin"))
    for folder in (package, dags, programs):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copytree(readme.ROOT / "example_dags", package / "example_dags")
    (programs / "airflow").write_text(f'#!/bin/sh\n[ "$*" = "config get-value core dags_folder" ] && echo {dags}\n')
    (programs / "airflow").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    (block,) = [block for block in _shell(readme.ROOT / "docs/ledger.md") if block.startswith("cp ")]
    path = f"{programs}:{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": str(tmp_path / "site")}
    subprocess.run(["bash", "-euc", block], env=environment, cwd=tmp_path, check=True, timeout=60)
    assert [file.name for file in dags.iterdir()] == ["amili_ledger.py"]


def test_no_chapter_is_missing() -> None:
    """No place that is kept for a chapter is left empty."""
    assert re.findall(r"<!-- chapter: .*?-->", readme.README.read_text(encoding="utf-8")) == []


def test_every_message_in_the_troubleshooting_is_one_of_ours() -> None:
    """Whoever looks for the words of a message finds them; words that nobody says any more are noticed."""
    ours = [text for file in (readme.ROOT / "amili_provider").rglob("*.py") for text in _sentences(file)]
    page = (readme.ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    page, _, _ = page.partition("## Airflow")
    messages = [m for row in re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE) for m in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 40
    # One message may be put together of several texts.
    unsaid = [m for m in messages if not all(any(part in text for text in ours) for part in _fixed_parts(m))]
    assert unsaid == []


def _sentences(file: Path) -> list[str]:
    """Return the texts of a module, each as one; a field's label and other values are left out."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("\0".join(str(p.value) for p in node.values if isinstance(p, ast.Constant)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def _fixed_parts(message: str) -> list[str]:
    parts = re.split(r"\.\.\.|'[A-Z][\w ]+'(?: \(extra '\w+'\))?", message)
    kept = [part.strip(" ':") for part in parts]
    return [part for part in kept if part]
