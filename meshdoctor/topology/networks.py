"""Docker's networks, and whether a container reaches an address of theirs."""

from collections.abc import Iterable
from typing import Self

import msgspec

from meshdoctor.evidence.docker import Container, DockerEngine, Network


class Networks(msgspec.Struct, frozen=True):
    """Networks of this host alone, and who has an address on them.

    Docker drops what a container of one such network sends to another network's containers.
    """

    here: tuple[Network, ...]
    gateways: frozenset[str]
    containers: frozenset[str]
    _known: dict[tuple[str, tuple[str, ...]], str] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, docker: DockerEngine | None) -> Self:
        """None at all where a container may have been missed."""
        if docker is None or docker.problems:
            return cls((), frozenset(), frozenset())
        here = tuple(each for each in docker.networks.values() if each.is_of_this_host)
        return cls(
            here=here,
            gateways=frozenset(gateway for each in here for gateway in each.gateways),
            containers=frozenset(
                address
                for container in docker.containers
                if container.running
                for address in (container.bridge_address, *container.addresses.values())
            ),
        )

    def unreachable(self, address: str, seen_from: Container | None) -> str:
        """Why a container meets nobody at an address: what the address is; "" where it may."""
        if seen_from is None or not seen_from.addresses or address in self.gateways:
            return ""
        key = address, tuple(seen_from.addresses)
        if key not in self._known:
            self._known[key] = self._why(address, key[1])
        return self._known[key]

    def _why(self, address: str, own: Iterable[str]) -> str:
        holding = [each.name for each in self.here if each.holds(address)]
        if len(holding) != 1:
            return ""
        if holding[0] not in own:
            return f"an address of the network {holding[0]}, which is not the caller's"
        if address in self.containers:
            return ""
        return f"an address of the network {holding[0]} that no container has"
