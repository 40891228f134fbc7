"""Plain HTTP calls to the sandbox, by the standard library: its tests share nothing with our own client."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from amili_provider.sandbox.server import SandboxServer

FILE_TYPE = "InvoiciaFormatDocFile"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def file(file_id: str, data: bytes = b"data", **other: Any) -> dict[str, Any]:
    """Return one entry of ``files``."""
    encoded = base64.b64encode(data).decode()
    entry = {"fileId": file_id, "type": FILE_TYPE, "name": f"{file_id}.csv", "content": encoded, **other}
    return {k: v for k, v in entry.items() if v is not ...}


class Calls:
    """
    Calls whoever listens there, each time on a new connection.

    :param host: where.
    :param port: where.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.token = ""

    def call(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Reply:
        """Send one request; keyword names stand for headers, with ``_`` for ``-``."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def log_in(self, secret: str = "sandbox-secret", **form: str) -> Reply:
        """Ask for a token, and keep it."""
        fields = {
            "grant_type": "client_credentials",
            "client_id": "sandbox",
            "client_secret": secret,
            **form,
        }
        reply = self.call(
            "POST", "/token", urlencode(fields).encode(), Content_Type="application/x-www-form-urlencoded"
        )
        if reply.status == 200:
            self.token = reply.json()["access_token"]
        return reply

    def get(self, path: str) -> Reply:
        """Ask the API."""
        return self.call("GET", "/arm/v1" + path, Authorization=f"Bearer {self.token}")

    def post(self, body: bytes | Iterable[bytes], client_no: str = "2218", **headers: str) -> Reply:
        """Send the body of an upload as it is."""
        headers = {
            "Content_Type": "application/json",
            "Authorization": f"Bearer {self.token}",
            **headers,
        }
        return self.call("POST", f"/arm/v1/clients/{client_no}/files", body, **headers)

    def upload(self, *files: Any, client_no: str = "2218", **whole: Any) -> Reply:
        """Upload files."""
        body = {"metadata": {"userId": "TestUser"}, "files": list(files), **whole}
        return self.post(json.dumps(body).encode(), client_no)


class Caller(Calls):
    """
    Calls a sandbox of this process.

    :param server: the sandbox.
    """

    def __init__(self, server: SandboxServer) -> None:
        super().__init__(server.host, server.port)
        self.server = server
