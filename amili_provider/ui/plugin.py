"""
The plugin that Airflow 3.1 and newer finds through the entry point ``airflow.plugins``.

Every process of Airflow loads its plugins, so this module imports nothing that they do not have. The page itself is
imported by the API server, when somebody opens it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from airflow import __version__

if TYPE_CHECKING or "airflow.plugins_manager" in sys.modules:
    from airflow.plugins_manager import AirflowPlugin
else:
    try:  # a worker of Airflow 3.2 and newer has this one
        from airflow.sdk.plugins_manager import AirflowPlugin
    except ImportError:
        from airflow.plugins_manager import AirflowPlugin

HAS_VIEWS = tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 1)
"""Whether Airflow shows pages of plugins in its own."""
PREFIX = "/amili"
TASK_ROUTE = "amili-receipts"
"""How the tab of a task instance is called in Airflow's addresses."""

Message = MutableMapping[str, Any]


class _Page:
    """The page as an ASGI application that is imported with its first request."""

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        import asyncio

        # In a thread, so that nobody else waits for it.
        page = await asyncio.to_thread(_imported)
        await page.app(scope, receive, send)


def _imported() -> Any:
    from amili_provider.ui import page

    return page


class AmiliPlugin(AirflowPlugin):
    """Adds the page *Amili deliveries*, and a tab with receipts to task instances."""

    name = "amili"
    fastapi_apps = [{"app": _Page(), "url_prefix": PREFIX, "name": "Amili deliveries"}] if HAS_VIEWS else []
    # Addresses without a slash at their beginning: Airflow may be served below a path.
    external_views = (
        [
            {
                "name": "Amili deliveries",
                "href": "amili/deliveries",
                "destination": "nav",
                "category": "browse",
                "url_route": "amili-deliveries",
            },
            {
                "name": "Amili receipts",
                "href": "amili/task/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}",
                "destination": "task_instance",
                "url_route": TASK_ROUTE,
                "applies_to": {"operator_name": ["AmiliFileUploadOperator"]},  # Airflow 3.4; older ones show it always
            },
        ]
        if HAS_VIEWS
        else []
    )
