"""MD407: an HTTP listener does not know a name that clients use."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import (
    EnvoyProxies,
    EnvoyProxy,
    HttpConnectionManager,
    RouteConfiguration,
)
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
from meshdoctor.routing.hosts import find_virtual_host, seen_host
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing

_CITED: Final = 3
"""Sidecars with the same routes are named; these few prove it."""


class _Routes(msgspec.Struct, frozen=True, dict=True):
    """The routes of a port's HTTP listener, and where they are written."""

    manager: HttpConnectionManager
    config: RouteConfiguration
    pointer: str

    @cached_property
    def served(self) -> str:
        """What it serves, in a few words: as many findings cite it as services are missing."""
        hosts = [host.name for host in self.config.virtual_hosts]
        return proofs.shorten(f"virtual hosts: {listing(hosts, most=6) or 'none'}")

    def serve(self, name: str, port: int) -> bool:
        """True where a virtual host takes the Host header, as the listener hands it on."""
        return find_virtual_host(self.config, seen_host(self.manager, name, port)) is not None


Unserved = Mapping[tuple[str, tuple[str, ...]], Mapping[str, _Routes]]


@check(
    code="MD407",
    severity=Severity.WARNING,
    since="0.1",
    explains=("MD402", "MD409", "MD603"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def host_name_not_served(
    mesh: Mesh, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """An HTTP listener's virtual hosts lack a name that clients use.

    ## Why it matters

    Envoy finds the virtual host by the Host header, to the letter. A request under a name that no
    virtual host has gets 404 from the proxy.

    ## How it is found

    For each HTTP service of the catalogue the names `S`, `S:port`, `S.service.consul` and
    `S.service.consul:port` are looked up in the routes of its port's listener, as Envoy does. A
    virtual host for all names (`*`) serves them all.

    ## How to fix it

    Let clients use a name that is served; or see why the control plane does not know the service.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen whose calls are told apart by host names")
    if not proxies.proxies:
        raise CannotLookError("no sidecar's configuration could be read")
    unserved = _unserved(mesh, proxies)
    if unserved is None:
        yield Fact("no HTTP listener of a service's port is there to judge")
        return
    for (name, missing), routes in unserved.items():
        yield _finding(proxies, name, missing, routes)
    if not unserved:
        yield Fact("every HTTP service is served under all names that clients use")


def _finding(
    proxies: EnvoyProxies, name: str, missing: tuple[str, ...], routes: Mapping[str, _Routes]
) -> Finding:
    sidecars = list(routes)
    return Finding(
        message=(
            f"In {count(len(sidecars), 'sidecar')} no virtual host serves {name} as "
            f"{listing(missing)}: requests under such a name get 404 from the proxy."
        ),
        subjects=(
            Subject(SubjectKind.SERVICE, name),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(
            Citation(proxies.proxies[sidecar].document, each.pointer, each.served)
            for sidecar, each in islice(routes.items(), _CITED)
        ),
        remedies=(
            Remedy(
                summary=f"Call {name} by a name that is served, or see in Pilot's log why it "
                "leaves the name out.",
                commands=(commands.see_that_it_worked("MD407", "MD402"),),
            ),
        ),
    )


def _unserved(mesh: Mesh, proxies: EnvoyProxies) -> Unserved | None:
    """By service and names: the sidecars that do not serve them. None: nothing to look at."""
    by_port = _services_by_port(mesh)
    # Sidecars share what they got: the same routes are looked at once, by their identity.
    alike: dict[tuple[int, int, int], dict[str, _Routes]] = defaultdict(dict)
    for sidecar, proxy in proxies.proxies.items():
        for port, routes in _routes(proxy).items():
            if port in by_port:
                alike[port, id(routes.manager), id(routes.config)][sidecar] = routes
    unserved: dict[tuple[str, tuple[str, ...]], list[Mapping[str, _Routes]]] = defaultdict(list)
    for (port, _, _), sidecars in alike.items():
        for each in _missing(next(iter(sidecars.values())), by_port[port], port):
            unserved[each].append(sidecars)
    return {each: _together(unserved[each]) for each in sorted(unserved)} if alike else None


def _together(parts: Sequence[Mapping[str, _Routes]]) -> Mapping[str, _Routes]:
    if len(parts) == 1:
        return parts[0]
    return dict(sorted((each for part in parts for each in part.items()), key=itemgetter(0)))


def _missing(
    routes: _Routes, services: Sequence[str], port: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The services that some names of theirs do not lead to, with these names."""
    for service in services:
        missing = tuple(name for name in _names(service, port) if not routes.serve(name, port))
        if missing:
            yield service, missing


def _services_by_port(mesh: Mesh) -> Mapping[int, list[str]]:
    """The services that Pilot takes for HTTP on a port."""
    found: dict[int, list[str]] = defaultdict(list)
    for service in mesh.applications:
        for port in service.ports:
            if is_http(service.protocols(port)[0]):
                found[port].append(service.name)
    return found


def _names(service: str, port: int) -> tuple[str, ...]:
    """What clients write into the Host header, with the port and without."""
    return tuple(
        dict.fromkeys(
            name for host in host_names(service) for name in (authority(host, port), host)
        )
    )


def _routes(proxy: EnvoyProxy) -> Mapping[int, _Routes]:
    """By port, the routes of the HTTP listener that all its services share."""
    by_port: dict[int, _Routes] = {}
    for entry in proxy.deciding_listeners():
        listener = entry.listener
        if listener.address not in WILDCARDS:
            continue
        for manager in listener.http_managers:
            found = None
            if manager.route_config is not None:
                found = _Routes(manager, manager.route_config, entry.pointer)
            elif manager.rds is not None:
                held = configuration(proxy).routes.get(manager.rds)
                if held is not None:
                    found = _Routes(manager, held.route_config, held.pointer)
            # With VHDS more virtual hosts come on demand.
            if found is not None and not found.config.vhds:
                by_port.setdefault(listener.port, found)
    return by_port
