"""What of a source no log and no rendered field may show."""

from __future__ import annotations

from typing import Any

import pytest

from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.templates import secrets_of


@pytest.mark.parametrize(
    ("source", "secrets"),
    [
        ("https://h/a.csv?sig=abc%2Fdef&se=1", {"sig=abc%2Fdef&se=1", "sig=abc/def&se=1", "abc%2Fdef", "abc/def"}),
        (
            ["https://h/a.csv?t0ken", ("x?X-Amz-Signature=s1gned&key=k",)],
            {"t0ken", "X-Amz-Signature=s1gned&key=k", "s1gned"},
        ),
        ("/signed.csv?code=c0des#part", {"code=c0des", "c0des"}),
        ("http://bob:p%40sss@h/a.csv", {"p%40sss", "p@sss"}),
        ("https://h/a.csv", set()),
        ("https://h/a.csv?", set()),
        ("s3://bucket/day?.csv", set()),
        ("s3://bucket/day=?/a=b.csv", set()),
        ("day?.csv", set()),
        ("file:///a?b=c", set()),
        ("exact:file:///a?b=canary", set()),
        ("exact:https://h/a.csv?t0ken", {"t0ken"}),
        ("HTTPS://h/a.csv?X-Sig=canary", {"X-Sig=canary", "canary"}),
        (None, set()),
        ([], set()),
    ],
)
def test_secrets_of_a_source(source: Any, secrets: set[str]) -> None:
    """Queries and passwords, written and decoded; a pattern is no query."""
    assert secrets_of(source) == secrets


@pytest.mark.parametrize("between", ["\n", "\r\n", " ", "', '", '","'])
def test_what_signs_each_of_several_addresses_in_one_text_is_secret(between: str) -> None:
    """Such a source is refused, but Airflow has stored it by then."""
    assert {"first1", "second2"} <= secrets_of(f"['https://h/a.csv?sig=first1{between}https://h/b.csv?sig=second2']")


def test_they_are_masked_when_templates_are_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a template makes of a source is masked before Airflow stores it."""
    masked: list[str] = []
    monkeypatch.setattr("amili_provider.operators.templates.mask_secret", masked.append)
    operator = AmiliFileUploadOperator(task_id="t", source="https://h/a.csv?sig={{ signature }}", file_type="T")
    assert not masked
    operator.render_template_fields({"signature": "canary"})  # type: ignore[typeddict-unknown-key]
    assert set(masked) == {"sig=canary", "canary"}
