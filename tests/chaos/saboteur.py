"""
What goes wrong inside the worker, armed in the task's own process just before the operator runs.

Each attempt has a plan, a small JSON file that the suite writes before the attempt begins: where the process is
killed, which operations of ledger and storage fail, how far the clock has moved, which bug is planted. The product
knows nothing of it: here its methods are wrapped, and the process ends with the attempt.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from amili_provider import fault_points

STOP_SECONDS = 5.0
"""How long after its signal Airflow kills a task that it stops."""


def arm(context: Any) -> None:
    """Read the plan of this attempt and do what it says; a plan that cannot be carried out is told to the suite."""
    ti = context["ti"]
    plan = Path(context["dag_run"].conf["plans"], plan_name(ti.dag_id, ti.run_id, ti.map_index))
    try:
        carry_out(json.loads(plan.read_text()))
    except Exception:
        # For Airflow it is one more failed try, and the scenario would hold without its fault.
        unarmed(plan).write_text(traceback.format_exc())
        raise


def unarmed(plan: Path) -> Path:
    """Return the file that says why *plan* could not be carried out, if it could not."""
    return plan.with_suffix(".unarmed")


def carry_out(plan: dict[str, Any]) -> None:
    """Do in this process what *plan* says."""
    os.environ.update(plan["environment"])
    set_clock(plan["clock"])
    _hurry()
    for name in ("storage", "change", "ledger", "database", "remote", "sizes", "meet", "order"):
        if plan.get(name):
            _DEEDS[name](plan[name])
    if plan.get("bug"):
        from tests.chaos import bugs

        bugs.plant(plan["bug"])
    # Last: a kill strikes after whatever else happens at its point.
    if plan.get("kill"):
        _DEEDS["kill"](plan["kill"])


def plan_name(dag_id: str, run_id: str, map_index: int) -> str:
    """Return the name of the file that holds the plan of a task's next attempt."""
    return f"{dag_id}.{run_id}.{map_index}.json"


def die(*_: Any) -> None:
    """End this process as the kernel does when memory runs out: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace *name* of *owner* by *around*, which is called with the original first."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, wrapped)


class Countdown:
    """
    Says when it is time: at the n-th call, for some calls. Safe to use from many threads.

    :param nth: 1 for the first call.
    :param times: for how many calls from there on.
    """

    def __init__(self, nth: int, times: int = 1) -> None:
        self._lock = threading.Lock()
        self._seen = 0
        self._nth = nth
        self._times = times

    def now(self) -> bool:
        """Count a call and say whether it is one of those."""
        with self._lock:
            self._seen += 1
            return self._nth <= self._seen < self._nth + self._times


def _hurry() -> None:
    """Shorten pauses, and call files large that are not; how often something is tried stays as it is."""
    from amili_provider.api import transport
    from amili_provider.delivery import pipeline
    from amili_provider.ledger import dialects, ledger
    from amili_provider.ledger.sql import SqlStore

    transport._FIRST_BACKOFF_SECONDS = 0.02
    wrap(SqlStore, "__init__", lambda make, *args, **more: make(*args, **{**more, "sleep": _briefly}))
    ledger.SETTLE_SECONDS = 1.5
    dialects.LOCK_SECONDS = 0.2  # type: ignore[assignment]
    pipeline.GRACE_SECONDS = 0.5


def _briefly(seconds: float) -> None:
    time.sleep(seconds / 50)


def set_clock(ahead: float) -> None:
    """Let the clock of the ledger's store run *ahead* of the machine's, so that an hour passes between two attempts."""
    from amili_provider.ledger import dialects, objects

    now = dialects.NOW
    now["sqlite"] = f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{ahead} seconds')"
    base = now["postgresql"].rpartition("to_char(")[2].partition(" AT TIME ZONE")
    now["postgresql"] = f"to_char((clock_timestamp() + interval '{ahead} seconds'){base[1]}{base[2]}"
    defaults: Any = objects.ObjectStore.__init__.__kwdefaults__
    defaults["clock"] = lambda: time.time() + ahead


# Points


_hooks: list[Callable[[str], None]] = []


def at_point(name: str, do: Callable[[], None], *, nth: int = 1, times: int = 1) -> None:
    """Have something done when the product comes to one of its named points for the n-th time."""
    if name not in fault_points.NAMES:
        raise ValueError(f"the product has no point {name!r}")
    countdown = Countdown(nth, times)

    def hook(reached: str) -> None:
        if reached == name and countdown.now():
            do()

    _hooks.append(hook)
    fault_points.reached = _reached


def _reached(name: str, /) -> None:
    for hook in _hooks:
        hook(name)


# Kills


def _kill(plan: dict[str, Any]) -> None:
    """Let the process end: at a point of the product, a moment, a byte of a request, or a step of the database."""
    other = {"moment": _kill_at_moment, "byte": _kill_at_byte, "ledger step": _kill_in_ledger}.get(plan["at"])
    if other:
        other(plan)
    else:
        at_point(plan["at"], die, nth=plan.get("nth", 1))


def _kill_at_moment(plan: dict[str, Any]) -> None:
    def later() -> None:
        time.sleep(plan["seconds"])
        if plan.get("gently"):
            _stop()
        else:
            die()

    threading.Thread(target=later, daemon=True).start()


def _stop() -> None:
    """End this process as Airflow ends a task that is cleared or marked while it runs, or whose worker goes away."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    die()


