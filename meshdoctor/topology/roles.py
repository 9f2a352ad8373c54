"""What a container is for, told by its image and its command, never by its own name."""

import enum
from functools import lru_cache
from typing import Final

from meshdoctor.evidence.docker import Container
from meshdoctor.kinds import istio_consul


class Role(enum.StrEnum):
    """A control-plane component's part in the mesh."""

    CONSUL = "consul"
    REGISTRATOR = "registrator"
    PILOT = "pilot"
    ETCD = "etcd"
    API_SERVER = "api-server"
    TRACING = "tracing"

    @property
    def called(self) -> str:
        """How a sentence names it."""
        titles = {
            Role.CONSUL: "Consul",
            Role.REGISTRATOR: "Registrator",
            Role.PILOT: "Pilot",
            Role.ETCD: "etcd",
            Role.API_SERVER: "the API server",
            Role.TRACING: "the tracing server",
        }
        return titles[self]


_IMAGES: Final = {
    Role.CONSUL: frozenset({"consul", "consul-enterprise"}),
    Role.REGISTRATOR: frozenset({"registrator"}),
    Role.ETCD: frozenset({"etcd", "etcd-amd64"}),
    Role.API_SERVER: frozenset({"kube-apiserver", "kube-apiserver-amd64"}),
    Role.TRACING: frozenset({"all-in-one", "jaeger", "jaegertracing", "zipkin", "zipkin-slim"}),
}
_PROGRAMS: Final = {
    Role.REGISTRATOR: frozenset({"registrator"}),
    Role.ETCD: frozenset({"etcd"}),
    Role.API_SERVER: frozenset({"kube-apiserver"}),
}
_ENVOY_IMAGES: Final = frozenset(
    {"consul-dataplane", "consul-envoy", "envoy", "proxy", "proxy_debug", "proxyv2"}
)
_ENVOY_PROGRAMS: Final = frozenset({"consul-dataplane", "envoy", "pilot-agent"})
_REDIRECTING_IMAGES: Final = frozenset({"proxy_init"})

INFRASTRUCTURE_NAMES: Final = frozenset(
    {
        "consul",
        "etcd",
        "istio-apiserver",
        "istio-pilot",
        "jaeger",
        "kube-apiserver",
        "kube-apiserver-amd64",
        "pilot",
        "registrator",
        "zipkin",
    }
)
"""Service names that stand for infrastructure where no container tells; a guess by name."""


def programs(container: Container) -> frozenset[str]:
    """The words of the command without their paths; shell lines are split too."""
    return _programs(container.command)


# A container is asked for what it runs by everybody who must know what it is.
@lru_cache(maxsize=4096)
def _programs(command: tuple[str, ...]) -> frozenset[str]:
    words = (word for part in command for word in part.split())
    return frozenset(word.rpartition("/")[2] for word in words)


def runs_envoy(container: Container) -> bool:
    """True of a container that runs Envoy, alone or under an agent."""
    if container.image_name in _ENVOY_IMAGES or programs(container) & _ENVOY_PROGRAMS:
        return not installs_redirect(container)
    return False


def installs_redirect(container: Container) -> bool:
    """True of an init container: it writes nat rules into the namespace it shares, and exits."""
    if not container.network_container:
        return False
    names = programs(container)
    return container.image_name in _REDIRECTING_IMAGES or any("iptables" in name for name in names)


def role_of(container: Container) -> Role | None:
    """The control-plane part that a container plays, None for everything else."""
    if runs_envoy(container) or installs_redirect(container):
        return None
    if istio_consul.is_pilot(container):
        return Role.PILOT
    names = programs(container)
    if {"consul", "agent"} <= names:
        return Role.CONSUL
    for role, images in _IMAGES.items():
        if container.image_name in images:
            return role
    for role, wanted in _PROGRAMS.items():
        if names & wanted:
            return role
    return Role.API_SERVER if {"hyperkube", "apiserver"} <= names else None
