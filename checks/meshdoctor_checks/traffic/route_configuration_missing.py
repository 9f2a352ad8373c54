"""MD406: a listener waits for routes that never came."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.envoy import EnvoyProxies
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
from meshdoctor_checks import commands
from meshdoctor_checks.wording import count, listing


@check(code="MD406", severity=Severity.ERROR, since="0.1", explains=("MD402",))
def route_configuration_missing(mesh: Mesh, proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A listener waits for a route configuration that never came.

    ## Why it matters

    Until its routes come, the listener answers every request itself with 404.

    ## How it is found

    An HTTP listener takes its routes by name (RDS), and the proxy holds no route configuration of
    that name, though it told of those it holds.

    ## How to fix it

    See whether the control plane is connected and sends it; restart the sidecar, which asks for
    everything again.
    """
    waiting: dict[str, dict[str, RouteReference]] = defaultdict(dict)
    used = 0
    for sidecar, proxy in proxies.proxies.items():
        if "routes" not in proxy.held:
            continue
        known = {entry.route_config.name for entry in proxy.routes}
        for reference in route_references(proxy):
            used += 1
            if reference.route_config not in known:
                waiting[reference.route_config].setdefault(sidecar, reference)
    if not any("routes" in proxy.held for proxy in proxies.proxies.values()):
        raise CannotLookError("no sidecar told of its route configurations")
    for name, references in waiting.items():
        sidecars = list(references)
        first = references[sidecars[0]]
        containers = [
            each.container
            for each in mesh.sidecars
            if each.name in references and each.container is not None
        ]
        yield Finding(
            message=(
                f"The listener {first.listener} waits for the route configuration {name}, which "
                f"never came, in {listing(sidecars)}: every request there gets 404."
            ),
            subjects=(
                Subject(SubjectKind.ROUTE, name),
                Subject(SubjectKind.LISTENER, first.listener),
                *subjects(SubjectKind.SIDECAR, sidecars),
            ),
            seen_in=tuple(
                Citation(proxies.proxies[sidecar].document, each.pointer, f"rds {name}")
                for sidecar, each in references.items()
            ),
            remedies=(
                Remedy(
                    summary="Restart the sidecars: they ask the control plane for everything "
                    "again.",
                    commands=(
                        *(commands.restart(each) for each in containers),
                        commands.see_that_it_worked("MD406", "MD402"),
                    ),
                    effect="Each restart breaks the open connections of its application.",
                ),
            ),
        )
    if not waiting:
        yield Fact(f"{count(used, 'listener')} with the routes that were asked for")
