"""
An explorer of the ledger's protocol: every interleaving of two tasks and a person, with faults at each of their steps.

The tasks run the product's own code: ``Sender``, ``UploadBody``, ``LedgerSession``, ``Ledger``, ``history`` and
``MemoryStore``; the person runs ``settling.settle``. Whatever they ask of the world outside (the store, Amili) is one
*step*. Between two steps an actor's code depends on nothing but the answers that it got before. So it is run from its
beginning with those answers, once for each different list of answers, up to the step that comes next (:class:`Node`).
The world is a plain value that is copied at each step; worlds that are equal are explored once.

Time is the world's. It passes in leaps, wherever an actor may be: before a step, or between a step and its answer.

Two things excuse a second acceptance: a person's false word, and a worker that stands still between its last look at
the clock and the tail. The first lets two tasks say that they uploaded the file, the second does not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn, cast
from unittest import mock

from amili_provider.api.errors import check_upload
from amili_provider.api.responses import Asked, Response, UploadReply
from amili_provider.api.results import FileResult, Vocabulary
from amili_provider.api.upload import UploadBody
from amili_provider.connection.settings import AmiliSettings
from amili_provider.delivery.item import Item, not_sent
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.options import IfUnknown, Options
from amili_provider.delivery.sender import Sender
from amili_provider.exceptions import AmiliConnectionError, AmiliLedgerUnavailable, AmiliOutcomeUnknown
from amili_provider.ledger import Ledger, LedgerState, settling
from amili_provider.ledger import ledger as ledger_module
from amili_provider.ledger.attempts import Attempt, Origin, Run, timestamp
from amili_provider.ledger.ledger import MARGIN_SECONDS, SETTLE_SECONDS
from amili_provider.ledger.state import History, history
from amili_provider.ledger.stores import Found, LedgerStore, MemoryStore
from amili_provider.receipts import Outcome, Receipt
from amili_provider.storage.content import MemoryContent
from amili_provider.storage.files import StorageFile

ANSWER_SECONDS = 600.0
"""How long Amili may take for an answer."""
LONG = ANSWER_SECONDS + MARGIN_SECONDS + 1
"""Seconds, more than a claim lives."""
LATE = 25.0, 590.0
"""Less than claiming may take, then nearly as long as an answer may: the last moments that are in time."""
_FAR = 1e6
_TASKS = 2
_READS_CLOCK_AFTER = {"look up", "claim", "answer", "settle"}
"""Steps after whose answer a task's code looks at its clock: only there it matters that it stands still."""
_CLIENT, _ENVIRONMENT, _TYPE = "10042", "staging", "InvoiciaFormatDocFile"
_SETTINGS = AmiliSettings(base_url="https://amili.example", auth_url=None, environment=_ENVIRONMENT)
_VOCABULARY = Vocabulary()


class Broken(Exception):  # noqa: N818 - what the explorer looks for
    """A promise was broken; the message says which, and by which steps."""


class _Next(BaseException):
    """An actor has come to a step whose answer is not known yet."""

    def __init__(self, step: Step) -> None:
        self.step = step


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What an actor asks of the world: *kind*, and its arguments."""

    kind: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """
    What the world answered.

    :param now: when the actor heard of it.
    :param value: the answer.
    :param error: raised instead.
    """

    now: float
    value: Any = None
    error: Callable[[], Exception] | None = None


@dataclass(frozen=True)
class Case:
    """
    What is explored.

    :param if_unknown: what the tasks do about unknown outcomes.
    :param files: how many files each task has, all in one request.
    :param says: what the person says: "truth", "lie", or "nothing".
    :param late: whether files are hashed on their way, so that they are looked up just before the tail.
    :param faults: how many faults there are at most, and how many of them in one task.
    :param leaps: how time passes: so many seconds at any moment, then so many, each once at most.
    :param retries: how many tries there are after the tasks' first.
    """

    if_unknown: IfUnknown = "fail"
    files: int = 1
    says: str = "truth"
    late: bool = False
    faults: int = 0
    leaps: tuple[float, ...] = ()
    retries: int = 0

    @property
    def contents(self) -> list[bytes]:
        """The bytes of the files."""
        return [b"invoice %d" % number for number in range(self.files)]


class Port:
    """The way of an actor to the world: answers what was answered before, then stops at the step that comes next."""

    def __init__(self, who: str, began: float, told: Sequence[Told]) -> None:
        self.who = who
        self.now = began
        self._told = iter(told)
        self._owners = 0

    def ask(self, kind: str, *arguments: Any) -> Any:
        """Return the world's answer to a step."""
        told = next(self._told, None)
        if told is None:
            raise _Next(Step(kind, arguments))
        self.now = told.now
        if told.error is not None:
            error = told.error()
            self.now += SETTLE_SECONDS * isinstance(error, _Gone)
            raise error
        return told.value

    def clock(self) -> float:
        """Return the time at which the actor got its last answer."""
        return self.now

    def owner(self, _length: int) -> str:
        """Return an owner's token: unguessable there, the same in each repetition here."""
        self._owners += 1
        return f"{self.who}.{self._owners}"

    def ledger(self) -> Ledger:
        """Return a ledger as the actor has it."""
        return Ledger(
            cast("LedgerStore", _Store(self)),
            environment=_ENVIRONMENT,
            client_no=_CLIENT,
            answer_timeout=ANSWER_SECONDS,
            clock=self.clock,
            sleep=lambda _: None,
        )


