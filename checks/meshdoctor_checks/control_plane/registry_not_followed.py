"""MD103: what Pilot knows is not what Consul has."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import DNS_SUFFIX, SERVICES, ConsulCatalog
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.pilot import ENDPOINTS, REGISTRY, PilotDebug, PilotService
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import is_http, is_known
from meshdoctor.topology import Mesh, Role, Service
from meshdoctor_checks import commands
from meshdoctor_checks.protocols import pilot_before_service_meta
from meshdoctor_checks.settling import patience, settled
from meshdoctor_checks.wording import count, listing, verb

_REGISTRIES: Final = r"--registries[= ]+(\S+)"


class _Difference(msgspec.Struct, frozen=True):
    """What Pilot has of one service, in words with {} for its name, and where it says so."""

    service: str
    said: str
    document: str
    by_registrator: bool
    taken_for_tcp: int = 0
    """The port that is HTTP by Consul and TCP to Pilot, 0 for none."""


@check(
    code="MD103",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD307", "MD401", "MD403"),
    # What stands in Consul is no fault of Pilot's: only a port that it takes for TCP is.
    explains_by={"MD401": SubjectKind.LISTENER, "MD403": SubjectKind.LISTENER},
    kinds=(Kind.ISTIO_CONSUL,),
)
def registry_not_followed(
    mesh: Mesh, catalog: ConsulCatalog, pilot: PilotDebug, docker: DockerEngine | None
) -> Iterator[Finding | Fact]:
    """Pilot knows other services, ports, protocols or instances than Consul has.

    ## Why it matters

    Sidecars get what Pilot knows. Where that is not what stands in Consul, new services are not
    reachable, old ones still are, and every remedy that mends the registry seems to do nothing.

    ## How it is found

    Pilot's `/debug/registryz` and `/debug/endpointz` are compared with the catalogue, service by
    service. Pilot asks Consul every two seconds (`--consulserverInterval`), so for a moment after
    a change a difference is normal. It is an error where Registrator's log shows that its last
    change is older than that, nothing where it is younger, and a warning where nobody can tell.
    Services of other registries of Pilot's, and those whose answer is missing, are left alone.

    ## How to fix it

    See in Pilot's log what Consul answers it and whether `--consulserverURL` names this Consul,
    then restart Pilot.
    """
    component = mesh.component(Role.PILOT)
    container = component.container if component is not None else None
    command = " ".join(container.command) if container is not None else ""
    if pilot.registry is None:
        raise CannotLookError(f"{REGISTRY} was not recorded")
    registries = re.search(_REGISTRIES, command)
    if registries is not None and "consul" not in registries[1].lower():
        raise CannotLookError("Pilot takes its services from another registry than Consul")
    if catalog.problems or catalog.unread or pilot.problems:
        raise CannotLookError("an answer of Consul's or Pilot's is damaged or missing")
    known = {
        each.hostname.removesuffix(DNS_SUFFIX): each
        for each in pilot.registry
        if each.hostname.endswith(DNS_SUFFIX) and not each.is_external
    }
    protocols = not pilot_before_service_meta(mesh)
    differences = [
        *(
            _Difference(name, "still knows {}", REGISTRY, by_registrator=False)
            for name in sorted(known.keys() - mesh.services.keys())
            if not catalog.may_have(name)
        ),
        *(
            found
            for service in mesh.services.values()
            if service.instances
            and (found := _compare(service, known.get(service.name), pilot, protocols=protocols))
        ),
    ]
    if not differences:
        yield Fact(f"Pilot knows all {count(len(mesh.services), 'service')} as Consul has them")
        return
    is_settled = settled(mesh, docker, patience(command))
    if is_settled is False:
        return
    lasting = is_settled is True and all(each.by_registrator for each in differences)
    yield _finding(mesh, container, differences, lasting=lasting)


def _compare(
    service: Service, known: PilotService | None, pilot: PilotDebug, *, protocols: bool
) -> _Difference | None:
    port = 0
    if known is None:
        said = "does not know {}"
        document = REGISTRY
    elif said := _ports(service, known):
        document = REGISTRY
    elif protocols and (other := _other_protocol(service, known)):
        said, port = other
        document = REGISTRY
    elif (
        pilot.endpoints is not None
        and known.hostname in pilot.endpoints
        and (said := _instances(service, pilot.endpoints[known.hostname]))
    ):
        document = ENDPOINTS
    else:
        return None
    ids = [each.id for each in service.instances]
    by_registrator = all(each.count(":") > 1 for each in ids)
    return _Difference(service.name, said, document, by_registrator, port)


def _ports(service: Service, known: PilotService) -> str:
    has, wanted = {each.port for each in known.ports or ()}, set(service.ports)
    if has != wanted:
        return f"has the ports {_numbers(has)} of {{}} instead of {_numbers(wanted)}"
    return ""


def _other_protocol(service: Service, known: PilotService) -> tuple[str, int] | None:
    """What Pilot takes a port for, and the port where that is TCP and should be HTTP."""
    has = {each.port: each.protocol.lower() for each in known.ports or ()}
    for port in service.ports:
        said = {
            each.lower() if each and is_known(each) else "tcp" for each in service.protocols(port)
        }
        # Which of several counts, MD204 says.
        if len(said) == 1 and has[port] not in said:
            now, right = has[port], said.pop()
            words = f"takes port {port} of {{}} for {now.upper()} instead of {right.upper()}"
            return words, port if is_http(right) and not is_http(now) else 0
    return None


def _numbers(ports: set[int]) -> str:
    return listing([str(each) for each in sorted(ports)]) or "none"


def _instances(service: Service, known: frozenset[tuple[str, int]]) -> str:
    has = {(each.address, each.port) for each in service.instances}
    lacking, gone = has - known, known - has
    pieces = [
        *([f"lacks {_places(lacking)}"] if lacking else []),
        *([f"still has {_places(gone)}"] if gone else []),
    ]
    return f"{' and '.join(pieces)} as instances of {{}}" if pieces else ""


def _places(places: Iterable[tuple[str, int]]) -> str:
    return listing([f"{address}:{port}" for address, port in sorted(places)], most=3)


# ---------------------------------------------------------------- what is said


def _finding(
    mesh: Mesh, container: Container | None, differences: Sequence[_Difference], *, lasting: bool
) -> Finding:
    called = f"Pilot ({container.name})" if container is not None else "Pilot"
    by_words: dict[str, list[str]] = {}
    for each in differences:
        by_words.setdefault(each.said, []).append(each.service)
    said = listing([each.replace("{}", listing(by_words[each])) for each in by_words], most=4)
    consul = mesh.component(Role.CONSUL)
    components = [
        *([container.name] if container is not None else []),
        *([consul.name] if consul is not None else []),
    ]
    young = "" if lasting else "; look again in a moment, for right after a change that is normal"
    services = [each.service for each in differences]
    ports = sorted({each.taken_for_tcp for each in differences} - {0})
    number = len(services)
    return Finding(
        message=f"{called} does not follow Consul: it {said}{young}.",
        subjects=(
            *subjects(SubjectKind.SERVICE, services),
            *subjects(SubjectKind.COMPONENT, components),
            *subjects(SubjectKind.LISTENER, (f"0.0.0.0:{port}" for port in ports)),
        ),
        seen_in=(
            *(
                Citation(
                    document,
                    "",
                    listing([e.service for e in differences if e.document == document], most=5),
                )
                for document in dict.fromkeys(each.document for each in differences)
            ),
            *_consul_says(mesh, services),
        ),
        remedies=(_remedy(container, number),),
        severity=None if lasting else Severity.WARNING,
    )


def _consul_says(mesh: Mesh, services: Sequence[str]) -> Iterator[Citation]:
    for name in services:
        service = mesh.services.get(name)
        if service is None:
            yield Citation(SERVICES, "", f"no {name}")
        else:
            first = service.instances[0]
            yield Citation(first.document, "", f"{count(len(service.instances), 'instance')}")


def _remedy(container: Container | None, number: int) -> Remedy:
    check_again = commands.see_that_it_worked("MD103")
    that = verb(number, "that service", "those services")
    if container is None:
        return Remedy(
            summary=f"See in Pilot's log what Consul answers it for {that}, then restart it.",
            commands=(check_again,),
        )
    return Remedy(
        summary=(
            "See in its log what Consul answers it, and that --consulserverURL names this Consul; "
            "then restart it."
        ),
        commands=(commands.logs(container), commands.restart(container), check_again),
        effect="Sidecars keep what they have until Pilot is up again.",
    )
