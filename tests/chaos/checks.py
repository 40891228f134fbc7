"""What must hold: both ends compared by SHA-256, after every try and at the end."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amili_provider.sandbox.server import SandboxServer

if TYPE_CHECKING:
    from tests.chaos.play import Task
    from tests.chaos.scenarios import Scenario

EMPTY = hashlib.sha256().hexdigest()
DELIVERED = ("uploaded", "already_uploaded")
WAYS_ON = {
    "unknown": ("amili_ledger", "if_unknown"),
    "rejected": ("correct the rejected files",),
    "duplicate": ("if_duplicate",),
    "not_sent": ("the next try", "run again"),
}
"""What the message of a task that is not green must say, one of these words, for each outcome."""


def sha256(data: bytes) -> str:
    """Return the hash of *data*."""
    return hashlib.sha256(data).hexdigest()


def counted(receipts: list[dict[str, Any]] | None) -> str:
    """Return how many receipts have which outcome."""
    if receipts is None:
        return "no receipts"
    return ", ".join(f"{n} {outcome}" for outcome, n in sorted(Counter(r["outcome"] for r in receipts).items())) or "-"


class World:
    """
    Both ends of a scenario: what lies in the folder, and what each sandbox holds.

    :param scenario: what is played.
    :param folder: where the files are.
    :param sandboxes: the other end.
    """

    def __init__(self, scenario: Scenario, folder: Path, sandboxes: Sequence[SandboxServer]) -> None:
        self._scenario = scenario
        self._folder = folder
        self._sandboxes = sandboxes
        self.produced: set[str] = set()
        self._listed: dict[str, str] = {}
        self._listed_before: dict[tuple[str, int], dict[str, str]] = {}
        self._again: dict[int, set[str]] = {}
        self._green: set[str] = set()
        """Files that a green task has delivered."""
        self._green_before: dict[tuple[str, int], set[str]] = {}
        """The same, when each task's last try began: of two at a time one may find out what the other could not."""

    def fail(self, what: str) -> None:
        """Say that a promise is broken."""
        from tests.chaos.play import Violation

        raise Violation(what)

    # Watching

    def look_at_files(self) -> None:
        """Note what lies in the folder now."""
        self._listed = {path.name: sha256(path.read_bytes()) for path in sorted(self._folder.iterdir())}
        self.produced |= set(self._listed.values())

    def before(self, task: Task) -> None:
        """Note what a try is about to find."""
        self._listed_before[task.run_id, task.map_index] = dict(self._listed)
        self._green_before[task.run_id, task.map_index] = set(self._green)

    def allow_again(self, task: Task) -> None:
        """Allow one acceptance more: the user asked for it, in this run and since this clear."""
        chain = f"{task.dag_id}/{task.run_id}/{task.map_index}/{task.max_tries}"
        self._again.setdefault(self._sandboxes.index(task.sandbox), set()).add(chain)

    # After each try

    def check_try(self, task: Task) -> None:
        """Check what must hold at any time."""
        for number, sandbox in enumerate(self._sandboxes):
            self._check_not_twice(number, sandbox)
        self._check_receipts(task)
        if task.state == "success":
            self._check_green(task)
        elif task.receipts is not None and task.log.exists() and not task.killed:
            # One that was killed with its receipts published had no time to end with words; its next try will.
            self._check_ways_on(task)

    def _check_not_twice(self, number: int, sandbox: SandboxServer) -> None:
        allowed = 1 + len(self._again.get(number, ()))
        # Once under each name, where a person wishes that.
        by_name = self._scenario.if_duplicate == "send"
        for (digest, name), times in Counter((u.sha256, u.name * by_name) for u in sandbox.uploads).items():
            if times > allowed:
                names = {name} if name else {u.name for u in sandbox.uploads if u.sha256 == digest}
                self.fail(f"accepted {times} times, {allowed} allowed: {', '.join(sorted(names))} ({digest[:12]})")
            if digest not in self.produced:
                self.fail(f"accepted, but never produced: {digest[:12]}")
        for upload in sandbox.uploads:
            if upload.path is not None and sha256(Path(upload.path).read_bytes()) != upload.sha256:
                self.fail(f"the sandbox's copy of {upload.name} is not what it says")

    def _check_receipts(self, task: Task) -> None:
        """Whatever became of the task: a receipt never says more than the other end knows."""
        there = {u.sha256 for u in task.sandbox.uploads}
        green = self._green_before[task.run_id, task.map_index]
        named = {r["source"].rpartition("/")[2] for r in task.receipts or []}
        if task.receipts and (forgotten := sorted(set(self._wanted(task)) - named)):
            self.fail(f"{task.state}, and no receipt of {', '.join(forgotten)}")
        for receipt in task.receipts or []:
            if receipt["outcome"] in DELIVERED and receipt["sha256"] not in there:
                self.fail(f"the receipt of {receipt['name']} says {receipt['outcome']}, but it is not there")
            under = {u.name for u in task.sandbox.uploads if u.sha256 == receipt["sha256"]}
            known = receipt["outcome"] in DELIVERED and receipt["name"] not in under
            if known and task.conf["if_duplicate"] != "skip":
                self.fail(
                    f"the receipt of {receipt['name']} says {receipt['outcome']}, but it is there as {under} only"
                )
            if receipt["outcome"] == "unknown" and receipt["file_id"] in green and not task.conf["force"]:
                self.fail(f"{receipt['name']} was delivered by a green task, and is unknown now: {receipt['message']}")
            if receipt["outcome"] not in DELIVERED and not receipt["message"]:
                self.fail(f"the receipt of {receipt['name']} says {receipt['outcome']} and not why")

    def _wanted(self, task: Task) -> dict[str, str]:
        """Return the files that this task is to deliver: name and hash, as the try found them."""
        listed = self._listed_before[task.run_id, task.map_index]
        sources = task.conf["sources"]
        source = sources[max(task.map_index, 0)]
        return {name: digest for name, digest in listed.items() if Path(name).match(Path(source).name)}

    def _check_green(self, task: Task) -> None:
        receipts = {r["source"].rpartition("/")[2]: r for r in task.receipts or []}
        there = {u.sha256 for u in task.sandbox.uploads}
        self._green |= {r["file_id"] for r in receipts.values() if r["outcome"] in DELIVERED}
        for name, digest in self._wanted(task).items():
            receipt = receipts.get(name)
            if receipt is None:
                self.fail(f"green, but {name} has no receipt")
            elif receipt["outcome"] == "skipped":
                # As the try found it: somebody may have written to it since.
                if digest != EMPTY:
                    self.fail(f"green, but {name} was skipped: {receipt['message']}")
            elif receipt["outcome"] not in DELIVERED:
                self.fail(f"green, but {name} is {receipt['outcome']}")
            elif digest not in there and self._listed[name] == digest:
                # Changed meanwhile: then what the receipt names was checked against the other end above.
                self.fail(f"green, but {name} was not delivered")

    def _check_ways_on(self, task: Task) -> None:
        """Not green: whatever the outcome, the task's log says what to do."""
        said = " ".join(task.log.read_text("utf-8", "replace").split())
        for outcome in {r["outcome"] for r in task.receipts or []}:
            words = WAYS_ON.get(outcome)
            if words and not any(word.casefold() in said.casefold() for word in words):
                self.fail(f"{task.state} with files {outcome}, and no way on in the log")

    def check_somebody_sent(self) -> None:
        """Check that of tasks that met, undisturbed, one has sent each file: they must not give way for ever."""
        there = {u.sha256 for sandbox in self._sandboxes for u in sandbox.uploads}
        for path in self._folder.iterdir():
            data = path.read_bytes()
            if data and not data.startswith((b"REJECT", b"POISON")) and sha256(data) not in there:
                self.fail(f"nothing was in the way, and nobody sent {path.name}")

    # The end

    def mend_refused(self, tasks: Sequence[Task]) -> None:
        """Do what the message says: correct the files that Amili refuses."""
        for path in self._folder.iterdir():
            data = path.read_bytes()
            for head in (b"REJECT: no such debtor\n", b"POISON "):
                if data.startswith(head) and any(task.state != "success" for task in tasks):
                    path.write_bytes(b"corrected " + data.removeprefix(head))
        self.look_at_files()

    def check_end(self, tasks: Sequence[Task]) -> None:
        """Check what must hold when faults are over and people have done what they were told."""
        for task in tasks:
            if task.state != "success":
                left = [receipt for receipt in task.receipts or [] if receipt["outcome"] not in DELIVERED]
                words = json.dumps(left, indent=1)[:3000]
                self.fail(f"no way to green: {task.run_id}[{task.map_index}] is {task.state}: {words}")
            for name, digest in self._wanted(task).items():
                by_name = self._scenario.if_duplicate == "send"
                uploads = [u for u in task.sandbox.uploads if u.sha256 == digest and (u.name == name or not by_name)]
                times = len(uploads)
                allowed = 1 + len(self._again.get(self._sandboxes.index(task.sandbox), ()))
                size = (self._folder / name).stat().st_size
                if size and not 1 <= times <= allowed:
                    self.fail(f"{name} was accepted {times} times in the end")