class _Store:
    """The store as an actor sees it: each call is a step."""

    shown = "the store"

    def __init__(self, port: Port) -> None:
        self._port = port

    def look_up(self, _environment: str, _client_no: str, file_ids: Sequence[str]) -> Found:
        now, found = self._port.ask("look up", tuple(file_ids))
        return Found(now, {file_id: [replace(a) for a in attempts] for file_id, attempts in found})

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> set[str]:
        if not attempts:
            return set()
        taken, dates = self._port.ask("claim", tuple(map(replace, attempts)), seconds)
        for attempt, dated in zip(attempts, dates, strict=True):
            attempt.claimed_at, attempt.expires_at, attempt.settled_at = dated
        return set(taken)

    def settle(self, attempts: Sequence[Attempt]) -> None:
        if attempts:
            self._port.ask("settle", tuple(map(replace, attempts)))


class _Gone(AmiliLedgerUnavailable):
    """The store was away for longer than a ledger tries."""


class _Client:
    """Amili's client as the sender sees it; what an answer means is decided by the product."""

    settings = _SETTINGS
    vocabulary = _VOCABULARY

    def __init__(self, port: Port) -> None:
        self._port = port

    def post_files(self, _client_no: str, body: UploadBody) -> UploadReply:
        for _chunk in body:
            if body.released:
                self._port.ask("tail", tuple(part.file_id for part in body.parts))
        answer = self._port.ask("answer", tuple(part.file_id for part in body.parts))
        return check_upload(answer, "POST", _SETTINGS, _VOCABULARY, 0.0, released=body.released)

    def ask_for_result(self, _client_no: str, file_id: str) -> Asked:
        if self._port.ask("result", (file_id,)):
            return Asked(
                FileResult(file_id=file_id, status="PROCESSED", result="CREATED"), not_found=False, status_code=200
            )
        return Asked(None, not_found=True, status_code=404)


class _Log(logging.Logger):
    def exception(self, msg: object, *args: object, **kwargs: Any) -> NoReturn:
        raise SystemExit(f"the product failed in a way that nothing foresaw: {msg}")


_LOG = _Log("explorer", logging.CRITICAL)


def _task(port: Port, case: Case, run: Run) -> tuple[tuple[str, Outcome], ...]:
    """Deliver the files as a task does; return what became of each."""
    contents = [MemoryContent(data) for data in case.contents]
    plan = Options("", _TYPE, client_no=_CLIENT, environment=_ENVIRONMENT, if_unknown=case.if_unknown, run=run)
    client: Any = _Client(port)
    ledger = port.ledger()
    books = LedgerSession(ledger, plan, client)
    ids = [ledger.file_id(_TYPE, content.hash_now()) for content in contents]
    items = []
    for number, content in enumerate(contents):
        name = f"{number}.csv"
        location: Any = None
        file = StorageFile(location, name, f"s3://in/{name}", name, content.size, None, None, None, literal=True)
        items.append(Item(file, Receipt(name, file.url, _CLIENT, _TYPE, content.size), number, content))
    going = []
    results = {}
    try:
        if case.late:
            going = items
        else:
            for item in items:
                books.identify(item)
            found = books.look_up(items)
            for item in items:
                if (known := books.consult(item, found[item])) is None:
                    going.append(item)
                else:
                    results[item] = known
    except AmiliLedgerUnavailable as error:
        going, results = [], dict.fromkeys(items, not_sent(error))
    if going:
        sender = Sender(plan, client, books, stop=Event(), log=_LOG, clock=port.clock)
        results |= sender.send(going).results
    return tuple(
        # What the ledger could not be told fails the task, and will be unknown.
        (ids[item.index], Outcome.UNKNOWN if results[item].unwritten else results[item].outcome)
        for item in items
    )


