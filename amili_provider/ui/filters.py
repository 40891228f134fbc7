"""Which attempts the Deliveries page shows: the words of a search, without a database."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("unknown", "rejected", "not_sent", "being_sent", "settled", "delivered")
"""What became of an attempt, the worst first; *settled*: it was unknown, and the file is decided since."""
NOT_DELIVERED = "not_delivered"
"""All kinds but delivered, of files that no other attempt delivered."""
OUTCOMES = (NOT_DELIVERED, *KINDS)
"""What a person may ask for."""

Key = tuple[str, str, int]
"""After which row a page begins: when it was claimed, its file id, its attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """
    Which attempts to show; each word narrows it.

    :param client_no: of this client.
    :param text: a part of the name or source, in any case; or the beginning of a hash; or a file id.
    :param since: claimed on this day (``YYYY-MM-DD``, UTC) or later.
    :param until: claimed on this day or earlier.
    :param kind: one of :data:`KINDS`.
    :param undelivered: at files that Amili has not accepted, with this attempt or another.
    :param file_type: of exactly this type.
    :param dag_id: by this DAG.
    :param run_id: by this run.
    :param task_id: by this task.
    :param map_index: by this of the mapped tasks.
    :param dags: only of these DAGs, since the reader may not read others; None for everything.
    """

    client_no: str | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None
    kind: str | None = None
    undelivered: bool = False
    file_type: str | None = None
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    dags: frozenset[str] | None = None

    @property
    def one_run(self) -> bool:
        """Whether it is about one run, which is few attempts and has an index of its own."""
        return bool(self.dag_id and self.run_id)

    @property
    def looks_at_rows(self) -> bool:
        """Whether the attempts themselves must be looked at, since an index does not hold what is asked for."""
        words = (self.text, self.file_type, self.dag_id, self.run_id, self.task_id, self.dags)
        return not self.one_run and (self.undelivered or any(word is not None for word in words))

    @property
    def narrows(self) -> bool:
        """Whether it is about less than everything of a client."""
        words = (self.text, self.since, self.until, self.kind, self.file_type, self.dag_id, self.run_id)
        return self.undelivered or any(words)
