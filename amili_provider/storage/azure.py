"""
What Airflow's Azure hooks read from a connection, but its Azure filesystem does not.

The filesystem needs the account's name beside its address, always speaks to ``https://``, knows neither the shared
access key nor a SAS token given as a whole URL, and is nobody where the hooks are the machine's own identity.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from amili_provider.storage.connections import StorageConnection


def azure_options(connection: StorageConnection) -> dict[str, Any] | None:
    """
    Return what has to be added to what Airflow's filesystem reads from *connection*.

    Needs the Azure provider: whose reading of the account's address it is.
    """

    def extra(name: str) -> str:
        value = connection.extra.get(name) or connection.extra.get(f"extra__{connection.conn_type}__{name}")
        return str(value or "")

    if extra("connection_string"):
        return None
    from airflow.providers.microsoft.azure.utils import parse_blob_account_url

    address = parse_blob_account_url(connection.host, connection.login).rstrip("/")
    sas = extra("sas_token").lstrip("?")
    if sas.startswith(("https://", "http://")):
        address, _, sas = sas.partition("?")
    # The same account, by the address that the filesystem speaks to.
    address = address.replace(".dfs.core.", ".blob.core.")
    host = urlsplit(address).netloc
    if sas:
        return {"connection_string": f"BlobEndpoint={address};SharedAccessSignature={sas}"}
    if extra("tenant_id"):
        return {"account_name": extra("account_name") or host.split(".")[0], "account_host": host}
    account = extra("account_name") or connection.login or host.split(".")[0]
    key = extra("shared_access_key") or connection.password or extra("account_key")
    if key:
        return {"connection_string": f"BlobEndpoint={address};AccountName={account};AccountKey={key}"}
    anonymous = extra("anon").casefold() in ("true", "1", "yes")
    return {"account_name": account, "account_host": host, "anon": anonymous}
