"""MD306: a sidecar without a connection to its control plane."""

from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
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
from meshdoctor.kinds import Kind
from meshdoctor.topology import Component, Mesh, Role
from meshdoctor_checks import commands
from meshdoctor_checks.wording import count, listing, verb

_CONNECTED: Final = "control_plane.connected_state"


@check(
    code="MD306",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD307", "MD402", "MD407", "MD409"),
    # A name may be served nowhere for other reasons, too.
    explains_by={"MD407": SubjectKind.SIDECAR},
)
def sidecar_not_connected(mesh: Mesh, proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A sidecar has no connection to its control plane.

    ## Why it matters

    It goes on with the configuration it had, which gets older with every change, or has none at
    all since it started: then no call passes it.

    ## How it is found

    The proxy's bootstrap names a control plane over gRPC, and its statistic
    `control_plane.connected_state` is 0; or, where statistics were not read, it holds not one
    listener or cluster that came from a control plane. A proxy that reads its configuration from
    files is not judged.

    ## How to fix it

    See that the control plane runs and answers at the address that the sidecar was given
    (`--discoveryAddress`, Consul's gRPC port). Envoy connects again by itself.
    """
    asking = {name: each for name, each in proxies.proxies.items() if each.control_plane}
    if not asking:
        raise CannotLookError("no proxy that was read asks a control plane over gRPC")
    known = 0
    groups: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for name, proxy in asking.items():
        connected = _is_connected(proxy)
        if connected is None:
            continue
        known += 1
        if not connected:
            groups.setdefault((_addresses(proxy), _has_any(proxy)), []).append(name)
    for (addresses, has_any), names in groups.items():
        yield _finding(mesh, proxies, names, addresses, has_any=has_any)
    if not known:
        raise CannotLookError("no proxy tells whether it is connected")
    if not groups:
        yield Fact(f"{count(known, 'sidecar')} connected to the control plane")


def _is_connected(proxy: EnvoyProxy) -> bool | None:
    """None where nobody can tell."""
    state = proxy.stats.get(_CONNECTED)
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
    addresses: Sequence[str],
    *,
    has_any: bool,
) -> Finding:
    number = len(names)
    server = _control_plane(mesh)
    return Finding(
        message=(
            f"{listing(list(names))} {verb(number, 'is', 'are')} not connected to the control "
            f"plane at {listing(list(addresses))}"
            + (
                f", and {verb(number, 'goes', 'go')} on with what {verb(number, 'it', 'they')} "
                "had."
                if has_any
                else f", and {verb(number, 'has', 'have')} no configuration at all."
            )
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, names),
            *subjects(SubjectKind.COMPONENT, (server.name,) if server is not None else ()),
            # One that goes on with what it had need not be why a call ends elsewhere.
            *(() if has_any else _cut_off(mesh, names)),
        ),
        seen_in=tuple(_proof(proxies.proxies[name]) for name in names),
        remedies=(_remedy(names, addresses, server),),
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
    if _CONNECTED in proxy.stats:
        return Citation(layout.envoy(proxy.name, "stats.json"), "", f"{_CONNECTED} 0")
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
