"""Each connection is read as Airflow's hook reads it."""

from __future__ import annotations

import base64
import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import AmiliStorageError, AmiliStorageSettingsError
from amili_provider.operators.buckets import AmiliFileBucketsOperator
from amili_provider.storage.connections import BY_CONN_TYPE, KINDS, look_up
from amili_provider.storage.listing import list_files
from amili_provider.storage.opening import open_kind
from tests.readme import ROOT
from tests.storage.backends.azure import ACCOUNT, CONTAINER, KEY, Azure
from tests.storage.backends.base import Backend
from tests.storage.backends.ftp import Ftp, Ftps
from tests.storage.backends.gcs import Gcs
from tests.storage.backends.s3 import BUCKET, S3
from tests.storage.backends.sftp import Sftp
from tests.storage.backends.smb import Smb


def _only(kind: type[Backend]) -> Any:
    return pytest.mark.parametrize("backend", [kind.name], indirect=True)


def _connect(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], conn_id: str = "other") -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))


def _changed(store: Backend, extra: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    connection = {**store.connection(), **fields}
    return {**connection, "extra": {**connection.get("extra", {}), **(extra or {})}}


def _found(store: Backend, conn_id: str = "other") -> list[str]:
    return [file.name for file in list_files(store.url("*.csv"), conn_id)]


@pytest.fixture(name="filled")
def _filled(store: Backend) -> Backend:
    """The storage with one file in it."""
    store.put("a.csv", b"invoice")
    return store


@_only(Sftp)
def test_sftp_takes_a_key_from_a_file(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """``key_file`` logs in without a password."""
    assert isinstance(filled, Sftp)
    _connect(monkeypatch, filled.login({"key_file": str(filled.key)}))
    assert _found(filled) == ["a.csv"]


@_only(Sftp)
def test_sftp_takes_a_password(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password alone logs in."""
    assert isinstance(filled, Sftp)
    if not filled.account.made:
        pytest.skip("only root can make a user with a password, and run a server that checks it")
    _connect(monkeypatch, filled.login({}, password=filled.account.password))
    assert _found(filled) == ["a.csv"]


@_only(Sftp)
@pytest.mark.parametrize("conn_type", ["sftp", "ssh"])
def test_sftp_takes_an_inline_key(filled: Backend, monkeypatch: pytest.MonkeyPatch, conn_type: str) -> None:
    """``private_key`` logs in, with its passphrase where it has one, for both types of connection."""
    assert isinstance(filled, Sftp)
    _connect(monkeypatch, filled.login({"private_key": filled.key.read_text()}, conn_type=conn_type))
    assert _found(filled) == ["a.csv"]
    key = {"private_key": filled.locked_key.read_text(), "private_key_passphrase": "key-canary-pass"}
    _connect(monkeypatch, filled.login(key, conn_type=conn_type))
    assert _found(filled) == ["a.csv"]


@_only(Sftp)
def test_sftp_checks_the_host_s_key(filled: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host that is not known is refused unless the connection says not to check; so is one with another key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    unknown = _changed(filled)
    del unknown["extra"]["host_key"]
    _connect(monkeypatch, unknown)
    with pytest.raises(AmiliStorageSettingsError, match=r"'other'.*not known.*'host_key'.*known_hosts"):
        _found(filled)
    _connect(monkeypatch, _changed(filled, {"no_host_key_check": "true", "host_key": None}))
    assert _found(filled) == ["a.csv"]
    another = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    _connect(monkeypatch, _changed(filled, {"host_key": another}))
    with pytest.raises(AmiliStorageSettingsError, match=r"host key of .* is not the expected one"):
        _found(filled)


@_only(Sftp)
def test_sftp_refusals_are_one_sentence_without_a_secret(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong password, missing key file, locked key, key that is none: each says what to correct."""
    assert isinstance(filled, Sftp)
    cases: list[tuple[dict[str, Any], str]] = [
        (filled.login({}, password="wrong-canary"), "refuses the login .* Correct the login, password or key"),
        (filled.login({"key_file": "/no/such/key"}), "key file '/no/such/key' does not exist"),
        (filled.login({"key_file": str(filled.locked_key)}), "needs a passphrase"),
        (filled.login({"private_key": "wrong-canary"}), "cannot be used for SSH"),
    ]
    for connection, words in cases:
        _connect(monkeypatch, connection)
        with pytest.raises(AmiliStorageSettingsError, match=words) as caught:
            _found(filled)
        assert "canary" not in str(caught.value)
        assert "'other'" in str(caught.value)
        assert str(caught.value).count("\n") == 0


@_only(Sftp)
def test_a_relative_path_starts_where_the_server_puts_the_login(
    filled: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a leading slash a path is relative to the login's home; with one it is the server's own."""
    assert isinstance(filled, Sftp)
    relative = list_files(f"{filled.day}/*.csv", "partner")
    absolute = list_files(f"{filled.on_disk()}/*.csv", "partner")
    assert [file.url for file in relative] == [file.url for file in absolute]


@_only(Sftp)
def test_a_host_in_the_path_must_be_the_connection_s(filled: Backend) -> None:
    """A path to another server is refused before anything is asked; the right host, with or without port, is not."""
    with pytest.raises(ValueError, match=r"host 'evil\.example'.*127\.0\.0\.1"):
        list_files("sftp://evil.example/in/*.csv", "partner")
    with pytest.raises(ValueError, match="names a user"):
        list_files("sftp://somebody@127.0.0.1/in/*.csv", "partner")
    with pytest.raises(ValueError, match="password") as caught:
        list_files("sftp://me:canary@127.0.0.1/in/*.csv", "partner")
    assert "canary" not in str(caught.value)
    assert filled.wire is not None
    path = filled.url("*.csv").removeprefix("sftp://")
    assert len(list_files(f"sftp://127.0.0.1{path}", "partner")) == 1
    assert len(list_files(f"sftp://127.0.0.1:{filled.wire.port}{path}", "partner")) == 1


@_only(Ftp)
def test_ftp_reads_its_connection(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passive mode unless the connection says active, and a wrong password is one sentence."""
    assert isinstance(filled, Ftp)
    filled.commands.clear()
    assert _found(filled, "partner") == ["a.csv"]
    assert {"EPSV", "PASV"} & set(filled.commands)
    filled.commands.clear()
    _connect(monkeypatch, _changed(filled, {"passive": "false"}))
    assert _found(filled) == ["a.csv"]
    assert {"EPRT", "PORT"} & set(filled.commands)
    assert not {"EPSV", "PASV"} & set(filled.commands)
    _connect(monkeypatch, _changed(filled, password="wrong-canary"))
    with pytest.raises(AmiliStorageSettingsError, match=r"'other'.*refuses the login of 'partner'.*530") as caught:
        _found(filled)
    assert "canary" not in str(caught.value)
    with pytest.raises(AmiliStorageSettingsError, match="does not offer FTPS"):
        list_files(filled.url("*.csv").replace("ftp:", "ftps:"), "partner")


@_only(Ftps)
def test_ftps_checks_the_certificate(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that is not trusted is refused, and so is a login without TLS where the server demands it."""
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(AmiliStorageSettingsError, match=r"certificate of .* is not trusted"):
        _found(filled, "partner")
    plain = _changed(filled)
    plain["extra"] = {}
    _connect(monkeypatch, plain)
    with pytest.raises(AmiliStorageSettingsError, match="use ftps://"):
        list_files(filled.url("*.csv").replace("ftps:", "ftp:"), "other")


@_only(Smb)
def test_smb_reads_its_connection(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share in the schema or in the path; a wrong password or share is one sentence."""
    _connect(monkeypatch, _changed(filled, schema=None))
    assert len(list_files(f"smb:///partner/{filled.day}/*.csv", "other")) == 1
    assert len(list_files(f"smb://127.0.0.1/partner/{filled.day}/*.csv", "partner")) == 1
    with pytest.raises(ValueError, match="share 'else'"):
        list_files("smb://127.0.0.1/else/x.csv", "partner")
    _connect(monkeypatch, _changed(filled, password="wrong-canary"))
    with pytest.raises(AmiliStorageSettingsError, match=r"'other'.*refuses the login") as caught:
        _found(filled)
    assert "canary" not in str(caught.value)
    _connect(monkeypatch, _changed(filled, schema="nothere"))
    with pytest.raises(AmiliStorageSettingsError, match=r"'other'.*no such share.*schema"):
        _found(filled)
    _connect(monkeypatch, _changed(filled, schema=None))
    with pytest.raises(FileNotFoundError, match=r"/nothere with the connection 'other': it does not exist"):
        list_files("smb:///nothere/*.csv", "other")
    _connect(monkeypatch, _changed(filled, {"auth_protocol": "magic"}))
    with pytest.raises(AmiliStorageSettingsError, match="auth_protocol"):
        _found(filled)


@_only(S3)
def test_s3_bucket_of_the_connection(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a scheme is in the bucket that the connection names for S3."""
    _connect(monkeypatch, _changed(filled, {"service_config": {"s3": {"bucket_name": BUCKET}}}))
    assert [file.url for file in list_files(f"{filled.day}/*.csv", "other")] == [filled.url("a.csv")]
    assert [file.url for file in list_files(f"/{filled.day}/*.csv", "other")] == [filled.url("a.csv")]
    assert [file.url for file in list_files(filled.url("*.csv"), "other")] == [filled.url("a.csv")]


@_only(S3)
def test_a_bucket_of_paths_keeps_the_connection_that_its_source_names(
    filled: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload of the bucket is given no other; where the parameter names it, the paths need not."""
    _connect(monkeypatch, _changed(filled))
    named = filled.url("*.csv").replace("s3://", "s3://other@")
    for source, conn_id, path in (
        (named, None, filled.url("a.csv").replace("s3://", "s3://other@")),
        (named, "other", filled.url("a.csv")),
        (filled.url("*.csv"), "other", filled.url("a.csv")),
    ):
        buckets = AmiliFileBucketsOperator(task_id="buckets", source=source, source_conn_id=conn_id)
        assert buckets.execute({}) == [[path]]
        assert [file.name for file in list_files([path], conn_id)] == ["a.csv"]


@_only(S3)
def test_s3_endpoint_of_the_service(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that the connection names for S3 alone is used, as the hook uses it."""
    connection = _changed(filled)
    endpoint = connection["extra"].pop("endpoint_url")
    connection["extra"]["service_config"] = {"s3": {"endpoint_url": endpoint}}
    _connect(monkeypatch, connection)
    assert _found(filled) == ["a.csv"]


@_only(S3)
def test_s3_assumes_a_role(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """``role_arn`` is assumed with the connection's credentials, through the provider."""
    assert filled.wire is not None
    services = {"sts": {"endpoint_url": f"http://127.0.0.1:{filled.wire.port}"}}
    _connect(
        monkeypatch,
        _changed(filled, {"role_arn": "arn:aws:iam::123456789012:role/files", "service_config": services}),
    )
    filled.wire.requests.clear()
    assert _found(filled) == ["a.csv"]
    assert any(b"AssumeRole" in request or request.startswith(b"POST / ") for request in filled.wire.requests)


@_only(S3)
def test_s3_conn_id_in_the_path(filled: Backend) -> None:
    """``s3://conn_id@bucket`` names the connection, as ObjectStoragePath has it."""
    path = f"s3://partner@{BUCKET}/{filled.day}/*.csv"
    assert [file.url for file in list_files(path, None)] == [filled.url("a.csv")]
    with pytest.raises(ValueError, match="names the connection 'partner'"):
        list_files(path, "another")


@_only(Gcs)
def test_gcs_through_the_official_connection(filled: Backend) -> None:
    """The endpoint and the anonymous login are the ones that the Google hook reads."""
    assert _found(filled, "partner") == ["a.csv"]


@_only(Azure)
@pytest.mark.parametrize("conn_type", ["wasb", "adls"])
def test_azure_keys_as_the_hooks_take_them(filled: Backend, monkeypatch: pytest.MonkeyPatch, conn_type: str) -> None:
    """The account key works as password, as ``shared_access_key`` and as ``account_key``."""
    assert filled.wire is not None
    host = f"http://127.0.0.1:{filled.wire.port}/{ACCOUNT}"
    base = {"conn_type": conn_type, "host": host, "login": ACCOUNT}
    for connection in (
        {**base, "password": KEY},
        {**base, "extra": {"shared_access_key": KEY}},
        {**base, "extra": {"account_key": KEY}},
    ):
        _connect(monkeypatch, connection)
        assert _found(filled) == ["a.csv"]


@_only(Azure)
def test_azure_sas_tokens(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SAS token works by itself and as a whole URL, as the hook takes it."""
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    token = generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    assert filled.wire is not None
    host = f"http://127.0.0.1:{filled.wire.port}/{ACCOUNT}"
    for given in (token, f"?{token}", f"{host}?{token}"):
        _connect(monkeypatch, {"conn_type": "wasb", "host": host, "login": ACCOUNT, "extra": {"sas_token": given}})
        assert _found(filled) == ["a.csv"]


@_only(Azure)
def test_azure_container_before_the_account(filled: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """``container@account`` is understood, if the account is the connection's."""
    assert filled.wire is not None
    host = f"http://127.0.0.1:{filled.wire.port}/{ACCOUNT}"
    _connect(monkeypatch, {"conn_type": "wasb", "host": host, "login": ACCOUNT, "password": KEY})
    for scheme in ("abfs", "abfss"):
        path = f"{scheme}://{CONTAINER}@{ACCOUNT}.dfs.core.windows.net/{filled.day}/*.csv"
        assert [file.name for file in list_files(path, "other")] == ["a.csv"]
    with pytest.raises(ValueError, match="account 'else"):
        list_files(f"abfs://{CONTAINER}@else.dfs.core.windows.net/x.csv", "other")


# What needs no server.


def test_the_same_path_in_development_and_production(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the connection decides where ``/outbound/*.csv`` is: under the base path of an ``fs`` connection, say."""
    (tmp_path / "outbound").mkdir()
    (tmp_path / "outbound" / "a.csv").write_bytes(b"x")
    _connect(monkeypatch, {"conn_type": "fs", "extra": {"path": str(tmp_path)}}, "partner")
    for path in ("/outbound/*.csv", "outbound/*.csv", f"{tmp_path}/outbound/*.csv"):
        assert [file.name for file in list_files(path, "partner")] == ["a.csv"]
    with pytest.raises(ValueError, match=r"leaves the base path.*\.\."):
        list_files("../x/*.csv", "partner")


def test_local_files_need_no_connection(tmp_path: Path) -> None:
    """An absolute path is enough; a relative one is relative to nothing."""
    (tmp_path / "a.csv").write_bytes(b"x")
    assert list_files(str(tmp_path / "a.csv"), None)[0].url == f"file://{tmp_path}/a.csv"
    assert list_files(f"file://{tmp_path}/a.csv", None)[0].name == "a.csv"
    with pytest.raises(ValueError, match="relative"):
        list_files("a.csv", None)
    with pytest.raises(ValueError, match="host 'tmp'"):
        list_files("file://tmp/a.csv", None)


def test_a_filesystem_that_somebody_attached_is_used() -> None:
    """A scheme that Airflow does not know works if a filesystem was attached for it."""
    from fsspec.implementations.memory import MemoryFileSystem

    from amili_provider.storage.backends.local import attach

    fs = MemoryFileSystem()
    fs.pipe_file("/inbox/a.csv", b"invoice")
    attach(protocol="memory", conn_id="shelf", fs=fs)
    [file] = list_files("memory://inbox/*.csv", "shelf")
    with file.open() as stream:
        assert stream.read() == b"invoice"


@pytest.mark.parametrize(
    "value", ["['a.csv', 'b.csv']", '["a.csv"]', "[]", "('a.csv',)", "", "  ", None, [], 5, ["a", ""]]
)
def test_a_source_that_is_no_path_is_refused(value: Any) -> None:
    """A printed list, an empty value, a number: ``ValueError`` before anything is opened."""
    with pytest.raises(ValueError, match="source"):
        list_files(value, None)


@pytest.mark.parametrize(
    "path", ["/in/*.csv\n", "\n  /in/*.csv", " /in/*.csv", "/in/a.csv ", "/in/a.csv\r\n/in/b.csv", "exact:/in/a\n"]
)
def test_white_space_around_a_source_is_refused(path: str) -> None:
    """A template of several lines names no file, and would find none in silence."""
    for source in (path, ["/in/b.csv", path]):
        with pytest.raises(
            ValueError, match="begins or ends with blanks, or holds a line break.*several paths as a list"
        ):
            list_files(source, None)


def test_a_name_that_ends_in_a_blank_can_be_named(tmp_path: Path) -> None:
    """Found by a pattern, or named as its receipt shows it."""
    (tmp_path / "a.csv ").write_bytes(b"x")
    [found] = list_files(f"{tmp_path}/a.csv?", None)
    assert [file.name for file in list_files(f"exact:{found.url}", None)] == ["a.csv "]


def test_passed_through_schemes_are_said_to_be_untested(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheme that only Airflow's providers know is passed to them, with a word in the log."""
    from amili_provider.storage.backends import local

    def get_fs(protocol: str, conn_id: str | None) -> Any:
        raise ImportError(f"no {protocol} here")

    monkeypatch.setattr(local, "has_fs", lambda scheme: scheme == "webhdfs")
    monkeypatch.setattr(local, "get_fs", get_fs)
    with caplog.at_level(logging.WARNING), pytest.raises(AmiliStorageError, match="no webhdfs here"):
        list_files("webhdfs://cluster/x", None)
    assert "does not test it" in caplog.text


def test_the_connections_of_the_guide_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one opens its kind of storage, as far as that goes without a server."""
    page = (ROOT / "docs/storages.md").read_text(encoding="utf-8")
    written = json.loads(page.partition("<!-- test: connections -->\n```json\n")[2].partition("```")[0])
    kinds = set()
    for conn_id, connection in written.items():
        if connection["conn_type"] == "wasb":
            connection["password"] = base64.b64encode(b"a key").decode()
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        found = look_up(conn_id, "the guide")
        kind = BY_CONN_TYPE[found.conn_type]
        kinds.add(kind.protocol)
        if kind.protocol in ("sftp", "ftp", "smb") or conn_id == "google_cloud_default":
            continue  # to open these is to log in, or to read the key
        with closing(open_kind(kind, kind.schemes[0], found)) as storage:
            assert storage.kind is kind
    assert kinds == {kind.protocol for kind in KINDS}
