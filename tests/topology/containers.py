"""Containers, instances and proxies for tests, with only what a test says of them."""

from typing import Any

from meshdoctor.evidence import layout
from meshdoctor.evidence.consul import AGENT_SERVICES, ConsulCatalog
from meshdoctor.evidence.docker import CONTAINERS, Container, DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies
from tests.evidence.damage import snapshot

REGISTRATOR = ("/bin/registrator", "-internal", "consul://consul:8500")


def inspected(  # noqa: PLR0913 # one keyword for each part of `docker inspect` that matters
    name: str,
    *,
    id: str = "",
    image: str = "web:1",
    command: tuple[str, ...] = (),
    network: str = "mesh",
    address: str = "",
    bridge: str = "",
    addresses: dict[str, str] | None = None,
    exposed: tuple[str, ...] = (),
    published: dict[str, list[tuple[str, str]]] | None = None,
    env: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    status: str = "running",
    started: str = "2026-01-01T00:00:00Z",
    hostname: str = "",
) -> dict[str, Any]:
    """`docker inspect` of one container; its id is its name, padded, where none is given."""
    by_network = addresses if addresses is not None else ({network: address} if address else {})
    return {
        "Id": id or name.ljust(64, "0"),
        "Name": f"/{name}",
        "Path": command[0] if command else "",
        "Args": list(command[1:]),
        "State": {"Status": status, "StartedAt": started, "Pid": 7 * (status == "running")},
        "HostConfig": {"NetworkMode": network},
        "Config": {
            "Image": image,
            "Hostname": hostname,
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "Labels": labels or {},
            "ExposedPorts": {port: {} for port in exposed},
        },
        "NetworkSettings": {
            "IPAddress": bridge,
            "Networks": {key: {"IPAddress": value} for key, value in by_network.items()},
            "Ports": {
                port: [{"HostIp": host, "HostPort": number} for host, number in bindings]
                for port, bindings in (published or {}).items()
            },
        },
    }


def container(name: str, **parts: Any) -> Container:
    """One container as evidence has it."""
    (only,) = engine(inspected(name, **parts)).containers
    return only


def engine(*containers: dict[str, Any]) -> DockerEngine:
    """A Docker engine with these containers."""
    return DockerEngine.load(snapshot({CONTAINERS: list(containers)}))


def catalog(*instances: dict[str, Any], agent: dict[str, Any] | None = None) -> ConsulCatalog:
    """A catalogue of instances, each as `registered` makes it."""
    documents: dict[str, Any] = {"consul/catalog/services.json": {"consul": []}}
    for each in instances:
        documents.setdefault(layout.catalog_service(each["ServiceName"]), []).append(each)
    if agent is not None:
        documents[AGENT_SERVICES] = agent
    return ConsulCatalog.load(snapshot(documents))


def registered(  # one keyword for each field that matters
    service: str,
    id: str,
    address: str = "",
    port: int = 9080,
    *,
    node: str = "node",
    kind: str = "",
    proxy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One element of `GET /v1/catalog/service/<service>`."""
    return {
        "ServiceName": service,
        "ServiceID": id,
        "Node": node,
        "Address": "10.255.0.1",
        "ServiceAddress": address,
        "ServicePort": port,
        "ServiceKind": kind,
        "ServiceProxy": proxy or {},
    }


def proxies(**dumps: dict[str, Any]) -> EnvoyProxies:
    """Envoys by name, each with a dump as `listening` makes it."""
    return EnvoyProxies.load(
        snapshot({layout.envoy(name, "config_dump.json"): dump for name, dump in dumps.items()})
    )


def listening(address: str = "", port: int = 0, node: str = "") -> dict[str, Any]:
    """A dump with one listener, and the node that Envoy was started as."""
    package = "type.googleapis.com/envoy.admin.v3."
    listener = {
        "name": f"{address}_{port}",
        "address": {"socket_address": {"address": address, "port_value": port}},
    }
    active = {"name": listener["name"], "active_state": {"listener": listener}}
    return {
        "configs": [
            {"@type": f"{package}BootstrapConfigDump", "bootstrap": {"node": {"id": node}}},
            {
                "@type": f"{package}ListenersConfigDump",
                "dynamic_listeners": [active] if port else [],
            },
        ]
    }
