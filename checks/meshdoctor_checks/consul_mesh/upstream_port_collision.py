"""MD701: two upstreams of one proxy are bound to one local port."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance, Upstream
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, ListenerEntry
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
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb


@check(code="MD701", severity=Severity.ERROR, since="0.1", explains=("MD308", "MD402"))
def upstream_port_collision(
    mesh: Mesh, catalog: ConsulCatalog, proxies: EnvoyProxies | None
) -> Iterator[Finding | Fact]:
    """Two upstreams of one proxy are bound to the same local address and port.

    ## Why it matters

    Envoy can have only one listener on an address and port. It keeps the one that came first and
    rejects the other with `has duplicate address`; the application's calls to both upstreams
    reach whichever service that was. Which comes first is arbitrary, and may be the other one
    after the next restart.

    ## How it is found

    The registration of a `connect-proxy`, in the catalogue or in the local agent, lists several
    upstreams with the same `LocalBindAddress` (127.0.0.1 unless given) and `LocalBindPort`. Who
    answers now is read from the Envoy's listener on that port.

    ## How to fix it

    Give each upstream a `local_bind_port` of its own, register the service again, and let the
    application use the new port.
    """
    if Kind.CONSUL_CONNECT not in mesh.kinds:
        raise CannotLookError("no proxy of Consul's own service mesh is registered")
    known = [each for each in mesh.proxies if each.proxy is not None]
    if not known:
        raise CannotLookError("no registration of a connect-proxy could be read")
    upstreams = 0
    found = False
    for instance in known:
        registration = instance.proxy
        if registration is None:
            continue
        by_bind: dict[tuple[str, int], list[Upstream]] = defaultdict(list)
        for upstream in registration.upstreams:
            upstreams += 1
            # Port 0: bound by transparent proxy or a socket path, not by port.
            if upstream.local_port:
                by_bind[upstream.local_address, upstream.local_port].append(upstream)
        proxy = proxies.proxies.get(instance.id) if proxies is not None else None
        for (address, port), sharing in by_bind.items():
            if len(sharing) > 1:
                found = True
                yield _finding(mesh, instance, proxy, f"{address}:{port}", sharing)
    if not found:
        yield Fact(f"{count(upstreams, 'upstream')}, each with a local port of its own")


def _finding(
    mesh: Mesh,
    instance: Instance,
    proxy: EnvoyProxy | None,
    key: str,
    sharing: Sequence[Upstream],
) -> Finding:
    names = sorted(upstream.destination for upstream in sharing)
    entry = _listener(proxy, key)
    answering = _answering(mesh, proxy, entry) if proxy is not None and entry is not None else ()
    now = (
        f" Now {listing(answering)} {verb(len(answering), 'answers', 'answer')} the calls to all "
        "of them; which one does is arbitrary."
        if answering
        else " Which of them answers the calls to all is arbitrary."
    )
    return Finding(
        message=(
            f"The upstreams {listing(names)} of {instance.id} are all bound to {key}, where only "
            f"one listener can stand.{now}"
        ),
        subjects=(
            Subject(SubjectKind.SIDECAR, instance.id),
            Subject(SubjectKind.LISTENER, key),
            *subjects(SubjectKind.SERVICE, names),
        ),
        seen_in=(
            Citation(
                instance.document,
                f"{instance.pointer}/{_field(instance)}/Upstreams",
                proofs.shorten(listing([f"{name} on {key}" for name in names])),
            ),
            *_standing(proxy, entry),
            *_rejected(proxy, key),
        ),
        remedies=(_remedy(instance, key, sharing),),
    )


def _field(instance: Instance) -> str:
    return "ServiceProxy" if instance.document.startswith("consul/catalog/") else "Proxy"


def _listener(proxy: EnvoyProxy | None, key: str) -> ListenerEntry | None:
    for entry in proxy.deciding_listeners() if proxy is not None else ():
        if entry.listener.key == key:
            return entry
    return None


def _answering(mesh: Mesh, proxy: EnvoyProxy, entry: ListenerEntry) -> tuple[str, ...]:
    """The services behind the listener: its endpoints are other sidecars' addresses."""
    destinations = {
        (each.address, each.port): each.proxy.destination
        for each in mesh.proxies
        if each.proxy is not None
    }
    found = {
        destinations.get((endpoint.address, endpoint.port))
        for tcp in entry.listener.tcp_proxies
        if tcp.cluster in proxy.endpoints
        for endpoint in proxy.endpoints[tcp.cluster].endpoints
    }
    return tuple(sorted(name for name in found if name is not None))


def _standing(proxy: EnvoyProxy | None, entry: ListenerEntry | None) -> tuple[Citation, ...]:
    if proxy is None or entry is None:
        return ()
    return (
        proofs.listener(proxy.document, entry, f"the listener that stands: {entry.listener.name}"),
    )


def _rejected(proxy: EnvoyProxy | None, key: str) -> tuple[Citation, ...]:
    if proxy is None:
        return ()
    return tuple(
        Citation(proxy.document, each.pointer, proofs.shorten(each.details))
        for each in proxy.rejected
        if each.listener is not None and each.listener.key == key
    )


def _remedy(instance: Instance, key: str, sharing: Sequence[Upstream]) -> Remedy:
    taken = int(key.rpartition(":")[2])
    moved = sharing[1:]
    lines = [
        f'-  {{ destination_name = "{each.destination}", local_bind_port = {taken} }}\n'
        f'+  {{ destination_name = "{each.destination}", local_bind_port = {taken + number} }}'
        for number, each in enumerate(moved, start=1)
    ]
    service = instance.proxy.destination if instance.proxy is not None else instance.service
    return Remedy(
        summary=(
            f"Give {listing([each.destination for each in moved])} a local_bind_port that is free "
            f"in the definition of {service} (the numbers below are examples), register it again, "
            "and point the application at it."
        ),
        commands=(
            commands.quoted("consul", "services", "register", f"{service}.hcl"),
            commands.see_that_it_worked("MD701", "MD308"),
        ),
        patch="\n".join((f"# the upstreams in {service}.hcl", *lines)),
        effect=(
            "Consul sends the proxy a second listener within seconds; nothing is restarted. The "
            "registration that is written replaces the old one whole."
        ),
    )
