"""MD304: a sidecar serves a network namespace that its application has left."""

from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Sidecar, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count


@check(code="MD304", severity=Severity.ERROR, since="0.1", explains=("MD301",))
def sidecar_in_dead_namespace(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """A sidecar sits in the network namespace of a container that is gone.

    ## Why it matters

    It runs and looks healthy, and serves nobody: the new application container has a namespace of
    its own, without redirect and without sidecar.

    ## How it is found

    The container named in the sidecar's `network_mode: container:<id>` does not exist any more,
    or was started again after the sidecar: each start gives it a new namespace.

    ## How to fix it

    Recreate the init container and the sidecar, in this order, so that they join the namespace
    that the application has now.
    """
    joined = [
        each
        for each in mesh.sidecars
        if each.container is not None and each.container.network_container
    ]
    if not joined:
        raise CannotLookError("no sidecar shares another container's network namespace")
    dead = [each for each in joined if each.namespace_is_dead]
    for sidecar in dead:
        if sidecar.container is None:
            continue
        target = docker.container(sidecar.container.network_container)
        workload = _workload(sidecar.container, target, mesh)
        yield Finding(
            message=_sentence(sidecar, target, workload),
            subjects=(
                *subjects(SubjectKind.SIDECAR, (sidecar.name,)),
                *subjects(SubjectKind.WORKLOAD, (workload.name,) if workload is not None else ()),
            ),
            seen_in=(
                proofs.container(
                    sidecar.container, "/HostConfig/NetworkMode", sidecar.container.network_mode
                ),
                *(
                    (proofs.container(target, "/State/StartedAt", target.started_at),)
                    if target is not None
                    else ()
                ),
            ),
            remedies=(_remedy(sidecar.container, workload, target),),
        )
    if not dead:
        yield Fact(f"{count(len(joined), 'sidecar')} in the namespace of a running application")


def _workload(container: Container, target: Container | None, mesh: Mesh) -> Workload | None:
    """The workload it was to serve: what it points to, else by its name."""
    if target is not None:
        return mesh.workload_of(target)
    bare = [each for each in mesh.workloads if each.container is not None and not each.sidecars]
    for workload in bare:
        named = workload.container
        # Compose files name the sidecar of `details-v1` `details-v1-sidecar`.
        if (
            named is not None
            and named.compose_service
            and named.compose_project == container.compose_project
            and container.compose_service.startswith(f"{named.compose_service}-")
        ):
            return workload
    return None


def _sentence(sidecar: Sidecar, target: Container | None, workload: Workload | None) -> str:
    if target is not None:
        return (
            f"{sidecar.name} sits in a network namespace that {target.name} has left: "
            f"{target.name} was started again after it."
        )
    belongs = f" By its name it belongs to {workload.name}." if workload is not None else ""
    return (
        f"{sidecar.name} sits in the network namespace of a container that does not exist any "
        f"more.{belongs}"
    )


def _remedy(container: Container, workload: Workload | None, target: Container | None) -> Remedy:
    inits = workload.inits if workload is not None else ()
    if container.compose_service or target is None:
        steps = (
            *commands.recreate([each for each in inits if each.compose_service]),
            *commands.recreate([container]),
        )
    else:
        steps = tuple(commands.restart(each) for each in (*inits, container))
    return Remedy(
        summary=(
            "Recreate the init container and then the sidecar, so that they join the "
            "application's present namespace."
            if inits
            else "Recreate the sidecar, and its init container before it, so that they join the "
            "application's present namespace."
        ),
        commands=(*steps, commands.see_that_it_worked("MD304", "MD301", "MD303")),
        effect="The application itself keeps running.",
    )
