"""What the lab's control plane takes from Consul, by the rules of Pilot 1.1."""

import json
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

DOMAIN: Final = "service.consul"
_HTTP: Final = {"grpc": "GRPC", "grpc-web": "GRPC-Web", "http": "HTTP", "http2": "HTTP2"}
_TCP: Final = {
    "https": "HTTPS",
    "mongo": "Mongo",
    "mysql": "MySQL",
    "redis": "Redis",
    "tcp": "TCP",
    "tls": "TLS",
    "udp": "UDP",
}


def protocol(meta: Mapping[str, str]) -> str:
    """As Pilot writes it: `HTTP`; a word that it does not know, or none, is `TCP`."""
    word = meta.get("protocol", "").lower()
    return _HTTP.get(word) or _TCP.get(word) or "TCP"


def is_http(name: str) -> bool:
    """True of a protocol that shares its port."""
    return name in _HTTP.values()


@dataclass(frozen=True)
class Instance:
    """One registration. `labels` are its tags of the form `key|value`."""

    service: str
    address: str
    port: int
    protocol: str
    labels: Mapping[str, str]
    datacenter: str

    @property
    def host(self) -> str:
        return f"{self.service}.{DOMAIN}"


@dataclass(frozen=True)
class Service:
    """All registrations of one name. The first of a port decides its protocol for callers."""

    name: str
    instances: tuple[Instance, ...]

    @property
    def host(self) -> str:
        return f"{self.name}.{DOMAIN}"

    @property
    def ports(self) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for each in self.instances:
            found.setdefault(each.port, each.protocol)
        return found


def service(name: str, answer: Iterable[Mapping[str, Any]]) -> Service:
    """From Consul's answer to /v1/catalog/service/<name>."""
    return Service(name, tuple(_instance(each) for each in answer))


def _instance(entry: Mapping[str, Any]) -> Instance:
    parts = [tag.split("|") for tag in entry["ServiceTags"] or ()]
    return Instance(
        service=entry["ServiceName"],
        address=entry["ServiceAddress"] or entry["Address"],
        port=entry["ServicePort"],
        protocol=protocol(entry["ServiceMeta"] or {}),
        labels={pair[0]: pair[1] for pair in parts if len(pair) == len(("key", "value"))},
        datacenter=entry["Datacenter"],
    )


def read(url: str) -> tuple[Service, ...]:
    """The whole catalogue of a Consul. Raises OSError or ValueError."""
    names: Mapping[str, Sequence[str]] = _get(f"{url}/v1/catalog/services")
    return tuple(service(name, _get(f"{url}/v1/catalog/service/{name}")) for name in sorted(names))


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 # http, from the command
        return json.load(answer)
