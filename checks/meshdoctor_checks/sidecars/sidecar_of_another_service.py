"""MD305: a proxy that says it is another service's than the workload it sits beside."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.envoy import ClusterEntry, EnvoyProxies, EnvoyProxy
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds.istio_consul import service_of_host
from meshdoctor.topology import Mesh, Sidecar, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing

_PARTS: Final = 4
"""Of a node id, divided by ~, and of a cluster's name, divided by |."""


class _Signs(msgspec.Struct):
    """What a proxy says of itself that its workload is not; `others` are services it names."""

    said: list[str] = msgspec.field(default_factory=list)
    others: dict[str, None] = msgspec.field(default_factory=dict)
    proofs: list[Citation] = msgspec.field(default_factory=list)


@check(code="MD305", severity=Severity.WARNING, since="0.1", explains=("MD402", "MD409"))
def sidecar_of_another_service(
    mesh: Mesh, proxies: EnvoyProxies, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """A proxy declares itself as another service's than the workload it sits beside.

    ## Why it matters

    The control plane configures a proxy by what it declares. One that was copied from another
    service's Compose entry gets the inbound listeners, and the rules for callers, of that one.

    ## How it is found

    Compared with the workload whose network namespace the proxy shares: the address in Istio's
    node id (`sidecar~<address>~...`), the node's cluster where it is the very name of another
    registered service, and the services of its inbound clusters. A name that no service has tells
    nothing. A sidecar in a namespace that is gone is MD304.

    ## How to fix it

    Correct the sidecar's command (`--serviceCluster`, `INSTANCE_IP`), or the container whose
    network it joins (`network_mode`), and recreate it.
    """
    names = {service.name for service in mesh.applications}
    addresses = _addresses(mesh)
    workloads = {workload.name: workload for workload in mesh.workloads}
    judged = 0
    found = False
    for sidecar in mesh.sidecars:
        workload = _workload(workloads, sidecar)
        if workload is None or sidecar.proxy is None:
            continue
        judged += 1
        signs = _Signs()
        _by_address(sidecar.proxy, workload, addresses, signs)
        _by_cluster(sidecar.proxy, workload, names, signs)
        _by_inbound(sidecar.proxy, workload, names, signs)
        if signs.said:
            found = True
            yield _finding(mesh, sidecar, workload, signs)
    if not judged and not found:
        raise CannotLookError("no proxy was read beside a workload that is registered")
    if not found:
        yield Fact(f"{count(judged, 'proxy', 'proxies')} that declare nothing but their workload")


def _workload(workloads: Mapping[str, Workload], sidecar: Sidecar) -> Workload | None:
    """The workload that a sidecar surely sits beside, where it is registered."""
    if sidecar.namespace_is_dead or sidecar.workload is None:
        return None
    workload = workloads.get(sidecar.workload)
    # Without a container, the workload was told by what the proxy itself declares.
    if workload is None or workload.container is None or not workload.services:
        return None
    return workload


def _addresses(mesh: Mesh) -> Mapping[str, Workload]:
    """The workloads by the addresses of their containers."""
    return {
        address: workload
        for workload in mesh.workloads
        if workload.container is not None
        for address in workload.container.addresses.values()
    }


def _by_address(
    proxy: EnvoyProxy, workload: Workload, addresses: Mapping[str, Workload], signs: _Signs
) -> None:
    parts = proxy.node.id.split("~") if proxy.node is not None else []
    if len(parts) != _PARTS or workload.container is None:
        return
    other = addresses.get(parts[1])
    if other is not None and other.name != workload.name:
        signs.said.append(f"its node id has the address of {other.name} ({parts[1]})")
        signs.others.update(dict.fromkeys(other.services))
        signs.proofs.append(Citation(proxy.document, "", f"node id {'~'.join(parts)}"))


def _by_cluster(proxy: EnvoyProxy, workload: Workload, names: set[str], signs: _Signs) -> None:
    cluster = service_of_host(proxy.node.cluster) if proxy.node is not None else ""
    if cluster in names and cluster not in workload.services:
        signs.said.append(f"its node's cluster is {cluster}")
        signs.others[cluster] = None
        signs.proofs.append(Citation(proxy.document, "", f"node cluster {cluster}"))


def _by_inbound(proxy: EnvoyProxy, workload: Workload, names: set[str], signs: _Signs) -> None:
    inbound: dict[str, ClusterEntry] = {}
    for entry in proxy.clusters:
        if not entry.cluster.name.startswith("inbound|"):
            continue
        parts = entry.cluster.name.split("|")
        if len(parts) == _PARTS:
            service = service_of_host(parts[3])
            if service in names:
                inbound.setdefault(service, entry)
    if not inbound or inbound.keys() & set(workload.services):
        return
    signs.said.append(f"its inbound clusters are for {listing(sorted(inbound))}")
    signs.others.update(dict.fromkeys(sorted(inbound)))
    signs.proofs.extend(
        Citation(proxy.document, entry.pointer, entry.cluster.name) for entry in inbound.values()
    )


def _finding(mesh: Mesh, sidecar: Sidecar, workload: Workload, signs: _Signs) -> Finding:
    container = sidecar.container
    return Finding(
        message=(
            f"{sidecar.name} sits beside {workload.name} ({listing(workload.services)}), but "
            f"{listing(signs.said)}."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, (sidecar.name,)),
            *subjects(SubjectKind.WORKLOAD, (workload.name,)),
            *subjects(SubjectKind.SERVICE, workload.services),
            *subjects(
                SubjectKind.SERVICE,
                (each for each in signs.others if each not in workload.services),
            ),
        ),
        seen_in=(
            *signs.proofs,
            *(proofs.registration(each) for each in workload.instances),
            *(
                (proofs.container(container, "/HostConfig/NetworkMode", container.network_mode),)
                if container is not None
                else ()
            ),
        ),
        remedies=(_remedy(sidecar, workload, container, list(signs.others)),),
    )


def _remedy(
    sidecar: Sidecar, workload: Workload, container: Container | None, others: Sequence[str]
) -> Remedy:
    return Remedy(
        summary=(
            f"If {sidecar.name} is {workload.name}'s, correct what its command and environment "
            f"say of {listing(list(others))}; if it is not, let it join the network of the "
            "application it is for; then recreate it."
        ),
        commands=(
            *(
                commands.recreate([container])
                if container is not None and container.compose_service
                else ()
            ),
            commands.see_that_it_worked("MD305"),
        ),
        effect=f"Calls of {workload.name} fail until its sidecar is up again.",
    )
