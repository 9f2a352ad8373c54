"""Containers, instances and proxies for tests, with only what a test says of them."""

from typing import Any

from meshdoctor.evidence.docker import CONTAINERS, Container, DockerEngine
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
