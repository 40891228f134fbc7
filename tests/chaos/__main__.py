"""
The chaos suite from the command line.

::

    python -m tests.chaos --scenarios 500        # the full run
    python -m tests.chaos --scenarios 500 --ledger postgres
    python -m tests.chaos --seed 17              # one scenario again, told step by step
    python -m tests.chaos --mutations            # planted bugs, each of which must be caught
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="amili-chaos-"))


def main() -> int:
    """Run what the command line asks for; the exit code says whether every promise held."""
    from tests.chaos import ledgers, running

    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n")[1])
    parser.add_argument("--scenarios", type=int, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="scenarios at the same time")
    parser.add_argument("--seed", help="play one seed, a number or the name of a directed one, and tell what happens")
    parser.add_argument("--bug", help="plant this bug while playing --seed")
    parser.add_argument("--mutations", nargs="*", metavar="BUG", help="plant every bug (or these) and catch each")
    parser.add_argument("--ledger", choices=ledgers.KINDS, default="sqlite", help="where ledgers are kept (sqlite)")
    asked = parser.parse_args()
    with ledgers.kept_in(asked.ledger):
        if asked.seed is not None:
            return running.one(int(asked.seed) if asked.seed.isdecimal() else asked.seed, bug=asked.bug)
        if asked.mutations is not None:
            return running.mutations(asked.mutations, lanes=asked.lanes)
        from tests.chaos.directed import DIRECTED

        seeds = [*DIRECTED, *range(asked.first, asked.first + (asked.scenarios or 20))]
        return running.many(seeds, lanes=asked.lanes)


if __name__ == "__main__":
    sys.exit(main())
