"""
The delivery's dialogue with the ledger: may this file be sent, is it ours now, what became of it.

Also the place where unknown outcomes are asked for. Without a ledger every file may be sent, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from amili_provider.api.client import AmiliClient
from amili_provider.delivery.item import Item, Result, in_a_dry_run, joined, not_sent, not_sent_twice, unknown
from amili_provider.delivery.options import Options
from amili_provider.exceptions import (
    AmiliConnectionError,
    AmiliError,
    AmiliLedgerUnavailable,
)
from amili_provider.ledger import Attempt, Claim, ClaimFacts, ClaimLost, Disregard, History, Ledger, LedgerState
from amili_provider.ledger.attempts import file_id as identity_of
from amili_provider.ledger.attempts import same_name
from amili_provider.ledger.settling import ask_amili
from amili_provider.receipts import Outcome, Verdict, one_line
from amili_provider.report_lines import ASKED


class NotOurs(Exception):  # noqa: N818 - news about files that somebody else has
    """
    Files of a request that are not ours to send; nothing of the request was released.

    :param results: what becomes of each.
    """

    def __init__(self, results: Mapping[Item, Result]) -> None:
        super().__init__(f"{len(results)} file(s) are not ours to send")
        self.results = results


class LedgerSession:
    """
    What the run knows of the ledger. Safe to use from several threads, for different files.

    :param ledger: None to work without.
    :param options: how to deliver.
    :param client: to ask Amili for results.
    """

    def __init__(self, ledger: Ledger | None, options: Options, client: AmiliClient) -> None:
        self._ledger = ledger
        self._options = options
        self._client = client
        self._claims: dict[str, Claim] = {}
        self._set_aside = Disregard.NOTHING
        if options.if_unknown == "resend":
            self._set_aside = Disregard.UNKNOWN
        if options.force:
            self._set_aside = Disregard.EVERYTHING

    def has_size(self, size: int) -> bool:
        """
        Return whether the ledger can know a file of *size* bytes; if not, it is asked just before the file's tail.

        :raises AmiliLedgerUnavailable: if that cannot be told.
        """
        return self._ledger is not None and self._ledger.has_size(size)

    def look_up(self, group: Sequence[Item]) -> dict[Item, History]:
        """
        Ask the ledger about files that are identified, all at once.

        :returns: what it says, for :meth:`consult`; without a ledger, nothing.
        :raises AmiliLedgerUnavailable: if the ledger cannot be read.
        """
        if self._ledger is None or not group:
            return {}
        found = self._look_up_all([item.file_id for item in group])
        return {item: found[item.file_id] for item in group}

    def identify(self, item: Item, on_bytes: Callable[[int], None] | None = None) -> None:
        """
        Write down who *item* is; what of its content was not read yet is read for that.

        :param on_bytes: called with the length of each block read; what it raises ends the reading.
        :raises AmiliStorageError: if it cannot be read.
        """
        assert item.content is not None
        item.receipt.sha256 = item.content.hash_now(on_bytes)
        item.receipt.file_id = self._id_of(item)

    def _id_of(self, item: Item, *, with_name: bool = False) -> str:
        assert item.receipt.sha256 is not None
        return identity_of(
            environment=self._options.environment,
            client_no=self._options.client_no,
            file_type=self._options.file_type,
            sha256=item.receipt.sha256,
            name=item.receipt.name if with_name else None,
        )

    def consult(self, item: Item, looked_up: History | None = None) -> Result | None:
        """
        Return what the ledger makes of *item*, which is identified, or None if it may be sent.

        Whether its name is part of its identity is known, and written down, only then.

        :param looked_up: what :meth:`look_up` has just said of it; default: it is looked up now.
        :raises AmiliLedgerUnavailable: if the ledger cannot be read.
        """
        if self._ledger is None:
            if item.alone:  # another file of this run was accepted
                item.receipt.file_id = self._id_of(item, with_name=True)
            return None
        result = self._consult(item, looked_up)
        if result is None or result.outcome.delivered or not self._options.dry_run:
            return result
        return in_a_dry_run(result)

    def _consult(self, item: Item, looked_up: History | None = None) -> Result | None:
        item.receipt.file_id = by_content = item.file_id if looked_up else self._id_of(item)
        history = of_content = looked_up or self._look_up(item)
        elsewhere = of_content.accepted_elsewhere(item.receipt.name)
        if elsewhere is not None:
            item.receipt.file_id = self._id_of(item, with_name=True)
            history = self._look_up(item)
        if history.state in (LedgerState.UPLOADED, LedgerState.IN_FLIGHT):
            return _result_of(history, item)
        asks = history.unknown and self._options.if_unknown in ("check", "resend") and not self._options.force
        if asks and not self._options.dry_run:
            answer = self._ask(item, history)
            if answer is not None and answer.outcome.delivered and not _is_about(history, item):
                # It was the file of another name that arrived.
                return self._consult(item)
            if answer is not None:
                return answer
        if history.state is not LedgerState.FREE:
            return _result_of(history, item)
        if elsewhere is not None:
            result = self._accepted_elsewhere(item, of_content, history)
            if result is not None:
                item.receipt.file_id = by_content
                return result
        item.history = history
        return None

    def _accepted_elsewhere(self, item: Item, of_content: History, of_name: History) -> Result | None:
        """Return what becomes of *item*, whose bytes Amili accepted under another name, or None if it may be sent."""
        first = of_content.deciding
        assert first is not None
        lost = [a for s in (of_content, of_name) for a in s.attempts if a.attempt in s.unknown and _is_of(a, item)]
        sends = self._options.if_duplicate == "send"
        if lost and not (sends and self._set_aside is not Disregard.NOTHING):
            # Then the same bytes were sent under another name all the same, as somebody wished.
            return unknown(
                "Sent before under this name, outcome unknown; if_unknown='resend' with if_duplicate='send' sends it "
                f"again. {lost[-1].in_short()}; Amili accepted the same bytes as {first.name}"
            )
        if sends:
            return None
        run = f"DAG {first.dag_id}, run {first.run_id}" if first.dag_id else "by no run of Airflow"
        return not_sent_twice(first, self._options, run=run)

    def _look_up(self, item: Item) -> History:
        return self._look_up_all([item.file_id])[item.file_id]

    def _look_up_all(self, file_ids: Sequence[str]) -> dict[str, History]:
        assert self._ledger is not None
        return self._ledger.look_up(file_ids, chain=self._options.run.chain, disregard=self._set_aside)

    # Unknown outcomes

    def _ask(self, item: Item, history: History) -> Result | None:
        """Ask Amili for the result of *item*; return what is to become of it, or None if Amili does not know it."""
        try:
            told = ask_amili(self._client, self._options.client_no, history)
        except AmiliConnectionError as error:
            return self._still_unknown(history, f"Amili could not be asked: {error}")
        except AmiliError as error:
            return self._still_unknown(history, str(error))
        if told.verdict is not None:
            return self._resolve(item, history, told.verdict)
        if told.not_found and self._resends(history):
            return None
        return self._still_unknown(history, told.why)

    def _resends(self, history: History) -> bool:
        """Whether the user asked to send this file again; what this chain of attempts sent is not sent once more."""
        return self._options.if_unknown == "resend" and history.state is LedgerState.FREE

    def _resolve(self, item: Item, history: History, verdict: Verdict) -> Result:
        assert self._ledger is not None
        try:
            facts = self._facts(item, "result asked")
            if (sent := history.last_unknown) is not None:
                facts = replace(facts, name=sent.name, source=sent.source)
            receipt = self._ledger.resolve(history, verdict, facts)
        except ClaimLost:
            return self._lost(item)
        said = f": {verdict.message}" if verdict.message else ""
        note = one_line(f"Amili's result endpoint knows the file{said}")
        outcome = Outcome.ALREADY_UPLOADED if verdict.outcome is Outcome.UPLOADED else verdict.outcome
        return Result(
            Verdict(outcome, verdict.status, verdict.result, note, per_file=True),
            refused_itself=outcome is Outcome.REJECTED,
            at=receipt.uploaded_at,
        )

    def _still_unknown(self, history: History, why: str) -> Result:
        known = "; ".join(a.in_short() for a in history.attempts if a.attempt in history.unknown)
        # The newest first: what is long is cut at its end.
        return unknown(f"Sent before, outcome unknown. {ASKED}{one_line(why, 140)}; before: {known}")

    # Claims

    def claim(self, group: Sequence[Item], request: str) -> None:
        """
        Write the claims of a request whose tail is about to be released.

        :param group: its files.
        :param request: its name in the log.
        :raises NotOurs: if somebody else has one of them. The others stay claimed, for the request without it.
        :raises AmiliLedgerUnavailable: if a claim cannot be written; nothing is claimed then.
        """
        if self._ledger is None:
            return
        kept = [item for item in group if item.file_id in self._claims]
        try:
            self.check_margin(kept)
        except AmiliLedgerUnavailable:
            # Claimed for an earlier request, whose files without the lost one took long to send: claim anew.
            self.release(kept)
        wanted = []
        for item in group:
            if item.file_id not in self._claims:
                assert item.history is not None  # whatever is sent was looked up
                wanted.append((item.history, self._facts(item, request)))
        try:
            claims = self._ledger.claim(wanted)
        except ClaimLost as lost:
            self._claims.update((claim.file_id, claim) for claim in lost.claims)
            raise NotOurs({item: self._lost(item) for item in group if item.file_id in lost.histories}) from None
        self._claims.update((claim.file_id, claim) for claim in claims)

    def check_margin(self, group: Sequence[Item]) -> None:
        """
        Check that the claims of *group* still leave time for an answer; costs nothing.

        :raises AmiliLedgerUnavailable: if not.
        """
        if self._ledger is not None:
            self._ledger.check_margin(self._claims[item.file_id] for item in group)

    def release(self, group: Sequence[Item], why: str = "") -> None:
        """
        Give back the claims of files of which nothing was accepted; those never claimed are passed over.

        :param why: what was answered, if it was.
        :raises AmiliLedgerUnavailable: if that cannot be written.
        """
        mine = [item for item in group if item.receipt.file_id in self._claims]
        if self._ledger is None or not mine:
            return
        verdict = Verdict(Outcome.NOT_SENT, message=joined("Nothing of the request was accepted.", why))
        self._ledger.settle([(self._claims.pop(item.file_id), verdict) for item in mine])
        found = self._look_up_all([item.file_id for item in mine])
        for item in mine:
            item.history = found[item.file_id]

    def settle(self, group: Sequence[Item], results: Mapping[Item, Result]) -> dict[Item, Result]:
        """
        Write what became of the files of *group*; those never claimed are passed over.

        :returns: the results of files that another run may have sent, since this worker stood still for too long.
        :raises AmiliLedgerUnavailable: if that cannot be written; the claims then become unknown outcomes.
        """
        if self._ledger is None:
            return {}
        outcomes = [
            (self._claims.pop(item.file_id), results[item].verdict)
            for item in group
            if item.receipt.file_id in self._claims
        ]
        self._ledger.settle(outcomes)
        later = self._ledger.overtaken([claim for claim, _ in outcomes])
        return {
            item: unknown(
                "Amili may have it twice, ask Amili: this worker stood still until its claim had ended, and another "
                f"run may have sent the file meanwhile. {results[item].verdict.outcome} here; there: "
                f"{later[item.file_id]}"
            )
            for item in group
            if item.receipt.file_id in later and results[item].outcome in (Outcome.UPLOADED, Outcome.UNKNOWN)
        }

    def _lost(self, item: Item) -> Result:
        history = self._look_up(item)
        if history.state is LedgerState.FREE:
            return not_sent("Another run tried to send the same bytes at the same time.", transient=True)
        if history.state is not LedgerState.UPLOADED or history.accepted_elsewhere(item.receipt.name) is None:
            return _result_of(history, item)
        return self._accepted_elsewhere(item, history, history) or not_sent(
            "Another run sent the same bytes under another name at the same time.", transient=True
        )

    def _facts(self, item: Item, request: str) -> ClaimFacts:
        receipt = item.receipt
        assert receipt.sha256 is not None
        return ClaimFacts(
            file_type=self._options.file_type,
            name=receipt.name,
            source=receipt.source,
            size=item.file.size,
            sha256=receipt.sha256,
            run=self._options.run,
            request=request,
        )


def _is_of(attempt: Attempt, item: Item) -> bool:
    """Return whether an attempt was made under the name of *item*; one that cannot be read may have been."""
    return same_name(attempt.name, item.receipt.name)


def _is_about(history: History, item: Item) -> bool:
    """Return whether what is unknown was sent under the name of *item*."""
    sent = history.last_unknown
    return sent is None or _is_of(sent, item)


def _result_of(history: History, item: Item) -> Result:
    """Return what becomes of a file that is not ours to send."""
    first = history.deciding
    if history.state is LedgerState.UPLOADED:
        assert first is not None
        message = one_line(f"Accepted before as {first.name}: {first.in_short()}, from {first.source}")
        verdict = Verdict(Outcome.ALREADY_UPLOADED, first.status, first.result, message)
        return Result(verdict, at=first.uploaded_at)
    name = "" if first is None or _is_of(first, item) else f" as {first.name}"
    if history.state is LedgerState.IN_FLIGHT:
        return not_sent(f"In flight elsewhere{name}: {history.describe()}", transient=True)
    return unknown(f"Sent before{name}, outcome unknown: {history.in_short()}")
