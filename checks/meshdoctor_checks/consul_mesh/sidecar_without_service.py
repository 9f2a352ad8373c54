"""MD709: a proxy stands for a service or a port that is not there."""

from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance, ProxyRegistration
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
)
from meshdoctor.kinds import Kind
from meshdoctor.kinds.consul_connect import misses
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.upstreams import field, redefine
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD709",
    severity=Severity.WARNING,
    since="0.1",
    explains=("MD402", "MD405", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def sidecar_without_service(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A proxy is registered for a service that is not there, or for another port than it has.

    ## Why it matters

    The proxy takes calls and finds nobody behind it: callers connect and are cut off, or get 503.
    Its registration looks sound.

    ## How it is found

    The service, or the instance, that a `connect-proxy` names as its destination is not in the
    catalogue; or its local port is not the port of that instance. Ports are compared only where
    the instance is registered without an address or on localhost: in a network namespace of its
    own it may well listen on another port.

    ## How to fix it

    Register the service, correct the port, or take the proxy's registration out.
    """
    known = [each for each in mesh.proxies if each.proxy is not None]
    if not known:
        raise CannotLookError("no registration of a connect-proxy could be read")
    found = False
    looked = 0
    for each in known:
        registration = each.proxy
        if registration is None or registration.destination in catalog.unread:
            continue
        if catalog.may_have(registration.destination):
            continue
        looked += 1
        service = mesh.services.get(registration.destination)
        served = service.instances if service is not None else ()
        if registration.destination_id:
            served = tuple(one for one in served if one.id == registration.destination_id)
        if not served:
            found = True
            yield _nobody(each, registration)
        elif all(misses(registration, one) for one in served):
            found = True
            yield _another_port(each, registration, served)
    if not looked:
        raise CannotLookError(
            "of no proxy it is known whether its service is registered"
            + (f": {catalog.hidden}" if catalog.hidden else "")
        )
    if not found:
        yield Fact(
            f"{count(looked, 'proxy', 'proxies')} {verb(looked, 'stands', 'stand')} beside a "
            "service that is registered"
        )


def _nobody(instance: Instance, registration: ProxyRegistration) -> Finding:
    what = registration.destination
    wanted = registration.destination_id
    instance_said = f" (its instance {wanted})" if wanted and wanted != what else ""
    return Finding(
        message=(
            f"The proxy {instance.id} is registered for the service {what}{instance_said}, which "
            "is not in the catalogue."
        ),
        subjects=_subjects(instance, registration),
        seen_in=(_proof(instance, f"DestinationServiceName {what}"),),
        remedies=(
            Remedy(
                summary=f"Register {what}, where it should be there.",
                commands=(
                    commands.quoted("consul", "services", "register", f"{what}.hcl"),
                    commands.see_that_it_worked("MD709"),
                ),
            ),
            Remedy(
                summary="Where it is gone for good, take the registration of its proxy out.",
                commands=(
                    commands.quoted("consul", "services", "deregister", f"-id={instance.id}"),
                    commands.see_that_it_worked("MD709"),
                ),
                effect="Callers no longer know of the proxy.",
                destructive=True,
            ),
        ),
    )


def _another_port(
    instance: Instance, registration: ProxyRegistration, served: Sequence[Instance]
) -> Finding:
    what, port = registration.destination, registration.local_port
    ports = listing([str(each) for each in sorted({one.port for one in served})])
    return Finding(
        message=(
            f"The proxy {instance.id} passes calls on to port {port}, and {what} is registered on "
            f"port {ports}."
        ),
        subjects=_subjects(instance, registration),
        seen_in=(
            _proof(instance, f"LocalServicePort {port}"),
            *(proofs.registration(each) for each in served),
        ),
        remedies=(
            redefine(
                what,
                f"-  local_service_port = {port}\n+  local_service_port = {served[0].port}",
                f"Let the proxy pass calls on to the port that {what} listens on.",
                "MD709",
                "MD402",
            ),
        ),
    )


def _subjects(instance: Instance, registration: ProxyRegistration) -> tuple[Subject, ...]:
    return (
        Subject(SubjectKind.INSTANCE, instance.id),
        Subject(SubjectKind.SERVICE, registration.destination),
    )


def _proof(instance: Instance, excerpt: str) -> Citation:
    return Citation(instance.document, f"{instance.pointer}/{field(instance)}", excerpt)
