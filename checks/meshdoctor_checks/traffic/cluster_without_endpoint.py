"""MD405: a cluster that calls are sent to has no endpoint to send them to."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import Cluster, Endpoint, EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.istio import IstioRules
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
from meshdoctor.kinds.istio_consul import service_of_cluster, service_of_host
from meshdoctor.routing.clusters import balance
from meshdoctor.routing.configuration import by_its_names, configuration
from meshdoctor.routing.references import ClusterReferences
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.clusters import described, stands_for
from meshdoctor_checks.wording import count, listing, verb

_WITH_ENDPOINTS = frozenset({"EDS", "STATIC", "STRICT_DNS"})


class _Fault(Enum):
    """What is wrong with the endpoints of a cluster."""

    EMPTY = auto()
    UNHEALTHY = auto()
    UNREGISTERED = auto()


_Told = tuple[_Fault, str]
"""A fault, and how a sentence goes on with it."""


@check(code="MD405", severity=Severity.ERROR, since="0.1", explains=("MD402", "MD409", "MD603"))
def cluster_without_endpoint(
    mesh: Mesh, proxies: EnvoyProxies, catalog: ConsulCatalog | None, rules: IstioRules | None
) -> Iterator[Finding | Fact]:
    """A cluster that calls are sent to has no endpoint that could take them.

    ## Why it matters

    With no endpoint Envoy answers 503 itself, with the response flag UH. With endpoints that
    are unhealthy, or that nobody stands behind, calls fail or time out.

    ## How it is found

    A cluster that an active listener or its routes lead to holds no endpoint, or none that is
    healthy; or, for a cluster that stands for a service of Consul's catalogue, endpoints that no
    instance in the catalogue has. Clusters that no route uses, and those that are empty on
    purpose (Istio's BlackHoleCluster), are left out.

    ## How to fix it

    Start or register an instance; for a subset, give instances the labels that it asks for.
    """
    faulty: dict[tuple[str, _Told], list[str]] = defaultdict(list)
    checked = 0
    registered = _registered(mesh)
    # Sidecars share what they got: the same cluster and endpoints are judged once, by identity.
    judged: dict[tuple[int, int], _Told | None] = {}
    for sidecar, proxy in proxies.proxies.items():
        if "clusters" not in proxy.held:
            continue
        checked += "endpoints" in proxy.held
        for cluster, endpoints in _used(proxy):
            key = (id(cluster), id(endpoints))
            if key not in judged:
                judged[key] = _fault(cluster, endpoints or (), registered)
            fault = judged[key]
            if fault is not None:
                faulty[cluster.name, fault].append(sidecar)
    for (name, fault), sidecars in sorted(faulty.items(), key=_by_words):
        yield _finding(proxies, name, fault, sidecars, rules)
    if not checked and not faulty:
        raise CannotLookError("no sidecar told of its clusters and their endpoints")
    if not faulty:
        yield Fact(
            f"every cluster that {count(checked, 'sidecar')} {verb(checked, 'sends', 'send')} "
            "calls to has a healthy endpoint"
        )


def _used(proxy: EnvoyProxy) -> Iterator[tuple[Cluster, Sequence[Endpoint] | None]]:
    """The clusters that calls are sent to, and what they hold, None where there is nothing.

    Those are left out of which it is not known what they hold.
    """
    clusters = configuration(proxy).clusters
    held = configuration(proxy).endpoints_by_name()
    is_known = "endpoints" in proxy.held
    for name in ClusterReferences(proxy):
        entry = clusters.get(name)
        if entry is not None:
            endpoints = by_its_names(entry.cluster, held.get)
            if is_known or endpoints is not None:
                yield entry.cluster, endpoints


def _registered(mesh: Mesh) -> Mapping[str, set[tuple[str, int]]]:
    """For each service whose instances are known the addresses of all, whosever they are.

    An endpoint that another service has by now is a call that goes wrong: MD402 says so.
    """
    everywhere = {
        (each.address, each.port)
        for service in mesh.services.values()
        for each in service.instances
    }
    known = (name for name, service in mesh.services.items() if service.instances)
    return dict.fromkeys(known, everywhere)


def _has_endpoints(cluster: Cluster) -> bool:
    """True of a cluster that should have some; a static one may be empty on purpose."""
    if cluster.type not in _WITH_ENDPOINTS or cluster.aggregate:
        return False
    return cluster.type != "STATIC" or bool(cluster.endpoints or stands_for(cluster.name)[0])


def _fault(
    cluster: Cluster,
    endpoints: Sequence[Endpoint],
    registered: Mapping[str, set[tuple[str, int]]],
) -> _Told | None:
    """What is wrong with the endpoints, None where nothing is."""
    if not _has_endpoints(cluster):
        return None
    if not endpoints:
        return _Fault.EMPTY, "has no endpoint"
    if not any(each.is_available for each in endpoints):
        number = len(endpoints)
        used = (
            f"tries {verb(number, 'it', 'them')} all the same"
            if balance(cluster, endpoints).endpoints
            else f"sends no call to {verb(number, 'it', 'them')}"
        )
        sick = (
            "one endpoint, which is unhealthy,"
            if number == 1
            else f"{number} unhealthy endpoints,"
        )
        return _Fault.UNHEALTHY, f"has {sick} and Envoy {used}"
    if cluster.type != "EDS":
        return None
    known = registered.get(service_of_cluster(cluster.name) or "")
    strange = sorted(
        f"{each.address}:{each.port}"
        for each in endpoints
        if known is not None and (each.address, each.port) not in known
    )
    if strange:
        said = f"sends calls to {listing(strange)}, which no instance in Consul has"
        return _Fault.UNREGISTERED, said
    return None


def _by_words(one: tuple[tuple[str, _Told], Sequence[str]]) -> tuple[str, str]:
    (name, (_, said)), _ = one
    return name, said


def _finding(
    proxies: EnvoyProxies,
    name: str,
    told: _Told,
    sidecars: Sequence[str],
    rules: IstioRules | None,
) -> Finding:
    service, _ = stands_for(name)
    fault, said = told
    return Finding(
        message=f"The cluster {described(name)} {said}, in {count(len(sidecars), 'sidecar')}.",
        subjects=(
            Subject(SubjectKind.CLUSTER, name),
            *subjects(SubjectKind.SERVICE, (service,) if service else ()),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(
            proof for sidecar in sidecars for proof in _proofs(proxies.proxies[sidecar], name)
        ),
        remedies=(_remedy(name, fault, rules),),
    )


def _proofs(proxy: EnvoyProxy, name: str) -> Iterator[Citation]:
    """The route that leads to the cluster, and the endpoints that it holds."""
    reference = ClusterReferences(proxy)[name]
    yield Citation(proxy.document, reference.pointer, f"sends calls to {name}")
    entry = configuration(proxy).clusters[name]
    held = configuration(proxy).endpoints_of(entry)
    if held is None:
        yield Citation(proxy.document, entry.pointer, "no endpoint")
        return
    said = listing([f"{e.address}:{e.port} {e.health}" for e in held.endpoints], most=4)
    yield Citation(held.document, held.pointer, proofs.shorten(said) or "no endpoint")


def _remedy(name: str, fault: _Fault, rules: IstioRules | None) -> Remedy:
    service, subset = stands_for(name)
    if fault is _Fault.UNREGISTERED:
        summary = (
            "See whether the control plane still follows Consul, and restart it if its log says "
            "that it does not; the sidecars then get the endpoints that are registered."
        )
    elif fault is _Fault.UNHEALTHY:
        summary = (
            f"See why the instances of {service or name} are unhealthy: their logs, and their "
            "health checks in Consul."
        )
    elif not subset:
        summary = (
            f"Start an instance of {service or name}, and see that it is registered and healthy "
            "in Consul."
        )
    elif service_of_cluster(name) is None:
        summary = (
            f"Start or register an instance of {service} that the filter of the subset {subset} "
            f"takes, or correct the filter in service-resolver/{service} (`consul config write`)."
        )
    else:
        labels = _labels(service, subset, rules)
        tags = listing([f"`{key}|{value}`" for key, value in sorted(labels.items())])
        asked = f"the {verb(len(labels), 'tag', 'tags')} {tags}" if labels else "the tags"
        summary = (
            f"Start or register an instance of {service} that has {asked} which the subset "
            f"{subset} asks for, or correct the subset's labels in its DestinationRule."
        )
    return Remedy(summary=summary, commands=(commands.see_that_it_worked("MD405", "MD402"),))


def _labels(service: str, subset: str, rules: IstioRules | None) -> Mapping[str, str]:
    """The labels that a DestinationRule wants of a subset, as far as one tells."""
    for rule in rules.destination_rules if rules is not None else ():
        if service_of_host(rule.host) == service:
            for each in rule.subsets:
                if each.name == subset:
                    return each.labels
    return {}
