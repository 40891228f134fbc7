"""Receipts as they are written, and what happens to damaged ones."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.ledger.records import (
    LedgerReceipt,
    Origin,
    RecordState,
    TornReceipt,
    epoch,
    parse,
    timestamp,
)
from amili_provider.models import Outcome

_GOLDEN = Path(__file__).with_name("golden_receipt.json")
_ID = "9f" + "0" * 30
_RECEIPT = LedgerReceipt(
    file_id=_ID,
    attempt=2,
    chain="etl/scheduled__2026-11-22T05:00:00+00:00/upload_invoices/3/2",
    state=RecordState.SETTLED,
    outcome=Outcome.UPLOADED,
    environment="production",
    client_no="10042",
    file_type="InvoiciaFormatDocFile",
    name="Åpne poster.csv",
    source="s3://invoices/outbound/2026-11-22/Åpne poster.csv",
    size=1234,
    sha256="a" * 64,
    status="PROCESSED",
    result="CREATED",
    message="Batch is processed",
    claimed_at="2026-11-22T05:00:01.000Z",
    expires_at="2026-11-22T05:11:01.000Z",
    settled_at="2026-11-22T05:00:03.250Z",
    uploaded_at="2026-11-22T05:00:03.250Z",
    dag_id="etl",
    run_id="scheduled__2026-11-22T05:00:00+00:00",
    task_id="upload_invoices",
    map_index=3,
    try_number=2,
    host="worker-1",
    request="#7",
    owner="0123456789abcdef0123456789abcdef",
)


def _parsed(data: bytes) -> LedgerReceipt | TornReceipt:
    return parse(data, file_id=_ID, attempt=2)


def test_a_receipt_is_written_as_it_always_was() -> None:
    """Golden file: what lies in ledgers today must be readable for ever, by people and by this code."""
    assert _RECEIPT.to_json() == _GOLDEN.read_bytes()
    assert _parsed(_GOLDEN.read_bytes()) == _RECEIPT


def test_a_receipt_answers_the_questions_of_an_accountant() -> None:
    """Client, environment, type, name, source, size, hash, when, which run and Amili's words are in it."""
    entries = json.loads(_RECEIPT.to_json())
    assert [name for name, value in entries.items() if value in (None, "", [])] == ["settled_by", "reason", "resolves"]
    assert "Åpne poster.csv" in _RECEIPT.to_json().decode()


def test_a_receipt_torn_at_any_length_is_unknown() -> None:
    """However many bytes were written before a kill, the rest is never taken for a whole receipt."""
    whole = _RECEIPT.to_json()
    for length in range(len(whole) - 1):
        torn = _parsed(whole[:length])
        assert isinstance(torn, TornReceipt), length
        assert torn.attempt == 2
    assert _parsed(whole[:-1]) == _RECEIPT  # only the newline is missing


def test_a_torn_receipt_tells_its_chain_once_it_was_written() -> None:
    """So that a retry under 'force' knows its own attempt again."""
    whole = _RECEIPT.to_json()
    after_chain = whole.index(b'  "state"')
    for length in range(len(whole) - 1):
        torn = _parsed(whole[:length])
        assert isinstance(torn, TornReceipt)
        assert torn.chain == (_RECEIPT.chain if length >= after_chain - 1 else None), length


@given(data=st.binary(max_size=200))
def test_no_garbage_raises(data: bytes) -> None:
    """Whatever lies in a receipt's place, it concerns one file only."""
    assert isinstance(_parsed(data), TornReceipt)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from([f.name for f in fields(LedgerReceipt)]), value=_JSON)
def test_no_wrong_field_raises(name: str, value: Any) -> None:
    """A receipt edited by hand is either whole or unknown."""
    entries = json.loads(_RECEIPT.to_json()) | {name: value}
    read = _parsed(json.dumps(entries).encode())
    if isinstance(read, LedgerReceipt):
        assert json.loads(read.to_json()) == entries


@pytest.mark.parametrize("value", [[], {}, "text", 1, None])
def test_json_of_another_shape_is_torn(value: Any) -> None:
    """Whole JSON is not yet a receipt."""
    assert isinstance(_parsed(json.dumps(value).encode()), TornReceipt)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"outcome": None},
        {"state": "claimed"},
        {"outcome": "skipped"},
        {"outcome": "already_uploaded"},
        {"expires_at": "2026-11-22T05:11:01"},
        {"expires_at": "soon"},
        {"size": "12"},
        {"resolves": ["1"]},
        {"attempt": True},
        {"file_id": "f" * 32},
        {"attempt": 3},
    ],
)
def test_a_receipt_that_cannot_be_believed_is_torn(changes: dict[str, Any]) -> None:
    """A later format, a contradiction, or the receipt of another file under this name."""
    torn = _parsed(json.dumps(json.loads(_RECEIPT.to_json()) | changes).encode())
    assert isinstance(torn, TornReceipt)
    assert torn.chain == _RECEIPT.chain
    assert torn.why in torn.describe()


def test_a_missing_field_is_named() -> None:
    """A person who edits a receipt is told what is wrong with it."""
    entries = json.loads(_RECEIPT.to_json())
    del entries["owner"]
    torn = _parsed(json.dumps(entries).encode())
    assert isinstance(torn, TornReceipt)
    assert "'owner'" in torn.describe()


@given(now=st.floats(0, 4e9))
def test_times_survive(now: float) -> None:
    """A written time is read back to the millisecond."""
    assert abs(epoch(timestamp(now)) - now) <= 0.001


def test_a_receipt_describes_itself() -> None:
    """A message says who, when, which request, and in whose words."""
    text = _RECEIPT.describe()
    parts = "attempt 2|uploaded|2026-11-22T05:00:01.000Z|DAG etl|map index 3|try 2|host worker-1|request #7"
    assert all(part in text for part in (*parts.split("|"), "PROCESSED/CREATED", "Batch is processed"))
    claimed = replace(_RECEIPT, state=RecordState.CLAIMED, outcome=None, status=None, result=None, message=None)
    assert "no answer recorded" in claimed.describe()
    lost = replace(_RECEIPT, outcome=Outcome.UNKNOWN)
    assert "settled" not in lost.describe()  # nothing is, until a person says so
    settled = replace(_RECEIPT, origin=Origin.PERSON, settled_by="kari", reason="seen in the portal")
    assert "settled by kari: seen in the portal" in settled.describe()
