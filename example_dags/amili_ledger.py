"""
A form for the ledger: what was delivered, and the ways out of what the uploads cannot know.

Trigger it, choose what to do, and read the log of its task; the result is in XCom too. The command `amili-ledger` does
the same.

- **list unknown**: files that were sent, but whose answer was lost. Ask Amili about them.
- **find**: was this file sent, when, and what did Amili say?
- **report**: files per day and file type.
- **check with Amili**: ask Amili's result endpoint for all unknown files, and settle those whose result is final.
- **settle as arrived**: Amili has the files; they are never sent again.
- **settle as not arrived**: Amili does not have them; the next run of the upload sends them. Name the files by their
  ids, or by the request or the run that sent them. All of them are settled, or none.
- **adopt**: record what matches `source` as delivered, without sending it. For the first day of an installation that
  used other means. Try it with `dry_run` first.
- **create**: create the ledger, once. One that is there stays as it is.
- **copy**: copy the ledger to another database or bucket. Pause the uploads meanwhile, then name the copy in the
  connection.

The ledger is the one that the Amili connection names, unless `ledger` says another.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, get_current_context, task

ACTIONS = [
    "list unknown",
    "find",
    "report",
    "check with Amili",
    "settle as arrived",
    "settle as not arrived",
    "adopt",
    "create",
    "copy",
]


def text(title: str, description: str) -> Param:
    """Return a field that may stay empty."""
    return Param(None, type=["string", "null"], title=title, description=description)


with DAG(
    dag_id="amili_ledger",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    tags=["amili"],
    doc_md=__doc__,
    params={
        "action": Param("list unknown", type="string", enum=ACTIONS, title="What to do"),
        "amili_conn_id": Param("amili_default", type="string", title="Amili connection"),
        "client_no": text("Client number", "Default: the connection's; to list, find and report: all."),
        "ledger": text("Ledger", "Default: the connection's."),
        "find": text("Find", "A part of a name or path, the beginning of a hash, or a file id."),
        "first_day": text(
            "First day", "To find and report, UTC: 2026-11-01. Default: to find, any; to report, 30 days ago."
        ),
        "last_day": text("Last day", "To find and report."),
        "who": text("Who says so", "To settle and adopt: your name. Default: the Airflow user."),
        "why": text("How you know", "To settle and adopt: in a few words."),
        "file_ids": Param([], type="array", items={"type": "string"}, title="File ids", description="To settle."),
        "request": text("Request", "To settle, instead of file ids: as in the upload's log and receipts."),
        "run": text("DAG and run", "To settle, instead of file ids: DAG/RUN."),
        "source": text("Source", "To adopt: s3://bucket/sent/*.csv"),
        "source_conn_id": text("Source connection", "To adopt."),
        "file_type": text("File type", "To adopt: as the files were delivered."),
        "dry_run": Param(
            default=False, type="boolean", title="Dry run", description="To adopt: only say what would be."
        ),
        "copy_to": text("Copy to", "To copy: a table, a SQLite file or a prefix of a bucket."),
        "copy_to_conn_id": text("Connection of the copy", "To copy: of its database or bucket."),
    },
) as dag:

    @task
    def act() -> list[dict[str, Any]]:
        """Do what the form asks for."""
        # Nothing heavy is imported when the DAG is parsed.
        from amili_provider.command import desk  # noqa: PLC0415

        return desk.act(get_current_context())

    act()
