"""The identity of a file, which may never change."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.ledger.attempts import file_id, same_name
from amili_provider.ledger.objects import _below, _key
from tests.ledger_cases import an_attempt

_SHA = hashlib.sha256(b"invoice 1").hexdigest()
_BASE: dict[str, Any] = {
    "environment": "staging",
    "client_no": "10042",
    "file_type": "InvoiciaFormatDocFile",
    "sha256": _SHA,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "50c931236c26eb5e8b602e0604251f2c"),
        ({"environment": "production"}, "8c4c53278960a0eb2c02f0039a6273f4"),
        ({"environment": "127.0.0.1:8080", "client_no": "7"}, "970cd415f95af2e50eb340dcae42f895"),
        ({"file_type": "Ærlig-TYPE", "sha256": "0" * 64}, "d6c0bcd5467fa95afa1c85d967bcca12"),
        ({"name": "Fees_Ås.csv"}, "f9f9c3b2c6a7993c5bab71e6dd95765c"),
    ],
)
def test_the_identity_of_a_file_is_the_same_for_ever(changes: dict[str, str], expected: str) -> None:
    """Golden values: whoever changes them makes every ledger forget what it knows."""
    assert file_id(**(_BASE | changes)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"client_no": " 10042 "},
        {"file_type": "invoiciaFORMATdocfile"},
        {"environment": "Staging"},
        {"sha256": _SHA.upper()},
        {"name": "fees_ÅS.CSV"},
        {"name": unicodedata.normalize("NFD", "Fees_Ås.csv")},
    ],
)
def test_ways_of_writing_the_same_do_not_matter(changes: dict[str, str]) -> None:
    """Blanks around a client number and the case of a file type or name do not make another file."""
    named = {"name": "Fees_Ås.csv"} if "name" in changes else {}
    assert file_id(**(_BASE | changes)) == file_id(**(_BASE | named))


def test_a_name_makes_another_file_only_where_it_is_given() -> None:
    """With a name the identity is another than without, for each name its own; a name that is not known is any."""
    assert len({file_id(**_BASE, name=name) for name in (None, "a.csv", "b.csv")}) == 3
    assert same_name("A.csv", "a.CSV")
    assert not same_name("a.csv", "b.csv")
    assert same_name("", "b.csv")


_TEXT = st.text(min_size=1, max_size=8)


@given(first=st.tuples(_TEXT, _TEXT, _TEXT), second=st.tuples(_TEXT, _TEXT, _TEXT))
def test_different_parts_never_read_the_same(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    """No way of moving characters between environment, client and file type gives the same identity."""

    def normal(parts: tuple[str, str, str]) -> tuple[str, ...]:
        return (parts[0].strip().casefold(), parts[1].strip(), parts[2].strip().casefold())

    def identity(parts: tuple[str, str, str]) -> str:
        return file_id(environment=parts[0], client_no=parts[1], file_type=parts[2], sha256=_SHA)

    assert (identity(first) == identity(second)) == (normal(first) == normal(second))


@pytest.mark.parametrize(
    ("environment", "client_no", "folder"),
    [
        ("staging", "10042", "staging/10042"),
        ("127.0.0.1:8080", "10042", "127.0.0.1_8080/10042"),
        ("API.example.com:443", "a/b", "api.example.com_443/a_b"),
        ("..", ".", "_../_."),
        ("", "", "_/_"),
    ],
)
def test_prefixes_are_safe_paths(environment: str, client_no: str, folder: str) -> None:
    """Nothing that a connection says can lead out of the ledger's prefix."""
    assert _below(environment, client_no) == folder


@given(text=st.text())
def test_no_environment_leads_out_of_the_ledger(text: str) -> None:
    """Whatever the environment, its part of a key is one plain name."""
    name = _below(text, "1").split("/")
    assert len(name) == 2
    assert name[0] not in ("", ".", "..")


def test_an_object_lies_where_its_id_says() -> None:
    """Two characters of the id keep listings apart."""
    attempt = an_attempt(number=3, file_id="ab" + "0" * 30)
    assert _key(attempt) == f"staging/10042/ab/ab{'0' * 30}.3.json"
