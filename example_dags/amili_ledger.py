"""
The ways out of what the uploads cannot know: a form for the ledger.

Trigger it, choose what to do, and read the log of the task that ran; its result is in XCom too.

- **list unknown**: files that were sent, but whose answer was lost. Ask Amili about them.
- **settle as arrived**: Amili has the file; it is never sent again.
- **settle as not arrived**: Amili does not have it; the next run of the upload sends it.
- **adopt**: record what matches `source` as delivered, without sending it. For the first day of an installation that
  used other means. Try it with `dry_run` first.
- **copy**: copy the ledger to another storage. Pause the uploads meanwhile, then name the copy in the connection.

The ledger is the one that the Amili connection names, unless `ledger` says another.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, get_current_context, task

ACTIONS = ["list unknown", "settle as arrived", "settle as not arrived", "adopt", "copy"]
TEXT = ["string", "null"]

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
        "client_no": Param(
            None, type=TEXT, title="Client number", description="Default: the connection's; to list: all."
        ),
        "ledger": Param(None, type=TEXT, title="Ledger folder", description="Default: the connection's."),
        "who": Param(None, type=TEXT, title="Who says so", description="To settle and adopt: your name."),
        "why": Param(None, type=TEXT, title="How you know", description="To settle and adopt: in a few words."),
        "file_ids": Param([], type="array", items={"type": "string"}, title="File ids", description="To settle."),
        "source": Param(None, type=TEXT, title="Source", description="To adopt: s3://bucket/sent/*.csv"),
        "source_conn_id": Param(None, type=TEXT, title="Source connection", description="To adopt."),
        "file_type": Param(None, type=TEXT, title="File type", description="To adopt: as the files were delivered."),
        "dry_run": Param(
            default=False, type="boolean", title="Dry run", description="To adopt: only say what would be."
        ),
        "copy_to": Param(None, type=TEXT, title="Copy to", description="To copy: folder on any storage."),
        "copy_to_conn_id": Param(None, type=TEXT, title="Connection of the copy", description="To copy."),
    },
) as dag:

    @task.branch
    def choose() -> str:
        """Run the one task that the form asks for."""
        action = get_current_context()["params"]["action"]
        return {"list unknown": "list_unknown", "adopt": "adopt", "copy": "copy"}.get(action, "settle")

    # Nothing heavy is imported when the DAG is parsed.

    @task
    def list_unknown() -> list[dict[str, Any]]:
        """List files that were sent, but whose answer was lost."""
        from amili_provider.ledger import desk  # noqa: PLC0415

        return desk.list_unknown(get_current_context())

    @task
    def settle() -> list[dict[str, Any]]:
        """Write down whether files arrived."""
        from amili_provider.ledger import desk  # noqa: PLC0415

        return desk.settle(get_current_context())

    @task
    def adopt() -> list[dict[str, Any]]:
        """Record files as delivered without sending them."""
        from amili_provider.ledger import desk  # noqa: PLC0415

        return desk.adopt(get_current_context())

    @task
    def copy() -> dict[str, Any]:
        """Copy the ledger to another storage."""
        from amili_provider.ledger import desk  # noqa: PLC0415

        return desk.copy(get_current_context())

    choose() >> [list_unknown(), settle(), adopt(), copy()]
