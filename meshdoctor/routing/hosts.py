"""How Envoy finds the virtual host of a request by its Host header."""

import functools
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

import msgspec

from meshdoctor.evidence.envoy import HttpConnectionManager, RouteConfiguration, VirtualHost
from meshdoctor.routing.matching import lower

T = TypeVar("T")


class Identity(Generic[T]):
    """A fact as a key: proxies that share it share what was made of it, at no cost of hashing."""

    __slots__ = ("fact",)

    def __init__(self, fact: T) -> None:
        self.fact: Final = fact

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.fact is other.fact

    def __hash__(self) -> int:
        return id(self.fact)


class HostIndex(msgspec.Struct, frozen=True):
    """The domains of a route configuration, in the order in which they win.

    `suffixes` and `prefixes` are by length, the longest first. The values are places in
    `virtual_hosts`.
    """

    exact: Mapping[str, int]
    suffixes: tuple[tuple[int, Mapping[str, int]], ...]
    prefixes: tuple[tuple[int, Mapping[str, int]], ...]
    default: int | None

    def find(self, host: str) -> tuple[int, str] | None:
        """The place of the virtual host, and the domain that won. `host` is in lower case."""
        place = self.exact.get(host)
        if place is not None:
            return place, host
        size = len(host)
        for length, domains in self.suffixes:
            # `*.x` does not take `.x`: the star stands for something.
            if length < size and (place := domains.get(host[size - length :])) is not None:
                return place, f"*{host[size - length :]}"
        for length, domains in self.prefixes:
            if length < size and (place := domains.get(host[:length])) is not None:
                return place, f"{host[:length]}*"
        return None if self.default is None else (self.default, "*")


@functools.lru_cache(maxsize=512)
def _index(key: Identity[RouteConfiguration]) -> HostIndex:
    exact: dict[str, int] = {}
    suffixes: dict[int, dict[str, int]] = {}
    prefixes: dict[int, dict[str, int]] = {}
    default = None
    for place, host in enumerate(key.fact.virtual_hosts):
        for written in host.domains:
            domain = lower(written)
            if domain == "*":
                default = place if default is None else default
            elif domain.startswith("*"):
                suffixes.setdefault(len(domain) - 1, {}).setdefault(domain[1:], place)
            elif domain.endswith("*"):
                prefixes.setdefault(len(domain) - 1, {}).setdefault(domain[:-1], place)
            else:
                exact.setdefault(domain, place)
    return HostIndex(
        exact=exact,
        suffixes=tuple(sorted(suffixes.items(), reverse=True)),
        prefixes=tuple(sorted(prefixes.items(), reverse=True)),
        default=default,
    )


def host_index(config: RouteConfiguration) -> HostIndex:
    """The index of `config`, made once however many proxies hold it."""
    return _index(Identity(config))


def find_virtual_host(
    config: RouteConfiguration, host: str
) -> tuple[int, VirtualHost, str] | None:
    """Its place, the virtual host, and the domain that won: exact, suffix, prefix, then `*`."""
    index = host_index(config)
    wanted = host
    if config.ignore_port_in_host_matching and (start := port_start(host)) is not None:
        wanted = host[:start]
    found = index.find(lower(wanted))
    if found is None:
        return None
    place, domain = found
    return place, config.virtual_hosts[place], domain


def port_start(host: str) -> int | None:
    """Where `:port` begins; an IPv6 address has its colons in brackets."""
    start = host.rfind(":")
    if start < 0 or host.rfind("]") > start:
        return None
    return start


def seen_host(manager: HttpConnectionManager, host: str, port: int) -> str:
    """The Host header after what the connection manager strips from it."""
    if manager.strip_trailing_host_dot:
        host = _without_trailing_dot(host)
    if manager.strip_any_host_port or manager.strip_matching_host_port:
        start = port_start(host)
        written = "" if start is None else host[start + 1 :]
        stripped = manager.strip_any_host_port or written.lstrip("0") == str(port)
        if stripped and written.isascii() and written.isdigit():
            return host[:start]
    return host


def _without_trailing_dot(host: str) -> str:
    dot = host.rfind(".")
    if dot < 0:
        return host
    if dot == len(host) - 1:
        return host[:-1]
    return host[:dot] + host[dot + 1 :] if host[dot + 1] == ":" else host
