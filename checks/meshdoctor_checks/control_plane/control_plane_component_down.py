"""MD101: a part of the control plane does not run."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Component, Mesh, Role
from meshdoctor_checks import commands, proofs, states
from meshdoctor_checks.wording import count, listing, verb

_TELLING: Final = r"(?i)fatal|panic|error|fail|refused|denied|unable|cannot"
_HARMLESS: Final = (
    r"(?i)failed to check for updates|http: Request (?:error|[A-Z]+ )|\. using default\."
)
"""What stops nobody: Consul says the first at every start without the internet, and the second of
each request that it refuses, such as one for a kind of entry that it is too old for; Pilot the
third of files that it can do without."""

_PILOT_GAVE_UP: Final = 255
_GAVE_UP: Final = r"failed to create discovery service"
_API_SERVER: Final = r"config controller|custom resource"
_NO_CONNECTION: Final = (
    r"connection refused|no such host|i/o timeout|EOF|deadline exceeded|server misbehaving"
    r"|no route to host|connection reset|name resolution|Name or service not known"
)

_NEEDS: Final = {
    Role.PILOT: Role.API_SERVER,
    Role.API_SERVER: Role.ETCD,
    Role.REGISTRATOR: Role.CONSUL,
}
"""What each part gives up without."""

_EVERYBODYS: Final = frozenset({Role.ETCD, Role.API_SERVER, Role.TRACING})
"""Parts that other software on the same Docker may have of its own."""


@check(
    code="MD101",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD103", "MD206", "MD207", "MD306", "MD307"),
)
def control_plane_component_down(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """A part of the control plane stopped, or restarts again and again.

    ## Why it matters

    Without Consul nobody knows where services are, without Registrator new containers are never
    registered, without Pilot the sidecars keep what they had or never get anything. What runs
    already may look healthy until something changes.

    ## How it is found

    A container of Consul, Registrator, Pilot, etcd, the API server or the tracing server is not
    running, and no other container plays its part. An etcd, API server or tracing server counts
    only where it has a Compose project or a network in common with the rest of the control plane.
    A tracing server is only worth a note: calls go on without it. In a mesh of Consul's own only
    Consul counts.

    Where a part could not reach another that does not run either, they are one finding: it gave
    up for want of the other.

    The exit code is quoted, and the last telling line of the log unless somebody stopped the
    container. Pilot's exit code 255 right after the first start has a reason of its own: it gives
    up when the API server does not answer yet, because Compose starts all at once.

    ## How to fix it

    Start it again once what it needs is up; its log says what it missed.
    """
    components = _of_this_mesh(mesh)
    if not components:
        raise CannotLookError("no container of a control plane is seen in Docker")
    running = {each.role for each in components if each.container.running}
    # A container that stopped is a leftover where another of its part runs.
    down = [
        _Down(each, _last_words(each.container, docker))
        for each in components
        if not each.container.running and each.role not in running
    ]
    causes = {each.component.role: each for each in down}
    wanting: dict[Role, list[_Down]] = defaultdict(list)
    for each in down:
        if (cause := _cause(each, causes)) is not None:
            wanting[cause].append(each)
    for each in down:
        if _cause(each, causes) is None:
            yield _finding(mesh, each, wanting[each.component.role])
    if not down:
        names = listing(sorted(each.name for each in components if each.container.running))
        yield Fact(f"{count(len(running), 'part')} of the control plane running: {names}")


class _Down(msgspec.Struct, frozen=True):
    """A part that does not run, and the line of its log that tells why, "" for none."""

    component: Component
    line: str

    @property
    def needs(self) -> Role | None:
        """What it could not reach, as its log says."""
        needed = _NEEDS.get(self.component.role)
        return needed if needed is not None and re.search(_NO_CONNECTION, self.line) else None


def _last_words(container: Container, docker: DockerEngine) -> str:
    if states.stopped_from_outside(container):
        return ""
    return _telling_line(docker.logs.get(container.name, ""))


def _cause(each: _Down, down: Mapping[Role, _Down]) -> Role | None:
    """The part for want of which it gave up, which does not run: the first of all such."""
    found = None
    while each.needs is not None and each.needs in down:
        found = each.needs
        each = down[found]
    return found


def _finding(mesh: Mesh, down: _Down, wanting: Sequence[_Down]) -> Finding:
    """One part that does not run, and those that gave up without it."""
    component = down.component
    race = not wanting and _is_start_race(component, down.line)
    # Of several, Pilot needs the other, so it is told and started last.
    every = (down, *sorted(wanting, key=lambda each: each.component.role is Role.PILOT))
    return Finding(
        message=_sentence(down, every[1:], race=race),
        subjects=subjects(SubjectKind.COMPONENT, (each.component.name for each in every)),
        seen_in=tuple(proof for each in every for proof in _proofs(each)),
        remedies=(_remedy_of_all(mesh, every, race=race),),
        severity=Severity.INFO if component.role is Role.TRACING else None,
    )


def _proofs(down: _Down) -> Iterator[Citation]:
    container = down.component.container
    yield proofs.container(container, "/State", states.seen(container))
    if down.line:
        yield proofs.log_line(container, down.line)


def _of_this_mesh(mesh: Mesh) -> Sequence[Component]:
    """The components without those that other software on the same Docker may have."""
    if mesh.kinds == (Kind.CONSUL_CONNECT,):
        return [each for each in mesh.components if each.role is Role.CONSUL]
    sure = [each.container for each in mesh.components if each.role not in _EVERYBODYS]
    projects = {each.compose_project for each in sure} - {""}
    networks = {network for each in sure for network in _networks(each)}
    return [
        each
        for each in mesh.components
        if each.role not in _EVERYBODYS
        or each.container.compose_project in projects
        or _networks(each.container) & networks
    ]


def _networks(container: Container) -> frozenset[str]:
    """A container that stopped has no address any more, but its network mode stays."""
    return frozenset({container.network_mode, *container.addresses}) - {"", "host", "none"}


def _telling_line(log: str) -> str:
    """The last line that tells of a failure, without Docker's time stamp, else the last line."""
    lines = [proofs.untimed(line).strip() for line in log.splitlines() if line.strip()]
    lines = [line for line in lines if not re.search(_HARMLESS, line)]
    telling = [line for line in lines if re.search(_TELLING, line)]
    return (telling or lines or [""])[-1]


