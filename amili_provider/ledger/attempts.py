"""The attempts of a client's files as files of a folder: one per attempt, written by its owner only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from amili_provider.ledger import identity
from amili_provider.ledger.folders import EXPECTED, READ_BACK_SECONDS, Folder
from amili_provider.ledger.records import LedgerReceipt, TornReceipt, parse
from amili_provider.ledger.standing import Attempt
from amili_provider.ledger.workers import Workers


class Attempts:
    """
    Receipts in a folder, read and written one by one or many at a time.

    :param folder: the ledger's folder; probed.
    :param below: what :func:`amili_provider.ledger.identity.folder_of` returned.
    :param sleep: how to wait.
    """

    def __init__(self, folder: Folder, below: str, *, sleep: Callable[[float], None]) -> None:
        self.folder = folder
        self.workers = Workers(folder.concurrency)
        self._below = below
        self._sleep = sleep

    def name(self, file_id: str, attempt: int) -> str:
        """Return the name of a receipt below the ledger's folder."""
        return identity.receipt_name(self._below, file_id, attempt)

    def read(self, file_id: str, attempt: int) -> Attempt | None:
        """
        Return one attempt, or None if there is no such.

        A torn one is read again after a while: some storages show a file while it is being written.
        """
        found = self._read_once(file_id, attempt)
        if not isinstance(found, TornReceipt):
            return found
        self._sleep(READ_BACK_SECONDS)
        return self._read_once(file_id, attempt) or found

    def _read_once(self, file_id: str, attempt: int) -> Attempt | None:
        try:
            data = self.folder.read(self.name(file_id, attempt))
        except FileNotFoundError:
            return None
        return parse(data, file_id=file_id, attempt=attempt)

    def create_all(self, receipts: Sequence[LedgerReceipt]) -> list[BaseException | None]:
        """
        Create attempts and return for each what it failed with: ``FileExistsError`` if somebody else has it.

        :param receipts: of attempts that nobody had made when the ledger was asked.
        """
        errors = self._shared(self.folder.create_each, receipts)
        if self.folder.exclusive or all(errors):
            return errors
        # Whoever wrote a name last has it, and everybody who wrote it sees that after a while.
        self._sleep(READ_BACK_SECONDS)
        written = [i for i, error in enumerate(errors) if error is None]
        for i, error in zip(written, self.each(self._confirm, [receipts[i] for i in written]), strict=True):
            errors[i] = error
        return errors

    def rewrite_all(self, receipts: Sequence[LedgerReceipt]) -> list[BaseException | None]:
        """
        Write attempts of ours once more, and return for each what it failed with.

        :param receipts: if somebody else took the name of one, it gets the next one.
        """
        if self.folder.exclusive:
            # Nobody else can have it, and the question would cost a request.
            return self._shared(self.folder.replace_each, receipts)
        return self.each(self._rewrite, receipts)

    def _rewrite(self, receipt: LedgerReceipt) -> None:
        while not self.is_ours(receipt):
            receipt = replace(receipt, attempt=receipt.attempt + 1)
            try:
                self._create(receipt)
            except FileExistsError:
                continue
            return
        self._replace(receipt)

    def rewrite_if_ours(self, receipt: LedgerReceipt) -> None:
        """Write an attempt once more if it is certain that it is ours."""
        if self.is_ours(receipt):
            self._replace(receipt)

    def is_ours(self, receipt: LedgerReceipt) -> bool:
        """Return whether what lies in the ledger has the owner of *receipt*."""
        found = self.read(receipt.file_id, receipt.attempt)
        return isinstance(found, LedgerReceipt) and found.owner == receipt.owner

    def each(
        self, operation: Callable[[LedgerReceipt], None], receipts: Sequence[LedgerReceipt]
    ) -> list[BaseException | None]:
        """Run *operation* on every receipt and return for each what it failed with."""
        return self.workers.failures(operation, receipts, EXPECTED)

    def close(self) -> None:
        """End the threads and give back connections."""
        self.workers.close()
        self.folder.close()

    def _shared(
        self,
        write: Callable[[Sequence[tuple[str, bytes]]], list[BaseException | None]],
        receipts: Sequence[LedgerReceipt],
    ) -> list[BaseException | None]:
        def some(share: Iterable[LedgerReceipt]) -> list[BaseException | None]:
            return write([self._file(receipt) for receipt in share])

        return self.workers.in_shares(some, receipts, at_least=self.folder.files_together)

    def _file(self, receipt: LedgerReceipt) -> tuple[str, bytes]:
        return self.name(receipt.file_id, receipt.attempt), receipt.to_json()

    def _create(self, receipt: LedgerReceipt) -> None:
        self.folder.create(*self._file(receipt))

    def _confirm(self, receipt: LedgerReceipt) -> None:
        self.folder.confirm(*self._file(receipt))

    def _replace(self, receipt: LedgerReceipt) -> None:
        self.folder.replace(*self._file(receipt))
