"""MD209: infrastructure stands among the services."""

from collections.abc import Iterable, Iterator, Sequence

from meshdoctor.check import check
from meshdoctor.evidence.consul import CONSUL_ITSELF, ConsulCatalog
from meshdoctor.evidence.docker import Container
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.consul_connect import is_proxy
from meshdoctor.topology import Mesh, Role, Service
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Variable
from meshdoctor_checks.wording import listing, verb


@check(
    code="MD209",
    severity=Severity.INFO,
    since="0.1",
    plan=plan_of("registry", "control_plane_registered"),
)
def control_plane_registered(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """The control plane's own ports are registered as services.

    ## Why it matters

    Each becomes a listener and a cluster in every sidecar, for nobody's use. On a port that an
    application has too, it takes part in the contest for that port's listener.

    ## How it is found

    A service of the catalogue belongs to a container of Pilot, etcd, the API server and the like;
    where no container tells, its name is one of theirs and the mesh is Pilot's. Consul's own entry
    is always there and is not counted.

    ## How to fix it

    Set `SERVICE_IGNORE=1` in the environment of these containers and recreate them.
    """
    services = [
        each
        for each in mesh.services.values()
        if each.infrastructure
        and each.name != CONSUL_ITSELF
        and each.instances
        and not any(map(is_proxy, each.instances))
        and _is_known_to_be(each, mesh)
    ]
    if not services:
        yield Fact("nothing of the control plane stands among the services")
        return
    owners = {
        mesh.owners[instance.id].name: mesh.owners[instance.id]
        for service in services
        for instance in service.instances
        if instance.id in mesh.owners
    }
    names = [service.name for service in services]
    change = commands.change(mesh, owners.values(), Variable("SERVICE_IGNORE", "1"))
    number = len(names)
    yield Finding(
        message=(
            f"{listing(names)} {verb(number, 'is', 'are')} registered as "
            f"{verb(number, 'a service', 'services')}, though {verb(number, 'it is', 'they are')} "
            "part of the control plane"
            f"{f' ({listing(sorted(owners))})' if owners else ''}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, names),
            *subjects(SubjectKind.COMPONENT, sorted(owners)),
        ),
        seen_in=tuple(proofs.registration(each.instances[0]) for each in services),
        remedies=(
            Remedy(
                summary=(
                    "Set SERVICE_IGNORE=1 in the environment of "
                    f"{listing(sorted(owners)) or 'their containers'}, then recreate "
                    f"{verb(len(owners), 'it', 'them')}."
                ),
                commands=(
                    *change.commands,
                    *commands.recreate(_safe_to_recreate(mesh, owners.values())),
                ),
                patch=change.patch,
                effect=(
                    "Harmless to leave as it is, unless an application has one of the ports."
                    f"{_warning(mesh, owners.values())}"
                ),
            ),
        ),
    )


def _safe_to_recreate(mesh: Mesh, owners: Iterable[Container]) -> Sequence[Container]:
    """Not Consul, which in -dev mode forgets all services, nor what Compose did not start."""
    consul = {each.container.id for each in mesh.components if each.role is Role.CONSUL}
    return [each for each in owners if each.compose_service and each.id not in consul]


def _warning(mesh: Mesh, owners: Iterable[Container]) -> str:
    consul = {each.container.id for each in mesh.components if each.role is Role.CONSUL}
    if not any(each.id in consul for each in owners):
        return ""
    return (
        " A Consul in -dev mode that is recreated has an empty catalogue: restart Registrator "
        "after it."
    )


def _is_known_to_be(service: Service, mesh: Mesh) -> bool:
    """By its container, or by its name where Pilot would make a listener of it."""
    owned = any(instance.id in mesh.owners for instance in service.instances)
    return owned or Kind.ISTIO_CONSUL in mesh.kinds