def _person(port: Port, case: Case) -> tuple[tuple[str, Outcome], ...]:
    """See a file without an outcome, ask Amili, and settle it."""
    ledger = port.ledger()
    file_id, has_it = port.ask("truth")
    with suppress(AmiliLedgerUnavailable, ValueError):
        arrived = has_it is (case.says == "truth")
        settling.settle(ledger, settling.Person("Kari", "I asked"), arrived=arrived, file_ids=[file_id])
    return ()


class Node:
    """
    An actor that has come so far: the step that it is at, or its result.

    :param actor: runs the actor.
    :param began: when it began.
    :param told: all answers that it got.
    """

    __slots__ = ("_actor", "_began", "_children", "_told", "now", "result", "step", "who")

    def __init__(self, actor: _Actor, began: float, told: tuple[Told, ...] = ()) -> None:
        self._actor, self._began, self._told = actor, began, told
        self._children: dict[Any, Node] = {}
        self.who = actor.who
        self.now = told[-1].now if told else began
        self.step: Step | None = None
        self.result: Sequence[tuple[str, Outcome]] = ()
        port = Port(self.who, began, told)
        with mock.patch.object(ledger_module, "secrets", SimpleNamespace(token_hex=port.owner)):
            try:
                self.result = actor.run(port)
            except _Next as news:
                self.step = news.step

    def after(self, answer: Answered, now: float) -> Node:
        """Return the actor after it was told *answer*."""
        key = (answer, now)
        if key not in self._children:
            told = (*self._told, Told(now, answer.value, answer.error))
            self._children[key] = Node(self._actor, self._began, told)
        return self._children[key]


class _Actor:
    """What runs in a node."""

    def __init__(self, who: str, run: Callable[[Port], Sequence[tuple[str, Outcome]]]) -> None:
        self.who = who
        self.run = run
        self._roots: dict[float, Node] = {}

    def root(self, began: float) -> Node:
        """Return the actor at its beginning."""
        if began not in self._roots:
            self._roots[began] = Node(self, began)
        return self._roots[began]


class Answered:
    """
    An answer that is on its way to its actor.

    :param key: what makes two of them equal.
    :param value: what it says.
    :param error: raised instead.
    """

    __slots__ = ("error", "key", "value")

    def __init__(self, key: Any, value: Any, error: Callable[[], Exception] | None) -> None:
        self.key, self.value, self.error = key, value, error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answered) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Playing(NamedTuple):
    """
    An actor in a world.

    :param node: how far it has come; None if it is over.
    :param tried: how many tries came before this one.
    :param faults: how many more faults happen to it.
    :param held: what it will be told as soon as time has passed.
    :param request: what Amili has of it and has not decided on: files, and until when it decides.
    """

    node: Node | None
    tried: int = 0
    faults: int = 1
    held: Answered | None = None
    request: tuple[tuple[int, ...], float] | None = None


class Kept:
    """What the store holds; equal ones are one object."""

    def __init__(self, attempts: dict[Any, Attempt], *, latest: str) -> None:
        self.attempts = attempts
        self.latest = latest


