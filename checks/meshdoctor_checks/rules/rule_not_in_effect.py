"""MD507: a rule that the sidecars' routes do not show."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import (
    ClusterRoute,
    EnvoyProxies,
    EnvoyProxy,
    RouteConfiguration,
    RouteEntry,
    VirtualHost,
)
from meshdoctor.evidence.istio import Destination, HttpRoute, IstioRules, VirtualService
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import WILDCARDS
from meshdoctor.routing.configuration import configuration
from meshdoctor.topology import Mesh, Role, Service
from meshdoctor_checks import commands, routing_rules
from meshdoctor_checks.clusters import described
from meshdoctor_checks.wording import count, listing


class _Judged(msgspec.Struct, frozen=True):
    """A rule for one host on one port, and the clusters that its first routes lead to."""

    rule: VirtualService
    host: str
    service: Service
    port: int
    wanted: frozenset[str]


class _Shown(msgspec.Struct, frozen=True):
    """What a sidecar's virtual host of that host leads to instead."""

    entry: RouteEntry
    clusters: frozenset[str]


class _Compared(msgspec.Struct, frozen=True):
    """How many rules a route configuration could be compared with, and those that it lacks.

    Each with its place among all, and with the clusters that there are instead.
    """

    number: int
    lack: tuple[tuple[int, _Judged, frozenset[str]], ...]


