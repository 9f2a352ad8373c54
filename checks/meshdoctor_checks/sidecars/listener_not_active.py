"""MD309: a listener that stays warming or draining."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.envoy import (
    ConfigState,
    EnvoyProxies,
    EnvoyProxy,
    Listener,
    ListenerEntry,
)
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds.istio_consul import WILDCARDS
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listeners
from meshdoctor_checks.wording import count, listing, verb


class _Group(msgspec.Struct, frozen=True):
    """The same state of the same listener, in one or several sidecars."""

    key: str
    state: ConfigState
    beside_active: bool
    waits_for: tuple[str, ...]


@check(code="MD309", severity=Severity.WARNING, since="0.1", explains=("MD402",))
def listener_not_active(mesh: Mesh, proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A listener is warming or draining, and takes no connections.

    ## Why it matters

    Envoy takes a new listener into use only when all that it needs has come: routes, certificates.
    Until then the old one goes on, or nothing does. A listener that drains takes no new
    connections.

    ## How it is found

    The proxy's dump has a listener in `warming_state`, or one in `draining_state` with no active
    listener on its address. One that drains beside its active successor is what every change
    leaves behind for minutes, and is left out. One that drains alone is a note only where no
    registered service has its port, or no registered instance its address and port: it goes with
    what it was for.

    ## How to fix it

    See which routes or certificates the listener waits for, and why the control plane does not
    send them.
    """
    read = [each for each in proxies.proxies.values() if "listeners" in each.held]
    groups: dict[_Group, list[tuple[EnvoyProxy, ListenerEntry]]] = defaultdict(list)
    for proxy in proxies.proxies.values():
        active = {entry.listener.key for entry in proxy.deciding_listeners()}
        for entry in proxy.listeners:
            beside = entry.listener.key in active
            if entry.state is ConfigState.WARMING or (
                entry.state is ConfigState.DRAINING and not beside and "listeners" in proxy.held
            ):
                waits = _waits_for(proxy, entry) if entry.state is ConfigState.WARMING else ()
                group = _Group(entry.listener.key, entry.state, beside, waits)
                groups[group].append((proxy, entry))
    for group, them in groups.items():
        yield _finding(mesh, group, them)
    if not read and not groups:
        raise CannotLookError("no sidecar's listeners could be read")
    if not groups:
        number = sum(len(each.listeners) for each in read)
        yield Fact(f"{count(number, 'listener')} of {count(len(read), 'sidecar')}, all in use")


def _waits_for(proxy: EnvoyProxy, entry: ListenerEntry) -> tuple[str, ...]:
    """The route configurations that it names and the proxy does not have."""
    if "routes" not in proxy.held:
        return ()
    there = {each.route_config.name for each in proxy.routes}
    names = (manager.rds for manager in entry.listener.http_managers)
    return tuple(dict.fromkeys(each for each in names if each is not None and each not in there))


def _finding(
    mesh: Mesh, group: _Group, them: Sequence[tuple[EnvoyProxy, ListenerEntry]]
) -> Finding:
    sidecars = [proxy.name for proxy, _ in them]
    number = len(sidecars)
    wanted = _is_wanted(mesh, them[0][1].listener)
    draining = group.state is ConfigState.DRAINING
    if draining:
        rest = "has no successor, so it takes no new connections"
    elif group.beside_active:
        rest = "is not in use yet, and the one before it goes on"
    else:
        rest = "is not in use yet, and nothing takes connections in its place"
    waits = (
        f": it waits for the {verb(len(group.waits_for), 'route', 'routes')} "
        f"{listing(list(group.waits_for), most=4)}"
        if group.waits_for
        else ""
    )
    return Finding(
        message=(
            f"The listener {group.key} is {group.state.value} in "
            f"{listing(sidecars) if number <= 3 else count(number, 'sidecar')} and {rest}{waits}."  # noqa: PLR2004 # as many as one reads
        ),
        subjects=(
            *listeners((group.key,), sidecars),
            *subjects(SubjectKind.SIDECAR, sidecars),
            *subjects(SubjectKind.ROUTE, group.waits_for),
        ),
        seen_in=tuple(
            proofs.listener(proxy.document, entry, f"{entry.listener.name}, {entry.state.value}")
            for proxy, entry in them
        ),
        remedies=(_remedy(mesh, sidecars, draining=draining),),
        severity=Severity.INFO if draining and not wanted else None,
    )


def _is_wanted(mesh: Mesh, listener: Listener) -> bool:
    """True where something that is registered needs it."""
    if listener.address in WILDCARDS:
        return any(listener.port in service.ports for service in mesh.applications)
    return any(
        (instance.address, instance.port) == (listener.address, listener.port)
        for service in mesh.applications
        for instance in service.instances
    )


def _remedy(mesh: Mesh, sidecars: Sequence[str], *, draining: bool) -> Remedy:
    containers = {each.name: each.container for each in mesh.sidecars}
    logs = [
        commands.logs(container)
        for each in sidecars[:3]
        if (container := containers.get(each)) is not None
    ]
    return Remedy(
        summary=(
            "See why the control plane took the listener away: whether its service is still "
            "registered, and with the protocol it had."
            if draining
            else "Check again after some seconds; if it still waits, the log of the sidecar and "
            "of its control plane say what does not come."
        ),
        commands=(*logs, commands.see_that_it_worked("MD309", "MD306", "MD406")),
    )
