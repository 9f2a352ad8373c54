"""MD701: two upstreams of one proxy are bound to one local port."""

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.addresses import is_loopback
from meshdoctor.evidence.consul import ConsulCatalog, Instance, ProxyRegistration, Upstream
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, ListenerEntry
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
)
from meshdoctor.kinds import Kind
from meshdoctor.routing.hosts import Identity
from meshdoctor.routing.references import ClusterReferences
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listener
from meshdoctor_checks.upstreams import Held, definition, field, upstreams
from meshdoctor_checks.wording import count, listing, verb

_ANY_ADDRESS: Final = {"127.0.0.1": ("0.0.0.0",), "::1": ("::",)}  # noqa: S104 # as bound
"""An address of loopback, and those that cover it."""


class _Proxy(msgspec.Struct, frozen=True):
    """A registered proxy, and its Envoy where that was read."""

    instance: Instance
    registration: ProxyRegistration
    envoy: EnvoyProxy | None

    @property
    def name(self) -> str:
        return self.envoy.name if self.envoy is not None else self.instance.id

    def subjects(self, key: str) -> tuple[Subject, ...]:
        # What calls to these services do elsewhere, and what else the proxy refuses, has causes of
        # its own: only the listener leads to what follows from this.
        return Subject(SubjectKind.INSTANCE, self.instance.id), listener(key, self.name)

    def proof(self, excerpt: str) -> Citation:
        pointer = f"{self.instance.pointer}/{field(self.instance)}/Upstreams"
        return Citation(self.instance.document, pointer, proofs.shorten(excerpt))

    def entry(self, key: str) -> ListenerEntry | None:
        for entry in self.envoy.deciding_listeners() if self.envoy is not None else ():
            if entry.listener.key == key:
                return entry
        return None

    def standing(self, key: str) -> tuple[Citation, ...]:
        entry = self.entry(key)
        if self.envoy is None or entry is None:
            return ()
        said = f"the listener that stands: {entry.listener.name}"
        return (proofs.listener(self.envoy.document, entry, said),)

    def rejected(self, key: str) -> tuple[Citation, ...]:
        if self.envoy is None:
            return ()
        return tuple(
            Citation(self.envoy.document, each.pointer, proofs.shorten(each.details))
            for each in self.envoy.rejected
            if each.listener is not None and each.listener.key == key
        )


