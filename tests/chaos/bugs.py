"""
Bugs to plant: what an honest mistake in the product would look like, and the seeds that must notice it.

Each is a few lines around the product's own methods, in the worker process only. A suite that does not catch one of
them would not catch the mistake either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.chaos.saboteur import wrap


@dataclass(frozen=True)
class Bug:
    """
    A planted bug.

    :param plant: what it does to the product.
    :param caught_by: scenarios of :data:`tests.chaos.directed.DIRECTED`, each of which must catch it.
    """

    plant: Callable[[], None]
    caught_by: tuple[str, ...]


def plant(name: str) -> None:
    """Plant the bug *name* in this process."""
    BUGS[name].plant()


def _no_claim() -> None:
    """Nothing is written down before the tail is released."""
    from amili_provider.delivery.ledger_session import LedgerSession

    wrap(LedgerSession, "claim", lambda *_: None)
    wrap(LedgerSession, "check_margin", lambda *_: None)


def _claim_after_the_tail() -> None:
    """The claim is written when the whole request is out."""
    from amili_provider.api.upload import UploadBody

    def around(original: Callable[..., Iterator[bytes]], body: Any) -> Iterator[bytes]:
        claim, body.before_tail = body.before_tail, None
        yield from original(body)
        claim()
        body.before_tail = claim

    wrap(UploadBody, "__iter__", around)


def _settle_before_the_answer() -> None:
    """Files are written down as uploaded when they are claimed."""
    from amili_provider.delivery.ledger_session import LedgerSession
    from amili_provider.receipts import Outcome, Verdict

    def claim(original: Callable[..., None], books: Any, group: Any, request: str) -> None:
        original(books, group, request)
        verdict = Verdict(Outcome.UPLOADED, "PROCESSED", "CREATED")
        books._ledger.settle([(books._claims[item.file_id], verdict) for item in group])

    wrap(LedgerSession, "claim", claim)
    wrap(LedgerSession, "settle", lambda *_: {})


def _resend_on_read_timeout() -> None:
    """A request whose answer does not come is sent once more."""
    from amili_provider.api.client import AmiliClient
    from amili_provider.exceptions import AmiliOutcomeUnknown

    def post(original: Callable[..., Any], client: Any, client_no: str, body: Any) -> Any:
        try:
            return original(client, client_no, body)
        except AmiliOutcomeUnknown:
            return original(client, client_no, body)

    wrap(AmiliClient, "post_files", post)


def _lost_answer_is_not_sent() -> None:
    """A request whose answer does not come counts as not sent."""
    from amili_provider.delivery import sender
    from amili_provider.delivery.item import not_sent

    wrap(sender, "unknown", lambda _, reason: not_sent(str(reason), transient=True))


def _expired_claims_are_free() -> None:
    """A claim without a verdict is forgotten when it expires."""
    from dataclasses import replace

    from amili_provider.ledger import ledger
    from amili_provider.ledger.attempts import AttemptState

    def history(original: Callable[..., Any], file_id: str, attempts: Any, *, now: float, **more: Any) -> Any:
        kept = [a for a in attempts if a.state is not AttemptState.CLAIMED or a.is_live(now)]
        return replace(original(file_id, kept, now=now, **more), attempts=tuple(attempts), unknown=())

    wrap(ledger, "history", history)


def _claims_never_expire() -> None:
    """The claim of a worker that was killed stays in the way for ever."""
    from amili_provider.ledger.attempts import Attempt, AttemptState

    wrap(Attempt, "is_live", lambda _, attempt, now: attempt.state is AttemptState.CLAIMED)


def _live_claims_are_free() -> None:
    """Another task's claim is no reason to wait."""
    from amili_provider.ledger.attempts import Attempt

    _expired_claims_are_free()
    wrap(Attempt, "is_live", lambda *_: False)


def _no_environment_in_the_key() -> None:
    """What was delivered to one environment counts as delivered to all."""
    from amili_provider.delivery import ledger_session
    from amili_provider.ledger import Ledger

    def identify(original: Callable[..., str], *, environment: str, **more: str) -> str:
        assert environment
        return original(environment="", **more)

    wrap(ledger_session, "identity_of", identify)

    def anywhere(original: Callable[..., None], *args: Any, **more: Any) -> None:
        original(*args, **{**more, "environment": "anywhere"})

    wrap(Ledger, "__init__", anywhere)


def _any_2xx_is_accepted() -> None:
    """The code decides, and nobody reads what it says of each file."""
    from amili_provider.api.responses import UploadReply
    from amili_provider.receipts import Outcome, Verdict

    def verdicts(original: Callable[..., Any], reply: Any, file_ids: Any, vocabulary: Any) -> Any:
        if 200 <= reply.status_code < 300:
            return {file_id: Verdict(Outcome.UPLOADED, per_file=True) for file_id in file_ids}
        return original(reply, file_ids, vocabulary)

    wrap(UploadReply, "verdicts", verdicts)


