"""MD101: a part of the control plane does not run."""

import re
from collections.abc import Iterator
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind
from meshdoctor.topology import Component, Mesh, Role
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count

_TELLING: Final = re.compile(r"fatal|panic|error|fail|refused|denied|unable|cannot", re.IGNORECASE)
_START_ORDER: Final = re.compile(r"failed to create discovery service|connection refused")
_PILOT_GAVE_UP: Final = 255
_TIMESTAMP: Final = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z\s+")


@check(
    code="MD101",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD103", "MD207", "MD306", "MD307"),
)
def control_plane_component_down(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """A part of the control plane stopped, or restarts again and again.

    ## Why it matters

    Without Consul nobody knows where services are, without Registrator new containers are never
    registered, without Pilot the sidecars keep what they had or never get anything. What runs
    already may look healthy until something changes.

    ## How it is found

    A container of Consul, Registrator, Pilot, etcd, the API server or the tracing server is not
    running, and no other container plays its part. Its exit code and the last telling line of its
    log are quoted. Pilot's exit code 255 right after the first start has a reason of its own: it
    gives up when the API server does not answer yet, because Compose starts all at once.

    ## How to fix it

    Start it again once what it needs is up; its log says what it missed.
    """
    if not mesh.components:
        raise CannotLookError("no container of a control plane is seen in Docker")
    running = {each.role for each in mesh.components if each.container.running}
    found = False
    for component in mesh.components:
        container = component.container
        # A container that stopped is a leftover where another of its part runs.
        if container.running or component.role in running:
            continue
        found = True
        line = _telling_line(docker.logs.get(container.name, ""))
        race = _is_start_race(component, line)
        yield Finding(
            message=_sentence(component, line, race=race),
            subjects=(Subject(SubjectKind.COMPONENT, container.name),),
            seen_in=(
                proofs.container(
                    container, "/State", f"{container.status}, exit code {container.exit_code}"
                ),
                *((proofs.log_line(container, line),) if line else ()),
            ),
            remedies=(_remedy(container, race=race),),
        )
    if not found:
        yield Fact(f"{count(len(running), 'part')} of the control plane running: {_named(mesh)}")


def _named(mesh: Mesh) -> str:
    return ", ".join(sorted(each.name for each in mesh.components if each.container.running))


def _telling_line(log: str) -> str:
    """The last line that tells of a failure, without Docker's time stamp, else the last line."""
    lines = [_TIMESTAMP.sub("", line).strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or [""])[-1]


def _is_start_race(component: Component, line: str) -> bool:
    return (
        component.role is Role.PILOT
        and component.container.exit_code == _PILOT_GAVE_UP
        and _START_ORDER.search(line) is not None
    )


def _sentence(component: Component, line: str, *, race: bool) -> str:
    container = component.container
    who = f"{component.role.called} ({container.name})"
    who = f"{who[0].upper()}{who[1:]}"
    match container.status:
        case "restarting":
            how = f"restarts again and again ({container.restart_count} times so far, "
            how += f"last exit code {container.exit_code})"
        case "created":
            how = "was created and never started"
        case "paused":
            how = "is paused"
        case _:
            memory = ", out of memory" if container.oom_killed else ""
            how = f"stopped with exit code {container.exit_code}{memory}"
    if race:
        return (
            f"{who} {how} because the API server did not answer yet when it started: Compose "
            "starts all containers at once."
        )
    reason = container.error or line
    return f"{who} {how}{f'; it last said: {proofs.shorten(reason)}' if reason else ''}."


def _remedy(container: Container, *, race: bool) -> Remedy:
    codes = ("MD101",)
    if container.status == "paused":
        return Remedy(
            summary="Let it run again.",
            commands=(
                commands.quoted("docker", "unpause", container.name),
                commands.see_that_it_worked(*codes),
            ),
        )
    summary = (
        "Start it again, now that the API server answers."
        if race
        else "Read why it stopped, then start it again."
    )
    return Remedy(
        summary=summary,
        commands=(
            *(() if race else (commands.logs(container),)),
            commands.start(container),
            commands.see_that_it_worked(*codes),
        ),
        effect="Only this container is started; the others stay as they are.",
    )
