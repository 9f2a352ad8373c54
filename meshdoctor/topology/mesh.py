"""One mesh: which container is whose sidecar, which instance is which container."""

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Final, Self

from meshdoctor.evidence import layout
from meshdoctor.evidence.consul import CONSUL_ITSELF, ConsulCatalog, Instance
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.evidence.netfilter import NatTable, NetfilterRules
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.kinds import Kind, Signs, recognise
from meshdoctor.kinds.consul_connect import is_proxy
from meshdoctor.topology.registrator import Registration, Registrator, registrations
from meshdoctor.topology.roles import (
    INFRASTRUCTURE_NAMES,
    Role,
    installs_redirect,
    role_of,
    runs_envoy,
)

_REGISTRATOR_ID_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Component:
    """A control-plane container and its part."""

    role: Role
    container: Container

    @property
    def name(self) -> str:
        return self.container.name


class SidecarState(enum.StrEnum):
    """EXAMINED: its Envoy was read. UNREACHABLE: it runs and was not. DOWN: it does not run."""

    EXAMINED = "examined"
    UNREACHABLE = "unreachable"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One Envoy beside a workload.

    `workload` names the workload whose network namespace it shares, None where there is none.
    `namespace_is_dead`: the container it was to share a namespace with was replaced, or was
    started again after the sidecar, which gave that container a new namespace.
    `reason` says why it is not examined.
    """

    name: str
    state: SidecarState
    container: Container | None = None
    proxy: EnvoyProxy | None = None
    workload: str | None = None
    namespace_is_dead: bool = False
    reason: str = ""
    nat: NatTable | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One application: a container, or where there is none to see, a registered instance.

    `inits` are the containers that were to install the redirect in its namespace. `expected` is
    what Registrator would register for it, () where no Registrator is seen or it does not run.
    """

    name: str
    container: Container | None
    instances: tuple[Instance, ...]
    sidecars: tuple[Sidecar, ...]
    inits: tuple[Container, ...]
    expected: tuple[Registration, ...]

    @property
    def services(self) -> tuple[str, ...]:
        """The services it is registered as."""
        return tuple(sorted({instance.service for instance in self.instances}))


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the catalogue.

    `infrastructure` is true of the control plane's own registrations and of proxies'.
    """

    name: str
    instances: tuple[Instance, ...]
    infrastructure: bool

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(sorted({instance.port for instance in self.instances}))

    def protocols(self, port: int) -> tuple[str | None, ...]:
        """The protocols its instances declare on a port, in the catalogue's order."""
        return tuple(each.protocol for each in self.instances if each.port == port)


@dataclass(frozen=True, slots=True)
class Mesh:
    """The sources joined.

    `services` hold the infrastructure too; `applications` are the others. `owners` maps an
    instance's id to the container that it is, where one could be found.
    """

    title: ClassVar[str] = "the mesh"
    hint: ClassVar[str] = "point meshdoctor at Docker (DOCKER_HOST) or Consul (CONSUL_HTTP_ADDR)"

    kinds: tuple[Kind, ...]
    services: Mapping[str, Service]
    workloads: tuple[Workload, ...]
    sidecars: tuple[Sidecar, ...]
    components: tuple[Component, ...]
    owners: Mapping[str, Container]
    registrator: Registrator | None
    proxies: tuple[Instance, ...] = ()
    """Registrations that stand for proxies, those that only the local agent knows among them."""

    @classmethod
    def join(
        cls,
        *,
        docker: DockerEngine | None,
        catalog: ConsulCatalog | None,
        proxies: EnvoyProxies | None,
        netfilter: NetfilterRules | None,
        pilot: PilotDebug | None,
    ) -> Self:
        """Join what there is. Raises MissingEvidenceError where there is nothing to join."""
        if docker is None and catalog is None and proxies is None:
            raise MissingEvidenceError("neither Docker nor Consul nor any Envoy told anything")
        containers = docker.containers if docker is not None else ()
        instances = catalog.instances if catalog is not None else ()
        components = tuple(
            Component(role, each) for each in containers if (role := role_of(each)) is not None
        )
        namespaces = _Namespaces(containers)
        owners = _owners(instances, containers)
        registrator = _registrator(components)
        services = _services(catalog, owners, components)
        registered = (*instances, *(catalog.agent if catalog is not None else ()))
        sidecars = _sidecars(namespaces, proxies, netfilter, registered)
        return cls(
            kinds=recognise(Signs(docker, catalog, proxies, pilot)),
            services=services,
            workloads=_workloads(namespaces, owners, services, sidecars, components, registrator),
            sidecars=sidecars,
            components=components,
            owners=owners,
            registrator=registrator,
            proxies=tuple(filter(is_proxy, registered)),
        )

    @property
    def applications(self) -> tuple[Service, ...]:
        """The services that applications offer, sorted by name."""
        return tuple(each for each in self.services.values() if not each.infrastructure)

    def on_port(self, port: int) -> tuple[Service, ...]:
        """The applications' services with an instance on that port, sorted by name."""
        return tuple(service for service in self.applications if port in service.ports)

    def shared_ports(self) -> Mapping[int, tuple[Service, ...]]:
        """Each port that several applications' services have, and those services."""
        ports: dict[int, list[Service]] = defaultdict(list)
        for service in self.applications:
            for port in service.ports:
                ports[port].append(service)
        return {port: tuple(ports[port]) for port in sorted(ports) if len(ports[port]) > 1}

    def component(self, role: Role) -> Component | None:
        """The container that plays a part: a running one before one that stopped."""
        played = [each for each in self.components if each.role is role]
        return min(played, key=lambda each: not each.container.running, default=None)

    def workload_of(self, container: Container) -> Workload | None:
        """The workload that a container is."""
        for workload in self.workloads:
            if workload.container is not None and workload.container.id == container.id:
                return workload
        return None

    def service_at(self, address: str, port: int) -> str | None:
        """The service that owns an endpoint in the registry, None where nobody does."""
        for service in self.services.values():
            for instance in service.instances:
                if instance.address == address and instance.port == port:
                    return service.name
        return None


