"""The ledger is never among the files: it would be delivered as invoices, or moved away and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amili_provider.delivery.moving import keep_apart
from amili_provider.exceptions import AmiliArgumentError
from amili_provider.ledger.opening import create_in_file
from amili_provider.ledger.stores import MemoryStore
from amili_provider.sandbox.server import SandboxServer
from amili_provider.storage.connections import BY_SCHEME
from amili_provider.storage.locations import Location, Storage
from tests.wire.conftest import Upload


class _InBucket(MemoryStore):
    """A ledger of which only the place counts."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.shown = url
        scheme, _, path = url.partition("://")
        self.places = ((scheme, path),)


def _location(url: str) -> Location:
    kind = BY_SCHEME[url.partition("://")[0]]
    storage = Storage(kind=kind, fs=None, connection=None, base="", prefix=f"{kind.protocol}://")
    return storage.locate(url)


@pytest.mark.parametrize(
    ("source", "ledger", "apart"),
    [
        ("s3://b/outbound/*.csv", "s3://b/amili-ledger", True),
        ("s3://b/outbound/*.csv", "s3://b/outbound-ledger", True),
        ("s3://b/outbound/", "s3://b/outbound/ledger", False),
        ("s3://b/outbound/*.csv", "s3://b/outbound/ledger", False),
        ("s3://b/outbound/**/*.csv", "s3://b/outbound/x/ledger", False),
        ("s3://b/*.csv", "s3://b/amili-ledger", True),
        ("s3://b/", "s3://b/amili-ledger", True),
        ("s3://b/**", "s3://b/amili-ledger", False),
        ("s3://b/*/*", "s3://b/amili-ledger", False),
        ("s3://b/2026-*/*", "s3://b/amili-ledger", True),
        ("s3://b/outbound/*", "s3://b", False),
        ("s3://b/ledger/x/*.csv", "s3://b/ledger", False),
        ("s3://b/ledger/", "s3://b/ledger", False),
        ("s3://b/ledger/a.json", "s3://b/ledger", False),
        ("s3://other/**", "s3://b/ledger", True),
        ("gs://b/**", "s3://b/ledger", True),
        ("file:///b/**", "s3://b/ledger", True),
    ],
)
def test_objects_lie_apart_from_the_ledger(source: str, ledger: str, apart: bool) -> None:
    """Neither below the other; beside it in one bucket only if the source does not look into it."""
    store, location = _InBucket(ledger), _location(source)
    if apart:
        keep_apart(store, [location])
        return
    with pytest.raises(ValueError, match="lie in each other, and nothing was sent"):
        keep_apart(store, [location])


@pytest.mark.parametrize(
    ("folder", "apart"), [("s3://b/sent/", True), ("s3://b/ledger/sent/", False), ("s3://b/x/", False)]
)
def test_files_are_not_moved_into_the_ledger_nor_around_it(folder: str, apart: bool) -> None:
    """A folder for delivered files has no ledger in it, and is in none."""
    stores = [_InBucket("s3://b/ledger"), _InBucket("s3://b/x/ledger")]
    words = ""
    for store in stores:
        try:
            keep_apart(store, folders=[_location(folder)])
        except ValueError as error:
            words += str(error)
    assert ("lie in each other" in words) is not apart


@pytest.mark.parametrize(
    "more",
    [
        {"source": "{outbound}/"},
        {"source": "{outbound}/*"},
        {"source": "{above}/**"},
        {"source": ["{outbound}/a.csv", "exact:{outbound}/ledger.db"]},
        {"source": "{outbound}/*.csv", "reject_to": "{above}"},
        {"source": "{outbound}/*.db-wal"},
        {"source": "{above}/link/*"},
    ],
)
def test_a_ledger_among_the_files_is_refused(
    upload: Upload,
    connect: Callable[..., SandboxServer],
    outbound: Path,
    tmp_path: Path,
    more: dict[str, Any],
) -> None:
    """Before anything is sent, without a retry, and whether it would be delivered or moved away."""
    ledger = create_in_file(outbound / "ledger.db")
    amili = connect(ledger=ledger)
    (outbound / "a.csv").write_bytes(b"1")
    (tmp_path / "link").symlink_to(outbound)

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(one) for one in value]
        return value.format(outbound=outbound, above=tmp_path)

    with pytest.raises(AmiliArgumentError, match="lie in each other"):
        upload(**{name: filled(value) for name, value in more.items()})
    assert not [r for r in amili.requests if r.kind == "upload"]
    assert {p.name for p in outbound.iterdir()} >= {"a.csv", "ledger.db"}


def test_a_ledger_beside_the_files_is_no_matter(
    upload: Upload, connect: Callable[..., SandboxServer], outbound: Path
) -> None:
    """A pattern that does not match its files delivers what it matches."""
    connect(ledger=create_in_file(outbound / "ledger.db"))
    (outbound / "a.csv").write_bytes(b"1")
    assert [r["outcome"] for r in upload(source=f"{outbound}/*.csv")] == ["uploaded"]
