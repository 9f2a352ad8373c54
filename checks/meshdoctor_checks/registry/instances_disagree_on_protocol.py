"""MD204: instances of one service declare different protocols."""

from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import is_http
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing


@check(code="MD204", severity=Severity.ERROR, since="0.1", explains=("MD401", "MD403"))
def instances_disagree_on_protocol(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """Instances of one service declare different protocols, or some declare none.

    ## Why it matters

    Pilot takes the protocol of a service from the first instance in Consul's answer, which is
    ordered by node and id. Losing that one instance can turn the whole service from HTTP to TCP,
    and with it the port that it shares with others. Each instance's own value still decides its
    inbound listener, so a half-declared service is also half without HTTP metrics and rules.

    ## How it is found

    The instances of a service with the same port have different values of
    `ServiceMeta.protocol`, a missing one counting as a value.

    ## How to fix it

    Give all containers of the service the same `SERVICE_PROTOCOL` and recreate those that differ.
    An instance left over from a container that is gone (MD206) must be taken out of Consul.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("only Pilot reads the protocol from ServiceMeta, and none is seen")
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
            shared = len(mesh.on_port(port)) > 1
            yield Finding(
                message=_sentence(service.name, port, instances),
                subjects=(
                    *subjects(SubjectKind.SERVICE, (service.name,)),
                    *subjects(SubjectKind.INSTANCE, (each.id for each in instances)),
                ),
                seen_in=tuple(proofs.service_meta(each) for each in instances),
                remedies=(_remedy(mesh, instances),),
                severity=Severity.ERROR if shared else Severity.WARNING,
            )
    if agreeing and not found:
        yield Fact(f"{count(agreeing, 'service')} with several instances agree on the protocol")


def _sentence(service: str, port: int, instances: Sequence[Instance]) -> str:
    by_protocol: dict[str, int] = {}
    for each in instances:
        word = each.protocol or "none"
        by_protocol[word] = by_protocol.get(word, 0) + 1
    split = listing([f"{number} {word}" for word, number in by_protocol.items()])
    first = instances[0]
    now = "HTTP" if is_http(first.protocol) else "TCP"
    return (
        f"The {len(instances)} instances of {service} on port {port} disagree on the protocol "
        f"({split}): Pilot goes by the first in Consul's answer, {first.id}, so the service is "
        f"{now} now and may change when that instance goes."
    )


def _remedy(mesh: Mesh, instances: Sequence[Instance]) -> Remedy:
    counts = [(each.protocol or "").lower() for each in instances]
    wanted = max((word for word in counts if word), key=counts.count, default="http")
    odd = [each for each in instances if (each.protocol or "").lower() != wanted]
    owners = [mesh.owners[each.id] for each in odd if each.id in mesh.owners]
    composed = [each for each in owners if each.compose_service]
    return Remedy(
        summary=(
            f"Set SERVICE_PROTOCOL={wanted}, as most instances have it, for "
            f"{listing([each.name for each in owners] or [each.id for each in odd])}, then "
            "recreate."
        ),
        commands=(
            *commands.recreate_with_sidecars(
                [each for each in mesh.workloads if each.container in composed]
            ),
            commands.see_that_it_worked("MD204", "MD401"),
        ),
        patch="\n".join(
            f"# {listing(commands.compose_files(each))}\n"
            f"  {each.compose_service}:\n"
            "    environment:\n"
            f"+     - SERVICE_PROTOCOL={wanted}"
            for each in composed
        )
        or None,
        effect="All instances are registered alike, so Pilot's choice no longer matters.",
    )
