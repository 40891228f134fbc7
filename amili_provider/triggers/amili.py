"""The waits of the sensors, in the triggerer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amili_provider.triggers.base import AmiliTrigger

if TYPE_CHECKING:
    from amili_provider.api.results import Vocabulary
    from amili_provider.triggers.questions import Ask, Client, Key


class AmiliFileResultTrigger(AmiliTrigger):
    """
    Waits until each file has a final result.

    :param file_ids: the ids of the files, by client number.
    :param result_path: the path of a file's result, instead of the connection's.
    :param arguments: see :class:`~amili_provider.triggers.base.AmiliTrigger`.
    """

    def __init__(
        self, *, file_ids: Mapping[str, Sequence[str]], result_path: str | None = None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.file_ids = file_ids
        self.result_path = result_path

    def arguments(self) -> dict[str, Any]:
        """Return all arguments, as plain JSON."""
        ids = {client_no: list(file_ids) for client_no, file_ids in self.file_ids.items()}
        return {"file_ids": ids, "result_path": self.result_path, **super().arguments()}

    def keys(self) -> list[Key]:
        """Return the files."""
        return [(client_no, file_id) for client_no, ids in self.file_ids.items() for file_id in ids]

    def question(self, client: Client, vocabulary: Vocabulary) -> Ask:
        """Ask at the path that the connection, or the sensor, assumes."""
        from amili_provider.triggers.questions import about_files

        return about_files(client, vocabulary)


class AmiliBatchTrigger(AmiliTrigger):
    """
    Waits until a batch is processed.

    :param client_no: the client number.
    :param batch_uuid: as Amili gave it.
    :param if_partial: what a batch that is processed in part means: ``wait``, ``fail`` or ``succeed``.
    :param arguments: see :class:`~amili_provider.triggers.base.AmiliTrigger`.
    """

    def __init__(self, *, client_no: str, batch_uuid: str, if_partial: str = "wait", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.client_no = client_no
        self.batch_uuid = batch_uuid
        self.if_partial = if_partial

    def arguments(self) -> dict[str, Any]:
        """Return all arguments, as plain JSON."""
        mine = {"client_no": self.client_no, "batch_uuid": self.batch_uuid, "if_partial": self.if_partial}
        return {**mine, **super().arguments()}

    def keys(self) -> list[Key]:
        """Return the batch."""
        return [(self.client_no, self.batch_uuid)]

    def question(self, client: Client, vocabulary: Vocabulary) -> Ask:
        """Ask for the batch (page "GET one batch")."""
        from amili_provider.triggers.questions import about_batches

        return about_batches(client, vocabulary, self.if_partial)
