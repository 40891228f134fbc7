"""``amili-sandbox demo`` as a person runs it, and as a person stops it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "amili_provider.sandbox.cli", "demo"]


def start(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo with a temporary folder of its own."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [*COMMAND, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


_AWS = """
import os, sys
from pathlib import Path
from amili_provider.sandbox.demo.bucket import s3_server
from amili_provider.sandbox.demo.throwaway_airflow import ThrowawayAirflow

before = dict(os.environ)
with s3_server():
    pass
assert os.environ == before
import boto3

os.environ.clear()
os.environ.update(ThrowawayAirflow(Path(sys.argv[1]))._environment)
boto3.Session().client("s3", region_name="us-east-1")
"""


def test_no_aws_setting_of_a_persons_own_takes_part(tmp_path: Path) -> None:
    """Neither the bucket nor Airflow minds a profile that is gone, files that cannot be read, values that are none."""
    (tmp_path / ".aws").mkdir()
    for name in ("config", "credentials"):
        (tmp_path / ".aws" / name).write_text("[default\nx", "utf-8")
    theirs = {"HOME": str(tmp_path), "AWS_PROFILE": "gone", "AWS_RESPONSE_CHECKSUM_VALIDATION": "none such"}
    command = [sys.executable, "-c", _AWS, str(tmp_path / "airflow")]
    subprocess.run(command, env={**os.environ, **theirs}, check=True, timeout=300)


@pytest.mark.long
def test_the_demo_shows_the_main_job_and_keeps_it_until_it_is_stopped(tmp_path: Path) -> None:
    """All arrives byte-identical, once; another terminal can ask the kept ledger and server; then nothing is left."""
    with start(tmp_path, "--keep") as process:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if "airflow standalone" in line:
                break
        (server,) = re.findall(r"What Amili got +(http\S+)", text)
        with urllib.request.urlopen(server, timeout=30) as page:
            assert "_117.csv" in page.read().decode()
        (first,) = re.findall(r"^ +(\. /\S+) +# first", text, re.MULTILINE)
        command = ["bash", "-euc", f"{first}\namili-ledger find _117.csv\nls $AIRFLOW_HOME/dags"]
        found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=tmp_path).stdout
        assert "rejected" in found
        assert "uploaded" in found
        assert "amili_daily_upload.py" in found
        process.send_signal(signal.SIGINT)
        text += process.stdout.read()
        assert process.wait(60) == 0, text
    assert "Nothing of it is left" in text
    assert "All is as it should be." in text
    assert text.count("\n  yes  ") == 5
    assert "_117.csv: row 14: customer number 104233 does not exist" in text
    assert re.search(r"amili-ledger create\n +The ledger sqlite:////.*/ledger\.db, .* is created", text)
    assert re.search(r"amili-ledger report\n.*\n +\S+ +2218 +InvoiciaFormatDocFile +239 +1 +0 ", text)
    assert re.search(r"Z uploaded File uploaded\n.*Z rejected row 14: customer number 104233 does not exist\n", text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_stopped_demo_leaves_nothing(tmp_path: Path) -> None:
    """Stopped in the middle of a run, also by an impatient person, it ends its processes and removes its folders."""
    with start(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("First run"):
                break
        # Airflow runs in a process of its own by now.
        children = [
            Path(f"/proc/{n}") for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        assert children
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        text = process.stdout.read()
        assert process.wait(30) == 130, text
    assert "everything that was started has ended" in text
    assert not any(child.exists() for child in children)
    assert list(tmp_path.iterdir()) == []
