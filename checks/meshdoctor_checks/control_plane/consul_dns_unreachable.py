"""MD105: containers ask for names where no Consul answers."""

import enum
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import DNS_DOMAIN
from meshdoctor.evidence.docker import EVERYWHERE, NETWORKS, Container, DockerEngine
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, Role, Workload
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Element
from meshdoctor_checks.names import Names
from meshdoctor_checks.wording import count, listing, verb

_DNS: Final = 53
_CONSULS: Final = 8600
_DNS_PORT: Final = r"-dns-port[= ](\d{1,5})\b"
_GATEWAY: Final = "DOCKER_GATEWAY"
"""By what Istio's own Compose file says where Consul's DNS is published."""
_TAKEN: Final = r":53\b.*(?:address already in use|port is already allocated)"


class _Server(enum.Enum):
    """What stands at an address that containers send their questions to."""

    CONSUL = enum.auto()
    NOBODY = enum.auto()
    SOMEBODY = enum.auto()
    """Another server, or one that Docker does not show: it may well know Consul's names."""


class _Sight:
    """What Docker shows of Consul's DNS."""

    def __init__(self, consuls: Sequence[Container], docker: DockerEngine) -> None:
        self.consuls = consuls
        self.networks = docker.networks
        self._publishing = [
            (each, published)
            for each in docker.containers
            for published in each.published
            if (published.host_port, published.protocol) == (_DNS, "udp")
        ]
        self._owners: dict[str, list[Container]] = defaultdict(list)
        for each in docker.containers:
            for address in each.own_addresses:
                self._owners[address].append(each)

    def at(self, address: str, asking: Container) -> _Server:
        """What stands at an address, as far as Docker tells."""
        everywhere = self.is_hosts(address)
        publishing = [
            container
            for container, published in self._publishing
            if published.host_address == address
            or (everywhere and published.host_address in EVERYWHERE)
        ]
        if any(each in self.consuls for each in publishing):
            return _Server.CONSUL
        if publishing:
            return _Server.SOMEBODY
        if owners := self._owners.get(address):
            theirs = [each for each in owners if each in self.consuls]
            if not theirs:
                return _Server.SOMEBODY
            return _Server.CONSUL if _dns_port(theirs[0]) == _DNS else _Server.NOBODY
        if everywhere:
            return _Server.SOMEBODY if self.may_be_forwarded() else _Server.NOBODY
        return _Server.NOBODY if self._is_free(address, asking) else _Server.SOMEBODY

    def is_hosts(self, address: str) -> bool:
        """True of the host's own address on one of Docker's networks."""
        return any(address in each.gateways for each in self.networks.values())

    def may_be_forwarded(self) -> bool:
        """True where a server on the host itself can reach Consul's DNS, and pass questions on."""
        return any(
            each.network_mode == "host"
            or any(
                (one.port, one.protocol) == (_dns_port(each), "udp") and one.host_port != _DNS
                for one in each.published
            )
            for each in self.consuls
        )

    def _is_free(self, address: str, asking: Container) -> bool:
        """True of an address on the container's own network that nobody has."""
        own = (self.networks.get(name) for name in asking.aliases)
        return any(
            each is not None and each.is_of_this_host and each.holds(address) for each in own
        )


@check(
    code="MD105",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD101", "MD602"),
    plan=plan_of("control_plane", "consul_dns_unreachable"),
)
def consul_dns_unreachable(mesh: Mesh, docker: DockerEngine) -> Iterator[Finding | Fact]:
    """Containers ask for names where no Consul answers, or without Consul's search domain.

    ## Why it matters

    Applications call `reviews` or `reviews.service.consul`; the answer comes from Consul's DNS. A
    container whose `dns:` points to an address without it resolves no service at all. Without
    the search domain `service.consul` only the long names resolve.

    ## How it is found

    The `dns:` of each application's container is compared with where Docker publishes port 53 of
    the Consul container. It is an error where the address is the host's on a Docker network, or
    Consul's own, or nobody's, and no Consul answers there on port 53; addresses elsewhere, other
    DNS servers and hosts that may pass questions on are not judged. Where Consul could not start
    because port 53 is taken on the host, `DOCKER_GATEWAY` was not set: Istio's Compose file then
    asks for port 53 of every address, and most hosts have a server of their own on one.

    A missing search domain is an error where other applications of the mesh have it, else a
    warning: applications may use the long names. Names that Docker's own DNS knows are no matter.

    ## How to fix it

    Publish `8600/udp` of Consul as port 53 of the address that containers ask, which on Linux is
    the network's gateway: in Istio's Compose file by `DOCKER_GATEWAY=172.28.0.1:`.
    """
    consuls = tuple(each.container for each in mesh.components if each.role is Role.CONSUL)
    asking = [
        each for each in mesh.workloads if each.container is not None and _asks(each.container)
    ]
    if not consuls:
        raise CannotLookError("no container of Consul is seen in Docker")
    if not asking:
        raise CannotLookError("no application has a DNS server of its own choice")
    if not any(each.running or _is_port_taken(each) for each in consuls):
        # Why it does not run is another question, and nobody answers until it does.
        raise CannotLookError(f"{consuls[0].name} does not run, so nobody answers anywhere")
    sight = _Sight(consuls, docker)
    served: list[Workload] = []
    astray: dict[str, list[Workload]] = defaultdict(list)
    for workload in asking:
        container = _container(workload)
        found = {each: sight.at(each, container) for each in container.dns}
        if set(found.values()) == {_Server.NOBODY}:
            astray[container.dns[0]].append(workload)
        elif _Server.CONSUL in found.values():
            served.append(workload)
    for address, workloads in sorted(astray.items()):
        yield _unanswered(mesh, sight, address, workloads, served)
    missing = list(_without_search(mesh, docker, served))
    if missing:
        yield _short_names(mesh, missing, searched=len(missing) < len(served))
    if served and not astray and not missing:
        addresses = sorted({_container(each).dns[0] for each in served})
        yield Fact(
            f"{count(len(served), 'application')} {verb(len(served), 'asks', 'ask')} Consul's "
            f"DNS at {listing(addresses)}"
        )