@check(
    code="MD701",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD308", "MD402", "MD601", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
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
    upstreams with the same `LocalBindAddress` (127.0.0.1 unless given) and `LocalBindPort`, or
    with that port on an address that covers the other's; or an upstream has the port of its own
    proxy. Upstreams of two proxies count where both are registered on loopback, so that they share
    a network namespace. Who answers now is read from the Envoy's listener on that port.

    ## How to fix it

    Give each upstream a `local_bind_port` of its own, register the service again, and let the
    application use the new port.
    """
    if Kind.CONSUL_CONNECT not in mesh.kinds:
        raise CannotLookError("no proxy of Consul's own service mesh is registered")
    known = [
        _Proxy(each, each.proxy, _envoy(mesh, each, proxies))
        for each in mesh.proxies
        if each.proxy is not None
    ]
    if not known:
        raise CannotLookError("no registration of a connect-proxy could be read")
    found = False
    for finding in (*(one for each in known for one in _of_proxy(mesh, each)), *_of_several(mesh)):
        found = True
        yield finding
    if not found:
        number = sum(len(each.registration.upstreams) for each in known)
        yield Fact(f"{count(number, 'upstream')}, each with a local port of its own")


def _envoy(mesh: Mesh, instance: Instance, proxies: EnvoyProxies | None) -> EnvoyProxy | None:
    """Its Envoy, by the id it is registered with or by the container that it is."""
    if proxies is None:
        return None
    owner = mesh.owners.get(instance.id)
    names = (instance.id, owner.name if owner is not None else "")
    return next((proxies.proxies[name] for name in names if name in proxies.proxies), None)


def _of_proxy(mesh: Mesh, proxy: _Proxy) -> Iterator[Finding]:
    by_bind: dict[tuple[str, int], list[Upstream]] = defaultdict(list)
    for upstream in proxy.registration.upstreams:
        # Port 0: bound by transparent proxy or a socket path, not by port.
        if upstream.local_port:
            by_bind[upstream.local_address, upstream.local_port].append(upstream)
    for (address, port), sharing in by_bind.items():
        key = f"{address}:{port}"
        if len(sharing) > 1:
            yield _finding(mesh, proxy, key, sharing)
        if (address, port) == (proxy.instance.registered, proxy.instance.port):
            yield _inbound(proxy, key, sharing[0])
        for covering in _ANY_ADDRESS.get(address, ()):
            if (covering, port) in by_bind:
                yield _covered(proxy, key, sharing, by_bind[covering, port])


def _covered(
    proxy: _Proxy, key: str, narrow: Sequence[Upstream], wide: Sequence[Upstream]
) -> Finding:
    """Consul refuses the same address twice since 1.12, but not one that covers the other."""
    first, second = narrow[0], wide[0]
    everywhere = f"{second.local_address}:{second.local_port}"
    return Finding(
        message=(
            f"The upstream {second.destination} of {proxy.name} is bound to {everywhere}, which "
            f"covers {key}, where {first.destination} is bound: calls to both at {key} reach "
            f"{first.destination}."
        ),
        subjects=proxy.subjects(key),
        seen_in=(
            proxy.proof(f"{second.destination} on {everywhere} and {first.destination} on {key}"),
            *proxy.standing(key),
        ),
        remedies=(_remedy(proxy.registration, (first, *wide)),),
    )


def _inbound(proxy: _Proxy, key: str, upstream: Upstream) -> Finding:
    return Finding(
        message=(
            f"The upstream {upstream.destination} of {proxy.name} is bound to {key}, where the "
            "proxy itself takes calls from others: only one listener can stand."
        ),
        subjects=proxy.subjects(key),
        seen_in=(
            proxy.proof(f"{upstream.destination} on {key}"),
            proofs.registration(proxy.instance),
            *proxy.standing(key),
            *proxy.rejected(key),
        ),
        remedies=(_remedy(proxy.registration, (upstream, upstream)),),
    )


def _of_several(mesh: Mesh) -> Iterator[Finding]:
    """Proxies that others reach on loopback are in one network namespace with each other.

    Envoy lets others bind what it binds (SO_REUSEPORT): both listen, and none refuses anything.
    """
    by_bind: dict[tuple[str, str], list[Held]] = defaultdict(list)
    for held in upstreams(mesh):
        if held.key and is_loopback(held.instance.registered):
            by_bind[held.instance.node, held.key].append(held)
    for (_, key), them in by_bind.items():
        if len({each.instance.id for each in them}) > 1:
            yield _shared(key, them)


def _shared(key: str, them: Sequence[Held]) -> Finding:
    held = [f"{each.upstream.destination} of {each.sidecar}" for each in them]
    last = them[-1]
    return Finding(
        message=(
            f"The upstreams {listing(held)} are bound to {key} in one network namespace, where "
            "each proxy listens: the system shares the connections out, so calls reach the one or "
            "the other at random."
        ),
        subjects=(
            *dict.fromkeys(Subject(SubjectKind.INSTANCE, each.instance.id) for each in them),
            *dict.fromkeys(subject for each in them for subject in each.listeners),
        ),
        seen_in=tuple(each.proof(f"{each.upstream.destination} on {key}") for each in them),
        remedies=(_remedy(last.registration, (last.upstream, last.upstream)),),
    )


def _finding(mesh: Mesh, proxy: _Proxy, key: str, sharing: Sequence[Upstream]) -> Finding:
    names = sorted({_called(upstream, sharing) for upstream in sharing})
    answering = _answering(mesh, proxy, key)
    both, both_of_them = ("both", "both") if len(sharing) == len("ab") else ("all", "all of them")
    now = (
        f"calls to {both_of_them} now reach {listing(answering)}, and which one wins is arbitrary"
        if answering
        else f"which one answers the calls to {both_of_them} is arbitrary"
    )
    return Finding(
        message=(
            f"The upstreams {listing(names)} of {proxy.name} are {both} bound to {key}, where "
            f"only one listener can stand: {now}."
        ),
        subjects=proxy.subjects(key),
        seen_in=(
            proxy.proof(listing([f"{name} on {key}" for name in names])),
            *proxy.standing(key),
            *proxy.rejected(key),
        ),
        remedies=(_remedy(proxy.registration, sharing),),
    )


def _called(upstream: Upstream, sharing: Sequence[Upstream]) -> str:
    """The service's name; where that is not enough, with its datacenter or namespace."""
    if sum(each.destination == upstream.destination for each in sharing) == 1:
        return upstream.destination
    where = ", ".join(filter(None, (upstream.namespace, upstream.datacenter)))
    return f"{upstream.destination} ({where})" if where else upstream.destination


# A thousand proxies are asked for one by one.
@functools.lru_cache(maxsize=2)
def _destinations(mesh: Identity[Mesh]) -> Mapping[tuple[str, int], str]:
    """The service behind the proxy at each registered address."""
    return {
        (each.address, each.port): each.proxy.destination
        for each in mesh.fact.proxies
        if each.proxy is not None
    }


def _answering(mesh: Mesh, proxy: _Proxy, key: str) -> tuple[str, ...]:
    """The services behind the listener: its endpoints are other sidecars' addresses."""
    envoy = proxy.envoy
    if envoy is None or proxy.entry(key) is None:
        return ()
    destinations = _destinations(Identity(mesh))
    found = {
        destinations.get((endpoint.address, endpoint.port))
        for cluster, reference in ClusterReferences(envoy).items()
        if reference.listener == key and cluster in envoy.endpoints
        for endpoint in envoy.endpoints[cluster].endpoints
    }
    return tuple(sorted(name for name in found if name is not None))


def _remedy(registration: ProxyRegistration, sharing: Sequence[Upstream]) -> Remedy:
    service = registration.destination
    taken = {each.local_port for each in registration.upstreams}
    free = (port for port in itertools.count(sharing[0].local_port + 1) if port not in taken)
    lines = [
        f"-  {_definition(each, each.local_port)}\n+  {_definition(each, next(free))}"
        for each in sharing[1:]
    ]
    moved = list(dict.fromkeys(each.destination for each in sharing[1:]))
    return Remedy(
        summary=(
            f"Give {listing(moved)} a local_bind_port of {verb(len(moved), 'its', 'their')} own "
            f"in the definition of {service} (below: {verb(len(lines), 'one', 'some')} that no "
            "other upstream has), register it again, and point the application at it."
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


def _definition(upstream: Upstream, port: int) -> str:
    """With the address, which tells these upstreams apart; Consul takes 127.0.0.1 for none."""
    address = upstream.local_address
    return definition(
        upstream,
        local_bind_address="" if address == "127.0.0.1" else f'"{address}"',
        local_bind_port=str(port),
    )
