"""Consul's own service mesh (Connect): Consul configures each registered proxy itself."""

from typing import Final

from meshdoctor.evidence.consul import Instance
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

LOCAL_APP: Final = "local_app"
"""The cluster by which Consul's proxies reach their own service."""


def is_there(signs: Signs) -> bool:
    """True where a proxy is registered, or an Envoy has the cluster that Consul gives each."""
    if signs.catalog is not None and any(map(is_proxy, signs.catalog.instances)):
        return True
    proxies = signs.proxies.proxies.values() if signs.proxies is not None else ()
    return any(entry.cluster.name == LOCAL_APP for proxy in proxies for entry in proxy.clusters)


def is_proxy(instance: Instance) -> bool:
    """True of a registration that stands for a proxy."""
    return instance.kind in PROXY_KINDS