def _container(workload: Workload) -> Container:
    assert workload.container is not None  # noqa: S101 # only those with one are looked at
    return workload.container


def _asks(container: Container) -> bool:
    """True of a container that was given a DNS server, and has a network to ask it over."""
    apart = container.network_mode in ("host", "none") or bool(container.network_container)
    return container.running and bool(container.dns) and not apart


def _is_port_taken(consul: Container) -> bool:
    """True where it could not start, because somebody else has the port of its DNS."""
    return not consul.running and re.search(_TAKEN, consul.error) is not None


def _dns_port(consul: Container) -> int:
    named = re.search(_DNS_PORT, " ".join(consul.command))
    return int(named[1]) if named is not None else _CONSULS


# ---------------------------------------------------------------- nobody answers


def _unanswered(
    mesh: Mesh,
    sight: _Sight,
    address: str,
    workloads: Sequence[Workload],
    served: Sequence[Workload],
) -> Finding:
    names = [each.name for each in workloads]
    consul = min(sight.consuls, key=lambda each: not each.running)
    taken = _is_port_taken(consul)
    number = len(names)
    return Finding(
        message=(
            f"{listing(names, most=4)} {verb(number, 'asks', 'ask')} {address} for names, where "
            f"no Consul answers: {_why(consul, address, taken=taken)}."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, names),
            *subjects(SubjectKind.COMPONENT, (consul.name,)),
        ),
        seen_in=(
            *(_asked(each) for each in workloads),
            proofs.container(
                consul, "/HostConfig", _published(consul) or "8600/udp not published"
            ),
            *(
                Citation(NETWORKS, each.pointer, f"{each.name}, gateway {address}")
                for each in sight.networks.values()
                if address in each.gateways
            ),
        ),
        remedies=(
            *_ask_as_others(mesh, sight, address, workloads, served),
            _publish(mesh, consul, address, hosts=sight.is_hosts(address)),
        ),
    )


def _ask_as_others(
    mesh: Mesh,
    sight: _Sight,
    address: str,
    workloads: Sequence[Workload],
    served: Sequence[Workload],
) -> Iterator[Remedy]:
    """Where Consul answers other applications at an address that these reach, too."""
    containers = [_container(each) for each in workloads]
    answering = [
        other
        for other in dict.fromkeys(each for them in served for each in _container(them).dns)
        if all(sight.at(other, each) is _Server.CONSUL for each in containers)
    ]
    if not answering:
        return
    change = commands.change(mesh, containers, Element("dns", answering[0], (address,)))
    yield Remedy(
        summary=(
            f"Name {answering[0]} as their dns, where Consul answers other applications, then "
            "recreate them and their sidecars."
        ),
        commands=(
            *change.commands,
            *commands.recreate_with_sidecars(workloads),
            commands.see_that_it_worked("MD105"),
        ),
        patch=change.patch,
        effect="Calls to them fail until they and their sidecars are up again.",
    )


def _why(consul: Container, address: str, *, taken: bool) -> str:
    published = _published(consul)
    if taken:
        return (
            f"{consul.name} could not start, because it is to publish its DNS as {published} and "
            "the port is taken on this host, as happens where DOCKER_GATEWAY is not set"
        )
    if address in consul.own_addresses:
        return f"it is {consul.name}, whose DNS is on port {_dns_port(consul)} there, not on 53"
    if not consul.running:
        return f"{consul.name} does not run"
    return f"{consul.name} publishes its DNS {f'as {published}' if published else 'nowhere'}"


def _published(consul: Container) -> str:
    """What is to be published of its DNS, as `172.28.0.1:53`."""
    return listing(
        [
            f"{'*' if each.host_address in EVERYWHERE else each.host_address}:{each.host_port}"
            for each in consul.bindings or consul.published
            if (each.port, each.protocol) == (_dns_port(consul), "udp")
        ]
    )


