"""MD505: route weights that do not sum to 100."""

from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.istio import Destination, IstioRules, VirtualService
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, routing_rules
from meshdoctor_checks.wording import count, listing

_WHOLE: Final = 100


@check(
    code="MD505",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD308", "MD507"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def weights_do_not_add_up(mesh: Mesh, rules: IstioRules) -> Iterator[Finding | Fact]:
    """The weights of a route do not sum to 100.

    ## Why it matters

    Weights are percentages. `istioctl` refuses such a rule; `kubectl` takes it where nothing
    validates, as in a mesh without Galley. Pilot passes the weights on, and an Envoy that wants
    them to sum to 100 refuses the routes of that whole port (MD308), of every service on it.

    ## How it is found

    A route of a VirtualService has several destinations, and their weights do not sum to 100. A
    weight that is not written is 0. A single destination gets everything, whatever its weight.

    ## How to fix it

    Correct the weights.
    """
    splits = 0
    found = False
    for rule in rules.virtual_services:
        streams = [(each.destinations, each.pointer) for each in rule.streams]
        routes = [(each.destinations, each.pointer) for each in rule.http] + streams
        for destinations, pointer in routes:
            if len(destinations) < 2:  # noqa: PLR2004 # one alone is no split
                continue
            splits += 1
            if sum(each.weight for each in destinations) != _WHOLE:
                found = True
                yield _finding(mesh, rule, destinations, pointer)
    if not rules.virtual_services and rules.problems:
        raise CannotLookError("the VirtualServices could not be read")
    if splits and not found:
        yield Fact(f"{count(splits, 'split')} with weights that sum to 100")


def _finding(
    mesh: Mesh, rule: VirtualService, destinations: Sequence[Destination], pointer: str
) -> Finding:
    weights = [each.weight for each in destinations]
    shares = listing(
        [f"{each.weight} to {each.subset or each.host}" for each in destinations], most=5
    )
    place = routing_rules.inside(rule, pointer)
    part, _, index = place.removeprefix("/spec/").partition("/")
    hosts = (*rule.hosts, *(each.host for each in destinations))
    services = routing_rules.services_of(mesh, rule, hosts)
    ports = sorted({port for each in services for port in each.ports})
    return Finding(
        message=(
            f"The weights of {part} route {int(index) + 1} of {routing_rules.called(rule)} sum "
            f"to {sum(weights)}, not to 100 ({shares})."
        ),
        subjects=(
            *subjects(SubjectKind.RULE, (routing_rules.subject(rule),)),
            *subjects(SubjectKind.SERVICE, dict.fromkeys(each.name for each in services)),
            # Pilot names a route configuration by its port.
            *subjects(SubjectKind.ROUTE, map(str, ports)),
        ),
        seen_in=(routing_rules.proof(rule, f"{pointer}/route", shares),),
        remedies=(
            Remedy(
                summary=(
                    f"Give the destinations weights that sum to 100 in "
                    f"{routing_rules.called(rule)}"
                    + (
                        "; in the same proportion these would be the ones below."
                        if sum(weights)
                        else "; in equal parts these would be the ones below."
                    )
                ),
                commands=(
                    *routing_rules.change(
                        mesh,
                        rule,
                        *(
                            ("add", f"{place}/route/{at}/weight", weight)
                            for at, weight in enumerate(_mended(weights))
                        ),
                    ),
                    commands.see_that_it_worked("MD505", "MD308"),
                ),
                patch="\n".join(
                    f"      weight: {weight}   # {each.subset or each.host}"
                    for each, weight in zip(destinations, _mended(weights), strict=True)
                ),
            ),
        ),
    )


def _mended(weights: Sequence[int]) -> list[int]:
    """The same proportions, in whole numbers that sum to 100."""
    given = [max(0, each) for each in weights]
    shares = given if sum(given) else [1] * len(weights)
    total = sum(shares)
    mended = [each * _WHOLE // total for each in shares]
    # What rounding left over goes to the first ones that have a share at all.
    left = _WHOLE - sum(mended)
    for index, each in enumerate(shares):
        if left and each:
            mended[index] += 1
            left -= 1
    return mended
