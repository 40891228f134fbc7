"""
What a trigger tells its sensor at the end: typed, versioned, and checked again when it arrives.

The event crosses a database and perhaps an upgrade of this package: the sensor believes what it understands.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from amili_provider.exceptions import (
    AmiliArgumentError,
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliRequestError,
    AmiliResponseError,
)

VERSION: Literal[1] = 1
"""Raised whenever an older sensor would misunderstand a newer trigger."""

_ERRORS: dict[str, type[AmiliError]] = {
    cls.__name__: cls
    for cls in (
        AmiliArgumentError,
        AmiliAuthenticationError,
        AmiliConnectionError,
        AmiliRequestError,
        AmiliResponseError,
    )
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Settled(_Strict):
    """A final result."""

    client_no: str
    id: str
    """The file's id, or the batch's uuid."""
    meaning: Literal["accepted", "refused"]
    status: str | None = None
    """Amili's words, each as one safe line."""
    result: str | None = None
    message: str | None = None


class Open(_Strict):
    """What has no final result."""

    client_no: str
    id: str
    said: str | None = None
    """What Amili said last, as one safe line."""


class WaitEvent(_Strict):
    """How a wait ended."""

    version: Literal[1] = VERSION
    ending: Literal["settled", "timed_out", "failed"]
    """Everything has a final result; the time is up; or asking further is of no use."""
    settled: list[Settled] = []
    open: list[Open] = []
    error: (
        Literal[
            "AmiliArgumentError",
            "AmiliAuthenticationError",
            "AmiliConnectionError",
            "AmiliRequestError",
            "AmiliResponseError",
        ]
        | None
    ) = None
    """The class of the error that ended the wait."""
    message: str = ""
    """Its message."""
    status_code: int | None = None
    """The HTTP status it comes from."""

    def payload(self) -> dict[str, Any]:
        """Return the event as plain JSON, for Airflow."""
        return self.model_dump(mode="json")

    def raise_error(self) -> NoReturn:
        """Raise the error that ended the wait, as it was raised where the asking was done."""
        cls = _ERRORS.get(self.error or "")
        if cls is None:
            raise AmiliError(f"The trigger failed without saying why. {CLEAR}")
        raise cls(self.message, **({} if self.status_code is None else {"status_code": self.status_code}))


CLEAR = "Nothing is assumed: the task fails, and a retry asks Amili again."


def failed(error: AmiliError, settled: list[Settled], still_open: list[Open]) -> WaitEvent:
    """Return the event for *error*, one of those that asking for results can raise."""
    return WaitEvent.model_validate(
        {
            "ending": "failed",
            "settled": settled,
            "open": still_open,
            "error": type(error).__name__,
            "message": error.message,
            "status_code": getattr(error, "status_code", None),
        }
    )


def read_event(payload: Any) -> WaitEvent:
    """
    Return what a trigger said.

    :param payload: what Airflow hands over; None if there is nothing.
    :raises AmiliError: if it is not understood. That is no verdict about any file, so Airflow may retry.
    """
    try:
        return WaitEvent.model_validate(payload)
    except ValidationError as reason:
        # The input is not repeated: an event that is not understood may hold anything.
        fields = sorted({".".join(str(step) for step in error["loc"]) or "event" for error in reason.errors()})
        raise AmiliError(
            f"The trigger's event is not understood (see {', '.join(fields)[:200]}); worker and triggerer may "
            f"run different versions of airflow-provider-amili. {CLEAR}"
        ) from None
