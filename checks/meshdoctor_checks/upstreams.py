"""The upstreams that Consul has for its proxies, each with the sidecar that holds it."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.consul import Instance, ProxyRegistration, Upstream
from meshdoctor.findings import Citation, Remedy, Subject
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, Sidecar, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listener


class Held(msgspec.Struct, frozen=True):
    """One upstream of one registered proxy; `place` is where it stands in the registration."""

    instance: Instance
    registration: ProxyRegistration
    upstream: Upstream
    place: int
    sidecar: str

    @property
    def service(self) -> str:
        """The service whose calls go through it."""
        return self.registration.destination

    @property
    def key(self) -> str:
        """The local `address:port`; "" where it is bound to none."""
        if not self.upstream.local_port:
            return ""
        return host_port(self.upstream.local_address, self.upstream.local_port)

    @property
    def is_here(self) -> bool:
        """It names a service of this catalogue, not one elsewhere or a prepared query."""
        upstream = self.upstream
        return (
            upstream.kind == "service"
            and not upstream.peer
            and upstream.datacenter in ("", self.instance.datacenter)
            and upstream.namespace in ("", "default")
        )

    @property
    def listeners(self) -> tuple[Subject, ...]:
        """Its listener, as calls that pass it name it too."""
        return (listener(self.key, self.sidecar),) if self.key else ()

    def proof(self, excerpt: str) -> Citation:
        """The upstream in the registration."""
        pointer = f"{self.instance.pointer}/{field(self.instance)}/Upstreams/{self.place}"
        return Citation(self.instance.document, pointer, proofs.shorten(excerpt))


def upstreams(mesh: Mesh) -> Sequence[Held]:
    """Every upstream, in the order of the registrations."""
    return _held(Identity(mesh))


def upstreams_to(mesh: Mesh, destination: str) -> Sequence[Held]:
    """Those that name that service, in the same order."""
    return _by_destination(Identity(mesh)).get(destination, ())


def proxies_of(mesh: Mesh, service: str) -> Sequence[Instance]:
    """The registrations of the proxies that are for a service."""
    return _proxies(Identity(mesh)).get(service, ())


def sidecar_of(mesh: Mesh, instance: Instance) -> Sidecar | None:
    """The Envoy that a registration stands for: by the id, or by the container that it is."""
    owner = mesh.owners.get(instance.id)
    known = _sidecars(Identity(mesh))
    found = known.get(instance.id)
    return known.get(owner.name) if found is None and owner is not None else found


def sidecar_named(mesh: Mesh, name: str) -> Sidecar | None:
    """The sidecar of that name, or whose Envoy was started under that id."""
    return _sidecars(Identity(mesh)).get(name)


def workloads_of(mesh: Mesh, service: str) -> Sequence[Workload]:
    """The workloads that are instances of a service."""
    return _workloads(Identity(mesh)).get(service, ())


# A thousand proxies are asked for one by one: each is a look-up, and no search.
@functools.lru_cache(maxsize=2)
def _sidecars(mesh: Identity[Mesh]) -> Mapping[str, Sidecar]:
    """By their names, and by the ids under which their Envoys were started."""
    found = {sidecar.name: sidecar for sidecar in mesh.fact.sidecars}
    for sidecar in mesh.fact.sidecars:
        proxy = sidecar.proxy
        if proxy is not None and proxy.node is not None and proxy.node.id:
            found.setdefault(proxy.node.id, sidecar)
    return found


@functools.lru_cache(maxsize=2)
def _workloads(mesh: Identity[Mesh]) -> Mapping[str, Sequence[Workload]]:
    found: dict[str, list[Workload]] = defaultdict(list)
    for workload in mesh.fact.workloads:
        for service in workload.services:
            found[service].append(workload)
    return found


@functools.lru_cache(maxsize=2)
def _held(mesh: Identity[Mesh]) -> Sequence[Held]:
    return tuple(_every(mesh.fact))


def _every(mesh: Mesh) -> Iterator[Held]:
    for instance in mesh.proxies:
        registration = instance.proxy
        if registration is None:
            continue
        found = sidecar_of(mesh, instance)
        name = instance.id if found is None else found.name
        for place, upstream in enumerate(registration.upstreams):
            yield Held(instance, registration, upstream, place, name)


@functools.lru_cache(maxsize=2)
def _by_destination(mesh: Identity[Mesh]) -> Mapping[str, Sequence[Held]]:
    found: dict[str, list[Held]] = defaultdict(list)
    for each in upstreams(mesh.fact):
        found[each.upstream.destination].append(each)
    return found


@functools.lru_cache(maxsize=2)
def _proxies(mesh: Identity[Mesh]) -> Mapping[str, Sequence[Instance]]:
    found: dict[str, list[Instance]] = defaultdict(list)
    for each in mesh.fact.proxies:
        if each.proxy is not None:
            found[each.proxy.destination].append(each)
    return found


def field(instance: Instance) -> str:
    """How the document names the proxy's part of a registration."""
    return "ServiceProxy" if instance.document.startswith("consul/catalog/") else "Proxy"


def definition(upstream: Upstream, **changed: str) -> str:
    """An upstream as a service definition writes it, as far as it tells the upstreams apart."""
    fields = {
        "destination_name": f'"{upstream.destination}"',
        "datacenter": f'"{upstream.datacenter}"' if upstream.datacenter else "",
        "local_bind_address": "",
        "local_bind_port": str(upstream.local_port) if upstream.local_port else "",
        **changed,
    }
    return f"{{ {', '.join(f'{key} = {value}' for key, value in fields.items() if value)} }}"


def redefine(service: str, lines: str, summary: str, *codes: str, effect: str = "") -> Remedy:
    """Change a service's definition and register it again, which replaces the old one whole."""
    return Remedy(
        summary=summary,
        commands=(
            commands.quoted("consul", "services", "register", f"{service}.hcl"),
            commands.see_that_it_worked(*codes),
        ),
        patch=f"# in {service}.hcl\n{lines}",
        effect=effect
        or (
            "Consul tells the proxy within seconds; nothing is restarted. The registration that "
            "is written replaces the old one whole."
        ),
    )
