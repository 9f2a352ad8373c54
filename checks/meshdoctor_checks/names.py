"""Who answers to a host name, as Docker's own DNS tells a container."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from meshdoctor.evidence.consul import DNS_DOMAIN
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.topology.namespaces import Namespaces

_LABEL: Final = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_DEFAULT_NETWORK: Final = "bridge"
_OF_ONE_HOST: Final = frozenset({"", "bridge"})


class Lookup(msgspec.Struct, frozen=True):
    """What a name stands for: containers in sight, and those that have it out of sight.

    `networks` are those that the asking container sees.
    """

    here: tuple[Container, ...]
    elsewhere: tuple[Container, ...]
    networks: tuple[str, ...]


class Names:
    """The names that Docker's own DNS gives to containers, by network.

    `services` are Consul's, None where they are not known: a search domain may make one of them
    of a short name.
    """

    def __init__(self, docker: DockerEngine, services: Collection[str] | None) -> None:
        self._services = None if services is None else frozenset(services)
        self._namespaces = Namespaces(docker.containers)
        self._networks = docker.networks
        self._by_key = {key: each for each in docker.containers for key in (each.id, each.name)}
        self._holders: dict[str, list[Container]] = defaultdict(list)
        for each in docker.containers:
            for name in {*_names(each)}:
                self._holders[name].append(each)

    def look_up(self, name: str, asking: Container) -> Lookup | None:
        """Who goes by a name where a container asks, None where Docker alone does not decide it.

        That is so of addresses and names with a dot, of names in its own hosts file, of
        containers in the host's network or on one that reaches beyond this host, and where a
        search domain makes a name of Consul's of it.
        """
        host = self._namespaces.host(asking)
        if (
            host is None
            or not re.fullmatch(_LABEL, name)
            or name.isdecimal()
            or name == "localhost"
        ):
            return None
        if host.network_mode in ("host", "none") or name in host.extra_hosts:
            return None
        networks = tuple(each for each in host.aliases if each != _DEFAULT_NETWORK)
        drivers = {self._networks[each].driver for each in networks if each in self._networks}
        if not networks or drivers - _OF_ONE_HOST or self._may_be_consuls(name, host):
            return None
        linked = self._by_key.get(host.links.get(name, ""))
        holders = [*self._holders.get(name, ()), *([linked] if linked is not None else [])]
        here = tuple(each for each in holders if set(each.aliases) & set(networks))
        return Lookup(here, tuple(each for each in holders if each not in here), networks)

    def _may_be_consuls(self, name: str, host: Container) -> bool:
        if not host.dns_search:
            return False
        if set(host.dns_search) != {DNS_DOMAIN}:
            return True
        return self._services is None or name in self._services


def _names(container: Container) -> Iterator[str]:
    """All that Docker may resolve to it; the host name only in newer engines."""
    yield from (container.name, container.id[:12], container.hostname, container.compose_service)
    for aliases in container.aliases.values():
        yield from aliases
