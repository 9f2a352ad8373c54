"""What each Envoy is told, as JSON of xDS v3: Pilot 1.1's rules, in today's words.

Names, addresses and the order of decisions are Pilot's (`pilot/pkg/networking/core/v1alpha3` of
istio/istio 1.1), which tests compare with recordings of one.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.live.lab.control_plane.catalogue import DOMAIN, Instance, Service, is_http

Resource = dict[str, Any]
Rule = Mapping[str, Any]

_TYPE: Final = "type.googleapis.com/envoy"
_HCM: Final = (
    f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_TCP_PROXY: Final = f"{_TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_ROUTER: Final = f"{_TYPE}.extensions.filters.http.router.v3.Router"
_PASSTHROUGH: Final = "PassthroughCluster"
_ADS: Final = {"ads": {}, "resource_api_version": "V3"}
_ANY: Final[tuple[Rule, ...]] = ({},)
_WILDCARD: Final = "0.0.0.0"  # noqa: S104 # the address of every service of Consul's


@dataclass
class Conflict:
    """Services of which one got the listener."""

    kind: str
    """As Pilot's metrics have it: `tcp_over_current_tcp`."""
    listener: str
    accepted: str
    rejected: str


@dataclass(frozen=True)
class Mesh:
    """Everything that a push is made of. `order` is the order in which services claim ports."""

    services: tuple[Service, ...]
    virtual_services: tuple[Rule, ...] = ()
    destination_rules: tuple[Rule, ...] = ()
    order: tuple[str, ...] = ()

    def ordered(self) -> Sequence[Service]:
        rank = {name: index for index, name in enumerate(self.order)}
        return sorted(self.services, key=lambda each: rank.get(each.name, len(rank)))

    def subsets(self, host: str) -> Mapping[str, Mapping[str, str]]:
        """The labels of each subset that a DestinationRule defines for a host."""
        return {
            subset["name"]: subset.get("labels") or {}
            for rule in self.destination_rules
            if rule["spec"].get("host") == host
            for subset in rule["spec"].get("subsets") or ()
        }

    def rules(self, host: str) -> Rule | None:
        """The VirtualService of a host: the oldest, for sidecars."""
        found = [
            rule
            for rule in self.virtual_services
            if host in (rule["spec"].get("hosts") or ())
            and "mesh" in (rule["spec"].get("gateways") or ("mesh",))
        ]
        return min(found, key=_age) if found else None


def _age(rule: Rule) -> tuple[str, str]:
    """Of one second, Pilot takes the first by `name.namespace`."""
    held = rule["metadata"]
    made = held.get("creationTimestamp") or ""
    return made, f"{held['name']}.{held.get('namespace', 'default')}"


def shuffled(services: Iterable[Service], seed: str) -> tuple[str, ...]:
    """An arbitrary order, the same for the same seed: Pilot's is that of a Go map."""
    names = sorted(each.name for each in services)
    random.Random(seed).shuffle(names)  # noqa: S311 # nothing secret
    return tuple(names)


@dataclass
class Configuration:
    """For one proxy, by its address."""

    listeners: list[Resource] = field(default_factory=list)
    clusters: list[Resource] = field(default_factory=list)
    routes: list[Resource] = field(default_factory=list)
    endpoints: list[Resource] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def build(mesh: Mesh, address: str) -> Configuration:
    """All that the proxy at this address is told."""
    made = Configuration()
    own = [each for one in mesh.services for each in one.instances if each.address == address]
    made.clusters += [
        {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "1s"},
        {
            "name": _PASSTHROUGH,
            "type": "ORIGINAL_DST",
            "connect_timeout": "1s",
            "lb_policy": "CLUSTER_PROVIDED",
        },
    ]
    for each in own:
        _inbound(made, each)
    for service in mesh.services:
        for port in service.ports:
            for subset, labels in {"": {}, **mesh.subsets(service.host)}.items():
                _outbound_cluster(made, service, port, subset, labels)
    _outbound_listeners(made, mesh)
    made.listeners.append(
        {
            "name": "virtual",
            "address": _address(_WILDCARD, 15001),
            "filter_chains": [{"filters": [_tcp_proxy(_PASSTHROUGH)]}],
            "use_original_dst": True,
        }
    )
    return made


# ---------------------------------------------------------------- listeners


def _inbound(made: Configuration, instance: Instance) -> None:
    """A listener on the workload's own address, by what this instance itself declares."""
    kind = instance.protocol.lower()
    cluster = f"inbound|{instance.port}|{kind}|{instance.host}"
    name = f"{instance.address}_{instance.port}"
    if any(each["name"] == name for each in made.listeners):
        made.conflicts.append(Conflict("inbound_listener", name, "", instance.host))
        return
    made.clusters.append(
        {
            "name": cluster,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": [_endpoint("127.0.0.1", instance.port)]}],
            },
        }
    )
    routes = {
        "name": cluster,
        "virtual_hosts": [
            {
                "name": f"inbound|http|{instance.port}",
                "domains": ["*"],
                "routes": [_route({"prefix": "/"}, cluster, instance.host, instance.port)],
            }
        ],
        "validate_clusters": False,
    }
    filter_ = (
        _http(name, {"route_config": routes})
        if is_http(instance.protocol)
        else _tcp_proxy(cluster)
    )
    made.listeners.append(_listener(name, instance.address, instance.port, filter_))


