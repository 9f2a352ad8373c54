"""Istio's Pilot with Consul as its registry: what Pilot makes of what Consul says.

The rules are those of Pilot 1.1 (`pilot/pkg/serviceregistry/consul/conversion.go` and
`pilot/pkg/networking/core/v1alpha3/listener.go` of istio/istio); where versions differ it is
said at the rule.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshdoctor.evidence.consul import DNS_SUFFIX
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.istio import VirtualService
from meshdoctor.evidence.versions import minor
from meshdoctor.kinds.interface import Signs

HTTP_PROTOCOLS: Final = frozenset({"grpc", "grpc-web", "http", "http2"})
"""Protocols that share a port: one HTTP listener routes them by their host name."""

TCP_PROTOCOLS: Final = frozenset({"https", "mongo", "mysql", "redis", "tcp", "tls", "udp"})
"""Known protocols that take the listener of their port for one service alone."""

PROTOCOLS: Final = HTTP_PROTOCOLS | TCP_PROTOCOLS

VIRTUAL_PORT: Final = 15001
"""Where the nat rules send every connection (`istio-iptables.sh -p`)."""

PROXY_UID: Final = "1337"
"""The user Envoy runs as; its own connections must not be redirected (`-u`)."""

DISCOVERY_CLUSTER: Final = "xds-grpc"
"""By which a sidecar's bootstrap reaches Pilot."""

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 # what Pilot binds listeners to

_PILOT: Final = frozenset({"pilot", "pilot-discovery", "istiod"})


def is_there(signs: Signs) -> bool:
    """True where Pilot runs or answers, or an Envoy has clusters of the names Pilot gives."""
    if signs.pilot is not None:
        return True
    if signs.docker is not None and any(map(is_pilot, signs.docker.containers)):
        return True
    proxies = signs.proxies.proxies.values() if signs.proxies is not None else ()
    return any(
        entry.cluster.name.startswith(("outbound|", "inbound|"))
        for proxy in proxies
        for entry in proxy.clusters
    )


def is_pilot(container: Container) -> bool:
    """True of a container that runs Pilot, by its image or its command."""
    words = {word.rpartition("/")[2] for part in container.command for word in part.split()}
    return container.image_name in _PILOT or "pilot-discovery" in words


def is_http(protocol: str | None, *, default_http: bool = False) -> bool:
    """True where Pilot makes an HTTP listener of it; case does not matter.

    A missing protocol is TCP since 1.1.0; `default_http` is for 1.0, which took it for HTTP. An
    unknown word is always TCP, with a warning in Pilot's log.
    """
    return default_http if protocol is None else protocol.lower() in HTTP_PROTOCOLS


def is_known(protocol: str) -> bool:
    """True of a word that Pilot understands."""
    return protocol.lower() in PROTOCOLS


def nearest(protocol: str) -> str | None:
    """The accepted word that was probably meant, None where nothing is near."""
    word = protocol.strip().lower()
    # `HTTP/1.1` and `http1.1` name a version that Pilot does not want to hear.
    bare = re.sub(r"[/ _-]?[0-9.]+$", "", word)
    if bare in PROTOCOLS:
        return "http2" if bare == "http" and re.search(r"[/ _-]?2(\.0)?$", word) else bare
    from difflib import get_close_matches  # noqa: PLC0415

    matches = get_close_matches(word, sorted(PROTOCOLS), n=1, cutoff=0.6)
    return matches[0] if matches else None


def service_of_host(host: str) -> str:
    """The service that a host name of Pilot's, or an application's, stands for.

    `details.service.consul`, `details.service` and `details` are all `details`.
    """
    return host.removesuffix(".consul").removesuffix(".service")


def host_names(service: str) -> tuple[str, ...]:
    """The names by which applications call a service, the shortest first."""
    return service, f"{service}{DNS_SUFFIX}"


def service_of_cluster(cluster: str) -> str | None:
    """The service in `outbound|9080|v1|reviews.service.consul`, a hint, None for other names."""
    parts = cluster.split("|")
    if len(parts) != len(("direction", "port", "subset", "host")):
        return None
    return service_of_host(parts[3]) if parts[0] == "outbound" else None


class SentOn(msgspec.Struct, frozen=True):
    """A service that a rule sends another's calls to; `by_request`: by its HTTP routes."""

    service: str
    by_request: bool


class Routed:
    """Where VirtualServices in force send the calls of sidecars on to, by the service called.

    A rule holds for the host it names, and one for `*.service.consul` for whom no rule names.
    Pilot takes one of several rules for a host; where each of them leads was meant by somebody.
    """

    def __init__(self, rules: Iterable[VirtualService]) -> None:
        self._by_host: dict[str, set[SentOn]] = defaultdict(set)
        for rule in rules:
            if rule.for_sidecars and not rule.file:
                for host in rule.hosts:
                    self._by_host[host.lower()].update(_sent_on(rule))
        self._wildcards = [host for host in self._by_host if host.startswith("*")]

    def on_from(self, service: str) -> frozenset[SentOn]:
        """The services other than itself that calls to `service` are sent to."""
        host = f"{service}{DNS_SUFFIX}".lower()
        found = self._by_host.get(host)
        if found is None:
            covering = [each for each in self._wildcards if host.endswith(each[1:])]
            found = self._by_host[max(covering, key=len)] if covering else set()
        return frozenset(each for each in found if each.service != service)


def _sent_on(rule: VirtualService) -> Iterator[SentOn]:
    for routes, by_request in ((rule.http, True), (rule.streams, False)):
        for route in routes:
            for each in route.destinations:
                # A name without the domain is Kubernetes' own, and nobody's here.
                if each.host.lower().endswith(DNS_SUFFIX):
                    yield SentOn(service_of_host(each.host.lower()), by_request)


def takes_missing_for_http(version: str) -> bool:
    """True of Pilot 1.0, by an image tag as `1.0.6`; False for unknown versions."""
    told = minor(version)
    return told is not None and told < (1, 1)
