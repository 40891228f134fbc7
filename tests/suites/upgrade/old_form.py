"""The connection form of Airflow 2, filled and sent as a browser does."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

_INPUT = re.compile(r"<(?:input|textarea)\b[^>]*>")
_ATTRIBUTE = re.compile(r'\b(name|value)="([^"]*)"')
_STANDARD = ("conn_id", "description", "host", "schema", "login", "password", "port", "extra")
_PREFIX = "extra__amili__"
_USER = "admin"


class OldForm:
    """The form on Airflow 2's own web server, called without a network; the database has to be migrated."""

    def __init__(self) -> None:
        from airflow.www.app import create_app  # type: ignore[import-not-found,unused-ignore]

        app = create_app(testing=True)
        app.config["WTF_CSRF_ENABLED"] = False
        with app.app_context():
            users = app.appbuilder.sm
            if not users.find_user(_USER):
                users.add_user(_USER, "A", "B", "a@example.com", users.find_role("Admin"), password=_USER)
        self._client = app.test_client()
        self._client.post("/login/", data={"username": _USER, "password": _USER})

    def add(self, conn_id: str, values: Mapping[str, str]) -> None:
        """
        Fill an empty form and save it.

        :param conn_id: of the new connection.
        :param values: what is typed, by our fields' names.
        """
        shown = self._shown("/connection/add")
        typed = {name if name in _STANDARD else _PREFIX + name: value for name, value in values.items()}
        assert set(typed) <= set(shown), sorted(set(typed) - set(shown))
        self._send("/connection/add", {**shown, **typed, "conn_id": conn_id})

    def edit(self, conn_id: str, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """
        Open a connection, change fields, and save it.

        :param conn_id: of the connection.
        :param changes: what is typed, by the names of the extras; what is not named is left as it is shown.
        :returns: what was shown before, by our fields' names.
        """
        path = f"/connection/edit/{_row(conn_id).id}"
        shown = self._shown(path)
        self._send(path, {**shown, **{_PREFIX + name: value for name, value in (changes or {}).items()}})
        return {name.removeprefix(_PREFIX): value for name, value in shown.items()}

    def _shown(self, path: str) -> dict[str, str]:
        page = self._client.get(path).get_data(as_text=True)
        found = {}
        for tag in _INPUT.finditer(page):
            attributes = dict(_ATTRIBUTE.findall(tag[0]))
            name = attributes.get("name", "")
            if name in _STANDARD or name.startswith(_PREFIX):
                area = page[tag.end() :].partition("</textarea>")[0].strip() if tag[0].startswith("<t") else ""
                found[name] = html.unescape(attributes.get("value", area))
        return found

    def _send(self, path: str, form: Mapping[str, str]) -> None:
        answer = self._client.post(path, data={**form, "conn_type": "amili"})
        # A form that is refused is shown again.
        assert answer.status_code == 302, answer.get_data(as_text=True)


def _row(conn_id: str) -> Any:
    from airflow.models.connection import Connection  # the row, not the task's view of it
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(Connection).filter_by(conn_id=conn_id).one()
        session.expunge(row)
    return row


def kept(conn_id: str) -> dict[str, Any]:
    """Return the extra of a connection as it is in the database."""
    extra: dict[str, Any] = json.loads(_row(conn_id).get_extra())
    return extra


def uri_of(conn_id: str) -> str:
    """Return the connection in the database as a URI, which is how tests give it to a hook."""
    uri: str = _row(conn_id).get_uri()
    return uri
