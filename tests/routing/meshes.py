"""Meshes of Istio on Consul, built small or large: what Consul and each Envoy would say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from meshdoctor.check import Examination
from meshdoctor.snapshot.documents import Snapshot

_ANY = "0.0.0.0"  # noqa: S104 # what Pilot binds listeners to
_TYPE = "type.googleapis.com/envoy"
_NETWORK = f"{_TYPE}.extensions.filters.network"
MANAGER = f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager"

Documents = dict[str, Any]


@dataclass(frozen=True)
class App:
    """One instance, with an Envoy of its own. `id` is what its workload is called."""

    service: str
    address: str
    port: int = 9080
    protocol: str | None = "http"

    @property
    def id(self) -> str:
        return f"{self.service}-{self.address.rpartition('.')[2]}"


def istio(apps: Sequence[App], owners: Mapping[int, str] | None = None) -> Documents:
    """The documents of a mesh; `owners` are services that got the listener of a port as TCP."""
    documents = catalogue(apps)
    for app in apps:
        documents |= sidecar(app, apps, owners)
    return documents


def catalogue(apps: Sequence[App]) -> Documents:
    """What Consul says of them."""
    services: dict[str, list[App]] = {}
    for app in apps:
        services.setdefault(app.service, []).append(app)
    documents: Documents = {
        "consul/catalog/services.json": {name: [] for name in ("consul", *services)},
        # Its servers register themselves.
        "consul/catalog/service/consul.json": [
            {"ServiceName": "consul", "ServiceID": "consul", "Node": "n", "ServicePort": 8300}
        ],
    }
    for name, instances in services.items():
        documents[f"consul/catalog/service/{name}.json"] = [_registered(app) for app in instances]
    return documents


def sidecar(app: App, apps: Sequence[App], owners: Mapping[int, str] | None = None) -> Documents:
    """What the Envoy beside one of them says."""
    return {
        f"envoy/{app.id}/config_dump.json": _dump(app, apps, owners or {}),
        f"envoy/{app.id}/clusters.json": _endpoints(app, apps),
    }


def examine(documents: Documents) -> Examination:
    """The documents as a snapshot under examination."""
    return Examination(
        Snapshot({name: msgspec.json.encode(each) for name, each in documents.items()})
    )


def listener(
    address: str, port: int, *filters: Mapping[str, Any], virtual: bool = False
) -> dict[str, Any]:
    """An element of `dynamic_listeners`."""
    written: dict[str, Any] = {
        "name": "virtual" if virtual else f"{address}_{port}",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": list(filters)}],
    }
    written |= {"use_original_dst": True} if virtual else {"bind_to_port": False}
    return {"name": written["name"], "active_state": {"listener": written}}


def tcp(cluster: str) -> dict[str, Any]:
    """A TCP proxy to a cluster."""
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": f"{_NETWORK}.tcp_proxy.v3.TcpProxy", "cluster": cluster},
    }


def http(routes: str) -> dict[str, Any]:
    """An HTTP connection manager that asks for routes by name."""
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {"@type": MANAGER, "rds": {"route_config_name": routes}},
    }


def outbound(service: str, port: int, subset: str = "") -> str:
    """The name that Pilot gives a cluster."""
    return f"outbound|{port}|{subset}|{service}.service.consul"


def _registered(app: App) -> dict[str, Any]:
    return {
        "ServiceName": app.service,
        "ServiceID": app.id,
        "ServiceAddress": app.address,
        "ServicePort": app.port,
        "ServiceMeta": {} if app.protocol is None else {"protocol": app.protocol},
        "Datacenter": "dc1",
    }


def _ports(apps: Sequence[App]) -> dict[int, list[str]]:
    ports: dict[int, dict[str, None]] = {}
    for app in apps:
        ports.setdefault(app.port, {})[app.service] = None
    return {port: list(services) for port, services in ports.items()}


def _dump(app: App, apps: Sequence[App], owners: Mapping[int, str]) -> dict[str, Any]:
    inbound = f"inbound|{app.port}||{app.service}.service.consul"
    ports = _ports(apps)
    clusters = [{"name": inbound, "type": "STATIC"}]
    clusters += [{"name": "PassthroughCluster", "type": "ORIGINAL_DST"}]
    clusters += [
        {"name": outbound(service, port), "type": "EDS"}
        for port, services in ports.items()
        for service in services
    ]
    listeners = [
        listener(app.address, app.port, tcp(inbound)),
        listener(_ANY, 15001, tcp("PassthroughCluster"), virtual=True),
        *(
            listener(
                _ANY,
                port,
                tcp(outbound(owners[port], port)) if port in owners else http(str(port)),
            )
            for port in ports
        ),
    ]
    routes = [
        {"route_config": _routes(port, services)}
        for port, services in ports.items()
        if port not in owners
    ]
    admin = f"{_TYPE}.admin.v3"
    return {
        "configs": [
            {"@type": f"{admin}.BootstrapConfigDump", "bootstrap": {"node": {"id": app.id}}},
            {
                "@type": f"{admin}.ClustersConfigDump",
                "dynamic_active_clusters": [{"cluster": each} for each in clusters],
            },
            {"@type": f"{admin}.ListenersConfigDump", "dynamic_listeners": listeners},
            {"@type": f"{admin}.RoutesConfigDump", "dynamic_route_configs": routes},
        ]
    }


def _routes(port: int, services: Sequence[str]) -> dict[str, Any]:
    return {
        "name": str(port),
        "virtual_hosts": [
            {
                "name": f"{service}.service.consul:{port}",
                "domains": [
                    f"{name}{suffix}"
                    for name in (f"{service}.service.consul", service)
                    for suffix in (f":{port}", "")
                ],
                "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": outbound(service, port)}}
                ],
            }
            for service in services
        ],
    }


def _endpoints(app: App, apps: Sequence[App]) -> dict[str, Any]:
    found: dict[str, list[App]] = {}
    for each in apps:
        found.setdefault(outbound(each.service, each.port), []).append(each)
    local = App(app.service, "127.0.0.1", app.port)
    found[f"inbound|{app.port}||{app.service}.service.consul"] = [local]
    return {
        "cluster_statuses": [
            {
                "name": cluster,
                "host_statuses": [
                    {
                        "address": {
                            "socket_address": {"address": each.address, "port_value": each.port}
                        },
                        "health_status": {"eds_health_status": "HEALTHY"},
                    }
                    for each in there
                ],
            }
            for cluster, there in found.items()
        ]
    }
