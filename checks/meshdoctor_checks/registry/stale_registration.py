"""MD206: Consul lists instances that are not there."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Role
from meshdoctor.topology.mesh import named_in_id
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb

_COMING_BACK: Final = frozenset({"paused", "restarting"})
"""A container in such a state keeps its registration, and needs it soon."""


class _Stale(msgspec.Struct, frozen=True):
    """An instance that is not there, and why.

    `twin` is the same container's other id. `moved`: the present Registrator would write it anew.
    """

    instance: Instance
    why: str
    twin: Instance | None = None
    moved: bool = False


@check(
    code="MD206",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD204", "MD402", "MD405"),
    # Calls to the service may fail for other reasons, too.
    explains_by={"MD402": SubjectKind.INSTANCE},
)
def stale_registration(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """Consul lists an instance that is not there, or lists one twice.

    ## Why it matters

    Sidecars balance over every instance that Consul lists: a share of the calls goes to an
    address where nobody answers, or where by now somebody else does. Registrator leaves such
    instances behind when it is stopped or replaced while containers go.

    ## How it is found

    The instance's id is one that a Registrator of this Docker gave, and its container does not
    run or has another address; or the same container and port is registered under two ids, as a
    replaced Registrator leaves them. That is only a warning where both say the same. Instances
    that Registrator did not register, and those of other hosts' Registrators in the same Consul,
    are left alone.

    ## How to fix it

    Take the instance out of Consul by its id.
    """
    registrator = mesh.registrator
    if registrator is None:
        raise CannotLookError("no Registrator container is seen, so others register here")
    hosts = _hosts_here(mesh)
    gone: dict[str, list[_Stale]] = defaultdict(list)
    doubled: list[_Stale] = []
    sound = 0
    for service in mesh.services.values():
        for instance in service.instances:
            stale = _judge(instance, mesh, docker, hosts)
            if stale is None:
                ours = instance.id.partition(":")[0] in hosts and instance.id in mesh.owners
                sound += ours and not service.infrastructure
            elif stale.twin is not None:
                doubled.append(stale)
            else:
                gone[service.name].append(stale)
    for name, instances in gone.items():
        yield _gone(mesh, name, instances)
    if doubled:
        yield _doubled(mesh, doubled, registrator.container)
    if sound and not gone and not doubled:
        belong = verb(sound, "belongs", "belong")
        yield Fact(f"{count(sound, 'registered instance')} {belong} to a running container")


def _hosts_here(mesh: Mesh) -> frozenset[str]:
    """The host names of Registrators of this Docker, which begin the ids that they give.

    Those whose containers are there, and those of earlier ones: they registered a container that
    runs here at the address that it has here. An id that begins otherwise may be another Docker
    host's, whose containers may well have the same names.
    """
    present = {
        each.container.hostname for each in mesh.components if each.role is Role.REGISTRATOR
    }
    earlier = {
        instance.id.partition(":")[0]
        for service in mesh.services.values()
        for instance in service.instances
        if (owner := mesh.owners.get(instance.id)) is not None
        and owner.running
        and owner.name == named_in_id(instance.id)
        and instance.address in owner.own_addresses
    }
    return frozenset((present | earlier) - {""})


def _judge(
    instance: Instance, mesh: Mesh, docker: DockerEngine, hosts: frozenset[str]
) -> _Stale | None:
    """Why an instance is not there, None where it is or where nobody can tell."""
    name = named_in_id(instance.id)
    registrator = mesh.registrator
    if not name or registrator is None or instance.id.partition(":")[0] not in hosts:
        return None
    container = docker.container(name)
    if container is None:
        # A container that could not be decoded may be the one.
        return None if docker.problems else _Stale(instance, "no container of that name")
    if not container.running:
        state = {"created": "was never started", "exited": "does not run"}.get(
            container.status, f"is {container.status}"
        )
        why = f"{name} {state}"
        return None if container.status in _COMING_BACK else _Stale(instance, why)
    if not registrator.internal or container.network_mode == "host":
        return None
    addresses = container.own_addresses
    present = instance.id.startswith(f"{registrator.hostname}:")
    if instance.registered and addresses and instance.registered not in addresses:
        why = f"{name} has the address {listing(sorted(addresses))} now"
        return _Stale(instance, why, moved=present)
    if present:
        return None
    # The same container and port under the present Registrator's id, too.
    other = f"{registrator.hostname}:{instance.id.partition(':')[2]}"
    for each in mesh.services[instance.service].instances:
        if each.id == other:
            return _Stale(instance, f"registered again as {each.id}", each)
    return None


def _gone(mesh: Mesh, service: str, instances: Sequence[_Stale]) -> Finding:
    number = len(instances)
    said = listing([f"{each.instance.id} ({each.why})" for each in instances], most=3)
    return Finding(
        message=(
            f"Consul lists {count(number, 'instance')} of {service} that "
            f"{verb(number, 'is', 'are')} not there: {said}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (service,)),
            *subjects(SubjectKind.INSTANCE, (each.instance.id for each in instances)),
            *subjects(SubjectKind.COMPONENT, _who_missed_it(mesh, instances)),
        ),
        seen_in=tuple(proofs.registration(each.instance) for each in instances),
        remedies=tuple(_remedies(mesh, instances)),
    )


def _who_missed_it(mesh: Mesh, instances: Sequence[_Stale]) -> Iterator[str]:
    """The Registrator that would write the present address, and does not run."""
    registrator = mesh.registrator
    if registrator is None or registrator.container.running:
        return
    if any(each.moved for each in instances):
        yield registrator.container.name


def _remedies(mesh: Mesh, instances: Sequence[_Stale]) -> Iterator[Remedy]:
    moved = [each for each in instances if each.moved]
    gone = [each for each in instances if not each.moved]
    if gone:
        yield _take_out(mesh, gone, "Sidecars stop sending calls there.")
    if moved and mesh.registrator is not None:
        container = mesh.registrator.container
        yield Remedy(
            summary="Have Registrator register the present address: it does when it starts.",
            commands=(
                *((commands.restart(container),) if container.running else ()),
                *(commands.resume(container) if not container.running else ()),
                commands.see_that_it_worked("MD206"),
            ),
            effect="The id stays the same, so the new registration replaces the old one.",
        )


def _doubled(mesh: Mesh, instances: Sequence[_Stale], registrator: Container) -> Finding:
    """One finding for all: they have one cause, the Registrator before."""
    services = sorted({each.instance.service for each in instances})
    hosts = sorted({each.instance.id.partition(":")[0] for each in instances})
    number = len(instances)
    differ = any(
        each.twin is not None
        and (each.twin.meta, sorted(each.twin.tags))
        != (each.instance.meta, sorted(each.instance.tags))
        for each in instances
    )
    said = ", and what they say differs" if differ else ""
    return Finding(
        message=(
            f"Consul lists {count(number, 'instance')} of {listing(services, most=8)} twice: "
            f"{registrator.name} registered {verb(number, 'it', 'them')} again under "
            f"{verb(number, 'another id', 'other ids')} than an earlier Registrator "
            f"({listing(hosts)}) had{said}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, services),
            *subjects(SubjectKind.INSTANCE, (each.instance.id for each in instances)),
        ),
        seen_in=tuple(proofs.registration(each.instance) for each in instances),
        remedies=(_take_out(mesh, instances, "The new registrations stay."),),
        severity=Severity.ERROR if differ else Severity.WARNING,
    )


def _take_out(mesh: Mesh, instances: Sequence[_Stale], effect: str) -> Remedy:
    number = len(instances)
    return Remedy(
        summary=f"Take the old {verb(number, 'registration', 'registrations')} out of Consul.",
        commands=(
            *commands.deregister(mesh, [each.instance.id for each in instances]),
            commands.see_that_it_worked("MD206"),
        ),
        effect=effect,
    )
