"""The configuration of one proxy that decides traffic, indexed for following calls."""

import functools
import ipaddress
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from meshdoctor.evidence.envoy import (
    DECIDING,
    Cluster,
    ClusterEndpoints,
    ClusterEntry,
    ConfigState,
    Endpoint,
    EndpointTable,
    EnvoyProxy,
    ListenerEntry,
    RouteEntry,
)
from meshdoctor.routing.hosts import Identity
from meshdoctor.routing.model import UndecidedError

T = TypeVar("T")


class Configuration(msgspec.Struct, frozen=True):
    """Listeners by address, route configurations and clusters by name."""

    proxy: EnvoyProxy
    listeners: Mapping[tuple[str, int], ListenerEntry]
    original_destination: tuple[ListenerEntry, ...]
    routes: Mapping[str, RouteEntry]
    clusters: Mapping[str, ClusterEntry]

    def listener_for(self, address: str, port: int) -> tuple[ListenerEntry, str] | None:
        """The listener that a restored destination leads to: exact, then any address."""
        found = self.listeners.get((address, port))
        if found is not None:
            return found, f"it has the address {found.listener.key} itself"
        self.need("listeners")
        for wildcard in _wildcards(address):
            found = self.listeners.get((wildcard, port))
            if found is not None and _takes(found, wildcard, address):
                return found, f"no listener has that address, and it has port {port} on any"
        return None

    def bound_listener(
        self, address: str, port: int, *, local: bool
    ) -> tuple[ListenerEntry, str] | None:
        """The listener whose socket takes a connection to `address:port`, if it is here."""
        found = self.listeners.get((address, port))
        if found is not None and found.listener.bind_to_port:
            return found, "it listens on that address"
        self.need("listeners")
        if local:
            for wildcard in _wildcards(address):
                found = self.listeners.get((wildcard, port))
                if (
                    found is not None
                    and found.listener.bind_to_port
                    and _takes(found, wildcard, address)
                ):
                    return found, "it listens on that port of any address"
        return None

    def listening_on(self, port: int) -> ListenerEntry | None:
        """A listener whose socket has that port, where a redirect leads to."""
        for address in ("0.0.0.0", "::", "127.0.0.1", "::1"):  # noqa: S104 # not bound here
            found = self.listeners.get((address, port))
            if found is not None and found.listener.bind_to_port:
                return found
        return next(
            (
                entry
                for entry in self.listeners.values()
                if entry.listener.port == port and entry.listener.bind_to_port
            ),
            None,
        )

    def endpoints_of(self, entry: ClusterEntry) -> ClusterEndpoints | None:
        """What the proxy holds for a cluster."""
        return by_its_names(entry.cluster, self.proxy.endpoints.get)

    def endpoints_held(self, entry: ClusterEntry) -> tuple[Endpoint, ...] | None:
        """The endpoints of `endpoints_of`, without where they are written."""
        held = self.proxy.endpoints
        if isinstance(held, EndpointTable):
            return by_its_names(entry.cluster, held.row)
        found = self.endpoints_of(entry)
        return None if found is None else found.endpoints

    def endpoints_by_name(self) -> Mapping[str, tuple[Endpoint, ...]]:
        """All endpoints, by the names that they are held by, for who asks for nearly all."""
        held = self.proxy.endpoints
        if isinstance(held, EndpointTable):
            return held.by_cluster()
        return {name: each.endpoints for name, each in held.items()}

    def need(self, section: str) -> None:
        """Nothing follows from what a section lacks, unless it is known whole.

        Raises UndecidedError.
        """
        if section not in self.proxy.held:
            raise UndecidedError(f"the {section} of {self.proxy.name} are not known completely")


def by_its_names(cluster: Cluster, held: Callable[[str], T | None]) -> T | None:
    """What is held for a cluster, which in the endpoint dump may go by its EDS name."""
    found = held(cluster.name)
    if found is None and cluster.eds_service_name:
        found = held(cluster.eds_service_name)
    return found


def _wildcards(address: str) -> tuple[str, ...]:
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return ()
    # `::` takes IPv4 too where it was bound so; a listener of that port on 0.0.0.0 comes first.
    return ("0.0.0.0", "::") if version == 4 else ("::",)  # noqa: PLR2004, S104 # IPv4


def _takes(entry: ListenerEntry, wildcard: str, address: str) -> bool:
    return wildcard != "::" or ":" in address or entry.listener.ipv4_compat


def configuration(proxy: EnvoyProxy) -> Configuration:
    """The index of `proxy`, kept for the next call through the same proxy."""
    return _configuration(Identity(proxy))


# Enough for a caller that takes one proxy after the other, without holding a thousand indexes.
@functools.lru_cache(maxsize=16)
def _configuration(key: Identity[EnvoyProxy]) -> Configuration:
    proxy = key.fact
    listeners: dict[tuple[str, int], ListenerEntry] = {}
    for entry in proxy.deciding_listeners():
        listener = entry.listener
        if listener.protocol != "TCP":
            continue
        for address in ((listener.address, listener.port), *listener.additional_addresses):
            listeners.setdefault(address, entry)
    return Configuration(
        proxy=proxy,
        listeners=listeners,
        original_destination=tuple(
            entry
            for entry in proxy.deciding_listeners()
            if entry.listener.restores_destination and entry.listener.bind_to_port
        ),
        routes={
            entry.route_config.name: entry
            for entry in proxy.routes
            if entry.state is ConfigState.ACTIVE
        },
        clusters={
            entry.cluster.name: entry for entry in proxy.clusters if entry.state in DECIDING
        },
    )
