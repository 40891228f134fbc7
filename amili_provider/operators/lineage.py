"""
What a delivery tells OpenLineage: the files that reached Amili, and where they went.

Asked for by the OpenLineage provider after the task, also after one that failed. Nothing here is imported without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from amili_provider.receipts import Outcome, Receipt

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

MOST_INPUTS = 500
"""Input datasets of one event at most: an event is one HTTP request. The output's statistics count all files."""

_BUCKETS = ("s3", "gs", "abfs")
"""Schemes whose first part is a bucket: OpenLineage names what is in it without a leading slash."""


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
