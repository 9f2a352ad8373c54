"""What Pilot would make of the services on one port."""

from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.findings import Fact, Finding, Severity, Subject, SubjectKind, subjects
from meshdoctor.kinds.istio_consul import is_http, is_known
from meshdoctor.topology.plan import Plan, PlannedInstance
from meshdoctor_checks.compose import files
from meshdoctor_checks.protocols import has_tcp_listener
from meshdoctor_checks.wording import count, listing, verb

_Services = Mapping[str, Sequence[PlannedInstance]]


def _shared(plan: Plan) -> Iterator[tuple[int, _Services, _Services, _Services]]:
    """Ports of several services: all of them, those HTTP to Pilot, those TCP.

    Pilot goes by the first instance in Consul's answer, which is ordered by id, and so by name.
    """
    for port in plan.ports:
        services = plan.on_port(port)
        if len(services) > 1:
            first = {
                name: min(group, key=lambda each: each.workload.name).protocol
                for name, group in services.items()
            }
            http = {name: each for name, each in services.items() if is_http(first[name])}
            tcp = {name: each for name, each in services.items() if has_tcp_listener(first[name])}
            yield port, services, http, tcp


def tcp_listener_collision(plan: Plan) -> Iterator[Finding | Fact]:
    """MD401, where all services of a port would be TCP to Pilot."""
    files.require_pilot(plan)
    files.require_instances(plan)
    if plan.ignores_metadata:
        return
    ports = list(_shared(plan))
    found = False
    for port, _, http, tcp in ports:
        if http or len(tcp) < 2:  # noqa: PLR2004 # one alone collides with nobody
            continue
        found = True
        names = list(tcp)
        yield Finding(
            message=(
                f"{listing(names)} would all be TCP to {plan.pilot_called} on port {port}: in "
                f"every sidecar one listener, 0.0.0.0:{port}, would send the calls to all of them "
                "to one; which one is arbitrary and could change at every push."
            ),
            subjects=(
                Subject(SubjectKind.LISTENER, f"0.0.0.0:{port}"),
                *subjects(SubjectKind.SERVICE, names),
            ),
            seen_in=tuple(
                files.cite_service(each.workload.service)
                for group in tcp.values()
                for each in group
            ),
        )
    if ports and not found:
        yield Fact(f"no TCP listener would take {count(len(ports), 'shared port')}")
    if not ports:
        yield Fact("no two services share a port")


def mixed_protocol_port(plan: Plan) -> Iterator[Finding | Fact]:
    """MD403, where some services of a port would be HTTP to Pilot and some TCP."""
    files.require_pilot(plan)
    files.require_instances(plan)
    if plan.ignores_metadata:
        return
    ports = list(_shared(plan))
    found = False
    for port, _, http, tcp in ports:
        if not http or not tcp:
            continue
        found = True
        declared = [
            name
            for name, group in tcp.items()
            if all(each.protocol and is_known(each.protocol) for each in group)
        ]
        yield Finding(
            message=(
                f"On port {port} {listing(list(http), most=6)} would be HTTP to "
                f"{plan.pilot_called} and {listing(list(tcp), most=6)} TCP: only one kind can "
                "have the listener, luck would decide at every push which, and the others would "
                "get no listener."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, (*tcp, *http)),
                Subject(SubjectKind.LISTENER, f"0.0.0.0:{port}"),
            ),
            seen_in=tuple(
                files.cite_protocol(each)
                for group in (*tcp.values(), *http.values())
                for each in group
            ),
            remedies=(
                files.remedy(
                    plan,
                    f"Give {listing(declared)} a port of "
                    f"{verb(len(declared), 'its', 'their')} own: TCP cannot share port {port} "
                    "with HTTP. If it is HTTP after all, declare that.",
                ),
            )
            if declared
            else (),
            severity=Severity.ERROR,
            references=("https://github.com/istio/istio/issues/11905",),
        )
    if ports and not found:
        yield Fact(f"no mixture of HTTP and TCP on {count(len(ports), 'shared port')}")


def really_tcp_on_one_port(plan: Plan) -> Iterator[Finding | Fact]:
    """MD410, from what the containers declare."""
    files.require_pilot(plan)
    files.require_instances(plan)
    if plan.ignores_metadata:
        return
    found = False
    for port in plan.ports:
        tcp = {
            name: word
            for name, group in plan.on_port(port).items()
            if (word := group[0].declared) is not None
            and is_known(word)
            and has_tcp_listener(word)
        }
        if len(tcp) < 2:  # noqa: PLR2004 # one TCP service alone collides with none of its kind
            continue
        found = True
        said = listing([f"{name} ({word})" for name, word in tcp.items()])
        on_port = plan.on_port(port)
        yield Finding(
            message=(
                f"{said} share port {port}: TCP services on one port cannot be told apart, so "
                "one of them would get the calls of all."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, tcp),
                Subject(SubjectKind.LISTENER, f"0.0.0.0:{port}"),
            ),
            seen_in=tuple(files.cite_protocol(each) for name in tcp for each in on_port[name]),
            remedies=(
                files.remedy(plan, f"Give each of {listing(list(tcp))} a port of its own."),
            ),
        )
    if not found:
        yield Fact("no two services declare TCP on one port")
