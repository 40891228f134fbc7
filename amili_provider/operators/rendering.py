"""Rendered fields are kept in Airflow's database and shown in its UI: what signs an address is masked before that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from airflow.providers.common.compat.sdk import BaseOperator, mask_secret

_SIGNED = re.compile(r"https?://[^?#]*\?(?P<any>[^#]+)|(?!\w+://)[^?#]*\?(?P<parameters>[^#=]+=[^#]*)")
"""An address with a query; without a scheme, the path of an HTTP connection, where ``?`` alone is a pattern's."""
_LOGIN = re.compile(r"\w+://[^/?#@]*:([^/?#]*)@")
_SHORTEST = 5
"""Airflow masks no shorter ones, and warns of them."""
_SECRET_PARAMETER = re.compile(r"sig|secret|token|key|credential|password|auth|code", re.IGNORECASE)


class SourceOperator(BaseOperator):
    """An operator with a ``source``, whose signed queries are masked as soon as templates are rendered."""

    source: Any

    def _do_render_template_fields(self, *arguments: Any, **keywords: Any) -> None:
        # Called for mapped tasks too, which render_template_fields is not. Airflow masks nothing of a query by itself.
        super()._do_render_template_fields(*arguments, **keywords)
        for secret in secrets_of(self.source):
            mask_secret(secret)


def secrets_of(source: Any) -> set[str]:
    """
    Return what no log and no rendered field may show of *source*, as it is written and percent-decoded.

    :param source: a path, or a list of paths, not checked yet.
    """
    written: set[str] = set()
    for path in _paths(source):
        if (signed := _SIGNED.match(path)) is not None:
            query = signed["any"] or signed["parameters"]
            written.add(query)
            # Servers and libraries repeat single parameters, in an order of their own.
            pairs = (pair.partition("=") for pair in query.split("&"))
            written.update(value for name, _, value in pairs if _SECRET_PARAMETER.search(name))
        if (login := _LOGIN.match(path)) is not None:
            written.add(login[1])
    forms = {form for secret in written for form in (secret, unquote(secret))}
    return {form for form in forms if len(form) >= _SHORTEST}


def _paths(source: Any) -> Iterator[str]:
    from amili_provider.storage.sources import EXACT

    if isinstance(source, Sequence | set | frozenset) and not isinstance(source, str):
        for entry in source:
            yield from _paths(entry)
    elif source is not None:
        yield str(source).strip().removeprefix(EXACT)
