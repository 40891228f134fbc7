"""
A ledger on a server without exclusive create that could be relied on: FTP, SFTP, SMB.

FTP has none. SFTP has one for names, but between making a name and filling it others see a part of a receipt. What all
of them do have is making a folder, which is refused if it exists, and renaming, which shows a file whole. So whoever
makes ``x.json`` holds the folder ``x.json.lock`` for that moment: looks that the name is free, writes aside, renames.

A holder who dies in that moment leaves the lock behind. It is taken over after :data:`LOCK_SECONDS`: a holder who is
alive, but as slow as that, gives up before writing (see :data:`HOLDING_SECONDS`). The window that remains: one write
of a kilobyte that hangs for more than the difference, and arrives all the same.
"""

from __future__ import annotations

import contextlib
import posixpath
import time
from collections.abc import Callable
from typing import Any

from amili_provider.ledger.folders import READ_BACK_SECONDS, log
from amili_provider.ledger.remote_folders import FsspecFolder
from amili_provider.models import one_line

LOCK_SECONDS = 40.0
"""How long a lock without a receipt is left alone."""
HOLDING_SECONDS = 20.0
"""How long after taking a lock its holder may still begin to write."""
_FIRST_PAUSE_SECONDS = 0.05
_REFUSALS_WITHOUT_REASON = 3
_LONGEST_PAUSE_SECONDS = 1.0

SERVERS = frozenset({"sftp", "ftp", "ftps", "smb"})
"""Protocols whose filesystems make folders as one operation and replace files by renaming."""


class ServerFolder(FsspecFolder):
    """
    A folder on a server.

    :param fs: the filesystem; takes a connection of its own for every call.
    :param path: the folder's path in it.
    :param url: the folder as it is shown.
    :param sleep: how to wait.
    :param clock: seconds that never go back.
    """

    concurrency = 4
    seconds_per_file = 0.25

    def __init__(
        self,
        fs: Any,
        path: str,
        url: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(fs, path, url, sleep=sleep)
        self._clock = clock

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._fs.close()

    def _begin(self) -> None:
        if self._fs.exists(self._path or "/"):
            return
        # One level only: what is missing above may be a share that is not mounted, or a login of another server.
        self._fs.mkdir(self._path, create_parents=False)
        log.warning("A new ledger was begun in %s: it knows of no earlier delivery.", self.url)

    def _read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._at(name)))

    def _refuses(self, name: str, data: bytes) -> bool:  # noqa: ARG002 - it is the lock that must be refused
        """Return whether making a folder twice is refused: then locks work, and creating is exclusive."""
        lock = self._at(f"{name}.lock")
        self._fs.mkdir(lock, create_parents=False)
        try:
            self._fs.mkdir(lock, create_parents=False)
        except FileExistsError:
            return True
        else:
            return False
        finally:
            self._let_go(lock)

    def _create(self, name: str, data: bytes) -> None:
        self._make_parent(name)
        lock = self._at(f"{name}.lock")
        taken_over = self._take(lock, name)
        taken = self._clock()
        try:
            if self._is_there(name):
                raise FileExistsError(name)
            if self._clock() - taken > HOLDING_SECONDS:
                raise TimeoutError("the server answers too slowly to hold a lock on it")
            self._fs.pipe_file(self._at(name), data)
            if taken_over:
                # Two tasks can lose patience with the same lock at the same moment: whoever wrote last has it.
                self._sleep(READ_BACK_SECONDS)
                self.confirm(name, data)
        finally:
            self._let_go(lock)

    def _take(self, lock: str, name: str) -> bool:
        """
        Make the lock's folder; wait for whoever has it.

        :returns: whether it was taken over from somebody who did not let go of it.
        :raises FileExistsError: if they made the receipt meanwhile.
        """
        waited, pause, refusals = 0.0, _FIRST_PAUSE_SECONDS, 0
        while waited < LOCK_SECONDS:
            try:
                self._fs.mkdir(lock, create_parents=False)
            except FileExistsError:
                refusals = 0
            except OSError:
                # Servers refuse without a reason: it can have been there, and be gone a moment later.
                refusals += 1
                if refusals > _REFUSALS_WITHOUT_REASON:
                    raise
            else:
                return False
            if self._is_there(name):
                raise FileExistsError(name)
            self._sleep(pause)
            waited += pause
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        log.warning(
            "The lock %s in the ledger %s was held for %.0f seconds without a receipt: taking it over. Whoever made it "
            "was ended before anything could be sent.",
            posixpath.basename(lock),
            self.url,
            LOCK_SECONDS,
        )
        return True

    def _let_go(self, lock: str) -> None:
        try:
            self._fs.rmdir(lock)
        except Exception as error:  # noqa: BLE001 - a lock that stays is in nobody's way once its receipt is there
            log.debug("The lock %s stays in the ledger %s: %s", lock, self.url, one_line(error))

    def _is_there(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            self._read(name)
            return True
        return False
