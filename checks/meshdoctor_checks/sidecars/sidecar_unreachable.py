"""MD311: a sidecar's Envoy could not be read."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import access, layout
from meshdoctor.evidence.docker import Container
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Sidecar, SidecarState
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing

_LONGEST_REASON: Final = 240
_MOST_NAMED: Final = 4
"""In a command that shows how; more would bury it."""
_EFFECT: Final = "Nothing is changed; more is read."


@check(code="MD311", severity=Severity.WARNING, since="0.1")
def sidecar_unreachable(mesh: Mesh) -> Iterator[Finding | Fact]:
    """A sidecar runs, and its Envoy's admin interface could not be read.

    ## Why it matters

    What that Envoy does with calls is not known: whatever this report says of the mesh, it does
    not say it of this sidecar.

    ## How it is found

    The sidecar's container runs, or its address was given, and none of the ways to its admin
    interface worked: its address, its network namespace, a command inside its container. What was
    tried and why each failed is said.

    ## How to fix it

    Where it takes connections and answers none, it hangs: restart the sidecar. Where it refuses
    them, nothing listens at the address that its command tells: correct that, and recreate it.
    Else run meshdoctor as root on the Docker host, so that it may enter network namespaces; or
    name the address with `--envoy NAME=URL`; or allow a helper container with `--helper-image`.
    Without Docker, run it on the host of that Envoy, or name the address there too: it is what
    `-admin-bind` said, else 127.0.0.1:19000.
    """
    if not mesh.sidecars:
        raise CannotLookError("no sidecar is seen")
    by_reason: dict[tuple[str, bool], list[Sidecar]] = defaultdict(list)
    for sidecar in mesh.sidecars:
        if sidecar.state is SidecarState.UNREACHABLE:
            by_reason[sidecar.reason, sidecar.container is not None].append(sidecar)
    for (reason, _), sidecars in by_reason.items():
        names = [each.name for each in sidecars]
        yield Finding(
            message=f"The Envoy of {listing(names)} could not be read: {_short(reason)}.",
            subjects=subjects(SubjectKind.SIDECAR, names),
            seen_in=tuple(_proof(each, mesh) for each in sidecars),
            remedies=tuple(_remedies(reason, sidecars)),
        )
    examined = sum(each.state is SidecarState.EXAMINED for each in mesh.sidecars)
    if examined and not by_reason:
        yield Fact(f"the Envoys of {count(examined, 'sidecar')} were read")


def _remedies(reason: str, sidecars: Sequence[Sidecar]) -> Iterator[Remedy]:
    """By what the last way met that was tried: further ways would meet the same."""
    containers = [each.container for each in sidecars if each.container is not None]
    if not containers:
        yield _name([each.name for each in sidecars])
    elif access.HANGS in reason:
        yield _restart(containers)
    elif access.REFUSED in reason:
        yield _listen(containers)
        yield _enter()
    else:
        yield _enter()


def _restart(containers: Sequence[Container]) -> Remedy:
    return Remedy(
        summary="The Envoy takes connections and answers none: it hangs. Restart it.",
        commands=(
            *map(commands.logs, containers[:1]),
            *map(commands.restart, containers),
            commands.see_that_it_worked("MD311"),
        ),
        effect="Calls to and from its application fail until it is up again.",
    )


def _listen(containers: Sequence[Container]) -> Remedy:
    return Remedy(
        summary=(
            "Nothing listens there: correct the admin port or address in the sidecar's command "
            "or bootstrap, as other sidecars have it, and recreate it."
        ),
        commands=(*commands.recreate(containers), commands.see_that_it_worked("MD311")),
        effect="Calls to and from its application fail until it is up again.",
    )


def _enter() -> Remedy:
    return Remedy(
        summary=(
            "Run meshdoctor as root on the Docker host, so that it may enter network "
            "namespaces; or name the admin address with --envoy NAME=URL."
        ),
        commands=("sudo meshdoctor check",),
        effect=_EFFECT,
    )


def _name(names: Sequence[str]) -> Remedy:
    """Where no container is seen. What address it would be, nobody knows but who started it."""
    few = names[:_MOST_NAMED]
    envoys = (word for name in few for word in ("--envoy", f"{name}=http://HOST:PORT"))
    return Remedy(
        summary=(
            "Name the admin address: HOST:PORT is what -admin-bind said when the proxy "
            "was started, else 127.0.0.1:19000. Where that is a loopback address, run meshdoctor "
            "on the proxy's host."
        ),
        commands=(commands.quoted("meshdoctor", "check", *envoys),),
        effect=_EFFECT,
    )


def _short(reason: str) -> str:
    """The reason as the end of a sentence: one line, not too long, without its own period."""
    line = " ".join(reason.split()).rstrip(".")
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def _proof(sidecar: Sidecar, mesh: Mesh) -> Citation:
    """That the sidecar is there: its container, else its registration, else its damaged page."""
    if sidecar.container is not None:
        return proofs.container(sidecar.container, "/State", sidecar.container.status)
    for service in mesh.services.values():
        for instance in service.instances:
            if instance.id == sidecar.name:
                return proofs.registration(instance)
    return Citation(layout.envoy(sidecar.name, "config_dump.json"))
