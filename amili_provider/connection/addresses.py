"""
Addresses of an API, a token service, a proxy: read from a connection or the environment, compared, refused if unsafe.

Messages repeat no URL of a proxy: it can hold a password.
"""

from __future__ import annotations

import ipaddress
import os
import re
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

from amili_provider.connection.fields import label
from amili_provider.connection.values import as_text, is_unprintable

_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535
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


class Address(NamedTuple):
    """
    Where a service is.

    :param scheme: ``http`` or ``https``.
    :param host: lower case, without brackets.
    :param port: the port in effect.
    :param path: with a slash at its start and none at its end, or empty.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def host_in_url(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host_in_url}{port}{self.path}"

    @property
    def loopback(self) -> bool:
        """Whether this is the same machine, by its name or address alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def check_scheme(self, name: str, *, allow_http: bool) -> None:
        """
        Refuse to send secrets and files in the clear.

        :raises ValueError: for plain http to another machine, unless *allow_http*.
        """
        if self.scheme == "http" and not self.loopback and not allow_http:
            raise ValueError(
                f"{name} says http://{self.host}, which would send secrets and files unencrypted; use https, "
                f"or set {label('allow_http')} to true if that is meant."
            )


class Environment(NamedTuple):
    """Amili's own addresses of one environment."""

    api: Address
    auth: Address


ENVIRONMENTS = {
    # Inferred from staging's: nowhere written. Both are shown in "Get a list of customers" and "Example Workflow".
    "production": Environment(Address("https", "api.amili.no", 443, "/arm/v1"), Address("https", "auth.amili.no", 443)),
    "staging": Environment(
        Address("https", "api.staging.amili.no", 443, "/arm/v1"),
        Address("https", "auth.staging.amili.no", 443),
    ),
}


def identity_of(address: Address) -> str:
    """Return the name of the environment behind an address, or its host, port and base path: a gateway may have two."""
    for name, environment in ENVIRONMENTS.items():
        if address.host == environment.api.host and address.port in _PORTS.values():
            return name
    return f"{address.host_in_url}:{address.port}{address.path}".casefold()  # as file ids have it


def read_host(host: Any, port: Any, schema: Any) -> Address | None:
    """
    Read the standard fields host, port and schema of a connection; None if no host is given.

    The host may start with a scheme and end with a port and a path, as Airflow's URIs and pasted URLs have it.

    :raises ValueError: if they contradict one another or are not an address.
    """
    where, named_port, named_path = (
        as_text(host, label("host")),
        _port(port),
        as_text(schema, label("schema")),
    )
    scheme = None
    if named_path is not None and named_path.casefold() in _PORTS:
        scheme, named_path = named_path.casefold(), None
    if where is None:
        if named_port is not None or named_path is not None:
            name = "port" if named_port is not None else "schema"
            raise ValueError(f"{label(name)} is given without {label('host')}; empty it, or give the host too.")
        return None
    if "://" not in where:
        # An IPv6 address comes without brackets from Airflow's URIs.
        bare = where if where.startswith("[") or where.count(":") < 2 else f"[{where}]"  # noqa: PLR2004
        where = f"{scheme or 'https'}://{bare}"
    found = read_base_url(where, label("host"), port=named_port, path=named_path)
    if scheme is not None and scheme != found.scheme:
        raise ValueError(f"{label('host')} says {found.scheme}, but {label('schema')} says {scheme}; empty one.")
    if not found.path:
        for environment in ENVIRONMENTS.values():
            if environment.api.host == found.host:
                return Address(found.scheme, found.host, found.port, environment.api.path)
    return found


def read_base_url(url: str, name: str, *, port: int | None = None, path: str | None = None) -> Address:
    """
    Read a base URL.

    :param url: the URL.
    :param name: how messages name the field.
    :param port: a port given in another field.
    :param path: a path given in another field.
    :raises ValueError: if it is not an http(s) URL without credentials, query and fragment.
    """
    try:
        parts = urlsplit(url)
        host, own_port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{name} is not a valid address.") from None
    if parts.scheme not in _PORTS or not host or any(c.isspace() for c in url) or "\\" in url or "%" in host:
        raise ValueError(f"{name} is not a valid address; write https://host or https://host:port/path.")
    if "@" in parts.netloc:
        raise ValueError(
            f"{name} holds a user name or password; write them in {label('login')} and {label('password')}."
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{name} holds a query (?) or a fragment (#); write a base URL only.")
    if port is not None and own_port not in (None, port):
        raise ValueError(f"{name} says port {own_port}, but {label('port')} says {port}; empty one of the two.")
    own_path, other_path = _path(parts.path, name), _path(path or "", label("schema"))
    if own_path and other_path and own_path != other_path:
        raise ValueError(f"{name} ends with {own_path}, but {label('schema')} says {other_path}; empty one.")
    return Address(
        parts.scheme,
        host.rstrip("."),
        port or own_port or _PORTS[parts.scheme],
        own_path or other_path,
    )


def _path(given: str, name: str) -> str:
    path = unquote(given).strip("/")
    if not path:
        return ""
    if is_unprintable(path) or any(c in "\\?#%" or c.isspace() for c in path):
        raise ValueError(f"{name} is {given!r}, which is not a base path; write for example arm/v1.")
    if any(step in ("", ".", "..") for step in path.split("/")):
        raise ValueError(f"{name} is {given!r}, with an empty step or dots in it; write for example arm/v1.")
    return f"/{path}"


def _port(given: Any) -> int | None:
    if given is None or given == "":
        return None
    try:
        port = int(given)
    except (TypeError, ValueError):
        port = 0
    if not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"{label('port')} is {given!r}; write a number from 1 to {_HIGHEST_PORT}.")
    return port


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
