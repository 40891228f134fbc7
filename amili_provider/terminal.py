"""Output of a command: any encoding will do, and a reader may leave early."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READER_GONE = 141
"""Exit code of a command whose output is no longer read: as a shell has it for one that SIGPIPE ends."""


@contextmanager
def ordinary_output() -> Iterator[None]:
    """
    Let a command write to stdout and stderr as ordinary tools do.

    A letter that their encoding lacks becomes an escape: no encoding may hide what a command has done. A reader that
    leaves early, as ``head`` does, ends the command without a word.

    :raises SystemExit: with :data:`READER_GONE`, once stdout has no reader.
    :raises OSError: if stdout cannot be written otherwise, for example because its disk is full.
    """
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):  # a caller of this process, who takes text
        yield
        return
    for stream in (out, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        out.flush()
    except BrokenPipeError:
        if not _has_no_reader(out):  # another pipe broke
            raise
        raise SystemExit(READER_GONE) from None
    finally:
        try:
            out.flush()
        except OSError:
            # Python flushes once more at its end, and would complain then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _has_no_reader(out: io.TextIOWrapper) -> bool:
    poll = select.poll()
    poll.register(out, 0)  # errors and the end of the other side are told without being asked for
    return bool(poll.poll(0))