def _judge_first(decide: Callable[[int, bool], Exception | None]) -> None:
    """Let *decide* end an upload by its status, and by whether it says when to come back, before it is judged."""
    from amili_provider.api import client

    def check_status(original: Callable[..., Any], answer: Any, *args: Any, **more: Any) -> Any:
        if error := decide(answer.status_code, "retry-after" in answer.headers):
            raise error
        return original(answer, *args, **more)

    wrap(client, "check_upload", check_status)


def _retry_after_is_believed() -> None:
    """A 503 that says when to come back took nothing, so it is sent again."""
    from amili_provider.exceptions import AmiliConnectionError

    _judge_first(lambda status, told: AmiliConnectionError("busy", retry_after=0.0) if status == 503 and told else None)


def _redirects_are_not_sent() -> None:
    """Whoever is redirected has reached nobody."""
    from amili_provider.exceptions import AmiliRequestError

    _judge_first(lambda status, _: AmiliRequestError("a wrong address") if 300 <= status < 400 else None)


def _unnamed_files_are_refused() -> None:
    """A 4xx refuses what it does not name, so that it is sent again; what else it says of the request is no matter."""
    from amili_provider.api import client
    from amili_provider.api.responses import RefusedBy, UploadReply

    def check_status(original: Callable[..., Any], answer: Any, *args: Any, **more: Any) -> Any:
        reply = original(answer, *args, **more)
        refused_by = RefusedBy.AMILI if 400 <= answer.status_code < 500 else None
        return UploadReply(reply.status_code, reply.body, refused_by, "refused")

    wrap(client, "check_upload", check_status)


def _any_refusal_settles() -> None:
    """What the result endpoint says is about the last attempt."""
    from dataclasses import replace

    from amili_provider.delivery import ledger_session

    def ask(original: Callable[..., Any], client: Any, client_no: str, known: Any) -> Any:
        return original(client, client_no, replace(known, attempts=(), unknown=()))

    wrap(ledger_session, "ask_amili", ask)


def _whatever_is_not_an_answer_is_absence() -> None:
    """An endpoint that has no result yet does not know the file."""
    from amili_provider.api.client import AmiliClient
    from amili_provider.api.responses import Asked

    def ask(original: Callable[..., Any], *args: Any) -> Any:
        asked = original(*args)
        return Asked(asked.result, asked.result is None, asked.status_code)

    wrap(AmiliClient, "ask_for_result", ask)


def _unwritten_claims_are_ignored() -> None:
    """A claim that cannot be written does not stop the request."""
    from amili_provider.delivery.ledger_session import LedgerSession
    from amili_provider.exceptions import AmiliLedgerUnavailable

    def claim(original: Callable[..., None], books: Any, group: Any, request: str) -> None:
        try:
            original(books, group, request)
        except AmiliLedgerUnavailable:
            books._claims.clear()

    wrap(LedgerSession, "claim", claim)
    wrap(LedgerSession, "check_margin", lambda *_: None)


def _unwritten_outcomes_are_ignored() -> None:
    """An outcome that cannot be written does not stop anything, and nobody hears of it."""
    from amili_provider.delivery.ledger_session import LedgerSession
    from amili_provider.exceptions import AmiliLedgerUnavailable

    def settle(original: Callable[..., Any], *args: Any) -> Any:
        with contextlib.suppress(AmiliLedgerUnavailable):
            return original(*args)
        return {}

    wrap(LedgerSession, "settle", settle)


def _every_claim_is_won() -> None:
    """A unique key that another task has is no reason to stop."""
    from amili_provider.ledger.sql import SqlStore

    def claim(original: Callable[..., Any], *args: Any) -> Any:
        original(*args)
        return set()

    wrap(SqlStore, "claim", claim)


def _chain_is_ignored() -> None:
    """Airflow's own retry repeats what a person asked for once."""
    from amili_provider.ledger import state

    wrap(state, "_belongs", lambda *_: False)


def _resend_without_asking() -> None:
    """``resend`` sends again what Amili would say that it has."""
    from amili_provider.api.client import AmiliClient
    from amili_provider.api.responses import Asked

    wrap(AmiliClient, "ask_for_result", lambda *_: Asked(None, not_found=True, status_code=404))


def _changes_go_unnoticed() -> None:
    """A file that changes while it is sent is sent as it is, under the hash that it had."""
    from amili_provider.storage.content import DescriptorContent

    wrap(DescriptorContent, "check_unchanged", lambda *_: None)


def _short_reads_go_unnoticed() -> None:
    """A storage that ends a file early has its way."""
    from amili_provider.storage import content, reading

    def lenient(_: Any, file: Any, on_bytes: Any) -> Any:
        assert on_bytes
        with file.open() as stream:
            return content.MemoryContent(stream.read(file.size))

    wrap(reading, "_read_to_memory", lenient)


