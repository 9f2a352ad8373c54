"""MD508: an HTTP rule for a service whose port is TCP."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, ListenerEntry
from meshdoctor.evidence.istio import IstioRules, VirtualService
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
from meshdoctor.kinds.istio_consul import WILDCARDS, service_of_host
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs, routing_rules
from meshdoctor_checks.wording import count, listing, verb


class _Tcp(msgspec.Struct, frozen=True):
    """The sidecars whose listeners on some ports are TCP and nothing else, and which they are."""

    sidecars: tuple[str, ...]
    keys: tuple[str, ...]
    ports: tuple[str, ...]
    subjects: tuple[Subject, ...]
    proofs: tuple[Citation, ...]


@check(code="MD508", severity=Severity.ERROR, since="0.1", kinds=(Kind.ISTIO_CONSUL,))
def http_rule_on_tcp_port(
    mesh: Mesh, rules: IstioRules, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """An HTTP rule is for a service whose port is TCP in the proxies: it has no effect.

    ## Why it matters

    A VirtualService with HTTP routes is applied without a word, and nothing follows: a TCP
    listener looks at no request.

    ## How it is found

    A VirtualService with `http` routes names a host, and for every port of its service that a
    sidecar listens on, the listener holds a `tcp_proxy` and no HTTP connection manager. Rules
    that are for gateways alone are left out.

    ## How to fix it

    Make the port HTTP: declare the protocol of every service on it (MD201, MD202, MD203). Or
    write the routes under `tcp`, if that is what the service speaks.
    """
    ruled = [each for each in rules.virtual_services if each.http and each.for_sidecars]
    if not ruled:
        yield Fact("no VirtualService with HTTP routes for sidecars is in force")
        return
    if not proxies.proxies:
        raise CannotLookError("no sidecar's configuration could be read")
    listeners = {sidecar: _by_port(proxy) for sidecar, proxy in proxies.proxies.items()}
    services = {service.name: service for service in mesh.applications}
    # What listens there is the same for all services of the same ports.
    known: dict[tuple[int, ...], _Tcp] = {}
    found = False
    for rule in ruled:
        for host in rule.hosts:
            service = services.get(service_of_host(host))
            if service is None:
                continue
            if service.ports not in known:
                known[service.ports] = _without_http(service.ports, proxies, listeners)
            if known[service.ports].sidecars:
                found = True
                yield _finding(rule, host, service, known[service.ports], len(listeners))
    if not found:
        yield Fact(f"no HTTP rule of {count(len(ruled), 'VirtualService')} is for a TCP port")


def _finding(
    rule: VirtualService, host: str, service: Service, tcp: _Tcp, examined: int
) -> Finding:
    number = len(tcp.keys)
    where = f"{len(tcp.sidecars)} of {count(examined, 'examined sidecar')}"
    if len(tcp.sidecars) == examined:
        where = f"all {count(examined, 'examined sidecar')}" if examined > 1 else tcp.sidecars[0]
    return Finding(
        message=(
            f"The HTTP routes of VirtualService {rule.name} for {host} have no effect: "
            f"{listing(tcp.keys)} {verb(number, 'is a TCP listener', 'are TCP listeners')} "
            f"in {where}."
        ),
        subjects=(
            Subject(SubjectKind.RULE, f"VirtualService/{rule.name}"),
            Subject(SubjectKind.SERVICE, service.name),
            *tcp.subjects,
        ),
        seen_in=(
            routing_rules.proof(rule, f"{rule.spec}/http", f"HTTP routes for {host}"),
            *tcp.proofs,
        ),
        remedies=(
            Remedy(
                summary=(
                    f"Declare the protocol of every service on port {listing(tcp.ports)}, so that "
                    "Pilot makes an HTTP listener of it and the rule takes effect; or, where "
                    f"{service.name} really speaks TCP, write the rule's routes under `tcp`."
                ),
                commands=(commands.see_that_it_worked("MD508", "MD201"),),
            ),
        ),
    )


def _by_port(proxy: EnvoyProxy) -> Mapping[int, ListenerEntry]:
    """The listeners that services of a port share."""
    found: dict[int, ListenerEntry] = {}
    for entry in proxy.deciding_listeners():
        if entry.listener.address in WILDCARDS:
            found.setdefault(entry.listener.port, entry)
    return found


def _without_http(
    ports: Sequence[int],
    proxies: EnvoyProxies,
    listeners: Mapping[str, Mapping[int, ListenerEntry]],
) -> _Tcp:
    sidecars: list[str] = []
    there: list[ListenerEntry] = []
    cited: list[Citation] = []
    for sidecar, by_port in listeners.items():
        entries = [by_port[port] for port in ports if port in by_port]
        if any(entry.listener.http_managers for entry in entries):
            continue
        tcp = tuple(entry for entry in entries if entry.listener.tcp_proxies)
        if tcp:
            sidecars.append(sidecar)
            there += tcp
            document = proxies.proxies[sidecar].document
            cited += (
                proofs.listener(document, entry, f"tcp_proxy on {entry.listener.key}")
                for entry in tcp
            )
    keys = tuple(sorted({entry.listener.key for entry in there}))
    return _Tcp(
        sidecars=tuple(sidecars),
        keys=keys,
        ports=tuple(sorted({str(entry.listener.port) for entry in there})),
        subjects=(
            *subjects(SubjectKind.LISTENER, keys),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        proofs=tuple(cited),
    )
