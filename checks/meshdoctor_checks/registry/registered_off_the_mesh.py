"""MD208: an instance is registered where the other members cannot reach it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Self

import msgspec
from msgspec.structs import replace

from meshdoctor.check import check
from meshdoctor.evidence.addresses import is_loopback
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.evidence.docker import Container, DockerEngine, Network
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, Registrator
from meshdoctor.topology.mesh import named_in_id
from meshdoctor.topology.namespaces import Namespaces
from meshdoctor.topology.roles import installs_redirect, runs_envoy
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Argument, Variable
from meshdoctor_checks.wording import listing, verb


class _Fault(StrEnum):
    """How an instance is registered wrongly, as a sentence goes on; or on which other network."""

    WITHOUT_ADDRESS = "without an address"
    AT_LOOPBACK = "at a loopback address"
    AT_THE_HOSTS = "at the host's address"


class _Astray(msgspec.Struct, frozen=True):
    """An instance, its container, and what is wrong with where it is registered."""

    instance: Instance
    container: Container
    fault: str
    why: str


@check(
    code="MD208",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD405"),
    # Calls to the service may fail for other reasons, too.
    explains_by={"MD402": SubjectKind.INSTANCE},
    plan=plan_of("registry", "registered_off_the_mesh"),
)
def registered_off_the_mesh(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """An instance is registered at an address that other members of the mesh cannot reach.

    ## Why it matters

    Callers are sent to that address and meet nobody, or somebody else. An instance at the host's
    address is reached past its sidecar, which was configured for the container's own address and
    takes no part.

    ## How it is found

    The container that the instance is, by Registrator's id, is compared with the address in
    Consul: none at all (Registrator finds none for a container that shares another's network), a
    loopback address, the host's address (Registrator without `-internal`) though a sidecar stands
    beside the container, or an address on a network that none of the other members with a sidecar
    is on. Containers in the host's own network are left alone.

    ## How to fix it

    Start Registrator with `-internal`, name the service on the container that owns the network,
    or put the members on one network.
    """
    registrator = mesh.registrator
    sight = _Sight.of(mesh, docker)
    faults: dict[tuple[str, str], list[_Astray]] = defaultdict(list)
    sound = 0
    for service in mesh.applications:
        for instance in service.instances:
            container = mesh.owners.get(instance.id)
            if container is None or container.name != named_in_id(instance.id):
                continue
            found = _judge(instance, container, mesh, sight)
            if found is not None:
                faults[service.name, found.fault].append(found)
            else:
                sound += container.running
    for (service_name, fault), instances in sorted(faults.items()):
        yield _finding(mesh, service_name, fault, instances, registrator)
    if sound and not faults:
        yield Fact(f"{sound} registered {verb(sound, 'instance is', 'instances are')} on the mesh")


class _Caller(msgspec.Struct, frozen=True):
    """A member of the mesh: its services, and the networks that it reaches others over."""

    services: frozenset[str]
    networks: frozenset[str]
    is_host: bool


class _Sight(msgspec.Struct, frozen=True):
    """What Docker shows of the members, put in order once."""

    namespaces: Namespaces
    networks: Mapping[str, Network]
    callers: tuple[_Caller, ...]
    with_sidecars: frozenset[str]

    @classmethod
    def of(cls, mesh: Mesh, docker: DockerEngine) -> Self:
        namespaces = Namespaces(docker.containers)
        members = [
            (each, host, each.container.id)
            for each in mesh.workloads
            if each.sidecars
            and each.container is not None
            and each.container.running
            and (host := namespaces.host(each.container)) is not None
        ]
        return cls(
            namespaces=namespaces,
            networks=docker.networks,
            callers=tuple(
                _Caller(
                    frozenset(each.services),
                    frozenset(host.addresses),
                    host.network_mode == "host",
                )
                for each, host, _ in members
            ),
            with_sidecars=frozenset(member for _, _, member in members),
        )


def _judge(instance: Instance, container: Container, mesh: Mesh, sight: _Sight) -> _Astray | None:
    host = sight.namespaces.host(container)
    if host is None or not container.running or host.network_mode in ("host", "none"):
        return None
    if instance.address in host.own_addresses:
        networks = [name for name, each in host.addresses.items() if each == instance.address]
        return _on_another_network(instance, container, networks, sight)
    if not instance.registered:
        shared = f"it shares the network of {host.name}" if host.id != container.id else ""
        return _Astray(instance, container, _Fault.WITHOUT_ADDRESS, shared)
    if is_loopback(instance.address):
        return _Astray(instance, container, _Fault.AT_LOOPBACK, "")
    registrator = mesh.registrator
    if registrator is None or registrator.internal or Kind.ISTIO_CONSUL not in mesh.kinds:
        # An address that the container had before is MD206's to tell.
        return None
    if container.id not in sight.with_sidecars:
        return None
    return _Astray(instance, container, _Fault.AT_THE_HOSTS, "")


def _on_another_network(
    instance: Instance, container: Container, networks: Sequence[str], sight: _Sight
) -> _Astray | None:
    known = [sight.networks.get(each) for each in networks]
    if not known or not all(each is not None and each.is_of_this_host for each in known):
        return None
    here = frozenset(networks)
    others = (each for each in sight.callers if instance.service not in each.services)
    # Nearly always the very first is on the same network.
    strangers = []
    for each in others:
        if each.is_host or each.networks & here:
            return None
        strangers.append(each)
    if not strangers:
        return None
    theirs = sorted({name for each in strangers for name in each.networks})
    where = f"on the network {listing(networks)} alone"
    return _Astray(instance, container, where, f"the others are on {listing(theirs)}")


def _finding(
    mesh: Mesh,
    service: str,
    fault: str,
    instances: Sequence[_Astray],
    registrator: Registrator | None,
) -> Finding:
    number = len(instances)
    who = listing([each.container.name for each in instances], most=4)
    places = sorted({f"{each.instance.address}:{each.instance.port}" for each in instances})
    why = sorted({each.why for each in instances} - {""})
    match fault:
        case _Fault.WITHOUT_ADDRESS:
            sends = f", so callers are sent to its Consul node's, {listing(places, most=3)}"
        case _Fault.AT_LOOPBACK:
            sends = f", {listing(places, most=3)}, which for each caller is itself"
        case _Fault.AT_THE_HOSTS:
            runs = registrator.container.name if registrator is not None else "Registrator"
            past = verb(number, "its sidecar", "their sidecars")
            sends = f", {listing(places, most=3)}, past {past}: {runs} runs without -internal"
        case _:
            sends = f", as {listing(places, most=3)}, which no other member reaches"
    return Finding(
        message=(
            f"{who} {verb(number, 'is', 'are')} registered for {service} {fault}{sends}"
            f"{f' ({listing(why)})' if why else ''}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (service,)),
            *subjects(SubjectKind.INSTANCE, (each.instance.id for each in instances)),
            *subjects(
                SubjectKind.WORKLOAD, dict.fromkeys(each.container.name for each in instances)
            ),
        ),
        seen_in=(
            *(proofs.registration(each.instance) for each in instances),
            *(
                proofs.container(
                    each.container, "/HostConfig/NetworkMode", each.container.network_mode
                )
                for each in instances
            ),
        ),
        remedies=(_remedy(mesh, fault, instances, registrator),),
    )


def _remedy(
    mesh: Mesh, fault: str, instances: Sequence[_Astray], registrator: Registrator | None
) -> Remedy:
    check_again = commands.see_that_it_worked("MD208", "MD405")
    containers = list({each.container.id: each.container for each in instances}.values())
    names = listing([each.name for each in containers])
    serving = [each for each in containers if runs_envoy(each) or installs_redirect(each)]
    if fault == _Fault.WITHOUT_ADDRESS and len(serving) == len(containers):
        change = commands.change(mesh, containers, Variable("SERVICE_IGNORE", "1"))
        return Remedy(
            summary=(
                f"Have Registrator pass over {names}: set SERVICE_IGNORE=1 in "
                f"{verb(len(containers), 'its', 'their')} environment, then recreate "
                f"{verb(len(containers), 'it', 'them')}."
            ),
            commands=(*change.commands, *commands.recreate(containers), check_again),
            patch=change.patch,
            effect=verb(
                len(containers),
                "The application beside it stays registered.",
                "The applications beside them stay registered.",
            ),
        )
    if fault in (_Fault.AT_THE_HOSTS, _Fault.AT_LOOPBACK) and registrator is not None:
        return _register_again(mesh, registrator, check_again)
    if fault == _Fault.WITHOUT_ADDRESS:
        return Remedy(
            summary=(
                f"Move the SERVICE_* settings of {names} to the container whose network "
                f"{verb(len(containers), 'it shares', 'they share')}, and expose the port there."
            ),
            commands=(check_again,),
        )
    network = _network_of_others(mesh, containers)
    joined = all(set(network) & set(each.addresses) for each in containers)
    move = f"Let {names} leave the networks other than" if joined else f"Move {names} to"
    return Remedy(
        summary=(
            f"{move} {listing(network)}, and restart Registrator, which registers every running "
            "container again."
        ),
        commands=(
            *(
                commands.quoted("docker", "network", "connect", name, each.name)
                for name in network
                for each in containers
                if name not in each.addresses
            ),
            *(
                commands.quoted("docker", "network", "disconnect", name, each.name)
                for each in containers
                for name in each.addresses
                if network and name not in network
            ),
            *((commands.restart(registrator.container),) if registrator is not None else ()),
            check_again,
        ),
        effect=(
            "Connections over the old network end; it is left because of several Registrator may "
            "take any one. Where Compose starts the container, name the network in its file too."
        ),
    )


def _network_of_others(mesh: Mesh, containers: Sequence[Container]) -> Sequence[str]:
    """The network that most other members are on, as one name or none."""
    names = Counter(
        name
        for each in mesh.workloads
        if each.sidecars and each.container is not None and each.container not in containers
        for name in each.container.addresses
    )
    return sorted(names, key=lambda name: (-names[name], name))[:1]


def _register_again(mesh: Mesh, registrator: Registrator, check_again: str) -> Remedy:
    it = registrator.container
    if registrator.internal:
        return Remedy(
            summary="Restart Registrator, which registers every running container again.",
            commands=(commands.restart(it), check_again),
            effect="It registers containers at their own addresses, for it runs with -internal.",
        )
    program, *arguments = it.command or ("registrator",)
    internal = replace(it, command=(program, "-internal", *arguments))
    change = commands.change(mesh, [it], Argument("-internal", " ".join(arguments)))
    again = (
        (*change.commands, *commands.recreate([it]))
        if it.compose_service
        else (
            commands.quoted("docker", "rm", "-f", it.name),
            commands.run_again(internal, it.image),
        )
    )
    return Remedy(
        summary="Start Registrator with -internal: then it takes the containers' own addresses.",
        commands=(*again, check_again),
        patch=change.patch,
        effect="It registers every running container again, at the container's own address.",
    )
