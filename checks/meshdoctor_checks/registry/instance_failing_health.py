"""MD211: Consul holds an instance for ill."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.consul import CONSUL_ITSELF, ConsulCatalog, HealthCheck, Instance
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb

_FAILING: Final = ("critical", "warning")
_MAINTENANCE: Final = ("_node_maintenance", "_service_maintenance")
_AGENT: Final = "serfHealth"
"""Consul's own check of a node: whether the others still hear from its agent."""
_SHOWN: Final = 120
"""Characters of what a health check printed; its first line tells most."""


class _Failing(msgspec.Struct, frozen=True):
    """An instance, and the worst of its checks."""

    instance: Instance
    check: HealthCheck


@check(code="MD211", severity=Severity.WARNING, since="0.1", explains=("MD405",))
def instance_failing_health(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A health check of an instance is critical or warning in Consul.

    ## Why it matters

    Consul's DNS, and Consul's own service mesh, leave a critical instance out: callers have fewer
    instances, or none. Pilot 1.1 does not look at health checks and goes on sending calls there.

    ## How it is found

    `/v1/health/service/<service>` has a check of the instance, or of its node, that is critical
    or warning. Maintenance mode is such a check too, and is named.

    ## How to fix it

    Read what the check printed, and mend the instance; take one that is gone out of Consul.
    """
    if not catalog.checks:
        raise CannotLookError("Consul's health checks were not recorded")
    passing = 0
    found = False
    for service in mesh.services.values():
        if service.name == CONSUL_ITSELF:
            continue
        failing: list[_Failing] = []
        for instance in service.instances:
            checks = catalog.checks_of(instance)
            worst = _worst(checks)
            if worst is not None:
                failing.append(_Failing(instance, worst))
            else:
                passing += bool(checks)
        if failing:
            found = True
            yield _finding(mesh, service, failing)
    if passing and not found:
        yield Fact(
            f"{count(passing, 'instance')} {verb(passing, 'passes', 'pass')} Consul's checks"
        )


def _worst(checks: Sequence[HealthCheck]) -> HealthCheck | None:
    for status in _FAILING:
        for each in checks:
            if each.status == status:
                return each
    return None


def _finding(mesh: Mesh, service: Service, failing: Sequence[_Failing]) -> Finding:
    instances = [each.instance for each in failing]
    number, of = len(instances), len(service.instances)
    ids = Counter(each.id for each in service.instances)
    reasons: dict[str, list[str]] = defaultdict(list)
    for each in failing:
        # An id is unique on one node only.
        on_its_node = f" on node {each.instance.node}" if ids[each.instance.id] > 1 else ""
        reasons[_reason(each.check)].append(f"{each.instance.id}{on_its_node}")
    said = listing(
        [f"{listing(theirs, most=3)} ({reason})" for reason, theirs in reasons.items()], most=3
    )
    what = f"All {of} instances" if number == of else f"{number} of {of} instances"
    if of == 1:
        what = "The only instance"
    return Finding(
        message=(
            f"{what} of {service.name} {verb(number, 'fails its check', 'fail their checks')} in "
            f"Consul: {said}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (service.name,)),
            *subjects(SubjectKind.INSTANCE, dict.fromkeys(each.id for each in instances)),
        ),
        seen_in=(
            Citation(layout.health_service(service.name), "", proofs.shorten(next(iter(reasons)))),
            *(proofs.registration(each) for each in instances),
        ),
        remedies=_remedies(mesh, failing),
    )


def _reason(check: HealthCheck) -> str:
    if check.id.startswith(_MAINTENANCE):
        return "in maintenance mode"
    whose = "" if check.service_id else "its node's "
    printed = " ".join(check.output.replace('"', "'").split())[:_SHOWN].rstrip(" .")
    said = f': "{printed}"' if printed else ""
    return f"{whose}{check.name or check.id} is {check.status}{said}"


def _of_nodes(mesh: Mesh, nodes: Sequence[str], check_again: str) -> tuple[Remedy, ...]:
    """Consul does not hear from whole nodes: their instances may be well."""
    number = len(nodes)
    return (
        Remedy(
            summary=(
                f"Start the Consul {verb(number, 'agent', 'agents')} of {listing(nodes)} again."
            ),
            commands=(check_again,),
        ),
        Remedy(
            summary=(
                f"Where {verb(number, 'it is', 'they are')} gone for good, take "
                f"{verb(number, 'the node', 'the nodes')} out of Consul instead."
            ),
            commands=(*(commands.force_leave(mesh, each) for each in nodes), check_again),
            effect="What is registered there alone is not in Consul any more.",
            destructive=True,
        ),
    )


def _remedies(mesh: Mesh, failing: Sequence[_Failing]) -> tuple[Remedy, ...]:
    check_again = commands.see_that_it_worked("MD211")
    instances = [each.instance for each in failing]
    kept = [each for each in failing if each.check.id.startswith(_MAINTENANCE)]
    if all(each.check.id == _AGENT and each.instance.node for each in failing):
        return _of_nodes(mesh, list(dict.fromkeys(each.node for each in instances)), check_again)
    if len(kept) == len(failing):
        return (
            Remedy(
                summary="End the maintenance mode when the work is done: consul maint -disable.",
                commands=(check_again,),
                effect="Consul gives the instances to callers again.",
            ),
        )
    owners = list(
        {
            mesh.owners[each.id].id: mesh.owners[each.id]
            for each in instances
            if each.id in mesh.owners
        }.values()
    )
    return (
        Remedy(
            summary="See why the check fails, and mend or restart what it asks.",
            commands=(*(commands.logs(each) for each in owners), check_again),
        ),
    )
