"""NO_PROXY, and the URLs of proxies: read as people write them."""

from __future__ import annotations

from urllib.parse import quote, unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.connection.addresses import checked_proxy, environment_proxy

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3/8", "https://10.9.9.9", True),
        ("fd00::/8", "https://[fd12::1]", True),
        ("[fd00::]/8", "https://[fd12::1]", True),
        ("fd00::/8", "https://[fe80::1]", False),
        ("fd00::/8", "https://10.1.2.3", False),
        ("fd00::1", "https://[fd00:0::1]:8443", True),
        ("[fd00::1]", "https://[fd00::1]", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443", True),
        ("[fd00::1]:8443", "https://[fd00::1]", False),
        ("10.0.0.1:8443", "https://10.0.0.1:8443", True),
        ("10.0.0.1:8443", "https://10.0.0.1", False),
        ("amili.no", "https://api.amili.no", True),
        ("AMILI.no.", "https://amili.no", True),
        (".amili.no", "https://api.amili.no", True),
        ("*.amili.no", "https://api.amili.no", True),
        ("amili.no", "https://notamili.no", False),
        ("amili.no:443", "https://api.amili.no", True),
        ("amili.no:8443", "https://api.amili.no", False),
        ("https://amili.no", "https://api.amili.no", True),
        ("http://amili.no", "https://api.amili.no", False),
        ("blåbær.example", "https://api.xn--blbr-roah.example", True),
        ("xn--blbr-roah.example", "https://api.blåbær.example", True),
        ("BLÅBÆR.example", "https://blåbær.example", True),
        ("a.example b.example\tc.example", "https://b.example", True),
        ("*", "https://api.amili.no", True),
        ("a.example, *", "https://api.amili.no", True),
        ("", "https://api.amili.no", False),
        (", ,. , *. ,:443,[,]:,http://,/8,amili.no/x,%", "https://api.amili.no", False),
        ("x" * 300 + "ø.no", "https://api.amili.no", False),
        ("", "http://127.0.0.1:8080", True),
        ("", "http://[::1]:8080", True),
        ("", "http://localhost", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy(variable: str, no_proxy: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to name a host, an address or a range exempts it, and nothing else."""
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv(variable, no_proxy)
    assert environment_proxy(url, "httpx") == (None if direct else PROXY)


@given(st.text(max_size=40).filter(lambda t: "\0" not in t and t.isprintable()))
def test_no_text_in_no_proxy_is_an_error(text: str) -> None:
    """Whatever NO_PROXY holds, there is an answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALL_PROXY", PROXY)
        patch.setenv("NO_PROXY", text)
        assert environment_proxy("https://[fd00::1]", "httpx") in (None, PROXY)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": "nonsense://"}, "https://a.example", PROXY),
        ({"HTTP_PROXY": "nonsense://", "https_proxy": PROXY}, "https://a.example", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://a.example", None),
        ({"all_proxy": "proxy.example:3128"}, "https://a.example", PROXY),
        ({"ALL_PROXY": "nonsense://", "NO_PROXY": "a.example"}, "https://a.example", None),
    ],
)
def test_only_the_variable_that_counts_is_read(
    variables: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that does not decide about an address may hold anything."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url, "httpx") == proxy


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_a_password_is_used_as_it_is_meant_or_refused(password: str) -> None:
    """A password that was written raw never leads to another host; written as the message says, it is that password."""
    for written in (password, quote(password, safe="")):
        try:
            url = checked_proxy(f"http://bob:{written}@proxy.example:3128", "X")
        except ValueError as reason:
            assert written is password or not password.isprintable()
            assert str(reason).startswith("X is not a proxy's URL; write http://host:port")
        else:
            made = httpx.Proxy(url)
            assert (made.url.host, made.url.port) == ("proxy.example", 3128)
            assert made.raw_auth == (b"bob", unquote(written).encode())
