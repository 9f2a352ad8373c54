"""MD403: HTTP and TCP services share a port."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from meshdoctor.check import check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import WILDCARDS, is_http
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.protocols import (
    SHARES,
    deciding,
    declares_tcp,
    has_tcp_listener,
    pilot_before_service_meta,
    require_pilot,
)
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD403",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD401", "MD402"),
    plan=plan_of("traffic", "mixed_protocol_port"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def mixed_protocol_port(
    mesh: Mesh, catalog: ConsulCatalog, proxies: EnvoyProxies | None
) -> Iterator[Finding | Fact]:
    """HTTP and TCP services share one port, so which of them works is luck.

    ## Why it matters

    All services of one port share one listener in every sidecar. If Pilot meets an HTTP service
    first, the TCP services get none; if it meets a TCP service first, every HTTP service on the
    port gets none. What it meets first is the order of a map, made anew at every push. A mesh
    that works now can stop working when an unrelated service is registered.

    ## How it is found

    Among the services of the catalogue on one port some are HTTP to Pilot and some TCP, because
    they declare it, declare nothing, or declare a word that Pilot does not know. It is an error
    where the sidecars' listeners show who lost, else a warning: then it works by luck.

    ## How to fix it

    Give the service whose protocol is missing or wrong the right one, or a TCP service a port of
    its own.
    """
    require_pilot(mesh, SHARES)
    if pilot_before_service_meta(mesh):
        return
    shared = mesh.shared_ports()
    winners = _winners(proxies, shared)
    mixed = 0
    for port, services in shared.items():
        http = [service for service in services if is_http(deciding(service, port))]
        tcp = [service for service in services if has_tcp_listener(deciding(service, port))]
        if not http or not tcp:
            continue
        mixed += 1
        yield _finding(mesh, port, http, tcp, winners[port])
    if shared and not mixed:
        yield Fact(f"no mixture of HTTP and TCP on {count(len(shared), 'shared port')}")


def _finding(
    mesh: Mesh,
    port: int,
    http: Sequence[Service],
    tcp: Sequence[Service],
    winners: Collection[str],
) -> Finding:
    names = [each.name for each in http]
    others = [each.name for each in tcp]
    state = ""
    if winners == {"tcp"}:
        state = f", and at present {listing(names, most=6)} {verb(len(names), 'has', 'have')} none"
    elif winners == {"http"}:
        state = (
            f", and at present {listing(others, most=6)} {verb(len(others), 'has', 'have')} none"
        )
    elif winners:
        state = ", and at present the sidecars differ in it"
    return Finding(
        message=(
            f"On port {port} {listing(names, most=6)} {verb(len(names), 'is', 'are')} HTTP to "
            f"Pilot and {listing(others, most=6)} {verb(len(others), 'is', 'are')} TCP; only one "
            f"kind can have the listener, luck decides at every push which{state}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (*others, *names)),
            Subject(SubjectKind.LISTENER, f"0.0.0.0:{port}"),
        ),
        seen_in=tuple(
            proofs.service_meta(instance)
            for each in (*tcp, *http)
            for instance in each.instances
            if instance.port == port
        ),
        remedies=_remedies(mesh, port, tcp),
        severity=Severity.ERROR if winners else Severity.WARNING,
        references=("https://github.com/istio/istio/issues/11905",),
    )


def _winners(proxies: EnvoyProxies | None, ports: Collection[int]) -> Mapping[int, set[str]]:
    """Who has the listener of each port, over all sidecars: tcp, http, both or nobody."""
    winners: dict[int, set[str]] = {port: set() for port in ports}
    for proxy in proxies.proxies.values() if proxies is not None else ():
        for entry in proxy.deciding_listeners():
            listener = entry.listener
            if listener.port not in winners or listener.address not in WILDCARDS:
                continue
            if listener.http_managers:
                winners[listener.port].add("http")
            elif listener.tcp_proxies:
                winners[listener.port].add("tcp")
    return winners


def _remedies(mesh: Mesh, port: int, tcp: Sequence[Service]) -> tuple[Remedy, ...]:
    """Only for services that declare TCP: what is missing or misspelt has a cause of its own."""
    declared = [each.name for each in tcp if declares_tcp(each, port)]
    if not declared:
        return ()
    return (
        Remedy(
            summary=(
                f"Give {listing(declared)} a port of {verb(len(declared), 'its', 'their')} own: "
                f"TCP cannot share port {port} with HTTP. If what "
                f"{verb(len(declared), 'it speaks', 'they speak')} is HTTP after all, declare it."
            ),
            commands=(commands.see_that_it_worked("MD403", "MD401"),),
        ),
    )
