"""The README and the guides: their tables are those of the code, and what they point to is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from amili_provider.operators.amili import AmiliFileUploadOperator
from tests import readme

PAGES = sorted([*readme.ROOT.glob("*.md"), *readme.ROOT.glob("docs/*.md")])
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
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
    assert len(own) > 20
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


def test_no_chapter_is_missing() -> None:
    """No place that is kept for a chapter is left empty."""
    assert re.findall(r"<!-- chapter: .*?-->", readme.README.read_text(encoding="utf-8")) == []
