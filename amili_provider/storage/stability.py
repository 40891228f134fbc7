"""Which files are still being written: two listings, an interval apart, tell."""

from __future__ import annotations

from collections.abc import Sequence

from amili_provider.storage.files import StorageFile


def unstable_files(before: Sequence[StorageFile], after: Sequence[StorageFile], seconds: float) -> dict[str, str]:
    """
    Return why files cannot be taken for whole, by URL; stable ones are left out.

    Two listings cost a storage less than asking for every file, and need no clock that two machines agree on.

    :param before: the listing.
    :param after: the same listing, *seconds* later.
    :param seconds: the interval.
    """
    now = {file.url: file for file in after}
    reasons = {}
    for file in before:
        later = now.get(file.url)
        if later is None:
            reasons[file.url] = f"It was gone {seconds:g} s after it was listed."
        elif later.size != file.size:
            reasons[file.url] = f"Still being written: {file.size} bytes, {seconds:g} s later {later.size}."
        elif (later.fingerprint, later.modified) != (file.fingerprint, file.modified):
            reasons[file.url] = f"Still being written: changed within {seconds:g} s."
    return reasons
