"""Who owns an address, and what callers call: what a followed call is held against."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.addresses import bracketed, host_port, is_loopback
from meshdoctor.evidence.consul import Instance, Upstream
from meshdoctor.kinds import Kind
from meshdoctor.kinds.consul_connect import (
    HTTP2_PROTOCOLS,
    OUTBOUND,
    PROXY_KINDS,
    leads_away,
    leads_to,
    misses,
    protocol_of,
    virtual_name,
)
from meshdoctor.kinds.istio_consul import Routed, SentOn, is_http, takes_missing_for_http
from meshdoctor.topology import Mesh, Role, Service, Sidecar, SidecarState, Workload

_HTTP_PORT: Final = 80
_SIDECAR_KIND: Final = "connect-proxy"


class Target(msgspec.Struct, frozen=True):
    """A service's port as a caller names it, and the addresses that the name may resolve to.

    `rivals` are other services that the caller reaches, or means to, at the very same address.
    `elsewhere` says why the call's end may lie outside of this catalogue, "" where it may not.
    `also` are services that Consul's own rules send such calls on to, `sent_on` those that
    VirtualServices do.
    """

    service: str
    port: int
    host: str
    addresses: tuple[tuple[str, int], ...]
    rivals: tuple[str, ...] = ()
    elsewhere: str = ""
    also: frozenset[str] = frozenset()
    sent_on: frozenset[SentOn] = frozenset()

    @property
    def url(self) -> str:
        """The URL that a caller would write."""
        return f"http://{self.host}/"


class Owner(msgspec.Struct, frozen=True):
    """Who stands behind an address: a service and an instance of it, "" where it has none.

    `gateway`: what stands there passes calls on to others. `stopped`: Docker has its container,
    and it does not run. `unreachable`: what Docker's networks say against that it is reached.
    """

    service: str
    instance: str
    gateway: bool = False
    stopped: str = ""
    unreachable: str = ""


def authority(name: str, port: int, default: int = _HTTP_PORT) -> str:
    """The Host header for a name and a port, as HTTP clients write it."""
    return bracketed(name) if port == default else host_port(name, port)


def _by_address(workloads: Iterable[Workload]) -> Mapping[str, Workload]:
    """Whose an address is; none that two hosts have given, for it tells nothing then."""
    found: dict[str, Workload] = {}
    shared = {""}
    for workload in workloads:
        container = workload.container
        if container is not None and container.running:
            for address in container.addresses.values():
                if found.setdefault(address, workload) is not workload:
                    shared.add(address)
    return {address: each for address, each in found.items() if address not in shared}


def _order(target: Target) -> tuple[str, int, str]:
    return target.service, target.port, target.host


class Registry:
    """The registry's side of a mesh, indexed by address."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._instances: dict[tuple[str, int], list[Instance]] = defaultdict(list)
        for service in mesh.services.values():
            for instance in service.instances:
                self._instances[instance.address, instance.port].append(instance)
        self._datacenters = {
            each.datacenter for found in self._instances.values() for each in found
        }
        self._namespaces = {"default"} | {
            each.namespace for found in self._instances.values() for each in found
        }
        self._proxied: dict[tuple[str, int], Instance] = {}
        self._bound: dict[tuple[str, int], list[Instance]] = defaultdict(list)
        self._proxies_by_id: dict[str, list[Instance]] = defaultdict(list)
        self._proxies_of: dict[str, list[Instance]] = defaultdict(list)
        for each in mesh.proxies:
            if each.proxy is not None:
                self._proxied.setdefault((each.address, each.port), each)
                self._proxies_by_id[each.id].append(each)
                for upstream in each.proxy.upstreams if is_loopback(each.registered) else ():
                    self._bound[upstream.local_address, upstream.local_port].append(each)
                self._proxies_of[each.proxy.destination_id].append(each)
        self._by_address = _by_address(mesh.workloads)
        self._by_instance: dict[str, Workload] = {}
        for workload in mesh.workloads:
            for instance in workload.instances:
                self._by_instance.setdefault(instance.id, workload)
        self._unread = [each.name for each in mesh.services.values() if not each.instances]
        self._arbitrary: dict[int, bool] = {}
        self.meshwide: Final[Sequence[Target]] = (
            tuple(sorted(self._istio_targets(), key=_order)) if self._is_istio else ()
        )
        """What every caller can call."""

    @property
    def _is_istio(self) -> bool:
        return Kind.ISTIO_CONSUL in self.mesh.kinds

    # ------------------------------------------------------------ what callers call

    def targets(self, caller: Workload) -> Sequence[Target]:
        """What a caller can call, under the names that it uses, sorted by callee and port.

        `meshwide` itself where it has no upstreams of its own.
        """
        own = (*self.upstreams(caller), *self.virtual(caller))
        return sorted((*self.meshwide, *own), key=_order) if own else self.meshwide

    def _istio_targets(self) -> Iterator[Target]:
        rules = self.mesh.rules
        sent_on = Routed(() if rules is None else rules.virtual_services)
        for service in self.mesh.applications:
            on = sent_on.on_from(service.name)
            for port in service.ports:
                addresses = [
                    (each.address, each.port) for each in service.instances if each.port == port
                ]
                yield Target(
                    service.name,
                    port,
                    authority(service.name, port),
                    tuple(dict.fromkeys(addresses)),
                    sent_on=on,
                )

    def upstreams(self, caller: Workload) -> Sequence[Target]:
        """The upstreams that Consul has for the caller's proxies, at their local addresses."""
        bound: dict[tuple[str, int], dict[str, Target]] = defaultdict(dict)
        for registered in self._registrations(caller):
            for upstream in registered.proxy.upstreams if registered.proxy is not None else ():
                if upstream.local_port and upstream.kind == "service":
                    at = (upstream.local_address, upstream.local_port)
                    bound[at].setdefault(
                        upstream.destination,
                        Target(
                            service=upstream.destination,
                            port=upstream.local_port,
                            host=authority(*_as_called(*at)),
                            addresses=(_as_called(*at),),
                            elsewhere=self._elsewhere(upstream),
                            also=self._also(upstream.destination),
                        ),
                    )
        for at, there in bound.items():
            # Of other callers' proxies that listen at the very same place, none of its own.
            for other in self._elsewhere_at(caller, at):
                there.setdefault(other, replace(next(iter(there.values())), service=""))
        return tuple(
            target if len(there) == 1 else _beside(target, there)
            for there in bound.values()
            for target in there.values()
            if target.service
        )

    def _elsewhere_at(self, caller: Workload, at: tuple[str, int]) -> Iterator[str]:
        """The services of upstreams that proxies of the same namespace have at that address.

        Envoy lets others bind what it binds, and the system shares connections out between them.
        """
        own = self._registrations(caller)
        nodes = {each.node for each in own if is_loopback(each.registered)}
        for other in self._bound.get(at, ()) if nodes else ():
            if other.node in nodes and all(other.id != each.id for each in own):
                for upstream in other.proxy.upstreams if other.proxy is not None else ():
                    if (upstream.local_address, upstream.local_port) == at:
                        yield upstream.destination

    def _registrations(self, caller: Workload) -> Sequence[Instance]:
        """The caller's proxies in Consul: by their own id, or by whose proxy Consul says they are.

        Envoy's node id is the id that the proxy was registered with.
        """
        ids = {name for sidecar in caller.sidecars for name in _names(sidecar)}
        found = [each for name in sorted(ids) for each in self._proxies_by_id.get(name, ())]
        for instance in caller.instances:
            found += self._proxies_of.get(instance.id, ())
        return tuple({each.id: each for each in found}.values())

    def virtual(self, caller: Workload) -> Iterator[Target]:
        """The services that the caller's transparent proxy tells apart by virtual addresses.

        Consul gives it a filter chain for each service that its own may call.
        """
        sidecar = examined(caller)
        if sidecar is None or sidecar.proxy is None:
            return
        known = {
            written.prefix
            for entry in sidecar.proxy.deciding_listeners()
            if entry.listener.restores_destination and entry.listener.name.startswith(OUTBOUND)
            for chain in entry.listener.chains
            for written in chain.match.prefix_ranges
        }
        virtual = {
            each.proxy.destination: each.virtual[0]
            for each in self.mesh.proxies
            if each.proxy is not None and each.virtual is not None and each.virtual[0] in known
        }
        for service, address in sorted(virtual.items()):
            held = self.mesh.services.get(service)
            for port in held.ports if held is not None else ():
                yield Target(
                    service=service,
                    port=port,
                    host=authority(virtual_name(service), port),
                    addresses=((address, port),),
                    elsewhere=self._away(service),
                    also=self._also(service),
                )

    def _also(self, service: str) -> frozenset[str]:
        connect = self.mesh.connect
        return frozenset() if connect is None else leads_to(service, connect)

    def _elsewhere(self, upstream: Upstream) -> str:
        if upstream.peer:
            return f"the upstream is of the peer {upstream.peer}"
        if upstream.datacenter and upstream.datacenter not in self._datacenters:
            return f"the upstream is in datacenter {upstream.datacenter}"
        if upstream.namespace and upstream.namespace not in self._namespaces:
            return f"the upstream is in namespace {upstream.namespace}"
        return self._away(upstream.destination)

    def _away(self, service: str) -> str:
        away = "" if self.mesh.connect is None else leads_away(service, self.mesh.connect)
        return f"Consul's own rules may send calls to {away}" if away else ""

    # ------------------------------------------------------------ who is where

    def owner(
        self, address: str, port: int, *, at: Workload | None = None, wanted: str = ""
    ) -> Owner | None:
        """The service and instance behind an endpoint, None where nobody is registered there.

        A sidecar's address stands for the service behind it, an address of loopback for what
        listens in the namespace of `at`. Where several have one address, `wanted` comes first.
        """
        proxy = self._proxied.get((address, port))
        if proxy is not None and proxy.proxy is not None:
            return Owner(proxy.proxy.destination, proxy.proxy.destination_id or proxy.id)
        found: Sequence[Instance] = ()
        if at is not None and is_loopback(address):
            found = [each for each in at.instances if each.port == port]
        found = found or self._instances.get((address, port), ())
        if not found:
            return None if at is None else self._served(at, address, port)
        chosen = next((each for each in found if each.service == wanted), found[0])
        container = self.mesh.owners.get(chosen.id)
        return Owner(
            chosen.service,
            chosen.id,
            gateway=chosen.kind in PROXY_KINDS and chosen.kind != _SIDECAR_KIND,
            stopped=container.name if container is not None and not container.running else "",
            unreachable=""
            if at is None
            else self.mesh.networks.unreachable(address, at.container),
        )

    def _served(self, at: Workload, address: str, port: int) -> Owner | None:
        """The service that the proxy of `at` was told to serve there.

        In a network namespace of its own it may listen on another port than is registered.
        """
        for registered in self._registrations(at):
            proxy = registered.proxy
            if proxy is None or (proxy.local_address, proxy.local_port) != (address, port):
                continue
            served = [each for each in at.instances if each.service == proxy.destination]
            if served and not any(misses(proxy, each) for each in served):
                return Owner(proxy.destination, served[0].id)
        return None

    def contradiction(self, far: Workload) -> str:
        """Why nobody can tell whether a service understands its own proxy, "" where it should.

        A proxy that was told HTTP/2 speaks that to the service, whatever this knows.
        """
        connect = self.mesh.connect
        for each in self._registrations(far) if connect is not None else ():
            told = each.proxy.protocol if each.proxy is not None else ""
            if each.proxy is None or connect is None or not told:
                continue
            said, _ = protocol_of(each.proxy.destination, connect)
            if (told in HTTP2_PROTOCOLS) is not (said in HTTP2_PROTOCOLS):
                return (
                    f"{each.id} is told that {each.proxy.destination} speaks {told}, and "
                    f"elsewhere it is {said}: whether it understands its proxy is not known"
                )
        return ""

    def service_at(self, address: str, port: int) -> str | None:
        """The service behind an endpoint; that behind a registered proxy is its own service."""
        found = self.owner(address, port)
        return None if found is None else found.service

    def unregistered(
        self, address: str, port: int, *, at: Workload | None = None, wanted: str = ""
    ) -> Owner | None:
        """The service that Registrator should have registered at an endpoint, and did not."""
        workload = at if is_loopback(address) else self._by_address.get(address)
        expected = workload.expected if workload is not None else ()
        found = [each.name for each in expected if each.port == port]
        if not found:
            return None
        return Owner(wanted if wanted in found else found[0], "")

    def workload_at(self, address: str, port: int) -> Workload | None:
        """The workload that a call to the address arrives at, by way of its sidecar or not."""
        proxy = self._proxied.get((address, port))
        if proxy is not None and proxy.proxy is not None:
            return self._by_instance.get(proxy.proxy.destination_id)
        workload = self._by_address.get(address)
        if workload is None and not is_loopback(address):
            for instance in self._instances.get((address, port), ()):
                workload = workload or self._by_instance.get(instance.id)
        return workload

    @property
    def unread(self) -> Sequence[str]:
        """Services whose instances are not known: what nobody seems to own may be theirs."""
        return tuple(self._unread)

    # ------------------------------------------------------------ who wins a port

    def is_arbitrary(self, port: int) -> bool:
        """True where the listener of a port goes to whichever service Pilot meets first."""
        if port not in self._arbitrary:
            self._arbitrary[port] = self._is_istio and self._has_contest(port)
        return self._arbitrary[port]

    def _has_contest(self, port: int) -> bool:
        services: Sequence[Service] = self.mesh.on_port(port)
        pilot = self.mesh.component(Role.PILOT)
        default_http = pilot is not None and takes_missing_for_http(pilot.container.image_tag)
        return len(services) > 1 and not all(
            is_http(service.protocols(port)[0], default_http=default_http) for service in services
        )


def examined(workload: Workload) -> Sidecar | None:
    """The workload's sidecar whose Envoy was read, None where there is none."""
    for sidecar in workload.sidecars:
        if sidecar.state is SidecarState.EXAMINED and sidecar.proxy is not None:
            return sidecar
    return None


def addresses(workload: Workload) -> frozenset[str]:
    """The addresses of the workload's namespace, loopback apart."""
    container = workload.container
    found: Iterable[str] = (
        [each.address for each in workload.instances]
        if container is None
        else container.addresses.values()
    )
    return frozenset(each for each in found if each and not is_loopback(each))


def _names(sidecar: Sidecar) -> Iterator[str]:
    yield sidecar.name
    if sidecar.proxy is not None and sidecar.proxy.node is not None:
        yield sidecar.proxy.node.id


def _as_called(address: str, port: int) -> tuple[str, int]:
    """Where an application reaches a listener that is bound to any address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), port  # noqa: S104 # not bound here


def _beside(target: Target, there: Mapping[str, Target]) -> Target:
    return replace(target, rivals=tuple(name for name in there if name != target.service))
