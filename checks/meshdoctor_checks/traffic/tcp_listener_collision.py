"""MD401: one TCP listener takes the traffic of every service on its port."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, Listener, ListenerEntry
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
    subjects,
)
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import WILDCARDS, is_http
from meshdoctor.routing.references import clusters_of
from meshdoctor.routing.registry import Registry
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.protocols import SHARES, require_pilot
from meshdoctor_checks.wording import count, listing, verb


class _Holder(msgspec.Struct, frozen=True):
    """A sidecar whose listener on the port is TCP, and the service that got it."""

    sidecar: str
    proxy: EnvoyProxy
    entry: ListenerEntry
    owners: tuple[str, ...]

    @property
    def clusters(self) -> tuple[str, ...]:
        """Where its `tcp_proxy` sends what it gets."""
        return tuple(dict.fromkeys(_clusters(self.entry.listener)))


@check(
    code="MD401",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD409", "MD508", "MD601", "MD603"),
    plan=plan_of("traffic", "tcp_listener_collision"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def tcp_listener_collision(
    mesh: Mesh, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """One TCP listener takes the traffic of every service on its port.

    ## Why it matters

    A TCP listener sees bytes, not host names: it sends every connection to one cluster. When
    several services share its port, calls to all of them reach the service that owns the
    listener. Which one that is depends on the order of a map in Pilot: it is arbitrary, and can
    change whenever the catalogue changes.

    ## How it is found

    In a sidecar's configuration a listener on the wildcard address and a port of several
    services holds a `tcp_proxy`. The owner is the service that the registry has at the endpoints
    of its cluster; those it shadows are the other services of the catalogue on that port, for
    neither the proxy nor Pilot names them all. Only an application's calls to its own address
    escape: they meet the inbound listener of that very address.

    ## How to fix it

    Where the services speak HTTP, make Pilot know it: see MD201, MD202 and MD203. Where they are
    really TCP, give each a port of its own: see MD410.
    """
    require_pilot(mesh, SHARES)
    shared = mesh.shared_ports()
    if not proxies.proxies:
        raise CannotLookError("no sidecar's configuration could be read")
    if not shared:
        yield Fact("no two services share a port")
        return
    registry = Registry(mesh)
    holders: dict[int, list[_Holder]] = defaultdict(list)
    for name, proxy in proxies.proxies.items():
        for entry in proxy.deciding_listeners():
            if entry.listener.port in shared and _takes_all(entry.listener):
                owners = _owners(registry, proxy, entry.listener)
                holders[entry.listener.port].append(_Holder(name, proxy, entry, owners))
    for port in sorted(holders):
        yield _finding(mesh, port, shared[port], holders[port], len(proxies.proxies))
    free = len(shared) - len(holders)
    if free:
        yield Fact(
            f"no TCP listener on {count(free, 'shared port')} in "
            f"{count(len(proxies.proxies), 'sidecar')}"
        )


def _takes_all(listener: Listener) -> bool:
    """A TCP listener of its port for any address, with no HTTP beside it that could tell."""
    return (
        listener.address in WILDCARDS and bool(listener.tcp_proxies) and not listener.http_managers
    )


def _clusters(listener: Listener) -> Iterator[str]:
    for tcp in listener.tcp_proxies:
        yield from clusters_of(tcp)


def _owners(registry: Registry, proxy: EnvoyProxy, listener: Listener) -> tuple[str, ...]:
    """The services at the endpoints of the listener's clusters, () where nothing tells."""
    services = {
        service
        for cluster in _clusters(listener)
        if cluster in proxy.endpoints
        for endpoint in proxy.endpoints[cluster].endpoints
        if (service := registry.service_at(endpoint.address, endpoint.port)) is not None
    }
    return tuple(sorted(services))


def _finding(
    mesh: Mesh,
    port: int,
    services: Sequence[Service],
    holders: Sequence[_Holder],
    examined: int,
) -> Finding:
    key = holders[0].entry.listener.key
    names = [service.name for service in services]
    sidecars = dict.fromkeys(holder.sidecar for holder in holders)
    return Finding(
        message=_sentence(port, names, holders, key, examined),
        subjects=(
            Subject(SubjectKind.LISTENER, key),
            *subjects(SubjectKind.SERVICE, names),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(_proof(holder) for holder in holders),
        remedies=_remedies(mesh, port, services),
        references=("https://github.com/istio/istio/issues/11905",),
    )


def _sentence(
    port: int, names: Sequence[str], holders: Sequence[_Holder], key: str, examined: int
) -> str:
    number = len({holder.sidecar for holder in holders})
    every = {1: "the one examined sidecar", 2: "both examined sidecars"}.get(
        number, f"all {count(number, 'examined sidecar')}"
    )
    where = every if number == examined else f"{number} of {count(examined, 'examined sidecar')}"
    sends = f"In {where} one TCP listener, {key}, sends the calls on port {port} to"
    arbitrary = "which service wins is arbitrary and can change at Pilot's next push"
    whatever = f"whichever of {listing(names, most=8)} they name"
    winners: dict[tuple[str, ...], int] = defaultdict(int)
    for holder in holders:
        winners[holder.owners or holder.clusters] += 1
    if len(winners) > 1:
        split = listing(
            [f"{listing(winner)} in {times}" for winner, times in sorted(winners.items())]
        )
        return f"{sends} one service ({split}), {whatever}; {arbitrary}."
    owners = holders[0].owners
    if not owners:
        clusters = f"the cluster {listing(holders[0].clusters)}"
        return f"{sends} {clusters}, {whatever}; {arbitrary}."
    shadowed = [name for name in names if name not in owners]
    return (
        f"{sends} {listing(owners)}, whatever service they name, so "
        f"{listing(shadowed, most=8)} {verb(len(shadowed), 'is', 'are')} shadowed; {arbitrary}."
    )


def _proof(holder: _Holder) -> Citation:
    return proofs.listener(
        holder.proxy.document, holder.entry, f"tcp_proxy to {listing(holder.clusters)}"
    )


def _remedies(mesh: Mesh, port: int, services: Sequence[Service]) -> tuple[Remedy, ...]:
    """Only where the registry is sound already: else the cause has the remedy."""
    if not all(is_http(word) for each in services for word in each.protocols(port)):
        return ()
    sidecars = [
        sidecar.container
        for sidecar in mesh.sidecars
        if sidecar.container is not None and sidecar.container.running
    ]
    return (
        Remedy(
            summary=(
                "In Consul all services on this port are HTTP by now, so the sidecars hold an "
                "older configuration. Wait for Pilot's next push, else restart the sidecars."
            ),
            commands=(
                *(commands.restart(container) for container in sidecars),
                commands.see_that_it_worked("MD401"),
            ),
            effect="Each restart breaks the open connections of its application.",
        ),
    )
