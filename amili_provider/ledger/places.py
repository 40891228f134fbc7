"""Which kind of folder a ledger's URL names. Looks up connections: only from the task's own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from amili_provider.ledger.folders import Folder
from amili_provider.ledger.local_folder import LocalFolder
from amili_provider.ledger.remote_folders import OBJECT_STORES, CautiousFolder, ObjectStoreFolder
from amili_provider.ledger.server_folder import SERVERS, ServerFolder
from amili_provider.storage.filesystems import Location, open_location

_proven: dict[tuple[str, str | None], bool] = {}
_proving = threading.Lock()


def open_folder(url: str, conn_id: str | None, *, sleep: Callable[[float], None] = time.sleep) -> Folder:
    """
    Open a ledger's folder and prove once per process that it works.

    :param url: where the ledger lies.
    :param conn_id: connection of that storage, if it needs one.
    :param sleep: how to wait.
    :raises AmiliLedgerUnavailable: if it cannot be read and written.
    """
    folder = folder_at(open_location(url, conn_id), sleep=sleep)
    with _proving:
        known = _proven.get((folder.url, conn_id))
        if known is None:
            folder.probe()
            _proven[folder.url, conn_id] = folder.exclusive
        else:
            folder.begin()
            folder.exclusive = known
    return folder


def folder_at(location: Location, *, sleep: Callable[[float], None] = time.sleep) -> Folder:
    """
    Return the folder for an open location; not probed.

    :param location: where the ledger lies.
    :param sleep: how to wait.
    """
    if location.protocol in {"file", "local"}:
        return LocalFolder(location.path, location.url, sleep=sleep)
    if location.protocol in OBJECT_STORES:
        return ObjectStoreFolder(location.fs, location.path, location.url, sleep=sleep)
    if location.protocol in SERVERS:
        return ServerFolder(location.fs, location.path, location.url, sleep=sleep)
    return CautiousFolder(location.fs, location.path, location.url, sleep=sleep)
