"""MD206: Consul lists instances that are not there."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh
from meshdoctor.topology.mesh import named_in_id
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb


@dataclass(frozen=True, slots=True)
class _Stale:
    instance: Instance
    why: str


@check(code="MD206", severity=Severity.ERROR, since="0.1", explains=("MD204", "MD405"))
def stale_registration(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """Consul lists an instance that is not there, or lists one twice.

    ## Why it matters

    Sidecars balance over every instance that Consul lists: a share of the calls goes to an
    address where nobody answers, or where by now somebody else does. Registrator leaves such
    instances behind when it is stopped or replaced while containers go.

    ## How it is found

    The instance's id is one of Registrator's, and its container does not run or has another
    address; or the same container and port is registered under two ids. Instances that
    Registrator did not register, or whose container belongs to another host, are left alone.

    ## How to fix it

    Take the instance out of Consul by its id.
    """
    if mesh.registrator is None:
        raise CannotLookError("no Registrator container is seen, so others register here")
    stale: dict[str, list[_Stale]] = defaultdict(list)
    sound = 0
    for service in mesh.services.values():
        for instance in service.instances:
            why = _why_stale(instance, mesh, docker)
            if why is not None:
                stale[service.name].append(_Stale(instance, why))
            else:
                sound += not service.infrastructure
    for name, instances in stale.items():
        ids = [each.instance.id for each in instances]
        number = len(instances)
        yield Finding(
            message=(
                f"Consul lists {count(number, 'instance')} of {name} that "
                f"{verb(number, 'is', 'are')} not there: "
                f"{listing([f'{each.instance.id} ({each.why})' for each in instances], most=4)}."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, (name,)),
                *subjects(SubjectKind.INSTANCE, ids),
            ),
            seen_in=tuple(proofs.registration(each.instance) for each in instances),
            remedies=(
                Remedy(
                    summary=f"Take the {verb(number, 'instance', 'instances')} out of Consul.",
                    commands=(
                        *commands.deregister(mesh, ids),
                        commands.see_that_it_worked("MD206"),
                    ),
                    effect="Only these registrations go; sidecars stop sending calls there.",
                ),
            ),
        )
    if sound and not stale:
        yield Fact(f"all {count(sound, 'registered instance')} belong to a running container")


def _why_stale(instance: Instance, mesh: Mesh, docker: DockerEngine) -> str | None:
    """Why an instance is not there, None where it is or where nobody can tell."""
    name = named_in_id(instance.id)
    registrator = mesh.registrator
    if not name or registrator is None:
        return None
    container = docker.container(name)
    if container is None:
        # With another host's Registrator in the same Consul, its containers are not ours to see.
        ours = instance.id.startswith(f"{registrator.hostname}:")
        here = instance.id in mesh.owners
        return "no container of that name" if ours or here else None
    if not container.running:
        return f"{name} is {container.status}"
    if not registrator.internal or container.network_mode == "host":
        return None
    addresses = {container.bridge_address, *container.addresses.values()} - {""}
    if instance.registered and addresses and instance.registered not in addresses:
        return f"{name} has the address {listing(sorted(addresses))} now"
    twins = [
        each
        for each in _siblings(mesh, instance)
        if named_in_id(each.id) == name and each.id != instance.id
    ]
    if twins and not instance.id.startswith(f"{registrator.hostname}:"):
        return f"registered a second time as {twins[0].id}"
    return None


def _siblings(mesh: Mesh, like: Instance) -> tuple[Instance, ...]:
    """The instances of the same service and port."""
    service = mesh.services[like.service]
    return tuple(each for each in service.instances if each.port == like.port)
