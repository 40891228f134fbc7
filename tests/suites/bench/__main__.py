"""The bench's command; see the package."""
# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NoReturn

from amili_provider.sandbox.server import SandboxServer
from tests.databases import postgres
from tests.ledgers import new_ledger
from tests.suites.bench.airflow import OVER, Airflow, BenchError, until
from tests.suites.bench.scenarios import FILES, FOR_CI, PERSON, SCENARIOS, Stage

_MOST_AT_ONCE = {"sqlite": 5, "postgres": len(SCENARIOS)}
"""SQLite lets one writer in at a time; more scenarios would only meet locked tables."""
_MINUTES = {"--ci": 15.0, "all": 30.0}


def main() -> int:
    """Run the bench; 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all if none is named")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--ci", action="store_true", help=f"the bounded part: {', '.join(FOR_CI)}")
    parser.add_argument("--minutes", type=float, help="end and fail after so long (default: 15 with --ci, else 30)")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    chosen = parser.parse_args()
    if chosen.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:18} {scenario.play.__doc__}")
        return 0
    names = chosen.scenarios or (FOR_CI if chosen.ci else list(SCENARIOS))
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; see --list")
    folder = Path(tempfile.mkdtemp(prefix="amili-bench-"))
    folder.chmod(0o755)
    minutes = chosen.minutes or _MINUTES["--ci" if chosen.ci else "all"]
    signal.signal(signal.SIGTERM, _told_to_end)
    try:
        failures = run(list(names), chosen.database, folder, minutes * 60)
    finally:
        if chosen.keep:
            print(f"Logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


def _told_to_end(*_: Any) -> NoReturn:
    """End as after an error, so that nothing that was started stays."""
    OVER.set()
    sys.exit("The bench was told to end")


def run(names: list[str], database: str, folder: Path, seconds: float) -> list[str]:
    """Play scenarios, many at the same time; return the names of those that failed, or were not done in time."""
    ends_at = time.monotonic() + seconds
    home, outbound = folder / "airflow", folder / "outbound"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        amilis = {name: stack.enter_context(SandboxServer()) for name in names}
        environment = {
            "AMILI_BENCH": json.dumps({name: SCENARIOS[name].sensor for name in names}),
            "AMILI_BENCH_FILES": str(outbound),
        }
        ledgers = {name: new_ledger(folder, f"{name}.db") for name in names}
        for name, amili in amilis.items():
            ledger = ledgers[name]
            environment[f"AIRFLOW_CONN_AMILI_{name.upper()}"] = amili.connection_json(ledger=ledger)
            wanted, said = SCENARIOS[name].before
            if SCENARIOS[name].fault:
                amili.faults.add(**SCENARIOS[name].fault)
            (amili.batches if name == "batch" else amili.results).set(wanted, said)
            (outbound / name).mkdir(parents=True)
            for number in range(FILES):
                (outbound / name / f"{number}.csv").write_text(f"{name} {number}\n", "utf-8")
        url = f"sqlite:///{home}/airflow.db?timeout=60"
        if database == "postgres":
            port = stack.enter_context(postgres(folder / "postgres"))
            url = f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
        began = time.monotonic()
        airflow = stack.enter_context(Airflow(home, url, environment, person=PERSON).running())
        until("the DAGs are read", lambda: airflow.knows({f"bench_{name}" for name in names}), 300)
        print(f"Airflow on {database} is up after {time.monotonic() - began:.0f} s")
        pool = ThreadPoolExecutor(_MOST_AT_ONCE[database])
        try:
            played = {name: pool.submit(play, name, airflow, amilis[name], ledgers[name]) for name in names}
            _, late = wait(played.values(), timeout=max(ends_at - time.monotonic(), 0))
            failed = [name for name, one in played.items() if one in late or not one.result()]
        finally:
            OVER.set()
            pool.shutdown(cancel_futures=True)
    if late:
        print(f"NOT DONE in {seconds / 60:g} minutes: {', '.join(n for n, one in played.items() if one in late)}")
    print(f"{len(names) - len(failed)} of {len(names)} scenarios held on {database}; {time.monotonic() - began:.0f} s")
    return failed


def play(name: str, airflow: Airflow, amili: SandboxServer, ledger: str) -> bool:
    """Play one scenario; return whether it held."""
    began = time.monotonic()
    try:
        SCENARIOS[name].play(Stage(airflow, amili, airflow.begin(f"bench_{name}"), ledger))
    except (AssertionError, BenchError):
        print(f"FAILED  {name} ({time.monotonic() - began:.0f} s)\n{traceback.format_exc()}", flush=True)
        return False
    print(f"held    {name:18} {time.monotonic() - began:4.0f} s  {SCENARIOS[name].play.__doc__}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
