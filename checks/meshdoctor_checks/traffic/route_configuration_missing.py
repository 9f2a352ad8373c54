"""MD406: a listener waits for routes that never came."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.envoy import ConfigState, EnvoyProxies, EnvoyProxy
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
    subjects,
)
from meshdoctor.routing.references import RouteReference, route_references
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listeners as within
from meshdoctor_checks.wording import count, listing, verb


@check(code="MD406", severity=Severity.ERROR, since="0.1", explains=("MD402", "MD409", "MD603"))
def route_configuration_missing(mesh: Mesh, proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A listener waits for a route configuration that never came.

    ## Why it matters

    Until its routes come, the listener answers every request itself with 404.

    ## How it is found

    An active HTTP listener takes its routes by name (RDS), and the proxy holds no route
    configuration of that name, though it told of those it holds.

    ## How to fix it

    See whether the control plane is connected and sends it; restart the sidecar, which asks for
    everything again.
    """
    if not any("routes" in proxy.held for proxy in proxies.proxies.values()):
        raise CannotLookError("no sidecar told of its route configurations")
    waiting: dict[str, dict[str, list[RouteReference]]] = defaultdict(lambda: defaultdict(list))
    served = 0
    for sidecar, proxy in proxies.proxies.items():
        if "routes" not in proxy.held:
            continue
        held = _held(proxy)
        for reference in route_references(proxy):
            if reference.route_config in held:
                served += 1
            else:
                waiting[reference.route_config][sidecar].append(reference)
    for name in sorted(waiting):
        yield _finding(mesh, proxies, name, waiting[name])
    if not waiting:
        yield Fact(
            f"{count(served, 'listener')} with the routes that {verb(served, 'it', 'they')} "
            f"{verb(served, 'asks', 'ask')} for"
            if served
            else "no listener takes its routes by name"
        )


def _held(proxy: EnvoyProxy) -> set[str]:
    return {each.route_config.name for each in proxy.routes if each.state is ConfigState.ACTIVE}


def _finding(
    mesh: Mesh,
    proxies: EnvoyProxies,
    name: str,
    references: Mapping[str, list[RouteReference]],
) -> Finding:
    sidecars = list(references)
    listeners = sorted({each.listener for found in references.values() for each in found})
    number = len(listeners)
    containers = [
        each.container
        for each in mesh.sidecars
        if each.name in references and each.container is not None
    ]
    return Finding(
        message=(
            f"{verb(number, 'The listener', 'The listeners')} {listing(listeners)} "
            f"{verb(number, 'waits', 'wait')} for the route configuration {name}, which never "
            f"came, in {listing(sidecars)}: every request there gets 404."
        ),
        subjects=(
            Subject(SubjectKind.ROUTE, name),
            *within(listeners, sidecars),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(
            Citation(
                proxies.proxies[sidecar].document,
                each.pointer,
                proofs.shorten(f"asks for {name}; held: {_listed(proxies.proxies[sidecar])}"),
            )
            for sidecar, found in references.items()
            for each in found
        ),
        remedies=(
            Remedy(
                summary=(
                    f"Restart {verb(len(sidecars), 'the sidecar', 'the sidecars')}: "
                    f"{verb(len(sidecars), 'it asks', 'they ask')} the control plane for "
                    "everything again."
                ),
                commands=(
                    *(commands.restart(each) for each in containers),
                    commands.see_that_it_worked("MD406", "MD402"),
                ),
                effect="Each restart breaks the open connections of its application.",
            ),
        ),
    )


def _listed(proxy: EnvoyProxy) -> str:
    return listing(sorted(_held(proxy)), most=4) or "none"
