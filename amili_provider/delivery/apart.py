"""Keeping the ledger and the files apart: what is in the ledger is never sent, and never moved."""

from __future__ import annotations

import os.path
import posixpath
from collections.abc import Iterable
from dataclasses import replace

from amili_provider.ledger.stores import LedgerStore
from amili_provider.storage.locations import Location
from amili_provider.storage.patterns import is_pattern


def keep_apart(store: LedgerStore, sources: Iterable[Location] = (), folders: Iterable[Location] = ()) -> None:
    """
    Refuse a ledger that lies among the files, and files that lie in the ledger.

    :param store: the ledger's.
    :param sources: what is listed.
    :param folders: to which files are moved.
    :raises ValueError: if one of them and the ledger are not apart.
    """
    for protocol, place in store.places:
        on_it = [location for location in sources if location.protocol == protocol]
        ours = [("source", location) for location in on_it if _among(location, place)]
        for location in folders:
            path, at = (_real(p) if protocol == "file" else p for p in (location.path, place))
            if location.protocol == protocol and (_below(at, path) or _below(path, at)):
                ours.append(("folder", location))
        for what, location in ours:
            raise ValueError(
                f"The {what} {location.url} and the ledger {store.shown} lie in each other, and nothing was sent: what "
                f"the ledger remembers would be delivered, or moved away. Name another place for one of them."
            )


def _among(source: Location, place: str) -> bool:
    """Return whether *source* lists something of the ledger at *place*, or means to list around it."""
    segments = source.path.rstrip("/").split("/")
    fixed = next((i for i, s in enumerate(segments) if source.is_pattern and is_pattern(s)), len(segments))
    base = "/".join(segments[:fixed])
    if not source.storage.kind.object_store:
        real = replace(source, path=_real(base or "/").rstrip("/") + source.path[len(base) :])
        return real.finds(_real(place))
    # Around a ledger beside the other things of a bucket many sources go; a folder is made for its files.
    return _below(base, place) or (_below(place, base) and ("/" in base or source.looks_into(place)))


def _real(path: str) -> str:
    return os.path.realpath(path)


def _below(path: str, folder: str) -> bool:
    return posixpath.join(path, "").startswith(posixpath.join(folder, ""))
