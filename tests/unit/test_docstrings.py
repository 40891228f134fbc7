"""What docstrings name is there."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import amili_provider

ROOT = Path(amili_provider.__file__).parent
MODULES = sorted(
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in ROOT.rglob("*.py")
)
OF_OTHERS = frozenset({"AirflowSkipException", "AirflowSensorTimeout", "AirflowFailException", "TaskDeferred"})
"""Airflow's, which a docstring may name where Airflow raises them."""
_RAISES = re.compile(r"^\s*:raises (\w+):", re.MULTILINE)
_ROLE = re.compile(r":(?:mod|class|func|meth|attr|data):`~?(\w[\w.]*)`")


def _docstrings(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield each docstring of a module, those of its values too, with the class that it stands in, if any."""
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))

    def inside(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                yield where, str(child.value.value)
            yield from inside(child, child.name if isinstance(child, ast.ClassDef) else where)

    yield from inside(tree, "")


def _has(found: object, names: list[str]) -> bool:
    """Return whether there is what a chain of attributes leads to; also one that only instances have."""
    for position, name in enumerate(names):
        if not hasattr(found, name):
            code = inspect.getsource(found) if inspect.isclass(found) else ""
            return position == len(names) - 1 and re.search(rf"\b(self\.)?{name}\b[^\n(]*[:=]", code) is not None
        found = getattr(found, name)
    return True


def _is_there(name: str, module: ModuleType, where: str) -> bool:
    """Return whether a dotted name means something, from within a class of a module."""
    parts = name.split(".")
    errors = importlib.import_module("amili_provider.exceptions")
    if any(_has(scope, parts) for scope in (module, getattr(module, where, None), errors, builtins)):
        return True
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        return _has(found, parts[length:])
    return False


@pytest.mark.parametrize("name", MODULES)
def test_what_docstrings_name_is_there(name: str) -> None:
    """An error that is told to be raised, and a module, class or function that is referred to, exists by that name."""
    module = importlib.import_module(name)
    for where, text in _docstrings(module):
        for error in _RAISES.findall(text):
            assert error in OF_OTHERS or _is_there(error, module, ""), f":raises {error}:"
        for target in _ROLE.findall(text):
            assert _is_there(target, module, where), target
