"""MD306: a sidecar without a connection to its control plane."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.envoy import CONNECTED_STATE, ConfigState, EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.pilot import SYNC, PilotDebug
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
from meshdoctor.topology import Component, Mesh, Role
from meshdoctor_checks import commands
from meshdoctor_checks.sync_status import by_proxy
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD306",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD307", "MD402", "MD407", "MD409"),
    # A name may be served nowhere for other reasons, too.
    explains_by={"MD407": SubjectKind.SIDECAR},
)
def sidecar_not_connected(
    mesh: Mesh, proxies: EnvoyProxies, pilot: PilotDebug | None
) -> Iterator[Finding | Fact]:
    """A sidecar has no connection to its control plane.

    ## Why it matters

    It goes on with the configuration it had, which gets older with every change, or has none at
    all since it started: then no call passes it.

    ## How it is found

    The proxy's bootstrap names a control plane over gRPC, and its statistic
    `control_plane.connected_state` is 0; or, where statistics were not read, it holds not one
    listener or cluster that came from a control plane. A proxy that reads its configuration from
    files is not judged. Where Pilot lists the proxy among those connected to it, and has had an
    acknowledgement for all it sent, the connection was being made anew: a note.

    ## How to fix it

    See that the control plane runs and answers at the address that the sidecar was given
    (`--discoveryAddress`, Consul's gRPC port). Envoy connects again by itself.
    """
    asking = {name: each for name, each in proxies.proxies.items() if each.control_plane}
    if not asking:
        raise CannotLookError("no proxy that was read asks a control plane over gRPC")
    known = 0
    groups: dict[_Group, list[str]] = {}
    left, served = _left_alone(mesh), _served(mesh, pilot)
    for name, proxy in asking.items():
        connected = _is_connected(proxy)
        if connected is None:
            continue
        known += 1
        if not connected:
            has_any = _has_any(proxy)
            group = _Group(
                _addresses(proxy), has_any, name in left, has_any and name in served - left
            )
            groups.setdefault(group, []).append(name)
    for group, names in groups.items():
        yield _finding(mesh, proxies, names, group)
    if not known:
        raise CannotLookError("no proxy tells whether it is connected")
    if not groups:
        yield Fact(f"{count(known, 'sidecar')} connected to the control plane")


class _Group(msgspec.Struct, frozen=True):
    """What proxies that are not connected have in common: one finding for each."""

    addresses: tuple[str, ...]
    has_any: bool
    left_alone: bool
    for_a_moment: bool


def _served(mesh: Mesh, pilot: PilotDebug | None) -> frozenset[str]:
    """The sidecars that Pilot has a connection to, and that lack nothing it sent."""
    sync = (pilot.sync if pilot is not None else None) or ()
    whole = [each for each in sync if each.listener_sent and not each.unacknowledged]
    return frozenset(sidecar.name for sidecar in by_proxy(mesh, whole).values())


def _left_alone(mesh: Mesh) -> frozenset[str]:
    """The sidecars whose application stopped, or left their namespace: that cuts no others off."""
    stopped = {
        each.name
        for each in mesh.workloads
        if each.container is not None and not each.container.running
    }
    return frozenset(
        each.name for each in mesh.sidecars if each.namespace_is_dead or each.workload in stopped
    )


def _is_connected(proxy: EnvoyProxy) -> bool | None:
    """None where nobody can tell."""
    state = proxy.stats.get(CONNECTED_STATE)
    if state is not None:
        return state > 0
    if _has_any(proxy) or not {"listeners", "clusters"} <= proxy.held:
        return None
    return False


def _has_any(proxy: EnvoyProxy) -> bool:
    """Whether it holds anything that came from a control plane."""
    states = [each.state for each in proxy.listeners] + [each.state for each in proxy.clusters]
    return any(state is not ConfigState.STATIC for state in states)


def _addresses(proxy: EnvoyProxy) -> tuple[str, ...]:
    """Where it asks: the endpoints of those clusters, else their names."""
    found: dict[str, None] = {}
    for name in proxy.control_plane:
        endpoints = [
            f"{each.address}:{each.port}" if each.port else each.address
            for entry in proxy.clusters
            if entry.cluster.name == name
            for each in entry.cluster.endpoints
        ]
        found.update(dict.fromkeys(endpoints or (name,)))
    return tuple(found)


def _finding(
    mesh: Mesh,
    proxies: EnvoyProxies,
    names: Sequence[str],
    group: _Group,
) -> Finding:
    server = _control_plane(mesh)
    return Finding(
        message=_sentence(names, group),
        subjects=(
            *subjects(SubjectKind.SIDECAR, names),
            *subjects(SubjectKind.COMPONENT, (server.name,) if server is not None else ()),
            # One that goes on with what it had need not be why a call ends elsewhere.
            *(() if group.has_any else _cut_off(mesh, names)),
        ),
        seen_in=(
            *(_proof(proxies.proxies[name]) for name in names),
            *((Citation(SYNC, "", "all acknowledged"),) if group.for_a_moment else ()),
        ),
        remedies=(_LOOK_AGAIN if group.for_a_moment else _remedy(names, group.addresses, server),),
        severity=Severity.INFO if group.for_a_moment else None,
    )


_LOOK_AGAIN: Final = Remedy(
    summary="Look again: proxies connect again by themselves.",
    commands=(commands.see_that_it_worked("MD306"),),
)


def _sentence(names: Sequence[str], group: _Group) -> str:
    number = len(names)
    who, where = listing(list(names)), listing(list(group.addresses))
    if group.for_a_moment:
        return (
            f"{who} {verb(number, 'was', 'were')} not connected to the control plane at {where} "
            "when asked, though Pilot has the connection and an acknowledgement for all it sent: "
            "for a moment, as it seems."
        )
    rest = (
        f"{verb(number, 'goes', 'go')} on with what {verb(number, 'it', 'they')} had"
        if group.has_any
        else f"{verb(number, 'has', 'have')} no configuration at all"
    )
    return (
        f"{who} {verb(number, 'is', 'are')} not connected to the control plane at {where}, and "
        f"{rest}."
    )


def _cut_off(mesh: Mesh, names: Sequence[str]) -> Iterator[Subject]:
    """Whose calls, and calls to whom, pass none of these sidecars."""
    behind = {each.workload for each in mesh.sidecars if each.name in names}
    workloads = [each for each in mesh.workloads if each.name in behind]
    yield from subjects(SubjectKind.WORKLOAD, (each.name for each in workloads))
    yield from subjects(
        SubjectKind.SERVICE, (name for each in workloads for name in each.services)
    )


def _proof(proxy: EnvoyProxy) -> Citation:
    if CONNECTED_STATE in proxy.stats:
        return Citation(layout.envoy(proxy.name, "stats.json"), "", f"{CONNECTED_STATE} 0")
    return Citation(proxy.document, "", "no listener and no cluster from a control plane")


def _control_plane(mesh: Mesh) -> Component | None:
    role = Role.PILOT if Kind.ISTIO_CONSUL in mesh.kinds else Role.CONSUL
    return mesh.component(role)


def _remedy(names: Sequence[str], addresses: Sequence[str], server: Component | None) -> Remedy:
    start: tuple[str, ...] = ()
    if server is not None and not server.container.running:
        start = commands.resume(server.container)
    elif server is not None:
        start = (commands.logs(server.container),)
    who = server.name if server is not None else "the control plane"
    return Remedy(
        summary=(
            f"See that {who} runs and that {listing(list(names), most=4)} can reach "
            f"{listing(list(addresses))}; the proxies connect again by themselves."
        ),
        commands=(*start, commands.see_that_it_worked("MD306", "MD101", "MD102")),
    )
