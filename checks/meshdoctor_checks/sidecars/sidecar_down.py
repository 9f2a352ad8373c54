"""MD302: a sidecar's container does not run."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Sidecar, SidecarState, Workload
from meshdoctor_checks import commands, proofs, states
from meshdoctor_checks.neighbours import inits_of_same_namespace, intended_workload
from meshdoctor_checks.wording import count, listing, verb


class _Down(msgspec.Struct, frozen=True):
    """A sidecar that does not run, and the application that waits for it.

    `moved`: the application has another namespace by now than the sidecar was made for; `inits`
    are then the init containers that were made for the old one too.
    """

    container: Container
    workload: Workload
    moved: bool
    inits: tuple[Container, ...] = ()


@check(code="MD302", severity=Severity.ERROR, since="0.1", explains=("MD301", "MD703"))
def sidecar_down(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """A sidecar's container stopped, or restarts again and again.

    ## Why it matters

    The redirect in the application's namespace still sends every connection to the sidecar's
    port, where nobody listens now: the application can neither call nor be called.

    ## How it is found

    A container that runs Envoy in another container's network namespace is not running, while the
    application is. A stopped one is left out where a running one serves the same namespace, and
    where its application is gone.

    ## How to fix it

    Start it again; its log says why it stopped. Where the application was replaced since, the
    sidecar has to be made anew, after its init container.
    """
    sidecars = [each for each in mesh.sidecars if each.container is not None]
    if not sidecars:
        raise CannotLookError("no container runs Envoy")
    served = {each.workload for each in sidecars if each.state is not SidecarState.DOWN}
    alike: dict[tuple[str, str, bool], list[_Down]] = defaultdict(list)
    for sidecar in sidecars:
        if (down := _down(sidecar, mesh, docker)) is not None and down.workload.name not in served:
            how = states.how(down.container)
            alike[how, down.container.error, down.moved].append(down)
    for group in alike.values():
        yield _finding(group)
    running = sum(each.state is not SidecarState.DOWN for each in sidecars)
    if running and not alike:
        yield Fact(f"{count(running, 'sidecar')} running")


def _down(sidecar: Sidecar, mesh: Mesh, docker: DockerEngine) -> _Down | None:
    container = sidecar.container
    if (
        container is None
        or sidecar.state is not SidecarState.DOWN
        or not container.network_container
    ):
        return None
    workload = intended_workload(container, docker, mesh)
    # Beside an application that does not run, a sidecar has nothing to do.
    if workload is None or workload.container is None or not workload.container.running:
        return None
    moved = sidecar.workload is None
    inits = tuple(inits_of_same_namespace(container, docker)) if moved else ()
    return _Down(container, workload, moved, inits)


def _finding(group: Sequence[_Down]) -> Finding:
    first = group[0].container
    names = [each.container.name for each in group]
    said = f" ({proofs.shorten(first.error)})" if first.error else ""
    since = ""
    if group[0].moved:
        applications = listing([each.workload.name for each in group], most=3)
        since = f", and {applications} {verb(len(group), 'was', 'were')} replaced since"
    who = (
        f"{names[0]}, the sidecar of {group[0].workload.name},"
        if len(group) == 1
        else f"{count(len(group), 'sidecar')} ({listing(names, most=6)})"
    )
    how = states.how(first, len(group))
    return Finding(
        message=f"{who} {how}{said}{since}.",
        subjects=(
            *subjects(SubjectKind.SIDECAR, names),
            *subjects(SubjectKind.WORKLOAD, dict.fromkeys(each.workload.name for each in group)),
        ),
        seen_in=tuple(
            proofs.container(each.container, "/State", states.seen(each.container))
            for each in group
        ),
        remedies=(_remedy(group),),
    )


def _remedy(group: Sequence[_Down]) -> Remedy:
    check_again = commands.see_that_it_worked("MD302", "MD301")
    containers = [each.container for each in group]
    first = containers[0]
    if group[0].moved:
        inits = [init for each in group for init in each.inits]
        return Remedy(
            summary=(
                f"Recreate the {verb(len(group), 'sidecar', 'sidecars')}, after the init "
                f"{verb(len(inits), 'container', 'containers')}, in the present network "
                f"{verb(len(group), 'namespace', 'namespaces')} of the "
                f"{verb(len(group), 'application', 'applications')}."
            ),
            commands=(
                *commands.rejoin([(each, group[0].workload.name) for each in inits]),
                *commands.rejoin([(each.container, each.workload.name) for each in group]),
                check_again,
            ),
            effect="The applications themselves keep running.",
        )
    if first.status == "restarting":
        return Remedy(
            summary="Read in the log what stops it; Docker goes on starting it by itself.",
            commands=(*(commands.logs(each) for each in containers), check_again),
        )
    them = verb(len(group), "it", "them")
    again = f"Let {them} run again" if first.status == "paused" else f"Start {them} again"
    return Remedy(
        summary=f"{again}; the log says more if that does not last.",
        commands=(
            *commands.resume_all(containers),
            *(commands.logs(each) for each in containers[:1]),
            check_again,
        ),
        effect="The applications themselves keep running.",
    )
