"""The README and the pages: their tables are those of the code, and what they point to is there."""

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

from amili_provider.connection.fields import FIELDS
from amili_provider.hooks.amili import AmiliHook
from amili_provider.operators.amili import AmiliFileUploadOperator
from tests import readme, reference

PAGES = readme.pages()
_FENCED = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_PICTURE = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
MOST_WORDS = 1_000
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


def _words(text: str) -> list[str]:
    """Return the words that a reader reads: no code, no comments, no targets of links."""
    text = _COMMENT.sub("", _FENCED.sub("", text))
    return [word for word in re.sub(r"\]\([^)]*\)", "]", text).split() if re.search(r"\w", word)]


def test_the_readme_is_short() -> None:
    """A new user reads it in five minutes; all else is on pages of its own."""
    assert 600 < len(_words(readme.README.read_text(encoding="utf-8"))) <= MOST_WORDS


def test_words_are_counted_as_they_are_read() -> None:
    """Code, comments, lines of tables and addresses are none; a link's words are."""
    assert _words("Two words <!-- not\nthese -->\n\n```bash\nnor these\n```\n\n|---|---|\n") == ["Two", "words"]
    assert len(_words("[a link](https://example.com/a/b) here")) == 3


def test_the_readme_says_early_that_it_was_never_tried() -> None:
    """Before a reader installs anything, they know that the real Amili has never seen this package."""
    text = readme.README.read_text(encoding="utf-8")
    before, _, _ = text.partition("## Install")
    assert "**This package has never run against the real Amili.**" in before
    assert "(docs/assumptions.md)" in before


def test_every_assumed_field_is_in_the_table_of_assumptions() -> None:
    """Whatever the form marks as assumed has a row that says what is assumed."""
    text = (readme.DOCS / "assumptions.md").read_text(encoding="utf-8")
    assumed = [field.name for field in FIELDS if field.assumed]
    assert len(assumed) > 5
    assert [name for name in assumed if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_is_there_and_has_words(page: Path) -> None:
    """A reader who does not see a picture, as on a package index without the repository, reads what it shows."""
    for found in _PICTURE.finditer(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        assert (page.parent / found["target"]).is_file(), found["target"]
        assert len(found["words"]) > 10, found["target"]


def test_every_parameter_of_the_upload_is_documented() -> None:
    """A parameter that is on no page is a parameter that no reader finds."""
    text = (readme.DOCS / "operator.md").read_text(encoding="utf-8")
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
        reference.class_table(Silent)


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


def test_contributing_draws_the_house_as_it_is() -> None:
    """Its layers are those that the linter enforces, and each module that it names is there."""
    text = (readme.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    contracts = tomllib.loads((readme.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    drawing = text.partition("## Layers\n\n```\n")[2].partition("\n```\n")[0]
    drawn = [re.split(r" {2,}", line)[0] for line in drawing.splitlines()]
    assert drawn == contracts["contracts"][0]["layers"]
    ledger = text.partition("| module of `ledger/` |")[2].partition("\n\n")[0]
    modules = [f"ledger/{name}" for name in re.findall(r"`(\w+\.py)`", ledger)]
    modules += re.findall(r"`((?:operators|delivery|storage|api|ledger)/\w+\.py)`", text)
    assert len(modules) > 20
    assert [name for name in modules if not (readme.ROOT / "amili_provider" / name).is_file()] == []
    assert {Path(name).name for name in modules if name.startswith("ledger/")} == {
        file.name for file in (readme.ROOT / "amili_provider/ledger").glob("[!_]*.py")
    }


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
