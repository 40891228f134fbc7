"""
Sending one batch: post, judge, isolate, settle.

Runs in a sender's thread and touches nothing of Airflow. Every file of the batch leaves with one result.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from amili_provider import fault_points
from amili_provider.api.client import AmiliClient
from amili_provider.api.responses import RefusedBy, UploadReply
from amili_provider.api.upload import PartUnreadable, UploadBody, UploadPart
from amili_provider.delivery.item import Breaker, EarlyStop, Item, Post, Result, Sent, joined, not_sent, unknown
from amili_provider.delivery.ledger_session import LedgerSession, NotOurs
from amili_provider.delivery.options import Options
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliLedgerUnavailable,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliResponseError,
)
from amili_provider.ledger import SettlingFailed
from amili_provider.ledger.attempts import FILE_ID_CHARACTERS, timestamp
from amili_provider.receipts import Outcome, one_line

NOT_IDENTIFIED = "0" * FILE_ID_CHARACTERS
"""Stands for the id of a file that is hashed on its way, so that the request's length is known."""
_STOP = EarlyStop("The run was stopped before this file was sent.", transient=True)
_STOPPED = not_sent(_STOP.reason, transient=True)


class Stopped(Exception):  # noqa: N818 - the run ends; nothing went wrong with this request
    """
    Nothing more is to be sent; the tail of this request was not released.

    :param halt: why.
    """

    def __init__(self, halt: EarlyStop) -> None:
        super().__init__(halt.reason)
        self.halt = halt


