"""The kinds of mesh, and what one is recognised by."""

import enum

import msgspec

from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.evidence.pilot import PilotDebug


class Kind(enum.StrEnum):
    """The kinds of mesh meshdoctor knows, by the names that reports use."""

    ISTIO_CONSUL = "istio-consul"
    """Istio's Pilot over a Consul registry (Istio 1.0 to 1.7), containers run with Docker."""

    CONSUL_CONNECT = "consul-connect"
    """Consul's own service mesh: Consul itself configures each Envoy."""

    @property
    def called(self) -> str:
        """How a sentence names it."""
        match self:
            case Kind.ISTIO_CONSUL:
                return "Istio on Consul"
            case Kind.CONSUL_CONNECT:
                return "Consul's own service mesh"


class Signs(msgspec.Struct, frozen=True):
    """The evidence there is; a kind is recognised by what of it only that kind leaves."""

    docker: DockerEngine | None
    catalog: ConsulCatalog | None
    proxies: EnvoyProxies | None
    pilot: PilotDebug | None
