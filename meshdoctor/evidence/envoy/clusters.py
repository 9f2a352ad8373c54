"""Clusters and their endpoints, as Envoy's v2 and v3 write them, decoded into facts."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from meshdoctor.evidence.envoy import facts
from meshdoctor.evidence.envoy.wire import (
    HEALTH,
    NOTHING,
    Address,
    Empty,
    Enumeration,
    Unsigned,
    Wire,
    enumeration,
    is_set,
    percentage,
    typed,
)

_TYPES: Final = ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST")
# The built-in types again, as extensions; newer control planes name them so.
_CUSTOM_TYPES: Final = {
    "envoy.cluster.eds": "EDS",
    "envoy.cluster.static": "STATIC",
    "envoy.cluster.strict_dns": "STRICT_DNS",
    "envoy.cluster.logical_dns": "LOGICAL_DNS",
    "envoy.cluster.original_dst": "ORIGINAL_DST",
    "envoy.clusters.eds": "EDS",
    "envoy.clusters.static": "STATIC",
    "envoy.clusters.strict_dns": "STRICT_DNS",
    "envoy.clusters.logical_dns": "LOGICAL_DNS",
    "envoy.clusters.original_dst": "ORIGINAL_DST",
}
_LB_POLICIES: Final = (
    "ROUND_ROBIN",
    "LEAST_REQUEST",
    "RING_HASH",
    "RANDOM",
    "ORIGINAL_DST_LB",
    "MAGLEV",
    "CLUSTER_PROVIDED",
    "LOAD_BALANCING_POLICY_CONFIG",
)
_FALLBACKS: Final = ("NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET")


class _Endpoint(Wire, frozen=True):
    address: Address = Address()
    hostname: str = ""


class _FilterMetadata(Wire, frozen=True):
    lb: dict[str, Any] | None = msgspec.field(name="envoy.lb", default=None)


class _Metadata(Wire, frozen=True):
    """Of an endpoint's metadata, what its cluster's subsets are made by."""

    filter_metadata: _FilterMetadata | None = None


class _LbEndpoint(Wire, frozen=True):
    endpoint: _Endpoint = _Endpoint()
    health_status: Enumeration = "UNKNOWN"
    load_balancing_weight: Unsigned | None = None
    metadata: _Metadata | None = None


class _LocalityEndpoints(Wire, frozen=True):
    lb_endpoints: tuple[_LbEndpoint, ...] = ()
    priority: Unsigned = 0


class _Policy(Wire, frozen=True):
    overprovisioning_factor: Unsigned | None = None
    drop_overloads: tuple[Empty, ...] = ()


class LoadAssignment(Wire, frozen=True):
    """`{"cluster_name": ..., "endpoints": [{"lb_endpoints": [{"endpoint": {...}}]}]}`."""

    cluster_name: str = ""
    endpoints: tuple[_LocalityEndpoints, ...] = ()
    policy: _Policy | None = None


class _EdsClusterConfig(Wire, frozen=True):
    service_name: str = ""


class _ClusterType(Wire, frozen=True):
    name: str = ""
    typed_config: msgspec.Raw = NOTHING


class _Aggregate(Wire, frozen=True):
    clusters: tuple[str, ...] = ()


class _Percent(Wire, frozen=True):
    value: float = 0.0


class _CommonLbConfig(Wire, frozen=True):
    healthy_panic_threshold: _Percent | None = None


class _SubsetSelector(Wire, frozen=True):
    keys: tuple[str, ...] = ()


class _LbSubsetConfig(Wire, frozen=True):
    fallback_policy: Enumeration = "NO_FALLBACK"
    subset_selectors: tuple[_SubsetSelector, ...] = ()


class _TransportSocket(Wire, frozen=True):
    name: str = ""


class _OriginalDstConfig(Wire, frozen=True):
    use_http_header: bool = False
    upstream_port_override: Unsigned | None = None
    metadata_key: Empty | None = None


class _Cluster(Wire, frozen=True):
    name: str = ""
    type: Enumeration = "STATIC"
    cluster_type: _ClusterType | None = None
    eds_cluster_config: _EdsClusterConfig | None = None
    lb_policy: Enumeration = "ROUND_ROBIN"
    alt_stat_name: str = ""
    hosts: tuple[Address, ...] = ()
    load_assignment: LoadAssignment | None = None
    lb_subset_config: _LbSubsetConfig | None = None
    common_lb_config: _CommonLbConfig | None = None
    original_dst_lb_config: _OriginalDstConfig | None = None
    transport_socket: _TransportSocket | None = None
    tls_context: Empty | None = None


_CLUSTER: Final = msgspec.json.Decoder(_Cluster, strict=False)
_LOAD_ASSIGNMENT: Final = msgspec.json.Decoder(LoadAssignment, strict=False)
_AGGREGATE: Final = msgspec.json.Decoder(_Aggregate, strict=False)


def decode_cluster(raw: bytes | msgspec.Raw) -> facts.Cluster:
    """A `Cluster` message as a fact. Raises what msgspec raises."""
    written = _CLUSTER.decode(raw)
    name, eds = written.name, written.eds_cluster_config
    # As a rule it is the cluster's own name: then it is held once.
    service = "" if eds is None else name if eds.service_name == name else eds.service_name
    if written == _Cluster(name=name, type="EDS", eds_cluster_config=eds):
        # Nearly every one.
        return facts.Cluster(name=name, type="EDS", eds_service_name=service)
    type_, aggregate = _type(written)
    subset = written.lb_subset_config
    balancing = written.common_lb_config
    panic = None if balancing is None else balancing.healthy_panic_threshold
    assignment = written.load_assignment
    policy = None if assignment is None else assignment.policy
    return facts.Cluster(
        name=name,
        type=type_,
        eds_service_name=service,
        lb_policy=enumeration(written.lb_policy, _LB_POLICIES),
        alt_stat_name=written.alt_stat_name,
        aggregate=aggregate,
        endpoints=_own_endpoints(written),
        subset_selectors=(
            ()
            if subset is None
            else tuple(tuple(sorted(each.keys)) for each in subset.subset_selectors)
        ),
        subset_fallback=(
            "NO_FALLBACK" if subset is None else enumeration(subset.fallback_policy, _FALLBACKS)
        ),
        panic_threshold=None if panic is None else percentage(panic.value),
        transport_socket=_transport_socket(written),
        overprovisioning_factor=None if policy is None else policy.overprovisioning_factor,
        unmodelled=_unmodelled(written),
    )


def _type(written: _Cluster) -> tuple[str, tuple[str, ...]]:
    custom = written.cluster_type
    if custom is None or not custom.name:
        return enumeration(written.type, _TYPES), ()
    aggregate: tuple[str, ...] = ()
    if is_set(custom.typed_config):
        message, raw = typed(custom.typed_config)
        if message.endswith(".ClusterConfig") and ".aggregate." in message:
            aggregate = tuple(_AGGREGATE.decode(raw).clusters)
    return _CUSTOM_TYPES.get(custom.name, custom.name), aggregate


def _transport_socket(written: _Cluster) -> str:
    if written.transport_socket is not None:
        name = written.transport_socket.name
        return "" if name.endswith("raw_buffer") else name
    return "" if written.tls_context is None else "tls"


def _unmodelled(written: _Cluster) -> tuple[str, ...]:
    names = []
    original = written.original_dst_lb_config
    if original is not None:
        if original.use_http_header:
            names.append("original_dst_lb_config.use_http_header")
        if original.metadata_key is not None:
            names.append("original_dst_lb_config.metadata_key")
        if original.upstream_port_override:
            names.append("original_dst_lb_config.upstream_port_override")
    assignment = written.load_assignment
    if assignment is not None and assignment.policy and assignment.policy.drop_overloads:
        names.append("load_assignment.policy.drop_overloads")
    return tuple(names)


def _own_endpoints(written: _Cluster) -> tuple[facts.Endpoint, ...]:
    if written.load_assignment is not None:
        return _endpoints(written.load_assignment.endpoints)
    hosts = [each.host_and_port for each in written.hosts]
    return tuple([facts.Endpoint(address=host, port=port) for host, port in hosts])


def decode_load_assignment(
    raw: bytes | msgspec.Raw,
) -> tuple[str, tuple[facts.Endpoint, ...], int | None]:
    """The cluster, its endpoints and its overprovisioning factor. Raises what msgspec raises."""
    written = _LOAD_ASSIGNMENT.decode(raw)
    factor = None if written.policy is None else written.policy.overprovisioning_factor
    return written.cluster_name, _endpoints(written.endpoints), factor


def _endpoints(localities: Iterable[_LocalityEndpoints]) -> tuple[facts.Endpoint, ...]:
    return tuple(
        [
            _endpoint(each, locality.priority)
            for locality in localities
            for each in locality.lb_endpoints
        ]
    )


def _endpoint(written: _LbEndpoint, priority: int) -> facts.Endpoint:
    host, port = written.endpoint.address.host_and_port
    return facts.Endpoint(
        address=host,
        port=port,
        health=enumeration(written.health_status, HEALTH),
        priority=priority,
        weight=written.load_balancing_weight,
        metadata=_metadata(written.metadata),
        hostname=written.endpoint.hostname,
    )


# What nearly every endpoint has: metadata, and nothing in it that decides.
_NOTHING_THAT_DECIDES: Final = facts.FreeForm({"filter_metadata": {}})


def _metadata(written: _Metadata | None) -> facts.FreeForm | None:
    if written is None:
        return None
    filters = written.filter_metadata
    if filters is None or not filters.lb:
        return _NOTHING_THAT_DECIDES
    return facts.FreeForm({"filter_metadata": {"envoy.lb": filters.lb}})
