"""MD503: a rule for a host that the registry does not know."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import DNS_SUFFIX, ConsulCatalog
from meshdoctor.evidence.istio import Destination, DestinationRule, IstioRules
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, routing_rules
from meshdoctor_checks.routing_rules import Rule
from meshdoctor_checks.spelling import Spelling
from meshdoctor_checks.wording import count, listing, verb


class _Named(msgspec.Struct, frozen=True):
    """One place where a rule names a host; `destination` where it routes there."""

    rule: Rule
    written: str
    pointer: str
    destination: Destination | None = None


class _Names(msgspec.Struct, frozen=True):
    """The applications' services, also by their names without the port at the end."""

    names: frozenset[str]
    by_port: Mapping[str, Sequence[str]]
    spelling: Spelling

    @classmethod
    def of(cls, mesh: Mesh) -> Self:
        names = [service.name for service in mesh.applications]
        by_port: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if found := re.fullmatch(r"(.*)-\d+", name):
                by_port[found[1]].append(name)
        return cls(frozenset(names), by_port, Spelling(names, cutoff=0.75))

    def meant(self, written: str) -> tuple[str, ...]:
        """Those whose host was probably meant."""
        first = written.lower().partition(".")[0]
        if first in self.names:
            return (first,)
        near = self.by_port.get(first) or (self.spelling.nearest(first),)
        return tuple(each for each in near if each)


@check(
    code="MD503",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD501", "MD404"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def host_not_registered(
    mesh: Mesh, rules: IstioRules, catalog: ConsulCatalog, pilot: PilotDebug | None
) -> Iterator[Finding | Fact]:
    """A rule is for a host, or routes to one, that the registry does not know.

    ## Why it matters

    Pilot takes the rule without a word. One for an unknown host has no effect; one that routes to
    an unknown host sends calls to a cluster that does not exist, and they get 503 (MD404).

    ## How it is found

    Services of Consul have host names that end in `.service.consul`. A name without a dot, as
    `reviews`, becomes `reviews.default.svc...`, Kubernetes' own, which is nobody's here. Hosts of
    ServiceEntries and whatever else Pilot lists as a service are known. The hosts of rules for
    gateways are left out, their destinations are not. Where Pilot could not be
    asked, only names without a dot and those in `.service.consul` are judged, for other names may
    be in another registry.

    ## How to fix it

    Write the whole host name, `reviews.service.consul`; or start and register the service.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("host names are made this way by Pilot alone, and none is seen")
    known = {f"{name.lower()}{DNS_SUFFIX}" for name in catalog.services}
    known |= {each.lower() for each in rules.entries}
    everything = pilot is not None and pilot.registry is not None
    if catalog.hidden and not everything:
        raise CannotLookError(f"what is registered is not all shown: {catalog.hidden}")
    if pilot is not None:
        known |= {each.hostname.lower() for each in pilot.registry or ()}
    unknown: dict[str, list[_Named]] = defaultdict(list)
    named = 0
    for each in _named(rules):
        host = routing_rules.full_host(each.written, each.rule.namespace)
        judged = everything or "." not in each.written or host.endswith(DNS_SUFFIX)
        if not judged or host == "*":
            continue
        named += 1
        if host not in known and not any(
            routing_rules.covers(host, one) for one in (known if host.startswith("*") else ())
        ):
            unknown[host].append(each)
    names = _Names.of(mesh)
    for host, places in unknown.items():
        yield _finding(mesh, host, places, names)
    if named and not unknown:
        yield Fact(f"rules name {count(named, 'host')}, all of them registered")


def _named(rules: IstioRules) -> Iterator[_Named]:
    for rule in rules.virtual_services:
        # A gateway may serve any name: only what sidecars alone route by must be registered.
        if not rule.for_gateways:
            for index, host in enumerate(rule.hosts):
                yield _Named(rule, host, f"{rule.spec}/hosts/{index}")
        for each, _ in rule.destinations:
            yield _Named(rule, each.host, each.pointer, each)
    for destination in rules.destination_rules:
        yield _Named(destination, destination.host, f"{destination.spec}/host")


def _finding(mesh: Mesh, host: str, places: Sequence[_Named], names_there: _Names) -> Finding:
    rules = list({id(each.rule): each.rule for each in places}.values())
    written = list(dict.fromkeys(each.written for each in places))
    meant = names_there.meant(written[0])
    routed = [each for each in places if each.destination is not None]
    owners = listing([routing_rules.called(each) for each in rules], most=3)
    number = len(rules)
    names = listing([f'"{each}"' for each in written], most=3)
    what = (
        f"{verb(number, 'routes', 'route')} to {names}"
        if len(routed) == len(places)
        else f"{verb(number, 'is', 'are')} for {names}"
        + (f" and {verb(number, 'routes', 'route')} there" if routed else "")
    )
    reason = (
        f", which is {host} to Pilot and no registered service"
        if host != written[0].lower()
        else ", which is no registered service"
    )
    effect = "calls routed there fail" if routed else "the rule has no effect"
    return Finding(
        message=f"{owners} {what}{reason}: {effect}.",
        subjects=(
            *subjects(SubjectKind.RULE, map(routing_rules.subject, rules)),
            *subjects(SubjectKind.CLUSTER, sorted(_clusters(mesh, host, routed))),
            *subjects(SubjectKind.SERVICE, meant),
        ),
        seen_in=tuple(
            routing_rules.proof(each.rule, each.pointer, each.written) for each in places
        ),
        remedies=(_remedy(mesh, places, written, meant),),
    )


def _clusters(mesh: Mesh, host: str, routed: Sequence[_Named]) -> set[str]:
    """Pilot takes the port at which the rule's own host is called, where none is written."""
    found = set()
    for each in routed:
        if isinstance(each.rule, DestinationRule) or each.destination is None:
            continue
        services = routing_rules.services_of(mesh, each.rule, each.rule.hosts)
        ports = {port for service in services for port in service.ports}
        if each.destination.port is not None:
            ports = {each.destination.port}
        found |= {f"outbound|{port}|{each.destination.subset}|{host}" for port in ports}
    return found


def _remedy(
    mesh: Mesh, places: Sequence[_Named], written: Sequence[str], meant: Sequence[str]
) -> Remedy:
    done = commands.see_that_it_worked("MD503", "MD501", "MD404")
    files = sorted({each.rule.file for each in places} - {""})
    where = f" in {listing(files)}" if files else ""
    if len(meant) != 1:
        choice = (
            f"one of {listing([f'{each}{DNS_SUFFIX}' for each in meant], most=4)}"
            if meant
            else "the whole host name of a service that is registered"
        )
        return Remedy(
            summary=(
                f"Write {choice} instead of {listing(list(written), most=2)}{where}; or register "
                "the service that is meant."
            ),
            commands=(done,),
        )
    host = f"{meant[0]}{DNS_SUFFIX}"
    by_rule: dict[int, list[_Named]] = defaultdict(list)
    for each in places:
        by_rule[id(each.rule)].append(each)
    return Remedy(
        summary=f"Write {host} instead of {listing(list(written), most=2)}{where}.",
        commands=(
            *(
                command
                for there in by_rule.values()
                for command in routing_rules.change(
                    mesh,
                    there[0].rule,
                    *(("replace", _place(each), host) for each in there),
                )
            ),
            done,
        ),
        effect="Pilot sends the sidecars what follows from it; nothing is restarted.",
    )


def _place(named: _Named) -> str:
    if named.destination is None:
        return routing_rules.inside(named.rule, named.pointer)
    return routing_rules.field_of(named.rule, named.destination, "host")
