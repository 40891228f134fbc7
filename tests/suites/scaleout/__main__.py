"""
Proof that a day spreads over workers: ``python -m tests.suites.scaleout [--files 2000] [--per-bucket 125] [--quick]``.

A real Airflow with the CeleryExecutor, Redis, Postgres and two worker processes lists a day on an S3 server, spreads it
over mapped uploads, and runs it twice. Then the sandbox's own records say whether every file arrived exactly once, and
Airflow's database who did the work. Needs ``apt-get install postgresql redis-server``, and the dependency group
``scaleout``. Prints one line of JSON; exit code 0 if everything held.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from amili_provider.sandbox.server import SandboxServer
from tests.ledgers import new_ledger
from tests.suites.scaleout.cluster import HERE, Cluster

WORKERS = ("north", "south")
POOL = 4
LEAST_SHARE = 0.25
"""Of the buckets, that each of two workers must have done for the work to count as balanced."""


def make_day(folder: Path, number: int) -> Counter[str]:
    """Write a day of files in several folders: most small, some of a few MB; return how often each content occurs."""
    rng = random.Random(number)
    contents: Counter[str] = Counter()
    for index in range(number):
        size = rng.choice((500, 2_000, 10_000, 50_000)) if index % 100 else 3_000_000
        data = index.to_bytes(8, "big") + rng.randbytes(size)
        path = folder / f"part {index % 7}" / f"invoice_{index}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        contents[hashlib.sha256(data).hexdigest()] += 1
    return contents


def connections(amili: SandboxServer, storage: int, folder: Path) -> dict[str, str]:
    """Return the connections of the DAG, as environment variables."""
    s3 = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"endpoint_url": f"http://127.0.0.1:{storage}", "region_name": "eu-north-1"},
    }
    return {
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(s3),
        "AIRFLOW_CONN_AMILI_DEFAULT": amili.connection_json(ledger=new_ledger(folder)),
    }


def shares(cluster: Cluster, run_id: str) -> dict[str, Any]:
    """Return who did how many buckets in a run, and how long the uploads took from first to last."""
    rows = cluster.query(
        "select map_index, hostname, state, start_date, end_date from task_instance "
        "where dag_id = 'scaleout' and run_id = %s and task_id = 'upload' order by map_index",
        run_id,
    )
    return {
        "buckets": len(rows),
        "states": dict(Counter(state for _, _, state, _, _ in rows)),
        "buckets_by_worker": dict(Counter(host for _, host, _, _, _ in rows)),
        "seconds": (max(r[4] for r in rows) - min(r[3] for r in rows)).total_seconds() if rows else None,
    }


def main() -> int:
    """Run the proof; return 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.scaleout")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--per-bucket", type=int, default=125)
    parser.add_argument("--quick", action="store_true", help="240 files, and no second run")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one run of the DAG")
    asked = parser.parse_args()
    files, per_bucket = (240, 20) if asked.quick else (asked.files, asked.per_bucket)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="amili-scaleout-") as name, SandboxServer(keep_contents=False) as amili:
        folder = Path(name)
        objects = folder / "objects"
        objects.mkdir()
        contents = make_day(objects / "day", files)
        command = [sys.executable, "-m", "tests.suites.benchmarks.objects", str(objects)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[2]) as storage:
            assert storage.stdout is not None
            environment = {
                **connections(amili, int(storage.stdout.readline()), folder),
                "SCALEOUT_FILES_PER_BUCKET": str(per_bucket),
            }
            try:
                with Cluster(folder, workers=WORKERS, environment=environment, pool=POOL) as cluster:
                    found = prove(cluster, amili, contents, again=not asked.quick, timeout=asked.timeout)
            finally:
                storage.kill()
    found |= {"files": files, "bytes": sum(u.size for u in amili.uploads), "all_seconds": time.monotonic() - began}
    print(json.dumps(found, default=str))  # noqa: T201 - the result
    return 0 if found["held"] else 1


def prove(
    cluster: Cluster, amili: SandboxServer, contents: Counter[str], *, again: bool, timeout: float
) -> dict[str, Any]:
    """Run the day, again if asked, and compare what arrived with what lay there."""
    found: dict[str, Any] = {"cores": os.cpu_count(), "state": cluster.run_dag("scaleout", "first", timeout=timeout)}
    found["first"] = shares(cluster, "first")
    found["outcomes"] = cluster.xcom("scaleout", "first", "outcomes")
    total = contents.total()
    by_worker = found["first"]["buckets_by_worker"]
    checks = {
        "green": found["state"] == "success",
        "each_file_once": Counter(u.sha256 for u in amili.uploads) == contents,
        "never_twice": all(u.earlier == 0 for u in amili.uploads),
        "receipts_gathered": found["outcomes"] == {"uploaded": total},
        "both_workers": min(by_worker.get(w, 0) for w in WORKERS) >= LEAST_SHARE * found["first"]["buckets"],
    }
    if again:
        state = cluster.run_dag("scaleout", "second", timeout=timeout)
        found["second"] = shares(cluster, "second")
        checks["nothing_sent_again"] = state == "success" and len(amili.uploads) == total
        checks["second_known"] = cluster.xcom("scaleout", "second", "outcomes") == {"already_uploaded": total}
    if not all(checks.values()):
        print("\n".join(cluster.logs()), file=sys.stderr)  # noqa: T201 - why it did not hold
    return {**found, "checks": checks, "held": all(checks.values())}


if __name__ == "__main__":
    sys.exit(main())
