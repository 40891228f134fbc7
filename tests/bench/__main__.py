"""The bench's command; see the package."""
# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from amili_provider.sandbox.server import SandboxServer
from tests.bench.airflow import Airflow, BenchError, until
from tests.bench.postgres import postgres
from tests.bench.scenarios import FILES, FOR_CI, SCENARIOS, Stage

_MOST_AT_ONCE = {"sqlite": 5, "postgres": len(SCENARIOS)}
"""SQLite lets one writer in at a time; more scenarios would only meet locked tables."""


def main() -> int:
    """Run the bench; 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all if none is named")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--ci", action="store_true", help=f"the bounded part: {', '.join(FOR_CI)}")
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
    try:
        failures = run(list(names), chosen.database, folder)
    finally:
        if chosen.keep:
            print(f"Logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


def run(names: list[str], database: str, folder: Path) -> list[str]:
    """Play scenarios, many at the same time; return the names of those that failed."""
    home, outbound = folder / "airflow", folder / "outbound"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        amilis = {name: stack.enter_context(SandboxServer()) for name in names}
        environment = {
            "AMILI_BENCH": json.dumps({name: SCENARIOS[name].sensor for name in names}),
            "AMILI_BENCH_FILES": str(outbound),
        }
        for name, amili in amilis.items():
            extra = {"ledger": str(folder / "ledger" / name)}
            environment[f"AIRFLOW_CONN_AMILI_{name.upper()}"] = amili.connection_json(**extra)
            wanted, said = SCENARIOS[name].before
            (amili.batches if name == "batch" else amili.results).set(wanted, said)
            (outbound / name).mkdir(parents=True)
            for number in range(FILES):
                (outbound / name / f"{number}.csv").write_text(f"{name} {number}\n", "utf-8")
        (folder / "ledger").mkdir()
        url = f"sqlite:///{home}/airflow.db?timeout=60"
        if database == "postgres":
            url = stack.enter_context(postgres(folder / "postgres"))
        began = time.monotonic()
        airflow = stack.enter_context(Airflow(home, url, environment).running())
        until("the DAGs are read", lambda: airflow.knows({f"bench_{name}" for name in names}), 180)
        print(f"Airflow on {database} is up after {time.monotonic() - began:.0f} s")
        with ThreadPoolExecutor(_MOST_AT_ONCE[database]) as pool:
            results = list(pool.map(lambda name: play(name, airflow, amilis[name]), names))
    failed = [name for name, held in zip(names, results, strict=True) if not held]
    print(f"{len(names) - len(failed)} of {len(names)} scenarios held on {database}")
    return failed


def play(name: str, airflow: Airflow, amili: SandboxServer) -> bool:
    """Play one scenario; return whether it held."""
    began = time.monotonic()
    try:
        SCENARIOS[name].play(Stage(airflow, amili, airflow.begin(f"bench_{name}")))
    except (AssertionError, BenchError):
        print(f"FAILED  {name} ({time.monotonic() - began:.0f} s)\n{traceback.format_exc()}", flush=True)
        return False
    print(f"held    {name:18} {time.monotonic() - began:4.0f} s  {SCENARIOS[name].play.__doc__}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
