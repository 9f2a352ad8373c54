"""MD501: a rule routes to a subset that no DestinationRule defines."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.istio import (
    DESTINATION_RULE,
    Destination,
    DestinationRule,
    IstioRules,
    VirtualService,
)
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, routing_rules
from meshdoctor_checks.spelling import Spelling
from meshdoctor_checks.wording import count, listing, verb

Routed = Sequence[tuple[VirtualService, Destination, bool]]


@check(
    code="MD501",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD404",),
    kinds=(Kind.ISTIO_CONSUL,),
)
def subset_not_defined(mesh: Mesh, rules: IstioRules) -> Iterator[Finding | Fact]:
    """A rule routes to a subset that no DestinationRule defines.

    ## Why it matters

    Pilot makes a cluster of every subset that a DestinationRule defines, and routes to the subset
    whether there is such a cluster or not. The proxy then answers with 503 itself (MD404).

    ## How it is found

    A destination of a VirtualService names a `subset`, and no DestinationRule for that host has
    one of that name. A DestinationRule whose host is written without `.service.consul` is for
    another host. Where all shares of a split have weight but this one, it is a warning: no call
    gets there yet.

    ## How to fix it

    Define the subset in the DestinationRule of the host, before the VirtualService is applied; or
    route to a subset that is defined.
    """
    if DESTINATION_RULE not in rules.held:
        raise CannotLookError("the DestinationRules are not known completely")
    wanted: dict[tuple[str, str], list[tuple[VirtualService, Destination, bool]]] = defaultdict(
        list
    )
    found = False
    by_host = routing_rules.by_host(rules)
    for rule, destination, host, called in routing_rules.routed(rules):
        if destination.subset:
            wanted[host, destination.subset].append((rule, destination, called))
    for (host, subset), routed in wanted.items():
        deciding = routing_rules.deciding_rules(by_host, host)
        if not any(each.name == subset for rule in deciding for each in rule.subsets):
            found = True
            yield _finding(mesh, rules, host, subset, routed, deciding)
    if wanted and not found:
        yield Fact(f"{count(len(wanted), 'subset')} that VirtualServices route to, all defined")


# A thousand subsets are asked for one by one.
@functools.lru_cache(maxsize=2)
def _by_short_name(rules: Identity[IstioRules]) -> Mapping[str, Sequence[DestinationRule]]:
    """The DestinationRules by the first part of the host they are written for."""
    found: dict[str, list[DestinationRule]] = defaultdict(list)
    for each in rules.fact.destination_rules:
        found[each.host.partition(".")[0]].append(each)
    return found


def _finding(
    mesh: Mesh,
    rules: IstioRules,
    host: str,
    subset: str,
    routed: Routed,
    deciding: Sequence[DestinationRule],
) -> Finding:
    service = routing_rules.service_at(mesh, host)
    named = list(dict.fromkeys(rule.name for rule, _, _ in routed))
    owners = list({id(rule): rule for rule, _, _ in routed}.values())
    elsewhere = [
        each
        for each in _by_short_name(Identity(rules)).get(service.name if service else "", ())
        if service is not None
        and each not in deciding
        and any(one.name == subset for one in each.subsets)
    ]
    called = any(each for _, _, each in routed)
    number = len(named)
    return Finding(
        message=(
            f"{listing([routing_rules.called(each) for each in owners], most=3)} "
            f"{verb(number, 'routes', 'route')} to the subset {subset} of {host}, which no "
            f"DestinationRule defines{_beside(deciding, elsewhere)}: "
            + (
                "calls sent there find no cluster, and fail."
                if called
                else "as soon as it gets a weight, calls sent there find no cluster."
            )
        ),
        subjects=(
            *subjects(SubjectKind.RULE, map(routing_rules.subject, owners)),
            *subjects(
                SubjectKind.CLUSTER,
                routing_rules.clusters(host, subset, service, [each for _, each, _ in routed]),
            ),
            *subjects(SubjectKind.SERVICE, (service.name,) if service is not None else ()),
            *subjects(SubjectKind.RULE, map(routing_rules.subject, elsewhere)),
        ),
        seen_in=(
            *(
                routing_rules.proof(rule, each.pointer, f"subset {subset} of {each.host}")
                for rule, each, _ in routed
            ),
            *(
                routing_rules.proof(
                    rule,
                    rule.spec,
                    f"{rule.host}: {listing([each.name for each in rule.subsets]) or 'no subset'}",
                )
                for rule in (*deciding, *elsewhere)
            ),
        ),
        remedies=_of_that_host(mesh, host, elsewhere)
        or _remedies(mesh, host, subset, routed, deciding, service),
        severity=None if called else Severity.WARNING,
    )


def _beside(deciding: Sequence[DestinationRule], elsewhere: Sequence[DestinationRule]) -> str:
    if elsewhere:
        hosts = listing([f'"{each.host}"' for each in elsewhere], most=2)
        return f" (one does, but for the host {hosts}, which is another to Pilot)"
    known = sorted({each.name for rule in deciding for each in rule.subsets})
    return f" ({listing(known, most=6)} {verb(len(known), 'is', 'are')} defined)" if known else ""


def _of_that_host(
    mesh: Mesh, host: str, elsewhere: Sequence[DestinationRule]
) -> tuple[Remedy, ...]:
    """Where the subset is defined, but for a host that Pilot does not take for this one."""
    return tuple(
        Remedy(
            summary=f"Write {host} as the host of {routing_rules.called(each)}.",
            commands=(
                *routing_rules.change(mesh, each, ("replace", "/spec/host", host)),
                commands.see_that_it_worked("MD501", "MD503", "MD404"),
            ),
            effect="Pilot sends the sidecars the cluster at its next push; nothing is restarted.",
        )
        for each in elsewhere[:1]
    )


def _remedies(
    mesh: Mesh,
    host: str,
    subset: str,
    routed: Routed,
    deciding: Sequence[DestinationRule],
    service: Service | None,
) -> tuple[Remedy, ...]:
    done = commands.see_that_it_worked("MD501", "MD404")
    known = [each.name for rule in deciding for each in rule.subsets]
    fitting = service is not None and any(
        routing_rules.labels(each).get("version") == subset for each in service.instances
    )
    near = Spelling(known, cutoff=0.5).nearest(subset)
    remedies = []
    if near:
        remedies.append(
            Remedy(
                summary=(
                    f"Route to {near} instead of {subset}, if that was meant"
                    f"{_in_files(list({rule.file for rule, _, _ in routed} - {''}))}."
                ),
                commands=(
                    *(
                        command
                        for rule, each, _ in routed
                        for command in routing_rules.change(
                            mesh,
                            rule,
                            ("replace", routing_rules.field_of(rule, each, "subset"), near),
                        )
                    ),
                    done,
                ),
                effect="Pilot sends the sidecars the new routes; nothing is restarted.",
            )
        )
    define = Remedy(
        summary=(
            f"Define the subset {subset} of {host} in "
            + (
                f"{routing_rules.called(deciding[0])}"
                if deciding
                else "a DestinationRule, and apply it with kubectl"
            )
            + (
                f": instances with the tag version|{subset} are registered."
                if fitting
                else f"; no instance has the tag version|{subset} yet, so start one too, or write "
                "the labels that the instances have."
            )
        ),
        commands=(
            *(
                routing_rules.change(
                    mesh,
                    deciding[0],
                    (
                        "add",
                        "/spec/subsets/-",
                        {"name": subset, "labels": {"version": subset}},
                    ),
                )
                if deciding and deciding[0].subsets
                else ()
            ),
            done,
        ),
        patch=_patch(host, subset, deciding),
        effect="Pilot sends the sidecars the cluster at its next push; nothing is restarted.",
    )
    return (define, *remedies) if fitting else (*remedies, define)


def _in_files(files: Sequence[str]) -> str:
    return f", in {listing(sorted(files))}" if files else ""


def _patch(host: str, subset: str, deciding: Sequence[DestinationRule]) -> str:
    name = deciding[0].name if deciding else host.partition(".")[0]
    sign = " " if deciding else "+"
    return "\n".join(
        (
            f"{sign}apiVersion: networking.istio.io/v1alpha3",
            f"{sign}kind: DestinationRule",
            f"{sign}metadata:",
            f"{sign}  name: {name}",
            f"{sign}spec:",
            f"{sign}  host: {deciding[0].host if deciding else host}",
            f"{sign if not deciding or deciding[0].subsets else '+'}  subsets:",
            f"+  - name: {subset}",
            "+    labels:",
            f"+      version: {subset}",
        )
    )
