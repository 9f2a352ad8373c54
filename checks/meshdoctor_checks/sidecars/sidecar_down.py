"""MD302: a sidecar's container does not run."""

from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, SidecarState
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count


@check(code="MD302", severity=Severity.ERROR, since="0.1", explains=("MD301",))
def sidecar_down(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """A sidecar's container stopped, or restarts again and again.

    ## Why it matters

    The redirect in the application's namespace still sends every connection to the sidecar's
    port, where nobody listens now: the application can neither call nor be called.

    ## How it is found

    A container that runs Envoy in another container's network namespace is not running. A stopped
    one is left out where a running one serves the same namespace.

    ## How to fix it

    Start it again; its log says why it stopped.
    """
    sidecars = [each for each in mesh.sidecars if each.container is not None]
    if not sidecars:
        raise CannotLookError("no container runs Envoy")
    served = {each.workload for each in sidecars if each.state is not SidecarState.DOWN}
    down = [
        each
        for each in sidecars
        if each.state is SidecarState.DOWN
        and each.container is not None
        and each.container.network_container
        and (each.workload is None or each.workload not in served)
    ]
    for sidecar in down:
        container = sidecar.container
        if container is None or _is_leftover(sidecar.workload, mesh):
            continue
        beside = f", the sidecar of {sidecar.workload}," if sidecar.workload else ""
        memory = ", out of memory" if container.oom_killed else ""
        how = {
            "restarting": f"restarts again and again (last exit code {container.exit_code})",
            "created": "was created and never started",
            "paused": "is paused",
        }.get(container.status, f"stopped with exit code {container.exit_code}{memory}")
        said = f" ({container.error})" if container.error else ""
        resume = (
            commands.quoted("docker", "unpause", container.name)
            if container.status == "paused"
            else commands.start(container)
        )
        yield Finding(
            message=f"{sidecar.name}{beside} {how}{said}.",
            subjects=(
                *subjects(SubjectKind.SIDECAR, (sidecar.name,)),
                *subjects(SubjectKind.WORKLOAD, [sidecar.workload] if sidecar.workload else []),
            ),
            seen_in=(
                proofs.container(
                    container, "/State", f"{container.status}, exit code {container.exit_code}"
                ),
            ),
            remedies=(
                Remedy(
                    summary="Start the sidecar again, and read its log if it does not stay up.",
                    commands=(
                        resume,
                        commands.logs(container),
                        commands.see_that_it_worked("MD302", "MD301"),
                    ),
                ),
            ),
        )
    if not down:
        yield Fact(f"{count(len(served), 'sidecar')} running")


def _is_leftover(workload: str | None, mesh: Mesh) -> bool:
    """A sidecar of no workload that stopped is a container somebody forgot, not a fault."""
    return workload is None and bool(mesh.workloads)
