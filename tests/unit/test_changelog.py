"""The version is said in one place, and the changelog and the package's metadata agree with it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from itertools import pairwise

from amili_provider import __version__
from amili_provider.get_provider_info import get_provider_info
from tests.readme import ROOT

_SECTION = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<day>\S+))?$", re.MULTILINE)
_KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _sections() -> list[tuple[str, str | None]]:
    return [(m["version"], m["day"]) for m in _SECTION.finditer(_changelog())]


def test_the_latest_section_is_the_last_version() -> None:
    """
    After what is not released yet comes the last version, with its day.

    What is built between two releases calls itself a development version of the next one, and never like the last.
    """
    (first, no_day), (latest, day) = _sections()[:2]
    assert (first, no_day) == ("Unreleased", None)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", day or "")
    number = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.dev\d+)?", __version__)
    assert number is not None
    unreleased = _changelog().partition("## [Unreleased]")[2].partition("\n## [")[0].strip()
    if number[4]:
        assert tuple(map(int, number.groups()[:3])) > tuple(map(int, latest.split(".")))
    else:
        assert (latest, unreleased) == (__version__, "")


def test_the_metadata_say_the_same_version() -> None:
    """The installed distribution has the version of the code, which alone names it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "amili_provider/__init__.py"
    assert version(project["project"]["name"]) == __version__
    assert get_provider_info()["package-name"] == project["project"]["name"]


def test_releases_go_back_in_time() -> None:
    """The newest comes first, and no version is there twice."""
    released = [tuple(map(int, name.split("."))) for name, _ in _sections()[1:]]
    assert all(newer > older for newer, older in pairwise(released))


def test_changes_are_of_the_kinds_that_the_format_has() -> None:
    """Keep a Changelog has six."""
    assert set(re.findall(r"^### (.+)$", _changelog(), re.MULTILINE)) <= _KINDS