class World(NamedTuple):
    """
    A world at one moment.

    :param now: seconds since its beginning.
    :param faults: how many more faults happen.
    :param leaps: how time passes from now on.
    :param retries: how many more tries there are.
    :param actors: the tasks, then the person.
    :param kept: what the store holds.
    :param accepted: how many times Amili accepted each file.
    :param flying: requests whose worker is gone, and that Amili has and has not decided on: files and until when.
    :param releases: attempts whose tail was released: file, number, and whether their worker was told of a refusal.
    :param excused: how many times more than once Amili may have each file.
    :param lied: how many times a person said falsely that a file did not arrive.
    :param uploaded: how many tasks said of a file that they uploaded it.
    :param arrived: files of which a person said falsely that they arrived.
    """

    now: float
    faults: int
    leaps: tuple[float, ...]
    retries: int
    actors: tuple[Playing, ...]
    kept: Kept
    accepted: tuple[int, ...]
    excused: tuple[int, ...]
    lied: tuple[int, ...]
    uploaded: tuple[int, ...]
    flying: tuple[tuple[tuple[int, ...], float], ...] = ()
    releases: tuple[tuple[int, int, bool], ...] = ()
    arrived: frozenset[int] = frozenset()

    def with_actor(self, index: int, actor: Playing, **changes: Any) -> World:
        """Return a copy with another actor."""
        return self._replace(actors=(*self.actors[:index], actor, *self.actors[index + 1 :]), **changes)

    def attempts_at(self, file_id: str) -> list[Attempt]:
        """Return the attempts at a file, in their order."""
        return sorted((a for a in self.kept.attempts.values() if a.file_id == file_id), key=lambda a: a.attempt)


