"""The sandbox itself: everything it knows and everything that can be told to it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from amili_provider.sandbox.faults import Faults
from amili_provider.sandbox.records import Records, Refusal, RequestRecord, Upload
from amili_provider.sandbox.results import Scripts
from amili_provider.sandbox.rules import DEFAULT_CLIENT_NO, DEFAULT_FILE_TYPE, Rules
from amili_provider.sandbox.tokens import Tokens

DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET = "sandbox", "sandbox-secret"
API_PATH = "/arm/v1"

_MOMENT_SECONDS = 0.05


class Sandbox:
    """
    A local Amili without its server; :class:`~amili_provider.sandbox.server.SandboxServer` puts it on a port.

    :param data: folder for what arrives; without it a temporary one that :meth:`close` removes.
    :param clients: the file types of each client number.
    :param keep_contents: False keeps the hashes of what arrives, not the files.
    :param client_id: the client id that the token service knows.
    :param client_secret: its secret.
    :param token_lifetime: seconds that a token lives.
    :param names: public names under which it is reached, for example that of an ingress. Requests to an address, to a
        name without dots, and to one below ``localhost``, ``internal`` and ``cluster.local`` are always served.
    :param clock: the time.
    """

    def __init__(
        self,
        data: Path | str | None = None,
        *,
        clients: Mapping[str, Sequence[str]] | None = None,
        keep_contents: bool = True,
        client_id: str = DEFAULT_CLIENT_ID,
        client_secret: str = DEFAULT_CLIENT_SECRET,
        token_lifetime: float = 3600,
        names: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._temporary = None if data else tempfile.TemporaryDirectory(prefix="amili-sandbox-")
        self.data = Path(self._temporary.name if self._temporary else str(data))
        self._clients = {
            no: tuple(types) for no, types in (clients or {DEFAULT_CLIENT_NO: [DEFAULT_FILE_TYPE]}).items()
        }
        self.rules = Rules(clients=dict(self._clients))
        self.tokens = Tokens(client_id, client_secret, lifetime=token_lifetime, clock=clock)
        self.client_secret = client_secret
        self.names = frozenset(name.lower().rstrip(".") for name in names)
        self.faults = Faults()
        self.results = Scripts()
        """Answers about files; a file without a script says what became of it at upload."""
        self.batches = Scripts()
        """Answers about batches; a batch without a script is 404."""
        self.knows_uploads = True
        """Whether the result endpoint knows uploaded files; False: 404 to every question about them."""
        self.records = Records(self.data, keep_contents=keep_contents, clock=clock)
        self.generation = 0
        """Raised by :meth:`reset` and :meth:`interrupt`; requests of an older one leave no trace."""
        self.live: set[Callable[[], None]] = set()
        """For each request that is being served, what ends its connection, from any thread."""

    @property
    def uploads(self) -> list[Upload]:
        """Every acceptance, in order."""
        return list(self.records.uploads)

    @property
    def refusals(self) -> list[Refusal]:
        """Every file that was refused by a result of its own, in order."""
        return list(self.records.refusals)

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request, in order, cut ones included."""
        return list(self.records.requests)

    @property
    def in_flight(self) -> int:
        """How many requests are being served."""
        return len(self.live)

    def count(self, kind: str) -> int:
        """Return how many requests of one kind came (token, upload, list, result, batch, health, other)."""
        return sum(r.kind == kind for r in self.requests)

    def wait_until_idle(self, timeout: float = 5.0) -> bool:
        """
        Wait until no request is being served, so that a cut one is written down as well.

        :returns: whether it came to that within *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while self.in_flight and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self.in_flight

    def interrupt(self) -> None:
        """Drop what is being served."""
        self.generation += 1
        for end_connection in list(self.live):
            end_connection()

    def reset(self) -> None:
        """Forget everything that arrived and every script, fault and rule."""
        # A request that has its answer may still need a moment; one that hangs is not waited for.
        self.wait_until_idle(_MOMENT_SECONDS)
        self.interrupt()
        self.wait_until_idle()
        self.faults.clear()
        self.results.clear()
        self.batches.clear()
        self.tokens.reset()
        self.rules = Rules(clients=dict(self._clients))
        self.knows_uploads = True
        self.records.clear()

    def close(self) -> None:
        """Remove the temporary folder, if it is one."""
        if self._temporary:
            self._temporary.cleanup()
