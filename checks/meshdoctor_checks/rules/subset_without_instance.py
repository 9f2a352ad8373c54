"""MD502: a subset whose labels no registered instance has."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.istio import (
    Destination,
    DestinationRule,
    IstioRules,
    Subset,
    VirtualService,
)
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs, routing_rules
from meshdoctor_checks.wording import count, listing, verb

Routed = Sequence[tuple[VirtualService, Destination]]


@check(
    code="MD502",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD405",),
    kinds=(Kind.ISTIO_CONSUL,),
)
def subset_without_instance(
    mesh: Mesh, rules: IstioRules, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """No registered instance has the labels that a subset asks for.

    ## Why it matters

    The subset becomes a cluster without endpoints, and calls routed to it get 503 from the proxy
    (MD405).

    ## How it is found

    A DestinationRule's subset names labels, and no instance of the service in Consul has all of
    them. Pilot makes labels of tags of the form `key|value`. It is a warning where no
    VirtualService routes to the subset.

    ## How to fix it

    Start an instance with those labels, for Registrator by `SERVICE_TAGS=version|v1`; or correct
    the labels in the DestinationRule.
    """
    checked = 0
    found = False
    for rule in rules.destination_rules:
        host = routing_rules.full_host(rule.host, rule.namespace)
        service = routing_rules.service_at(mesh, host)
        if service is None or not service.instances:
            continue
        for index, subset in enumerate(rule.subsets):
            if not subset.labels:
                continue
            checked += 1
            if not any(
                subset.labels.items() <= routing_rules.labels(each).items()
                for each in service.instances
            ):
                found = True
                yield _finding(mesh, rules, rule, index, service)
    if not rules.destination_rules and rules.problems:
        raise CannotLookError("the DestinationRules could not be read")
    if checked and not found:
        yield Fact(f"{count(checked, 'subset')} of DestinationRules, each with an instance")


# A thousand subsets are asked for one by one.
@functools.lru_cache(maxsize=2)
def _routed(rules: Identity[IstioRules]) -> Mapping[tuple[str, str], Routed]:
    """The rules that send calls to a subset of a host, with where they do."""
    found: dict[tuple[str, str], list[tuple[VirtualService, Destination]]] = defaultdict(list)
    for by, each, to, called in routing_rules.routed(rules.fact):
        if called:
            found[to, each.subset].append((by, each))
    return found


def _finding(
    mesh: Mesh, rules: IstioRules, rule: DestinationRule, index: int, service: Service
) -> Finding:
    subset = rule.subsets[index]
    host = routing_rules.full_host(rule.host, rule.namespace)
    routed = _routed(Identity(rules)).get((host, subset.name), ())
    owners = list({id(by): by for by, _ in routed}.values())
    wanted = listing([f"{key}={value}" for key, value in sorted(subset.labels.items())])
    number = len(subset.labels)
    there = _there(subset, service)
    users = listing([routing_rules.called(each) for each in owners], most=3)
    return Finding(
        message=(
            f"No instance of {service.name} has the {verb(number, 'label', 'labels')} {wanted} "
            f"that the subset {subset.name} of {routing_rules.called(rule)} asks for{there}"
            + (
                f", and {users} {verb(len(owners), 'routes', 'route')} to it."
                if owners
                else ", but no VirtualService routes to it."
            )
        ),
        subjects=(
            *subjects(SubjectKind.RULE, (routing_rules.subject(rule),)),
            *subjects(SubjectKind.SERVICE, (service.name,)),
            *subjects(SubjectKind.CLUSTER, routing_rules.clusters(host, subset.name, service)),
            *subjects(SubjectKind.RULE, map(routing_rules.subject, owners)),
        ),
        seen_in=(
            routing_rules.proof(rule, f"{rule.spec}/subsets/{index}", f"{subset.name}: {wanted}"),
            *(
                routing_rules.proof(by, each.pointer, f"subset {subset.name} of {each.host}")
                for by, each in routed
            ),
            *(proofs.tags(each) for each in service.instances),
        ),
        remedies=(_remedy(mesh, rule, index, service, owners),),
        severity=None if owners else Severity.WARNING,
    )


def _there(subset: Subset, service: Service) -> str:
    """What the instances have of the labels that are asked for."""
    said = []
    for key in sorted(subset.labels):
        values = sorted(
            {
                value
                for each in service.instances
                if (value := routing_rules.labels(each).get(key)) is not None
            }
        )
        said.append(f"{key} is {listing(values, most=6)}" if values else f"none has {key}")
    return f" (there {listing(said, most=3)})" if said else ""


def _remedy(
    mesh: Mesh,
    rule: DestinationRule,
    index: int,
    service: Service,
    owners: Sequence[VirtualService],
) -> Remedy:
    subset = rule.subsets[index]
    tags = ",".join(f"{key}|{value}" for key, value in sorted(subset.labels.items()))
    done = commands.see_that_it_worked("MD502", "MD405")
    if not owners:
        return Remedy(
            summary=(
                f"Take the subset {subset.name} out of {routing_rules.called(rule)}, or start an "
                f"instance of {service.name} with SERVICE_TAGS={tags} before anything is routed "
                "to it."
            ),
            commands=(done,),
        )
    return Remedy(
        summary=(
            f"Start an instance of {service.name} with SERVICE_TAGS={tags}; or correct the labels "
            f"of the subset {subset.name} in {routing_rules.called(rule)}; or route to a subset "
            "that has instances."
        ),
        commands=(done,),
        effect="Pilot fills the cluster as soon as Consul has the instance.",
    )