def _kill_at_byte(plan: dict[str, Any]) -> None:
    """Die when so many bytes of a request's body were handed out; all of them: with the tail on its way."""
    from amili_provider.api.upload import UploadBody

    def around(original: Callable[..., Iterator[bytes]], body: Any) -> Iterator[bytes]:
        out = 0
        limit = int(plan["share"] * (body.content_length - plan.get("short_of", 0)))
        for chunk in original(body):
            if out + len(chunk) > limit:
                # What the limit allows is really on its way when the process ends.
                if limit > out:
                    yield chunk[: limit - out]
                die()
            out += len(chunk)
            yield chunk
            if out >= limit:
                die()

    wrap(UploadBody, "__iter__", around)


def _kill_in_ledger(plan: dict[str, Any]) -> None:
    """Die at the n-th step of the database: before a statement, before a COMMIT, or after one."""
    from sqlalchemy.engine.default import DefaultDialect

    countdown = Countdown(plan["nth"])

    def before(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if countdown.now():
            die()
        return original(*args, **kwargs)

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before(original, *args, **kwargs)
        if countdown.now():
            die()

    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        wrap(DefaultDialect, name, before)
    wrap(DefaultDialect, "do_commit", around)


POINTS = ("moment", "byte", "ledger step", *fault_points.NAMES)


# Ledger


def _break_ledger(plan: dict[str, Any]) -> None:
    """
    Let operations of the ledger fail; with ``done`` they happen all the same, and only the answer is lost.

    The database itself is broken by :mod:`tests.chaos.databases`.
    """
    from amili_provider.exceptions import AmiliLedgerUnavailable
    from amili_provider.ledger.objects import ObjectStore
    from amili_provider.ledger.sql import SqlStore

    countdown = Countdown(plan["nth"], plan["times"])

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not countdown.now():
            return original(*args, **kwargs)
        if plan.get("done"):
            original(*args, **kwargs)
        raise AmiliLedgerUnavailable("The ledger cannot be reached: planted.")

    for operation in plan["operations"]:
        for store in (SqlStore, ObjectStore):
            wrap(store, operation, around)


def _break_database(plan: dict[str, Any]) -> None:
    """Let something go wrong with the ledger's database."""
    from tests.chaos import databases

    databases.break_it(plan)


# Storage


def _break_storage(plan: dict[str, Any]) -> None:
    """Let the listing or the reading of a file fail, end early, or hang until Airflow stops the task."""
    from amili_provider.delivery import run
    from amili_provider.exceptions import AmiliStorageError
    from amili_provider.storage import content
    from amili_provider.storage.files import StorageFile

    countdown = Countdown(plan["nth"], plan["times"])

    def listing(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if countdown.now():
            raise AmiliStorageError("The storage cannot be listed: planted.")
        return original(*args, **kwargs)

    def reading(original: Callable[..., int], *args: Any) -> int:
        if not countdown.now():
            return original(*args)
        if plan["how"] == "hang":
            _hang(plan)
        if plan["how"] == "short":
            return 0
        raise OSError(errno.EIO, "planted")

    class Broken:
        """A stream that ends or fails after some bytes."""

        def __init__(self, stream: Any, limit: int) -> None:
            self._stream = stream
            self._left = limit

        def read(self, size: int) -> bytes:
            if not self._left:
                if plan["how"] == "short":
                    return b""
                raise OSError(errno.EIO, "planted")
            data = bytes(self._stream.read(min(size, self._left)))
            self._left -= len(data)
            return data

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

    def opening(original: Callable[..., Any], file: Any) -> Any:
        stream = original(file)
        if plan["how"] == "hang":
            if countdown.now():
                _hang(plan)
            return stream
        return Broken(stream, int(file.size * plan["share"])) if countdown.now() else stream

    if plan["how"] == "list":
        wrap(run, "list_files", listing)
    else:
        wrap(content, "_read_fully", reading)
        wrap(StorageFile, "open", opening)


def _hang(plan: dict[str, Any]) -> None:
    """Answer nothing; somebody loses patience and has Airflow stop the task."""
    if not (told := Path(plan["stopped"])).exists():
        told.touch()
        threading.Thread(target=_stop, daemon=True).start()
    time.sleep(10 * STOP_SECONDS)


def _change_file(plan: dict[str, Any]) -> None:
    """Let somebody write to a file between the listing and the end of its upload."""
    from amili_provider.api.upload import UploadBody
    from amili_provider.storage import content, reading

    path, countdown = Path(plan["path"]), Countdown(1)

    def change() -> None:
        if countdown.now() and path.exists():
            data = path.read_bytes()
            path.write_bytes(data + b"+" if plan["how"] == "grow" else data[:-1] + bytes([(data[-1] + 1) % 256]))

    def read(original: Callable[..., Any], file: Any, *args: Any) -> Any:
        if file.url.endswith(path.name):
            change()
        return original(file, *args)

    def sending(original: Callable[..., Iterator[bytes]], body: Any) -> Iterator[bytes]:
        for number, chunk in enumerate(original(body)):
            if number == plan["chunk"]:
                change()
            yield chunk

    if plan["when"] == "reading":
        for owner, name in (
            (reading, "_read_local"),
            (reading, "_open_local"),
            (reading, "blocks_of"),
            (content, "blocks_of"),
        ):
            wrap(owner, name, read)
    else:
        wrap(UploadBody, "__iter__", sending)


def _read_as_remote(how: Any) -> None:
    """Hide that files are local: they are read as a stream, and large ones are spooled, or read while they are sent."""
    from amili_provider.delivery import reader, run

    def listing(original: Callable[..., list[Any]], *args: Any, **kwargs: Any) -> list[Any]:
        return [dataclasses.replace(file, local_path=None) for file in original(*args, **kwargs)]

    wrap(run, "list_files", listing)
    if how == "stays":
        wrap(reader, "can_stay", lambda *_: True)


def _sizes(how: str) -> None:
    """Let the ledger know every size or forget each: large files are hashed before, or while, they are sent."""
    from amili_provider.ledger import Ledger

    wrap(Ledger, "has_size", lambda *_: how == "known")


# Two tasks at once


def _meet(plan: dict[str, Any]) -> None:
    """Let two tasks both look a file up before either of them claims it."""

    def meet() -> None:
        _say(plan, f"met{plan['me']}")
        _wait_for(plan, f"met{1 - plan['me']}")

    at_point("looked up", meet)


def _order(plan: dict[str, Any]) -> None:
    """Let the second task run from its beginning to its end while the first holds its claims."""
    from amili_provider.delivery.run import UploadRun

    def hold() -> None:
        _say(plan, "claimed")
        _wait_for(plan, "second ended")

    def second(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        _wait_for(plan, "claimed")
        try:
            return original(*args, **kwargs)
        finally:
            _say(plan, "second ended")

    if plan["me"]:
        wrap(UploadRun, "run", second)
    else:
        at_point("claimed", hold, times=1_000_000)


def _say(plan: dict[str, Any], what: str) -> None:
    (Path(plan["folder"]) / what).touch()


def _wait_for(plan: dict[str, Any], what: str) -> None:
    """Wait until the other task has said *what*, but not for ever: it may have been killed."""
    deadline = time.monotonic() + plan["patience"]
    while not (Path(plan["folder"]) / what).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


_DEEDS: dict[str, Callable[[Any], None]] = {
    "kill": _kill,
    "ledger": _break_ledger,
    "database": _break_database,
    "storage": _break_storage,
    "change": _change_file,
    "remote": _read_as_remote,
    "sizes": _sizes,
    "meet": _meet,
    "order": _order,
}
