"""
Each wrong configuration, on each storage, is one sentence.

It says what was tried, with which connection, what the server said and what to do, and no secret.
"""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import pytest

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.storage.connections import KINDS, Kind, look_up
from amili_provider.storage.errors import explain
from amili_provider.storage.listing import list_files
from tests.storage.backends.base import Backend
from tests.storage.backends.gcs import Gcs
from tests.storage.backends.sftp import Sftp


def _connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, **connection: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))


def _sentence(source: str, conn_id: str | None) -> str:
    """Return what the failure says, which no retry would change, after looking at what holds for each."""
    with pytest.raises(AmiliStorageSettingsError) as caught:
        list_files(source, conn_id)
    said = str(caught.value)
    assert "\n" not in said
    assert "canary" not in said.casefold()
    assert said.startswith(("Cannot ", "Nothing here can open "))
    assert conn_id is None or repr(conn_id) in said
    return said


def test_a_connection_that_is_not_there(store: Backend) -> None:
    """Path and id are named, with a scheme and without."""
    for path in (store.url("*.csv"), store.bare("*.csv")):
        said = _sentence(path, "not_there")
        assert path in said
        assert "there is no Airflow connection with the id 'not_there'. Create it" in said


def test_a_connection_that_is_no_storage(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database is no storage, whatever the path."""
    _connect(monkeypatch, "a_database", conn_type="postgres", host="127.0.0.1", password="canary")
    for path in (store.url("*.csv"), store.bare("*.csv")):
        said = _sentence(path, "a_database")
        assert path in said
        assert "of type 'postgres'" in said
        assert "Choose another connection" in said


def test_a_login_that_is_refused(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, key or token is the connection's fault, and the server's words are shown."""
    wrong = store.wrong_login()
    if wrong is None:
        pytest.skip("nobody logs in here")
    _connect(monkeypatch, "other", **wrong)
    said = _sentence(store.url("*.csv"), "other")
    assert store.url().partition("://")[0] in said
    assert "Correct the " in said
    assert not any(secret in said for secret in store.secrets())
    words = (
        "Authentication failed",
        "530 ",
        "logon is invalid",
        "No such access key",
        "Anonymous credentials",
        "authenti",
    )
    assert any(word in said for word in words), said


@pytest.mark.parametrize("backend", [Sftp.name], indirect=True)
def test_nothing_to_log_in_with(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SFTP connection with neither password nor key is not a server that is down."""
    connection = store.connection()
    connection["extra"].pop("key_file", None)
    _connect(monkeypatch, "other", **{**connection, "password": None})
    assert "neither a password nor a key. Add one" in _sentence(store.url("*.csv"), "other")


@pytest.mark.parametrize("backend", [Gcs.name], indirect=True)
def test_a_request_that_the_storage_calls_invalid(store: Backend) -> None:
    """A bucket that cannot be called so, for example: permanent, and a sentence, whatever the library raises."""
    assert store.wire is not None
    body = b'{"error": {"code": 400, "message": "The bucket name is invalid"}}'
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    store.wire.forbid(store.day.encode(), answer + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert "bucket name is invalid. Correct the bucket" in _sentence(store.url("*.csv"), "partner")


def test_a_host_that_is_missing(store: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's connection that names no server says so."""
    connection = store.connection()
    if "host" not in connection:
        pytest.skip("its connection needs no host")
    _connect(monkeypatch, "other", **{**connection, "host": None})
    said = _sentence(f"{store.url().partition('://')[0]}:///*.csv", "other")
    assert "host" in said
    assert "Add it" in said or "Correct its host" in said


# What needs no server.


@pytest.mark.parametrize(
    ("kind", "module"), [(kind, module) for kind in KINDS for module in kind.modules], ids=lambda one: str(one)[:40]
)
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, kind: Kind, module: str) -> None:
    """The sentence names path and connection, and ends with the very command that helps."""
    _connect(monkeypatch, "partner", conn_type=kind.conn_types[0], host="127.0.0.1", port=1, password="canary")
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else known(name))
    path = f"{kind.schemes[0]}://here/a.csv"
    said = _sentence(path + ("?signature=canary" if kind.protocol == "http" else ""), "partner")
    assert path in said
    assert said.endswith(f"pip install 'airflow-provider-amili[{kind.extra}]'")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.needs_connection], ids=lambda kind: kind.protocol)
def test_a_server_without_a_connection(kind: Kind) -> None:
    """The type that is needed is named, and where to name the connection."""
    said = _sentence(f"{kind.protocol}:///a.csv", None)
    assert f"needs an Airflow connection of type {kind.conn_types[0]}" in said
    assert "source_conn_id" in said


