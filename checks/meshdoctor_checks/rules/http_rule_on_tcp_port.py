"""MD508: an HTTP rule for a service whose port is TCP."""

from collections.abc import Iterator

from meshdoctor.check import check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, ListenerEntry
from meshdoctor.evidence.istio import IstioRules
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
from meshdoctor.kinds.istio_consul import WILDCARDS, service_of_host
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count


@check(code="MD508", severity=Severity.ERROR, since="0.1")
def http_rule_on_tcp_port(
    mesh: Mesh, rules: IstioRules, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """An HTTP rule is for a service whose port is TCP in the proxies: it has no effect.

    ## Why it matters

    A VirtualService with HTTP routes is applied without a word, and nothing follows: a TCP
    listener looks at no request.

    ## How it is found

    A VirtualService with `http` routes names a host whose service the sidecars serve with a
    listener that holds a `tcp_proxy` and no HTTP connection manager.

    ## How to fix it

    Make the port HTTP: declare the protocol of every service on it (MD201, MD202, MD203).
    """
    ruled = [each for each in rules.virtual_services if each.http]
    if not ruled:
        yield Fact("no VirtualService with HTTP routes is in force")
        return
    known = {service.name: service for service in mesh.applications}
    found = False
    for rule in ruled:
        for host in rule.hosts:
            service = known.get(service_of_host(host))
            for port in service.ports if service is not None else ():
                tcp = _tcp_listeners(proxies, port)
                if not tcp or service is None:
                    continue
                found = True
                key = next(iter(tcp.values())).listener.key
                yield Finding(
                    message=(
                        f"The HTTP routes of VirtualService {rule.name} for {host} have no "
                        f"effect: {key} is a TCP listener in {count(len(tcp), 'sidecar')}."
                    ),
                    subjects=(
                        Subject(SubjectKind.RULE, f"VirtualService/{rule.name}"),
                        Subject(SubjectKind.SERVICE, service.name),
                        Subject(SubjectKind.LISTENER, key),
                        *subjects(SubjectKind.SIDECAR, tcp),
                    ),
                    seen_in=(
                        Citation(rule.document, rule.pointer, f"http routes for {host}"),
                        *(
                            proofs.listener(proxies.proxies[sidecar].document, entry, "tcp_proxy")
                            for sidecar, entry in tcp.items()
                        ),
                    ),
                    remedies=(
                        Remedy(
                            summary=(
                                f"Declare the protocol of every service on port {port}, so that "
                                "Pilot makes an HTTP listener of it; the rule is then in effect."
                            ),
                            commands=(commands.see_that_it_worked("MD508", "MD201"),),
                        ),
                    ),
                )
    if not found:
        yield Fact(f"no HTTP rule of {count(len(ruled), 'VirtualService')} is for a TCP port")


def _tcp_listeners(proxies: EnvoyProxies, port: int) -> dict[str, ListenerEntry]:
    found: dict[str, ListenerEntry] = {}
    for sidecar, proxy in proxies.proxies.items():
        for entry in proxy.deciding_listeners():
            listener = entry.listener
            if (listener.port, bool(listener.http_managers)) != (port, False):
                continue
            if listener.address in WILDCARDS and listener.tcp_proxies:
                found[sidecar] = entry
    return found