def _is_start_race(component: Component, line: str) -> bool:
    return (
        component.role is Role.PILOT
        and component.container.exit_code == _PILOT_GAVE_UP
        and all(re.search(each, line) for each in (_GAVE_UP, _API_SERVER, _NO_CONNECTION))
    )


def _sentence(down: _Down, wanting: Sequence[_Down], *, race: bool) -> str:
    component, container = down.component, down.component.container
    who = _called(component)
    who = f"{who[0].upper()}{who[1:]}"
    how = states.how(container)
    if race:
        return (
            f"{who} {how} because the API server did not answer when it started, as happens when "
            "Compose starts all containers at once."
        )
    reason = (container.error or down.line).replace('"', "'")
    said = f'; it last said "{proofs.shorten(reason)}"' if reason else ""
    for each in wanting:
        how_that = states.how(each.component.container)
        said += f"{';' if reason else ', and'} {_called(each.component)} {how_that} for want of it"
    return f"{who} {how}{said}."


def _called(component: Component) -> str:
    return f"{component.role.called} ({component.name})"


def _remedy_of_all(mesh: Mesh, every: Sequence[_Down], *, race: bool) -> Remedy:
    """What makes the first run, then those that gave up without it."""
    first, *wanting = [each.component for each in every]
    alone = _remedy(mesh, first, race=race)
    if not wanting:
        return alone
    *making, check_again = alone.commands
    names = listing([each.name for each in wanting])
    return Remedy(
        summary=f"{alone.summary} Once it answers, start {names}.",
        commands=(
            *making,
            *commands.resume_all([each.container for each in wanting]),
            check_again,
        ),
        effect=f"Until it answers, {names} {verb(len(wanting), 'gives', 'give')} up again.",
    )


def _remedy(mesh: Mesh, component: Component, *, race: bool) -> Remedy:
    container = component.container
    check_again = commands.see_that_it_worked("MD101")
    effect = "Only this container is started; the others stay as they are."
    if race:
        return Remedy(
            summary="Start it again once the API server answers.",
            commands=(*commands.resume(container), check_again),
            effect=effect,
        )
    match container.status:
        case "paused":
            return Remedy(
                summary="Let it run again.", commands=(*commands.resume(container), check_again)
            )
        case "restarting":
            return Remedy(
                summary="Read in its log what stops it; Docker goes on starting it by itself.",
                commands=(commands.logs(container), check_again),
            )
        case "created":
            return Remedy(
                summary="Start it; Docker says why if it cannot.",
                commands=(*commands.resume(container), check_again),
                effect=effect,
            )
        case _:
            again = _register_again(mesh, component)
            return Remedy(
                summary="Read why it stopped, then start it again.",
                commands=(
                    commands.logs(container),
                    *commands.resume(container),
                    *again,
                    check_again,
                ),
                effect=(
                    "A Consul in -dev mode starts with an empty catalogue; Registrator, once "
                    "restarted, registers every running container again."
                    if again
                    else effect
                ),
            )


def _register_again(mesh: Mesh, component: Component) -> tuple[str, ...]:
    """Consul may have forgotten everything, and Registrator does not look by itself."""
    registrator = mesh.registrator
    if component.role is not Role.CONSUL or registrator is None:
        return ()
    return (commands.restart(registrator.container),) if registrator.container.running else ()
