"""MD508: an HTTP rule for a service whose port is TCP."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, ListenerEntry
from meshdoctor.evidence.istio import IstioRules, VirtualService
from meshdoctor.findings import (
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
    """The TCP listeners that one sidecar has for the ports of a service, and no HTTP one."""

    sidecar: str
    document: str
    entries: tuple[ListenerEntry, ...]


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
    found = False
    for rule in ruled:
        for host in rule.hosts:
            service = services.get(service_of_host(host))
            tcp = _without_http(service, proxies, listeners) if service is not None else []
            if service is not None and tcp:
                found = True
                yield _finding(rule, host, service, tcp, len(listeners))
    if not found:
        yield Fact(f"no HTTP rule of {count(len(ruled), 'VirtualService')} is for a TCP port")


def _finding(
    rule: VirtualService, host: str, service: Service, tcp: Sequence[_Tcp], examined: int
) -> Finding:
    sidecars = [each.sidecar for each in tcp]
    keys = sorted({entry.listener.key for each in tcp for entry in each.entries})
    ports = sorted({str(entry.listener.port) for each in tcp for entry in each.entries})
    number = len(keys)
    where = f"{len(tcp)} of {count(examined, 'examined sidecar')}"
    if len(tcp) == examined:
        where = f"all {count(examined, 'examined sidecar')}" if examined > 1 else sidecars[0]
    return Finding(
        message=(
            f"The HTTP routes of VirtualService {rule.name} for {host} have no effect: "
            f"{listing(keys)} {verb(number, 'is a TCP listener', 'are TCP listeners')} in {where}."
        ),
        subjects=(
            Subject(SubjectKind.RULE, f"VirtualService/{rule.name}"),
            Subject(SubjectKind.SERVICE, service.name),
            *subjects(SubjectKind.LISTENER, keys),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=(
            routing_rules.proof(rule, f"{rule.spec}/http", f"HTTP routes for {host}"),
            *(
                proofs.listener(each.document, entry, f"tcp_proxy on {entry.listener.key}")
                for each in tcp
                for entry in each.entries
            ),
        ),
        remedies=(
            Remedy(
                summary=(
                    f"Declare the protocol of every service on port {listing(ports)}, so that "
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
    service: Service,
    proxies: EnvoyProxies,
    listeners: Mapping[str, Mapping[int, ListenerEntry]],
) -> Sequence[_Tcp]:
    found = []
    for sidecar, by_port in listeners.items():
        entries = [by_port[port] for port in service.ports if port in by_port]
        if any(entry.listener.http_managers for entry in entries):
            continue
        tcp = tuple(entry for entry in entries if entry.listener.tcp_proxies)
        if tcp:
            found.append(_Tcp(sidecar, proxies.proxies[sidecar].document, tcp))
    return found
