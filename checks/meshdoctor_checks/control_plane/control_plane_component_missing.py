"""MD102: a part of the control plane that others are told to reach is not there."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.envoy import CONNECTED_STATE
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds.istio_consul import DISCOVERY_CLUSTER
from meshdoctor.topology import Component, Mesh, Role, Sidecar
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.names import Lookup, Names
from meshdoctor_checks.spelling import Spelling
from meshdoctor_checks.wording import count, listing, verb

# A host name and its port, behind the option that takes it, also in a shell's one line.
_HOST: Final = r"(?:[a-z0-9+-]+://)?(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)(?::\d+)?"
_OPTIONS: Final[Mapping[Role, tuple[tuple[str, Role], ...]]] = {
    Role.PILOT: ((rf"--consulserverURL[= ]+['\"]?{_HOST}", Role.CONSUL),),
    Role.REGISTRATOR: (
        (rf"(?:^| )consul(?:-tls)?://{_HOST}", Role.CONSUL),
        (rf"(?:^| )etcd://{_HOST}", Role.ETCD),
    ),
    Role.API_SERVER: ((rf"--etcd-servers[= ]+['\"]?{_HOST}", Role.ETCD),),
}
_DISCOVERY: Final = rf"--discoveryAddress[= ]+['\"]?{_HOST}"

_NO_SUCH_HOST: Final = "no such host"
_NOT_RESOLVED: Final = rf"lookup (?P<host>[A-Za-z0-9][\w-]*)\b.*{_NO_SUCH_HOST}"
"""As Go programs, which all of these are, say it."""
_NEAR: Final = 0.8
"""How like a name must be to one that is there: a letter or two may be wrong, not a word."""
_KUBERNETES: Final = r"config controller|custom resource|[Kk]ube|apiserver"


class _Reference(msgspec.Struct, frozen=True):
    """What one container was told of where another part is; `works`: it evidently found it."""

    asking: Container
    role: Role | None
    host: str
    proof: Citation
    sidecar: bool = False
    works: bool = False


@check(code="MD102", severity=Severity.ERROR, since="0.1", explains=("MD101", "MD306"))
def control_plane_component_missing(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog | None, pilot: PilotDebug | None
) -> Iterator[Finding | Fact]:
    """A part of the control plane that others are told to reach has no container.

    ## Why it matters

    Pilot without Consul knows no service, without its API server it gives up at the start;
    sidecars without Pilot get nothing. What is missing shows nowhere: a container that was never
    created, because its image could not be pulled or its Compose file was not started, leaves
    neither a state nor a log.

    ## How it is found

    The host names that the parts of the mesh were given are looked up as Docker's DNS would:
    Pilot's `--consulserverURL`, Registrator's `consul://` argument, the API server's
    `--etcd-servers`, the sidecars' `--discoveryAddress` or their cluster `xds-grpc`, and names
    that a part's log says it could not resolve. No container, running or not, has that name on a
    network that the asking container is on. Addresses and names with a dot are not judged, nor is
    what evidently works: a sidecar that is connected, a Pilot that knows Consul's services, a
    Registrator whose registrations stand in Consul.

    ## How to fix it

    Start what is missing, and read what Compose says of its image; or correct the name, where
    another that is there is nearly the same.
    """
    references = [
        *_of_components(mesh, docker, catalog, pilot),
        *(each for sidecar in mesh.sidecars for each in _of_sidecar(sidecar)),
    ]
    names = Names(docker, None if catalog is None else catalog.services)
    missing: dict[str, list[tuple[_Reference, Lookup]]] = defaultdict(list)
    answered: set[str] = set()
    for each in references:
        found = names.look_up(each.host, each.asking)
        if found is None:
            continue
        if found.here:
            answered.add(each.host)
        elif not each.works:
            missing[each.host].append((each, found))
    for host, unanswered in sorted(missing.items()):
        yield _finding(mesh, host, unanswered)
    if not missing and not answered:
        raise CannotLookError("no part of the mesh names another by a name that Docker decides")
    if not missing:
        number = len(answered)
        yield Fact(
            f"{count(number, 'name')} that parts of the mesh reach others by "
            f"{verb(number, 'is a container', 'are containers')}: {listing(sorted(answered))}"
        )


def _of_components(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog | None, pilot: PilotDebug | None
) -> Iterator[_Reference]:
    running = {each.role for each in mesh.components if each.container.running}
    networks = {
        network
        for each in mesh.components
        if each.role in (Role.CONSUL, Role.PILOT, Role.REGISTRATOR)
        for network in each.container.aliases
    }
    for component in mesh.components:
        container = component.container
        # A container that stopped is a leftover where another of its part runs, and an API
        # server on other networks is somebody else's.
        if component.role in running and not container.running:
            continue
        if component.role is Role.API_SERVER and not networks & set(container.aliases):
            continue
        works = _finds_consul(component, catalog, pilot)
        named = set()
        line = " ".join(container.command)
        for option, role in _OPTIONS.get(component.role, ()):
            if (match := re.search(option, line)) is not None:
                named.add(match["host"])
                proof = proofs.container(container, "/Args", match[0].strip())
                yield _Reference(container, role, match["host"], proof, works=works)
        if component.role in _OPTIONS:
            for host, said in _unresolved(docker.logs.get(container.name, "")).items():
                if host not in named:
                    kubernetes = component.role is Role.PILOT and re.search(_KUBERNETES, said)
                    role_said = Role.API_SERVER if kubernetes else None
                    yield _Reference(container, role_said, host, proofs.log_line(container, said))


def _finds_consul(
    component: Component, catalog: ConsulCatalog | None, pilot: PilotDebug | None
) -> bool:
    """True where it evidently has the address of Consul that it was given."""
    match component.role:
        case Role.PILOT:
            return pilot is not None and bool(pilot.registry)
        case Role.REGISTRATOR:
            own = f"{component.container.hostname}:"
            registered = catalog.instances if catalog is not None else ()
            return component.container.running and any(
                each.id.startswith(own) for each in registered
            )
        case _:
            return False


def _unresolved(log: str) -> Mapping[str, str]:
    """Host names that did not resolve, each with the last line that says so."""
    return {
        match["host"]: proofs.untimed(line)
        for line in log.splitlines()
        if _NO_SUCH_HOST in line and (match := re.search(_NOT_RESOLVED, line)) is not None
    }


def _of_sidecar(sidecar: Sidecar) -> Iterator[_Reference]:
    container, proxy = sidecar.container, sidecar.proxy
    if container is None or sidecar.namespace_is_dead:
        return
    if proxy is not None and proxy.stats.get(CONNECTED_STATE):
        return
    if (match := re.search(_DISCOVERY, " ".join(container.command))) is not None:
        proof = proofs.container(container, "/Args", match[0])
        yield _Reference(container, Role.PILOT, match["host"], proof, sidecar=True)
        return
    for entry in proxy.clusters if proxy is not None else ():
        if proxy is not None and entry.cluster.name == DISCOVERY_CLUSTER:
            for endpoint in entry.cluster.endpoints[:1]:
                where = f"{endpoint.address}:{endpoint.port}"
                proof = Citation(proxy.document, entry.pointer, where)
                yield _Reference(container, Role.PILOT, endpoint.address, proof, sidecar=True)


def _finding(mesh: Mesh, host: str, unanswered: Sequence[tuple[_Reference, Lookup]]) -> Finding:
    references = [reference for reference, _ in unanswered]
    components = list(dict.fromkeys(each.asking.name for each in references if not each.sidecar))
    sidecars = list(dict.fromkeys(each.asking.name for each in references if each.sidecar))
    askers = [*components, *((count(len(sidecars), "sidecar"),) if sidecars else ())]
    number = len(components) + len(sidecars)
    roles = [each.role for each in references if each.role is not None]
    what = roles[0].called if roles else "another part"
    networks = sorted({network for _, found in unanswered for network in found.networks})
    elsewhere = sorted({each.name for _, found in unanswered for each in found.elsewhere})
    there = f"; {listing(elsewhere)} has it on another network" if elsewhere else ""
    if (meant := _meant(mesh, host, unanswered)) and not elsewhere:
        there = f", probably meant: {meant}"
    return Finding(
        message=(
            f"{listing(askers)} {verb(number, 'looks', 'look')} for {what} at {host}, and no "
            f"container on {verb(number, 'its', 'their')} "
            f"{verb(len(networks), 'network', 'networks')} {listing(networks)} has that "
            f"name{there}."
        ),
        subjects=(
            *subjects(SubjectKind.COMPONENT, dict.fromkeys((host, *components, *elsewhere))),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=tuple(each.proof for each in references),
        remedies=_remedies(mesh, host, what, unanswered),
        # A name in a log may be of something that is of no account.
        severity=None if roles else Severity.WARNING,
    )


def _remedies(
    mesh: Mesh, host: str, what: str, unanswered: Sequence[tuple[_Reference, Lookup]]
) -> tuple[Remedy, ...]:
    check_again = commands.see_that_it_worked("MD102", "MD101")
    reference, found = unanswered[0]
    if found.elsewhere:
        other, network = found.elsewhere[0], found.networks[0]
        return (
            Remedy(
                summary=f"Connect {other.name} to the network {network}, under that name.",
                commands=(
                    commands.quoted(
                        *("docker", "network", "connect", "--alias", host, network, other.name)
                    ),
                    check_again,
                ),
                effect="It stays on its other networks too.",
            ),
        )
    if meant := _meant(mesh, host, unanswered):
        asking = list({each.asking.id: each.asking for each, _ in unanswered}.values())
        number = len(asking)
        return (
            Remedy(
                summary=(
                    f"Write {meant} instead of {host} where {listing([e.name for e in asking])} "
                    f"{verb(number, 'is', 'are')} told of {what}, then recreate "
                    f"{verb(number, 'it', 'them')}."
                ),
                commands=(*commands.recreate(asking), check_again),
                effect="What goes through a part that is recreated fails until it is up again.",
            ),
        )
    composed = _composed_with(mesh, reference.asking)
    if composed is None:
        return (
            Remedy(
                summary=(
                    f"Start {what} as {host} on the network {found.networks[0]}, or correct the "
                    f"address that {reference.asking.name} was given."
                ),
                commands=(check_again,),
            ),
        )
    return (
        Remedy(
            summary=(
                "Have Compose create what has no container yet, and read what it says of images "
                "that it cannot pull."
            ),
            commands=(commands.compose(composed, "up", "-d"), check_again),
            effect="Containers that run are left alone unless their part of the file changed.",
        ),
        Remedy(
            summary=(
                "An image that cannot be pulled from here can be brought from a machine that "
                "has it, with docker save and docker load, or be named from a mirror in the "
                "Compose file."
            ),
        ),
    )


def _meant(mesh: Mesh, host: str, unanswered: Sequence[tuple[_Reference, Lookup]]) -> str:
    """The name of a part of that kind, in sight of all who ask, that the host's is most like."""
    roles = {reference.role for reference, _ in unanswered}
    networks = {network for _, found in unanswered for network in found.networks}
    names = [
        name
        for component in mesh.components
        if component.role in roles and networks <= set(component.container.aliases)
        for network in networks
        for name in (component.container.compose_service, *component.container.aliases[network])
        if name
    ]
    return Spelling(names, _NEAR).nearest(host)


def _composed_with(mesh: Mesh, asking: Container) -> Container | None:
    """A container from the Compose files that probably define the missing part."""
    candidates = [*(each.container for each in mesh.components), asking]
    for each in candidates:
        if each.compose_service and each.compose_project == asking.compose_project:
            return each
    return None
