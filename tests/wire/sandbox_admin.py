"""A sandbox in another process, in the hands of a test: its admin endpoints through the standard library."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from amili_provider.sandbox.records import Refusal, RequestRecord, Upload

_TIMEOUT_SECONDS = 10.0


class SandboxAdmin:
    """
    What a :class:`~amili_provider.sandbox.server.SandboxServer` offers in Python, for ``amili-sandbox serve``.

    :param url: scheme, host and port of the sandbox.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opener = build_opener(ProxyHandler({}))  # a loopback address is not for a proxy

    def _call(self, method: str, path: str, order: Any = None) -> Any:
        body = None if order is None else json.dumps(order).encode()
        request = Request(f"{self.url}/admin/{path}", body, {"Content-Type": "application/json"}, method=method)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["message"]) from None

    @property
    def uploads(self) -> list[Upload]:
        """Every acceptance, in order."""
        return [Upload(**u) for u in self._call("GET", "uploads")]

    @property
    def refusals(self) -> list[Refusal]:
        """Every file that was refused by a result of its own, in order."""
        return [Refusal(**r) for r in self._call("GET", "refusals")]

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request, in order, cut ones included."""
        return [RequestRecord(**r) for r in self._call("GET", "requests")]

    def count(self, kind: str) -> int:
        """Return how many requests of one kind came."""
        return sum(r.kind == kind for r in self.requests)

    def add_fault(self, on: str = "upload", **action: Any) -> int:
        """Add a fault, see :class:`~amili_provider.sandbox.faults.Fault`; return its number."""
        return int(self._call("POST", "faults", {"on": on, **action})["number"])

    def fault_hits(self, number: int) -> int:
        """Return how many requests a fault took."""
        return next(int(f["hits"]) for f in self._call("GET", "faults") if f["number"] == number)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._call("DELETE", "faults")

    def set_result(self, file_id: str, *steps: Any) -> None:
        """Say what the next answers about a file are, see :meth:`amili_provider.sandbox.results.Scripts.set`."""
        self._call("POST", "results", {"id": file_id, "steps": steps})

    def set_batch(self, batch_uuid: str, *steps: Any) -> None:
        """Say what the next answers about a batch are."""
        self._call("POST", "batches", {"id": batch_uuid, "steps": steps})

    def tokens(self, **order: Any) -> dict[str, Any]:
        """Change the token service: ``expire=True``, ``lifetime=``, ``numbers_as_text=``, ``admit=``."""
        return dict(self._call("POST", "tokens", order))

    def rules(self, **order: Any) -> dict[str, Any]:
        """Change rules by name, see :class:`~amili_provider.sandbox.rules.Rules`, or ``knows_uploads``."""
        return dict(self._call("POST", "rules", order))

    def reset(self) -> None:
        """Forget everything that arrived and every script, fault and rule."""
        self._call("POST", "reset", {})

    def wait_until_up(self, timeout: float = 15.0) -> None:
        """
        Wait until the sandbox answers.

        :raises TimeoutError: if it does not within *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._call("GET", "state")
            except (URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no sandbox answers at {self.url}") from None
                time.sleep(0.02)
            else:
                return

    def wait_until_idle(self, timeout: float = 5.0) -> bool:
        """Wait until no request is being served; return whether it came to that."""
        deadline = time.monotonic() + timeout
        while self._call("GET", "state")["in_flight"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True
