"""MD404: a route or TCP proxy leads to a cluster that the proxy does not have."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.envoy import EnvoyProxies
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
from meshdoctor.routing.references import ClusterReference, cluster_references
from meshdoctor_checks import commands
from meshdoctor_checks.wording import count, verb


@check(code="MD404", severity=Severity.ERROR, since="0.1", explains=("MD402",))
def route_to_missing_cluster(proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A route or TCP proxy leads to a cluster that the proxy does not have.

    ## Why it matters

    Envoy answers such a call itself, with 503 and the response flag NC, or closes the connection
    where it is TCP.

    ## How it is found

    A cluster that an active listener or its route configuration names is not among the proxy's
    clusters. With Istio that is most often a subset that a VirtualService routes to and no
    DestinationRule defines: `outbound|9080|v9|reviews.service.consul`.

    ## How to fix it

    Define the subset in a DestinationRule, or route to one that is defined.
    """
    checked = 0
    missing: dict[str, dict[str, ClusterReference]] = defaultdict(dict)
    for sidecar, proxy in proxies.proxies.items():
        if not {"listeners", "clusters"} <= proxy.held:
            continue
        checked += 1
        known = {entry.cluster.name for entry in proxy.clusters}
        for reference in cluster_references(proxy):
            if reference.cluster not in known:
                missing[reference.cluster].setdefault(sidecar, reference)
    if not checked:
        raise CannotLookError("no sidecar's listeners and clusters could be read")
    for cluster, references in missing.items():
        yield _finding(proxies, cluster, references)
    if not missing:
        yield Fact(f"every route of {count(checked, 'sidecar')} leads to a cluster that is there")


def _finding(
    proxies: EnvoyProxies, cluster: str, references: dict[str, ClusterReference]
) -> Finding:
    sidecars = list(references)
    first = references[sidecars[0]]
    service = service_of_cluster(cluster)
    parts = cluster.split("|")
    subset = parts[2] if service is not None else ""
    what = f"the virtual host {first.route}" if first.route else f"the listener {first.listener}"
    why = f" (subset {subset} of {service})" if subset else ""
    number = len(sidecars)
    return Finding(
        message=(
            f"In {count(number, 'sidecar')} {what} sends calls to the cluster {cluster}{why}, "
            f"which {verb(number, 'it does', 'they do')} not have: such calls get 503."
        ),
        subjects=(
            Subject(SubjectKind.CLUSTER, cluster),
            *subjects(SubjectKind.ROUTE, (first.route,) if first.route else ()),
            *subjects(SubjectKind.SERVICE, (service,) if service else ()),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(
            Citation(proxies.proxies[sidecar].document, each.pointer, f"names {cluster}")
            for sidecar, each in references.items()
        ),
        remedies=(_remedy(service, subset),),
    )


def _remedy(service: str | None, subset: str) -> Remedy:
    done = (commands.see_that_it_worked("MD404", "MD402"),)
    if not service or not subset:
        return Remedy(
            summary="See what the control plane refused, or did not send: the sidecars' MD308 "
            "and the control plane's log.",
            commands=done,
        )
    return Remedy(
        summary=(
            f"Define the subset {subset} of {service} in a DestinationRule, or let the "
            f"VirtualService of {service} route to one that is, and apply the file with kubectl."
        ),
        commands=done,
        patch=(
            "apiVersion: networking.istio.io/v1alpha3\n"
            "kind: DestinationRule\n"
            "metadata:\n"
            f"  name: {service}\n"
            "spec:\n"
            f"  host: {service}.service.consul\n"
            "  subsets:\n"
            f"  - name: {subset}\n"
            "    labels:\n"
            f"      version: {subset}   # a tag `version|{subset}` of the instances in Consul"
        ),
    )
