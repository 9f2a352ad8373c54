"""Consul's own service mesh (Connect): Consul configures each registered proxy itself."""

from collections.abc import Iterable, Iterator
from typing import Final

from meshdoctor.evidence.addresses import is_loopback
from meshdoctor.evidence.connect import ConsulConnect, Intention
from meshdoctor.evidence.consul import Instance, ProxyRegistration
from meshdoctor.kinds.interface import Signs

PROXY_KINDS: Final = frozenset(
    {
        "connect-proxy",
        "mesh-gateway",
        "terminating-gateway",
        "ingress-gateway",
        "api-gateway",
    }
)
"""`ServiceKind`s that are proxies, not services anybody calls by name."""

HTTP_PROTOCOLS: Final = frozenset({"http", "http2", "grpc"})
"""Protocols whose requests Consul's proxies read; a missing one is tcp."""

HTTP2_PROTOCOLS: Final = frozenset({"http2", "grpc"})
"""Those in which a proxy speaks HTTP/2 to its own service."""

ANYBODY: Final = "*"
"""The name in an intention that stands for every service."""

OUTBOUND: Final = "outbound_listener"
"""How the name begins of the listener that takes the calls of a transparent proxy's service."""

LOCAL_APP: Final = "local_app"
"""The cluster by which Consul's proxies reach their own service."""


_SENDING: Final = ("service-router", "service-splitter", "service-resolver")
"""The kinds of config entries that send calls on, in the order in which they follow each other."""


def is_there(signs: Signs) -> bool:
    """True where a proxy is registered, or an Envoy has the cluster that Consul gives each."""
    if signs.catalog is not None and any(map(is_proxy, signs.catalog.instances)):
        return True
    proxies = signs.proxies.proxies.values() if signs.proxies is not None else ()
    return any(entry.cluster.name == LOCAL_APP for proxy in proxies for entry in proxy.clusters)


def is_proxy(instance: Instance) -> bool:
    """True of a registration that stands for a proxy."""
    return instance.kind in PROXY_KINDS


def protocol_of(service: str, connect: ConsulConnect) -> tuple[str, str]:
    """The protocol that Consul takes a service for, and the config entry that says so, or ""."""
    own = connect.entry("service-defaults", service)
    if own is not None and own.protocol:
        return own.protocol, own.rule
    everybody = connect.entry("proxy-defaults", "global")
    if everybody is not None and everybody.protocol:
        return everybody.protocol, everybody.rule
    return "tcp", ""


def leads_to(service: str, connect: ConsulConnect) -> frozenset[str]:
    """The services that Consul's own rules send calls to `service` on to, itself not among them.

    Routers, splitters and resolvers follow one another, so the entries of each next one count.
    """
    return frozenset(each for each, _ in _steps(service, connect)) - {service}


def leads_away(service: str, connect: ConsulConnect) -> str:
    """Another datacenter or peer that the same rules may send such calls to, "" for none."""
    ways = (away for _, away in _steps(service, connect))
    return next(filter(None, ways), "")


def _steps(service: str, connect: ConsulConnect) -> Iterator[tuple[str, str]]:
    """Each service on the way, itself first, and whereto else its entries may send calls."""
    found = {service}
    waiting = [service]
    while waiting:
        name = waiting.pop()
        entries = [connect.entry(kind, name) for kind in _SENDING]
        yield name, next((each.leads_away for each in entries if each and each.leads_away), "")
        for entry in entries:
            for each in entry.leads_to if entry is not None else ():
                if each not in found:
                    found.add(each)
                    waiting.append(each)


def intention_for(
    intentions: Iterable[Intention], source: str, destination: str
) -> Intention | None:
    """The intention that decides who is first in the order of precedence, None for the default."""
    for each in intentions:
        if each.source in (source, ANYBODY) and each.destination in (destination, ANYBODY):
            return each
    return None


def service_of_identity(uri: str) -> str:
    """The service in `spiffe://<trust domain>/ns/default/dc/dc1/svc/web`, "" for other names."""
    _, found, service = uri.rpartition("/svc/")
    return service if found and uri.startswith("spiffe://") else ""


def virtual_name(service: str) -> str:
    """The name by which Consul's DNS gives a service's virtual address."""
    return f"{service}.virtual.consul"


def misses(registration: ProxyRegistration, instance: Instance) -> bool:
    """True where a proxy surely looks for its instance on a port that this does not have.

    Where the instance is registered with an address of its own, as schedulers do, the port there
    may be another than the one in its network namespace: then nobody can tell.
    """
    said_by_hand = not instance.registered or is_loopback(instance.registered)
    ports = (registration.local_port, instance.port)
    return said_by_hand and all(ports) and ports[0] != ports[1]
