"""One mesh: which container is whose sidecar, which instance is which container."""

import enum
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence.compose_text import ComposeTexts
from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.evidence.consul import (
    CONSUL_ITSELF,
    ConsulCatalog,
    Instance,
    ProxyRegistration,
)
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.evidence.istio import IstioRules
from meshdoctor.evidence.netfilter import NatTable, NetfilterRules
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.kinds import Kind, Signs, recognise
from meshdoctor.kinds.consul_connect import is_proxy
from meshdoctor.topology.namespaces import Namespaces
from meshdoctor.topology.networks import Networks
from meshdoctor.topology.registrator import Registration, Registrator, registrations
from meshdoctor.topology.roles import (
    INFRASTRUCTURE_NAMES,
    Role,
    installs_redirect,
    role_of,
    runs_envoy,
)

# As Registrator itself recognises the ids it gave (`serviceIDPattern` in `bridge/bridge.go`).
_REGISTRATOR_ID: Final = r".+?:([a-zA-Z0-9][a-zA-Z0-9_.-]+):[0-9]+(?::udp)?"
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Component(msgspec.Struct, frozen=True):
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


class Sidecar(msgspec.Struct, frozen=True):
    """One Envoy beside a workload.

    `workload` names the workload whose network namespace it shares, or where no namespace is
    seen the one that Consul or its own listeners name; None where there is none.
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


class Workload(msgspec.Struct, frozen=True):
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


class Service(msgspec.Struct, frozen=True):
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


class Mesh(msgspec.Struct, frozen=True):
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
    compose_files: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The text of the Compose files that could be read, by full path."""
    connect: ConsulConnect | None = None
    """What Consul was told of its own service mesh, None where nobody knows."""
    rules: IstioRules | None = None
    """Istio's routing rules, None where nobody knows."""
    hidden: str = ""
    """Why there may be services that the catalogue does not list, "" where it lists all."""
    networks: Networks = msgspec.field(default_factory=lambda: Networks.of(None))

    @classmethod
    def join(  # noqa: PLR0913 # one keyword for each source
        cls,
        *,
        docker: DockerEngine | None,
        catalog: ConsulCatalog | None,
        proxies: EnvoyProxies | None,
        netfilter: NetfilterRules | None,
        pilot: PilotDebug | None,
        compose: ComposeTexts | None = None,
        connect: ConsulConnect | None = None,
        rules: IstioRules | None = None,
        unreachable: Mapping[str, str] = _NONE,
    ) -> Self:
        """Join what there is. Raises MissingEvidenceError where there is nothing to join.

        `unreachable` are sidecars that are known of though no Envoy told anything, with the
        reason.
        """
        if docker is None and catalog is None and proxies is None and not unreachable:
            raise MissingEvidenceError("neither Docker nor Consul nor any Envoy told anything")
        containers = docker.containers if docker is not None else ()
        instances = catalog.instances if catalog is not None else ()
        components = tuple(
            Component(role, each) for each in containers if (role := role_of(each)) is not None
        )
        namespaces = Namespaces(containers)
        owners = _owners(instances, containers)
        registrator = _registrator(components)
        services = _services(catalog, owners, components)
        registered = (*instances, *(catalog.agent if catalog is not None else ()))
        if proxies is not None:
            unreachable = proxies.unreachable
        owning = frozenset(container.id for container in owners.values())
        sidecars = _Sidecars(namespaces, owners, _Destinations(registered), owning).join(
            proxies.proxies if proxies is not None else {},
            unreachable,
            netfilter.tables if netfilter is not None else {},
        )
        return cls(
            kinds=recognise(Signs(docker, catalog, proxies, pilot)),
            services=services,
            workloads=_workloads(namespaces, owners, services, sidecars, registrator),
            sidecars=sidecars,
            components=components,
            owners=owners,
            registrator=registrator,
            proxies=tuple(filter(is_proxy, registered)),
            compose_files=compose.files if compose is not None else _NONE,
            connect=connect,
            rules=rules,
            hidden=catalog.hidden if catalog is not None else "",
            networks=Networks.of(docker),
        )

    @property
    def is_empty(self) -> bool:
        """True where no part of a mesh is seen: Docker may run, and Consul hold only itself."""
        return not (
            self.kinds or self.applications or self.workloads or self.sidecars or self.components
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


def _registrator(components: Iterable[Component]) -> Registrator | None:
    found = [each.container for each in components if each.role is Role.REGISTRATOR]
    chosen = min(found, key=lambda each: not each.running, default=None)
    return None if chosen is None else Registrator.of(chosen)


def _owners(
    instances: Iterable[Instance], containers: Iterable[Container]
) -> Mapping[str, Container]:
    """Containers by instance id: by address, then by the name in Registrator's id.

    Addresses are given again when a container is replaced. So where Registrator's id names
    another container than the one that has the address, the id is right: the registration was
    left behind. Only a container that nobody's id names may have been renamed since.
    """
    by_address: dict[str, list[Container]] = defaultdict(list)
    by_name: dict[str, list[Container]] = defaultdict(list)
    for container in containers:
        by_name[container.name_on_host].append(container)
        if container.running:
            for address in container.own_addresses:
                by_address[address].append(container)
    instances = tuple(instances)
    named_by_ids = {named_in_id(instance.id) for instance in instances}
    # Registrator's ids begin with its own host name, which Docker makes of its id.
    hosts = {
        each.hostname: each.name.partition("@")[2]
        for each in containers
        if role_of(each) is Role.REGISTRATOR
    }
    owners: dict[str, Container] = {}
    for instance in instances:
        name = named_in_id(instance.id)
        here = by_address.get(instance.address, [])
        named = by_name.get(name, [])
        if named:
            begun = instance.id.partition(":")[0]
            owner = _on_its_host(hosts.get(begun, begun), named, here)
        else:
            free = [each for each in here if not name or each.name_on_host not in named_by_ids]
            exposing = [each for each in free if _exposes(each, instance.port)]
            # Two hosts may give the same address: then it tells nothing.
            owner = _only(exposing) if exposing else _only(free)
        if owner is not None:
            owners[instance.id] = owner
    return owners


def _on_its_host(
    host: str, named: Sequence[Container], here: Sequence[Container]
) -> Container | None:
    """Which of the containers of one name it is: by its address, else by its host."""
    if len(named) == 1:
        return named[0]
    beside = [each for each in named if each.name.partition("@")[2] == host]
    return _only([each for each in named if each in here]) or _only(beside)


def _only(found: Sequence[Container]) -> Container | None:
    return found[0] if len(found) == 1 else None


def _exposes(container: Container, port: int) -> bool:
    return any(number == port for number, _ in container.exposed)


def named_in_id(instance_id: str) -> str:
    """The container's name in an id of Registrator's (`<host>:<container>:<port>[:udp]`)."""
    match = re.fullmatch(_REGISTRATOR_ID, instance_id)
    return "" if match is None else match[1]


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


class _Destinations:
    """Whose sidecar an Envoy is where no container tells: by what Consul or its listeners say."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self.by_id = {instance.id: instance for instance in instances}
        self.by_address = {(each.address, each.port): each for each in self.by_id.values()}
        self.by_service: dict[str, list[Instance]] = defaultdict(list)
        for each in self.by_id.values():
            self.by_service[each.service].append(each)

    def instance_of(self, name: str, proxy: EnvoyProxy | None) -> str | None:
        """The id of the instance it stands beside, None where nothing tells.

        Consul starts an Envoy under the id of its registration, whatever a person calls it.
        """
        node = proxy.node.id if proxy is not None and proxy.node is not None else ""
        for registered in (self.by_id.get(name), self.by_id.get(node)):
            if registered is not None and registered.proxy is not None:
                return self._destination(registered, registered.proxy)
        for entry in proxy.deciding_listeners() if proxy is not None else ():
            # Pilot binds the inbound listener to the very address of the instance.
            instance = self.by_address.get((entry.listener.address, entry.listener.port))
            if instance is not None:
                if instance.proxy is not None:
                    return self._destination(instance, instance.proxy)
                return instance.id
        return None

    def _destination(self, registered: Instance, proxy: ProxyRegistration) -> str:
        """A registration may name its service alone: then it is the instance on its own node."""
        if proxy.destination_id:
            return proxy.destination_id
        served = self.by_service.get(proxy.destination, [])
        near = [each for each in served if each.node == registered.node]
        return next((each.id for each in near or served), proxy.destination)


class _Sidecars(msgspec.Struct, frozen=True):
    """Finds the Envoys of a mesh and whose sidecar each is."""

    namespaces: Namespaces
    owners: Mapping[str, Container]
    destinations: _Destinations
    registered: frozenset[str]
    """The ids of the containers that are somebody's instance."""

    def join(
        self,
        examined: Mapping[str, EnvoyProxy],
        unreachable: Mapping[str, str],
        tables: Mapping[str, NatTable],
    ) -> tuple[Sidecar, ...]:
        """Every Envoy that a container, a dump or a failed attempt tells of, by name."""
        found = []
        for container in self.namespaces.containers.values():
            if not runs_envoy(container):
                continue
            name = container.name
            state = SidecarState.EXAMINED if name in examined else SidecarState.UNREACHABLE
            dead = self.namespaces.is_dead(container)
            found.append(
                Sidecar(
                    name=name,
                    state=state if container.running else SidecarState.DOWN,
                    container=container,
                    proxy=examined.get(name),
                    workload=None if dead else self._workload(container, examined.get(name)),
                    namespace_is_dead=dead,
                    reason=unreachable.get(name, "no config_dump.json was recorded"),
                    nat=tables.get(name),
                )
            )
        known = {sidecar.name for sidecar in found}
        for name in (examined.keys() | unreachable.keys()) - known:
            proxy = examined.get(name)
            found.append(
                Sidecar(
                    name=name,
                    state=SidecarState.UNREACHABLE if proxy is None else SidecarState.EXAMINED,
                    proxy=proxy,
                    workload=self._destination(name, proxy),
                    reason=unreachable.get(name, ""),
                    nat=tables.get(name),
                )
            )
        return tuple(sorted(found, key=lambda sidecar: sidecar.name))

    def _workload(self, sidecar: Container, proxy: EnvoyProxy | None) -> str | None:
        """By namespace: a registered application first, for one may only hold it open."""
        others = [each for each in self.namespaces.beside(sidecar) if _is_application(each)]
        for each in others:
            if each.id in self.registered:
                return each.name
        return others[0].name if others else self._destination(sidecar.name, proxy)

    def _destination(self, name: str, proxy: EnvoyProxy | None) -> str | None:
        instance = self.destinations.instance_of(name, proxy)
        owner = self.owners.get(instance) if instance is not None else None
        return instance if owner is None else owner.name


def _is_application(container: Container) -> bool:
    """True of what is neither a proxy nor anything that serves the mesh itself."""
    return not (
        runs_envoy(container) or installs_redirect(container) or role_of(container) is not None
    )


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
    namespaces: Namespaces,
    owners: Mapping[str, Container],
    services: Mapping[str, Service],
    sidecars: Iterable[Sidecar],
    registrator: Registrator | None,
) -> tuple[Workload, ...]:
    owned, unowned = _by_owner(services, owners)
    beside: dict[str, list[Sidecar]] = defaultdict(list)
    by_container: dict[str, Sidecar] = {}
    for each in sidecars:
        if each.workload is not None:
            beside[each.workload].append(each)
        if each.container is not None and not each.namespace_is_dead:
            by_container[each.container.id] = each
    workloads = []
    for container in namespaces.containers.values():
        if not _is_application(container):
            continue
        expected = (
            registrations(container, registrator, namespaces.containers)
            if registrator is not None and container.running
            else ()
        )
        own = tuple(owned.get(container.id, ()))
        others = namespaces.beside(container)
        inits = tuple(each for each in others if installs_redirect(each))
        found = {each.name: each for each in beside.get(container.name, ())}
        if own or expected:
            # Several applications of one namespace have its sidecar in common.
            common = (by_container[each.id] for each in others if each.id in by_container)
            found |= {each.name: each for each in common}
        its_sidecars = tuple(found[name] for name in sorted(found))
        # A container that nobody registers and nothing stands beside is no part of the mesh.
        if own or expected or its_sidecars or (inits and namespaces.host(container) is container):
            workloads.append(
                Workload(
                    name=container.name,
                    container=container,
                    instances=own,
                    sidecars=its_sidecars,
                    inits=inits,
                    expected=expected,
                )
            )
    # What Registrator registered and no container is, was left behind; the rest may well run
    # without Docker.
    alone: dict[str, list[Instance]] = defaultdict(list)
    for instance in unowned:
        if not (namespaces.containers and named_in_id(instance.id)):
            alone[instance.id].append(instance)
    workloads.extend(
        Workload(
            name=key,
            container=None,
            instances=tuple(instances),
            sidecars=tuple(beside.get(key, ())),
            inits=(),
            expected=(),
        )
        for key, instances in alone.items()
    )
    return tuple(sorted(workloads, key=lambda workload: workload.name))