def _outbound_listeners(made: Configuration, mesh: Mesh) -> None:
    """One listener a port, by whoever comes first; HTTP services share theirs."""
    owners: dict[int, tuple[Service, bool]] = {}
    hosts: dict[int, list[Service]] = {}
    for service in mesh.ordered():
        for port, protocol in service.ports.items():
            http = is_http(protocol)
            if http:
                hosts.setdefault(port, []).append(service)
            if port not in owners:
                owners[port] = (service, http)
                continue
            first, first_is_http = owners[port]
            if not (http and first_is_http):
                kind = (
                    f"outbound_listener_{'http' if http else 'tcp'}_over_current_"
                    f"{'http' if first_is_http else 'tcp'}"
                )
                listener = f"{_WILDCARD}:{port}"
                made.conflicts.append(Conflict(kind, listener, first.host, service.host))
    for port, (service, http) in owners.items():
        name = f"{_WILDCARD}_{port}"
        rds = {"rds": {"config_source": _ADS, "route_config_name": str(port)}}
        filter_ = _http(name, rds) if http else _tcp_proxy(f"outbound|{port}||{service.host}")
        made.listeners.append(_listener(name, _WILDCARD, port, filter_))
    for port, served in hosts.items():
        made.routes.append(
            {
                "name": str(port),
                "virtual_hosts": [
                    _virtual_host(mesh, each, port)
                    for each in sorted(served, key=lambda each: each.name)
                ],
                "validate_clusters": False,
            }
        )


def _listener(name: str, address: str, port: int, filter_: Resource) -> Resource:
    return {
        "name": name,
        "address": _address(address, port),
        "filter_chains": [{"filters": [filter_]}],
        "bind_to_port": False,
    }


def _http(prefix: str, routes: Resource) -> Resource:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _HCM,
            "stat_prefix": prefix,
            **routes,
            "http_filters": [router],
        },
    }


def _tcp_proxy(cluster: str) -> Resource:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": _TCP_PROXY, "stat_prefix": cluster, "cluster": cluster},
    }


def _address(address: str, port: int) -> Resource:
    return {"socket_address": {"address": address, "port_value": port}}


# ---------------------------------------------------------------- clusters


def _outbound_cluster(
    made: Configuration, service: Service, port: int, subset: str, labels: Mapping[str, str]
) -> None:
    name = f"outbound|{port}|{subset}|{service.host}"
    made.clusters.append(
        {
            "name": name,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": _ADS, "service_name": name},
            "connect_timeout": "1s",
        }
    )
    found = [
        _endpoint(each.address, each.port)
        for each in service.instances
        if each.port == port and labels.items() <= each.labels.items()
    ]
    made.endpoints.append(
        {"cluster_name": name, "endpoints": [{"lb_endpoints": found}] if found else []}
    )


def _endpoint(address: str, port: int) -> Resource:
    return {"endpoint": {"address": _address(address, port)}}


# ---------------------------------------------------------------- routes


def _virtual_host(mesh: Mesh, service: Service, port: int) -> Resource:
    bases = (service.host, service.name, service.host.removesuffix(".consul"))
    rule = mesh.rules(service.host)
    default = _route({"prefix": "/"}, f"outbound|{port}||{service.host}", service.host, port)
    routes = [default] if rule is None else list(_routes(rule, service, port))
    return {
        "name": f"{service.host}:{port}",
        "domains": [name for base in bases for name in (base, f"{base}:{port}")],
        "routes": routes,
    }


def _route(match: Resource, cluster: str, host: str, port: int) -> Resource:
    return {
        "match": match,
        "route": {"cluster": cluster, "timeout": "0s"},
        "decorator": {"operation": f"{host}:{port}/*"},
    }


def _routes(rule: Rule, service: Service, port: int) -> Iterable[Resource]:
    for http in rule["spec"].get("http") or ():
        for match in http.get("match") or _ANY:
            made = _route(_match(match), "", service.host, port)
            targets = http.get("route") or ()
            named = [(_target(each, port), each.get("weight", 100)) for each in targets]
            if len(named) > 1:
                del made["route"]["cluster"]
                made["route"]["weighted_clusters"] = {
                    "clusters": [{"name": name, "weight": weight} for name, weight in named]
                }
            elif named:
                made["route"]["cluster"] = named[0][0]
            yield made


def _target(route: Rule, port: int) -> str:
    destination = route["destination"]
    number = (destination.get("port") or {}).get("number", port)
    return f"outbound|{number}|{destination.get('subset', '')}|{_full(destination['host'])}"


def _full(host: str) -> str:
    """A name without a dot is one of Kubernetes, which no service of Consul's has."""
    return host if "." in host else f"{host}.default.svc.{DOMAIN}"


def _match(match: Rule) -> Resource:
    made: Resource = {"prefix": "/"}
    uri = match.get("uri") or {}
    if "exact" in uri:
        made = {"path": uri["exact"]}
    elif "prefix" in uri:
        made = {"prefix": uri["prefix"]}
    elif "regex" in uri:
        made = {"safe_regex": {"regex": uri["regex"]}}
    headers = [
        {"name": name, "string_match": value}
        for name, value in (match.get("headers") or {}).items()
    ]
    if headers:
        made["headers"] = headers
    return made
