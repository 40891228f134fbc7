"""
The ledger's folder on any storage: read, create exclusively, replace.

*Create exclusively* is what keeps two tasks from making the same attempt, so it is trusted only where two
things hold: the storage has it as one operation of its own (fsspec's default looks first and writes then,
which two tasks can do at the same time), and a probe at the start shows that it refuses (see
:meth:`Folder.probe`). Elsewhere a claim is written, left to lie for a moment, and read back: the last writer
    has won.

Nothing here is cached, and every method may be called from any thread.
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.models import one_line

log = logging.getLogger(__name__)

READ_BACK_SECONDS = 2.0
"""How long a claim lies before it is read back, where creating is not exclusive."""
RETRY_PAUSES = (0.2, 1.0)
"""Seconds before each further try of an operation that failed for a reason that may pass."""

EXPECTED = (AmiliLedgerUnavailable, FileExistsError)
"""What writing a file can fail with, as it is returned where many are written."""

T = TypeVar("T")


class Folder(ABC):
    """
    A folder that holds small files.

    :param url: the folder as it is shown; without secrets.
    :param sleep: how to wait.
    """

    concurrency = 8
    """How many operations at a time are worth their threads."""
    files_together = 1
    """How many files a thread should at least be given at once, if there are that many."""
    seconds_per_file = 0.0
    """How much longer a request may take to claim for each further file, on storages known to be slow."""
    exclusive = False
    """Whether :meth:`create` is proven to refuse a name that exists. Set by :meth:`probe`."""

    def __init__(self, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.url = url
        self._sleep = sleep

    def read(self, name: str) -> bytes:
        """
        Return the content of *name*.

        :raises FileNotFoundError: if there is no such file.
        :raises AmiliLedgerUnavailable: if that cannot be told.
        """
        return self._persistently("read", name, lambda: self._read(name))

    def create(self, name: str, data: bytes) -> None:
        """
        Write a new file. Where the folder is not :attr:`exclusive`, it looks first, and only :meth:`confirm` proves it.

        :raises FileExistsError: if the name exists with other content.
        :raises AmiliLedgerUnavailable: if it cannot be written.
        """
        try:
            make = self._create if self.exclusive else self._look_and_create
            self._persistently("write", name, lambda: make(name, data))
        except FileExistsError:
            # A try whose answer was lost may have written it: the content holds an unguessable owner.
            if not self._holds(name, data):
                raise
        except FileNotFoundError as error:
            raise self._unavailable("write", name, error) from None

    def confirm(self, name: str, data: bytes) -> None:
        """
        Check that what :meth:`create` wrote is still there.

        :raises FileExistsError: if somebody else wrote it at the same time.
        """
        if not self._holds(name, data):
            raise FileExistsError(name)

    def replace(self, name: str, data: bytes) -> None:
        """
        Write a file whether it exists or not; a reader sees the old or the new content.

        :raises AmiliLedgerUnavailable: if it cannot be written.
        """
        try:
            self._persistently("write", name, lambda: self._replace(name, data))
        except FileNotFoundError as error:
            raise self._unavailable("write", name, error) from None

    def create_each(self, files: Sequence[tuple[str, bytes]]) -> list[BaseException | None]:
        """
        Write new files, and return for each what it failed with; see :meth:`create`.

        :param files: names and contents; no name twice.
        """
        return self._each(self.create, files)

    def replace_each(self, files: Sequence[tuple[str, bytes]]) -> list[BaseException | None]:
        """
        Write files whether they exist or not, and return for each what it failed with; see :meth:`replace`.

        :param files: names and contents; no name twice.
        """
        return self._each(self.replace, files)

    def names(self, under: str = "") -> Iterator[str]:
        """Yield the names of all files below the folder *under*, in no order. Costs as much as there are."""
        yield from self._persistently("list", under, lambda: list(self._names(under)))

    def begin(self) -> None:
        """
        Make the folder where there is none yet and a storage has folders.

        :raises AmiliLedgerUnavailable: if that does not work.
        """
        try:
            self._persistently("open", "", self._begin)
        except FileNotFoundError:
            raise AmiliLedgerUnavailable(
                f"The ledger {self.url} cannot be begun: the folder above it does not exist. Mount the share, create "
                f"that folder, or correct the path. Without the ledger nothing is sent."
            ) from None

    def probe(self) -> None:
        """
        Show that the folder can be read and written, and whether its create is exclusive.

        One name is made twice, written over, and taken away again.

        :raises AmiliLedgerUnavailable: if the folder does not work.
        """
        name = f".probe-{secrets.token_hex(8)}"
        first, second, third = (f"{word} {name}\n".encode() for word in ("first", "second", "third"))
        self.begin()
        try:
            self.read(name)
        except FileNotFoundError:
            pass
        else:
            raise AmiliLedgerUnavailable(f"The ledger {self.url} finds files that cannot exist. Nothing was sent.")
        try:
            self.create(name, first)
            if self.read(name) != first:
                raise AmiliLedgerUnavailable(
                    f"The ledger {self.url} does not give back what was written. Nothing was sent."
                )
            self.exclusive = self._refuses(name, second)
            # A storage that keeps what was written once could take claims, and no outcome.
            self.replace(name, third)
            if self.read(name) != third:
                raise AmiliLedgerUnavailable(
                    f"The ledger {self.url} does not give back what was written over. Nothing was sent."
                )
        except (FileNotFoundError, FileExistsError) as error:
            raise self._unavailable("write", name, error) from None
        finally:
            self._clear_away(name)
        if not self.exclusive:
            log.warning(
                "The ledger %s is on a storage without exclusive create: a claim is written, and read back "
                "after %s seconds. Two tasks that claim the same bytes at the same moment are told apart "
                "only if neither takes longer to write. See the README, which storages have no such window.",
                self.url,
                READ_BACK_SECONDS,
            )

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back connections."""

    def _each(
        self, write: Callable[[str, bytes], None], files: Sequence[tuple[str, bytes]]
    ) -> list[BaseException | None]:
        errors: list[BaseException | None] = []
        for name, data in files:
            try:
                write(name, data)
            except EXPECTED as error:
                errors.append(error)
            else:
                errors.append(None)
        return errors

    def _refuses(self, name: str, data: bytes) -> bool:
        """Return whether the storage itself refuses to make *name*, which exists."""
        try:
            self._persistently("write", name, lambda: self._create(name, data))
        except FileExistsError:
            return True
        except AmiliLedgerUnavailable as error:
            # A store that does not know the condition says so, and works without it.
            if getattr(error, "errno", None) == errno.ENOSYS:
                return False
            raise
        return False

    def _look_and_create(self, name: str, data: bytes) -> None:
        try:
            self._read(name)
        except FileNotFoundError:
            self._replace(name, data)
        else:
            raise FileExistsError(name)

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def _clear_away(self, name: str) -> None:
        try:
            self._delete(name)
        except Exception as error:  # noqa: BLE001 - a ledger that may not be deleted from is a good ledger
            log.debug("The probe %s stays in the ledger %s: %s", name, self.url, one_line(error))

    def _persistently(self, what: str, name: str, operation: Callable[[], T]) -> T:
        """Try *operation* a few times. That a file exists, or does not, is an answer and no failure."""
        for pause in (*RETRY_PAUSES, None):
            try:
                return operation()
            except (FileNotFoundError, FileExistsError, AmiliLedgerUnavailable):
                raise
            # Each storage's library has errors of its own, many of them no OSError: here they become ours.
            except Exception as error:  # noqa: BLE001
                self._start_afresh()
                if pause is None or isinstance(error, PermissionError):
                    # The sentence says it all: a second traceback would only hide it.
                    raise self._unavailable(what, name, error) from None
                self._sleep(pause)
        raise AssertionError("the last try either returns or raises")

    def _unavailable(self, what: str, name: str, error: BaseException) -> AmiliLedgerUnavailable:
        where = f"{self.url}/{name}" if name else self.url
        words, remedy = f"{type(error).__name__}: {one_line(error)}", "Check that the folder exists, and that"
        if isinstance(error, PermissionError):
            # The system's own words repeat the path.
            words, remedy = (
                "permission denied" if error.filename else f"permission denied ({one_line(error)})",
                "See that",
            )
        return AmiliLedgerUnavailable(
            f"The ledger cannot {what} {where}: {words}. {remedy} the worker, or the login of its connection, may read "
            f"and write it. Without the ledger nothing is sent.",
            errno=getattr(error, "errno", None),
        )

    def _start_afresh(self) -> None:  # noqa: B027 - most have no connection that could be dead
        """Forget connections that may be dead."""

    def _begin(self) -> None:  # noqa: B027 - object stores have no folders
        """Make the folder itself where a storage has folders, and see that it is one."""

    @abstractmethod
    def _read(self, name: str) -> bytes: ...

    @abstractmethod
    def _create(self, name: str, data: bytes) -> None:
        """Make a file in one operation of the storage's own; FileExistsError if it exists."""

    @abstractmethod
    def _replace(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def _delete(self, name: str) -> None: ...

    @abstractmethod
    def _names(self, under: str) -> Iterator[str]: ...
