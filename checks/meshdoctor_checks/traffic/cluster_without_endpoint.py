"""MD405: a cluster that calls are sent to has no endpoint to send them to."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
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
from meshdoctor.kinds.istio_consul import service_of_cluster
from meshdoctor.routing.calls import Registry
from meshdoctor.routing.references import cluster_references
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands
from meshdoctor_checks.wording import count, listing

_WITH_ENDPOINTS = frozenset({"EDS", "STATIC", "STRICT_DNS"})
# Envoy's words for a host that it would not choose outside of a panic.
_SICK = frozenset({"UNHEALTHY", "DRAINING", "TIMEOUT"})


@check(code="MD405", severity=Severity.ERROR, since="0.1", explains=("MD402",))
def cluster_without_endpoint(
    mesh: Mesh, proxies: EnvoyProxies, catalog: ConsulCatalog | None
) -> Iterator[Finding | Fact]:
    """A cluster that calls are sent to has no endpoint that could take them.

    ## Why it matters

    With no endpoint Envoy answers 503 itself, with the response flag UH. With endpoints that
    nobody stands behind, a share of the calls fails or times out.

    ## How it is found

    A cluster that an active listener or its routes name holds no endpoint, or none that is
    healthy; or, for a cluster that stands for a service, endpoints that no instance in Consul
    has.

    ## How to fix it

    Start or register an instance; for a subset, give instances the labels that it asks for.
    """
    empty: dict[tuple[str, str], list[str]] = defaultdict(list)
    checked = 0
    registry = Registry(mesh) if catalog is not None else None
    for sidecar, proxy in proxies.proxies.items():
        if "clusters" not in proxy.held:
            continue
        checked += 1
        types = {entry.cluster.name: entry.cluster for entry in proxy.clusters}
        for name in dict.fromkeys(each.cluster for each in cluster_references(proxy)):
            cluster = types.get(name)
            if cluster is None or cluster.type not in _WITH_ENDPOINTS or cluster.aggregate:
                continue
            # A static cluster without endpoints is made on purpose: Istio's BlackHoleCluster.
            if cluster.type == "STATIC" and not cluster.endpoints:
                continue
            fault = _fault(proxy, name, registry)
            if fault is not None:
                empty[name, fault].append(sidecar)
    if not checked:
        raise CannotLookError("no sidecar's clusters could be read")
    for (cluster_name, fault), sidecars in empty.items():
        yield _finding(proxies, cluster_name, fault, sidecars)
    if not empty:
        yield Fact(f"every routed cluster of {count(checked, 'sidecar')} has a healthy endpoint")


def _fault(proxy: EnvoyProxy, name: str, registry: Registry | None) -> str | None:
    held = proxy.endpoints.get(name)
    if held is None:
        return "has no endpoint" if "endpoints" in proxy.held else None
    if not held.endpoints:
        return "has no endpoint"
    if all(each.health in _SICK for each in held.endpoints):
        return f"has {count(len(held.endpoints), 'endpoint')} and none is healthy"
    if registry is None or service_of_cluster(name) is None:
        return None
    strange = sorted(
        f"{each.address}:{each.port}"
        for each in held.endpoints
        if registry.owner(each.address, each.port) is None
    )
    if strange:
        return f"sends calls to {listing(strange)}, which no instance in Consul has"
    return None


def _finding(proxies: EnvoyProxies, name: str, fault: str, sidecars: list[str]) -> Finding:
    service = service_of_cluster(name)
    subset = name.split("|")[2] if service is not None else ""
    about = ""
    if service is not None:
        about = f" (subset {subset} of {service})" if subset else f" ({service})"
    return Finding(
        message=f"The cluster {name}{about} {fault}, in {count(len(sidecars), 'sidecar')}.",
        subjects=(
            Subject(SubjectKind.CLUSTER, name),
            *subjects(SubjectKind.SERVICE, (service,) if service is not None else ()),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(_proof(proxies.proxies[sidecar], name) for sidecar in sidecars),
        remedies=(
            Remedy(
                summary=(
                    f"Give instances of {service} the tags that the subset {subset} asks for, or "
                    "correct the labels in its DestinationRule."
                    if subset
                    else f"Start an instance of {service or name}, and see that it is registered "
                    "and healthy in Consul."
                ),
                commands=(commands.see_that_it_worked("MD405", "MD402"),),
            ),
        ),
    )


def _proof(proxy: EnvoyProxy, name: str) -> Citation:
    held = proxy.endpoints.get(name)
    if held is not None:
        said = listing([f"{e.address}:{e.port} {e.health}" for e in held.endpoints], most=4)
        return Citation(held.document, held.pointer, said or "no endpoint")
    pointer = next((entry.pointer for entry in proxy.clusters if entry.cluster.name == name), "")
    return Citation(proxy.document, pointer, "no endpoint")