def started(container: Container) -> datetime | None:
    """When the container was last started, None where Docker's word is no time."""
    try:
        # Docker writes nanoseconds, datetime reads microseconds.
        moment = datetime.fromisoformat(container.started_at[:26].rstrip("Z"))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC)


class _Namespaces:
    """Which containers share a network namespace, by `NetworkMode: container:<id>`."""

    def __init__(self, containers: Iterable[Container]) -> None:
        self.containers = {each.id: each for each in containers}
        self.names = {each.name: each for each in containers}
        self.guests: dict[str, list[Container]] = defaultdict(list)
        for each in self.containers.values():
            host = self.host(each)
            if host is not None and host.id != each.id:
                self.guests[host.id].append(each)

    def host(self, container: Container) -> Container | None:
        """The container whose namespace it is: itself, another, or None where that is gone."""
        seen = set()
        while container.network_container and container.id not in seen:
            seen.add(container.id)
            target = container.network_container
            found = self.containers.get(target) or self.names.get(target)
            if found is None:
                return None
            container = found
        return container

    def is_dead(self, container: Container) -> bool:
        """True where a running container still holds a namespace that its host has left."""
        if not container.network_container or not container.running:
            return False
        host = self.host(container)
        if host is None:
            return True
        if not host.running:
            return False
        mine, theirs = started(container), started(host)
        return mine is not None and theirs is not None and theirs > mine


def _registrator(components: Iterable[Component]) -> Registrator | None:
    found = [each.container for each in components if each.role is Role.REGISTRATOR]
    chosen = min(found, key=lambda each: not each.running, default=None)
    return None if chosen is None else Registrator.of(chosen)


def _owners(
    instances: Iterable[Instance], containers: Iterable[Container]
) -> Mapping[str, Container]:
    """Containers by instance id: by address, then by the name in Registrator's id.

    Addresses are given again when a container is replaced: where several claim an instance, the
    one that Registrator's id names is it.
    """
    by_address: dict[str, list[Container]] = defaultdict(list)
    by_name: dict[str, Container] = {}
    for container in containers:
        by_name[container.name] = container
        if container.running:
            for address in {container.bridge_address, *container.addresses.values()} - {""}:
                by_address[address].append(container)
    owners: dict[str, Container] = {}
    for instance in instances:
        named = by_name.get(named_in_id(instance.id))
        here = by_address.get(instance.address, [])
        if named is not None and named in here:
            owners[instance.id] = named
        elif here:
            owners[instance.id] = here[0]
        elif named is not None:
            owners[instance.id] = named
    return owners


def named_in_id(instance_id: str) -> str:
    """The container's name in an id of Registrator's (`<host>:<container>:<port>[:udp]`)."""
    parts = instance_id.removesuffix(":udp").split(":")
    return parts[1] if len(parts) == _REGISTRATOR_ID_PARTS else ""


def _services(
    catalog: ConsulCatalog | None,
    owners: Mapping[str, Container],
    components: Iterable[Component],
) -> Mapping[str, Service]:
    if catalog is None:
        return {}
    infrastructure = {component.container.id for component in components}
    by_service: dict[str, list[Instance]] = {name: [] for name in catalog.services}
    for instance in catalog.instances:
        by_service.setdefault(instance.service, []).append(instance)
    return {
        name: Service(
            name,
            tuple(instances),
            infrastructure=_is_infrastructure(name, instances, owners, infrastructure),
        )
        for name, instances in sorted(by_service.items())
    }


