"""MD308: a proxy refused configuration that it was sent."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, RejectedUpdate
from meshdoctor.evidence.pilot import SYNC, PilotDebug
from meshdoctor.evidence.versions import minor
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
from meshdoctor.topology import Mesh, Role
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listener
from meshdoctor_checks.sync_status import by_proxy, push_under_way
from meshdoctor_checks.wording import count, listing, verb

_KINDS: Final = {
    "listener": SubjectKind.LISTENER,
    "cluster": SubjectKind.CLUSTER,
    "route": SubjectKind.ROUTE,
}
_QUOTED_AT_MOST: Final = 200

_COUNTERS: Final = {
    "listener": "listener_manager.lds.update_rejected",
    "cluster": "cluster_manager.cds.update_rejected",
}
_FIRST_WITH_REASONS: Final = {"listener": (1, 13), "cluster": (1, 19)}
"""The Envoy that keeps what it refused, as `error_state`; those before only count."""

_ROUTES: Final = r"http\..+?\.rds\.(?P<name>.+)\.update_rejected"
"""No Envoy keeps what it refused of routes. In statistics a `:` of a name is a `_`."""

Update = tuple[str, str, str]
"""Kind, name and reason: the same refusal in several proxies is one finding."""


class _Counted(msgspec.Struct, frozen=True):
    """Refusals of which a proxy keeps the number alone."""

    sidecar: str
    kind: str
    number: int


@check(code="MD308", severity=Severity.ERROR, since="0.1", explains=("MD307", "MD507"))
def update_rejected(
    proxies: EnvoyProxies,
    mesh: Mesh | None,
    pilot: PilotDebug | None,
    docker: DockerEngine | None,
) -> Iterator[Finding | Fact]:
    """A proxy refused configuration that its control plane sent.

    ## Why it matters

    Envoy keeps what it had before, or has nothing: what was to change does not. The control plane
    often says nothing of it, and the reason stands only in the proxy.

    ## How it is found

    A listener, cluster or route configuration in the proxy's dump has an `error_state`. Its
    reason is quoted as Envoy gives it. An old Envoy keeps no such state (before 1.13 of
    listeners, before 1.19 of clusters): there the counters `update_rejected` are read, and it is
    a warning, for they do not tell whether a later update was accepted.

    No Envoy keeps such a state of route configurations that it gets on their own (RDS), but it
    counts those that it refused (`http.<...>.rds.<name>.update_rejected`). Where Pilot's page
    syncz says beside it that the proxy has not acknowledged the routes that were sent last, the
    refusal still stands. Where they were acknowledged, or nobody tells, nothing is said: a later
    update may have been accepted; nor until ten seconds after a push. The reason stands in
    Pilot's log.

    ## How to fix it

    Mend what the reason names: where the configuration comes from, not in the proxy.
    """
    if not proxies.proxies:
        raise CannotLookError("no sidecar's configuration could be read")
    groups: dict[Update, dict[str, list[RejectedUpdate]]] = defaultdict(lambda: defaultdict(list))
    counted: list[_Counted] = []
    for sidecar, proxy in proxies.proxies.items():
        for update in proxy.rejected:
            groups[update.kind, update.name, update.details][sidecar].append(update)
        counted.extend(_counted(sidecar, proxy))
    for update_of, by_sidecar in sorted(groups.items()):
        yield _finding(proxies, update_of, by_sidecar)
    for each in counted:
        yield _old_finding(each)
    routes: Mapping[str, Mapping[str, Sequence[Citation]]] = {}
    if mesh is not None and not push_under_way(proxies.proxies, docker):
        routes = _refused_routes(proxies, mesh, pilot)
    for name, by_name in sorted(routes.items()):
        if not any(key[:2] == ("route", name) for key in groups):
            yield _route_finding(mesh, name, by_name)
    if not groups and not counted and not routes:
        yield Fact(f"{count(len(proxies.proxies), 'proxy', 'proxies')} without rejected updates")


def _finding(
    proxies: EnvoyProxies, update: Update, by_sidecar: Mapping[str, Sequence[RejectedUpdate]]
) -> Finding:
    kind, name, details = update
    sidecars = list(by_sidecar)
    about = [Subject(_KINDS[kind], name)] if kind in _KINDS and name else []
    about += [
        listener(each.listener.key, sidecar)
        for sidecar, updates in by_sidecar.items()
        for each in updates
        if each.listener is not None
    ]
    what = f"the {kind} {name}" if name else f"a {kind}"
    return Finding(
        message=(
            f"{listing(sidecars)} {verb(len(sidecars), 'refuses', 'refuse')} {what}: "
            f'"{_quoted(details)}".'
            if details.strip()
            else f"{listing(sidecars)} {verb(len(sidecars), 'refuses', 'refuse')} {what} and "
            f"{verb(len(sidecars), 'gives', 'give')} no reason."
        ),
        subjects=(
            *dict.fromkeys(about),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(
            Citation(
                proxies.proxies[sidecar].document,
                each.pointer,
                proofs.shorten(" ".join(details.split())) or "error_state",
            )
            for sidecar, updates in by_sidecar.items()
            for each in updates
        ),
        remedies=(_remedy() if details.strip() else _look_in_the_log(sidecars),),
    )


def _quoted(details: str) -> str:
    """Envoy's reason on one line; a long one ends where a clause of it ends."""
    text = " ".join(details.replace('"', "'").split()).rstrip(" .")
    if len(text) <= _QUOTED_AT_MOST:
        return text
    begun = text[:_QUOTED_AT_MOST]
    clause = max(begun.rfind(", "), begun.rfind("; "), begun.rfind(". "))
    if clause > _QUOTED_AT_MOST // 3:
        return begun[:clause]
    return f"{begun.rpartition(' ')[0] or begun} ..."


