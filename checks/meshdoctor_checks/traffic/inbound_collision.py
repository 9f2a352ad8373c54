"""MD408: two services claim one inbound port of a workload."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing


@check(code="MD408", severity=Severity.ERROR, since="0.1", explains=("MD402",))
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
        names = sorted({each.service for each in instances})
        if len(names) == 1:
            continue
        found = True
        owners = sorted({mesh.owners[e.id].name for e in instances if e.id in mesh.owners})
        whose = f" ({listing(owners)})" if owners else ""
        yield Finding(
            message=(
                f"{listing(names)} are all registered at {address}:{port}{whose}, where one "
                "sidecar can serve only one of them."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, names),
                Subject(SubjectKind.LISTENER, f"{address}:{port}"),
                *subjects(SubjectKind.WORKLOAD, owners),
                *subjects(SubjectKind.INSTANCE, (each.id for each in instances)),
            ),
            seen_in=tuple(proofs.registration(each) for each in instances),
            remedies=(
                Remedy(
                    summary="Take out of Consul the one that should not be there: see which of "
                    "them the container really is.",
                    commands=(
                        *(commands.quoted("docker", "inspect", name) for name in owners),
                        *commands.deregister(mesh, [instances[-1].id]),
                        commands.see_that_it_worked("MD408"),
                    ),
                    effect=f"As it stands here this takes out {instances[-1].id}; choose.",
                    destructive=True,
                ),
            ),
        )
    if not found:
        yield Fact(f"{count(len(claims), 'address', 'addresses')} with one service each")
