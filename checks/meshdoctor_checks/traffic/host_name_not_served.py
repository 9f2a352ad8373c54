"""MD407: an HTTP listener does not know a name that clients use."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, RouteEntry
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
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import WILDCARDS, host_names, is_http
from meshdoctor.routing.calls import authority
from meshdoctor.routing.configuration import configuration
from meshdoctor.routing.hosts import find_virtual_host
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands
from meshdoctor_checks.wording import count, listing


@check(code="MD407", severity=Severity.WARNING, since="0.1", explains=("MD402",))
def host_name_not_served(
    mesh: Mesh, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """An HTTP listener's virtual hosts lack a name that clients use.

    ## Why it matters

    Envoy finds the virtual host by the Host header, to the letter. A request under a name that no
    virtual host has gets 404 from the proxy.

    ## How it is found

    For each HTTP service of the catalogue the names `S`, `S:port`, `S.service.consul` and
    `S.service.consul:port` are looked up in the route configuration of its port, as Envoy does.

    ## How to fix it

    Let clients use a name that is served; or see why the control plane does not know the service.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen whose calls are told apart by host names")
    unserved = _unserved(mesh, proxies)
    if unserved is None:
        yield Fact("no HTTP listener of a service's port is there to judge")
        return
    for (name, missing), entries in unserved.items():
        sidecars = list(entries)
        yield Finding(
            message=(
                f"In {count(len(sidecars), 'sidecar')} no virtual host serves {name} as "
                f"{listing(missing)}: requests under such a name get 404 from the proxy."
            ),
            subjects=(
                Subject(SubjectKind.SERVICE, name),
                *subjects(SubjectKind.SIDECAR, sidecars),
            ),
            seen_in=tuple(
                Citation(proxies.proxies[sidecar].document, entry.pointer, entry.route_config.name)
                for sidecar, entry in entries.items()
            ),
            remedies=(
                Remedy(
                    summary=f"Call {name} by a name that is served, or see why the control plane "
                    "leaves it out.",
                    commands=(commands.see_that_it_worked("MD407", "MD402"),),
                ),
            ),
        )
    if not unserved:
        yield Fact("every HTTP service is served under all names that clients use")


def _unserved(
    mesh: Mesh, proxies: EnvoyProxies
) -> Mapping[tuple[str, tuple[str, ...]], Mapping[str, RouteEntry]] | None:
    """By service and names: the sidecars that serve none of them. None: nothing to look at."""
    looked = False
    unserved: dict[tuple[str, tuple[str, ...]], dict[str, RouteEntry]] = defaultdict(dict)
    for service in mesh.applications:
        for port in service.ports:
            if not is_http(service.protocols(port)[0]):
                continue
            names = _names(service.name, port)
            for sidecar, proxy in proxies.proxies.items():
                entry = _routes(proxy, port)
                if entry is None:
                    continue
                looked = True
                config = entry.route_config
                missing = tuple(name for name in names if find_virtual_host(config, name) is None)
                if missing:
                    unserved[service.name, missing][sidecar] = entry
    return unserved if looked else None


def _names(service: str, port: int) -> tuple[str, ...]:
    """What clients write into the Host header, with the port and without."""
    return tuple(
        dict.fromkeys(
            name for host in host_names(service) for name in (authority(host, port), host)
        )
    )


def _routes(proxy: EnvoyProxy, port: int) -> RouteEntry | None:
    """The route configuration of the HTTP listener that all services of the port share."""
    for entry in proxy.deciding_listeners():
        listener = entry.listener
        if listener.port == port and listener.address in WILDCARDS:
            for manager in listener.http_managers:
                if manager.rds is not None:
                    return configuration(proxy).routes.get(manager.rds)
    return None
