"""MD107: nobody takes the traces that sidecars send."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.zipkin import Zipkin
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Role, Sidecar
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.names import Names
from meshdoctor_checks.wording import count, listing, verb

_CLUSTER: Final = "zipkin"
"""As pilot-agent calls it in the bootstrap that it writes."""
_OPTION: Final = r"--zipkinAddress[= ]+['\"]?([A-Za-z0-9][A-Za-z0-9._-]*):(\d+)"
_REFUSED: Final = "refused"


class _Address(msgspec.Struct, frozen=True):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@check(code="MD107", severity=Severity.INFO, since="0.1")
def tracing_unreachable(
    mesh: Mesh, docker: DockerEngine, zipkin: Zipkin | None, catalog: ConsulCatalog | None
) -> Iterator[Finding | Fact]:
    """The tracing server that the sidecars send traces to does not answer.

    ## Why it matters

    Calls go on without it, and no trace is ever seen. Somebody who opens Zipkin's page to find
    out where a call went finds nothing, and no hint why.

    ## How it is found

    The sidecars' cluster `zipkin`, or their option `--zipkinAddress`, names a host that is no
    container on their network, or the tracing server's container runs and refuses connections on
    port 9411. One that stopped is MD101's to tell.

    ## How to fix it

    Start the tracing server under that name, or leave it: nothing else depends on it.
    """
    told: dict[_Address, list[tuple[Sidecar, Citation]]] = defaultdict(list)
    for sidecar in mesh.sidecars:
        found = _address(sidecar)
        if found is not None:
            told[found[0]].append((sidecar, found[1]))
    if not told:
        raise CannotLookError("no sidecar says where it sends its traces")
    names = Names(docker, None if catalog is None else catalog.services)
    faults = 0
    for address, sidecars in sorted(told.items(), key=lambda each: str(each[0])):
        reason = _reason(address, sidecars[0][0], mesh, names, zipkin)
        if reason:
            faults += 1
            yield _finding(mesh, address, reason, {each.name: seen for each, seen in sidecars})
    if not faults and zipkin is not None and zipkin.services is not None:
        heard = count(len(zipkin.services), "service")
        yield Fact(f"Zipkin answers and has heard of {heard}")


def _address(sidecar: Sidecar) -> tuple[_Address, Citation] | None:
    proxy, container = sidecar.proxy, sidecar.container
    for entry in proxy.clusters if proxy is not None else ():
        if proxy is not None and entry.cluster.name == _CLUSTER:
            for each in entry.cluster.endpoints[:1]:
                where = _Address(each.address, each.port)
                return where, Citation(proxy.document, entry.pointer, str(where))
    if container is not None:
        named = re.search(_OPTION, " ".join(container.command))
        if named is not None:
            where = _Address(named[1], int(named[2]))
            return where, proofs.container(container, "/Args", named[0])
    return None


def _reason(
    address: _Address, sidecar: Sidecar, mesh: Mesh, names: Names, zipkin: Zipkin | None
) -> str:
    """Why nobody answers there, "" where somebody does or nobody can tell."""
    if sidecar.container is None or sidecar.namespace_is_dead:
        return ""
    found = names.look_up(address.host, sidecar.container)
    if found is None:
        return ""
    if not found.here:
        networks = verb(len(found.networks), "the network", "the networks")
        return f"no container on {networks} {listing(found.networks)} has that name"
    holder = found.here[0]
    tracing = {each.container.id for each in mesh.components if each.role is Role.TRACING}
    said = zipkin.unanswered if zipkin is not None else ""
    # The first running tracing server was asked: of another nothing is known.
    if holder.running and holder.id in tracing and holder.name in said and _REFUSED in said:
        return f"{holder.name} refuses connections"
    return ""


def _finding(
    mesh: Mesh, address: _Address, reason: str, sidecars: Mapping[str, Citation]
) -> Finding:
    number = len(sidecars)
    tracing = mesh.component(Role.TRACING)
    composed = next(
        (each.container for each in mesh.components if each.container.compose_service), None
    )
    summary = "Start the tracing server, if anybody wants traces."
    steps: tuple[str, ...] = ()
    if tracing is not None and tracing.container.running:
        summary = "Read in its log why it does not listen, if anybody wants traces."
        steps = (commands.logs(tracing.container),)
    elif composed is not None:
        steps = (commands.compose(composed, "up", "-d"),)
    return Finding(
        message=(
            f"{count(number, 'sidecar')} {verb(number, 'sends', 'send')} traces to {address}, "
            f"where nobody takes them: {reason}."
        ),
        subjects=(
            *subjects(SubjectKind.COMPONENT, (address.host if tracing is None else tracing.name,)),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(sidecars.values()),
        remedies=(
            Remedy(
                summary=summary,
                commands=(*steps, commands.see_that_it_worked("MD107")),
                effect="Calls are the same with and without it.",
            ),
        ),
    )
