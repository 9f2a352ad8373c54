"""MD311: a sidecar's Envoy could not be read."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Sidecar, SidecarState
from meshdoctor_checks import proofs
from meshdoctor_checks.wording import count, listing

_LONGEST_REASON: Final = 240


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

    Run meshdoctor as root on the Docker host, so that it may enter network namespaces; or name
    the address with `--envoy NAME=URL`; or allow a helper container with `--helper-image`.
    """
    if not mesh.sidecars:
        raise CannotLookError("no sidecar is seen")
    by_reason: dict[str, list[str]] = defaultdict(list)
    for sidecar in mesh.sidecars:
        if sidecar.state is SidecarState.UNREACHABLE:
            by_reason[sidecar.reason].append(sidecar.name)
    for reason, names in by_reason.items():
        yield Finding(
            message=f"The Envoy of {listing(names)} could not be read: {_short(reason)}.",
            subjects=subjects(SubjectKind.SIDECAR, names),
            seen_in=tuple(_proof(each, mesh) for each in mesh.sidecars if each.name in names),
            remedies=(
                Remedy(
                    summary=(
                        "Run meshdoctor as root on the Docker host, so that it may enter network "
                        "namespaces; or name the admin address with --envoy NAME=URL."
                    ),
                    commands=("sudo meshdoctor check",),
                    effect="Nothing is changed; more is read.",
                ),
            ),
        )
    examined = sum(each.state is SidecarState.EXAMINED for each in mesh.sidecars)
    if examined and not by_reason:
        yield Fact(f"the Envoys of {count(examined, 'sidecar')} were read")


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