def _is_infrastructure(
    name: str,
    instances: Iterable[Instance],
    owners: Mapping[str, Container],
    infrastructure: set[str],
) -> bool:
    if name == CONSUL_ITSELF or any(map(is_proxy, instances)):
        return True
    owned = [owners[each.id].id for each in instances if each.id in owners]
    if owned:
        return all(each in infrastructure for each in owned)
    # Registrator appends the port where a container has several: pilot-15003.
    base, _, suffix = name.rpartition("-")
    return name in INFRASTRUCTURE_NAMES or (suffix.isdecimal() and base in INFRASTRUCTURE_NAMES)


def _sidecars(
    namespaces: _Namespaces,
    proxies: EnvoyProxies | None,
    netfilter: NetfilterRules | None,
    instances: Iterable[Instance],
) -> tuple[Sidecar, ...]:
    examined = proxies.proxies if proxies is not None else {}
    unreachable = proxies.unreachable if proxies is not None else {}
    tables = netfilter.tables if netfilter is not None else {}
    found = []
    for container in namespaces.containers.values():
        if not runs_envoy(container):
            continue
        host = namespaces.host(container)
        state = SidecarState.EXAMINED if container.name in examined else SidecarState.UNREACHABLE
        if not container.running:
            state = SidecarState.DOWN
        dead = namespaces.is_dead(container)
        shares = host is not None and host.id != container.id and not dead
        document = layout.envoy(container.name, "config_dump.json")
        found.append(
            Sidecar(
                name=container.name,
                state=state,
                container=container,
                proxy=examined.get(container.name),
                workload=host.name if shares and host is not None else None,
                namespace_is_dead=dead,
                reason=unreachable.get(container.name, f"{document} was not recorded"),
                nat=tables.get(container.name),
            )
        )
    known = {sidecar.name for sidecar in found}
    by_instance = _Destinations(instances)
    for name in sorted((examined.keys() | unreachable.keys()) - known):
        proxy = examined.get(name)
        found.append(
            Sidecar(
                name=name,
                state=SidecarState.UNREACHABLE if proxy is None else SidecarState.EXAMINED,
                proxy=proxy,
                workload=by_instance.workload_of(name, proxy),
                reason=unreachable.get(name, ""),
                nat=tables.get(name),
            )
        )
    return tuple(sorted(found, key=lambda sidecar: sidecar.name))


class _Destinations:
    """Whose sidecar an Envoy is where no container tells: by what Consul or its listeners say."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self.by_id = {instance.id: instance for instance in instances}
        self.by_address = {(each.address, each.port): each for each in self.by_id.values()}

    def workload_of(self, name: str, proxy: EnvoyProxy | None) -> str | None:
        """The id of the instance it stands beside, None where nothing tells."""
        registered = self.by_id.get(name)
        if registered is not None and registered.proxy is not None:
            return registered.proxy.destination_id or registered.proxy.destination
        for entry in proxy.deciding_listeners() if proxy is not None else ():
            # Pilot binds the inbound listener to the very address of the instance.
            instance = self.by_address.get((entry.listener.address, entry.listener.port))
            if instance is not None:
                return instance.id
        return None


def _by_owner(
    services: Mapping[str, Service], owners: Mapping[str, Container]
) -> tuple[Mapping[str, list[Instance]], list[Instance]]:
    """Instances by the id of the container they are, and the applications' that have none."""
    owned: dict[str, list[Instance]] = defaultdict(list)
    unowned: list[Instance] = []
    for service in services.values():
        for instance in service.instances:
            owner = owners.get(instance.id)
            if owner is not None:
                owned[owner.id].append(instance)
            elif not service.infrastructure:
                unowned.append(instance)
    return owned, unowned


def _workloads(
    namespaces: _Namespaces,
    owners: Mapping[str, Container],
    services: Mapping[str, Service],
    sidecars: Iterable[Sidecar],
    components: Iterable[Component],
    registrator: Registrator | None,
) -> tuple[Workload, ...]:
    owned, unowned = _by_owner(services, owners)
    beside: dict[str, list[Sidecar]] = defaultdict(list)
    for sidecar in sidecars:
        if sidecar.workload is not None:
            beside[sidecar.workload].append(sidecar)
    infrastructure = {component.container.id for component in components}
    workloads = []
    for container in namespaces.containers.values():
        if container.id in infrastructure or runs_envoy(container) or installs_redirect(container):
            continue
        expected = (
            registrations(container, registrator, namespaces.containers)
            if registrator is not None and container.running
            else ()
        )
        inits = tuple(
            guest for guest in namespaces.guests[container.id] if installs_redirect(guest)
        )
        own = tuple(owned.get(container.id, ()))
        # A container that nobody registers and nothing stands beside is no part of the mesh.
        if own or expected or inits or beside[container.name]:
            workloads.append(
                Workload(
                    name=container.name,
                    container=container,
                    instances=own,
                    sidecars=tuple(beside[container.name]),
                    inits=inits,
                    expected=expected,
                )
            )
    if not namespaces.containers:
        workloads.extend(
            Workload(each.id, None, (each,), tuple(beside[each.id]), (), ()) for each in unowned
        )
    return tuple(sorted(workloads, key=lambda workload: workload.name))