@dataclass
class Explorer:
    """
    Explores one case.

    :param case: which.
    """

    case: Case
    states: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self._now = 0.0
        self._memory = MemoryStore(clock=lambda: self._now)
        self._stores: dict[Any, Kept] = {}
        self._seen: dict[World, int] = {}
        self._done: dict[Any, tuple[Kept, Any]] = {}
        self._sound: set[Any] = set()
        self._path: list[str] = []
        ledger = Port("", 0.0, ()).ledger()
        self._ids = [ledger.file_id(_TYPE, MemoryContent(data).hash_now()) for data in self.case.contents]
        self._tasks = [[self._task(letter, number) for number in range(self.case.retries + 1)] for letter in "AB"]
        self._person = _Actor("person", lambda port: _person(port, self.case))

    def _task(self, letter: str, number: int) -> _Actor:
        run = Run(dag_id="etl", run_id=letter, task_id="upload", try_number=number + 1, chain=letter)
        return _Actor(f"{letter}{number + 1}", lambda port: _task(port, self.case, run))

    def explore(self) -> int:
        """
        Explore everything; return the number of interleavings.

        :raises Broken: if a promise is broken.
        """
        case = self.case
        actors = [Playing(tries[0].root(0.0)) for tries in self._tasks]
        if case.says != "nothing":
            actors.append(Playing(self._person.root(0.0)))
        none = (0,) * case.files
        start = World(0.0, case.faults, case.leaps, case.retries, tuple(actors), self._kept({}), *(none,) * 4)
        found = self._explore(start)
        self.states = len(self._seen)
        return found

    def _explore(self, world: World) -> int:
        known = self._seen.get(world)
        if known is not None:
            return known
        self._check(world)
        ways = 0
        for words, after in self._after(world):
            self.steps += 1
            self._path.append(words)
            ways += self._explore(after)
            self._path.pop()
        self._seen[world] = ways or 1
        return ways or 1

    # What may happen next

    def _after(self, world: World) -> Iterator[tuple[str, World]]:
        for index, actor in enumerate(world.actors):
            if actor.node is None or actor.held is not None:
                continue
            if index == 1 and world.actors[0].node is self._tasks[0][0].root(0.0):
                continue  # the tasks are alike: let A be the first
            for words, after in self._steps(world, index, actor):
                yield f"{actor.node.who}: {words}", after
        for number, (files, _) in enumerate(world.flying):
            rest = world.flying[:number] + world.flying[number + 1 :]
            yield "Amili loses what a worker that is gone has sent", world._replace(flying=rest)
            accepted = _plus(world.accepted, files)
            yield "Amili accepts what a worker that is gone has sent", world._replace(flying=rest, accepted=accepted)
        if world.leaps and (later := self._later(world)) is not None:
            yield f"{world.leaps[0]:.0f} s pass", later

    def _later(self, world: World) -> World | None:
        """Return the world after some time; None if nobody would notice, or Amili be too late with a decision."""
        now = world.now + world.leaps[0]
        claiming = any(a.node and a.node.step and a.node.step.kind == "claim" for a in world.actors)
        if not (claiming or world.kept.latest > timestamp(world.now) or any(a.held for a in world.actors)):
            return None
        if any(now > until for _, until in _undecided(world)):
            return None
        after = world._replace(now=now, leaps=world.leaps[1:])
        for index, actor in enumerate(world.actors):
            if actor.held is not None:
                after = self._deliver(after, index, actor)
        return after

    def _steps(self, world: World, index: int, actor: Playing) -> Iterator[tuple[str, World]]:
        """Yield what may become of the step that an actor is at."""
        assert actor.node is not None
        assert actor.node.step is not None
        step = actor.node.step
        ends: Callable[..., Iterator[tuple[str, World, Answered]]] = getattr(self, "_" + step.kind.replace(" ", "_"))
        for words, after, answer in ends(world, index, step, may_fail=bool(world.faults and actor.faults)):
            playing = after.actors[index]._replace(held=answer)
            if after.leaps and index < _TASKS and step.kind in _READS_CLOCK_AFTER:
                yield f"{words}, and stands still", after.with_actor(index, playing)
            if after.faults and playing.faults:
                yield f"{words}, and is killed", self._killed(after, index, playing)
            yield words, self._deliver(after, index, playing)

    def _deliver(self, world: World, index: int, actor: Playing) -> World:
        """Return the world in which an actor was told what it waits for."""
        assert actor.node is not None
        assert actor.held is not None
        node = actor.node.after(actor.held, world.now)
        if node.step is not None:
            return world.with_actor(index, actor._replace(node=node, held=None))
        self._check_green(world, node.result)
        told = self._numbers([file_id for file_id, outcome in node.result if outcome is Outcome.UPLOADED])
        world = _left(world, actor)._replace(uploaded=_plus(world.uploaded, told))
        if all(outcome.delivered for _, outcome in node.result):
            return world.with_actor(index, Playing(None))
        return self._again(world, index, actor)

    def _again(self, world: World, index: int, actor: Playing) -> World:
        """Return the world in which Airflow tries a task again, if it is to."""
        if not world.retries or index >= _TASKS:
            return world.with_actor(index, Playing(None))
        node = self._tasks[index][actor.tried + 1].root(world.now)
        return world.with_actor(index, Playing(node, actor.tried + 1, actor.faults), retries=world.retries - 1)

    def _killed(self, world: World, index: int, actor: Playing) -> World:
        after = world._replace(faults=world.faults - 1)
        return self._again(_left(after, actor), index, actor._replace(faults=actor.faults - 1))

    @staticmethod
    def _fault(world: World, index: int) -> World:
        actor = world.actors[index]
        return world.with_actor(index, actor._replace(faults=actor.faults - 1), faults=world.faults - 1)

    # Steps of the store

    def _look_up(self, world: World, index: int, step: Step, *, may_fail: bool) -> Iterator[Any]:
        def work() -> Any:
            found = self._memory.look_up(_ENVIRONMENT, _CLIENT, step.arguments[0])
            return found.now, tuple((i, tuple(found.attempts.get(i, ()))) for i in step.arguments[0])

        _, value = self._stored(world, step, work)
        yield "looks up", world, Answered((world.kept, world.now), value, None)
        if may_fail:
            yield "cannot look up", self._fault(world, index), _AWAY

    def _claim(self, world: World, index: int, step: Step, *, may_fail: bool) -> Iterator[Any]:
        def work() -> Any:
            attempts = tuple(map(replace, step.arguments[0]))
            taken = frozenset(self._memory.claim(attempts, step.arguments[1]))
            return taken, tuple((a.claimed_at, a.expires_at, a.settled_at) for a in attempts)

        after, (taken, dates) = self._stored(world, step, work)
        if step.arguments[0][0].origin is Origin.PERSON:
            after = self._said(after, step.arguments[0], taken)
        yield "claims", after, Answered(taken, (taken, dates), None)
        if may_fail:
            yield "claims, and the COMMIT is not answered", self._fault(after, index), _AWAY
            yield "cannot claim", self._fault(world, index), _AWAY

    def _settle(self, world: World, index: int, step: Step, *, may_fail: bool) -> Iterator[Any]:
        after, _ = self._stored(world, step, lambda: self._memory.settle(tuple(map(replace, step.arguments[0]))))
        yield "settles", after, _SETTLED
        if may_fail:
            yield "settles, and the COMMIT is not answered", self._fault(after, index), _AWAY
            yield "cannot settle at first", self._fault(world, index), _AWAY
            yield "cannot settle for a minute", self._fault(world, index), _GONE

    def _stored(self, world: World, step: Step, work: Callable[[], Any]) -> tuple[World, Any]:
        """Return what a step makes of the store, and its answer; what was done once is remembered."""
        key = (world.kept, world.now, step)
        if key not in self._done:
            self._now = world.now
            self._memory._attempts = dict(world.kept.attempts)
            answer = work()
            self._done[key] = self._kept(self._memory._attempts), answer
        kept, answer = self._done[key]
        return world._replace(kept=kept), answer

    def _kept(self, attempts: dict[Any, Attempt]) -> Kept:
        """Return what the store holds, as one object for all that are equal."""
        open_until = {at: "" if a.outcome else a.expires_at for at, a in attempts.items()}
        key = tuple(sorted((*at, a.owner, str(a.outcome), a.resolves, open_until[at]) for at, a in attempts.items()))
        if key not in self._stores:
            self._stores[key] = Kept(attempts, latest=max(open_until.values(), default=""))
        return self._stores[key]

    def _said(self, world: World, attempts: Sequence[Attempt], taken: frozenset[str]) -> World:
        """Note what a person said that is not true."""
        for attempt in attempts:
            number = self._ids.index(attempt.file_id)
            if attempt.file_id in taken:
                continue
            if attempt.outcome is Outcome.UPLOADED and not world.accepted[number]:
                world = world._replace(arrived=world.arrived | {number})
            elif attempt.outcome is not Outcome.UPLOADED and world.accepted[number]:
                excused, lied = _plus(world.excused, (number,)), _plus(world.lied, (number,))
                world = world._replace(excused=excused, lied=lied)
        return world

    # Steps of Amili

    def _tail(self, world: World, index: int, step: Step, *, may_fail: bool) -> Iterator[Any]:
        node = world.actors[index].node
        assert node is not None
        releases, excused = set(world.releases), world.excused
        for number in self._numbers(step.arguments[0]):
            attempts = world.attempts_at(self._ids[number])
            mine = [a for a in attempts if a.owner.startswith(node.who)]
            if not mine:
                continue  # as a bug may have it
            releases.add((number, mine[-1].attempt, False))
            # A worker that stands still between its last look at the clock and the tail cannot know.
            stood_still = mine[-1].expires_at < timestamp(world.now + ANSWER_SECONDS)
            was_in_time = mine[-1].expires_at >= timestamp(node.now + ANSWER_SECONDS)
            asked_for = self.case.if_unknown == "resend" and self._known(world, number).unknown
            if asked_for or (stood_still and was_in_time):
                excused = _plus(excused, (number,))
        request = self._numbers(step.arguments[0]), world.now + ANSWER_SECONDS
        playing = world.actors[index]._replace(request=request)
        after = world.with_actor(index, playing, releases=tuple(sorted(releases)), excused=excused)
        yield "releases the tail", after, Answered("sent", None, None)
        if may_fail:
            yield "is cut before the tail", self._fault(world, index), _CUT

    def _answer(self, world: World, index: int, step: Step, *, may_fail: bool) -> Iterator[Any]:
        ids = step.arguments[0]
        numbers = self._numbers(ids)
        world = world.with_actor(index, world.actors[index]._replace(request=None))
        accepting = world._replace(accepted=_plus(world.accepted, numbers))
        yield "is accepted", accepting, _answered(200, ids)
        if not may_fail:
            return
        yield "is accepted, and the answer is lost", self._fault(accepting, index), _LOST
        failing = self._fault(world, index)
        yield "is answered with 502", failing, _answered(502)
        yield "is refused", self._refused(failing, index, numbers), _answered(422)
        yield "is told to come again", self._refused(failing, index, numbers), _answered(429)
        if len(numbers) > 1:
            half = self._refused(failing, index, numbers[1:])._replace(accepted=_plus(world.accepted, numbers[:1]))
            yield "is accepted in part", half, _answered(200, ids[:1], ids[1:])

    def _refused(self, world: World, index: int, numbers: Sequence[int]) -> World:
        """Note that a worker is told that files were not accepted."""
        node = world.actors[index].node
        assert node is not None
        mine = {
            (self._ids.index(a.file_id), a.attempt)
            for a in world.kept.attempts.values()
            if a.owner.startswith(node.who)
        }
        releases = ((n, a, told or (n in numbers and (n, a) in mine)) for n, a, told in world.releases)
        return world._replace(releases=tuple(releases))

    def _result(self, world: World, index: int, step: Step, *, may_fail: bool) -> Iterator[Any]:
        has_it = bool(world.accepted[self._numbers(step.arguments[0])[0]])
        yield f"asks Amili ({'yes' if has_it else 'no'})", world, Answered(has_it, has_it, None)
        if may_fail:
            yield "cannot ask Amili", self._fault(world, index), _CUT

    def _truth(self, world: World, _index: int, _step: Step, **_: Any) -> Iterator[Any]:
        for number, file_id in enumerate(self._ids):
            if not all(a.has_end for a in world.attempts_at(file_id)):
                has_it = bool(world.accepted[number])
                words = f"asks Amili for file {number} ({'yes' if has_it else 'no'})"
                yield words, world, Answered((number, has_it), (file_id, has_it), None)

    def _numbers(self, file_ids: Sequence[str]) -> tuple[int, ...]:
        return tuple(self._ids.index(file_id) for file_id in file_ids)

    # Promises

    def _known(self, world: World, number: int) -> History:
        """Return what the ledger says of a file when every claim has ended."""
        return history(self._ids[number], world.attempts_at(self._ids[number]), now=_FAR)

    def _check(self, world: World) -> None:
        key = (world.kept, world.accepted, world.excused, world.lied, world.uploaded, world.releases)
        if key in self._sound:
            return
        self._sound.add(key)
        for number, times in enumerate(world.accepted):
            if times > 1 + world.excused[number]:
                self._broken(f"Amili accepted file {number} {times} times")
            if world.uploaded[number] > 1 + world.lied[number]:
                self._broken(f"{world.uploaded[number]} tasks say that they uploaded file {number}, and none doubts it")
            known = self._known(world, number)
            if known.state is LedgerState.FREE and times and not world.excused[number]:
                self._broken(f"file {number} is free, and Amili has it")
            resolved = {n for a in known.attempts for n in a.resolves}
            for file, attempt, refused in world.releases:
                if file != number or refused:
                    continue
                now = known.attempts[attempt - 1]
                if now.outcome in (Outcome.REJECTED, Outcome.NOT_SENT):
                    self._broken(f"attempt {attempt} at file {number} is {now.outcome}, and nobody said so")
                if known.state is LedgerState.FREE and not now.has_end and attempt not in resolved:
                    self._broken(f"file {number} is free, and nobody knows what became of attempt {attempt}")

    def _check_green(self, world: World, result: Sequence[tuple[str, Outcome]]) -> None:
        for file_id, outcome in result:
            number = self._ids.index(file_id)
            if outcome.delivered and not world.accepted[number] and number not in world.arrived:
                self._broken(f"file {number} is {outcome}, and Amili does not have it")

    def _broken(self, words: str) -> NoReturn:
        raise Broken(f"{words}:\n  " + "\n  ".join(self._path))


