"""What an Envoy says of itself, in the words of Envoy's v3 API whatever version it spoke.

Facts are values: two proxies with the same listener hold equal `Listener`s. Where a fact is
written in the dump is kept beside it, in `ListenerEntry` and its kin, never in it.
"""

import enum
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.times import moment

CONNECTED_STATE: Final = "control_plane.connected_state"
"""The statistic that is 1 while the proxy is connected to its control plane, else 0."""


class Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The base of all facts: immutable, compared by value."""


class FreeForm(Mapping[str, Any]):
    """Configuration that is kept as it was written, because its form is somebody else's.

    Read-only and hashable, so that the facts that hold it are values too.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields: Final = dict(fields)

    def __getitem__(self, key: str) -> Any:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FreeForm):
            return self._fields == other._fields
        return isinstance(other, Mapping) and self._fields == dict(other)

    def __hash__(self) -> int:
        # Equal mappings have equal keys; values may be lists, which have no hash.
        return hash(frozenset(self._fields))

    def __repr__(self) -> str:
        return f"FreeForm({self._fields!r})"


class ConfigState(enum.StrEnum):
    """Where a resource stands in Envoy's life cycle; only those of DECIDING decide traffic."""

    STATIC = "static"
    ACTIVE = "active"
    WARMING = "warming"
    DRAINING = "draining"


DECIDING: Final = (ConfigState.STATIC, ConfigState.ACTIVE)


# ---------------------------------------------------------------- listeners


class CidrRange(Fact, frozen=True):
    """`address_prefix`/`prefix_len`; a missing length is 0, as in protobuf."""

    prefix: str
    length: int


class FilterChainMatch(Fact, frozen=True):
    """`config.listener.v3.FilterChainMatch`; what is empty matches everything."""

    destination_port: int | None = None
    prefix_ranges: tuple[CidrRange, ...] = ()
    server_names: tuple[str, ...] = ()
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()
    source_type: str = "ANY"
    source_prefix_ranges: tuple[CidrRange, ...] = ()
    direct_source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_ports: tuple[int, ...] = ()


class WeightedCluster(Fact, frozen=True):
    """One share of a split; `cluster_header` names a header instead of a cluster."""

    name: str = ""
    weight: int = 0
    cluster_header: str = ""
    metadata_match: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None
    """Per-filter configuration (`typed_per_filter_config`), by the HTTP filter's name."""


class TcpProxy(Fact, frozen=True):
    """`envoy.tcp_proxy`: `cluster` or `weighted_clusters`, whichever was set."""

    stat_prefix: str = ""
    cluster: str = ""
    weighted_clusters: tuple[WeightedCluster, ...] = ()
    metadata_match: Mapping[str, Any] | None = None
    tunneling: bool = False
    """It carries the connection in an HTTP CONNECT to the cluster."""


class HttpFilter(Fact, frozen=True):
    """One HTTP filter; `config` is its raw configuration.

    Of filters that never decide where a request goes (router, CORS, statistics, ...) it is None.
    """

    name: str
    type_url: str = ""
    disabled: bool = False
    config: Mapping[str, Any] | None = None


class HttpConnectionManager(Fact, frozen=True):
    """`http_connection_manager`: exactly one of `route_config`, `rds` and `scoped_routes`."""

    stat_prefix: str = ""
    route_config: "RouteConfiguration | None" = None
    rds: str | None = None
    scoped_routes: Mapping[str, Any] | None = None
    http_filters: tuple[HttpFilter, ...] = ()
    strip_any_host_port: bool = False
    strip_matching_host_port: bool = False
    strip_trailing_host_dot: bool = False
    normalize_path: bool | None = None
    merge_slashes: bool = False
    path_with_escaped_slashes_action: str = ""
    upgrade_types: tuple[str, ...] = ()
    unmodelled: tuple[str, ...] = ()
    """Settings that may change the decision or the answer and are not followed, by name."""


class NetworkFilter(Fact, frozen=True):
    """Any other network filter, with its raw configuration."""

    name: str
    type_url: str = ""
    config: Mapping[str, Any] | None = None


Filter = TcpProxy | HttpConnectionManager | NetworkFilter


class FilterChain(Fact, frozen=True):
    """A match and the network filters behind it, in order.

    `transport_socket` is its name, "" for plain text.
    """

    name: str = ""
    match: FilterChainMatch = FilterChainMatch()
    filters: tuple[Filter, ...] = ()
    transport_socket: str = ""


