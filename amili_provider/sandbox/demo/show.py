"""The demo's story: a day of files, a run, a refused file and a copy that somebody mends, and a second run."""

from __future__ import annotations

import csv
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from amili_provider.sandbox.demo.checking import Receipts, check
from amili_provider.sandbox.demo.invoices import BUCKET, Day, make_day
from amili_provider.sandbox.demo.showing import Delivery, Shown
from amili_provider.sandbox.demo.throwaway_airflow import DAG_ID, AirflowFailedError, ThrowawayAirflow, example_dag
from amili_provider.sandbox.page import readable_size
from amili_provider.sandbox.server import SandboxServer

if TYPE_CHECKING:
    from amili_provider.sandbox.demo.bucket import Bucket

_TASK_ID = "upload_invoices"


class Show:
    """
    One demo.

    :param folder: an empty folder for everything that is written; its owner removes it.
    :param large: whether one of the files has several hundred MB.
    :param keep: whether all stays as it is until a signal comes.
    """

    def __init__(self, folder: Path, *, large: bool, keep: bool = False) -> None:
        self._folder = folder
        self._large = large
        self._keep = keep
        self._shown = Shown()
        self._day = datetime.now(UTC).date() - timedelta(days=1)

    def run(self) -> int:
        """Run it; return the exit code."""
        began = time.monotonic()
        self._shown.title("Amili demo: a day of invoice files from S3 to Amili, by a real Airflow DAG")
        try:
            with (
                ThrowawayAirflow(self._folder / "airflow") as airflow,
                SandboxServer(self._folder / "amili") as amili,
            ):
                airflow.begin_setup()
                # Imported here, because it takes its time, and Airflow sets itself up meanwhile.
                from amili_provider.sandbox.demo.bucket import s3_server

                with s3_server() as bucket:
                    right = self._play(airflow, amili, bucket)
                    self._conclude(right, time.monotonic() - began)
                    if self._keep:
                        self._wait_for_the_end(airflow, amili)
        except AirflowFailedError as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)  # noqa: T201 - a command talks to a person
            return 1
        self._shown.say("Nothing of it is left but the environment it ran in.")
        return 0 if right else 1

    def _conclude(self, right: bool, seconds: float) -> None:
        verdict = "All is as it should be." if right else "Something is not as it should be."
        self._shown.say()
        self._shown.say(f"{self._shown.tint(verdict, 'good' if right else 'bad')} It took {seconds:.0f} s.")

    def _wait_for_the_end(self, airflow: ThrowawayAirflow, amili: SandboxServer) -> None:
        shown = self._shown
        shown.title("Kept, to look around, until you press Ctrl-C here")
        shown.say(f"  What Amili got    {amili.url}")
        shown.say(f"  The ledger        {self._folder.absolute()}/ledger.db, a file of SQLite")
        shown.say("  In another terminal:")
        for command, what in (
            (f". {airflow.write_environment()}", "first: makes it the shell of this Airflow"),
            ("amili-ledger report", "each day in numbers"),
            ("amili-ledger find _117.csv", "what became of the refused file"),
            (f"airflow dags test {DAG_ID}", "a third run"),
            ("airflow standalone", "Airflow's pages, with Browse > Amili deliveries; has a Ctrl-C of its own"),
        ):
            shown.say(f"    {command:<40} {shown.tint('# ' + what, 'dim')}")
        with suppress(KeyboardInterrupt):
            signal.pause()
        shown.say("\nStopped.")

    def _play(self, airflow: ThrowawayAirflow, amili: SandboxServer, bucket: Bucket) -> bool:
        shown = self._shown
        shown.say(shown.tint(f"  Amili sandbox {amili.url} (a page for the browser while this runs)", "dim"))
        shown.say(shown.tint(f"  S3 server     {bucket.url}", "dim"))
        with shown.step("Write a day of invoice files to S3"):
            day = make_day(self._day, large=self._large)
            for file in day.files:
                bucket.put(day.day, file)
        with shown.step("Set up a throw-away Airflow"):
            airflow.finish_setup()
            ledger = f"sqlite:///{self._folder.absolute()}/ledger.db"
            airflow.connect(
                {"amili_default": amili.connection_json(ledger=ledger), "aws_default": bucket.connection_json()}
            )
        with shown.step("Create the ledger, here a file of SQLite"):
            created = airflow.amili_ledger("create")
        self._command("create", created)
        size = readable_size(sum(f.size for f in day.files))
        shown.title(f"First run: {len(day.files)} files, {size}, in s3://{BUCKET}/outbound/{day.day}/")
        first = self._run(airflow, amili)
        accepted_first = len(amili.uploads)
        shown.say(
            "  It is red on purpose: one file was refused, one holds the bytes of another; neither is ever green."
        )
        shown.title("Second run: the refused file was corrected, the copy taken away; all others lie there as before")
        bucket.put(day.day, day.corrected)
        bucket.remove(day.day, day.copy)
        second = self._run(airflow, amili)
        right = shown.checks(check(day, amili.uploads, accepted_first, first, second))
        self._where_to_look(airflow, day, second)
        return right

    def _run(self, airflow: ThrowawayAirflow, amili: SandboxServer) -> Receipts:
        seen, accepted, refused = len(amili.requests), len(amili.uploads), len(amili.refusals)
        # Two runs for one day: to Airflow they have nothing to do with each other.
        answer = airflow.run(self._day)
        receipts: Receipts = answer["returned"].get(_TASK_ID) or []
        uploads = [r for r in amili.requests[seen:] if r.kind == "upload"]
        arrived = amili.uploads[accepted:]
        moments = [r.started_at for r in uploads] + [u.accepted_at for u in arrived]
        delivery = Delivery(
            requests=len(uploads),
            files=len(arrived) + len(amili.refusals[refused:]),
            size=sum(u.size for u in arrived) + sum(r.size for r in amili.refusals[refused:]),
            seconds=max(moments, default=0.0) - min(moments, default=0.0),
        )
        self._shown.run(answer, receipts, delivery)
        return receipts

    def _command(self, arguments: str, printed: str) -> None:
        self._shown.say(self._shown.tint(f"    $ amili-ledger {arguments}", "dim"))
        for line in printed.splitlines():
            self._shown.say(f"      {line}")

    def _where_to_look(self, airflow: ThrowawayAirflow, day: Day, receipts: Receipts) -> None:
        shown = self._shown
        shown.title("Asked later: what went out, and what became of the corrected file?")
        self._command("report", airflow.amili_ledger("report"))
        found = csv.DictReader(airflow.amili_ledger("find", day.corrected.name, "--csv").splitlines())
        rows = [" ".join(row[column] for column in ("when", "outcome", "message")) for row in found]
        self._command(f"find {day.corrected.name}     (of its columns: when, outcome, message)", "\n".join(rows))
        shown.title("Where to look")
        shown.say(f"  The DAG      {example_dag()}")
        for receipt in [r for r in receipts if r["outcome"] == "uploaded"][:1]:
            shown.say("  A receipt    (the task's XCom has one per file)")
            for name in ("name", "file_id", "sha256", "outcome", "status", "result", "message"):
                shown.say(f"               {name:<9}{receipt[name]}")
        shown.say(f"  Your turn    {Path(sys.argv[0]).absolute()} serve")
