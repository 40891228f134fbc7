"""The tree of errors: what Airflow retries, and that errors survive the way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from amili_provider import exceptions

TREE = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, exceptions.AmiliError) and kind.__module__ == exceptions.__name__
]
PUBLIC = [kind for kind in TREE if not kind.__name__.startswith("_")]


def _filled(kind: type[exceptions.AmiliError]) -> exceptions.AmiliError:
    examples: dict[str, Any] = {
        "retry_after": 5.0,
        "status_code": 503,
        "answer": "said",
        "receipts": [{"file_id": "f1"}],
    }
    names = inspect.signature(kind).parameters
    return kind("what happened", **{k: v for k, v in examples.items() if k in names})


@pytest.mark.parametrize("kind", TREE)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_every_error_survives_a_copy(kind: type[exceptions.AmiliError], way: Any) -> None:
    """Message and details arrive whole in another process."""
    error = _filled(kind)
    again = way(error)
    assert type(again) is kind
    assert again is not error
    assert str(again) == "what happened"
    assert again.__dict__ == error.__dict__


@pytest.mark.parametrize("kind", TREE)
def test_every_error_can_be_made_of_nothing(kind: type[exceptions.AmiliError]) -> None:
    """All arguments have defaults, which is what makes copies possible."""
    assert str(kind()) == ""


@pytest.mark.parametrize("kind", PUBLIC)
def test_class_alone_says_whether_airflow_retries(kind: type[exceptions.AmiliError]) -> None:
    """An error is permanent exactly if Airflow fails the task at once for it."""
    assert issubclass(kind, AirflowException)
    assert issubclass(kind, AirflowFailException) is issubclass(kind, exceptions.AmiliPermanentError)


def test_drawing_shows_every_error() -> None:
    """The tree in the module's docstring is complete."""
    assert exceptions.__doc__
    missing = [kind.__name__ for kind in PUBLIC if kind.__name__ not in exceptions.__doc__]
    assert missing == []
