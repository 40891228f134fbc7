"""Which ledger a name and a connection mean, and what is no ledger."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from amili_provider.connection.fields import LEDGER_FROM_CONNECTION
from amili_provider.connection.settings import AmiliSettings, settings_from
from amili_provider.exceptions import AmiliLedgerUnavailable, AmiliStorageSettingsError
from amili_provider.ledger.opening import conn_id_for, create_in_file, ledger_from, store_from


def _settings(**extra: Any) -> AmiliSettings:
    extra = {"environment": "staging", "client_no": "10042", **extra}
    return settings_from("amili_here", login="id", password="secret", host=None, port=None, schema=None, extra=extra)


@pytest.fixture(name="connect")
def _connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an Airflow connection called ``books``."""

    def connect(**fields: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_BOOKS", json.dumps(fields))

    return connect


# None


@pytest.mark.parametrize("named", [None, "none", " None "])
def test_that_there_is_no_ledger_must_be_said(named: str | None) -> None:
    """None and the word are such a word, whatever the connection says."""
    assert ledger_from(named, _settings(ledger="sqlite:////nowhere/x.db")) is None


@pytest.mark.parametrize("named", ["", LEDGER_FROM_CONNECTION])
def test_a_ledger_that_nobody_named_is_an_error_with_the_ways_on(named: str) -> None:
    """What could happen twice, where to name one, what it can be, and how to do without."""
    with pytest.raises(ValueError, match=r"twice.*'amili_here'.*'amili_attempts'.*sqlite:////.*s3://.*ledger=None"):
        ledger_from(named, _settings())


# A file of SQLite


def test_a_file_of_sqlite_needs_no_connection(tmp_path: Path) -> None:
    """Named by the task or by the connection; the ledger knows its client, environment and waiting time."""
    for named, settings in (
        (create_in_file(tmp_path / "task.db"), _settings(ledger="sqlite:////elsewhere/x.db")),
        (LEDGER_FROM_CONNECTION, _settings(ledger=create_in_file(tmp_path / "connection.db"))),
    ):
        with ledger_from(named, settings, client_no=7) or pytest.fail("none") as ledger:
            assert (ledger.environment, ledger.client_no) == ("staging", "7")
            assert ledger.store.shown.startswith(f"sqlite:///{tmp_path}/")
            assert ledger.who is not None
            assert ledger.look_up(["0" * 32])["0" * 32].attempts == ()


def test_a_connection_of_type_sqlite_is_a_file_and_a_table(tmp_path: Path, connect: Any) -> None:
    """The file is its host, the table what is named; another table is another ledger, which is not there."""
    connect(conn_type="sqlite", host=str(tmp_path / "books.db"))
    creating = store_from("deliveries", _settings(ledger_conn_id="books"), create=True)
    identity, _ = creating.create()
    creating.close()
    with ledger_from("deliveries", _settings(ledger_conn_id="books")) or pytest.fail("none") as ledger:
        assert ledger.who == identity
        assert ledger.store.shown == f"sqlite:///{tmp_path}/books.db, table deliveries"
    with pytest.raises(AmiliLedgerUnavailable, match="does not exist.*table amili_attempts"):
        ledger_from(LEDGER_FROM_CONNECTION, _settings(ledger_conn_id="books"))


@pytest.mark.parametrize("named", ["sqlite:///ledger.db", "sqlite://ledger.db", "sqlite:ledger.db", "sqlite:////"])
def test_a_file_of_sqlite_is_named_absolutely(named: str) -> None:
    """Relative to what would be decided by each worker; the message shows how to write it."""
    with pytest.raises(ValueError, match=r"no absolute path of a file.*'sqlite:////var/lib/amili/ledger\.db'"):
        store_from(named, _settings())


def test_a_folder_that_is_not_there_stops_everything(tmp_path: Path) -> None:
    """A disk that is not mounted: nothing is begun beside it, and once it is there the ledger can be created."""
    path = tmp_path / "mount" / "ledger.db"
    for create in (True, False):
        with pytest.raises(AmiliLedgerUnavailable, match=rf"does not exist: the folder of {path} .*Mount the disk"):
            store_from(f"sqlite:///{path}", _settings(), create=create)
    path.parent.mkdir()
    create_in_file(path)


def test_opening_makes_no_file(tmp_path: Path) -> None:
    """A mistyped name is an error, and leaves nothing that could be taken for a ledger."""
    with pytest.raises(AmiliLedgerUnavailable, match="does not exist"):
        ledger_from(f"sqlite:///{tmp_path}/x.db", _settings())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    """Not taken for an empty ledger, and not written over."""
    (tmp_path / "x.db").write_text("name;amount\n" * 500)
    for create in (True, False):
        store = store_from(f"sqlite:///{tmp_path}/x.db", _settings(), create=create)
        with pytest.raises(AmiliLedgerUnavailable, match="not a database"):
            store.create() if create else store.open()
        store.close()
    assert (tmp_path / "x.db").read_text().startswith("name;amount")


@pytest.fixture(name="mount")
def _mount(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let Linux say that these are the mounts."""
    read = Path.read_text

    def mount(lines: str | OSError) -> None:
        def read_text(path: Path, **how: Any) -> str:
            if str(path) != "/proc/self/mounts":
                return read(path, **how)
            if isinstance(lines, OSError):
                raise lines
            return lines

        monkeypatch.setattr(Path, "read_text", read_text)

    return mount


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "glusterfs", "lustre"])
def test_sqlite_on_a_network_mount_is_refused(tmp_path: Path, mount: Any, kind: str) -> None:
    """Its locks do not hold between machines; the message names the kind, and what works."""
    mount(f"/dev/sda1 / ext4 rw 0 0\nserver:/share {tmp_path} {kind} rw 0 0\n")
    for create in (True, False):
        with pytest.raises(
            ValueError, match=rf"mount of kind {kind}, where .*locks do not hold.*a table of a database"
        ):
            store_from(f"sqlite:///{tmp_path}/x.db", _settings(), create=create)


@pytest.mark.parametrize(
    "mounts",
    [
        "/dev/sda1 / ext4 rw 0 0\n",
        "server:/ / nfs rw 0 0\n/dev/sda1 {tmp} ext4 rw 0 0\n",
        "server:/ {tmp} nfs rw 0 0\n/dev/sda1 {tmp} ext4 rw 0 0\n",
        "/dev/sda1 / ext4 rw 0 0\nserver:/ {tmp}-other nfs rw 0 0\n",
        "/dev/sda1 / ext4 rw 0 0\nserver:/ {tmp}/below nfs rw 0 0\n",
        "/dev/sdb1 {tmp} fuseblk rw 0 0\n",
    ],
)
def test_sqlite_on_a_disk_of_this_machine_is_not(tmp_path: Path, mount: Any, mounts: str) -> None:
    """The innermost mount counts, of two on one point the later one, and a name that only begins alike is another."""
    mount(mounts.replace("{tmp}", str(tmp_path)))
    store_from(f"sqlite:///{tmp_path}/x.db", _settings()).close()


def test_a_network_mount_is_found_behind_blanks_and_links(tmp_path: Path, mount: Any) -> None:
    """A mount point with a blank in it, reached by a link to the folder or to the file."""
    share = tmp_path / "a share"
    share.mkdir()
    (tmp_path / "folder").symlink_to(share)
    (tmp_path / "file.db").symlink_to(share / "x.db")
    mount(f"/dev/sda1 / ext4 rw 0 0\nserver:/ {tmp_path}/a\\040share nfs4 rw 0 0\n")
    for path in (share / "x.db", tmp_path / "folder" / "x.db", tmp_path / "file.db"):
        with pytest.raises(ValueError, match="mount of kind nfs4"):
            store_from(f"sqlite:///{path}", _settings())


@pytest.mark.parametrize("kind", ["ext4", "overlay", "nfs4"])
def test_a_file_that_is_mounted_alone_is_refused(tmp_path: Path, mount: Any, kind: str) -> None:
    """SQLite's log is beside it, in no other container: what one has written the other does not know."""
    for name in ("x.db", "a (b).db"):
        (tmp_path / name).touch()
        (tmp_path / "link.db").unlink(missing_ok=True)
        (tmp_path / "link.db").symlink_to(tmp_path / name)
        point = f"{tmp_path}/{name}".replace(" ", "\\040")
        mount(f"/dev/sda1 / ext4 rw 0 0\n/dev/sda1 {point} {kind} rw 0 0\n")
        for path in (tmp_path / name, tmp_path / "link.db"):
            with pytest.raises(ValueError, match="is mounted as a single file.*mount its folder"):
                store_from(f"sqlite:///{path}", _settings())


def test_where_mounts_cannot_be_told_sqlite_is_taken(tmp_path: Path, mount: Any) -> None:
    """Not every system has them."""
    mount(FileNotFoundError("/proc/self/mounts"))
    store_from(f"sqlite:///{tmp_path}/x.db", _settings()).close()


# A table of a database


@pytest.mark.parametrize(
    ("named", "ledger", "table"),
    [
        (LEDGER_FROM_CONNECTION, None, "amili_attempts"),
        (LEDGER_FROM_CONNECTION, "deliveries", "deliveries"),
        ("finance.deliveries", "other", "finance.deliveries"),
    ],
)
def test_a_table_is_in_the_database_of_the_ledgers_connection(
    connect: Any, named: str, ledger: str | None, table: str
) -> None:
    """By default the usual table; the name in messages holds host, database and table, and no secret."""
    connect(conn_type="postgres", host="db.example.com", schema="books", login="kari", password="canary")
    settings = _settings(ledger_conn_id="books", **({"ledger": ledger} if ledger else {}))
    store = store_from(named, settings)
    assert store.shown == f"postgres://db.example.com/books, table {table}"
    store.close()


def test_a_table_needs_a_database(connect: Any) -> None:
    """The field that is missing is named as the form labels it."""
    with pytest.raises(ValueError, match=r"'deliveries' is a table, but no database is named.*'ledger_conn_id'"):
        store_from("deliveries", _settings())


@pytest.mark.parametrize("conn_type", ["snowflake", "redshift", "aws", "http", "mssql"])
def test_a_connection_that_can_keep_no_table_is_refused(connect: Any, conn_type: str) -> None:
    """Only databases that are known to enforce unique keys; the message names its type and those that work."""
    connect(conn_type=conn_type, host="db.example.com")
    with pytest.raises(ValueError, match=rf"'books' .*type '{conn_type}'.*postgres, mysql, sqlite.*unique key"):
        store_from("deliveries", _settings(ledger_conn_id="books"))


def test_a_connection_that_is_not_there_is_named() -> None:
    """A spelling mistake in the field."""
    with pytest.raises(AmiliStorageSettingsError, match="no Airflow connection with the id 'bokks'"):
        store_from("deliveries", _settings(ledger_conn_id="bokks"))


def test_a_driver_that_is_not_installed_is_named_with_its_remedy(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL's client library cannot be imported; the extra brings it. No secret is in the message."""
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    connect(conn_type="mysql", host="db.example.com", schema="books", login="kari", password="canary")
    with pytest.raises(
        AmiliLedgerUnavailable, match=r"mysql://db\.example\.com/books .*pip install 'airflow-provider-amili\[mysql\]'"
    ) as refused:
        store_from("deliveries", _settings(ledger_conn_id="books"))
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "named", ["a table", "a;DROP TABLE x", '"quoted"', "a.b.c", "1st", "x" * 60, "a-b", ".a", "a.", "%", "a\nb"]
)
def test_a_table_has_a_plain_name(connect: Any, named: str) -> None:
    """Letters, digits and underscores, perhaps a schema: nothing that would have to be quoted."""
    connect(conn_type="postgres", host="db.example.com")
    with pytest.raises(ValueError, match="The ledger cannot be kept in '.*'. A ledger is a table of a database"):
        store_from(named, _settings(ledger_conn_id="books"))


# Objects


@pytest.mark.parametrize(
    ("named", "conn"),
    [
        (
            "s3://books/amili/",
            {"conn_type": "aws", "login": "AKIA", "password": "x", "extra": {"region_name": "eu-north-1"}},
        ),
        ("gs://books/amili", {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": "x"}}),
        ("abfs://books/amili", {"conn_type": "wasb", "login": "account", "password": "a2V5"}),
    ],
)
def test_objects_are_below_a_prefix_of_a_bucket(connect: Any, named: str, conn: dict[str, Any]) -> None:
    """With the connection of that storage; a slash at the end is none."""
    connect(**conn)
    store = store_from(LEDGER_FROM_CONNECTION, _settings(ledger=named, ledger_conn_id="books"))
    assert store.shown == named.rstrip("/")
    store.close()


@pytest.mark.parametrize(
    "named",
    [
        "/var/lib/amili",
        "amili/ledger",
        "file:///var/lib/amili",
        "sftp://kari:canary@files.example.com/ledger",
        "ftp://files.example.com/ledger",
        "smb://files/share/ledger",
        "https://files.example.com/ledger?signature=canary",
        "hdfs://namenode/ledger",
        "postgresql://kari:canary@db.example.com/books",
        "mysql://db.example.com/books",
    ],
)
def test_what_cannot_decide_who_was_first_is_refused(named: str) -> None:
    """Folders of disks, shares and servers, and the address of a database: what works is said, and no secret."""
    with pytest.raises(ValueError, match=r"cannot be kept in .*A ledger is a table.*sqlite:////.*s3://") as refused:
        store_from(named, _settings())
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("ledger", "conn_type", "url", "conn_id"),
    [
        ("s3://books/x", "aws", "s3://books/x", "books"),
        ("s3://books/x", "aws", "s3://books/y", "books"),
        ("s3://books/x", "aws", "gs://books/x", None),
        ("deliveries", "postgres", "s3://books/x", None),
        (None, "postgres", "s3://books/x", None),
        (None, "aws", "s3://books/x", "books"),
    ],
)
def test_the_connection_of_the_ledger_is_not_used_for_another_storage(
    connect: Any, ledger: str | None, conn_type: str, url: str, conn_id: str | None
) -> None:
    """A task that names a bucket does not open it with the connection's database, nor Google's with Amazon's."""
    connect(conn_type=conn_type)
    settings = _settings(ledger_conn_id="books", **({"ledger": ledger} if ledger else {}))
    assert conn_id_for(url, settings) == conn_id
