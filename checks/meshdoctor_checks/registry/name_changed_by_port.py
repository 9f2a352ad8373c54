"""MD210: Registrator appended the port to a service's name."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, Registration, Workload
from meshdoctor.topology.registrator import declared
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Variable
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD210",
    severity=Severity.WARNING,
    since="0.1",
    explains=("MD503",),
    plan=plan_of("registry", "name_changed_by_port"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def name_changed_by_port(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """A service is registered as `name-port`, because its container exposes several ports.

    ## Why it matters

    Callers and rules name `reviews`; what stands in Consul is `reviews-9080` and `reviews-9443`.
    The name that the container asks for does not exist, and nothing says so.

    ## How it is found

    A container that asks for a name with `SERVICE_NAME` has several ports that Registrator
    registers, and Consul has the name with `-port` appended, as Registrator writes it then.
    Containers that ask for no name are left alone.

    ## How to fix it

    Name the port that callers use with `SERVICE_<port>_NAME`, and drop the others with
    `SERVICE_<port>_IGNORE`.
    """
    if mesh.registrator is None:
        raise CannotLookError("no Registrator container is seen, so others register here")
    present = {(each.service, each.id) for each in catalog.instances}
    changed: dict[str, list[tuple[Workload, Registration]]] = defaultdict(list)
    kept = 0
    for workload in mesh.workloads:
        for expected in workload.expected:
            wanted = _wanted(workload, expected)
            if not wanted or (expected.name, expected.id) not in present:
                continue
            if expected.suffixed:
                changed[wanted].append((workload, expected))
            else:
                kept += 1
    for wanted, registrations in sorted(changed.items()):
        yield _finding(mesh, wanted, registrations)
    if kept and not changed:
        yield Fact(
            f"{count(kept, 'instance')} {verb(kept, 'has', 'have')} the name that "
            f"{verb(kept, 'its container asks', 'their containers ask')} for"
        )


def _wanted(workload: Workload, expected: Registration) -> str:
    """The name that the container asks for, "" where it asks for none."""
    if workload.container is None:
        return ""
    settings, _ = declared(workload.container, expected.port)
    return settings.get("name", "")


def _finding(
    mesh: Mesh, wanted: str, registrations: Sequence[tuple[Workload, Registration]]
) -> Finding:
    names = sorted({expected.name for _, expected in registrations})
    workloads = list(dict.fromkeys(workload.name for workload, _ in registrations))
    instances = [
        instance
        for _, expected in registrations
        for instance in mesh.services[expected.name].instances
        if instance.id == expected.id
    ]
    number = len(workloads)
    ports = sorted({expected.port for _, expected in registrations})
    gone = wanted not in mesh.services
    return Finding(
        message=(
            f"{listing(workloads, most=4)} {verb(number, 'asks', 'ask')} for the name {wanted} "
            f"and {verb(number, 'is', 'are')} registered as {listing(names)}, because "
            f"{verb(number, 'it exposes', 'they expose')} the ports "
            f"{listing([str(each) for each in ports])}"
            f"{f'; Consul has no {wanted}' if gone else ''}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (wanted, *names)),
            *subjects(SubjectKind.WORKLOAD, workloads),
        ),
        seen_in=tuple(proofs.registration(each) for each in instances),
        remedies=(_remedy(mesh, wanted, registrations),),
    )


def _remedy(
    mesh: Mesh, wanted: str, registrations: Sequence[tuple[Workload, Registration]]
) -> Remedy:
    names = {workload.name for workload, _ in registrations}
    workloads = [each for each in mesh.workloads if each.name in names]
    containers = [each.container for each in workloads if each.container is not None]
    ports = sorted({expected.port for _, expected in registrations})
    port = max(ports, key=lambda each: (_others_on(mesh, each, names), -each))
    ignored = [each for each in ports if each != port]
    change = commands.change(
        mesh,
        containers,
        Variable(f"SERVICE_{port}_NAME", wanted),
        *(Variable(f"SERVICE_{each}_IGNORE", "1") for each in ignored),
    )
    return Remedy(
        summary=(
            f"Give the name to the port that callers use, {port} it seems, and drop "
            f"{listing([str(each) for each in ignored])}; then recreate "
            f"{listing([each.name for each in containers])}."
        ),
        commands=(
            *change.commands,
            *commands.recreate_with_sidecars(workloads),
            commands.see_that_it_worked("MD210", "MD503"),
        ),
        patch=change.patch,
        effect="Calls to them fail until they and their sidecars are up again.",
    )


def _others_on(mesh: Mesh, port: int, names: set[str]) -> int:
    """How many other applications have that port: what a mesh shares, its callers use."""
    return sum(
        any(instance.port == port for instance in each.instances)
        for each in mesh.workloads
        if each.name not in names
    )