def _remedy() -> Remedy:
    return Remedy(
        summary=(
            "Mend what the reason names where it comes from: Consul's registrations and config "
            "entries, or Istio's rules; the proxy takes the next update by itself."
        ),
        commands=(commands.see_that_it_worked("MD308"),),
    )


def _look_in_the_log(sidecars: Sequence[str]) -> Remedy:
    return Remedy(
        summary=(
            "Look for the reason in the log of the sidecar and of its control plane, and mend "
            "what it names where it comes from."
        ),
        commands=(
            *(commands.quoted("docker", "logs", "--tail", "50", each) for each in sidecars),
            commands.see_that_it_worked("MD308"),
        ),
    )


# ---------------------------------------------------------------- Envoys that only count


def _counted(sidecar: str, proxy: EnvoyProxy) -> Iterator[_Counted]:
    for kind, counter in _COUNTERS.items():
        number = proxy.stats.get(counter, 0)
        if number and not _keeps_reasons(proxy, kind):
            yield _Counted(sidecar, kind, number)


def _keeps_reasons(proxy: EnvoyProxy, kind: str) -> bool:
    """True where a refusal that still stands would be in the dump, with its reason."""
    if any(update.kind == kind for update in proxy.rejected):
        return True
    version = minor(proxy.server.version) if proxy.server is not None else None
    return proxy.api == "v3" if version is None else version >= _FIRST_WITH_REASONS[kind]


def _old_finding(counted: _Counted) -> Finding:
    counter = _COUNTERS[counted.kind]
    said = count(counted.number, "update")
    return Finding(
        message=(
            f"{counted.sidecar} has refused {said} of its {counted.kind}s since it started, and "
            "an Envoy of that age keeps no reason."
        ),
        subjects=(Subject(SubjectKind.SIDECAR, counted.sidecar),),
        seen_in=(
            Citation(
                layout.envoy(counted.sidecar, "stats.json"), "", f"{counter} {counted.number}"
            ),
        ),
        remedies=(_look_in_the_log((counted.sidecar,)),),
        severity=Severity.WARNING,
    )


# ---------------------------------------------------------------- routes, which no Envoy keeps


def _refused_routes(
    proxies: EnvoyProxies, mesh: Mesh, pilot: PilotDebug | None
) -> Mapping[str, Mapping[str, Sequence[Citation]]]:
    """What proves each refusal that stands, by route configuration and sidecar."""
    sync = pilot.sync if pilot is not None and pilot.sync is not None else ()
    found = by_proxy(mesh, sync)
    refused: dict[str, dict[str, Sequence[Citation]]] = defaultdict(dict)
    for index, status in enumerate(sync):
        sidecar = found.get(status.proxy)
        proxy = proxies.proxies.get(sidecar.name) if sidecar is not None else None
        if proxy is None or "routes" not in status.unacknowledged:
            continue
        for counter, number in proxy.stats.items():
            match = re.fullmatch(_ROUTES, counter)
            if match is not None and number:
                refused[match["name"]][proxy.name] = (
                    Citation(layout.envoy(proxy.name, "stats.json"), "", f"{counter} {number}"),
                    Citation(SYNC, f"/{index}", f"{status.proxy}: routes not acknowledged"),
                )
    return refused


def _route_finding(
    mesh: Mesh | None, name: str, proofs_of: Mapping[str, Sequence[Citation]]
) -> Finding:
    sidecars = sorted(proofs_of)
    pilot = mesh.component(Role.PILOT) if mesh is not None else None
    return Finding(
        message=(
            f"{listing(sidecars)} {verb(len(sidecars), 'refuses', 'refuse')} the route "
            f"configuration {name} that Pilot sent last; the reason stands in Pilot's log."
        ),
        subjects=(
            Subject(SubjectKind.ROUTE, name),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(proof for each in sidecars for proof in proofs_of[each]),
        remedies=(
            Remedy(
                summary=(
                    "Look for the reason in Pilot's log (ACK ERROR), and mend what it names in "
                    "Istio's rules; the proxies take the next update by themselves."
                ),
                commands=(
                    *((commands.logs(pilot.container),) if pilot is not None else ()),
                    commands.see_that_it_worked("MD308"),
                ),
            ),
        ),
    )
