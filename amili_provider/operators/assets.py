"""
The button to a delivery's receipts, its assets' events, and OpenLineage's datasets.

Assets are declared by users as outlets of an upload, ``amili://<host>/<client number>``. OpenLineage's provider asks
after the task, also after one that failed; nothing of it is imported without that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from amili_provider.receipts import Outcome, Receipt

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

MOST_FILE_IDS = 100
"""File ids in an event at most: events are rows of the metadata database."""
MOST_INPUTS = 500
"""Input datasets of one event at most: an event is one HTTP request. The output's statistics count all files."""
_BUCKETS = ("s3", "gs", "abfs")
"""Schemes whose first part is a bucket: OpenLineage names what is in it without a leading slash."""


class AmiliReceiptsLink(BaseOperatorLink):
    """
    Leads to the tab *Amili receipts* of the task instance; before Airflow 3.1, which has none, to its log.

    The log ends with the same receipts in words.
    """

    name = "Amili receipts"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """
        Return where the receipts are.

        :param operator: not needed.
        :param ti_key: which task instance.
        """
        if not AIRFLOW_V_3_0_PLUS:
            asked = {"dag_run_id": ti_key.run_id, "task_id": ti_key.task_id, "tab": "logs"}
            if ti_key.map_index >= 0:
                asked["map_index"] = ti_key.map_index
            base = conf.get("webserver", "base_url", fallback="")
            return f"{base.rstrip('/')}/dags/{quote(ti_key.dag_id, safe='')}/grid?{urlencode(asked)}"
        dag_id, run_id, task_id = (quote(getattr(ti_key, name), safe="") for name in ("dag_id", "run_id", "task_id"))
        index = -1 if ti_key.map_index is None else ti_key.map_index
        mapped = f"/mapped/{index}" if index >= 0 else ""
        tab = "/plugin/amili-receipts" if AIRFLOW_V_3_1_PLUS else ""
        base = conf.get("api", "base_url", fallback="") or ""
        return f"{base.rstrip('/')}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}{tab}"


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an asset.

    :param uri: as Airflow split it.
    :raises ValueError: if it does not name a host and one client number.
    """
    client_no = uri.path.strip("/")
    if not uri.netloc or not client_no or "/" in client_no:
        raise ValueError("URI format amili:// must be amili://<host>/<client number>, as in amili://api.amili.no/2218")
    return uri._replace(path=f"/{client_no}")


def convert_asset_to_openlineage(asset: Any, lineage_context: Any) -> Any:  # noqa: ARG001 - Airflow's signature
    """
    Return the dataset that an upload to this client names as its output.

    :param asset: of the form above.
    :param lineage_context: not needed.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = urlsplit(asset.uri)
    return Dataset(namespace=f"amili://{uri.netloc}", name=uri.path.strip("/"))


def event_extra(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """
    Return what an asset event says of a delivery: counts, bytes, and the ids of the first files.

    :param receipts: of a task that succeeded.
    """
    delivered = [r for r in receipts if r.outcome.delivered]
    uploaded = [r for r in delivered if r.outcome is Outcome.UPLOADED]
    return {
        "amili": {
            "client_no": receipts[0].client_no if receipts else None,
            "file_type": receipts[0].file_type if receipts else None,
            "files_uploaded": len(uploaded),
            "bytes_uploaded": sum(r.size or 0 for r in uploaded),
            "files_already_uploaded": len(delivered) - len(uploaded),
            "file_ids": [r.file_id for r in delivered[:MOST_FILE_IDS]],
            "file_ids_cut": len(delivered) > MOST_FILE_IDS,
        }
    }


def fill_outlet_events(context: Any, outlets: Sequence[Any] | None, receipts: Sequence[Receipt]) -> None:
    """
    Write :func:`event_extra` into the event of each asset among *outlets*.

    :param context: Airflow's context; one without ``outlet_events`` is left as it is.
    :param outlets: the task's outlets.
    :param receipts: of a task that succeeded and delivered something.
    """
    events = context.get("outlet_events")
    if events is None or not outlets:
        return
    extra = event_extra(receipts)
    for outlet in outlets:
        # Assets (datasets before Airflow 3) have a URI; aliases and references are for their users to fill.
        if getattr(outlet, "uri", None):
            events[outlet].extra.update(extra)


def facets(receipts: Iterable[Receipt], base_url: str) -> OperatorLineage[Any, Any] | None:
    """
    Return the lineage of what this run sent, or None if it sent nothing or OpenLineage is absent.

    Only ``uploaded`` counts: what an earlier run delivered was in that run's event, and what has the same bytes as
    another file did not travel.

    :param receipts: of the run, whatever became of the task.
    :param base_url: of Amili's API.
    """
    sent = [receipt for receipt in receipts if receipt.outcome is Outcome.UPLOADED]
    if not sent:
        return None
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None
    return OperatorLineage(inputs=[_input(r) for r in sent[:MOST_INPUTS]], outputs=[_output(sent, base_url)])


def _input(receipt: Receipt) -> Any:
    """Return the file as a dataset whose version is its content's hash."""
    from airflow.providers.common.compat.openlineage.facet import InputDataset
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
    from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet

    namespace, name = dataset_of(receipt.source)
    return InputDataset(
        namespace=namespace,
        name=name,
        facets={"version": DatasetVersionDatasetFacet(datasetVersion=f"sha256:{receipt.sha256}")},
        inputFacets={"inputStatistics": InputStatisticsInputDatasetFacet(size=receipt.size, fileCount=1)},
    )


def _output(sent: Sequence[Receipt], base_url: str) -> Any:
    """Return the client at Amili as a dataset, with how much it got."""
    from airflow.providers.common.compat.openlineage.facet import OutputDataset, OutputStatisticsOutputDatasetFacet

    return OutputDataset(
        namespace=f"amili://{urlsplit(base_url).netloc}",
        name=sent[0].client_no,
        outputFacets={
            "outputStatistics": OutputStatisticsOutputDatasetFacet(
                size=sum(receipt.size or 0 for receipt in sent), fileCount=len(sent)
            )
        },
    )


def dataset_of(url: str) -> tuple[str, str]:
    """
    Return a file's namespace and name as OpenLineage writes them.

    :param url: as in the receipt.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "file", url
    host, _, path = rest.partition("/")
    if scheme == "file":
        return "file", f"/{path}"
    return f"{scheme}://{host}", path if scheme in _BUCKETS else f"/{path}"
