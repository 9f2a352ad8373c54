"""MD311: a sidecar's Envoy could not be read."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, SidecarState
from meshdoctor_checks import commands
from meshdoctor_checks.wording import count, listing


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
            message=f"The Envoy of {listing(names)} could not be read: {reason}.",
            subjects=subjects(SubjectKind.SIDECAR, names),
            seen_in=tuple(Citation(layout.envoy(name, "config_dump.json")) for name in names),
            remedies=(
                Remedy(
                    summary=(
                        "Give meshdoctor a way in: run it as root on the Docker host, or name the "
                        "admin address."
                    ),
                    commands=(
                        "sudo meshdoctor check",
                        commands.quoted(
                            *("meshdoctor", "check", "--envoy", f"{names[0]}=http://HOST:PORT")
                        ),
                    ),
                ),
            ),
        )
    examined = sum(each.state is SidecarState.EXAMINED for each in mesh.sidecars)
    if examined and not by_reason:
        yield Fact(f"the Envoys of {count(examined, 'sidecar')} were read")
