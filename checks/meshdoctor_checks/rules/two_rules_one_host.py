"""MD506: several VirtualServices for one host."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.istio import IstioRules, VirtualService
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, routing_rules
from meshdoctor_checks.wording import count, listing


@check(
    code="MD506",
    severity=Severity.WARNING,
    since="0.1",
    explains=("MD507",),
    kinds=(Kind.ISTIO_CONSUL,),
)
def two_rules_one_host(mesh: Mesh, rules: IstioRules) -> Iterator[Finding | Fact]:
    """Several VirtualServices have HTTP routes for one host: only one of them counts.

    ## Why it matters

    Pilot does not join them. It makes a virtual host of the oldest, and drops the others without
    a word, so a rule that was applied today has no effect because of one that was forgotten.

    ## How it is found

    Two VirtualServices for sidecars name the very same host and have HTTP routes. Which one
    counts is told by the time of their creation, where that is known; of those made in one
    second Pilot takes the first by `name.namespace`. Those that only some namespaces see
    (`exportTo`) are left out.

    ## How to fix it

    Write all routes of a host into one VirtualService.
    """
    by_host: dict[str, list[VirtualService]] = defaultdict(list)
    for rule in rules.virtual_services:
        if rule.http and rule.for_sidecars and routing_rules.seen_by_all(rule):
            for host in dict.fromkeys(rule.hosts):
                by_host[routing_rules.full_host(host, rule.namespace)].append(rule)
    doubled = {host: them for host, them in by_host.items() if len(them) > 1}
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for host, them in doubled.items():
        groups[tuple(map(id, them))].append(host)
    for hosts in groups.values():
        yield _finding(mesh, hosts, doubled[hosts[0]])
    if not rules.virtual_services and rules.problems:
        raise CannotLookError("the VirtualServices could not be read")
    if by_host and not doubled:
        yield Fact(f"{count(len(by_host), 'host')} with HTTP routes, in one VirtualService each")


def _finding(mesh: Mesh, hosts: Sequence[str], rules: Sequence[VirtualService]) -> Finding:
    counts = routing_rules.oldest(rules)
    names = listing([routing_rules.called(each) for each in rules], most=4)
    named = frozenset(hosts)
    where = {id(each): _indices(each, named) for each in rules}
    services = [routing_rules.service_at(mesh, host) for host in hosts]
    together = "all" if len(rules) > 2 else "both"  # noqa: PLR2004 # two are both
    return Finding(
        message=(
            f"{names} are {together} for {listing(list(hosts), most=3)}, and "
            + (
                f"only {counts.name} has an effect, for {_why(counts, rules)}."
                if counts is not None
                else "only the oldest of them has an effect."
            )
        ),
        subjects=(
            *dict.fromkeys(subjects(SubjectKind.RULE, map(routing_rules.subject, rules))),
            *subjects(SubjectKind.SERVICE, (each.name for each in services if each is not None)),
        ),
        seen_in=tuple(
            routing_rules.proof(
                each,
                f"{each.spec}/hosts/{index}",
                f"{each.hosts[index]}{f', created {each.created}' if each.created else ''}",
            )
            for each in rules
            for index in where[id(each)]
        ),
        remedies=(_remedy(mesh, hosts, rules, counts),),
    )


def _why(counts: VirtualService, rules: Sequence[VirtualService]) -> str:
    if sum(each.created == counts.created and not each.file for each in rules) > 1:
        return "of those made in one second Pilot takes the first by name"
    return "it was made first"


def _indices(rule: VirtualService, hosts: frozenset[str]) -> list[int]:
    return [
        index
        for index, host in enumerate(rule.hosts)
        if routing_rules.full_host(host, rule.namespace) in hosts
    ]


def _remedy(
    mesh: Mesh,
    hosts: Sequence[str],
    rules: Sequence[VirtualService],
    counts: VirtualService | None,
) -> Remedy:
    kept = counts or rules[0]
    others = [each for each in rules if each is not kept]
    # One that is for other hosts too must stay for those.
    named = frozenset(hosts)
    going: list[VirtualService] = []
    staying: list[VirtualService] = []
    for each in others:
        wholly = len(_indices(each, named)) == len(each.hosts)
        (going if wholly else staying).append(each)
    steps = [f"delete {listing([each.name for each in going], most=4)}"] if going else []
    if staying:
        names = listing([each.name for each in staying], most=4)
        steps.append(f"take {listing(list(hosts), most=2)} out of {names}")
    in_force = [each for each in (kept, *staying) if not each.file]
    deleted = [each for each in going if not each.file]
    return Remedy(
        summary=(
            f"Write the routes of all of them into {routing_rules.called(kept)}, then "
            f"{listing(steps)}: routes that had no effect until now take effect by that."
        ),
        commands=(
            *(
                routing_rules.kubectl(mesh, each, "edit", "virtualservice", each.name)
                for each in in_force
            ),
            *(
                routing_rules.kubectl(mesh, each, "delete", "virtualservice", each.name)
                for each in deleted
            ),
            commands.see_that_it_worked("MD506", "MD507"),
        ),
        destructive=bool(deleted),
    )
