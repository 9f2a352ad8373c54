"""What Compose files would start: who would be registered as what, and who would stand beside."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Self

import msgspec

from meshdoctor.evidence.compose import (
    ComposeFiles,
    ComposeService,
    Place,
    PlannedPort,
    Setting,
    ports_in,
)
from meshdoctor.evidence.docker import Container, PublishedPort
from meshdoctor.evidence.interface import Problem
from meshdoctor.evidence.versions import minor
from meshdoctor.kinds.istio_consul import takes_missing_for_http
from meshdoctor.topology.mesh import Component
from meshdoctor.topology.registrator import (
    Registration,
    Registrator,
    keeps_attributes,
    registrations,
)
from meshdoctor.topology.roles import Role, installs_redirect, programs, role_of, runs_envoy

_SETTING: Final = re.compile(r"SERVICE_(?:([0-9]{1,5})_)?[A-Z]", re.IGNORECASE)
_PILOTS_PROXIES: Final = frozenset({"proxy", "proxy_debug", "proxyv2"})
_BOOKINFO: Final = re.compile(r"(?:^|/)examples-bookinfo-([a-z]+)")
_REVIEWS_WITH_HTTPS: Final = (1, 10)


class PlannedWorkload(msgspec.Struct, frozen=True):
    """One application that the files would start.

    `expected` is what Registrator would register for it. `ports_known` is False where only its
    image tells which ports it exposes.
    """

    service: ComposeService
    container: Container
    expected: tuple[Registration, ...]
    sidecars: tuple[Container, ...]
    inits: tuple[Container, ...]
    ports_known: bool

    @property
    def name(self) -> str:
        """Its name in the Compose file."""
        return self.service.name

    @property
    def has_settings(self) -> bool:
        """True of one that says anything to Registrator, and so is meant to be registered."""
        names = (*self.container.environment, *self.container.labels)
        return any(map(_SETTING.match, names))

    def written(self, key: str, port: int) -> Setting | None:
        """Where SERVICE_<key> stands that counts for a port, the key in lower case."""
        wanted = (f"service_{port}_{key}", f"service_{key}")
        for name in wanted:
            for settings in (self.service.environment, self.service.labels):
                for each, setting in settings.items():
                    if each.lower() == name:
                        return setting
        return None


class PlannedInstance(msgspec.Struct, frozen=True):
    """One instance that would stand in Consul.

    `declared` is the protocol that its container declares; `protocol` what Consul would have.
    """

    workload: PlannedWorkload
    registration: Registration
    declared: str | None
    protocol: str | None

    @property
    def service(self) -> str:
        return self.registration.name

    @property
    def port(self) -> int:
        return self.registration.port


class Plan(msgspec.Struct, frozen=True):
    """The mesh that Compose files describe. Nothing of it was seen running.

    `registrator` is None where the files hold none; then the rules of one that runs with
    `-internal` and keeps all metadata are taken. `attributes_kept` is None where nobody knows.
    `registered` are the control plane's own registrations, by the component's name.
    `astray` are sidecars and init containers whose application is in none of the files.
    """

    files: ComposeFiles
    components: tuple[Component, ...]
    registrator: Registrator | None
    attributes_kept: bool | None
    workloads: tuple[PlannedWorkload, ...]
    instances: tuple[PlannedInstance, ...]
    sidecars: tuple[Container, ...]
    registered: Mapping[str, tuple[Registration, ...]]
    astray: tuple[Container, ...]

    @classmethod
    def of(cls, files: ComposeFiles) -> Self:
        """Work out what would stand in Consul and beside whom."""
        containers = {name: _container(each, files) for name, each in files.services.items()}
        components = tuple(
            Component(role, each)
            for each in containers.values()
            if (role := role_of(each)) is not None
        )
        own = [each.container for each in components if each.role is Role.REGISTRATOR]
        registrator = Registrator.of(own[0]) if own else None
        beside: dict[str, list[Container]] = defaultdict(list)
        for each in containers.values():
            if runs_envoy(each) or installs_redirect(each):
                beside[each.network_container].append(each)
        attending = {each.name for group in beside.values() for each in group}
        parts = {each.name for each in components}
        rules = registrator or _usual_registrator()
        workloads = tuple(
            PlannedWorkload(
                service=files.services[name],
                container=each,
                expected=registrations(each, rules, containers),
                sidecars=tuple(one for one in beside[name] if runs_envoy(one)),
                inits=tuple(one for one in beside[name] if installs_redirect(one)),
                ports_known=bool(each.exposed),
            )
            for name, each in sorted(containers.items())
            if name not in parts and name not in attending
        )
        kept = keeps_attributes(own[0]) if own else True
        return cls(
            files=files,
            components=components,
            registrator=registrator,
            attributes_kept=kept,
            workloads=workloads,
            instances=tuple(_instances(workloads, dropped=kept is False)),
            sidecars=tuple(each for each in containers.values() if runs_envoy(each)),
            registered={
                each.name: found
                for each in components
                if (found := registrations(each.container, rules, containers))
            },
            astray=tuple(
                each
                for name, group in beside.items()
                if name and name not in containers
                for each in group
            ),
        )

    @property
    def is_mesh(self) -> bool:
        """True where something in the files belongs to a mesh."""
        return bool(
            self.sidecars
            or self.astray
            or any(each.has_settings for each in self.workloads)
            or any(
                each.role in {Role.CONSUL, Role.PILOT, Role.REGISTRATOR}
                for each in self.components
            )
        )

    @property
    def is_for_pilot(self) -> bool:
        """True where Pilot is in the files or its sidecars are, or nothing tells otherwise.

        The latter of applications alone; a Consul or a Registrator without Pilot is for others.
        """
        if self.component(Role.PILOT) is not None:
            return True
        if self.sidecars:
            return any(
                each.image_name in _PILOTS_PROXIES or "pilot-agent" in programs(each)
                for each in self.sidecars
            )
        return self.component(Role.CONSUL) is None and self.registrator is None

    @property
    def services(self) -> tuple[str, ...]:
        """The applications that Consul would list."""
        return tuple(sorted({each.service for each in self.instances}))

    def component(self, role: Role) -> Component | None:
        """The first with that part."""
        return next((each for each in self.components if each.role is role), None)

    def on_port(self, port: int) -> Mapping[str, tuple[PlannedInstance, ...]]:
        """The services that would have a port, each with its instances there."""
        found: dict[str, list[PlannedInstance]] = defaultdict(list)
        for each in self.instances:
            if each.port == port and each.registration.protocol == "tcp":
                found[each.service].append(each)
        return {name: tuple(group) for name, group in sorted(found.items())}

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(sorted({each.port for each in self.instances}))

    @property
    def pilot_version(self) -> str:
        """The tag of Pilot's image, "" where the files hold no Pilot."""
        pilot = self.component(Role.PILOT)
        return "" if pilot is None else pilot.container.image_tag

    @property
    def pilot_called(self) -> str:
        """Pilot with its version, as a sentence names it."""
        known = minor(self.pilot_version) is not None
        return f"Pilot {self.pilot_version}" if known else "Pilot"

    @property
    def ignores_metadata(self) -> bool:
        """True of Pilot 1.0, which takes a missing protocol for HTTP and reads none."""
        return takes_missing_for_http(self.pilot_version)

    def place(self, name: str) -> Place:
        """Where a service of the files is defined."""
        return self.files.services[name].place

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What the files do not tell, and what was taken for granted instead."""
        return (*self.files.problems, *self._assumptions())

    def _assumptions(self) -> Iterator[Problem]:
        first = self.files.files[0] if self.files.files else "the files"
        for each in self.files.left_out.values():
            profiles = ", ".join(one.value for one in each.profiles)
            yield Problem(
                str(each.place), f"{each.name} was left out: its profile {profiles} is not enabled"
            )
        if self.registrator is None:
            yield Problem(
                first,
                "there is no Registrator; it was taken for granted that one runs with -internal "
                "and writes all metadata",
            )
        elif self.attributes_kept is None:
            container = self.registrator.container
            yield Problem(
                str(self.place(container.name)),
                f"of {container.image or 'an image that is built'} it is not known whether it "
                "writes metadata to Consul; it was taken for granted that it does",
            )
        if self.component(Role.PILOT) is None:
            yield Problem(first, "there is no Pilot; the rules of 1.1 and later were taken")
        elif minor(self.pilot_version) is None:
            yield Problem(
                first, "Pilot's tag names no version; the rules of 1.1 and later were taken"
            )
        for workload in self.workloads:
            if workload.has_settings and not workload.ports_known:
                image = workload.container.image or "its image, which is built,"
                yield Problem(
                    str(workload.service.place),
                    f"which ports {workload.name} exposes only {image} tells; give it `expose`",
                )


def _instances(
    workloads: Sequence[PlannedWorkload], *, dropped: bool
) -> Iterator[PlannedInstance]:
    for workload in workloads:
        for registration in workload.expected:
            protocol = registration.attributes.get("protocol") or None
            yield PlannedInstance(workload, registration, protocol, None if dropped else protocol)


def _usual_registrator() -> Registrator:
    return Registrator(
        container=Container("registrator", "registrator"),
        internal=True,
        explicit=False,
        host_ip="",
        hostname="",
    )


# ---------------------------------------------------------------- a service as a container


def _container(service: ComposeService, files: ComposeFiles) -> Container:
    """As `docker inspect` would have it, but under its name in the file."""
    image = service.image.value if service.image is not None else ""
    command = [each.value for each in (*(service.entrypoint or ()), *(service.command or ()))]
    networks = {
        name: (service.name, *each.aliases) for name, each in sorted(service.networks.items())
    }
    published = tuple(_published(service.ports))
    return Container(
        id=service.name,
        name=service.name,
        image=image,
        network_mode=_network_mode(service, files),
        addresses={name: each.address for name, each in service.networks.items() if each.address},
        exposed=_exposed(service, image),
        published=published,
        bindings=published,
        aliases=networks or {"default": (service.name,)},
        environment={name: each.value for name, each in service.environment.items()},
        labels={name: each.value for name, each in service.labels.items()},
        # Docker puts the image's own program before the command; images are named for theirs.
        command=tuple(command if service.entrypoint else (_program(image), *command)),
        capabilities=tuple(each.value for each in service.capabilities),
        privileged=service.privileged is not None
        and service.privileged.value.lower() in {"true", "yes", "on"},
        user=service.user.value if service.user is not None else "",
        hostname=service.hostname.value if service.hostname is not None else "",
        dns=tuple(each.value for each in service.dns),
        dns_search=tuple(each.value for each in service.dns_search),
    )


def _published(ports: Iterable[PlannedPort]) -> Iterator[PublishedPort]:
    for each in ports:
        yield PublishedPort(each.port, each.protocol, each.host_address, each.host_port)


def _program(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _network_mode(service: ComposeService, files: ComposeFiles) -> str:
    """With `container:` and a service's name where the files have the other container."""
    mode = service.network_mode.value if service.network_mode is not None else ""
    kind, _, other = mode.partition(":")
    if kind == "service":
        return f"container:{other}"
    if kind == "container":
        found = files.service_of(other)
        return f"container:{found.name if found is not None else other}"
    return mode


