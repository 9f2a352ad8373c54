"""MD408: two services claim one inbound port of a workload."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing


@check(
    code="MD408",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402",),
    kinds=(Kind.ISTIO_CONSUL,),
)
def inbound_collision(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """Two services claim the same port of one workload.

    ## Why it matters

    A sidecar has one inbound listener for each address and port of its application. With two
    services at one, Pilot keeps the first and counts the other in
    `pilot_conflict_inbound_listener`; what it does with the calls follows the first's protocol
    and rules.

    ## How it is found

    In Consul's catalogue instances of different services have the same address and port.

    ## How to fix it

    Take out the registration that should not be there; often it is left from a container that had
    the address before.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen whose sidecars listen on their application's port")
    claims: dict[tuple[str, int], list[Instance]] = defaultdict(list)
    for service in mesh.applications:
        for instance in service.instances:
            claims[instance.address, instance.port].append(instance)
    found = False
    for (address, port), instances in sorted(claims.items()):
        if len({each.service for each in instances}) > 1:
            found = True
            yield _finding(mesh, address, port, instances)
    if not found:
        yield Fact(
            f"{count(len(claims), 'registered address', 'registered addresses')} with one "
            "service each"
        )


def _finding(mesh: Mesh, address: str, port: int, instances: Sequence[Instance]) -> Finding:
    names = sorted({each.service for each in instances})
    here = sorted({mesh.owners[each.id].name for each in instances if _is_here(mesh, each)})
    # The listener's address is not named: it is another one than the listener of the callers,
    # and the calls are what this explains.
    return Finding(
        message=(
            f"{listing(names)} are {'both' if len(names) == len('ab') else 'all'} registered at "
            f"{address}:{port}{f' ({listing(here)})' if here else ''}, where the sidecar can "
            "serve only one of them."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, names),
            *subjects(SubjectKind.INSTANCE, (each.id for each in instances)),
        ),
        seen_in=tuple(proofs.registration(each) for each in instances),
        remedies=(_remedy(mesh, instances, here),),
    )


def _is_here(mesh: Mesh, instance: Instance) -> bool:
    """True where the container that the registration stands for has the address."""
    owner = mesh.owners.get(instance.id)
    return owner is not None and owner.running and instance.address in owner.addresses.values()


def _remedy(mesh: Mesh, instances: Sequence[Instance], here: Sequence[str]) -> Remedy:
    done = commands.see_that_it_worked("MD408", "MD402")
    strangers = [
        each.id for each in instances if each.id in mesh.owners and not _is_here(mesh, each)
    ]
    if strangers and len(strangers) < len(instances):
        return Remedy(
            summary=(
                f"Take {listing(strangers)} out of Consul: the container that it stands for does "
                "not have this address."
            ),
            commands=(*commands.deregister(mesh, strangers), done),
            effect="Pilot no longer sends calls for it here.",
            destructive=True,
        )
    return Remedy(
        summary=(
            "See which of these services the container really is, then take the other out of "
            "Consul with one of these two commands."
            if len(instances) == len("ab")
            else "See which of these services the container really is, then take the others out "
            "of Consul with these commands, all but its own."
        ),
        commands=(
            *(commands.quoted("docker", "inspect", name) for name in here),
            *commands.deregister(mesh, [each.id for each in instances]),
            done,
        ),
        effect="Pilot no longer sends calls here for what was taken out.",
        destructive=True,
    )
