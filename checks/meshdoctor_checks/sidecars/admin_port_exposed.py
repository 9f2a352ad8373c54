"""MD310: a proxy's admin interface that is reachable from outside its namespace."""

from collections.abc import Iterator, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.addresses import host_port, is_loopback
from meshdoctor.evidence.docker import Container, PublishedPort
from meshdoctor.evidence.envoy import (
    ClusterRoute,
    EnvoyProxies,
    EnvoyProxy,
    Filter,
    HttpConnectionManager,
    ListenerEntry,
    Route,
    TcpProxy,
)
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.routing.configuration import configuration
from meshdoctor.routing.references import clusters_of
from meshdoctor.topology import Mesh, Sidecar
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listeners
from meshdoctor_checks.neighbours import workload_named
from meshdoctor_checks.wording import count, listing


class _Door(msgspec.Struct, frozen=True):
    """One way in from outside, as a sentence goes on; `listener` is its address, if it is one."""

    what: str
    proofs: tuple[Citation, ...]
    listener: str = ""


@check(code="MD310", severity=Severity.WARNING, since="0.1")
def admin_port_exposed(mesh: Mesh, proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A proxy's admin interface is reachable from outside its network namespace.

    ## Why it matters

    Whoever reaches it can shut the proxy down (`/quitquitquit`), read its whole configuration and
    change its log levels; it asks for no password.

    ## How it is found

    The bootstrap's admin address is not a loopback address, so every container on the same
    network reaches it; where Docker publishes the port, the host's network does too. Or one of
    the proxy's own listeners, on an address that others reach, passes connections or all paths on
    to it; a listener for single pages, such as `/stats/prometheus`, is left out.

    ## How to fix it

    Bind it to 127.0.0.1: meshdoctor reaches it there by itself. To scrape statistics, add a
    listener for that one page.
    """
    known = 0
    found = False
    sidecars = {each.name: each for each in mesh.sidecars}
    for name, proxy in proxies.proxies.items():
        if not proxy.admin_port:
            continue
        known += 1
        sidecar = sidecars.get(name)
        doors = [*_by_address(mesh, proxy, sidecar), *_by_listener(proxy)]
        if doors:
            found = True
            yield _finding(proxy, sidecar, doors)
    if not known:
        raise CannotLookError("no proxy's bootstrap tells where its admin interface listens")
    if not found:
        yield Fact(f"the admin interfaces of {count(known, 'proxy', 'proxies')} are on localhost")


def _is_closed(address: str) -> bool:
    """True of an address that only its own namespace reaches; "" means any address to Envoy."""
    # A pipe has a path; only who may enter the file system reaches it.
    return is_loopback(address) or address.startswith(("/", "@"))


# ---------------------------------------------------------------- ways in


def _by_address(mesh: Mesh, proxy: EnvoyProxy, sidecar: Sidecar | None) -> Iterator[_Door]:
    if _is_closed(proxy.admin_address):
        return
    where = _joined(proxy.admin_address, proxy.admin_port)
    proof = Citation(proxy.document, "", f"admin address {where}")
    host = _namespace_host(mesh, sidecar)
    published = [
        each
        for each in (host.published if host is not None else ())
        if (each.port, each.protocol) == (proxy.admin_port, "tcp")
    ]
    if host is None or not published:
        reached = ", on the host itself" if host is not None and _is_hosts(host) else ""
        yield _Door(f"it listens on {where}{reached}", (proof,))
        return
    places = listing([_place(each) for each in published], most=3)
    yield _Door(
        f"it listens on {where}, and Docker publishes it at {places}",
        (proof, proofs.container(host, "/NetworkSettings/Ports", places)),
    )


def _namespace_host(mesh: Mesh, sidecar: Sidecar | None) -> Container | None:
    """The container whose ports are the sidecar's: the workload it shares a namespace with."""
    if sidecar is None or sidecar.container is None:
        return None
    if not sidecar.container.network_container:
        return sidecar.container
    workload = workload_named(mesh, sidecar.workload)
    return workload.container if workload is not None else None


def _is_hosts(container: Container) -> bool:
    return container.network_mode == "host"


def _place(port: PublishedPort) -> str:
    return _joined(port.host_address or "0.0.0.0", port.host_port)  # noqa: S104 # how Docker writes "any"


def _joined(address: str, port: int) -> str:
    address = address or "0.0.0.0"  # noqa: S104 # what Envoy takes an empty one for
    return host_port(address, port)


def _by_listener(proxy: EnvoyProxy) -> Iterator[_Door]:
    admin = {
        entry.cluster.name
        for entry in proxy.clusters
        for each in entry.cluster.endpoints
        if each.port == proxy.admin_port and _is_closed(each.address)
    }
    if not admin:
        return
    for entry in proxy.deciding_listeners():
        listener = entry.listener
        if not listener.bind_to_port or _is_closed(listener.address):
            continue
        if any(_leads(proxy, each, admin) for chain in listener.chains for each in chain.filters):
            yield _door(proxy, entry)


def _door(proxy: EnvoyProxy, entry: ListenerEntry) -> _Door:
    key = entry.listener.key
    return _Door(
        f"its listener {key} leads to it",
        (proofs.listener(proxy.document, entry, f"{key} leads to the admin interface"),),
        key,
    )


def _leads(proxy: EnvoyProxy, each: Filter, admin: set[str]) -> bool:
    match each:
        case TcpProxy():
            return not admin.isdisjoint(clusters_of(each))
        case HttpConnectionManager():
            config = each.route_config
            if config is None and each.rds is not None:
                entry = configuration(proxy).routes.get(each.rds)
                config = entry.route_config if entry is not None else None
            return config is not None and any(
                _opens(route, admin) for host in config.virtual_hosts for route in host.routes
            )
        case _:
            return False


def _opens(route: Route, admin: set[str]) -> bool:
    """Whether a route passes every path on as it is."""
    action = route.action
    return (
        isinstance(action, ClusterRoute)
        and not admin.isdisjoint(clusters_of(action))
        and (route.match.path_kind, route.match.path) in {("prefix", "/"), ("prefix", "")}
        and action.prefix_rewrite in ("", "/")
    )


# ---------------------------------------------------------------- the finding


def _finding(proxy: EnvoyProxy, sidecar: Sidecar | None, doors: Sequence[_Door]) -> Finding:
    container = sidecar.container if sidecar is not None else None
    workload = sidecar.workload if sidecar is not None else None
    return Finding(
        message=(
            f"The admin interface of {proxy.name} is reachable from outside: "
            f"{listing([each.what for each in doors], most=3)}."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, (proxy.name,)),
            *listeners((each.listener for each in doors if each.listener), (proxy.name,)),
            *subjects(SubjectKind.WORKLOAD, (workload,) if workload else ()),
        ),
        seen_in=tuple(dict.fromkeys(proof for door in doors for proof in door.proofs)),
        remedies=(
            Remedy(
                summary=_summary(proxy, doors),
                commands=(
                    *(
                        commands.recreate([container])
                        if container is not None and container.compose_service
                        else ()
                    ),
                    commands.see_that_it_worked("MD310"),
                ),
            ),
        ),
    )


def _summary(proxy: EnvoyProxy, doors: Sequence[_Door]) -> str:
    steps = []
    if any(not each.listener for each in doors):
        steps.append(
            f"let the admin interface of {proxy.name} listen on 127.0.0.1:{proxy.admin_port} "
            "(`admin` in its bootstrap; `-admin-bind` of `consul connect envoy`) and publish no "
            "port for it"
        )
    listeners = [each.listener for each in doors if each.listener]
    if listeners:
        steps.append(
            f"take the listener {listing(listeners)} out of the configuration of {proxy.name}, "
            "or let it lead to `/stats/prometheus` alone"
        )
    said = "; ".join((*steps, "then recreate the sidecar"))
    return f"{said[0].upper()}{said[1:]}."
