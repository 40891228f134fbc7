"""Sentences of messages that are laid out in lines, as Airflow's log view shows them."""

from __future__ import annotations

import re


def one_line(message: object) -> str:
    """Return a message without its line breaks."""
    return " ".join(str(message).split())


def across_lines(pattern: str) -> str:
    """
    Return a pattern whose blanks match a line break as well, and whose dots do.

    :param pattern: a regular expression for a message of one line.
    """
    return "(?s)" + re.sub(r"\\? ", r"\\s+", pattern)