class Listener(Fact, frozen=True):
    """`config.listener.v3.Listener`; `port` is 0 where the address is no socket address.

    `bind_to_port` false means: reached only by hand-over from a listener with
    `use_original_dst`.
    """

    name: str
    address: str = ""
    port: int = 0
    protocol: str = "TCP"
    additional_addresses: tuple[tuple[str, int], ...] = ()
    bind_to_port: bool = True
    ipv4_compat: bool = False
    """A listener on `::` takes IPv4 too."""
    use_original_dst: bool = False
    traffic_direction: str = ""
    filter_chains: tuple[FilterChain, ...] = ()
    default_filter_chain: FilterChain | None = None
    filter_chain_matcher: Mapping[str, Any] | None = None
    listener_filters: tuple[str, ...] = ()
    """Their names in Envoy's own spelling (`envoy.filters.listener.tls_inspector`)."""

    @property
    def key(self) -> str:
        """`address:port`, as reports name a listener."""
        return host_port(self.address, self.port) if self.port else (self.address or self.name)

    @property
    def restores_destination(self) -> bool:
        """It takes redirected connections by the address that they were meant for."""
        return self.use_original_dst or _ORIGINAL_DST in self.listener_filters

    @property
    def chains(self) -> tuple[FilterChain, ...]:
        """Every filter chain, the default one last."""
        default = self.default_filter_chain
        return self.filter_chains if default is None else (*self.filter_chains, default)

    @property
    def tcp_proxies(self) -> tuple[TcpProxy, ...]:
        """Its TCP proxies, over all filter chains."""
        return tuple(f for chain in self.chains for f in chain.filters if isinstance(f, TcpProxy))

    @property
    def http_managers(self) -> tuple[HttpConnectionManager, ...]:
        """Its HTTP connection managers, over all filter chains."""
        return tuple(
            f
            for chain in self.chains
            for f in chain.filters
            if isinstance(f, HttpConnectionManager)
        )


_ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"


class ListenerEntry(Fact, frozen=True):
    """A listener, where it stands in its life, and the JSON pointer to it in the dump."""

    listener: Listener
    state: ConfigState
    pointer: str
    version: str = ""


class RejectedUpdate(Fact, frozen=True):
    """An update that the proxy refused (`error_state`), with its own reason.

    `kind` is listener, cluster or route; `listener` is what was refused, where it was one.
    """

    kind: str
    name: str
    details: str
    pointer: str
    listener: Listener | None = None


# ---------------------------------------------------------------- routes


class StringMatch(Fact, frozen=True):
    """One of exact, prefix, suffix, contains or regex (`kind`), or `custom` for what is not ours.

    `ignore_case` is Envoy's; it never applies to regex.
    """

    kind: str
    value: str = ""
    ignore_case: bool = False


class HeaderMatch(Fact, frozen=True):
    """`route.v3.HeaderMatcher`, v2's `exact_match` and kin included.

    `match` is None for a presence test (`present`), a `range` is half open.
    """

    name: str
    match: StringMatch | None = None
    present: bool | None = None
    range: tuple[int, int] | None = None
    invert: bool = False
    treat_missing_as_empty: bool = False


class QueryMatch(Fact, frozen=True):
    """`route.v3.QueryParameterMatcher`."""

    name: str
    match: StringMatch | None = None
    present: bool | None = None


class RouteMatch(Fact, frozen=True):
    """How a route matches.

    `path_kind`: prefix, path, path_separated_prefix, regex, connect, or an unmodelled specifier's
    own field name.
    """

    path_kind: str = ""
    path: str = ""
    case_sensitive: bool = True
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    runtime_fraction: tuple[int, int] | None = None
    """(numerator, denominator) of requests that this route takes; None is all."""
    grpc_only: bool = False
    unmodelled: tuple[str, ...] = ()
    """Fields that decide too and are not modelled: dynamic metadata, TLS context, cookies..."""


class Redirect(Fact, frozen=True):
    """A redirect answered by the proxy itself; what is empty stays as it was asked for."""

    code: int = 301
    host: str = ""
    port: int = 0
    scheme: str = ""
    path: str = ""
    prefix_rewrite: str = ""
    https: bool = False
    strip_query: bool = False


class DirectResponse(Fact, frozen=True):
    """A response answered by the proxy itself."""

    status: int


class ClusterRoute(Fact, frozen=True):
    """`route.v3.RouteAction`: one of `cluster`, `cluster_header`, `weighted_clusters`.

    `not_found_status` is what a missing cluster gives (503 unless set). `unmodelled` names other
    specifiers (`cluster_specifier_plugin`, ...), which decide in ways that are not followed.
    """

    cluster: str = ""
    cluster_header: str = ""
    weighted_clusters: tuple[WeightedCluster, ...] = ()
    total_weight: int | None = None
    not_found_status: int = 503
    prefix_rewrite: str = ""
    host_rewrite: str = ""
    metadata_match: Mapping[str, Any] | None = None
    retry_on: str = ""
    mirrors: tuple[str, ...] = ()
    upgrade_types: tuple[str, ...] = ()
    unmodelled: tuple[str, ...] = ()