def _a_stop_waits_for_the_storage() -> None:
    """A stopped run waits for its readers, however long a storage holds them."""
    from concurrent.futures import ThreadPoolExecutor

    wrap(ThreadPoolExecutor, "shutdown", lambda original, pool, **more: original(pool, **{**more, "wait": True}))


def _missing_receipts() -> None:
    """Files whose reading failed are left out of the report."""
    from amili_provider.delivery.run import UploadRun

    kept = property(lambda run: [i.receipt for i in run._items if i.receipt.sha256 or i.receipt.outcome == "skipped"])
    UploadRun.receipts = kept  # type: ignore[assignment]


def _unknown_is_green() -> None:
    """Files whose outcome is unknown do not fail the task."""
    from amili_provider.receipts import Outcome

    Outcome.failed = property(lambda outcome: outcome in (Outcome.REJECTED, Outcome.NOT_SENT))  # type: ignore[assignment]


def _duplicates_are_green() -> None:
    """Equal bytes under another name count as delivered, and nobody is asked."""
    from dataclasses import replace

    from amili_provider.delivery import item, ledger_session

    def lenient(original: Callable[..., Any], accepted: Any, plan: Any, **more: Any) -> Any:
        return original(accepted, replace(plan, if_duplicate="skip"), **more)

    for module in (ledger_session, item):
        wrap(module, "not_sent_twice", lenient)


def _send_forgets_the_name() -> None:
    """The second name of equal bytes has no identity of its own."""
    from amili_provider.delivery import ledger_session

    wrap(ledger_session, "identity_of", lambda original, name=None, **more: original(**more))


def _send_forgets_what_it_sent() -> None:
    """The second name of equal bytes has another identity in every run."""
    import secrets

    from amili_provider.delivery import ledger_session

    salt = secrets.token_hex(4)
    wrap(ledger_session, "identity_of", lambda original, name=None, **more: original(name=name and name + salt, **more))


BUGS: dict[str, Bug] = {
    "no claim": Bug(_no_claim, ("killed with the tail on its way", "two at once")),
    "claim after the tail": Bug(_claim_after_the_tail, ("killed with the tail on its way",)),
    "settle before the answer": Bug(_settle_before_the_answer, ("cut before it was accepted",)),
    "resend on read time-out": Bug(_resend_on_read_timeout, ("answer too late", "answer lost")),
    "lost answer is not sent": Bug(_lost_answer_is_not_sent, ("answer lost",)),
    "expired claims are free": Bug(_expired_claims_are_free, ("killed with the tail on its way",)),
    "claims never expire": Bug(_claims_never_expire, ("killed with the tail on its way", "killed after the claim")),
    "live claims are free": Bug(_live_claims_are_free, ("one sends, another looks",)),
    "no environment in the key": Bug(_no_environment_in_the_key, ("staging, then production",)),
    "any 2xx is accepted": Bug(_any_2xx_is_accepted, ("one of three refused", "strange answer")),
    "503 with Retry-After is resent": Bug(_retry_after_is_believed, ("taken, then 503 with Retry-After",)),
    "redirect is not sent": Bug(_redirects_are_not_sent, ("taken, then 303",)),
    "unnamed files of a partial 422 are resent": Bug(_unnamed_files_are_refused, ("taken, then 422 names some",)),
    "any refusal settles": Bug(_any_refusal_settles, ("refused, then taken, and the refusal is told",)),
    "no result is absence": Bug(_whatever_is_not_an_answer_is_absence, ("answer lost, then resend on 202",)),
    "unwritten claims are ignored": Bug(_unwritten_claims_are_ignored, ("claims cannot be written",)),
    "unwritten outcomes are ignored": Bug(_unwritten_outcomes_are_ignored, ("outcomes cannot be written",)),
    "every claim is won": Bug(_every_claim_is_won, ("two at once",)),
    "chain is ignored": Bug(_chain_is_ignored, ("force, then a retry",)),
    "resend without asking": Bug(_resend_without_asking, ("answer lost, then resend",)),
    "changes go unnoticed": Bug(_changes_go_unnoticed, ("changed while it is sent, hashed before",)),
    "short reads go unnoticed": Bug(_short_reads_go_unnoticed, ("storage ends a file early",)),
    "a stop waits for the storage": Bug(_a_stop_waits_for_the_storage, ("told to stop while the storage hangs",)),
    "missing receipts": Bug(_missing_receipts, ("storage fails",)),
    "unknown is green": Bug(_unknown_is_green, ("answer lost",)),
    "duplicates are green": Bug(_duplicates_are_green, ("equal bytes",)),
    "send forgets the name": Bug(_send_forgets_the_name, ("equal bytes, sent",)),
    "send forgets what it sent": Bug(_send_forgets_what_it_sent, ("equal bytes, sent",)),
}
