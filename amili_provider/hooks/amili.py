"""The door to Amili: an Airflow connection becomes settings, and settings become a client."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from amili_provider.connection.fields import label as field_label
from amili_provider.connection.form import form_widgets, ui_field_behaviour
from amili_provider.connection.settings import AmiliSettings, settings_from
from amili_provider.connection.values import checked_client_no
from amili_provider.exceptions import AmiliArgumentError

if TYPE_CHECKING:
    # The HTTP library is slow to import, and nothing at DAG parse needs it.
    from amili_provider.api.client import AmiliClient
    from amili_provider.api.responses import Response
    from amili_provider.api.results import FileResult
    from amili_provider.hooks.upload import FileToUpload


class AmiliHook(BaseHook):
    """
    Talks to Amili's API with an Airflow connection of type ``amili``. A context manager; :meth:`close` it otherwise.

    :param amili_conn_id: the connection.
    """

    conn_name_attr = "amili_conn_id"
    default_conn_name = "amili_default"
    conn_type = "amili"
    hook_name = "Amili"

    def __init__(self, amili_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.amili_conn_id = amili_conn_id
        self._settings: AmiliSettings | None = None
        self._client: AmiliClient | None = None
        self._unmasked: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection form (Airflow before 3.2)."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form (Airflow before 3.2)."""
        return ui_field_behaviour()

    @property
    def settings(self) -> AmiliSettings:
        """
        What the connection says; fetched once, so ask first in the task's own thread.

        :raises ValueError: one sentence that names the field that is wrong or missing.
        :raises AmiliArgumentError: if there is no such connection.
        """
        if self._settings is None:
            if not isinstance(self.amili_conn_id, str) or self.amili_conn_id.strip() in ("", "None"):
                raise ValueError(
                    f"amili_conn_id is {self.amili_conn_id!r}; name a connection, for example 'amili_default'."
                )
            with short_extras():
                connection = self._connection()
                extra = connection.extra_dejson
            self._settings = settings_from(
                self.amili_conn_id,
                login=connection.login,
                password=connection.password,
                host=connection.host,
                port=connection.port,
                schema=connection.schema,
                extra=extra,
            )
            for password in self._settings.proxy_passwords:
                self._mask(password)
        return self._settings

    def _connection(self) -> Any:
        try:
            return self.get_connection(self.amili_conn_id)
        except Exception as error:
            if (missing := missing_connection(error, self.amili_conn_id)) is not None:
                raise missing from None
            raise

    def get_conn(self) -> AmiliClient:
        """
        Return the client, made once. It may be used from many threads.

        :raises AmiliArgumentError: if the environment names a proxy that cannot be used.
        """
        self._mask_held_back()
        if self._client is None:
            from amili_provider.api.client import AmiliClient

            self._client = AmiliClient(self.settings, on_token=self._mask)
        return self._client

    def close(self) -> None:
        """Close what is open; the hook can be used again."""
        self._mask_held_back()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _mask(self, token: str) -> None:
        """Have a token masked in logs; Airflow is told from the task's own thread only, since others disturb it."""
        if threading.current_thread() is threading.main_thread():
            mask_secret(token)
        else:
            self._unmasked.append(token)

    def _mask_held_back(self) -> None:
        while self._unmasked:
            mask_secret(self._unmasked.pop())

    def client_no(self, given: Any = None) -> str:
        """
        Return *given* or the connection's client number, checked.

        :raises ValueError: if there is none, or it cannot be one.
        """
        if given is not None:
            return checked_client_no(given, "client_no")
        if self.settings.client_no is None:
            raise ValueError(
                f"client_no is missing: give it, or fill in {field_label('client_no')} of connection "
                f"{self.amili_conn_id!r}."
            )
        return self.settings.client_no

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """
        Call any endpoint of the ARM API.

        :param method: the HTTP method. GET is tried again after failures that may pass; writing only where nothing
            can have been accepted.
        :param path: below the base URL, for example ``/clients/2218/customers``.
        :param params: query parameters.
        :param json: sent as the JSON body.
        :param headers: more headers, for example ``Accept-Language``.
        :returns: an answer with status 2xx.
        :raises AmiliError: if there is none; the class says whether another attempt may help.
        """
        return self.get_conn().request(method, path, params=params, json=json, headers=headers)

    def paginate(
        self, path: str, *, params: Mapping[str, Any] | None = None, max_pages: int = 10_000
    ) -> Iterator[dict[str, Any]]:
        """
        Read a list page by page; ``summary.nextPage`` is followed on the same scheme, host and port only.

        :param path: of the list, for example ``/clients/2218/aritems``.
        :param params: query parameters of the first page.
        :param max_pages: pages that are read at most.
        :raises AmiliResponseError: if a page is not a JSON object, leads elsewhere, or leads back, or if the last page
            that may be read names another one.
        :raises AmiliError: if a page cannot be had; the class says whether another attempt may help.
        """
        return self.get_conn().paginate(path, params=params, max_pages=max_pages)

    def get_batch(self, batch_uuid: str, *, client_no: Any = None) -> Response:
        """
        Ask for a batch: 200 (done), 202 (still working), 206 (partly done).

        :param batch_uuid: as Amili gave it.
        :param client_no: instead of the connection's.
        :raises AmiliError: for any other answer, or none; the class says whether another attempt may help.
        """
        return self.get_conn().get_batch(self.client_no(client_no), batch_uuid)

    def get_file_result(self, file_id: str, *, client_no: Any = None) -> FileResult | None:
        """
        Ask for the result of one file, at the path that the connection assumes.

        :param file_id: as in the receipt.
        :param client_no: instead of the connection's.
        :returns: None if there is no result yet.
        :raises AmiliResponseError: if the answer is not about this file.
        :raises AmiliError: for any other answer, or none; the class says whether another attempt may help.
        """
        return self.get_conn().get_file_result(self.client_no(client_no), file_id)

    def upload_files(
        self, files: Iterable[FileToUpload], file_type: str, *, client_no: Any = None, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """
        Upload files now, and judge the answers. This keeps no ledger: called again, it sends again.

        In a task use :class:`~amili_provider.operators.amili.AmiliFileUploadOperator` instead, which knows what was
        delivered before, reads from any storage and isolates a bad file among good ones.

        :param files: paths on this machine, or pairs of a name and bytes.
        :param file_type: one of the types that Amili configured for the client.
        :param client_no: instead of the connection's.
        :param user_id: instead of the connection's.
        :returns: one receipt per file, all with outcome ``uploaded``.
        :raises AmiliOutcomeUnknown: files were sent, but it is not certain what became of them.
        :raises AmiliUploadRejected: Amili refused files.
        :raises AmiliDeliveryFailed: some files were accepted, others could not be sent; do not send all again.
        :raises AmiliError: nothing was accepted, and nothing is uncertain. All but the last carry ``receipts`` of
            all files.
        """
        from amili_provider.hooks.upload import upload

        settings = self.settings
        number = self.client_no(client_no)
        return upload(self.get_conn(), files, file_type, number, settings.user_id if user_id is None else user_id)

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection without changing anything; for the button in Airflow's connection form."""
        from amili_provider.hooks.connection_test import try_connection

        try:
            settings = self.settings
        except ValueError as reason:
            # Airflow tests what stands in the form under an id of its own making, which would only confuse.
            return False, str(reason).removeprefix(f"Connection {self.amili_conn_id!r}: ")
        return try_connection(settings, on_token=self._mask)


def missing_connection(error: Exception, conn_id: str) -> AmiliArgumentError | None:
    """
    Return what to raise if *error* says that Airflow has no connection *conn_id*; None if it says anything else.

    :param error: what looking it up raised.
    :param conn_id: the id.
    """
    # By name and words: Airflow's versions differ in what they raise, and share no base.
    words, variable = str(error), f"AIRFLOW_CONN_{conn_id.upper()}"
    if isinstance(error, ImportError) and "SUPERVISOR_COMMS" in words:
        from airflow import __version__

        return AmiliArgumentError(
            f"Outside of a task, Airflow {__version__} does not look for connection {conn_id!r} in its database. Set "
            f"{variable}, or install Airflow 3.1.1 or newer."
        )
    if type(error).__name__ != "AirflowNotFoundException" and not ("isn't defined" in words and conn_id in words):
        return None
    if os.environ.get(variable):
        # Airflow goes on to look elsewhere, and does not say why.
        return AmiliArgumentError(f"{variable} is set, but Airflow cannot read it. Correct it: is it whole JSON?")
    return AmiliArgumentError(
        f"There is no Airflow connection with the id {conn_id!r}. Create it (type Amili), set {variable}, or correct "
        f"amili_conn_id."
    )


class _NoSecret(logging.Filter):
    """Drops Airflow's warning that a value is too short to be masked."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "too short" not in record.getMessage()


_NO_SECRET = _NoSecret()


@contextmanager
def short_extras() -> Iterator[None]:
    """
    Look up a connection to Amili, whose extra has values that are short and no secrets.

    Airflow has every value of an extra masked, and warns in the log of every task that a client number of four digits
    is too short for that. Secrets are masked all the same.
    """
    # The masker lives in several modules, one for each part of Airflow, and elsewhere in each version.
    known = logging.Logger.manager.loggerDict.items()
    maskers = [logger for name, logger in list(known) if name.endswith("secrets_masker")]
    loggers = [logger for logger in maskers if isinstance(logger, logging.Logger)]
    for logger in loggers:
        logger.addFilter(_NO_SECRET)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_NO_SECRET)
