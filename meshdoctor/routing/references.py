"""What a proxy's listeners and routes refer to: clusters, and route configurations."""

import functools
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

import msgspec

from meshdoctor.evidence.envoy import (
    ClusterRoute,
    EnvoyProxy,
    Filter,
    HttpConnectionManager,
    Listener,
    RouteConfiguration,
    TcpProxy,
    spelling,
)
from meshdoctor.routing.configuration import configuration
from meshdoctor.routing.hosts import Identity


class ClusterReference(msgspec.Struct, frozen=True):
    """A listener or route that sends calls to a cluster by name, and where that is written.

    `listener` is its `address:port`; `virtual_host` is "" for a TCP proxy. `status` is what
    Envoy answers where it has no such cluster, None where it closes the connection instead.
    """

    cluster: str
    listener: str
    virtual_host: str
    status: int | None
    pointer: str


class RouteReference(msgspec.Struct, frozen=True):
    """A listener that takes its routes from a configuration by name (RDS)."""

    route_config: str
    listener: str
    pointer: str


def route_references(proxy: EnvoyProxy) -> Iterator[RouteReference]:
    """The route configurations that deciding listeners wait for or use."""
    for entry in proxy.deciding_listeners():
        for manager in entry.listener.http_managers:
            if manager.rds is not None:
                yield RouteReference(manager.rds, entry.listener.key, entry.pointer)


class _Routed(msgspec.Struct, frozen=True):
    """The first route of a configuration that leads to some cluster, and its place there."""

    virtual_host: str
    status: int
    place: tuple[int, int]


class _Source(msgspec.Struct, frozen=True):
    """Where clusters are named: a listener's TCP proxy, or routes (`inline`: in a listener).

    `routed` has the clusters that it names, and the route to each where there are routes.
    """

    listener: str
    pointer: str
    routed: Mapping[str, _Routed | None]
    inline: bool = False


class ClusterReferences(Mapping[str, ClusterReference]):
    """By cluster: the first, of all that decides in a proxy, that leads calls there.

    A thousand sidecars may share routes to the same thousand clusters: what a route configuration
    leads to is worked out once, and a `ClusterReference` is made when somebody asks for it.
    """

    __slots__ = ("_names", "_sources")

    def __init__(self, proxy: EnvoyProxy) -> None:
        """Of splits, a share of weight 0 leads nowhere."""
        self._sources: Final = tuple(_sources(proxy))
        named = chain.from_iterable(source.routed for source in self._sources)
        self._names: Final = tuple(dict.fromkeys(named))

    def __getitem__(self, cluster: str) -> ClusterReference:
        for source in self._sources:
            if cluster in source.routed:
                return _reference(cluster, source)
        raise KeyError(cluster)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _reference(cluster: str, source: _Source) -> ClusterReference:
    routed, pointer = source.routed[cluster], source.pointer
    if routed is None:
        return ClusterReference(cluster, source.listener, "", None, pointer)
    if not source.inline:
        host, route = routed.place
        pointer = spelling.below(pointer, "virtual_hosts", host, "routes", route)
    return ClusterReference(cluster, source.listener, routed.virtual_host, routed.status, pointer)


def _sources(proxy: EnvoyProxy) -> Iterator[_Source]:
    routes = configuration(proxy).routes
    for entry in proxy.deciding_listeners():
        key = entry.listener.key
        for place, each in _filters(entry.listener):
            here = spelling.below(entry.pointer, *place)
            match each:
                case TcpProxy():
                    yield _Source(key, here, dict.fromkeys(clusters_of(each)))
                case HttpConnectionManager(route_config=RouteConfiguration() as config):
                    yield _Source(key, here, _routed(Identity(config)), inline=True)
                case HttpConnectionManager(rds=str(rds)) if rds in routes:
                    found = routes[rds]
                    yield _Source(key, found.pointer, _routed(Identity(found.route_config)))


def _filters(listener: Listener) -> Iterator[tuple[tuple[str | int, ...], Filter]]:
    """Every network filter of a listener, with the steps that lead from it to the filter."""
    for number, filters in enumerate(each.filters for each in listener.filter_chains):
        for place, each in enumerate(filters):
            yield ("filter_chains", number, "filters", place), each
    if listener.default_filter_chain is not None:
        for place, each in enumerate(listener.default_filter_chain.filters):
            yield ("default_filter_chain", "filters", place), each


def clusters_of(it: TcpProxy | ClusterRoute) -> Iterator[str]:
    """The clusters that it names and sends anything to."""
    if it.cluster:
        yield it.cluster
    for share in it.weighted_clusters:
        if share.weight and share.name:
            yield share.name


@functools.lru_cache(maxsize=512)
def _routed(key: Identity[RouteConfiguration]) -> Mapping[str, _Routed]:
    """By cluster, the first route of a configuration that leads there."""
    found: dict[str, _Routed] = {}
    for number, host in enumerate(key.fact.virtual_hosts):
        for place, route in enumerate(host.routes):
            if isinstance(route.action, ClusterRoute):
                for name in clusters_of(route.action):
                    if name not in found:
                        status = route.action.not_found_status
                        found[name] = _Routed(host.name, status, (number, place))
    return found
