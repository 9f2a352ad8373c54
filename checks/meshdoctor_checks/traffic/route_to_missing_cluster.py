"""MD404: a route or TCP proxy leads to a cluster that the proxy does not have."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from meshdoctor.check import CannotLookError, check
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
from meshdoctor.routing.configuration import configuration
from meshdoctor.routing.references import ClusterReference, ClusterReferences
from meshdoctor_checks import commands
from meshdoctor_checks.clusters import described, stands_for
from meshdoctor_checks.listeners import listeners as within
from meshdoctor_checks.wording import count, listing, verb


@check(code="MD404", severity=Severity.ERROR, since="0.1", explains=("MD402", "MD409", "MD603"))
def route_to_missing_cluster(proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A route or TCP proxy leads to a cluster that the proxy does not have.

    ## Why it matters

    Envoy answers such a call itself, with 503 and the response flag NC, or closes the connection
    where it is TCP. Nothing of it is seen in the application that was called.

    ## How it is found

    A cluster that an active listener or its route configuration names is not among the proxy's
    clusters, or still waits to become active. Shares of weight 0 are left out. With Istio it is
    most often a subset that a VirtualService routes to and no DestinationRule defines:
    `outbound|9080|v9|reviews.service.consul`.

    ## How to fix it

    Define the subset in a DestinationRule, or route to one that is defined. With Consul's own
    service mesh, see what the proxy refused (MD308).
    """
    read = 0
    missing: dict[str, dict[str, ClusterReference]] = defaultdict(dict)
    for sidecar, proxy in proxies.proxies.items():
        # Nothing follows from what a list lacks that is not known whole.
        if "clusters" not in proxy.held:
            continue
        read += "listeners" in proxy.held
        references = ClusterReferences(proxy)
        for cluster in set(references).difference(configuration(proxy).clusters):
            missing[cluster][sidecar] = references[cluster]
    for cluster in sorted(missing):
        yield _finding(proxies, cluster, missing[cluster])
    if not read and not missing:
        raise CannotLookError("no sidecar's listeners and clusters could be read")
    if not missing:
        yield Fact(f"every route of {count(read, 'sidecar')} leads to a cluster that is there")


def _finding(
    proxies: EnvoyProxies, cluster: str, references: Mapping[str, ClusterReference]
) -> Finding:
    sidecars = list(references)
    hosts = sorted({each.virtual_host for each in references.values()} - {""})
    listeners = sorted({each.listener for each in references.values() if not each.virtual_host})
    service, _ = stands_for(cluster)
    waiting = all(_waiting(proxies.proxies[each], cluster) for each in sidecars)
    return Finding(
        message=(
            f"{_who(hosts, listeners)} to the cluster {described(cluster)}, which "
            f"{count(len(sidecars), 'sidecar')} {verb(len(sidecars), 'does', 'do')} not have"
            f"{' ready yet' if waiting else ''}: "
            f"{_answer(references)}."
        ),
        subjects=(
            Subject(SubjectKind.CLUSTER, cluster),
            *subjects(SubjectKind.ROUTE, hosts),
            *within(listeners, sidecars),
            *subjects(SubjectKind.SERVICE, (service,) if service else ()),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(
            Citation(
                proxies.proxies[sidecar].document,
                each.pointer,
                f"sends calls to {cluster}{_waiting(proxies.proxies[sidecar], cluster)}",
            )
            for sidecar, each in references.items()
        ),
        remedies=(_remedy(cluster),),
    )


def _who(hosts: list[str], listeners: list[str]) -> str:
    """`The virtual host reviews.service.consul:9080 sends calls`."""
    said = []
    if hosts:
        said.append(f"virtual {verb(len(hosts), 'host', 'hosts')} {listing(hosts, most=3)}")
    if listeners:
        noun = verb(len(listeners), "listener", "listeners")
        said.append(f"TCP {noun} {listing(listeners, most=3)}")
    one = len(hosts) + len(listeners) == 1
    return f"The {' and the '.join(said)} {'sends' if one else 'send'} calls"


def _answer(references: Mapping[str, ClusterReference]) -> str:
    """What Envoy does with such a call: its own choice of status, or the end of a connection."""
    statuses = sorted({each.status for each in references.values() if each.status is not None})
    closed = any(each.status is None for each in references.values())
    said = [f"requests get {listing([str(each) for each in statuses])}"] if statuses else []
    said += ["connections are closed"] if closed else []
    return f"such {listing(said)}"


def _waiting(proxy: EnvoyProxy, cluster: str) -> str:
    held = [each.state.value for each in proxy.clusters if each.cluster.name == cluster]
    return f", which is {listing(held)}" if held else ""


def _remedy(cluster: str) -> Remedy:
    done = (commands.see_that_it_worked("MD404", "MD402"),)
    service, subset = stands_for(cluster)
    if service_of_cluster(cluster) is None or not subset:
        return Remedy(
            summary=(
                "See whether the sidecars refused the cluster (MD308), and what the log of the "
                "control plane says of it."
            ),
            commands=done,
        )
    return Remedy(
        summary=(
            f"Define the subset {subset} of {service} in its DestinationRule (add it to the one "
            f"that is there, if there is one), or let the VirtualService of {service} route to a "
            "subset that is defined, and apply the file with kubectl."
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
            f"+ - name: {subset}\n"
            "+   labels:\n"
            f"+     version: {subset}   # the tag `version|{subset}` of its instances in Consul"
        ),
        effect="Pilot sends the sidecars the cluster at its next push; nothing is restarted.",
    )
