"""MD304: a sidecar serves a network namespace that its application has left."""

from collections.abc import Iterator
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Sidecar, SidecarState, Workload
from meshdoctor_checks import commands, proofs, states
from meshdoctor_checks.neighbours import inits_of_same_namespace, intended_workload
from meshdoctor_checks.wording import count

_STOPPED: Final = frozenset({"exited", "dead"})


@check(code="MD304", severity=Severity.ERROR, since="0.1", explains=("MD301", "MD303", "MD306"))
def sidecar_in_dead_namespace(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """A sidecar sits in the network namespace of a container that is gone, or does not run.

    ## Why it matters

    It runs and looks healthy, and serves nobody: the new application container has a namespace of
    its own, without redirect and without sidecar. Of a container that stopped, the namespace has
    lost its network, so that the sidecar does not reach its control plane either.

    ## How it is found

    The container named in the sidecar's `network_mode: container:<id>` does not exist any more,
    or stopped while the sidecar runs, or was started again after the sidecar: each start gives it
    a new namespace.

    ## How to fix it

    Start the application where it stopped. Then recreate the init container and the sidecar, in
    this order, so that they join the namespace that the application has now.
    """
    joined = [
        each
        for each in mesh.sidecars
        if each.container is not None and each.container.network_container
    ]
    if not joined:
        raise CannotLookError("no sidecar shares another container's network namespace")
    # A container that could not be decoded may be the one whose namespace it is.
    dead = [
        each
        for each in joined
        if (each.namespace_is_dead or _is_left_alone(each, docker))
        and not (docker.problems and _target(each, docker) is None)
    ]
    for sidecar in dead:
        if sidecar.container is None:
            continue
        target = _target(sidecar, docker)
        workload = intended_workload(sidecar.container, docker, mesh)
        yield Finding(
            message=_sentence(sidecar, target, workload),
            subjects=(
                *subjects(SubjectKind.SIDECAR, (sidecar.name,)),
                *subjects(
                    SubjectKind.WORKLOAD,
                    (each.name for each in (workload or target,) if each is not None),
                ),
            ),
            seen_in=(
                proofs.container(
                    sidecar.container, "/HostConfig/NetworkMode", sidecar.container.network_mode
                ),
                *((_since(target),) if target is not None else ()),
            ),
            remedies=(_remedy(sidecar.container, workload, target, docker),),
        )
    served = {each.name for each in mesh.workloads if each.container and each.container.running}
    sound = sum(each.workload in served for each in joined if each.state is not SidecarState.DOWN)
    if sound and not dead:
        yield Fact(f"{count(sound, 'sidecar')} in the namespace of a running application")


def _target(sidecar: Sidecar, docker: DockerEngine) -> Container | None:
    """The container whose namespace it was to share, None where that is gone."""
    if sidecar.container is None:
        return None
    return docker.container(sidecar.container.network_container)


def _since(target: Container) -> Citation:
    """That it was started again, or that it stopped."""
    if target.running:
        return proofs.container(target, "/State/StartedAt", target.started_at)
    return proofs.container(target, "/State", states.seen(target))


def _is_left_alone(sidecar: Sidecar, docker: DockerEngine) -> bool:
    """True where it runs on though the application whose namespace it shares stopped."""
    target = _target(sidecar, docker)
    return (
        target is not None
        and target.status in _STOPPED
        and sidecar.container is not None
        and sidecar.container.running
    )


def _sentence(sidecar: Sidecar, target: Container | None, workload: Workload | None) -> str:
    if target is not None and target.status in _STOPPED:
        return (
            f"{target.name} {states.how(target)}, and {sidecar.name} runs on in its network "
            "namespace, which has no network any more."
        )
    if target is not None:
        return (
            f"{sidecar.name} sits in a network namespace that {target.name} has left: "
            f"{target.name} was started again after it."
        )
    belongs = f", and by its name belongs to {workload.name}" if workload is not None else ""
    return (
        f"{sidecar.name} sits in the network namespace of a container that does not exist any "
        f"more{belongs}."
    )


def _remedy(
    container: Container, workload: Workload | None, target: Container | None, docker: DockerEngine
) -> Remedy:
    check_again = commands.see_that_it_worked("MD304", "MD301", "MD303")
    inits = tuple(inits_of_same_namespace(container, docker))
    if target is not None:
        # It is still there, so its guests join its new namespace when they start again.
        redirect = (
            tuple(commands.quoted("docker", "start", "-a", each.name) for each in inits)
            if inits
            else (commands.install_redirect(target.name),)
        )
        if target.status in _STOPPED:
            return Remedy(
                summary=(
                    f"Start {target.name}, install the redirect in its new namespace, then "
                    "restart the sidecar, which joins it."
                ),
                commands=(
                    commands.quoted("docker", "start", target.name),
                    *redirect,
                    commands.restart(container),
                    check_again,
                ),
                effect="If it stopped by itself, its log says why.",
            )
        return Remedy(
            summary=(
                f"Install the redirect in the present namespace of {target.name}, then restart "
                "the sidecar, which joins it."
            ),
            commands=(*redirect, commands.restart(container), check_again),
            effect="The application itself keeps running.",
        )
    if workload is None or workload.container is None:
        return Remedy(
            summary=(
                "If its application is gone for good, remove the sidecar; else start the "
                "application, then recreate the sidecar and the init container before it."
            ),
            commands=(commands.quoted("docker", "rm", "-f", container.name), check_again),
            effect="A sidecar in such a namespace serves nobody.",
            destructive=True,
        )
    redirect = (
        commands.rejoin([(each, workload.name) for each in inits])
        if inits
        else (commands.install_redirect(workload.name),)
    )
    return Remedy(
        summary=(
            f"Install the redirect in the present namespace of {workload.name}, then replace the "
            "sidecar by one that joins it."
        ),
        commands=(*redirect, *commands.rejoin([(container, workload.name)]), check_again),
        effect="The application itself keeps running.",
    )
