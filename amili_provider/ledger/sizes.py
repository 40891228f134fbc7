"""
Which sizes of large files a ledger has met: whether a look-up can be answered before a file is read.

Who a file is follows from its content, so the ledger can be asked about a large file only when all of it was read. But
if no file of its size was ever met, it is most likely not there (only receipts of older versions have no size written
down), and the file can be hashed while it is sent. This saves reading it twice, and decides nothing: whether the file
may be sent is asked again, and claimed, before the request's tail.
"""

from __future__ import annotations

import secrets

from amili_provider.ledger.folders import Folder

LARGE_BYTES = 8 * 1024 * 1024
"""Larger files are kept account of; for smaller ones it would cost more than it saves."""


def first_of_size(folder: Folder, below: str, size: int) -> bool:
    """
    Return whether a file of *size* bytes is met for the first time, and write down that it is met.

    :param folder: the ledger's folder; probed.
    :param below: what :func:`amili_provider.ledger.identity.folder_of` returned.
    :param size: bytes. For up to :data:`LARGE_BYTES` the answer is always no.
    :raises AmiliLedgerUnavailable: if that cannot be told.
    """
    if size <= LARGE_BYTES:
        return False
    name = f"{below}/sizes/{size}"
    try:
        folder.read(name)
    except FileNotFoundError:
        pass
    else:
        return False
    try:
        # Not two the same: a folder tells by the content whether a try whose answer was lost was its own.
        folder.create(name, f"A file of {size} bytes was met. {secrets.token_hex(8)}\n".encode())
    except FileExistsError:
        return False
    return True
