"""MD410: several services declare TCP on one port."""

from collections.abc import Iterator

from meshdoctor.check import check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.protocols import (
    SHARES,
    deciding,
    declares_tcp,
    first_on,
    pilot_before_service_meta,
    require_pilot,
)
from meshdoctor_checks.wording import listing


@check(
    code="MD410",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD401",),
    plan=plan_of("traffic", "really_tcp_on_one_port"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def really_tcp_on_one_port(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """Several services declare TCP on one port: no metadata can tell them apart.

    ## Why it matters

    Every service from Consul has the address 0.0.0.0 in Pilot, so the port alone tells TCP
    services apart. Of several on one port, one gets the listener and the calls of all.

    ## How it is found

    Two or more services of the catalogue have the same port and declare a protocol that is not
    HTTP to Pilot: tcp, tls, https, mongo, mysql or redis. Of udp Pilot makes no listener.

    ## How to fix it

    Give each TCP service a port of its own.
    """
    require_pilot(mesh, SHARES)
    if pilot_before_service_meta(mesh):
        return
    found = False
    for port, services in mesh.shared_ports().items():
        tcp = [service for service in services if declares_tcp(service, port)]
        if len(tcp) < 2:  # noqa: PLR2004 # one TCP service alone collides with none of its kind
            continue
        found = True
        names = [service.name for service in tcp]
        said = listing([f"{each.name} ({deciding(each, port)})" for each in tcp])
        yield Finding(
            message=(
                f"{said} share port {port}: TCP services on one port cannot be told apart, so "
                "one of them gets the calls of all."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, names),
                Subject(SubjectKind.LISTENER, f"0.0.0.0:{port}"),
            ),
            seen_in=tuple(proofs.service_meta(first_on(each, port)) for each in tcp),
            remedies=(
                Remedy(
                    summary=(
                        f"Give each of {listing(names)} a port of its own: change the port it "
                        "listens on and exposes, recreate it with its sidecar, and tell its "
                        "clients."
                    ),
                    commands=(commands.see_that_it_worked("MD410", "MD401"),),
                ),
            ),
        )
    if not found:
        yield Fact("no two services declare TCP on one port")
