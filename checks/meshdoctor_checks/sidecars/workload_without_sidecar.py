"""MD301: a registered application has no running proxy beside it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, SidecarState, Workload
from meshdoctor_checks import commands, proofs, states
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.neighbours import intended_workload
from meshdoctor_checks.wording import count, listing, verb

_FEW: Final = 2


@check(
    code="MD301",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402",),
    # Calls to the service come to it, with a sidecar or without.
    explains_by={"MD402": SubjectKind.WORKLOAD},
    plan=plan_of("sidecars", "workload_without_sidecar"),
)
def workload_without_sidecar(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """A registered application has no running sidecar in its network namespace.

    ## Why it matters

    Its calls leave without Envoy: no routing rule, no retry and no trace applies to them. Where
    the redirect is installed but nobody listens behind it, they fail outright.

    ## How it is found

    The container of a registered instance shares its network namespace with no running container
    that runs Envoy. Namespaces decide, not names.

    Registrator registers everything that exposes a port, a database too. So a container that
    sets none of the `SERVICE_*` variables is left alone, unless something shows that it was to
    have a sidecar: one that stopped or was left behind, an init container, or another instance of
    the same service that has one. Without such a sign it is an error only where no application
    has a sidecar at all, which means that they were forgotten; beside others that have theirs it
    is a warning, for it may be meant so.

    ## How to fix it

    Start the sidecars; where the application was recreated, recreate the init container and the
    sidecar after it.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen whose sidecars share their application's namespace")
    registered = [
        each
        for each in mesh.workloads
        if each.instances and each.container is not None and each.container.running
    ]
    if not registered:
        raise CannotLookError("no registered instance is a running container that is seen here")
    bare = [each for each in registered if not _is_served(each)]
    with_sidecar = len(registered) - len(bare)
    left_behind = _left_behind(mesh, docker)
    served = frozenset(name for each in registered if _is_served(each) for name in each.services)
    groups: dict[tuple[Severity, str], list[Workload]] = defaultdict(list)
    for each in bare:
        severity = _severity(each, served, left_behind, forgotten=not with_sidecar)
        if severity is not None:
            groups[severity, _reason(each, left_behind)].append(each)
    for (severity, _), group in groups.items():
        yield _finding(mesh, group, left_behind, severity)
    if with_sidecar and not groups:
        yield Fact(f"{count(with_sidecar, 'registered application')} with a running sidecar")


def _is_served(workload: Workload) -> bool:
    return any(sidecar.state is not SidecarState.DOWN for sidecar in workload.sidecars)


def _left_behind(mesh: Mesh, docker: DockerEngine) -> dict[str, list[str]]:
    """Sidecars that were to serve a workload and are in no namespace of a container, by it."""
    found: dict[str, list[str]] = defaultdict(list)
    for sidecar in mesh.sidecars:
        container = sidecar.container
        if container is None or sidecar.workload is not None or not container.network_container:
            continue
        workload = intended_workload(container, docker, mesh)
        if workload is not None:
            found[workload.name].append(sidecar.name)
    return found


def _severity(
    workload: Workload,
    served: frozenset[str],
    left_behind: dict[str, list[str]],
    *,
    forgotten: bool,
) -> Severity | None:
    """How sure it is that the workload was to have a sidecar; None where nothing says so.

    `served` are the services of which some instance has one.
    """
    if (
        workload.sidecars
        or workload.inits
        or workload.name in left_behind
        or served & set(workload.services)
    ):
        return Severity.ERROR
    container = workload.container
    settings = (*container.environment, *container.labels) if container is not None else ()
    if not any(name.startswith("SERVICE_") for name in settings):
        return None
    return Severity.ERROR if forgotten else Severity.WARNING


def _reason(workload: Workload, left_behind: dict[str, list[str]]) -> str:
    """What tells workloads apart whose sidecars are missing for different reasons."""
    if workload.name in left_behind:
        return workload.name
    return ", ".join(
        states.seen(each.container) for each in workload.sidecars if each.container is not None
    )


def _finding(
    mesh: Mesh,
    group: Sequence[Workload],
    left_behind: dict[str, list[str]],
    severity: Severity,
) -> Finding:
    names = [each.name for each in group]
    number = len(names)
    stopped = [sidecar.name for each in group for sidecar in each.sidecars]
    lost = [name for each in group for name in left_behind.get(each.name, ())]
    rest = ""
    if len(stopped) > _FEW:
        rest = f": {len(stopped)} sidecars do not run"
    elif stopped:
        rest = f": {listing(stopped)} {verb(len(stopped), 'does', 'do')} not run"
    elif lost:
        rest = f": {listing(lost)} {verb(len(lost), 'is', 'are')} not in it"
    elif severity is Severity.WARNING:
        rest = ", though other applications have one"
    return Finding(
        message=(
            f"{listing(names, most=6)} {verb(number, 'has', 'have')} no running sidecar in "
            f"{verb(number, 'its', 'their')} network {verb(number, 'namespace', 'namespaces')}"
            f"{rest}."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, names),
            *subjects(SubjectKind.SERVICE, sorted({name for e in group for name in e.services})),
            *subjects(SubjectKind.SIDECAR, (*stopped, *lost)),
        ),
        seen_in=tuple(
            proofs.container(each.container, "/Id", each.container.id[:12])
            for each in group
            if each.container is not None
        ),
        # A sidecar that is there has a finding of its own, which says how to mend it.
        remedies=() if stopped or lost else (_remedy(mesh, group, severity),),
        severity=severity,
    )


def _remedy(mesh: Mesh, group: Sequence[Workload], severity: Severity) -> Remedy:
    projects = {
        each.container.compose_project: each.container
        for each in group
        if each.container is not None and each.container.compose_project
    }
    helpers = [
        each
        for each in (
            *(sidecar.container for sidecar in mesh.sidecars),
            *(init for workload in mesh.workloads for init in workload.inits),
        )
        if each is not None
    ]
    start = []
    for project, container in projects.items():
        files = sorted(
            {
                file
                for each in helpers
                if each.compose_project == project
                for file in each.compose_paths
            }
        )
        if files:
            start.append(commands.compose_with(container, files, "up", "-d"))
    names = listing([each.name for each in group])
    meant = f" Where {verb(len(group), 'it is', 'they are')} meant to have none, nothing is wrong."
    return Remedy(
        summary=(
            f"Start the {verb(len(group), 'sidecar', 'sidecars')} of {names}, often from a "
            "Compose file of their own: to each belong a container with "
            "`network_mode: container:<application>` and an init "
            f"container before it.{meant if severity is Severity.WARNING else ''}"
        ),
        commands=(*start, commands.see_that_it_worked("MD301")),
    )
