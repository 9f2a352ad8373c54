"""Docker's engine: containers, networks, images and logs as Docker's own commands give them."""

import posixpath
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.addresses import in_network
from meshdoctor.evidence.interface import (
    Documents,
    MissingEvidenceError,
    Problem,
    decode_each,
    decode_each_if_there,
    decode_if_there,
    not_recorded,
)
from meshdoctor.evidence.times import moment

CONTAINERS: Final = "docker/containers.json"
IMAGES: Final = "docker/images.json"
NETWORKS: Final = "docker/networks.json"
VERSION: Final = "docker/version.json"

_NAMESPACE_OF: Final = "container:"
_LAST_PORT: Final = 65535
_SHORT_ID: Final = 12
"""Letters of an id that Docker itself prints."""


EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 # not bound here
"""How Docker, and Compose, write that a port is published at all addresses of the host."""


class PublishedPort(msgspec.Struct, frozen=True):
    """A container's port on the host."""

    port: int
    protocol: str
    host_address: str
    host_port: int

    @property
    def local_address(self) -> str:
        """Where programs on the host itself reach it."""
        return "127.0.0.1" if self.host_address in EVERYWHERE else self.host_address


class Container(msgspec.Struct, frozen=True):
    """One container, running or not.

    `pointer` leads to it in `docker/containers.json`. `command` is the path and its arguments;
    `addresses` are by network name, without the empty ones; `exposed` are (port, protocol);
    `pid` is 0 unless it runs. Times are Docker's own strings. `published` is what stands,
    `bindings` what was asked for, also while it does not run. `aliases` are the names it goes by
    beside its own, by network, the networks of a stopped container included; `links` and
    `extra_hosts` what it calls others, by that name: a container, an address. What nobody told,
    as of one that a Compose file would start, is empty.
    """

    id: str
    name: str
    image: str = ""
    image_id: str = ""
    status: str = ""
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    restart_count: int = 0
    created_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    pid: int = 0
    network_mode: str = ""
    addresses: Mapping[str, str] = {}
    bridge_address: str = ""
    exposed: tuple[tuple[int, str], ...] = ()
    published: tuple[PublishedPort, ...] = ()
    bindings: tuple[PublishedPort, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = {}
    links: Mapping[str, str] = {}
    extra_hosts: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    command: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    privileged: bool = False
    user: str = ""
    hostname: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    pointer: str = ""

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def own_addresses(self) -> frozenset[str]:
        """Its addresses on all of Docker's networks, the default bridge among them."""
        return frozenset({self.bridge_address, *self.addresses.values()} - {""})

    @property
    def name_on_host(self) -> str:
        """What Docker calls it there: of several hosts, one name stands with `@` and the host."""
        return self.name.partition("@")[0]

    @property
    def network_container(self) -> str:
        """Id or name of the container whose network namespace this one shares, else ""."""
        if not self.network_mode.startswith(_NAMESPACE_OF):
            return ""
        return self.network_mode.removeprefix(_NAMESPACE_OF)

    @property
    def image_name(self) -> str:
        """The image without registry, path, tag or digest: `registrator`."""
        return self.image.partition("@")[0].rpartition("/")[2].partition(":")[0]

    @property
    def image_repository(self) -> str:
        """The image without tag or digest: `gliderlabs/registrator`."""
        reference = self.image.partition("@")[0]
        path, slash, name = reference.rpartition("/")
        return f"{path}{slash}{name.partition(':')[0]}"

    @property
    def image_tag(self) -> str:
        """The tag as Docker understands it: `latest` where none is written, "" for a digest."""
        reference, at, _ = self.image.partition("@")
        name = reference.rpartition("/")[2]
        if ":" in name:
            return name.partition(":")[2]
        return "" if at else "latest"

    @property
    def compose_project(self) -> str:
        """Its Compose project, "" where Compose did not start it."""
        return self.labels.get("com.docker.compose.project", "")

    @property
    def compose_service(self) -> str:
        """Its name in the Compose file, "" where Compose did not start it."""
        return self.labels.get("com.docker.compose.service", "")

    @property
    def compose_files(self) -> tuple[str, ...]:
        """The Compose files it was started from, as Compose wrote them into its labels."""
        files = self.labels.get("com.docker.compose.project.config_files", "")
        return tuple(file.strip() for file in files.split(",") if file.strip())

    @property
    def compose_paths(self) -> tuple[str, ...]:
        """The same by full path: older versions of Compose name them from the project's folder."""
        folder = self.labels.get("com.docker.compose.project.working_dir", "")
        return tuple(
            posixpath.normpath(posixpath.join(folder, file)) for file in self.compose_files
        )

    @property
    def compose_version(self) -> str:
        """The version of the Compose that started it, as 1.29.2, "" where none did."""
        return self.labels.get("com.docker.compose.version", "").removeprefix("v")


class Image(msgspec.Struct, frozen=True):
    """One image: its id, and the names with a tag that it goes by."""

    id: str
    tags: tuple[str, ...]
    created: str


_OF_ONE_HOST: Final = "bridge"


class Network(msgspec.Struct, frozen=True):
    """One network. `gateways` are the host's own addresses on it, `subnets` in CIDR form.

    `driver` is bridge for a network of this host alone; overlay, macvlan and others reach further.
    """

    name: str
    driver: str
    gateways: tuple[str, ...]
    subnets: tuple[str, ...]
    pointer: str

    @property
    def is_of_this_host(self) -> bool:
        """True of one that no other host's containers are on."""
        return self.driver == _OF_ONE_HOST

    def holds(self, address: str) -> bool:
        """True of an address in one of its subnets; what cannot be read holds nothing."""
        return any(in_network(address, each) for each in self.subnets)


class DockerEngine(msgspec.Struct, frozen=True):
    """What the Docker engine told.

    `logs` holds last lines, by container name; `networks` are by name, none where they were not
    recorded; `asked` is when, None where nobody wrote it down.
    """

    title: ClassVar[str] = "the Docker engine"
    hint: ClassVar[str] = (
        "start Docker, or point meshdoctor at its engine with --docker-host or DOCKER_HOST"
    )

    containers: tuple[Container, ...]
    images: Mapping[str, Image]
    networks: Mapping[str, Network]
    logs: Mapping[str, str]
    version: str
    asked: datetime | None
    problems: tuple[Problem, ...]
    _by_name: Mapping[str, Container] = msgspec.field(default_factory=dict)
    _by_prefix: Mapping[str, Sequence[Container]] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        by_name: dict[str, Container] = {}
        by_prefix: dict[str, list[Container]] = {}
        for container in self.containers:
            by_name.setdefault(container.id, container)
            by_name.setdefault(container.name, container)
            by_prefix.setdefault(container.id[:_SHORT_ID], []).append(container)
        msgspec.structs.force_setattr(self, "_by_name", by_name)
        msgspec.structs.force_setattr(self, "_by_prefix", by_prefix)

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode docker/*. A container that does not decode costs only itself."""
        problems: list[Problem] = []
        try:
            containers = [
                _container(inspected, pointer)
                for pointer, inspected in decode_each(documents, CONTAINERS, _Inspected, problems)
            ]
        except MissingEvidenceError as error:
            raise not_recorded(documents, "docker/", error.reason, cls.hint) from error
        containers.sort(key=lambda container: container.name)
        return cls(
            containers=tuple(containers),
            images=_images(documents, problems),
            networks=_networks(documents, problems),
            logs=_logs(documents),
            version=_version(documents, problems),
            asked=moment(documents.created),
            problems=tuple(problems),
        )

    def container(self, id_or_name: str) -> Container | None:
        """The container of that id, id prefix of twelve or more letters, or name."""
        found = self._by_name.get(id_or_name)
        if found is not None or len(id_or_name) < _SHORT_ID:
            return found
        alike = self._by_prefix.get(id_or_name[:_SHORT_ID], ())
        return next((each for each in alike if each.id.startswith(id_or_name)), None)


class _State(msgspec.Struct, rename="pascal", gc=False):
    status: str = ""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")


class _Binding(msgspec.Struct, rename="pascal", gc=False):
    host_ip: str = ""
    host_port: str = ""


class _HostConfig(msgspec.Struct, rename="pascal", gc=False):
    network_mode: str = ""
    cap_add: list[str] | None = None
    privileged: bool = False
    dns: list[str] | None = None
    dns_search: list[str] | None = None
    binds: list[str] | None = None
    links: list[str] | None = None
    extra_hosts: list[str] | None = None
    port_bindings: dict[str, list[_Binding] | None] | None = None


class _Config(msgspec.Struct, rename="pascal", gc=False):
    hostname: str = ""
    image: str = ""
    user: str = ""
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    exposed_ports: dict[str, msgspec.Raw] | None = None


class _Network(msgspec.Struct, gc=False):
    address: str = msgspec.field(default="", name="IPAddress")
    aliases: list[str] | None = msgspec.field(default=None, name="Aliases")
    links: list[str] | None = msgspec.field(default=None, name="Links")


class _NetworkSettings(msgspec.Struct, rename="pascal", gc=False):
    address: str = msgspec.field(default="", name="IPAddress")
    networks: dict[str, _Network | None] | None = None
    ports: dict[str, list[_Binding] | None] | None = None


class _Inspected(msgspec.Struct, rename="pascal", gc=False):
    """`docker inspect`: {"Id": "5cd1...", "Name": "/consul_details-v1_1", "State": {...}}."""

    id: str
    name: str
    created: str = ""
    path: str = ""
    args: list[str] | None = None
    image: str = ""
    restart_count: int = 0
    state: _State = msgspec.field(default_factory=_State)
    host_config: _HostConfig = msgspec.field(default_factory=_HostConfig)
    config: _Config = msgspec.field(default_factory=_Config)
    network_settings: _NetworkSettings = msgspec.field(default_factory=_NetworkSettings)


def _container(inspected: _Inspected, pointer: str) -> Container:
    config, host, state = inspected.config, inspected.host_config, inspected.state
    settings = inspected.network_settings
    networks = settings.networks or {}
    ports = settings.ports or {}
    exposed = {_port(key) for key in (*(config.exposed_ports or {}), *ports)}
    pairs = (variable.partition("=") for variable in config.env or ())
    return Container(
        id=inspected.id,
        name=inspected.name.removeprefix("/"),
        image=config.image,
        image_id=inspected.image,
        status=state.status,
        exit_code=state.exit_code,
        error=state.error,
        oom_killed=state.oom_killed,
        restart_count=inspected.restart_count,
        created_at=inspected.created,
        started_at=state.started_at,
        finished_at=state.finished_at,
        pid=state.pid,
        network_mode=host.network_mode,
        addresses={
            name: network.address
            for name, network in sorted(networks.items())
            if network is not None and network.address
        },
        bridge_address=settings.address,
        exposed=tuple(sorted(port for port in exposed if port[0])),
        published=_published(ports),
        bindings=_published(host.port_bindings or {}),
        aliases={
            name: tuple((network.aliases if network is not None else None) or ())
            for name, network in sorted(networks.items())
        },
        links=_links(host, networks),
        # `host:address`, or with `=` in newer engines; an address may have colons of its own.
        extra_hosts={
            name: address
            for name, _, address in (
                each.replace("=", ":", 1).partition(":") for each in host.extra_hosts or ()
            )
        },
        environment={name: value for name, _, value in pairs},
        labels=config.labels or {},
        command=tuple(part for part in (inspected.path, *(inspected.args or ())) if part),
        capabilities=tuple(host.cap_add or ()),
        privileged=host.privileged,
        user=config.user,
        hostname=config.hostname,
        dns=tuple(host.dns or ()),
        dns_search=tuple(host.dns_search or ()),
        binds=tuple(host.binds or ()),
        pointer=pointer,
    )


def _published(ports: Mapping[str, Sequence[_Binding] | None]) -> tuple[PublishedPort, ...]:
    return tuple(
        PublishedPort(*_port(key), binding.host_ip, _number(binding.host_port))
        for key, bindings in sorted(ports.items())
        for binding in bindings or ()
        if _port(key)[0] and _number(binding.host_port)
    )


def _links(host: _HostConfig, networks: Mapping[str, _Network | None]) -> Mapping[str, str]:
    """`/consul:/pilot/registry` on the default bridge, `consul:registry` on other networks."""
    links = {}
    for each in host.links or ():
        linked, _, alias = each.partition(":")
        links[alias.rpartition("/")[2]] = linked.removeprefix("/")
    for network in networks.values():
        for each in (network.links if network is not None else None) or ():
            linked, _, alias = each.partition(":")
            links[alias or linked] = linked
    return links


def _port(key: str) -> tuple[int, str]:
    """`9080/tcp` as (9080, "tcp"); (0, "") for what is no port."""
    digits, _, protocol = key.partition("/")
    number = _number(digits)
    return (number, protocol or "tcp") if number else (0, "")


def _number(digits: str) -> int:
    """The port that `digits` write, 0 where they write none."""
    short = len(digits) <= len(str(_LAST_PORT))
    number = int(digits) if short and digits.isascii() and digits.isdecimal() else 0
    return number if number <= _LAST_PORT else 0


class _ImageInspected(msgspec.Struct, rename="pascal", gc=False):
    id: str
    repo_tags: list[str] | None = None
    created: str = ""


def _images(documents: Documents, problems: list[Problem]) -> Mapping[str, Image]:
    images = decode_each_if_there(documents, IMAGES, _ImageInspected, problems)
    return {
        image.id: Image(image.id, tuple(image.repo_tags or ()), image.created)
        for _, image in images or ()
    }


class _Pool(msgspec.Struct, rename="pascal", gc=False):
    subnet: str = ""
    gateway: str = ""


class _AddressManagement(msgspec.Struct, rename="pascal", gc=False):
    config: list[_Pool] | None = None


class _NetworkInspected(msgspec.Struct, rename="pascal", gc=False):
    """`docker network inspect`: {"Name": "mesh", "IPAM": {"Config": [{"Gateway": ...}]}}."""

    name: str
    driver: str = ""
    pools: _AddressManagement = msgspec.field(default_factory=_AddressManagement, name="IPAM")


def _networks(documents: Documents, problems: list[Problem]) -> Mapping[str, Network]:
    networks = decode_each_if_there(documents, NETWORKS, _NetworkInspected, problems)
    return {
        network.name: Network(
            name=network.name,
            driver=network.driver,
            # Docker writes the gateway with the subnet's length where it chose it itself.
            gateways=tuple(
                pool.gateway.partition("/")[0]
                for pool in network.pools.config or ()
                if pool.gateway
            ),
            subnets=tuple(pool.subnet for pool in network.pools.config or () if pool.subnet),
            pointer=pointer,
        )
        for pointer, network in networks or ()
    }


def _logs(documents: Documents) -> Mapping[str, str]:
    logs = {}
    for name in documents.names("docker/logs/"):
        container = layout.name_of(name.rpartition("/")[2].removesuffix(".log"))
        logs[container] = documents.read(name).decode("utf-8", "replace")
    return logs


class _Version(msgspec.Struct, rename="pascal", gc=False):
    version: str = ""


def _version(documents: Documents, problems: list[Problem]) -> str:
    found = decode_if_there(documents, VERSION, _Version, problems)
    return "" if found is None else found.version
