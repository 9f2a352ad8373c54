"""What a proxy's listeners and routes refer to: clusters, and route configurations."""

from collections.abc import Iterator
from dataclasses import dataclass

from meshdoctor.evidence.envoy import (
    ClusterRoute,
    EnvoyProxy,
    HttpConnectionManager,
    ListenerEntry,
    RouteConfiguration,
    TcpProxy,
)
from meshdoctor.routing.configuration import configuration


@dataclass(frozen=True, slots=True)
class ClusterReference:
    """A listener or route that sends calls to a cluster by name, and where that is written.

    `route` is "" for a TCP proxy, else the virtual host's name; `port` the listener's.
    """

    cluster: str
    listener: str
    port: int
    route: str
    pointer: str


@dataclass(frozen=True, slots=True)
class RouteReference:
    """A listener that takes its routes from a configuration by name (RDS)."""

    route_config: str
    listener: str
    port: int
    pointer: str


def route_references(proxy: EnvoyProxy) -> Iterator[RouteReference]:
    """The route configurations that deciding listeners wait for or use."""
    for entry in proxy.deciding_listeners():
        for manager in entry.listener.http_managers:
            if manager.rds is not None:
                yield RouteReference(
                    manager.rds, entry.listener.key, entry.listener.port, entry.pointer
                )


def cluster_references(proxy: EnvoyProxy) -> Iterator[ClusterReference]:
    """The clusters that deciding listeners lead to, by TCP proxies and by routes."""
    routes = configuration(proxy).routes
    for entry in proxy.deciding_listeners():
        for chain in entry.listener.chains:
            for each in chain.filters:
                match each:
                    case TcpProxy():
                        names = [each.cluster, *(share.name for share in each.weighted_clusters)]
                        for name in filter(None, names):
                            yield _reference(entry, name, "", entry.pointer)
                    case HttpConnectionManager(route_config=RouteConfiguration() as config):
                        yield from _routed(entry, config, entry.pointer)
                    case HttpConnectionManager(rds=str(name)) if name in routes:
                        found = routes[name]
                        yield from _routed(entry, found.route_config, found.pointer)


def _routed(
    entry: ListenerEntry, config: RouteConfiguration, pointer: str
) -> Iterator[ClusterReference]:
    for host in config.virtual_hosts:
        for route in host.routes:
            if isinstance(route.action, ClusterRoute):
                shares = (share.name for share in route.action.weighted_clusters)
                for name in filter(None, (route.action.cluster, *shares)):
                    yield _reference(entry, name, host.name, pointer)


def _reference(entry: ListenerEntry, cluster: str, route: str, pointer: str) -> ClusterReference:
    return ClusterReference(cluster, entry.listener.key, entry.listener.port, route, pointer)
