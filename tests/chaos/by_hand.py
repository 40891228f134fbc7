"""What a person does with files whose outcome is unknown: look at the other side, and write down what is true."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from amili_provider.connection.settings import settings_from
from amili_provider.ledger import Ledger
from amili_provider.ledger.opening import store_from
from amili_provider.ledger.questions import unknown
from amili_provider.ledger.settling import Person
from amili_provider.ledger.settling import settle as settle_in
from tests.chaos import saboteur


def settle(
    *,
    ledger: dict[str, str],
    url: str,
    client_no: str,
    there: Collection[Sequence[str]],
    answer_timeout: float,
    ahead: float,
) -> dict[str, bool]:
    """
    Settle every unknown file of a client as arrived or not arrived.

    :param ledger: as a connection names it.
    :param url: of the sandbox's API, with its base path.
    :param client_no: whose files.
    :param there: the file ids that the other side has, each with its name.
    :param answer_timeout: of the connection.
    :param ahead: seconds by which the ledger's clock runs ahead of the machine's.
    :returns: what was said of which file.
    """
    saboteur.set_clock(ahead)
    address = urlsplit(url)
    environment = address.netloc + address.path
    settings = settings_from(
        "chaos", login="id", password="secret", host=None, port=None, schema=None,
        extra={**ledger, "environment": "staging", "client_no": client_no},
    )  # fmt: skip
    with Ledger(
        store_from(None, settings), environment=environment, client_no=client_no, answer_timeout=answer_timeout
    ) as opened:
        found = [row["file_id"] for row in unknown(opened.store, environment=environment, client_no=client_no)]
        # One that was sent under two names is settled by request, once its requests hold no other that is unknown.
        two_names = [i for i, known in opened.look_up(found).items() if len(known.unknown_names) > 1]
        arrived_ids = {file_id for file_id, _ in there}
        person = Person("chaos", "asked Amili")
        for arrived in (True, False):
            if ids := [i for i in found if i not in two_names and (i in arrived_ids) is arrived]:
                settle_in(opened, person, arrived=arrived, file_ids=ids)
        for file_id in two_names:
            known = opened.look_up([file_id])[file_id]
            for attempt in [a for a in known.attempts if a.attempt in known.unknown]:
                arrived = [file_id, attempt.name] in [list(one) for one in there]
                settle_in(opened, person, arrived=arrived, request=attempt.request)
    return {file_id: file_id in arrived_ids for file_id in found}
