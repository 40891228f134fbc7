"""What arrived: every acceptance, every refusal, every request."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amili_provider.sandbox.content import ReceivedContent

_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One file that arrived whole and is to be accepted or refused."""

    request: int
    client_no: str
    file_id: str
    file_type: str
    name: str
    content: ReceivedContent


@dataclass(frozen=True, slots=True)
class Upload:
    """One acceptance of one file."""

    number: int
    """1 for the first acceptance since the sandbox was reset."""
    request: int
    """Number of the request that brought it."""
    client_no: str
    file_id: str
    file_type: str
    name: str
    size: int
    sha256: str
    accepted_at: float
    """Unix time."""
    earlier: int
    """How often this client's ``fileId`` had been accepted before; 0 is what "never twice" looks like."""
    path: str | None
    """Where the content is on disk; None if contents are not kept."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One file that was refused by a result of its own."""

    request: int
    client_no: str
    file_id: str
    file_type: str
    name: str
    size: int
    sha256: str
    message: str
    refused_at: float


@dataclass(slots=True)
class RequestRecord:
    """One request, also one that was cut."""

    number: int
    kind: str
    """token, upload, list, result, batch, health or other."""
    method: str
    path: str
    peer: str
    """Address and port of the caller: two requests on one connection have the same."""
    user_agent: str = ""
    content_length: int | None = None
    started_at: float = 0.0
    body_bytes: int = 0
    body_complete: bool = False
    status: int | None = None
    """The status that was answered; None if the connection ended without an answer."""
    fault: int | None = None
    """Number of the fault that took this request."""
    ended: str = ""
    """answered, dropped (by a fault), left (the caller went away), or empty while it runs."""


class Records:
    """
    The memory of a sandbox, kept in a folder so that ``amili-sandbox serve --data`` survives a restart.

    :param folder: where contents and the list of acceptances are kept.
    :param keep_contents: False keeps hashes only.
    :param clock: the time.
    """

    def __init__(self, folder: Path, *, keep_contents: bool, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.keep_contents = keep_contents
        self._clock = clock
        self._lock = threading.Lock()
        self.uploads: list[Upload] = []
        self.refusals: list[Refusal] = []
        self.requests: list[RequestRecord] = []
        self._times_accepted: dict[tuple[str, str], int] = {}
        self._latest: dict[tuple[str, str], Upload | Refusal] = {}
        self._parts = 0
        self._index = folder / "accepted.jsonl"
        self._incoming = folder / "incoming"
        self._received = folder / "received"
        self._prepare()
        self._recall()

    def _prepare(self) -> None:
        for folder in (self._incoming, self._received):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _recall(self) -> None:
        if not self._index.exists():
            return
        for line in self._index.read_text("utf-8").splitlines():
            try:
                upload = Upload(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a sandbox that was killed while it wrote
            self._remember(upload)
        for left_over in self._incoming.iterdir():
            left_over.unlink()

    def _remember(self, upload: Upload) -> None:
        self.uploads.append(upload)
        key = _key(upload.client_no, upload.file_id)
        self._times_accepted[key] = self._times_accepted.get(key, 0) + 1
        self._latest[key] = upload

    def open_request(self, **facts: Any) -> RequestRecord:
        """Note that a request has begun."""
        with self._lock:
            record = RequestRecord(number=len(self.requests) + 1, started_at=self._clock(), **facts)
            self.requests.append(record)
        return record

    def next_part(self) -> Path | None:
        """Return where the next content that arrives is to be written."""
        if not self.keep_contents:
            return None
        with self._lock:
            self._parts += 1
            return self._incoming / f"{self._parts:08d}.part"

    def accept(self, arrival: Arrival) -> Upload:
        """Keep a file and write its acceptance down."""
        content = arrival.content
        with self._lock:
            number = len(self.uploads) + 1
            upload = Upload(
                number=number,
                request=arrival.request,
                client_no=arrival.client_no,
                file_id=arrival.file_id,
                file_type=arrival.file_type,
                name=arrival.name,
                size=content.size,
                sha256=content.sha256,
                accepted_at=self._clock(),
                earlier=self._times_accepted.get(_key(arrival.client_no, arrival.file_id), 0),
                path=self._keep(number, arrival.client_no, arrival.name, content),
            )
            with self._index.open("a", encoding="utf-8") as index:
                index.write(json.dumps(asdict(upload)) + "\n")
            self._remember(upload)
        return upload

    def _keep(self, number: int, client_no: str, name: str, content: ReceivedContent) -> str | None:
        if content.path is None:
            return None
        readable = _UNSAFE_IN_NAMES.sub("_", name)[-80:].lstrip(".") or "unnamed"
        folder = self._received / (_UNSAFE_IN_NAMES.sub("_", client_no).lstrip(".") or "_")
        folder.mkdir(exist_ok=True, mode=0o700)
        kept = folder / f"{number:06d}-{content.sha256[:12]}-{readable}"
        if content.size:
            content.path.rename(kept)
        else:
            kept.touch()
        return str(kept)

    def refuse(self, arrival: Arrival, message: str) -> None:
        """Write a refusal down."""
        refusal = Refusal(
            request=arrival.request,
            client_no=arrival.client_no,
            file_id=arrival.file_id,
            file_type=arrival.file_type,
            name=arrival.name,
            size=arrival.content.size,
            sha256=arrival.content.sha256,
            message=message,
            refused_at=self._clock(),
        )
        with self._lock:
            self.refusals.append(refusal)
            self._latest[_key(refusal.client_no, refusal.file_id)] = refusal

    def find(self, client_no: str, file_id: str) -> Upload | Refusal | None:
        """Return the last that is known of a file."""
        return self._latest.get(_key(client_no, file_id))

    def clear(self) -> None:
        """Forget everything, contents included."""
        with self._lock:
            self.uploads, self.refusals, self.requests = [], [], []
            self._times_accepted.clear()
            self._latest.clear()
            self._index.unlink(missing_ok=True)
            shutil.rmtree(self._incoming, ignore_errors=True)
            shutil.rmtree(self._received, ignore_errors=True)
            self._prepare()


def _key(client_no: str, file_id: str) -> tuple[str, str]:
    # "Data values are not case-sensitive", says Amili.
    return client_no, file_id.casefold()


def as_utc(moment: float) -> str:
    """Return a Unix time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