@check(code="MD507", severity=Severity.ERROR, since="0.1", kinds=(Kind.ISTIO_CONSUL,))
def rule_not_in_effect(
    mesh: Mesh, rules: IstioRules, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """The sidecars' routes do not show what a VirtualService says.

    ## Why it matters

    The rule is in the API server and `kubectl get` shows it, but calls go where they went before.

    ## How it is found

    For every HTTP listener of a service's port, the clusters that the VirtualService routes to
    are looked for among the routes of the service's virtual host. Only what can be compared
    surely is: routes for all sidecars and that port, as far as the first one that takes every
    path, with destinations in the registry; of several VirtualServices for one host (MD506) the
    one that counts. An HTTP rule on a TCP port is MD508. Rules that are only tried out with
    `--rules` are left out.

    ## How to fix it

    See whether the sidecars get what Pilot sends (MD306, MD307) and take it (MD308), and whether
    Pilot reads the API server that the rule was applied to (MD106). A rule applied a moment ago
    may take some seconds.
    """
    judged = list(_judged(mesh, rules))
    if judged and not any(
        {"listeners", "routes"} <= each.held for each in proxies.proxies.values()
    ):
        raise CannotLookError("no sidecar's listeners and routes could be read")
    absent: dict[tuple[int, str], list[tuple[_Judged, str, _Shown]]] = defaultdict(list)
    compared = 0
    by_port: dict[int, list[tuple[int, _Judged]]] = defaultdict(list)
    for index, each in enumerate(judged):
        by_port[each.port].append((index, each))
    # Sidecars share their route configurations: each is compared once.
    known: dict[tuple[int, int], _Compared] = {}
    for sidecar, proxy in proxies.proxies.items():
        lacking: list[tuple[int, _Judged, _Shown]] = []
        for port, entry in (_routes_by_port(proxy) if judged else {}).items():
            key = (id(entry.route_config), port)
            if key not in known:
                known[key] = _compare(entry, by_port.get(port, ()))
            compared += known[key].number
            lacking += (
                (index, each, _Shown(entry, clusters)) for index, each, clusters in known[key].lack
            )
        for _, each, found in sorted(lacking, key=lambda one: one[0]):
            absent[id(each.rule), each.host].append((each, sidecar, found))
    for them in absent.values():
        yield _finding(mesh, proxies, them)
    if compared and not absent:
        number = len({id(each.rule) for each in judged})
        yield Fact(f"the sidecars' routes show {count(number, 'VirtualService')}")


# ---------------------------------------------------------------- what should be there


def _judged(mesh: Mesh, rules: IstioRules) -> Iterator[_Judged]:
    in_force = [
        each
        for each in rules.virtual_services
        if each.http and each.for_sidecars and not each.file
    ]
    by_host: dict[str, list[VirtualService]] = defaultdict(list)
    for rule in in_force:
        for host in dict.fromkeys(rule.hosts):
            by_host[routing_rules.full_host(host, rule.namespace)].append(rule)
    for host, them in by_host.items():
        service = routing_rules.service_at(mesh, host)
        counts = routing_rules.oldest(them)
        if service is None or counts is None or not all(map(routing_rules.seen_by_all, them)):
            continue
        for port in service.ports:
            wanted = frozenset(_wanted(mesh, counts, port))
            if wanted:
                yield _Judged(counts, host, service, port, wanted)


def _wanted(mesh: Mesh, rule: VirtualService, port: int) -> Iterator[str]:
    """The clusters of the routes that every sidecar surely gets for a port."""
    for route in rule.http:
        fitting = [
            each
            for each in route.matches
            if not each.source_labels and not each.gateways and each.port in (None, port)
        ]
        if fitting or not route.matches:
            for each in _called(route):
                cluster = _cluster(mesh, rule, each, port)
                if cluster is not None:
                    yield cluster
        # Behind one that takes every path, Pilot's versions differ in what they leave out.
        if not route.matches or any(_takes_every_path(each.conditions) for each in route.matches):
            return


def _takes_every_path(conditions: Mapping[str, object]) -> bool:
    uri = conditions.get("uri")
    return uri is None or getattr(uri, "value", "") in ("", "/", "*", ".*")


def _called(route: HttpRoute) -> Iterator[Destination]:
    for each in route.destinations:
        if each.weight > 0 or len(route.destinations) == 1:
            yield each


def _cluster(mesh: Mesh, rule: VirtualService, destination: Destination, port: int) -> str | None:
    host = routing_rules.full_host(destination.host, rule.namespace)
    service = routing_rules.service_at(mesh, host)
    if service is None:
        return None
    if destination.port is not None:
        port = destination.port
    elif len(service.ports) == 1:
        port = service.ports[0]
    return f"outbound|{port}|{destination.subset}|{host}"


# ---------------------------------------------------------------- what is there


def _routes_by_port(proxy: EnvoyProxy) -> Mapping[int, RouteEntry]:
    """The route configurations of the HTTP listeners that services of a port share."""
    if not {"listeners", "routes"} <= proxy.held:
        return {}
    routes = configuration(proxy).routes
    found: dict[int, RouteEntry] = {}
    for entry in proxy.deciding_listeners():
        if entry.listener.address in WILDCARDS:
            for manager in entry.listener.http_managers:
                if manager.rds is not None and manager.rds in routes:
                    found.setdefault(entry.listener.port, routes[manager.rds])
    return found


def _compare(entry: RouteEntry, judged: Sequence[tuple[int, _Judged]]) -> _Compared:
    hosts = _by_domain(entry.route_config) if judged else {}
    shown = [(index, each, _clusters(hosts, each)) for index, each in judged]
    return _Compared(
        sum(clusters is not None for _, _, clusters in shown),
        tuple(
            (index, each, clusters)
            for index, each, clusters in shown
            if clusters is not None and not each.wanted <= clusters
        ),
    )


def _clusters(
    hosts: Mapping[str, tuple[int, VirtualHost]], judged: _Judged
) -> frozenset[str] | None:
    """What the virtual host of a host leads to, None where there is none or it is not clear."""
    names = (judged.host, f"{judged.host}:{judged.port}")
    there = [hosts[name] for name in names if name in hosts]
    host = min(there, key=lambda each: each[0])[1] if there else None
    if host is None or host.has_matcher:
        return None
    found: set[str] = set()
    for route in host.routes:
        if isinstance(route.action, ClusterRoute):
            if route.action.cluster_header or route.action.unmodelled:
                return None
            found.add(route.action.cluster)
            found.update(each.name for each in route.action.weighted_clusters)
    return frozenset(found - {""})


def _by_domain(config: RouteConfiguration) -> Mapping[str, tuple[int, VirtualHost]]:
    """The first virtual host of each domain, and its place."""
    found: dict[str, tuple[int, VirtualHost]] = {}
    for place, host in enumerate(config.virtual_hosts):
        for domain in host.domains:
            found.setdefault(domain.lower(), (place, host))
    return found


# ---------------------------------------------------------------- the finding


def _finding(
    mesh: Mesh, proxies: EnvoyProxies, absent: Sequence[tuple[_Judged, str, _Shown]]
) -> Finding:
    judged = absent[0][0]
    rule = judged.rule
    sidecars = list(dict.fromkeys(sidecar for _, sidecar, _ in absent))
    missing = sorted({name for each, _, shown in absent for name in each.wanted - shown.clusters})
    instead = sorted({name for _, _, shown in absent for name in shown.clusters})
    examined = len(proxies.proxies)
    number = len(sidecars)
    where = (
        f"all {examined} examined sidecars"
        if number == examined > 1
        else f"{listing(sidecars, most=3)}"
    )
    return Finding(
        message=(
            f"VirtualService {rule.name} for {judged.host} is not in effect in {where}: no route "
            f"leads to {listing([described(each) for each in missing], most=2)}, "
            + (
                f"only to {listing([described(each) for each in instead], most=2)}."
                if instead
                else "nor to any other cluster."
            )
        ),
        subjects=(
            *subjects(SubjectKind.RULE, (routing_rules.subject(rule),)),
            *subjects(SubjectKind.SERVICE, (judged.service.name,)),
            *subjects(SubjectKind.CLUSTER, missing),
            *subjects(
                SubjectKind.ROUTE,
                dict.fromkeys(shown.entry.route_config.name for _, _, shown in absent),
            ),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=(
            routing_rules.proof(
                rule, f"{rule.spec}/http", f"routes to {listing(missing, most=3)}"
            ),
            *(
                Citation(
                    proxies.proxies[sidecar].document,
                    shown.entry.pointer,
                    f"{judged.host}: {listing(sorted(shown.clusters), most=3) or 'no cluster'}",
                )
                for _, sidecar, shown in absent
            ),
        ),
        remedies=(_remedy(mesh),),
    )


def _remedy(mesh: Mesh) -> Remedy:
    pilot = mesh.component(Role.PILOT)
    return Remedy(
        summary=(
            "Check again after some seconds; if the routes are still the same, look in Pilot's "
            "log for why it does not take the rule, and see that the rule is in the API server "
            "that Pilot reads."
        ),
        commands=(
            *((commands.logs(pilot.container),) if pilot is not None else ()),
            commands.see_that_it_worked("MD507", "MD306", "MD307", "MD308"),
        ),
    )
