"""MD207: a container that Registrator should have registered stands in no catalogue."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.consul import SERVICES, ConsulCatalog, Instance
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.times import moment
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, Registration, Registrator, Role, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD207",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD405", "MD502"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def running_but_not_registered(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """A container runs, and by its own settings should be registered, and is not.

    ## Why it matters

    For the mesh it does not exist: nobody is sent there. Registrator learns of containers from
    Docker's events; when it is not ready, or misses one, nothing says so in any log.

    ## How it is found

    From `docker inspect` it is worked out what Registrator registers for the container (its
    ports, `SERVICE_NAME`, `SERVICE_IGNORE` and so on), and no such instance stands in Consul,
    neither by its id nor by its address and port. Where Consul has nothing at all of what it
    should have from Registrator, that is one finding. Containers that set none of the `SERVICE_*`
    names and have no sidecar are left alone, and so are services that Consul's ACLs may hide.

    ## How to fix it

    Restart Registrator: it goes through all running containers when it starts.
    """
    registrator = mesh.registrator
    if registrator is None:
        raise CannotLookError("no Registrator container is seen, so others register here")
    lost: dict[str, list[Workload]] = defaultdict(list)
    hidden: dict[str, None] = {}
    known = 0
    for workload, expected in _wanted(mesh, catalog):
        if _stands(workload, expected, catalog):
            known += 1
        elif catalog.may_have(expected.name):
            hidden[expected.name] = None
        elif workload not in lost[expected.name]:
            lost[expected.name].append(workload)
    if len(lost) > 1 and not known and not hidden:
        yield _finding(mesh, lost, registrator, catalog)
    else:
        for service, workloads in sorted(lost.items()):
            yield _finding(mesh, {service: workloads}, registrator, catalog)
    if known and not lost:
        there = verb(known, "is", "are")
        yield Fact(f"{count(known, 'port')} that Registrator should register {there} in Consul")
    if hidden:
        raise CannotLookError(
            f"whether {listing(list(hidden), most=4)} {verb(len(hidden), 'is', 'are')} registered "
            f"is not shown: {catalog.hidden}"
        )


def _wanted(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[tuple[Workload, Registration]]:
    """What should stand in Consul, as far as its answer is there to look it up in."""
    for workload in mesh.workloads:
        if _meant(workload):
            for expected in workload.expected:
                if not _is_unread(expected, catalog):
                    yield workload, expected


def _meant(workload: Workload) -> bool:
    """True where the container says that it wants to be in the mesh."""
    container = workload.container
    if container is None:
        return False
    settings = (*container.environment, *container.labels)
    return bool(workload.sidecars) or any(name.startswith("SERVICE_") for name in settings)


def _is_unread(expected: Registration, catalog: ConsulCatalog) -> bool:
    """True where Consul's answer for that service is missing or damaged: then nobody can tell."""
    document = layout.catalog_service(expected.name)
    return expected.name in catalog.unread or any(
        problem.document.partition("#")[0] in (document, SERVICES) for problem in catalog.problems
    )


def _stands(workload: Workload, expected: Registration, catalog: ConsulCatalog) -> bool:
    if expected.id in _ids(Identity(catalog)):
        return True
    # By its place, too: a Registrator before may have registered it under another id. Another
    # host's container of the same name has another address.
    return any(
        each.port == expected.port and expected.address in (None, "", each.address)
        for each in workload.instances
    )


# A thousand workloads are looked for one by one.
@functools.lru_cache(maxsize=2)
def _ids(catalog: Identity[ConsulCatalog]) -> frozenset[str]:
    return frozenset(each.id for each in catalog.fact.instances)


@functools.lru_cache(maxsize=2)
def _by_service(catalog: Identity[ConsulCatalog]) -> Mapping[str, Sequence[Instance]]:
    found: dict[str, list[Instance]] = defaultdict(list)
    for each in catalog.fact.instances:
        found[each.service].append(each)
    return found


def _answer(service: str, catalog: ConsulCatalog) -> tuple[Citation, ...]:
    """What Consul has instead: the other instances of the service, or the list without it."""
    others = _by_service(Identity(catalog)).get(service, ())
    if others:
        ids = listing([each.id for each in others], most=3)
        return (Citation(others[0].document, "", f"only {proofs.shorten(ids)}"),)
    names = listing([name for name in catalog.services if name != service], most=8)
    return (Citation(SERVICES, "", f"no {service} among {names}" if names else "no service"),)


def _begun_after(mesh: Mesh) -> str:
    """That Consul was started after Registrator, which does not look again by itself."""
    consul, registrator = mesh.component(Role.CONSUL), mesh.registrator
    if consul is None or registrator is None:
        return ""
    begun = moment(consul.container.started_at)
    before = moment(registrator.container.started_at)
    late = begun is not None and before is not None and begun > before
    return f", and was started after it ({consul.name})" if late else ""


def _finding(
    mesh: Mesh,
    lost: Mapping[str, Sequence[Workload]],
    registrator: Registrator,
    catalog: ConsulCatalog,
) -> Finding:
    """Of one service; of several where Consul has nothing that Registrator should register."""
    services = sorted(lost)
    workloads = list({each.name: each for name in services for each in lost[name]}.values())
    names = [each.name for each in workloads]
    number = len(names)
    container = registrator.container
    alone = len(lost) == 1 and services[0] not in _by_service(Identity(catalog))
    so = f", which has no service {services[0]} at all" if alone else ""
    if len(lost) > 1:
        so = f", which has nothing that {container.name} should register{_begun_after(mesh)}"
    state = "" if container.running else f"; Registrator ({container.name}) does not run"
    cited = tuple(
        proofs.container(each.container, "/Config", f"SERVICE_* of {each.name}")
        for each in workloads
        if each.container is not None
    )
    return Finding(
        message=(
            f"{listing(names, most=6)} {verb(number, 'runs', 'run')} and should be registered as "
            f"{listing(services, most=6)}, but {verb(number, 'is', 'are')} not in "
            f"Consul{so}{state}."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, names),
            *subjects(SubjectKind.SERVICE, services),
            *subjects(SubjectKind.COMPONENT, (container.name,)),
        ),
        seen_in=(*cited, *dict.fromkeys(it for name in services for it in _answer(name, catalog))),
        remedies=(
            Remedy(
                summary=(
                    "Restart Registrator: it registers every running container when it starts."
                    if container.running
                    else "Make Registrator run: it registers every running container then."
                ),
                commands=(
                    *(
                        (commands.restart(container),)
                        if container.running
                        else (commands.logs(container), *commands.resume(container))
                    ),
                    commands.see_that_it_worked("MD207"),
                ),
                effect="Registrations that stand already are written again.",
            ),
        ),
    )