def _exposed(service: ComposeService, image: str) -> tuple[tuple[int, str], ...]:
    """What the file exposes or publishes, what is known of the image, and what settings name."""
    found = {(each.port, each.protocol) for each in service.ports}
    for setting in service.expose:
        protocol = setting.value.partition("/")[2] or "tcp"
        found |= {(port, protocol) for port in ports_in(setting.value) or ()}
    found |= {(port, "tcp") for port in _known_ports(image)}
    if not found:
        # Who writes SERVICE_9080_NAME says that Registrator meets that port.
        for name in (*service.environment, *service.labels):
            match = _SETTING.match(name)
            if match is not None and match[1] and (port := ports_in(match[1])) is not None:
                found.add((port[0], "tcp"))
    return tuple(sorted(found))


def _known_ports(image: str) -> tuple[int, ...]:
    """The ports that an image is known to expose, () for others.

    Istio's Pilot: `EXPOSE` in its Dockerfile of 1.1; Bookinfo's reviews have a port for HTTPS
    since 1.10.
    """
    path, _, tag = image.rpartition("/")[2].partition(":")
    if path == "pilot":
        return 15003, 15005, 15007
    match = _BOOKINFO.search(image)
    if match is None:
        return ()
    version = minor(tag)
    if match[1] == "reviews" and version is not None:
        return (9080, 9443) if version >= _REVIEWS_WITH_HTTPS else (9080,)
    # MySQL and MongoDB are Bookinfo's too, on ports of their own.
    return (9080,) if match[1] in {"details", "productpage", "ratings", "reviews"} else ()
