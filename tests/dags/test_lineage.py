"""What OpenLineage hears of an upload, through its own provider."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from amili_provider.operators import assets
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.assets import dataset_of
from amili_provider.sandbox.server import SandboxServer

DAY = "2025-03-01"


def test_lineage_of_a_run_reaches_the_transport(
    s3: Any, amili: SandboxServer, airflow_home: Path, tmp_path: Path
) -> None:
    """The event of the finished task has each file with size and hash, and the client at Amili as output."""
    assert airflow_home
    contents = {"one.csv": b"one", "two.csv": b"more"}
    for name, content in contents.items():
        s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/{name}", Body=content)
    events = tmp_path / "events.jsonl"
    environment = {
        **os.environ,
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
        # What takes longer than ten seconds to be told is not told at all, by default.
        "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "120",
    }
    command = [sys.executable, "-W", "ignore", "-m", "airflow", "dags", "test", "amili_daily_upload"]
    command += ["--conf", json.dumps({"day": DAY})]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    (done,) = [
        e for e in lines if e["eventType"] == "COMPLETE" and e["job"]["name"] == "amili_daily_upload.upload_invoices"
    ]
    assert [(i["namespace"], i["name"]) for i in done["inputs"]] == [
        ("s3://invoices", f"outbound/{DAY}/{name}") for name in contents
    ]
    for dataset, content in zip(done["inputs"], contents.values(), strict=True):
        digest = hashlib.sha256(content).hexdigest()
        assert dataset["facets"]["version"]["datasetVersion"] == f"sha256:{digest}"
        assert dataset["inputFacets"]["inputStatistics"]["size"] == len(content)
    (output,) = done["outputs"]
    assert (output["namespace"], output["name"]) == (amili.url.replace("http", "amili"), "2218")
    statistics = output["outputFacets"]["outputStatistics"]
    assert (statistics["size"], statistics["fileCount"]) == (7, 2)


def _lineage(operator: AmiliFileUploadOperator) -> Any:
    # What OpenLineage asks for after a task that failed is what it asks for after one that succeeded.
    return DefaultExtractor(operator).extract_on_complete(SimpleNamespace(state="failed"))


@pytest.fixture(name="operator")
def _operator(amili_sandbox: SandboxServer, tmp_path: Path) -> AmiliFileUploadOperator:
    """An upload of a folder on disk."""
    (tmp_path / "outbound").mkdir()
    return AmiliFileUploadOperator(task_id="upload", source=f"{tmp_path}/outbound/*", file_type="InvoiciaFormatDocFile")


def test_only_what_was_uploaded_is_lineage(operator: AmiliFileUploadOperator, tmp_path: Path) -> None:
    """A failed task names what went through, and a second run does not name it again."""
    (tmp_path / "outbound/good.csv").write_bytes(b"fine")
    (tmp_path / "outbound/same.csv").write_bytes(b"fine")
    (tmp_path / "outbound/bad.csv").write_bytes(b"REJECT: no such debtor")
    with pytest.raises(Exception, match="no such debtor"):
        operator.execute({})
    found = _lineage(operator)
    assert [(d.namespace, d.name) for d in found.inputs] == [("file", f"{tmp_path}/outbound/good.csv")]
    (tmp_path / "outbound/bad.csv").unlink()
    operator.if_duplicate = "skip"
    assert [r["outcome"] for r in operator.execute({})] == ["already_uploaded", "already_uploaded"]
    assert _lineage(operator) is None
    operator.source = ""
    with pytest.raises(ValueError, match="source is empty"):
        operator.execute({})
    assert _lineage(operator) is None


def test_an_event_is_bounded(
    operator: AmiliFileUploadOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More files than the bound are counted, not named."""
    monkeypatch.setattr(assets, "MOST_INPUTS", 2)
    for number in range(5):
        (tmp_path / f"outbound/{number}.csv").write_bytes(bytes([number]))
    operator.execute({})
    found = _lineage(operator)
    assert [d.name.rpartition("/")[2] for d in found.inputs] == ["0.csv", "1.csv"]
    assert found.outputs[0].outputFacets["outputStatistics"].fileCount == 5


def test_without_openlineage_there_is_no_lineage(
    operator: AmiliFileUploadOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its absence is no error."""
    (tmp_path / "outbound/good.csv").write_bytes(b"fine")
    operator.execute({})
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    assert operator.get_openlineage_facets_on_complete(None) is None


@pytest.mark.parametrize(
    ("url", "dataset"),
    [
        ("s3://invoices/out/a b.csv", ("s3://invoices", "out/a b.csv")),
        ("gs://invoices/a.csv", ("gs://invoices", "a.csv")),
        ("abfs://box/out/a.csv", ("abfs://box", "out/a.csv")),
        ("file:///out/a.csv", ("file", "/out/a.csv")),
        ("/out/a.csv", ("file", "/out/a.csv")),
        ("sftp://host:2222/out/a.csv", ("sftp://host:2222", "/out/a.csv")),
        ("smb://host/share/a.csv", ("smb://host", "/share/a.csv")),
        ("https://host/a.csv", ("https://host", "/a.csv")),
    ],
)
def test_files_are_named_as_openlineage_names_them(url: str, dataset: tuple[str, str]) -> None:
    """Lineage of other tools meets ours only under the same names."""
    assert dataset_of(url) == dataset


def test_the_asset_of_a_client_is_the_dataset_that_uploads_name() -> None:
    """Airflow finds the converter through the metadata, so that inlets elsewhere meet our outputs (Airflow 3)."""
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    asset = Asset("amili://api.amili.no/2218/")
    if not AIRFLOW_V_3_0_PLUS:
        assert asset.uri == "amili://api.amili.no/2218"
        return
    found = translate_airflow_asset(asset, None)
    assert found is not None
    assert (found.namespace, found.name) == ("amili://api.amili.no", "2218")


def test_an_asset_without_a_client_is_refused_where_it_is_written() -> None:
    """The DAG does not parse, and the message says how it is written (Airflow 3)."""
    from airflow.providers.common.compat.sdk import Asset

    if not AIRFLOW_V_3_0_PLUS:
        return
    with pytest.raises(ValueError, match="must be amili://<host>/<client number>"):
        Asset("amili://api.amili.no")