def _undecided(world: World) -> list[tuple[tuple[int, ...], float]]:
    return [*world.flying, *(actor.request for actor in world.actors if actor.request)]


def _left(world: World, actor: Playing) -> World:
    """Return the world in which an actor is gone, and its request is with Amili."""
    return world._replace(flying=tuple(sorted((*world.flying, actor.request)))) if actor.request else world


def _plus(counts: tuple[int, ...], numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(count + (number in numbers) for number, count in enumerate(counts))


def _answered(status: int, accepted: Sequence[str] = (), refused: Sequence[str] = ()) -> Answered:
    files = [{"fileId": i, "status": "PROCESSED", "result": "CREATED"} for i in accepted]
    files += [{"fileId": i, "status": "FAILED", "result": "REJECTED"} for i in refused]
    body: dict[str, Any] = {"status": "PROCESSED", "result": "CREATED", "files": files} if files else {"message": "no"}
    return Answered((status, accepted, refused), Response(status, {}, json.dumps(body).encode()), None)


_SETTLED = Answered("settled", None, None)
_AWAY = Answered("away", None, lambda: AmiliLedgerUnavailable("The store is away."))
_GONE = Answered("gone", None, lambda: _Gone("The store is away."))
_CUT = Answered("cut", None, lambda: AmiliConnectionError("The connection was cut. Nothing was accepted."))
_LOST = Answered("lost", None, lambda: AmiliOutcomeUnknown("Everything was sent, but no answer came."))
