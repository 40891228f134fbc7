"""The name that Amili gets for a file, from the operator's template ``file_name``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from amili_provider.delivery.order import FileFacts


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
