"""
The ledger: what was accepted before, and who is sending now.

One attempt is one file, ``<environment>/<client_no>/<xx>/<file_id>.<n>.json``, created exclusively and
rewritten by its owner only; nothing is ever deleted. An outcome that somebody else finds out later (a check,
a person) is an attempt of its own that resolves the earlier ones, so that an owner who wakes up late and
somebody who settles cannot overwrite each other. ::

    ledger = Ledger.open(url, conn_id, environment=…, client_no=…, answer_timeout=…)     # main thread; probes
    ledger.file_id(file_type, sha256, name=None) -> str
    ledger.first_of_size(size) -> bool                                                   # any thread
    ledger.look_up(file_id, *, name=None, chain=None, set_aside=…) -> Standing           # any thread
    ledger.look_up_all(file_ids, *, chain=None, set_aside=…) -> Iterator[Standing]       # in order, parallel
    ledger.claim(standing, facts) -> Claim                              # ClaimLost, AmiliLedgerUnavailable
    ledger.claim_all([(standing, facts), …]) -> list[Claim]             # else ClaimLost.standings and .claims
    ledger.check_margin(claims) -> None                                 # just before the tail; no I/O
    ledger.settle(claim, verdict) -> LedgerReceipt                      # a models.Verdict; SettlingFailed
    ledger.settle_all([(claim, verdict), …]) -> list[LedgerReceipt]     # in order
    ledger.resolve(standing, verdict, facts, *, origin, settled_by, reason) -> LedgerReceipt     # ClaimLost
    ledger.close()                                                      # or use it as a context manager

The order that keeps a file from being sent twice: look up, claim, check the margin, release the tail, read
the answer, settle. All but the tail may be sent at any time before. A claim whose tail was not released, or
of which Amili took provably nothing, is settled as ``not_sent``; the next try begins with a look-up, and is
an attempt of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import identity
from amili_provider.ledger.attempts import Attempts
from amili_provider.ledger.claims import (
    SETTLE_WITHIN_SECONDS,
    WRITING_SECONDS,
    Claim,
    ClaimFacts,
    ClaimLost,
    SettlingFailed,
)
from amili_provider.ledger.drafts import Drafts
from amili_provider.ledger.folders import Folder
from amili_provider.ledger.places import open_folder
from amili_provider.ledger.records import LedgerReceipt, Origin
from amili_provider.ledger.sizes import first_of_size
from amili_provider.ledger.standing import Attempt, SetAside, Standing, State, judge
from amili_provider.models import Outcome, Verdict

_LONGEST_PAUSE_SECONDS = 8.0


class Ledger:
    """
    The ledger of one client in one environment. Safe to use from several threads.

    :param folder: where it lies; probed.
    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number.
    :param answer_timeout: how long an answer may take; a claim lives so long and 60 seconds more.
    :param clock: seconds since the epoch.
    :param sleep: how to wait.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        environment: str,
        client_no: str,
        answer_timeout: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self.environment = environment
        self.client_no = client_no
        self.answer_timeout = answer_timeout
        self._clock = clock
        self._sleep = sleep
        self._attempts = Attempts(folder, identity.folder_of(environment, client_no), sleep=sleep)
        self._drafts = Drafts(environment, client_no, answer_timeout=answer_timeout, clock=clock)

    @classmethod
    def open(
        cls,
        url: str,
        conn_id: str | None,
        *,
        environment: str,
        client_no: str,
        answer_timeout: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """
        Open a ledger and prove that it works. Looks up connections: call it from the task's main thread.

        :param url: folder on any storage.
        :param conn_id: connection of that storage, if it needs one.
        :param environment: ``production``, ``staging``, or host, port and base path.
        :param client_no: Amili's client number.
        :param answer_timeout: how long an answer may take.
        :param clock: seconds since the epoch.
        :param sleep: how to wait.
        :raises AmiliLedgerUnavailable: if it cannot be read and written.
        """
        return cls(
            open_folder(url, conn_id, sleep=sleep),
            environment=environment,
            client_no=client_no,
            answer_timeout=answer_timeout,
            clock=clock,
            sleep=sleep,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Ledger {self.folder.url} of client {self.client_no} in {self.environment}>"

    def close(self) -> None:
        """End the threads and give back connections."""
        self._attempts.close()

    def file_id(self, file_type: str, sha256: str, name: str | None = None) -> str:
        """Return the identity of a file of this client in this environment; see :mod:`~.identity` for its *name*."""
        return identity.file_id(
            environment=self.environment, client_no=self.client_no, file_type=file_type, sha256=sha256, name=name
        )

    def receipt_url(self, file_id: str, attempt: int) -> str:
        """Return where a person finds a receipt."""
        return f"{self.folder.url.rstrip('/')}/{self._attempts.name(file_id, attempt)}"

    def first_of_size(self, size: int) -> bool:
        """
        Return whether no file of *size* bytes was met before, so that a look-up can wait; it is met now.

        Always no for small files. It saves a reading and decides nothing, see :mod:`amili_provider.ledger.sizes`.

        :raises AmiliLedgerUnavailable: if that cannot be told.
        """
        return first_of_size(self.folder, identity.folder_of(self.environment, self.client_no), size)

    def look_up(
        self,
        file_id: str,
        *,
        name: str | None = None,
        chain: str | None = None,
        set_aside: SetAside = SetAside.NOTHING,
    ) -> Standing:
        """
        Return what the ledger says of a file. Reads its attempts by name, so history costs nothing.

        :param file_id: who the file is.
        :param name: as given to Amili; default: any.
        :param chain: this run's chain of attempts.
        :param set_aside: which attempts of other chains do not count.
        :raises AmiliLedgerUnavailable: if that cannot be told.
        """
        attempts: list[Attempt] = []
        while (attempt := self._attempts.read(file_id, len(attempts) + 1)) is not None:
            attempts.append(attempt)
            if (
                isinstance(attempt, LedgerReceipt)
                and attempt.outcome is Outcome.UPLOADED
                and set_aside is not SetAside.EVERYTHING
                and (name is None or identity.same_name(attempt.name, name))
            ):
                break
        return judge(file_id, attempts, now=self._clock(), chain=chain, set_aside=set_aside)

    def look_up_all(
        self, file_ids: Iterable[str], *, chain: str | None = None, set_aside: SetAside = SetAside.NOTHING
    ) -> Iterator[Standing]:
        """Yield what the ledger says of each of *file_ids*, in their order; see :meth:`look_up`."""
        return self._attempts.workers.in_order(
            lambda file_id: self.look_up(file_id, chain=chain, set_aside=set_aside), file_ids
        )

    def claim(self, standing: Standing, facts: ClaimFacts) -> Claim:
        """
        Claim the next attempt at a file; see :meth:`claim_all`.

        :param standing: what :meth:`look_up` said: free.
        :param facts: what the claim says.
        """
        return self.claim_all([(standing, facts)])[0]

    def claim_all(self, wanted: Sequence[tuple[Standing, ClaimFacts]]) -> list[Claim]:
        """
        Claim the next attempt at each file of a request.

        Only after this may the request's tail be released, and only if :meth:`check_margin` still agrees
        then.

        :param wanted: for each file what :meth:`look_up` said (it must be free) and what the claim says.
        :raises ClaimLost: if somebody else has one of them; it holds the claims of the others.
        :raises AmiliLedgerUnavailable: if a claim could not be written, or not in time; then nothing is claimed.
        """
        now = self._clock()
        lost = {s.file_id: s for s, _ in wanted if s.state is not State.FREE}
        if lost:
            raise ClaimLost(lost)
        # Where every claim takes its time, a request of many files needs more: its claims live as much
        # longer.
        extra = self.folder.seconds_per_file * (len(wanted) - 1)
        claims = [
            Claim(self._drafts.claimed(standing, facts, now, extra), now + WRITING_SECONDS + extra)
            for standing, facts in wanted
        ]
        self._write_claims(claims)
        return claims

    def check_margin(self, claims: Iterable[Claim]) -> None:
        """
        Check that enough time is left on *claims* to release the tail now. Costs nothing.

        :raises AmiliLedgerUnavailable: if not; settle them as ``not_sent``.
        """
        late = self._clock() - min((claim.release_by for claim in claims), default=math.inf)
        if late > 0:
            raise AmiliLedgerUnavailable(
                f"Claiming files in the ledger {self.folder.url} took {late:.0f} seconds longer than is safe: "
                f"another run could take the claims for dead. Nothing of their request was accepted. The "
                f"ledger's storage is too slow, or this worker was held up. Smaller requests need less time."
            )

    def settle(self, claim: Claim, verdict: Verdict) -> LedgerReceipt:
        """
        Write the outcome of an attempt; see :meth:`settle_all`.

        :param claim: an attempt that is ours.
        :param verdict: what became of it.
        """
        return self.settle_all([(claim, verdict)])[0]

    def settle_all(self, outcomes: Sequence[tuple[Claim, Verdict]]) -> list[LedgerReceipt]:
        """
        Write the outcomes of attempts, trying for a bounded time.

        :param outcomes: claims and what became of them.
        :raises SettlingFailed: if some could not be written: nothing more may be sent.
        """
        deadline = self._clock() + SETTLE_WITHIN_SECONDS
        receipts = [self._drafts.settled(claim.receipt, verdict) for claim, verdict in outcomes]
        pending = list(range(len(outcomes)))
        pause = 0.5
        while True:
            errors = self._attempts.rewrite_all([receipts[i] for i in pending])
            pending = [i for i, error in zip(pending, errors, strict=True) if error is not None]
            if not pending:
                return receipts
            if self._clock() + pause > deadline:
                first = next(e for e in errors if e is not None)
                raise SettlingFailed(
                    f"The outcome of {len(pending)} files could not be written to the ledger within "
                    f"{SETTLE_WITHIN_SECONDS:.0f} seconds, so nothing more is sent: {first}",
                    claims=[outcomes[i][0] for i in pending],
                ) from first
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def resolve(
        self,
        standing: Standing,
        verdict: Verdict,
        facts: ClaimFacts,
        *,
        origin: Origin = Origin.CHECK,
        settled_by: str | None = None,
        reason: str | None = None,
        uploaded_at: str | None = None,
    ) -> LedgerReceipt:
        """
        Write down what became of attempts whose outcome was unknown, as an attempt of its own.

        :param standing: what :meth:`look_up` said; its unknown attempts are settled.
        :param verdict: uploaded, or rejected or not_sent, which free the file.
        :param facts: what is known of the file, and which run found out.
        :param origin: how it was found out.
        :param settled_by: who found out, if it was a person.
        :param reason: why, in that person's words.
        :param uploaded_at: when Amili accepted it; default: now.
        :raises ClaimLost: if somebody else was faster, or is sending the file.
        :raises AmiliLedgerUnavailable: if it cannot be written.
        """
        if standing.state is State.IN_FLIGHT:
            raise ClaimLost({standing.file_id: standing})
        if verdict.outcome is Outcome.UNKNOWN:
            raise ValueError("an unknown outcome resolves nothing")
        now = self._clock()
        claimed = replace(
            self._drafts.claimed(standing, facts, now),
            origin=origin,
            settled_by=settled_by,
            reason=reason,
            resolves=standing.unknown,
        )
        receipt = self._drafts.settled(claimed, verdict)
        if uploaded_at is not None and receipt.uploaded_at is not None:
            receipt = replace(receipt, uploaded_at=uploaded_at)
        error = self._attempts.create_all([receipt])[0]
        if isinstance(error, FileExistsError):
            raise ClaimLost({standing.file_id: self.look_up(standing.file_id)})
        if error is not None:
            raise error
        return receipt

    def _write_claims(self, claims: Sequence[Claim]) -> None:
        receipts = [c.receipt for c in claims]
        try:
            errors = self._attempts.create_all(receipts)
        except BaseException:
            self._give_back(receipts)
            raise
        lost = [r.file_id for r, e in zip(receipts, errors, strict=True) if isinstance(e, FileExistsError)]
        failed = [e for e in errors if e is not None and not isinstance(e, FileExistsError)]
        if not failed and not lost:
            try:
                self.check_margin(claims)
            except AmiliLedgerUnavailable:
                self._give_back(receipts)
                raise
            return
        kept = [c for c in claims if c.file_id not in lost]
        if failed:
            # What failed may have been written all the same: an answer can be lost.
            self._give_back([c.receipt for c in kept])
            raise failed[0]
        try:
            standings = {file_id: self.look_up(file_id) for file_id in lost}
        except BaseException:
            self._give_back([c.receipt for c in kept])
            raise
        raise ClaimLost(standings, kept)

    def _give_back(self, receipts: Sequence[LedgerReceipt]) -> None:
        """Settle claims whose tail was never released. If that fails they are unknown when they expire."""
        verdict = Verdict(Outcome.NOT_SENT, message="given back before anything of it could be accepted")
        self._attempts.each(self._attempts.rewrite_if_ours, [self._drafts.settled(r, verdict) for r in receipts])
