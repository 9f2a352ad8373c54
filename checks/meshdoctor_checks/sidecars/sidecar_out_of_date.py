"""MD307: a sidecar whose configuration is older than what was sent last, or than Consul."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.pilot import SYNC, PilotDebug, SyncStatus
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.configuration import configuration
from meshdoctor.topology import Mesh, Role
from meshdoctor_checks import commands
from meshdoctor_checks.settling import patience, settled
from meshdoctor_checks.sync_status import Push, by_proxy, push_of, push_under_way
from meshdoctor_checks.wording import count, listing, verb

_MOST_NAMED: Final = 4


class _Late(msgspec.Struct, frozen=True):
    """What a sidecar has not got, as a sentence goes on."""

    sidecar: str
    what: str
    proof: Citation


@check(
    code="MD307",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD405", "MD409", "MD507"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def sidecar_out_of_date(
    mesh: Mesh, proxies: EnvoyProxies | None, pilot: PilotDebug | None, docker: DockerEngine | None
) -> Iterator[Finding | Fact]:
    """A sidecar's configuration is older than what the control plane sent last.

    ## Why it matters

    It routes calls by services, instances and rules as they were: to addresses that are gone, and
    past rules that everybody else follows.

    ## How it is found

    Pilot's page syncz has for each proxy what it sent and what the proxy acknowledged; they
    differ. Or the push whose listeners or clusters the proxy accepted last
    (`listener_manager.lds.version_text` and its like in its statistics) is earlier than that of
    other sidecars: Pilot sends every push to all of them, and its versions begin with a time. The
    versions in a dump do not tell, for a push that changes nothing leaves them as they were.
    Nothing is judged until ten seconds after a push, nor routes and endpoints of a proxy that
    asks for none any more: Envoy does not acknowledge those. Other control planes' versions
    cannot be compared. Sidecars of which the same is true are one finding.

    Or the endpoints that it holds for a service are not the instances that Consul has, though
    Pilot's endpointz has those. One look cannot tell for how long: it is an error where
    Registrator's log shows that its last change is older than a push takes, nothing where it is
    younger, and a warning where nobody can tell.

    ## How to fix it

    Mend what keeps the sidecar from it: a lost connection (MD306), an update that it refused
    (MD308), a Pilot that hangs. Restarting the sidecar makes it ask for everything again.
    """
    known = proxies.proxies if proxies is not None else {}
    pushes = {
        (name, kind): push
        for name, proxy in known.items()
        for kind, version in proxy.accepted.items()
        if (push := push_of(version)) is not None
    }
    sync = pilot.sync if pilot is not None else None
    registry = _behind_the_registry(mesh, known, pilot)
    if not sync and not registry.judged and len({name for name, _ in pushes}) < 2:  # noqa: PLR2004 # to compare
        raise CannotLookError(
            "neither Pilot's syncz and endpointz nor several sidecars of one Pilot were read"
        )
    if push_under_way(known, docker):
        raise CannotLookError("Pilot was sending an update when the evidence was gathered")
    late = [*_unacknowledged(mesh, sync or (), known), *_behind(known, pushes)]
    component = mesh.component(Role.PILOT)
    command = " ".join(component.container.command) if component is not None else ""
    is_settled = settled(mesh, docker, patience(command))
    of_registry = registry.late if is_settled is not False else []
    by_sidecar: dict[str, list[_Late]] = {}
    for each in (*late, *of_registry):
        by_sidecar.setdefault(each.sidecar, []).append(each)
    alike: dict[tuple[bool, tuple[str, ...]], list[list[_Late]]] = {}
    for them in by_sidecar.values():
        lasting = is_settled is True or any(each in late for each in them)
        alike.setdefault((lasting, tuple(each.what for each in them)), []).append(them)
    for (lasting, _), sidecars in alike.items():
        yield _finding(mesh, sidecars, lasting=lasting)
    if not by_sidecar:
        judged = (
            {name for name, _ in pushes}
            | registry.judged
            | {sidecar.name for sidecar in by_proxy(mesh, sync or ()).values()}
        )
        if not judged:
            raise CannotLookError("Pilot's syncz names none of the sidecars that were found")
        yield Fact(f"{count(len(judged), 'sidecar')} with the configuration sent last")


# ---------------------------------------------------------------- by what Pilot says


def _unacknowledged(
    mesh: Mesh, sync: Sequence[SyncStatus], proxies: Mapping[str, EnvoyProxy]
) -> Iterator[_Late]:
    found = by_proxy(mesh, sync)
    for index, status in enumerate(sync):
        sidecar = found.get(status.proxy)
        proxy = proxies.get(sidecar.name) if sidecar is not None else None
        unwanted = frozenset() if proxy is None else frozenset(_not_asked_for(proxy))
        kinds = [kind for kind in status.unacknowledged if kind not in unwanted]
        if kinds and sidecar is not None:
            said = listing(kinds)
            yield _Late(
                sidecar.name,
                f"has not acknowledged the {said} that Pilot sent it last",
                Citation(SYNC, f"/{index}", f"{status.proxy}: {said} sent, not acknowledged"),
            )


def _not_asked_for(proxy: EnvoyProxy) -> Iterator[str]:
    """What no listener and no cluster of it refers to: it is asked for by those alone."""
    config = configuration(proxy)
    if not any(
        manager.rds is not None
        for entry in proxy.listeners
        for manager in entry.listener.http_managers
    ):
        yield "routes"
    if not any(entry.cluster.type == "EDS" for entry in config.clusters.values()):
        yield "endpoints"


# ---------------------------------------------------------------- by what the others have


def _behind(
    proxies: Mapping[str, EnvoyProxy], pushes: Mapping[tuple[str, str], Push]
) -> Iterator[_Late]:
    behind: dict[tuple[str, str, str], list[str]] = {}
    for kind in ("listeners", "clusters"):
        of_kind = {name: push for (name, each), push in pushes.items() if each == kind}
        newest = max(of_kind.values(), default=None)
        for name, push in of_kind.items():
            if newest is not None and push < newest:
                leader = next(each for each, its in of_kind.items() if its == newest)
                held, newer = (proxies[each].accepted[kind] for each in (name, leader))
                behind.setdefault((name, held, newer), []).append(kind)
    for (name, held, newer), kinds in behind.items():
        said = listing(kinds)
        yield _Late(
            name,
            f"has the {said} of push {held}, though others have those of {newer}",
            Citation(layout.envoy(name, "stats.json"), "", f"version_text of {said}: {held}"),
        )


# ---------------------------------------------------------------- by what Consul has


class _Registry(msgspec.Struct, frozen=True):
    """The sidecars whose endpoints could be compared, and those that hold others than Consul."""

    judged: frozenset[str]
    late: Sequence[_Late]


def _behind_the_registry(
    mesh: Mesh, proxies: Mapping[str, EnvoyProxy], pilot: PilotDebug | None
) -> _Registry:
    """Of the services on which Pilot and Consul agree: else MD103 says who is behind."""
    told = pilot.endpoints if pilot is not None else None
    agreed = {
        service.name: there
        for service in mesh.applications
        if (there := frozenset((each.address, each.port) for each in service.instances))
        and (told or {}).get(f"{service.name}.service.consul") == there
    }
    judged: set[str] = set()
    late: list[_Late] = []
    for name, proxy in proxies.items():
        services: dict[str, str] = {}
        proof: Citation | None = None
        config = configuration(proxy)
        for service, there in agreed.items():
            for port in {each for _, each in there}:
                cluster = f"outbound|{port}||{service}.service.consul"
                entry = config.clusters.get(cluster)
                held = config.endpoints_of(entry) if entry is not None else None
                if held is None:
                    continue
                judged.add(name)
                has = frozenset((each.address, each.port) for each in held.endpoints)
                wanted = frozenset(each for each in there if each[1] == port)
                if has != wanted:
                    services[service] = _difference(has, wanted)
                    proof = proof or Citation(held.document, held.pointer, cluster)
        if proof is not None:
            said = listing([f"{each} of {service}" for service, each in services.items()], most=3)
            what = f"{said}, unlike Consul and Pilot"
            late.append(_Late(name, what, proof))
    return _Registry(frozenset(judged), late)


def _difference(has: frozenset[tuple[str, int]], wanted: frozenset[tuple[str, int]]) -> str:
    pieces = (("lacks", wanted - has), ("still has", has - wanted))
    return " and ".join(
        f"{verb} {listing([f'{address}:{port}' for address, port in sorted(places)], most=3)}"
        for verb, places in pieces
        if places
    )


# ---------------------------------------------------------------- the finding


def _finding(mesh: Mesh, late: Sequence[Sequence[_Late]], *, lasting: bool) -> Finding:
    """Of sidecars that lack the same: what each lacks, beside each other."""
    names = [them[0].sidecar for them in late]
    by_name = {each.name: each for each in mesh.sidecars}
    sidecars = [by_name[name] for name in names if name in by_name]
    containers = [each.container for each in sidecars if each.container is not None]
    workloads = [each.workload for each in sidecars if each.workload]
    number = len(names)
    young = "" if lasting else "; look again in a moment, for right after a change that is normal"
    what = listing([each.what for each in late[0]])
    who = listing(names, most=_MOST_NAMED)
    them = f"{number} sidecars" if number > _MOST_NAMED else who
    return Finding(
        message=(
            f"{who} {verb(number, 'is out of date: it', 'are out of date: each')} {what}{young}."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, names),
            *subjects(SubjectKind.WORKLOAD, workloads),
        ),
        seen_in=tuple(each.proof for them in late for each in them),
        remedies=(
            Remedy(
                summary=verb(
                    number,
                    f"Restart {them}, so that it asks for everything again; if it stays out of "
                    "date, see whether it refuses an update (MD308) or has lost its connection "
                    "(MD306).",
                    f"Restart {them}, so that they ask for everything again; if they stay out of "
                    "date, see whether they refuse an update (MD308) or have lost their "
                    "connection (MD306).",
                ),
                commands=(
                    *map(commands.restart, containers),
                    commands.see_that_it_worked("MD307", "MD306", "MD308"),
                ),
                effect=(
                    f"Calls of {listing(workloads, most=_MOST_NAMED)} fail until "
                    f"{verb(number, 'its sidecar is', 'their sidecars are')} up again."
                    if workloads
                    else None
                ),
            ),
        ),
        severity=None if lasting else Severity.WARNING,
    )
