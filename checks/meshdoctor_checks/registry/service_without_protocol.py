"""MD201: a service is registered without a protocol."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import Container
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, Service, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Variable
from meshdoctor_checks.protocols import pilot_before_service_meta, require_pilot, spoken_on
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD201",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD401", "MD403"),
    plan=plan_of("registry", "service_without_protocol"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def service_without_protocol(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A service is registered in Consul without a protocol.

    Its `ServiceMeta` has no key `protocol`, so Pilot takes its port for TCP.

    ## Why it matters

    Pilot has read the protocol from `ServiceMeta` since Istio 1.1, and takes a service without
    one for TCP. On Consul every service has the address 0.0.0.0, so all services on one port
    share one listener. HTTP services share it by their host names; of TCP services only one can
    have it, and calls to all the others land there. One undeclared service spoils the port for
    the declared ones as well. On a port of its own the service works, but without HTTP routing,
    retries and metrics; that is a warning, not an error. It is only a note where the port is one
    that databases and their like use, such as 5432: they speak no HTTP.

    ## How it is found

    Every instance of the service in Consul's catalogue lacks `ServiceMeta.protocol`. The control
    plane's own registrations are left out. With Pilot 1.0, which took a missing protocol for
    HTTP, there is no finding.

    ## How to fix it

    Give the container `SERVICE_PROTOCOL=http` (or grpc, http2, tcp, ...) in its environment and
    recreate it. If it has that already, Registrator has dropped it: see MD202. Where several
    services really speak TCP on one port, only ports of their own help: see MD410.
    """
    require_pilot(mesh)
    if old := pilot_before_service_meta(mesh):
        yield Fact(f"Pilot {old} takes a missing protocol for HTTP")
        return
    known = [service for service in mesh.applications if service.instances]
    if not known:
        raise CannotLookError("the catalogue holds no service of an application")
    declared_by = _declared_by(mesh)
    groups: dict[tuple[int, bool], list[Service]] = defaultdict(list)
    for service in known:
        for port in service.ports:
            if not any(service.protocols(port)):
                dropped = any(
                    (each.id in declared_by) for each in service.instances if each.port == port
                )
                groups[port, dropped].append(service)
    for (port, dropped), services in sorted(groups.items()):
        shared = len(mesh.on_port(port)) > 1
        spoken = "" if dropped else spoken_on(port)
        alone = Severity.INFO if spoken else Severity.WARNING
        yield Finding(
            message=_sentence(services, port, spoken, dropped=dropped),
            subjects=subjects(SubjectKind.SERVICE, (each.name for each in services)),
            seen_in=tuple(
                proofs.service_meta(instance)
                for each in services
                for instance in each.instances
                if instance.port == port
            ),
            remedies=(
                _register_again(mesh)
                if dropped
                else _remedies(mesh, services, spoken, shared=shared)
            ),
            severity=Severity.ERROR if shared else alone,
            references=("https://github.com/istio/istio/issues/13239",),
        )
    bad = {service.name for services in groups.values() for service in services}
    if not bad:
        declare = verb(len(known), "declares", "declare")
        yield Fact(f"{count(len(known), 'service')} {declare} a protocol in Consul")


def _declared_by(mesh: Mesh) -> dict[str, Workload]:
    """Workloads that declare a protocol, by the ids of their instances."""
    return {
        instance.id: workload
        for workload in mesh.workloads
        for instance in workload.instances
        for expected in workload.expected
        if expected.port == instance.port and expected.attributes.get("protocol")
    }


def _sentence(services: Sequence[Service], port: int, spoken: str, *, dropped: bool) -> str:
    number = len(services)
    tells = f"only {verb(number, 'its', 'their')} port" if spoken else "nothing"
    they_speak = verb(number, "it speaks", "they speak")
    why = f"so {tells} tells what {they_speak}{f', {spoken}' if spoken else ''}"
    if dropped:
        why = f"though {verb(number, 'its container declares', 'their containers declare')} one"
    return (
        f"{listing([each.name for each in services])} {verb(number, 'is', 'are')} registered in "
        f"Consul without a protocol, {why}: Pilot takes {verb(number, 'its', 'their')} port "
        f"{port} for TCP."
    )


def _register_again(mesh: Mesh) -> tuple[Remedy, ...]:
    """Only where Registrator writes the protocol of others: else its image has to go (MD202)."""
    declared = _declared_by(mesh)
    writes = any(
        instance.protocol and instance.id in declared
        for service in mesh.applications
        for instance in service.instances
    )
    if mesh.registrator is None or not writes:
        return ()
    return (
        Remedy(
            summary=(
                "Restart Registrator, which registers every running container again: it writes "
                "the protocol of other containers."
            ),
            commands=(
                commands.restart(mesh.registrator.container),
                commands.see_that_it_worked("MD201", "MD401"),
            ),
            effect="The applications and their sidecars keep running.",
        ),
    )


def _of_no_http(
    mesh: Mesh, names: Sequence[str], containers: Sequence[Container], spoken: str, *, shared: bool
) -> Remedy:
    """What speaks no HTTP must not be declared so: its clients would be cut off."""
    number = len(names)
    check_again = commands.see_that_it_worked("MD201", "MD401")
    if shared:
        return Remedy(
            summary=(
                f"If {listing(names)} {verb(number, 'speaks', 'speak')} {spoken}, no metadata "
                f"helps: give {verb(number, 'it', 'each')} a port of its own, and tell its "
                f"clients. If {verb(number, 'it speaks', 'they speak')} HTTP after all, declare "
                "SERVICE_PROTOCOL=http."
            ),
            commands=(check_again,),
        )
    change = commands.change(mesh, containers, Variable("SERVICE_PROTOCOL", "tcp"))
    return Remedy(
        summary=(
            f"Nothing is to be done. Whoever wants it said declares SERVICE_PROTOCOL=tcp for "
            f"{listing(names)}."
        ),
        commands=(*change.commands, check_again),
        patch=change.patch,
        effect="It is read when the container is recreated.",
    )


def _remedies(
    mesh: Mesh, services: Sequence[Service], spoken: str, *, shared: bool
) -> tuple[Remedy, ...]:
    names = [service.name for service in services]
    workloads = [each for each in mesh.workloads if set(names) & set(each.services)]
    containers = [each.container for each in workloads if each.container is not None]
    if spoken:
        return (_of_no_http(mesh, names, containers, spoken, shared=shared),)
    if not containers:
        return (
            Remedy(
                summary=(
                    f"Register {listing(names)} with the metadata key `protocol`: http, grpc, "
                    "http2 or tcp; Registrator takes it from SERVICE_PROTOCOL in the container's "
                    "environment."
                ),
                commands=(commands.see_that_it_worked("MD201", "MD401"),),
            ),
        )
    number = len(containers)
    change = commands.change(mesh, containers, Variable("SERVICE_PROTOCOL", "http"))
    return (
        Remedy(
            summary=(
                f"Declare what {verb(number, 'it speaks', 'they speak')}: add "
                "SERVICE_PROTOCOL=http (or grpc, http2, tcp) to the environment of "
                f"{listing([each.name for each in containers])}, then recreate "
                f"{verb(number, 'it', 'them')}."
            ),
            commands=(
                *change.commands,
                *commands.recreate_with_sidecars(workloads),
                commands.see_that_it_worked("MD201", "MD401"),
            ),
            patch=change.patch,
            effect=(
                "Registrator registers the new containers with the protocol, and Pilot makes an "
                "HTTP listener of the port; calls to them fail until they and their sidecars are "
                "up again."
            ),
        ),
    )
