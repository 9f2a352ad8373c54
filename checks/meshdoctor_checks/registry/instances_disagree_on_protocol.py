"""MD204: instances of one service declare different protocols."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.evidence.docker import Container
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import is_http
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.neighbours import workloads_of
from meshdoctor_checks.protocols import pilot_before_service_meta, require_pilot
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD204",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD401", "MD403"),
    plan=plan_of("registry", "instances_disagree_on_protocol"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def instances_disagree_on_protocol(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """Instances of one service declare different protocols, or some declare none.

    ## Why it matters

    Pilot takes the protocol of a service from the first instance in Consul's answer, which is
    ordered by node and id. Losing that one instance can turn the whole service from HTTP to TCP,
    and with it the port that it shares with others. Each instance's own value still decides its
    inbound listener, so a half-declared service is also half without HTTP metrics and rules.

    ## How it is found

    The instances of a service with the same port have different values of
    `ServiceMeta.protocol`, a missing one counting as a value. It is an error where the values
    make HTTP of some and TCP of others and the port is shared, else a warning. Pilot 1.0 does not
    read them at all, so there nothing is said.

    ## How to fix it

    Give all containers of the service the same `SERVICE_PROTOCOL` and recreate those that differ.
    An instance left over from a container that is gone (MD206) must be taken out of Consul.
    """
    require_pilot(mesh)
    if pilot_before_service_meta(mesh):
        return
    shared = mesh.shared_ports()
    agreeing = 0
    found = False
    for service in mesh.applications:
        for port in service.ports:
            instances = [each for each in service.instances if each.port == port]
            said = {(each.protocol or "").lower() for each in instances}
            if len(said) == 1:
                agreeing += len(instances) > 1
                continue
            found = True
            bites = port in shared and _is_mixed(instances)
            yield Finding(
                message=_sentence(service.name, port, instances),
                subjects=(
                    *subjects(SubjectKind.SERVICE, (service.name,)),
                    *subjects(SubjectKind.INSTANCE, (each.id for each in instances)),
                ),
                seen_in=tuple(proofs.service_meta(each) for each in instances),
                remedies=_remedies(mesh, instances),
                severity=Severity.ERROR if bites else Severity.WARNING,
            )
    if agreeing and not found:
        agree = verb(agreeing, "agrees", "agree")
        yield Fact(f"{count(agreeing, 'service')} with several instances {agree} on the protocol")


def _is_mixed(instances: Sequence[Instance]) -> bool:
    """True where Pilot would make HTTP of some and TCP of others."""
    return len({is_http(each.protocol) for each in instances}) > 1


def _sentence(service: str, port: int, instances: Sequence[Instance]) -> str:
    by_protocol: dict[str, int] = {}
    for each in instances:
        word = each.protocol or "none"
        by_protocol[word] = by_protocol.get(word, 0) + 1
    split = listing([f"{number} {word}" for word, number in by_protocol.items()])
    first = instances[0]
    now = "HTTP" if is_http(first.protocol) else "TCP"
    if not _is_mixed(instances):
        now = first.protocol or now
    return (
        f"The {len(instances)} instances of {service} on port {port} disagree on the protocol "
        f"({split}): Pilot goes by the first in Consul's answer, {first.id}, so the service is "
        f"{now} now and may change when that instance goes."
    )


def _remedies(mesh: Mesh, instances: Sequence[Instance]) -> tuple[Remedy, ...]:
    words = [(each.protocol or "").lower() for each in instances]
    wanted = max((word for word in words if word), key=words.count)
    odd = [each for each in instances if (each.protocol or "").lower() != wanted]
    # A second registration of a container that is registered right is for MD206 to take out.
    sound = {
        (mesh.owners[each.id].id, each.port)
        for each in instances
        if each not in odd and each.id in mesh.owners
    }
    odd = [
        each
        for each in odd
        if each.id not in mesh.owners or (mesh.owners[each.id].id, each.port) not in sound
    ]
    if not odd:
        return ()
    owners = [mesh.owners[each.id] for each in odd if each.id in mesh.owners]
    declared = _declared(Identity(mesh)).get(wanted, set())
    undeclared = [each for each in owners if each.id not in declared]
    if mesh.registrator is not None and owners and not undeclared:
        return (_register_again(mesh.registrator.container, owners, wanted),)
    settings = [
        (owner, (commands.setting(owner, "PROTOCOL", each.port, wanted),))
        for each in odd
        if (owner := mesh.owners.get(each.id)) is not None
    ]
    change = commands.change_each(mesh, settings)
    return (
        Remedy(
            summary=(
                f"Set SERVICE_PROTOCOL={wanted}, as "
                f"{listing([each.id for each in instances if each not in odd][:1])} has it, for "
                f"{listing([each.name for each in owners] or [each.id for each in odd])}, then "
                f"recreate {verb(len(odd), 'it', 'them')}."
            ),
            commands=(
                *change.commands,
                *commands.recreate_with_sidecars(workloads_of(mesh, owners)),
                commands.see_that_it_worked("MD204", "MD401"),
            ),
            patch=change.patch,
            effect=(
                "All instances are registered alike, so Pilot's choice no longer matters; calls "
                "to the new containers fail until they and their sidecars are up again."
            ),
        ),
    )


@functools.lru_cache(maxsize=2)
def _declared(mesh: Identity[Mesh]) -> Mapping[str, set[str]]:
    """The ids of the containers that declare a protocol, by the protocol."""
    found: dict[str, set[str]] = defaultdict(set)
    for each in mesh.fact.workloads:
        for expected in each.expected:
            if each.container is not None:
                found[expected.attributes.get("protocol", "").lower()].add(each.container.id)
    return found


def _register_again(registrator: Container, owners: Sequence[Container], wanted: str) -> Remedy:
    number = len(owners)
    return Remedy(
        summary=(
            f"{listing([each.name for each in owners])} {verb(number, 'declares', 'declare')} "
            f"{wanted} already, but {verb(number, 'was', 'were')} registered without it: "
            "restart Registrator, which registers every running container again."
        ),
        commands=(
            commands.restart(registrator),
            commands.see_that_it_worked("MD204", "MD401"),
        ),
        effect="The applications and their sidecars keep running.",
    )