def _lines(consul: Container) -> Iterator[str]:
    """The same, as a Compose file has it."""
    for each in consul.bindings:
        if (each.port, each.protocol) == (_dns_port(consul), "udp"):
            host = "" if each.host_address in EVERYWHERE else f"{each.host_address}:"
            yield f"{host}{each.host_port}:{each.port}/udp"


def _asked(workload: Workload) -> Citation:
    container = _container(workload)
    return proofs.container(container, "/HostConfig/Dns", listing(container.dns))


def _publish(mesh: Mesh, consul: Container, address: str, *, hosts: bool) -> Remedy:
    registrators = [
        each.container.name
        for each in mesh.components
        if each.role is Role.REGISTRATOR and each.container.running
    ]
    check_again = commands.see_that_it_worked("MD105")
    if not hosts or not consul.compose_service:
        return Remedy(
            summary=(
                f"Publish {_dns_port(consul)}/udp of {consul.name} as port 53 of an address of "
                "this host that the applications reach, the gateway of their network, and name "
                "that address as their dns."
            ),
            commands=(check_again,),
        )
    published = f"{address}:53:{_dns_port(consul)}/udp"
    change = commands.change(mesh, [consul], Element("ports", published, tuple(_lines(consul))))
    start = commands.compose(consul, "up", "-d", "--no-deps", consul.compose_service)
    again = tuple(commands.quoted("docker", "restart", each) for each in registrators)
    forgets = (
        "Consul is recreated; in -dev mode it forgets what was registered, and Registrator "
        "registers it again."
    )
    by_variable = f"env {_GATEWAY}={address}: {start}"
    texts = [text for path in consul.compose_paths if (text := mesh.compose_files.get(path))]
    if any(_GATEWAY in text for text in texts):
        return Remedy(
            summary=(
                f"Publish Consul's DNS as port 53 of {address}: its Compose file takes the "
                f"address from {_GATEWAY}, which .env beside it or the environment sets."
            ),
            commands=(by_variable, *again, check_again),
            effect=f"{forgets} Only .env or the environment keeps it for the next time.",
        )
    if change.commands:
        return Remedy(
            summary=f"Publish Consul's DNS as port 53 of {address}.",
            commands=(*change.commands, start, *again, check_again),
            patch=change.patch,
            effect=forgets,
        )
    return Remedy(
        summary=(
            f"Publish Consul's DNS as port 53 of {address}: Istio's Compose file takes the "
            f"address from {_GATEWAY}, in another it stands under ports."
        ),
        commands=(by_variable, *again, check_again),
        patch=change.patch,
        effect=forgets,
    )


# ---------------------------------------------------------------- only long names resolve


def _without_search(
    mesh: Mesh, docker: DockerEngine, served: Sequence[Workload]
) -> Iterator[tuple[Workload, str]]:
    """Those that do not search Consul's domain, each with a short name that fails there."""
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        return
    names = Names(docker, None)
    for workload in served:
        container = _container(workload)
        # Consul's domain may be another than consul, by its option -domain.
        if any(each.startswith("service.") or "consul" in each for each in container.dns_search):
            continue
        for service in mesh.applications:
            if service.name in workload.services:
                continue
            found = names.look_up(service.name, container)
            if found is None or not found.here:
                yield workload, service.name
                break


def _short_names(
    mesh: Mesh, missing: Sequence[tuple[Workload, str]], *, searched: bool
) -> Finding:
    workloads = [workload for workload, _ in missing]
    names = [each.name for each in workloads]
    number = len(names)
    short = missing[0][1]
    containers = [_container(each) for each in workloads]
    change = commands.change(mesh, containers, Element("dns_search", DNS_DOMAIN))
    return Finding(
        message=(
            f"{listing(names, most=4)} {verb(number, 'asks', 'ask')} Consul for names without "
            f"the search domain {DNS_DOMAIN}, so short names such as {short} do not resolve "
            f"there, only {short}.{DNS_DOMAIN}."
        ),
        subjects=subjects(SubjectKind.WORKLOAD, names),
        seen_in=tuple(
            proofs.container(each, "/HostConfig", "no DnsSearch of Consul's")
            for each in containers
        ),
        remedies=(
            Remedy(
                summary=(
                    f"Add the search domain to {verb(number, 'its', 'their')} settings, then "
                    f"recreate {verb(number, 'it and its sidecar', 'them and their sidecars')}."
                ),
                commands=(
                    *change.commands,
                    *commands.recreate_with_sidecars(
                        [each for each in mesh.workloads if each in workloads]
                    ),
                    commands.see_that_it_worked("MD105"),
                ),
                patch=change.patch,
                effect="Calls to them fail until they and their sidecars are up again.",
            ),
        ),
        severity=Severity.ERROR if searched else Severity.WARNING,
    )