def test_an_unknown_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """What works is listed, with every scheme's connection types."""
    _connect(monkeypatch, "partner", conn_type="aws")
    for conn_id in (None, "partner"):
        said = _sentence("what://x/a.csv?signature=canary", conn_id)
        assert "Nothing here can open what:// (what://x/a.csv)" in said
        assert all(f"{kind.schemes[0]}://, connection type {kind.conn_types[0]}" in said for kind in KINDS)


def test_scheme_and_connection_that_do_not_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 connection opens no GCS bucket, and the message shows no address's signature."""
    _connect(monkeypatch, "a_bucket", conn_type="aws", password="canary")
    assert "gs:// needs a connection of type google_cloud_platform, but" in _sentence("gs://b/x", "a_bucket")
    assert "https://h/x: https:// needs" in _sentence("https://h/x?signature=canary", "a_bucket")


def test_a_server_that_does_not_answer_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is no fault of the settings: Airflow may retry."""
    _connect(monkeypatch, "a_server", conn_type="sftp", host="127.0.0.1", port=1, password="canary")
    words = r"'a_server'.*no connection to 127\.0\.0\.1:1.*check the host and port of connection 'a_server'"
    with pytest.raises(AmiliStorageError, match=words) as caught:
        list_files("sftp:///x", "a_server")
    assert not isinstance(caught.value, AmiliStorageSettingsError)


def test_a_host_that_an_aws_connection_does_not_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's hook reads the extra 'endpoint_url' alone; a server in the field Host is not asked."""
    from botocore.exceptions import EndpointConnectionError

    _connect(monkeypatch, "mine", conn_type="aws", host="minio", login="key", password="secret")
    unreached = EndpointConnectionError(endpoint_url="https://b.s3.amazonaws.com/")
    assert "The field Host of connection 'mine' is not read: name the server in its extra 'endpoint_url'" in str(
        explain("list", "s3://b/x", look_up("mine", "s3://b/x"), unreached)
    )


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://h/*.csv", "HTTP has no listing"),
        ("s3://b/{a,c}.csv", "Correct the path. Braces are no pattern: give a list of paths."),
        ("/in/x", "Correct the path, or create the folder if it names one."),
    ],
)
def test_the_advice_for_a_path_that_is_not_there_fits_its_storage(url: str, advice: str) -> None:
    """No folder is to be created on a web server or in a bucket."""
    assert advice in str(explain("list", url, None, FileNotFoundError(url)))


def test_an_extra_that_is_no_json_is_said_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose extra cannot be read is a sentence, and keeps what is in it."""
    _connect(monkeypatch, "broken", conn_type="aws", extra='{"aws_secret_access_key": "canary')
    with pytest.raises(AmiliStorageSettingsError, match=r"s3://b/x.*extra.*'broken' is not a JSON") as caught:
        list_files("s3://b/x", "broken")
    assert "canary" not in str(caught.value)


def test_the_query_of_a_path_without_a_scheme_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the signature of a path on a web server, whatever the connection turns out to be."""
    _connect(monkeypatch, "a_database", conn_type="mysql")
    for conn_id in ("not_there", "a_database"):
        assert "files/x.csv" in _sentence("files/x.csv?signature=canary", conn_id)


def test_a_token_service_that_is_not_reached_may_be_tried_again() -> None:
    """Google's library calls that a refused login; it is one only if nothing in the chain says that it may pass."""
    from google.auth import exceptions

    google: Any = exceptions  # its classes have no types
    refused, transient, unreached = (google.RefreshError("x", retryable=one) for one in (False, True, False))
    unreached.__cause__ = google.TransportError("no route to the metadata server")
    for error, kind in (
        (refused, AmiliStorageSettingsError),
        (transient, AmiliStorageError),
        (unreached, AmiliStorageError),
    ):
        assert type(explain("list", "gs://b/x", None, error)) is kind


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            {"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\\nkey-canary\\n"},
            "'private_key' must be the key itself.*line",
        ),
        ({"private_key": "-----BEGIN RSA PRIVATE KEY----- key-canary"}, "'private_key' must be the key itself.*line"),
        ({"private_key": "/home/airflow/.ssh/id_canary"}, "a path goes into the extra 'key_file'"),
        ({"host_key": "not-a-key"}, "'host_key' must be algorithm and key, without the host before them: ssh-ed25519"),
        ({"host_key": "[h]:22 ssh-ed25519 AAAAC3"}, "'host_key' must be algorithm and key, without the host"),
    ],
)
def test_a_key_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], words: str) -> None:
    """The field, and how it is to be written; never the key."""
    _connect(monkeypatch, "partner", conn_type="sftp", host="127.0.0.1", login="p", extra=extra)
    assert re.search(words, _sentence("sftp:///out/*.csv", "partner"))
