"""MD301: a registered application has no running proxy beside it."""

from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, SidecarState, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb


@check(code="MD301", severity=Severity.ERROR, since="0.1", explains=("MD402",))
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

    ## How to fix it

    Start the sidecars; where the application was recreated, recreate the init container and the
    sidecar after it.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen whose sidecars share their application's namespace")
    registered = [each for each in mesh.workloads if each.instances and each.container is not None]
    if not registered:
        raise CannotLookError("no registered instance is a container that is seen here")
    bare = [
        each
        for each in registered
        if each.container is not None
        and each.container.running
        and not any(sidecar.state is not SidecarState.DOWN for sidecar in each.sidecars)
    ]
    lonely = [each for each in bare if not each.sidecars]
    # Where a sidecar stopped, the reason differs from workload to workload: one finding each.
    groups = [[each] for each in bare if each.sidecars] + ([lonely] if lonely else [])
    for group in groups:
        yield _finding(mesh, group)
    if not bare:
        yield Fact(f"{count(len(registered), 'registered application')} with a running sidecar")


def _finding(mesh: Mesh, group: Sequence[Workload]) -> Finding:
    names = [each.name for each in group]
    number = len(names)
    stopped = [sidecar.name for each in group for sidecar in each.sidecars]
    rest = f": {listing(stopped)} {verb(len(stopped), 'does', 'do')} not run" if stopped else ""
    return Finding(
        message=(
            f"{listing(names)} {verb(number, 'has', 'have')} no running sidecar in "
            f"{verb(number, 'its', 'their')} network {verb(number, 'namespace', 'namespaces')}"
            f"{rest}."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, names),
            *subjects(SubjectKind.SERVICE, sorted({name for e in group for name in e.services})),
            *subjects(SubjectKind.SIDECAR, stopped),
        ),
        seen_in=tuple(
            proofs.container(each.container, "/Id", each.container.id[:12])
            for each in group
            if each.container is not None
        ),
        remedies=_remedies(mesh, group),
    )


def _remedies(mesh: Mesh, group: Sequence[Workload]) -> tuple[Remedy, ...]:
    if any(each.sidecars for each in group):
        return ()
    examples = [each for each in mesh.sidecars if each.container is not None]
    files = sorted(
        {
            file
            for each in examples
            if each.container is not None
            for file in commands.compose_files(each.container)
        }
    )
    where = f" ({listing(files)})" if files else ", which is often a Compose file of its own"
    project = next(
        (e.container for e in group if e.container is not None and e.container.compose_project),
        None,
    )
    start: tuple[str, ...] = ()
    if project is not None and files:
        start = (commands.compose_with(project, files, "up", "-d"),)
    return (
        Remedy(
            summary=(
                f"Start the sidecars of {listing([each.name for each in group])}{where}. A "
                "container with `network_mode: container:<application>` and an init container "
                "before it belong to each."
            ),
            commands=(*start, commands.see_that_it_worked("MD301")),
        ),
    )