class Sender:
    """
    Sends batches.

    :param options: how.
    :param client: to whom.
    :param session: where claims and outcomes are written.
    :param stop: set when the run is to end.
    :param log: the task's logger.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        options: Options,
        client: AmiliClient,
        session: LedgerSession,
        *,
        stop: threading.Event,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._client = client
        self._session = session
        self._stop = stop
        self._log = log
        self._clock = clock
        # By its id a request is settled later, so that no other run may have it, nor a shell take it for a comment.
        self._mark, self._numbers = secrets.token_hex(4), itertools.count(1)
        self._breaker = Breaker()

    def send(self, batch: Sequence[Item]) -> Sent:
        """Send *batch*, in as many requests as it takes, and return what became of each file."""
        sent = Sent()
        started = time.monotonic()
        waiting: list[list[Item]] = [list(batch)]
        while waiting:
            group = waiting.pop()
            sent.halt = sent.halt or self._halt
            if sent.halt is not None:
                # Of a request that lost some of its files to another task, the others are still claimed.
                self._close(group, not_sent(sent.halt.reason, transient=sent.halt.transient), sent)
                continue
            began = time.time()
            again = self._post(group, sent)
            waiting.extend(reversed(again))
            decided = Counter(sent.results[item].outcome for item in group if item in sent.results)
            size = sum(item.file.size for item in group)
            sent.posts.append(Post(sent.requests[-1], began, time.time(), len(group), size, decided))
        sent.halt = sent.halt or self._halt
        sent.seconds = time.monotonic() - started
        return sent

    def _post(self, group: list[Item], sent: Sent) -> list[list[Item]]:
        """Send one request; write results into *sent*; return the groups that are to be sent again."""
        label = f"{self._mark}-{next(self._numbers)}"
        _foretell(group, _STOPPED)
        body = self._body(group, label)
        sent.requests.append(label)
        for item in group:
            item.request = label
        sent.unreachable = False
        try:
            reply = self._client.post_files(self._options.client_no, body)
            fault_points.reached("answered")
        except PartUnreadable as news:
            self._let_go_of_claims(group, sent)
            unreadable = [item for item, part in zip(group, body.parts, strict=True) if part.file_id == news.file_id]
            return self._without(group, dict.fromkeys(unreadable, not_sent(news.cause)), sent)
        except NotOurs as news:
            return self._without(group, news.results, sent)
        except Stopped as news:
            sent.halt = sent.halt or news.halt
            self._close(group, not_sent(news.halt.reason, transient=True), sent)
        except AmiliConnectionError as error:
            self._close(group, not_sent(error), sent)
            sent.unreachable = True
            if error.retry_after is not None:
                sent.halt = EarlyStop(
                    f"Not tried: Amili asked for a pause. {error}", transient=True, retry_after=error.retry_after
                )
        except AmiliLedgerUnavailable as error:
            self._close(group, not_sent(error), sent)
            sent.halt = sent.halt or EarlyStop(f"Not tried: {error}", transient=True, error=error)
        except (AmiliAuthenticationError, AmiliRequestError, AmiliResponseError) as error:
            self._close(group, not_sent(error), sent)
            sent.halt = sent.halt or EarlyStop(f"Not tried: {error}", transient=False, error=error)
        except AmiliOutcomeUnknown as error:
            self._close(group, unknown(error), sent)
            self._breaker.note({Outcome.UNKNOWN})
        except Exception as error:  # noqa: BLE001 - see below
            # A bug, or an error that nothing foresaw: what it leaves behind is still told exactly.
            self._log.exception("Sending a request failed unexpectedly")
            reason = f"{type(error).__name__} while sending"
            self._close(group, unknown(reason) if body.released else not_sent(reason, transient=False), sent)
            sent.halt = sent.halt or EarlyStop(f"Not tried: {reason}", transient=False, error=error)
        else:
            return self._understand(group, reply, sent)
        return []

    def _body(self, group: list[Item], label: str) -> UploadBody:
        parts = []
        for item in group:
            assert item.content is not None
            file_id = item.receipt.file_id or NOT_IDENTIFIED
            parts.append(UploadPart(file_id, item.receipt.name, self._options.file_type, item.content))

        def before_tail() -> None:
            self._stop_if_due()
            self._identify(group, parts)
            self._session.claim(group, label)
            _foretell(group, unknown("The run ended while this file was being sent."))
            # Claiming takes a while; a claim whose tail is not released is given back by whoever catches this.
            self._stop_if_due()
            self._session.check_margin(group)

        def before_replay() -> None:
            self._session.release(group)
            _foretell(group, _STOPPED)

        return UploadBody(
            parts,
            user_id=self._options.user_id,
            before_tail=before_tail,
            before_replay=before_replay,
            on_bytes=lambda _: self._stop_if_due(),
        )

    def _identify(self, group: Sequence[Item], parts: Sequence[UploadPart]) -> None:
        """Look up what was hashed only now, on its way; raise :class:`NotOurs` if it may not be sent."""
        for item, part in zip(group, parts, strict=True):
            if part.file_id == NOT_IDENTIFIED:
                self._session.identify(item)
                result = self._session.consult(item)
                part.file_id = item.file_id
                if result is not None:
                    raise NotOurs({item: result})

    @property
    def _halt(self) -> EarlyStop | None:
        """Why nothing more is to be sent, if so."""
        return _STOP if self._stop.is_set() else self._breaker.halt

    def _stop_if_due(self) -> None:
        if (halt := self._halt) is not None:
            raise Stopped(halt)

    def _without(self, group: list[Item], results: Mapping[Item, Result], sent: Sent) -> list[list[Item]]:
        """Nothing of *group* was accepted: take out those with *results*, send the others again, claimed or not."""
        for item in results:
            item.request = None  # it went without them
        self._tell(results, sent)
        rest = [item for item in group if item not in results]
        return [rest] if rest else []

    def _let_go_of_claims(self, group: list[Item], sent: Sent, why: str = "") -> None:
        _foretell(group, _STOPPED)
        try:
            self._session.release(group, why)
        except AmiliLedgerUnavailable as error:
            sent.halt = sent.halt or EarlyStop(f"Not tried: {error}", transient=True, error=error)

    def _close(self, group: list[Item], result: Result, sent: Sent) -> None:
        """Settle all of *group* with one result."""
        self._settle(group, dict.fromkeys(group, result), sent)

    def _settle(self, group: list[Item], results: dict[Item, Result], sent: Sent) -> None:
        try:
            results |= self._session.settle(group, results)
        except SettlingFailed as error:
            # What is true is reported; but until a person has looked at the ledger, nothing more may be sent.
            unwritten = {claim.file_id for claim in error.claims}
            for item in group:
                if item.receipt.file_id in unwritten:
                    results[item] = _unwritten(results[item], error)
            sent.halt = EarlyStop(f"Not tried: {error}", transient=False, error=error)
        self._tell(results, sent)

    def _tell(self, results: Mapping[Item, Result], sent: Sent) -> None:
        """Write down what has become of files, also for a run that does not wait for this sender."""
        sent.results |= results
        for item, result in results.items():
            item.result = result

    def _understand(self, group: list[Item], reply: UploadReply, sent: Sent) -> list[list[Item]]:
        """Judge an answer that is about the files; return the groups that are to be sent again."""
        if not all(item.identified for item in group):
            # Refused before it was hashed. Its receipt is to say what was refused.
            result = self._identified_late(group, reply)
            if result is not None:
                self._close(group, result, sent)
                return []
        at = timestamp(self._clock())
        named = reply.verdicts([item.file_id for item in group], self._client.vocabulary)
        # Files of which Amili says the same share one result: what stays until the end is what Python's collector of
        # garbage goes through, with all of Airflow.
        said = {
            v: Result(v, refused_itself=v.outcome is Outcome.REJECTED and v.per_file, at=at) for v in {*named.values()}
        }
        results = {item: said[v] for item in group if (v := named.get(item.file_id)) is not None}
        rest = [item for item in group if item not in results]
        again = self._isolated(rest, reply, of=len(group))
        if not again:
            results |= dict.fromkeys(rest, self._refused(reply, at, alone=len(group) == 1))
        self._let_go_of_claims([item for part in again for item in part], sent, reply.words)
        self._settle([item for item in group if item in results], results, sent)
        by_gateway = reply.refused_by is RefusedBy.GATEWAY and len(group) == 1
        self._breaker.note({result.outcome for result in results.values()}, by_gateway=by_gateway)
        return again

    def _isolated(self, rest: list[Item], reply: UploadReply, *, of: int) -> list[list[Item]]:
        """Return the groups in which files that a refusal of *of* files does not name are sent again; perhaps none."""
        in_vain = reply.refused_by is RefusedBy.GATEWAY and self._breaker.gateway_bars_all
        if not rest or of == 1 or in_vain or not self._client.settings.isolate_refused:
            return []
        self._log.info("%s", joined(reply.words, f"Of its {of} files {len(rest)} are sent again, in parts."))
        if len(rest) < of:  # those that it names may have been the cause
            return [rest]
        middle = of // 2
        return [rest[:middle], rest[middle:]]

    def _refused(self, reply: UploadReply, at: str, *, alone: bool) -> Result:
        """
        Return what a refusal means for a file that it does not name.

        :param alone: whether the request held this one file only.
        """
        if not alone and not self._client.settings.isolate_refused:
            return unknown(f"{reply.words} (for a request of several files)")
        if reply.refused_by is RefusedBy.GATEWAY:
            note = "" if alone else " Nor did it let the files before this one through, each alone."
            return not_sent(reply.words + note, transient=False)
        return Result(reply.refusal, refused_itself=alone, at=at)

    def _identified_late(self, group: list[Item], reply: UploadReply) -> Result | None:
        """
        Read what was not read yet, to know who the files are.

        :returns: what becomes of them where that fails, or where the ledger knows one: a refusal changes nothing then.
        """
        try:
            for item in group:
                assert item.content is not None
                self._session.identify(item, lambda _: self._stop_if_due())
                item.content.check_unchanged()
                known = self._session.consult(item)
                if known is not None:
                    for one in group:
                        one.request = None  # what the ledger knows is of an earlier one
                    return known
        except Stopped as news:
            return not_sent(news.halt.reason, transient=True)
        except Exception as error:  # noqa: BLE001 - whatever a storage raises is these files' outcome
            return not_sent(
                f"{reply.words}; then it could not be read to its end: {error}", transient=not_sent(error).transient
            )
        return None


def _foretell(group: Sequence[Item], result: Result) -> None:
    """Write down what has become of *group* should the run end without waiting for this sender."""
    for item in group:
        item.result = result


def _unwritten(result: Result, error: SettlingFailed) -> Result:
    verdict = result.verdict
    note = f"The ledger could not be told, and will call it unknown: {error}"
    told = verdict._replace(message=one_line(joined(verdict.message, note)))
    return replace(result, verdict=told, unwritten=True)
