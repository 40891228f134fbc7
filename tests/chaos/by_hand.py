"""What a person does with files whose outcome is unknown: look at the other side, and write down what is true."""

from __future__ import annotations

import time
from collections.abc import Collection
from urllib.parse import urlsplit

from amili_provider.ledger import Ledger
from amili_provider.ledger.ways_out import list_unknown, settle_unknown


def settle(
    *, ledger: str, url: str, client_no: str, there: Collection[str], answer_timeout: float, ahead: float
) -> dict[str, bool]:
    """
    Settle every unknown file of a client as arrived or not arrived.

    :param ledger: its folder.
    :param url: of the sandbox's API, with its base path.
    :param client_no: whose files.
    :param there: the file ids that the other side has.
    :param answer_timeout: of the connection.
    :param ahead: seconds by which the ledger's clock runs ahead.
    :returns: what was said of which file.
    """

    def clock() -> float:
        return time.time() + ahead

    address = urlsplit(url)
    environment = address.netloc + address.path
    with Ledger.open(
        ledger, None, environment=environment, client_no=client_no, answer_timeout=answer_timeout, clock=clock
    ) as opened:
        unknown = list_unknown(opened.folder, environment=environment, client_no=client_no, clock=clock)
        for file in unknown:
            settle_unknown(opened, file.file_id, arrived=file.file_id in there, who="chaos", why="asked Amili")
    return {file.file_id: file.file_id in there for file in unknown}
