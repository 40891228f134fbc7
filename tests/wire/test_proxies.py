"""Proxies of the connection and of the environment, through every door: used as written, or refused by name."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from amili_provider.connection import addresses
from amili_provider.exceptions import AmiliArgumentError
from amili_provider.hooks.amili import AmiliHook
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sandbox.server import SandboxServer
from amili_provider.sensors.amili import AmiliBatchSensor, AmiliFileResultSensor
from amili_provider.triggers.amili import AmiliFileResultTrigger
from tests.crossed import crossed
from tests.ledgers import new_ledger
from tests.unit.simulated import World, first_event, run
from tests.wire.proxies import forward_proxy
from tests.wire.rawserver import RawServer
from tests.words import across_lines

PASSWORD = "p@ss:wo/rd#100%?[x]"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(name="environment")
def _environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the variables of proxies, and no others."""

    def environment(**variables: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return environment


@pytest.fixture(name="proxy")
def _proxy() -> Iterator[RawServer]:
    with forward_proxy(PASSWORD) as proxy:
        yield proxy


@pytest.fixture(name="far_amili")
def _far_amili(
    amili_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., SandboxServer]:
    """Point the connection at the sandbox under names that only a proxy knows."""

    def far(host: str = "amili.example", **extra: Any) -> SandboxServer:
        connection = json.loads(amili_sandbox.connection_json())
        connection["host"] = f"http://{host}:{amili_sandbox.port}"
        del connection["port"]
        connection["extra"] |= {
            "auth_url": f"http://auth.{host}:{amili_sandbox.port}",
            "allow_http": True,
            "ledger": new_ledger(tmp_path),
            **extra,
        }
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_DEFAULT", json.dumps(connection))
        monkeypatch.setattr(amili_sandbox, "names", {host, f"auth.{host}"})
        return amili_sandbox

    far()
    return far


# The doors: each asks or sends, and raises what a task would.


def _upload(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "a.csv").write_bytes(b"1")
    AmiliFileUploadOperator(task_id="t", source=f"{tmp_path}/out/*.csv", file_type="InvoiciaFormatDocFile").execute({})


def _ask(_: Path) -> None:
    with AmiliHook() as hook:
        hook.get_file_result("a")


def _test(_: Path) -> None:
    worked, words = AmiliHook().test_connection()
    if not worked:
        raise AmiliArgumentError(words)


def _sensor(mode: str, make: Any, flag: str = "", **wanted: Any) -> Callable[[Path], None]:
    def wait(_: Path) -> None:
        flags = {flag: True} if flag else {}
        ending = run(mode, World(), make, timeout=0.001, **wanted, **flags)
        # A sandbox without a script knows no result, so that the time runs out.
        if ending.error != "AirflowSensorTimeout" and ending.state != "skipped":
            assert ending.state == "failed"
            make(task_id="w", deferrable=mode == "deferrable", timeout=0.001, **wanted).execute({})

    return wait


def _trigger(_: Path) -> None:
    trigger = AmiliFileResultTrigger(
        file_ids={"2218": ["a"]}, amili_conn_id="amili_default", poke_interval=1, started_at=0, deadline=1
    )
    event = asyncio.run(first_event(trigger))
    if event["ending"] == "failed":
        AmiliFileResultSensor(task_id="w", file_ids=["a"], deferrable=True).execute_complete({}, event)


DOORS = {
    "operator": _upload,
    "hook": _ask,
    "connection test": _test,
    "trigger": _trigger,
    **{mode: _sensor(mode, AmiliFileResultSensor, file_ids=["a"]) for mode in ("poke", "reschedule", "deferrable")},
    "poke, soft": _sensor("poke", AmiliFileResultSensor, "soft_fail", file_ids=["a"]),
    "poke, never failing": _sensor("poke", AmiliFileResultSensor, "never_fail", file_ids=["a"]),
    "batch": _sensor("deferrable", AmiliBatchSensor, "soft_fail", batch_uuid="a"),
}
every_door = pytest.mark.parametrize("door", DOORS)

UNUSABLE = {
    "HTTP_PROXY": (
        "http://bob:abc:canary/x@127.0.0.1:3128",
        "http://bob:12/canary@127.0.0.1:3128",
        "http://bob:12#canary@127.0.0.1:3128",
        "http://bob:12?canary@127.0.0.1:3128",
        "http://bob:[canary@127.0.0.1:3128",
        "bob:can/ary@127.0.0.1:3128",
        "http://canary:99999",
        "gopher://canary:1",
    ),
    "ALL_PROXY": ("socks5://127.0.0.1:1080/canary", "socks://canary:1080/", "socks5://canary:1080", "http://ca nary:1"),
}


@pytest.mark.parametrize(
    ("variable", "door"), crossed([(name, value) for name, values in UNUSABLE.items() for value in values], DOORS)
)
def test_what_cannot_be_used_is_refused_by_its_name(
    variable: tuple[str, str],
    door: str,
    environment: Callable[..., None],
    far_amili: Callable[..., SandboxServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy that cannot be read or used ends every door for good, with the variable's name and not its value."""
    monkeypatch.setattr(addresses, "find_spec", lambda _: None)
    environment(**dict([variable]))
    with pytest.raises(AmiliArgumentError, match=f"{variable[0]} in the environment of this process") as caught:
        DOORS[door](tmp_path)
    shown = "".join(traceback.format_exception(caught.value))
    assert "canary" not in shown
    assert "can/ary" not in shown
    assert "ca nary" not in shown
    assert far_amili().count("upload") == 0


@every_door
def test_a_password_is_written_as_the_message_says(
    door: str,
    environment: Callable[..., None],
    far_amili: Callable[..., SandboxServer],
    proxy: RawServer,
    tmp_path: Path,
) -> None:
    """The message says how to write special characters; so written they pass a real proxy, for API and token alike."""
    environment(HTTP_PROXY=f"http://bob:{PASSWORD}@127.0.0.1:{proxy.port}")
    with pytest.raises(AmiliArgumentError, match=across_lines("percent-encoded, written as (.*)[.] Or")) as caught:
        DOORS[door](tmp_path)
    assert all(quote(c, safe="") in str(caught.value) for c in PASSWORD if not c.isalnum())
    environment(HTTP_PROXY=f"http://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}")
    DOORS[door](tmp_path)
    hosts = {request.target.split("/")[2].partition(":")[0] for request in proxy.requests}
    assert hosts == {"amili.example", "auth.amili.example"}


@every_door
def test_the_connections_own_proxy_is_written_the_same_way(
    door: str,
    environment: Callable[..., None],
    far_amili: Callable[..., SandboxServer],
    proxy: RawServer,
    tmp_path: Path,
) -> None:
    """'Proxy URL' is refused in the same words, is used when written so, and outweighs an unusable environment."""
    environment(ALL_PROXY="nonsense://x", NO_PROXY="*")
    far_amili(proxy=f"http://bob:{PASSWORD}@127.0.0.1:{proxy.port}")
    said = across_lines("'Proxy URL' .* percent-encoded, written as %40 %3A %2F")
    with pytest.raises(ValueError, match=said) as caught:
        DOORS[door](tmp_path)
    assert "wo/rd" not in str(caught.value)
    far_amili(proxy=f"http://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}")
    DOORS[door](tmp_path)
    assert proxy.requests


@pytest.mark.parametrize("remedy", ["NO_PROXY", "HTTP_PROXY", "the connection"])
def test_the_ways_out_of_a_socks_proxy_work(
    remedy: str,
    environment: Callable[..., None],
    far_amili: Callable[..., SandboxServer],
    proxy: RawServer,
    tmp_path: Path,
) -> None:
    """Each thing that the message about a SOCKS proxy advises lets the task go on."""
    url = f"http://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}"
    environment(ALL_PROXY="socks5://127.0.0.1:1")
    with pytest.raises(AmiliArgumentError, match=r"httpx\[socks\].* name amili.example in NO_PROXY.* 'Proxy URL'"):
        _ask(tmp_path)
    if remedy == "the connection":
        far_amili(proxy=url)
    elif remedy == "NO_PROXY":
        # There is no way to that host without a proxy, which is what a direct attempt meets.
        environment(ALL_PROXY="socks5://127.0.0.1:1", NO_PROXY="amili.example")
        with pytest.raises(Exception, match="has a name that is not known here"):
            _ask(tmp_path)
        return
    else:
        environment(ALL_PROXY="socks5://127.0.0.1:1", HTTP_PROXY=url)
    _ask(tmp_path)


NO_PROXY = (
    "localhost,127.0.0.1,10.0.0.0/8,fd00::/8",
    "localhost,[::1]",
    "intern.blåbær.example",
    "http://[",
    "::1/99, ,:80",
)


@pytest.mark.parametrize(("door", "no_proxy"), crossed(DOORS, NO_PROXY))
def test_no_entry_of_no_proxy_is_in_the_way(
    door: str,
    no_proxy: str,
    environment: Callable[..., None],
    far_amili: Callable[..., SandboxServer],
    proxy: RawServer,
    tmp_path: Path,
) -> None:
    """Ranges, brackets, names in any script and nonsense in NO_PROXY leave other hosts to the proxy."""
    environment(HTTP_PROXY=f"http://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}", NO_PROXY=no_proxy)
    DOORS[door](tmp_path)
    assert proxy.requests


def test_each_service_goes_its_own_way(
    environment: Callable[..., None], far_amili: Callable[..., SandboxServer], proxy: RawServer, tmp_path: Path
) -> None:
    """A token service on this machine is asked directly, though the API is behind a proxy."""
    sandbox = far_amili()
    far_amili(auth_url=f"http://127.0.0.1:{sandbox.port}")
    environment(ALL_PROXY=f"http://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}")
    _ask(tmp_path)
    assert {request.target.split("/")[2].partition(":")[0] for request in proxy.requests} == {"amili.example"}
    assert sandbox.count("token") == 1


def test_a_proxy_of_the_environment_in_trouble_is_named(
    environment: Callable[..., None], far_amili: Callable[..., SandboxServer], proxy: RawServer, tmp_path: Path
) -> None:
    """A proxy that is down, or refuses the password, leads to the variables and not to an empty field."""
    environment(ALL_PROXY="http://bob:canary@127.0.0.1:1")
    with pytest.raises(Exception, match="the proxy 127.0.0.1:1 refuses connections; check HTTPS_PROXY, ALL_PROXY"):
        _ask(tmp_path)
