"""Template fields: signatures and passwords in ``source`` are masked; ``file_name`` names a file for Amili."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow.providers.common.compat.sdk import BaseOperator, mask_secret

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from amili_provider.delivery.options import FileFacts


_SIGNED = re.compile(r"https?://[^?#]*\?(?P<any>[^#]+)|(?!\w+://)[^?#]*\?(?P<parameters>[^#=]+=[^#]*)", re.IGNORECASE)
"""An address with a query; without a scheme, the path of an HTTP connection, where ``?`` alone is a pattern's."""
_BETWEEN = re.compile(r"[\s'\",]+")
"""What stands between addresses in text that is no single path: lines, a printed list."""
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
    from amili_provider.storage.opening import EXACT

    if isinstance(source, Sequence | set | frozenset) and not isinstance(source, str):
        for entry in source:
            yield from _paths(entry)
    elif source is not None:
        text = str(source).strip().removeprefix(EXACT)
        yield text
        # Text that is refused is in rendered fields, too.
        yield from _BETWEEN.split(text)


def renamer(operator: BaseOperator, file_name: str | None, context: Context) -> Callable[[FileFacts], str] | None:
    """
    Return a function from file facts to the name for Amili, or None for the base name.

    :param operator: whose DAG knows filters and macros.
    :param file_name: the template, which sees the task's context and ``file``.
    :param context: Airflow's.
    :raises ValueError: if it is no template. What the function raises is about the file that it was given.
    """
    from jinja2 import TemplateSyntaxError

    from amili_provider.receipts import one_line

    if file_name is None:
        return None
    # Always text: with render_template_as_native_obj a name like 20250101_001 would become a number.
    dag = operator.get_dag()
    environment = operator.get_template_env() if dag is None else dag.get_template_env(force_sandboxed=True)
    try:
        template = environment.from_string(str(file_name))
    except TemplateSyntaxError as error:
        raise ValueError(f"file_name={file_name!r} is not a template: {one_line(error)}.") from None

    def rename(facts: FileFacts) -> str:
        name = template.render({**context, "file": facts})
        if not name.strip():
            # Jinja renders what it does not know as nothing, so the template is where to look.
            raise ValueError(f"the template file_name={file_name!r} rendered to an empty name")
        return name

    return rename
