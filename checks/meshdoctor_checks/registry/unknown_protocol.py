"""MD203: a protocol that Pilot does not know."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import PROTOCOLS, is_known, nearest
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Change
from meshdoctor_checks.neighbours import workloads_of
from meshdoctor_checks.protocols import pilot_before_service_meta, require_pilot
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD203",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD401", "MD403"),
    plan=plan_of("registry", "unknown_protocol"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def unknown_protocol(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A service declares a protocol that Pilot does not know.

    ## Why it matters

    A word that Pilot does not know counts as TCP: `htttp`, `HTTP/1.1` and `web` all do. The only
    trace is a warning in Pilot's log. What follows is the same as with no protocol at all: on a
    shared port, one service takes the calls of all.

    ## How it is found

    `ServiceMeta.protocol` of an instance is none of grpc, grpc-web, http, http2, https, mongo,
    mysql, redis, tcp, tls and udp. Upper and lower case do not matter. Pilot 1.0 does not read it
    at all, so there nothing is said.

    ## How to fix it

    Correct `SERVICE_PROTOCOL` of the container and recreate it.
    """
    require_pilot(mesh)
    if pilot_before_service_meta(mesh):
        return
    groups: dict[tuple[str, int, str], list[Instance]] = defaultdict(list)
    known = 0
    for service in mesh.applications:
        for instance in service.instances:
            if instance.protocol is None:
                continue
            if is_known(instance.protocol):
                known += 1
            else:
                groups[service.name, instance.port, instance.protocol].append(instance)
    for (service_name, port, protocol), instances in sorted(groups.items()):
        wanted = nearest(protocol)
        meant = f", probably meant: {wanted}" if wanted is not None else ""
        yield Finding(
            message=(
                f'{service_name} is registered with the protocol "{protocol}" on port {port}, '
                f"which Pilot does not know and takes for TCP{meant}."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, (service_name,)),
                *subjects(SubjectKind.INSTANCE, (each.id for each in instances)),
            ),
            seen_in=tuple(proofs.service_meta(each) for each in instances),
            remedies=(_remedy(mesh, instances, wanted),),
        )
    if known and not groups:
        knows = verb(known, "is one that", "are ones that")
        yield Fact(f"{count(known, 'declared protocol')} {knows} Pilot knows")


def _remedy(mesh: Mesh, instances: Sequence[Instance], wanted: str | None) -> Remedy:
    owners = [mesh.owners[each.id] for each in instances if each.id in mesh.owners]
    names = listing([each.name for each in owners] or [each.id for each in instances])
    choice = wanted or f"one of {listing(sorted(PROTOCOLS))}"
    change = Change(None)
    if wanted is not None:
        change = commands.change_each(
            mesh,
            [
                (
                    mesh.owners[each.id],
                    (commands.setting(mesh.owners[each.id], "PROTOCOL", each.port, wanted),),
                )
                for each in instances
                if each.id in mesh.owners
            ],
        )
    return Remedy(
        summary=(
            f"Set SERVICE_PROTOCOL of {names} to {choice}, then recreate "
            f"{verb(len(instances), 'it', 'them')}."
        ),
        commands=(
            *change.commands,
            *commands.recreate_with_sidecars(workloads_of(mesh, owners)),
            commands.see_that_it_worked("MD203", "MD401"),
        ),
        patch=change.patch,
        effect=(
            "Registrator registers the new containers with the protocol; calls to them fail until "
            "they and their sidecars are up again."
        ),
    )
