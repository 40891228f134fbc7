"""What a person does with files whose outcome is unknown: look at the other side, and write down what is true."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from amili_provider.connection.settings import settings_from
from amili_provider.ledger import Ledger
from amili_provider.ledger.manual import Person
from amili_provider.ledger.manual import settle as settle_in
from amili_provider.ledger.opening import store_from
from amili_provider.ledger.questions import unknown
from tests.chaos import saboteur


def settle(
    *,
    ledger: dict[str, str],
    url: str,
    client_no: str,
    there: Collection[str],
    answer_timeout: float,
    ahead: float,
) -> dict[str, bool]:
    """
    Settle every unknown file of a client as arrived or not arrived.

    :param ledger: as a connection names it.
    :param url: of the sandbox's API, with its base path.
    :param client_no: whose files.
    :param there: the file ids that the other side has.
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
        for arrived in (True, False):
            if ids := [file_id for file_id in found if (file_id in there) is arrived]:
                settle_in(opened, Person("chaos", "asked Amili"), arrived=arrived, file_ids=ids)
    return {file_id: file_id in there for file_id in found}