class UnmodelledAction(Fact, frozen=True):
    """An action that is not followed, by its field name."""

    name: str


RouteAction = ClusterRoute | Redirect | DirectResponse | UnmodelledAction


class Route(Fact, frozen=True):
    """A match and what is done."""

    name: str = ""
    match: RouteMatch = RouteMatch()
    action: RouteAction = UnmodelledAction(name="")
    overrides: Mapping[str, Any] | None = None
    """Per-filter configuration (`typed_per_filter_config`), by the HTTP filter's name."""


class VirtualHost(Fact, frozen=True):
    """`require_tls` is NONE, EXTERNAL_ONLY or ALL; `has_matcher`: routed by a match tree."""

    name: str
    domains: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    require_tls: str = "NONE"
    has_matcher: bool = False
    overrides: Mapping[str, Any] | None = None


class RouteConfiguration(Fact, frozen=True):
    """`config.route.v3.RouteConfiguration`; `vhds`: more virtual hosts may come on demand."""

    name: str = ""
    virtual_hosts: tuple[VirtualHost, ...] = ()
    ignore_port_in_host_matching: bool = False
    ignore_path_parameters: bool = False
    vhds: bool = False
    overrides: Mapping[str, Any] | None = None


class RouteEntry(Fact, frozen=True):
    """A route configuration and where it stands; static ones are inlined in a listener too."""

    route_config: RouteConfiguration
    state: ConfigState
    pointer: str
    version: str = ""


# ---------------------------------------------------------------- clusters and endpoints


class Endpoint(Fact, frozen=True):
    """One host of a cluster. `health` is Envoy's word: HEALTHY, UNHEALTHY, DEGRADED, ...

    `address` is a host name where the cluster resolves it, a path for a pipe (port 0).
    `metadata` holds what subsets are made by (`envoy.lb`), and is None where it is not known.
    `failed` says by which checks a running proxy holds it unhealthy or degraded, in the words
    of `/clusters`: failed_active_health_check, failed_outlier_check, ...
    """

    address: str
    port: int = 0
    health: str = "UNKNOWN"
    priority: int = 0
    weight: int | None = None
    metadata: Mapping[str, Any] | None = None
    hostname: str = ""
    failed: tuple[str, ...] = ()

    @property
    def is_available(self) -> bool:
        """Whether the proxy takes it for balancing outside of a panic."""
        return self.health not in _NOT_AVAILABLE


# DRAINING and TIMEOUT count as unhealthy; UNKNOWN, which is what EDS gives by default, does not.
_NOT_AVAILABLE: Final = frozenset({"UNHEALTHY", "DRAINING", "TIMEOUT"})


class Cluster(Fact, frozen=True):
    """`config.cluster.v3.Cluster`.

    `type` is STATIC, EDS, STRICT_DNS, LOGICAL_DNS, ORIGINAL_DST, or a custom type's name;
    `aggregate` lists an aggregate cluster's members in order.
    """

    name: str
    type: str = "STATIC"
    eds_service_name: str = ""
    lb_policy: str = "ROUND_ROBIN"
    alt_stat_name: str = ""
    aggregate: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    subset_selectors: tuple[tuple[str, ...], ...] = ()
    subset_fallback: str = "NO_FALLBACK"
    panic_threshold: float | None = None
    """In percent; None is Envoy's default, 50."""
    transport_socket: str = ""
    overprovisioning_factor: int | None = None
    """In percent; None is Envoy's default, 140."""
    unmodelled: tuple[str, ...] = ()
    """Settings that may change which endpoint is taken and are not followed, by name."""


class ClusterEntry(Fact, frozen=True):
    """A cluster and where it stands."""

    cluster: Cluster
    state: ConfigState
    pointer: str
    version: str = ""


class ClusterEndpoints(Fact, frozen=True):
    """The endpoints a proxy holds for one cluster.

    Read from /clusters where it was recorded (that is what the proxy balances over), else from
    the endpoint dump (`document` says which).
    """

    cluster: str
    endpoints: tuple[Endpoint, ...]
    document: str
    pointer: str


