"""
The tree of errors; the class alone says whether Airflow retries.

::

    AirflowException
    └── AmiliError                           everything this package raises on purpose
        ├── AmiliConnectionError             Amili not reached, or told to come back: Airflow may retry
        ├── AmiliStorageError                a storage could not be listed, read or written: Airflow may retry
        ├── AmiliLedgerUnavailable           the ledger cannot be read or written, nothing was sent: Airflow may retry
        ├── AmiliDeliveryIncomplete          some files could not be tried now: Airflow may retry
        ├── AmiliFilesMissing                files that must be there are not, or not yet: Airflow may retry
        └── AmiliPermanentError              also an AirflowFailException: retrying the task cannot help
            ├── AmiliArgumentError           a wrong argument or connection field; also a ValueError
            ├── AmiliAuthenticationError     401 after one renewal of the token, or 403
            ├── AmiliRequestError            any other refusal of the whole request (3xx, 4xx)
            ├── AmiliResponseError           an answer that is not what the API describes
            ├── AmiliStorageSettingsError    a storage that cannot work as configured
            ├── AmiliUploadRejected          Amili refused files, in its own words
            ├── AmiliDuplicateFiles          Amili accepted the bytes of files under another name
            ├── AmiliOutcomeUnknown          sent, but the answer was lost or not understood
            ├── AmiliDeliveryFailed          files that cannot be sent as they are
            └── AmiliResultFailed            a later check says that Amili refused files

Wrong arguments are ``ValueError``, in a task as :class:`AmiliArgumentError`; a named file that is missing is
``FileNotFoundError``, and so is :class:`AmiliFilesMissing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException


class AmiliError(AirflowException):
    """
    The root of every error that this package raises on purpose.

    :param message: what was tried, on what, what came back, and what to do next.
    """

    # Airflow's base class says 500 here, for its own web server; with us it is what Amili answered, if it did.
    status_code: Any = None

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        # Keyword-only details live in the instance dictionary, so that every class of the tree survives pickling.
        self.__dict__.update(details)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, {k: v for k, v in self.__dict__.items() if k != "message"})


def _rebuild(cls: type[AmiliError], message: str, details: dict[str, Any]) -> AmiliError:
    error = cls(message)
    error.__dict__.update(details)
    return error


class AmiliConnectionError(AmiliError):
    """
    Amili was not reached, or asked us to come back later; nothing of this request was accepted.

    :param retry_after: seconds that Amili asked us to wait (``Retry-After``, RFC 9110 section 10.2.3), if it did.
    :param status_code: the HTTP status, if there was an answer.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, status_code: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status_code = status_code


class AmiliStorageError(AmiliError):
    """A storage could not be listed, read or written. It never means "no files"."""


class AmiliLedgerUnavailable(AmiliError):  # noqa: N818 - a state of the ledger, in the words of the tree
    """The ledger cannot be read or written. Nothing is sent without it."""


class AmiliDeliveryIncomplete(AmiliError):  # noqa: N818
    """
    Some files could not be tried now, for causes that pass; the message lists every file that is not delivered.

    :param receipts: the receipts of the files that are not delivered.
    :param retry_after: seconds that Amili asked us to wait before the next attempt, if it did.
    """

    def __init__(
        self,
        message: str = "",
        *,
        receipts: list[dict[str, Any]] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.receipts = receipts or []
        self.retry_after = retry_after


class AmiliFilesMissing(AmiliError, FileNotFoundError):  # noqa: N818
    """
    Files that must be there are not, or not yet. What is there was delivered first.

    Also a ``FileNotFoundError``. There is none at all (``if_no_files``), or not all that ``expect`` and ``min_files``
    ask for.

    :param receipts: the receipts of the files that are not delivered, those that were skipped among them.
    :param missing: what is missing, a sentence each.
    """

    def __init__(
        self,
        message: str = "",
        *,
        receipts: list[dict[str, Any]] | None = None,
        missing: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.receipts = receipts or []
        self.missing = missing or []


class AmiliPermanentError(AmiliError, AirflowFailException):
    """Retrying the task cannot help: Airflow fails it at once, whatever ``retries`` says."""


class AmiliArgumentError(AmiliPermanentError, ValueError):
    """A wrong argument of a task, or a wrong field of its connection: found before anything is sent."""


class AmiliAuthenticationError(AmiliPermanentError):
    """
    Amili does not let us in: 401 after the token was renewed once, or 403.

    :param status_code: the HTTP status, if there was an answer.
    :param receipts: of a delivery: the receipts of the files that are not delivered.
    """

    def __init__(
        self, message: str = "", *, status_code: int | None = None, receipts: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.receipts = receipts or []


class AmiliRequestError(AmiliPermanentError):
    """
    Amili refused the request as a whole (3xx, or 4xx other than 401 and 403).

    :param status_code: the HTTP status.
    :param answer: Amili's answer in short, as one safe line; empty if it was not Amili that answered.
    :param receipts: of a delivery: the receipts of the files that are not delivered.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int | None = None,
        answer: str = "",
        receipts: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.answer = answer
        self.receipts = receipts or []


class AmiliResponseError(AmiliPermanentError):
    """
    The answer is not what the API describes: not JSON, too large, or of another shape.

    :param status_code: the HTTP status.
    """

    def __init__(self, message: str = "", *, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


class AmiliStorageSettingsError(AmiliPermanentError):
    """A storage that cannot work as configured: unknown scheme, missing package, connection of another type."""


class _AboutFiles(AmiliPermanentError):  # noqa: N818 - a part of the tree's drawing, not a class of it
    """
    A permanent failure of named files.

    :param receipts: the receipts of the files that are not delivered.
    """

    def __init__(self, message: str = "", *, receipts: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.receipts = receipts or []


class AmiliUploadRejected(_AboutFiles):
    """Amili's answer refuses files. The message names each with Amili's own words."""


class AmiliOutcomeUnknown(_AboutFiles):
    """
    Files were sent, but the answer was lost or not understood.

    Sending them again could invoice somebody twice, so nothing resends them on its own.
    """


class AmiliDuplicateFiles(_AboutFiles):
    """
    Amili accepted the bytes of files under another name, so they were not sent; others went through.

    Next month's file can honestly hold the same bytes, and a file exported twice does, too: only a person knows which.
    """


class AmiliDeliveryFailed(_AboutFiles):
    """Files cannot be sent as they are (equal names, a refused name, changed while being read); others went through."""


class AmiliResultFailed(_AboutFiles):
    """A later check of the results says that Amili refused files."""


@contextmanager
def wrong_arguments_are_permanent() -> Iterator[None]:
    """
    Let a ``ValueError`` about an argument end the task at once, as an :class:`AmiliArgumentError`.

    Its subclasses are no words about an argument: text that cannot be decoded, broken JSON.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        # The sentence says it all: a second traceback would only hide it.
        raise AmiliArgumentError(str(error)) from None
