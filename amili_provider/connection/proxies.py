"""Proxies: how a URL of one is written, and what the environment of a process says of them. Messages repeat no URL."""

from __future__ import annotations

import ipaddress
import os
import re
from importlib.util import find_spec
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from amili_provider.connection.addresses import Address
from amili_provider.connection.values import is_unprintable

_HOW = (
    "write http://host:port, or http://user:password@host:port. In user and password, characters such as "
    "@ : / ? # [ ] % are percent-encoded, written as %40 %3A %2F %3F %23 %5B %5D %25"
)
_SOCKS = {
    "httpx": ("socksio", ("socks5", "socks5h")),
    "requests": ("socks", ("socks4", "socks4a", "socks5", "socks5h")),
}
"""Per HTTP library the module that it needs for SOCKS, and the schemes that it then knows."""
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\](/\d+)?")


def checked_proxy(url: str, name: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """
    Return the URL of a proxy.

    :param url: the URL, perhaps with a password in it.
    :param name: how the message names the field or variable.
    :param schemes: the kinds of proxies that can be used.
    :raises ValueError: if it cannot be read, or a character of its password ends the host too early.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        usable = False
    # A slash or hash sign of a password would leave its beginning as the host.
    if not usable or parts.path not in ("", "/") or any(c in "?#\\" or c.isspace() for c in url) or is_unprintable(url):
        raise ValueError(f"{name} is not a proxy's URL; {_HOW}.")
    return url


def _is_host(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return bool(_HOST.fullmatch(_ascii(name)))


def environment_proxy(url: str, library: Literal["httpx", "requests"]) -> str | None:
    """
    Return the proxy that the environment names for an address; None if it is reached directly.

    ``HTTPS_PROXY`` (or ``HTTP_PROXY``, by the address) counts before ``ALL_PROXY``. ``NO_PROXY`` may name hosts, with
    all below them, addresses and ranges of IPv4 and IPv6, each with a port, names in any script, and ``*``. This
    machine's own addresses need none.

    :param url: the address.
    :param library: what will use the proxy.
    :raises ValueError: naming the variable, if what it says cannot be read or used.
    """
    target, said = urlsplit(url), getproxies()
    kind = target.scheme if said.get(target.scheme) else "all"
    if not (proxy := said.get(kind)) or _is_direct(target, said.get("no", "")):
        return None
    variable = f"{kind}_proxy" if f"{kind}_proxy" in os.environ else f"{kind}_proxy".upper()
    name = f"{variable} in the environment of this process"
    scheme, separator, _ = proxy.partition("://")
    if not separator:
        return checked_proxy(f"http://{proxy}", name)
    module, socks = _SOCKS[library]
    if not scheme.casefold().startswith("socks"):
        return checked_proxy(proxy, name)
    if scheme.casefold() not in socks:
        raise ValueError(f"{name} names a kind of proxy that is not known; write {', '.join(socks)} or http.")
    if find_spec(module) is None:
        raise ValueError(
            f"{name} names a SOCKS proxy, which needs more: install {library}[socks], or write the URL of an HTTP "
            f"proxy, or name {target.hostname} in NO_PROXY."
        )
    return checked_proxy(proxy, name, socks)


def _is_direct(target: SplitResult, no_proxy: str) -> bool:
    """Return whether ``NO_PROXY`` names a host, or the host is this machine."""
    host = target.hostname or ""
    port = target.port or {"http": 80, "https": 443}.get(target.scheme, 0)
    if Address(target.scheme, host, port).loopback:
        return True
    for entry in re.split(r"[\s,]+", no_proxy):
        scheme, _, named = entry.rpartition("://")
        if scheme in ("", "all", target.scheme) and (named == "*" or _names(named, host, port)):
            return True
    return False


def _names(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of ``NO_PROXY`` means *host*; one that means no host at all is passed over, as usual."""
    bare = _IN_BRACKETS.fullmatch(entry)
    try:
        network = ipaddress.ip_network("".join(filter(None, bare.groups())) if bare else entry, strict=False)
    except ValueError:
        pass
    else:
        try:
            return ipaddress.ip_address(host) in network
        except ValueError:
            return False
    name, colon, named_port = entry.rpartition(":")
    if colon and named_port.isdecimal():
        return int(named_port) == port and _names(name, host, port)
    suffix, whole = _ascii(entry.removeprefix("*")), _ascii(host)
    return bool(suffix.strip(".")) and (whole == suffix or whole.endswith("." + suffix.removeprefix(".")))


def _ascii(name: str) -> str:
    """Return a host's name as name servers know it."""
    try:
        labels = name.casefold().rstrip(".").split(".")
        return ".".join(label and label.encode("idna").decode() for label in labels)
    except UnicodeError:
        return name.casefold()
