"""
The ledger in an object store: S3, GCS, Azure. One object an attempt, created by a conditional write.

The store decides who was first: a create on the condition that there is no such object. A store without it is refused.
Objects have no clock that can be asked, so attempts are dated by their worker's; claims live longer than clocks differ.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import tenacity

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import FORMAT, Attempt, attempt_from, timestamp
from amili_provider.ledger.stores import Found, Identity, Query, another_ledger
from amili_provider.receipts import Outcome, Verdict, one_line
from amili_provider.storage.backends.objects import ObjectFiles

LARGE_BYTES = 8 * 1024 * 1024
"""The sizes of larger files are kept as objects of their own, so that they can be asked for."""
_THREADS = 16
_WHO = "ledger.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_KEY = re.compile(r"(?P<client>[^/]+/[^/]+)/(?P<xx>[0-9a-f]{2})/(?P<id>(?P=xx)[0-9a-f]{30})\.(?P<n>[1-9]\d*)\.json")

T = TypeVar("T")
U = TypeVar("U")


class ObjectStore:
    """
    Attempts as objects below a prefix: ``<environment>/<client_no>/<xx>/<file_id>.<n>.json``.

    :param files: the object store.
    :param path: bucket and prefix.
    :param url: the prefix as messages name it, without secrets.
    :param said: returns an error's words without secrets.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        files: ObjectFiles,
        path: str,
        url: str,
        *,
        said: Callable[[BaseException], str] = one_line,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._path = path.rstrip("/")
        self.shown = url.rstrip("/")
        self.places = [(url.partition("://")[0], self._path)]
        self._said = said
        self._opened: Identity | None = None
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="amili-ledger")

    # Creating and opening

    def create(self) -> tuple[Identity, bool]:
        """Create the ledger, if the store knows conditional writes; see ``LedgerStore.create``."""
        known = self._identity()
        if known is not None:
            return known, False
        self._probe()
        new = Identity(secrets.token_hex(16), timestamp(self._clock()))
        text = {"format": FORMAT, "ledger_id": new.ledger_id, "created_at": new.created_at}
        made = self._create(_WHO, json.dumps(text, indent=2).encode())
        return (new, True) if made else (self.open(), False)

    def open(self, *, read_only: bool = False) -> Identity:
        """Prove that the ledger is there, and that the store creates an object once; see ``LedgerStore.open``."""
        known = self._identity()
        if known is None:
            raise AmiliLedgerUnavailable(
                f"The ledger does not exist: there is no {self.shown}/{_WHO}. Nothing was sent. If it existed before, "
                f"correct the bucket and prefix. If it is new, create it once: amili-ledger create --conn-id <the "
                f"amili connection>, or the DAG amili_ledger."
            )
        if not read_only:
            self._probe()
        self._opened = known
        return known

    def _identity(self) -> Identity | None:
        data = self._read(_WHO)
        if data is None:
            return None
        try:
            said = json.loads(data)
            known, newest = Identity(str(said["ledger_id"]), str(said["created_at"])), int(said["format"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise AmiliLedgerUnavailable(
                f"The ledger {self.shown} cannot be read: {_WHO} is not what was written ({one_line(error)})."
            ) from None
        if newest > FORMAT:
            raise AmiliLedgerUnavailable(
                f"The ledger {self.shown} has format {newest}; this version of the provider knows {FORMAT}. Update it."
            )
        return known

    def _probe(self) -> None:
        """
        Make one object twice, write over it, and take it away again.

        :raises ValueError: if the store is not fit for a ledger.
        """
        key = f".probe-{secrets.token_hex(8)}"
        try:
            # Nobody else has this key: if the answer to its creation was lost, and it was asked for again, it is ours.
            new = self._create(key, b"first") or self._read(key) == b"first"
            again = self._create(key, b"second")
            found = self._read(key)
            if not new or again:
                raise ValueError(
                    f"A ledger cannot be kept in {self.shown}: this store does not refuse to create an object that "
                    f"exists (If-None-Match), so two tasks could send one file. Use a database, or another store."
                )
            self._replace(key, b"third")
            if (found, self._read(key)) != (b"first", b"third"):
                raise ValueError(
                    f"A ledger cannot be kept in {self.shown}: this store does not give back what was written. If it "
                    f"keeps the checksums of uploads in the object, set config_kwargs in the extra of its aws "
                    f'connection: {{"request_checksum_calculation": "when_required"}}.'
                )
        finally:
            with contextlib.suppress(Exception):  # a ledger from which nothing may be deleted is a good ledger
                self._files.remove(self._at(key))

    # Reading

    def look_up(self, environment: str, client_no: str, file_ids: Sequence[str]) -> Found:
        """Return the attempts of files of one client; see ``LedgerStore.look_up``."""
        below = _below(environment, client_no)
        attempts = self._each(lambda file_id: self._attempts_of(below, (environment, client_no), file_id), file_ids)
        found = {file_id: known for file_id, known in zip(file_ids, attempts, strict=True) if known}
        return Found(self._clock(), found)

    def _attempts_of(self, below: str, client: tuple[str, str], file_id: str) -> list[Attempt]:
        known: list[Attempt] = []
        while (data := self._read(f"{below}/{file_id[:2]}/{file_id}.{len(known) + 1}.json")) is not None:
            known.append(_attempt(data, client, file_id, len(known) + 1))
        return known

    def has_size(self, environment: str, client_no: str, size: int) -> bool:
        """Return whether any attempt at a file of *size* bytes was made; of small files it is not known: yes."""
        return size <= LARGE_BYTES or self._read(f"{_below(environment, client_no)}/sizes/{size}") is not None

    def history(self, query: Query) -> Iterator[Attempt]:
        """Yield attempts, the newest first. Reads every object below the client's prefix."""
        under = ""
        if query.environment:
            under = (
                _below(query.environment, query.client_no) if query.client_no else _safe(query.environment.casefold())
            )
        keys = [m for name in self._names(under) if (m := _KEY.fullmatch(name))]
        if query.file_ids is not None:
            keys = [m for m in keys if m["id"] in query.file_ids]
        found = self._each(partial(self._at_key, query), keys)
        matching = [attempt for attempt in found if query.matches(attempt)]
        yield from sorted(matching, key=lambda a: (a.claimed_at, a.file_id, a.attempt), reverse=True)

    def _at_key(self, query: Query, key: re.Match[str]) -> Attempt:
        # Of an object that cannot be read the client is as its key spells it; look-ups know that spelling, too.
        environment, client_no = key["client"].split("/")
        if query.environment and _safe(query.environment.casefold()) == environment:
            environment = query.environment
        if query.client_no and _safe(query.client_no) == client_no:
            client_no = query.client_no
        return _attempt(self._read(key[0]) or b"", (environment, client_no), key["id"], int(key["n"]))

    # Writing

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> AbstractSet[str]:
        """Create one object an attempt; see ``LedgerStore.claim``."""
        now = self._clock()
        for attempt in attempts:
            attempt.stamp(now, seconds)
        self._remember_sizes(attempts)
        results = self._each(self._tried, attempts)
        failed = next((r for r in results if isinstance(r, AmiliLedgerUnavailable)), None) or self._changed()
        if failed is not None:
            self._give_back([a for a, made in zip(attempts, results, strict=True) if made is not False])
            raise failed
        return {a.file_id for a, made in zip(attempts, results, strict=True) if not made}

    def _changed(self) -> AmiliLedgerUnavailable | None:
        """Return why nothing may be sent, if this is another ledger than was opened, or that cannot be told."""
        try:
            same = self._opened is None or self._identity() == self._opened
        except AmiliLedgerUnavailable as error:
            return error
        return None if same else another_ledger(self.shown)

    def _tried(self, attempt: Attempt) -> bool | AmiliLedgerUnavailable:
        """Create an attempt; return whether it is ours, or why that is not known."""
        try:
            return self._create(_key(attempt), _data(attempt)) or self._is_ours(attempt)
        except AmiliLedgerUnavailable as error:
            return error

    def _is_ours(self, attempt: Attempt) -> bool:
        known = self._read(_key(attempt))
        return known is not None and _attempt(known, ("", ""), attempt.file_id, attempt.attempt).owner == attempt.owner

    def _give_back(self, attempts: Sequence[Attempt]) -> None:
        """Settle claims of a request of which some could not be made; one that cannot be settled ends as unknown."""
        for attempt in attempts:
            try:
                if self._is_ours(attempt):
                    # Also of one that resolves others, which it then does not.
                    attempt.resolves, attempt.uploaded_at = (), None
                    attempt.settle(Verdict(Outcome.NOT_SENT, message="Given back before anything was sent."))
                    self.settle([attempt])
            except AmiliLedgerUnavailable:
                return

    def settle(self, attempts: Sequence[Attempt]) -> None:
        """Write over the objects of attempts that are ours; see ``LedgerStore.settle``."""
        now = self._clock()
        for attempt in attempts:
            attempt.stamp_settled(now)
        self._each(lambda attempt: self._replace(_key(attempt), _data(attempt)), attempts)

    def restore(self, attempts: Sequence[Attempt]) -> AbstractSet[tuple[str, int]]:
        """Create attempts exactly as they are; see ``LedgerStore.restore``."""
        self._remember_sizes(attempts)
        made = self._each(self._restore, attempts)
        return {(a.file_id, a.attempt) for a, new in zip(attempts, made, strict=True) if not new}

    def _restore(self, attempt: Attempt) -> bool:
        key, data = _key(attempt), _data(attempt)
        # A store may refuse to create what another is creating, and fails to create, at this moment.
        return self._create(key, data) or (self._read(key) is None and self._create(key, data))

    def _remember_sizes(self, attempts: Sequence[Attempt]) -> None:
        for below, size in {(_below(a.environment, a.client_no), a.size) for a in attempts if a.size > LARGE_BYTES}:
            self._create(f"{below}/sizes/{size}", b"Files of this size were met.\n")

    def close(self) -> None:
        """Close the connections, and end the threads."""
        self._threads.shutdown(wait=False)
        self._files.close()

    def _each(self, operation: Callable[[T], U], things: Iterable[T]) -> list[U]:
        return list(self._threads.map(operation, things))

    def _at(self, key: str) -> str:
        return f"{self._path}/{key}"

    def _read(self, key: str) -> bytes | None:
        try:
            return self._ask("read", key, lambda: self._files.read(self._at(key)))
        except FileNotFoundError:
            return None

    def _create(self, key: str, data: bytes) -> bool:
        """Create an object in one request of the store's own; return whether it is new."""
        try:
            self._ask("write", key, lambda: self._files.put(self._at(key), data, new=True))
        except FileExistsError:
            return False
        return True

    def _replace(self, key: str, data: bytes) -> None:
        try:
            self._ask("write", key, lambda: self._files.put(self._at(key), data, new=False))
        except FileExistsError as error:  # a store that lets nothing be written over
            raise self._unavailable("write", key, error) from None

    def _names(self, under: str) -> list[str]:
        folder = f"{self._at(under)}/" if under else f"{self._path}/"
        found = self._ask("list", under, lambda: list(self._files.scan(folder, flat=True)))
        return [entry.path.removeprefix(f"{self._path}/") for entry in found]

    def _ask(self, what: str, key: str, operation: Callable[[], T]) -> T:
        """Do *operation*, twice at most. That an object exists, or does not, is an answer and no failure."""
        # The library tries again, too, but a worker whose processor is busy can outlast all of its time-outs.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_not_exception_type((FileNotFoundError, FileExistsError, PermissionError)),
            wait=tenacity.wait_random(0.2, 1.0),
            stop=tenacity.stop_after_attempt(2),
            reraise=True,
        )
        try:
            return retrying(operation)
        except (FileNotFoundError, FileExistsError) as error:
            if what == "write" and isinstance(error, FileNotFoundError):
                raise self._unavailable(what, key, error) from None
            raise
        # Each store's library has errors of its own, many of them no OSError: here they become ours.
        except Exception as error:  # noqa: BLE001
            raise self._unavailable(what, key, error) from None

    def _unavailable(self, what: str, key: str, error: BaseException) -> AmiliLedgerUnavailable:
        said = f"{type(error).__name__}: {self._said(error).rstrip('.')}"
        return AmiliLedgerUnavailable(
            f"The ledger cannot {what} {self.shown}/{key}: {said}. Check that the bucket exists, and that the login of "
            f"its connection may list, read and write there. Without the ledger nothing is sent."
        )


def _below(environment: str, client_no: str) -> str:
    # Two environments that are written alike share a prefix; their file ids differ all the same.
    return f"{_safe(environment.casefold())}/{_safe(client_no)}"


def _safe(text: str) -> str:
    safe = _UNSAFE.sub("_", text.strip())
    return safe if safe.strip(".") else "_" + safe


def _key(attempt: Attempt) -> str:
    below = _below(attempt.environment, attempt.client_no)
    return f"{below}/{attempt.file_id[:2]}/{attempt.file_id}.{attempt.attempt}.json"


def _data(attempt: Attempt) -> bytes:
    return json.dumps(attempt.as_dict(), ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")


def _attempt(data: bytes, client: tuple[str, str], file_id: str, number: int) -> Attempt:
    """Return what an object says; of one that cannot be believed, an attempt whose outcome is not known."""
    try:
        attempt = attempt_from(json.loads(data))
        if (attempt.file_id, attempt.attempt) == (file_id, number):
            return attempt
        why = f"it says file {attempt.file_id}, attempt {attempt.attempt}"
    except (ValueError, TypeError, RecursionError) as error:
        why = str(error)
    return Attempt(
        environment=client[0],
        client_no=client[1],
        file_id=file_id,
        attempt=number,
        owner="",
        message=one_line(f"its object cannot be read: {why}"),
    )
