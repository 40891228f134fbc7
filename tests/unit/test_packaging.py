"""The package's metadata: what an index, a tool and a reader of the index are told is true."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata

import pytest

from tests.readme import README, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def _lost(pictures: list[str], repository: str | None) -> list[str]:
    """Return the pictures that a package index does not show: all but those below the repository's address."""
    host = "" if repository is None else repository.rstrip("/").replace("https://github.com/", "")
    return [p for p in pictures if not p.startswith("https://") or (repository is not None and host not in p)]


def test_pictures_are_absolute_once_the_repository_is_known() -> None:
    """An index shows no relative picture; as long as no address is known, they are relative, which shows in a clone."""
    pictures = _PICTURE.findall(README.read_text(encoding="utf-8"))
    repository = PROJECT["urls"].get("Repository")
    assert pictures
    assert _lost(pictures, repository) == ([] if repository else pictures)


@pytest.mark.parametrize(
    ("picture", "repository", "shown"),
    [
        ("docs/images/a.svg", None, False),
        ("docs/images/a.svg", "https://github.com/who/what", False),
        ("https://raw.githubusercontent.com/who/what/main/docs/images/a.svg", "https://github.com/who/what", True),
        ("https://example.com/a.svg", "https://github.com/who/what", False),
    ],
)
def test_a_picture_that_an_index_does_not_show_is_noticed(picture: str, repository: str | None, *, shown: bool) -> None:
    """Relative ones, and those of another place."""
    assert (_lost([picture], repository) == []) is shown


def test_the_pythons_are_those_of_the_matrix() -> None:
    """A classifier for each Python that .ci/matrix names in a row, and none for others."""
    rows = re.findall(r"^ +\S+\) row .*$", (ROOT / ".ci/matrix").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 2
    tried = {
        version
        for row in rows
        for version in re.findall(r"(?<= )3\.\d+(?= |$)", row.partition(";;")[0].rpartition('"')[2])
    }
    named = {c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert named == tried
    assert PROJECT["requires-python"] == f">={min(named, key=lambda v: int(v.partition('.')[2]))}"


def test_the_licence_is_where_tools_look() -> None:
    """As an expression, as a file of the distribution, and in the README."""
    told = metadata(PROJECT["name"])
    assert told["License-Expression"] == PROJECT["license"] == "Apache-2.0"
    assert told.get_all("License-File") == PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "[Apache-2.0](LICENSE)" in README.read_text(encoding="utf-8")


def test_the_tests_that_are_named_elsewhere_are_there() -> None:
    """Where the matrix and the guides name a test file, it is called so."""
    named: set[str] = set()
    for file in (*(ROOT / ".ci").iterdir(), ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        named |= set(re.findall(r"\btests/[\w/]+\.py\b", file.read_text(encoding="utf-8")))
    assert len(named) > 50
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []
