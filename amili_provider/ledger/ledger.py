"""
The ledger: what was accepted before, who is sending now, and how long a claim lives.

One attempt at one file is one entry of a store, created once by the task that claims it and settled once by its owner;
nothing is ever deleted. An outcome that is found out later (by a check, by a person) is an attempt of its own that
resolves the earlier ones, so that an owner who wakes up late and a person who settles cannot overwrite each other. ::

    ledger = Ledger(store, environment=…, client_no=…, answer_timeout=…)
    ledger.file_id(file_type, sha256, name=None) -> str
    ledger.has_size(size) -> bool
    ledger.look_up(file_ids, *, chain=None, set_aside=…) -> dict[str, History]
    ledger.claim([(history, facts), …]) -> list[Claim]             # ClaimLost, AmiliLedgerUnavailable
    ledger.check_margin(claims) -> None                            # just before the tail; no I/O
    ledger.settle([(claim, verdict), …]) -> list[Attempt]          # SettlingFailed
    ledger.resolve(history, verdict, facts, *, origin, settled_by, reason) -> Attempt     # ClaimLost

The order that keeps a file from being sent twice: look up, claim, check the margin, release the tail, read the answer,
settle. All but the tail may be sent at any time before. A claim whose tail was not released, or of which Amili took
provably nothing, is settled as ``not_sent``; the next try begins with a look-up, and is an attempt of its own.
"""

from __future__ import annotations

import math
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from amili_provider import fault_points
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import attempts
from amili_provider.ledger.attempts import Attempt, ClaimFacts, Origin
from amili_provider.ledger.state import Claim, ClaimLost, Disregard, History, LedgerState, SettlingFailed, history
from amili_provider.ledger.stores import Identity, LedgerStore
from amili_provider.receipts import Outcome, Verdict

CLAIM_SECONDS = 30.0
"""How long claiming may take, from its beginning to the release of the tail."""
SETTLE_SECONDS = 60.0
"""How long an outcome is tried to be written."""
CLOCKS_SECONDS = 30.0
"""How much clocks may differ: those of the workers where the store has none, else how they run meanwhile."""
MARGIN_SECONDS = CLAIM_SECONDS + SETTLE_SECONDS + CLOCKS_SECONDS
"""How much longer than an answer may take a claim lives: it outlives every bound of its owner."""
_LONGEST_PAUSE_SECONDS = 8.0


def boot_seconds() -> float:
    """Return seconds of a clock that is never set, and goes on while the machine sleeps where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Ledger:
    """
    The ledger of one client in one environment. Safe to use from several threads.

    :param store: where it is kept; open.
    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number.
    :param answer_timeout: seconds that an answer may take; a claim lives so long and :data:`MARGIN_SECONDS` more.
    :param who: which ledger it is, for the log.
    :param clock: seconds, of the process; not those of the store.
    :param sleep: how to wait.
    """

    def __init__(
        self,
        store: LedgerStore,
        *,
        environment: str,
        client_no: str,
        answer_timeout: float,
        who: Identity | None = None,
        clock: Callable[[], float] = boot_seconds,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.environment = environment
        self.client_no = client_no
        self.who = who
        self._lifetime = answer_timeout + MARGIN_SECONDS
        self._clock = clock
        self._sleep = sleep
        self._host = socket.gethostname()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Ledger {self.shown}>"

    @property
    def shown(self) -> str:
        """The ledger as messages name it, without secrets."""
        return f"{self.store.shown} of client {self.client_no} in {self.environment}"

    def close(self) -> None:
        """Close connections and end threads."""
        self.store.close()

    def file_id(self, file_type: str, sha256: str, name: str | None = None) -> str:
        """Return the identity of a file of this client in this environment; see :mod:`~.attempts` for its *name*."""
        return attempts.file_id(
            environment=self.environment, client_no=self.client_no, file_type=file_type, sha256=sha256, name=name
        )

    def has_size(self, size: int) -> bool:
        """
        Return whether any attempt at a file of *size* bytes was made.

        If none was, a large file can be hashed while it is sent. This saves reading it twice, and decides nothing: it
        is looked up, and claimed, before its request's tail.

        :raises AmiliLedgerUnavailable: if that cannot be told.
        """
        return self.store.has_size(self.environment, self.client_no, size)

    def look_up(
        self, file_ids: Sequence[str], *, chain: str | None = None, disregard: Disregard = Disregard.NOTHING
    ) -> dict[str, History]:
        """
        Return what the ledger says of files, by file id.

        :param file_ids: who they are.
        :param chain: this run's chain of attempts.
        :param disregard: which attempts of other chains do not count.
        :raises AmiliLedgerUnavailable: if that cannot be told.
        """
        found = self.store.look_up(self.environment, self.client_no, file_ids)
        fault_points.reached("looked up")
        return {
            file_id: history(file_id, found.attempts.get(file_id, ()), now=found.now, chain=chain, disregard=disregard)
            for file_id in file_ids
        }

    def claim(self, wanted: Sequence[tuple[History, ClaimFacts]]) -> list[Claim]:
        """
        Claim the next attempt at each file of a request.

        Only after this may the request's tail be released, and only if :meth:`check_margin` still agrees then.

        :param wanted: for each file what :meth:`look_up` said (it must be free) and what the claim says.
        :raises ClaimLost: if somebody else has one of them; it holds the claims of the others.
        :raises AmiliLedgerUnavailable: if the claims could not be written, or not in time.
        """
        lost = {h.file_id: h for h, _ in wanted if h.state is not LedgerState.FREE}
        if lost:
            raise ClaimLost(lost)
        if not wanted:
            return []
        began = self._clock()
        owner = secrets.token_hex(16)
        attempts = [self._attempt(known, facts, owner) for known, facts in wanted]
        fault_points.reached("before claim")
        taken = self.store.claim(attempts, self._lifetime)
        fault_points.reached("claimed")
        release_by, ends_at = began + CLAIM_SECONDS, began + self._lifetime - CLOCKS_SECONDS
        claims = [Claim(attempt, release_by, ends_at) for attempt in attempts if attempt.file_id not in taken]
        try:
            arrived = self._arrived_meanwhile([h for h, _ in wanted if h.file_id not in taken])
            self.check_margin(claims)
            if taken or arrived:
                self._give_back([claim for claim in claims if claim.file_id in arrived])
                claims = [claim for claim in claims if claim.file_id not in arrived]
                raise ClaimLost(self.look_up(sorted({*taken, *arrived})), claims)
        except AmiliLedgerUnavailable:
            self._give_back(claims)
            raise
        return claims

    def _arrived_meanwhile(self, histories: Sequence[History]) -> set[str]:
        """
        Return the files of unknown outcome that turn out, now that they are claimed, to have been accepted.

        Whoever sent them stood still, and settled after they were looked up. If it settles only from now on, it sees
        our claim: see :meth:`overtaken`. Asks nothing of the ledger if no outcome was unknown.
        """
        before = {h.file_id: h.times_accepted for h in histories if not all(a.has_end for a in h.attempts)}
        known = self.look_up(list(before)) if before else {}
        return {file_id for file_id, h in known.items() if h.times_accepted > before[file_id]}

    def check_margin(self, claims: Iterable[Claim]) -> None:
        """
        Check that enough time is left on *claims* to release the tail now. Costs nothing.

        :raises AmiliLedgerUnavailable: if not; settle them as ``not_sent``.
        """
        late = self._clock() - min((claim.release_by for claim in claims), default=math.inf)
        if late > 0:
            raise AmiliLedgerUnavailable(
                f"Claiming files in the ledger {self.store.shown} took {late:.0f} seconds longer than is safe: another "
                f"run could take the claims for dead. Nothing of their request was accepted. The ledger is too slow, "
                f"or this worker was held up. Smaller requests need less time."
            )

    def settle(self, outcomes: Sequence[tuple[Claim, Verdict]]) -> list[Attempt]:
        """
        Write the outcomes of attempts, trying for a bounded time.

        :param outcomes: claims and what became of them.
        :raises SettlingFailed: if they could not be written: nothing more may be sent.
        """
        deadline = self._clock() + SETTLE_SECONDS
        attempts = [claim.attempt for claim, _ in outcomes]
        for claim, verdict in outcomes:
            claim.attempt.settle(verdict)
        fault_points.reached("before settle")
        pause = 0.5
        while attempts:
            try:
                self.store.settle(attempts)
            except AmiliLedgerUnavailable as error:
                if self._clock() + pause > deadline:
                    raise SettlingFailed(
                        f"The outcome of {len(attempts)} file(s) could not be written to the ledger within "
                        f"{SETTLE_SECONDS:.0f} seconds, so nothing more is sent: {error}",
                        claims=[claim for claim, _ in outcomes],
                    ) from error
                self._sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                break
        fault_points.reached("settled")
        return attempts

    def overtaken(self, claims: Sequence[Claim]) -> dict[str, str]:
        """
        Return what others did meanwhile with files whose claims had ended before they were settled, by file id.

        A worker that stands still between the last check of its margin and the tail cannot know that its claim ends
        meanwhile. Asks nothing of the ledger if no claim has ended; if it cannot be asked, that is said of each file.

        :param claims: that were settled.
        """
        ended = {claim.file_id: claim.attempt for claim in claims if claim.ends_at <= self._clock()}
        later: dict[str, str] = {}
        try:
            known = self.look_up(list(ended)) if ended else {}
        except AmiliLedgerUnavailable as error:
            return dict.fromkeys(ended, str(error))
        for file_id, mine in ended.items():
            for attempt in known[file_id].attempts:
                taken = (
                    attempt.outcome not in (Outcome.NOT_SENT, Outcome.REJECTED) and attempt.origin is Origin.DELIVERY
                )
                if attempt.attempt > mine.attempt and taken:
                    later[file_id] = attempt.in_short()
        return later

    def resolve(
        self,
        known: History,
        verdict: Verdict,
        facts: ClaimFacts,
        *,
        origin: Origin = Origin.CHECK,
        settled_by: str | None = None,
        reason: str | None = None,
        uploaded_at: str | None = None,
    ) -> Attempt:
        """
        Write down what became of attempts whose outcome was unknown, as an attempt of its own; see :meth:`resolve_all`.

        :param known: what :meth:`look_up` said; its unknown attempts are settled.
        :param verdict: uploaded, or rejected or not_sent, which free the file.
        :param facts: what is known of the file, and which run found out.
        :param origin: how it was found out.
        :param settled_by: who found out, if it was a person.
        :param reason: why, in that person's words.
        :param uploaded_at: when Amili accepted it; default: when it was last sent without an answer, else now.
        """
        return self.resolve_all(
            [(known, verdict, facts, uploaded_at)], origin=origin, settled_by=settled_by, reason=reason
        )[0]

    def resolve_all(
        self,
        found_out: Sequence[tuple[History, Verdict, ClaimFacts, str | None]],
        *,
        origin: Origin,
        settled_by: str | None = None,
        reason: str | None = None,
    ) -> list[Attempt]:
        """
        Write down what became of several files at once.

        :raises ClaimLost: if somebody else was faster, or is sending one of them; it names them, and what it claims of
            the others is written.
        :raises AmiliLedgerUnavailable: if it cannot be written.
        """
        busy = {known.file_id: known for known, *_ in found_out if known.state is LedgerState.IN_FLIGHT}
        if busy:
            raise ClaimLost(busy)
        owner = secrets.token_hex(16)
        attempts = []
        for known, verdict, facts, uploaded_at in found_out:
            if verdict.outcome is Outcome.UNKNOWN:
                raise ValueError("an unknown outcome resolves nothing")
            attempt = self._attempt(known, facts, owner)
            attempt.settle(verdict)
            attempt.origin, attempt.settled_by, attempt.reason = origin, settled_by, reason
            attempt.resolves = known.unknown
            if verdict.outcome is Outcome.UPLOADED:
                # It arrived when it was sent, whenever that is found out.
                attempt.uploaded_at = uploaded_at or (known.told.claimed_at if known.unknown else None) or None
            attempts.append(attempt)
        fault_points.reached("before resolve")
        taken = self.store.claim(attempts, 0.0)
        fault_points.reached("resolved")
        if taken:
            raise ClaimLost(self.look_up(sorted(taken)))
        return attempts

    def _attempt(self, known: History, facts: ClaimFacts, owner: str) -> Attempt:
        run = facts.run
        return Attempt(
            environment=self.environment,
            client_no=self.client_no,
            file_id=known.file_id,
            attempt=known.next_attempt,
            owner=owner,
            chain=run.chain,
            file_type=facts.file_type,
            name=facts.name,
            source=facts.source,
            size=facts.size,
            sha256=facts.sha256,
            dag_id=run.dag_id,
            run_id=run.run_id,
            task_id=run.task_id,
            map_index=run.map_index,
            try_number=run.try_number,
            host=self._host,
            request=facts.request,
        )

    def _give_back(self, claims: Sequence[Claim]) -> None:
        """Settle claims whose tail was never released. If that fails they are unknown when they expire."""
        for claim in claims:
            claim.attempt.settle(Verdict(Outcome.NOT_SENT, message="Given back before anything of it was accepted."))
        try:
            self.store.settle([claim.attempt for claim in claims])
        except AmiliLedgerUnavailable:
            return