class EndpointTable(Mapping[str, ClusterEndpoints]):
    """The endpoints of one proxy's clusters, by cluster.

    A thousand sidecars hold the same endpoints of the same thousand clusters. So the rows are
    shared between proxies, and only the place where each stands in this proxy's document is its
    own; a `ClusterEndpoints` is made when somebody asks for it.
    """

    __slots__ = ("_document", "_places", "_pointers", "_rows")

    def __init__(
        self,
        document: str,
        pointers: Sequence[str],
        rows: tuple[tuple[str, tuple[Endpoint, ...]], ...],
        places: Sequence[int],
    ) -> None:
        """`rows` are sorted by cluster; `pointers` have `{}` where an index belongs.

        A place is `index * len(pointers) + which pointer`.
        """
        self._document: Final = document
        self._pointers: Final = pointers
        self._rows: Final = rows
        self._places: Final = places

    def row(self, cluster: str) -> tuple[Endpoint, ...] | None:
        """The endpoints of a cluster, None where it is not in the table."""
        row = self._row(cluster)
        return None if row is None else self._rows[row][1]

    def by_cluster(self) -> dict[str, tuple[Endpoint, ...]]:
        """All rows, for who asks for nearly all of them."""
        # Of several rows for one cluster, the first one counts.
        return dict(reversed(self._rows))

    def _row(self, cluster: str) -> int | None:
        # `(cluster,)` comes before every row of that cluster, and behind those before.
        row = bisect_left(self._rows, (cluster,))
        found = row < len(self._rows) and self._rows[row][0] == cluster
        return row if found else None

    def __getitem__(self, cluster: str) -> ClusterEndpoints:
        row = self._row(cluster)
        if row is None:
            raise KeyError(cluster)
        index, which = divmod(self._places[row], len(self._pointers))
        return ClusterEndpoints(
            cluster=cluster,
            endpoints=self._rows[row][1],
            document=self._document,
            pointer=self._pointers[which].replace("{}", str(index)),
        )

    def __iter__(self) -> Iterator[str]:
        return (cluster for cluster, _ in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash((self._document, self._rows))

    def __repr__(self) -> str:
        return f"EndpointTable({self._document!r}, {len(self._rows)} clusters)"


# ---------------------------------------------------------------- the proxy


class Node(Fact, frozen=True):
    """Who the proxy says it is."""

    id: str = ""
    cluster: str = ""
    metadata: Mapping[str, Any] | None = None


class ServerInfo(Fact, frozen=True):
    """`/server_info`: `version` is the number alone, as 1.40.0; `uptime` in seconds."""

    version: str = ""
    state: str = ""
    uptime: int | None = None
    node: Node = Node()


class Certificate(Fact, frozen=True):
    """One certificate of `/certs`: times in RFC 3339, `uris` its SPIFFE names."""

    serial: str = ""
    uris: tuple[str, ...] = ()
    valid_from: str = ""
    expires: str = ""
    pointer: str = ""


class Certificates(Fact, frozen=True):
    """What a proxy shows (`chains`, leaves first) and whom it believes (`authorities`)."""

    chains: tuple[tuple[Certificate, ...], ...] = ()
    authorities: tuple[Certificate, ...] = ()
    read: str = ""
    """When they were, in RFC 3339; "" where nobody knows."""

    @property
    def names(self) -> tuple[str, ...]:
        """The SPIFFE names by which others know the proxy, each once."""
        leaves = (chain[0] for chain in self.chains if chain)
        return tuple(dict.fromkeys(uri for leaf in leaves for uri in leaf.uris))

    @property
    def ended(self) -> str:
        """When the last leaf it shows ran out, "" where one is in force or nobody can tell."""
        ends = [chain[0].expires for chain in self.chains if chain]
        now, times = moment(self.read), [moment(each) for each in ends]
        if now is None or not times or any(each is None or each > now for each in times):
            return ""
        return ends[-1]


class EnvoyProxy(Fact, frozen=True):
    """All that one sidecar's Envoy told. What it did not tell is None or empty.

    `api` is "v2" or "v3". `held` says which sections are known whole (listeners, routes,
    clusters, endpoints): an empty section is a fact, an absent or a damaged one is not, so
    nothing may be concluded from what such a section lacks.
    """

    name: str
    api: str = ""
    held: frozenset[str] = frozenset()
    listeners: tuple[ListenerEntry, ...] = ()
    routes: tuple[RouteEntry, ...] = ()
    clusters: tuple[ClusterEntry, ...] = ()
    endpoints: Mapping[str, ClusterEndpoints] = {}
    rejected: tuple[RejectedUpdate, ...] = ()
    node: Node | None = None
    admin_address: str = ""
    admin_port: int = 0
    control_plane: tuple[str, ...] = ()
    """The clusters at which it asks for its configuration over gRPC; () where it reads files."""
    server: ServerInfo | None = None
    stats: Mapping[str, int] = {}
    version_info: Mapping[str, str] = {}
    """Version of the last update that changed anything, by section: listeners, clusters."""
    accepted: Mapping[str, str] = {}
    """Version of the last update that was accepted, likewise; from the statistics."""
    certificates: Certificates | None = None
    """None where `/certs` was not recorded."""

    @property
    def document(self) -> str:
        """The dump that listeners, routes and clusters were read from."""
        return layout.envoy(self.name, "config_dump.json")

    def deciding_listeners(self) -> tuple[ListenerEntry, ...]:
        """The listeners that take connections now, in the dump's order."""
        return tuple(entry for entry in self.listeners if entry.state in DECIDING)
