"""MD504: a match behind one that takes everything it could."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.istio import HttpMatch, IstioRules, StringMatch, VirtualService
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, routing_rules
from meshdoctor_checks.wording import count, listing, verb

_ALL = HttpMatch({}, None, {}, (), (), "")
"""What a route without a match takes."""
_EVERY_REGEX = frozenset({".*", ".+", "^.*$", "*"})


class _Place(msgspec.Struct, frozen=True):
    """One match of a route, `number` and `match` counted from 1; match 0: it has none."""

    number: int
    match: int
    taken: HttpMatch
    pointer: str

    def __str__(self) -> str:
        return f"match {self.match} of route {self.number}" if self.match else self.route

    @property
    def route(self) -> str:
        return f"route {self.number}"


@check(code="MD504", severity=Severity.WARNING, since="0.1", kinds=(Kind.ISTIO_CONSUL,))
def rule_never_reached(mesh: Mesh, rules: IstioRules) -> Iterator[Finding | Fact]:
    """A match of a VirtualService stands behind one that takes every request it could.

    ## Why it matters

    The first route that matches wins. What stands behind a route without a match, or behind a
    wider one, is never used: most often a default route that was written first.

    ## How it is found

    The HTTP routes of a VirtualService are compared in their order: a match is never reached
    where every condition of a match before it follows from its own. Regular expressions are only
    compared word for word, and what was redacted is not compared at all.

    ## How to fix it

    Write the narrower match first, and the route without a match last.
    """
    looked = 0
    found = False
    for rule in rules.virtual_services:
        looked += len(rule.http)
        hidden = list(_hidden(rule))
        if hidden:
            found = True
            yield _finding(mesh, rule, hidden)
    if not rules.virtual_services and rules.problems:
        raise CannotLookError("the VirtualServices could not be read")
    if looked and not found:
        yield Fact(f"{count(looked, 'HTTP route')} of VirtualServices, none of them in vain")


def _hidden(rule: VirtualService) -> Iterator[tuple[_Place, _Place]]:
    """Every match that is never reached, with the one that takes what it could."""
    before: list[_Place] = []
    for number, route in enumerate(rule.http, start=1):
        places = [
            _Place(number, index, match, match.pointer)
            for index, match in enumerate(route.matches, start=1)
        ] or [_Place(number, 0, _ALL, route.pointer)]
        for place in places:
            taker = next((each for each in before if takes_all_of(each.taken, place.taken)), None)
            if taker is not None:
                yield place, taker
            else:
                before.append(place)


def takes_all_of(first: HttpMatch, then: HttpMatch) -> bool:
    """Whether every request that the second match takes is taken by the first."""
    if first.unmodelled:
        return False
    # `ignoreUriCase` makes a match wider than its words.
    loose = bool(then.unmodelled)
    return (
        first.port in (None, then.port)
        and first.source_labels.items() <= then.source_labels.items()
        and (
            not first.gateways
            or (bool(then.gateways) and set(then.gateways) <= set(first.gateways))
        )
        and all(
            _follows(name, wanted, then.conditions, loose=loose)
            for name, wanted in first.conditions.items()
        )
    )


def _follows(
    name: str, wanted: StringMatch, given: Mapping[str, StringMatch], *, loose: bool
) -> bool:
    if name == "uri" and (wanted.kind, wanted.value) in {("prefix", "/"), ("prefix", "")}:
        return True
    if name == "uri" and wanted.kind == "regex" and wanted.value in _EVERY_REGEX:
        return True
    held = given.get(name)
    if held is None or loose or not wanted.kind or not held.kind:
        return False
    match wanted.kind:
        case "prefix":
            return held.kind in ("exact", "prefix") and held.value.startswith(wanted.value)
        case _:
            return held == wanted


def _finding(mesh: Mesh, rule: VirtualService, hidden: Sequence[tuple[_Place, _Place]]) -> Finding:
    takers = list(dict.fromkeys(str(taker) for _, taker in hidden))
    lost = _lost(rule, [place for place, _ in hidden])
    number = len(lost)
    first = hidden[0][1]
    every = not first.taken.conditions and not first.match
    return Finding(
        message=(
            f"{listing(lost, most=4).capitalize()} of {routing_rules.called(rule)} "
            f"{verb(number, 'is', 'are')} never reached: {listing(takers, most=3)} "
            f"{verb(len(takers), 'stands', 'stand')} before and "
            + (
                "takes every request."
                if every and len(takers) == 1
                else f"{verb(len(takers), 'takes', 'take')} every request that "
                f"{verb(number, 'it', 'they')} could."
            )
        ),
        subjects=(
            *subjects(SubjectKind.RULE, (routing_rules.subject(rule),)),
            *subjects(
                SubjectKind.SERVICE,
                dict.fromkeys(
                    each.name for each in routing_rules.services_of(mesh, rule, rule.hosts)
                ),
            ),
        ),
        seen_in=tuple(
            routing_rules.proof(rule, pointer, said)
            for pointer, said in dict.fromkeys(
                pair
                for place, taker in hidden
                for pair in (
                    (taker.pointer, f"{taker}: {_described(taker.taken)}"),
                    (place.pointer, f"{place}: {_described(place.taken)}"),
                )
            )
        ),
        remedies=(
            Remedy(
                summary=(
                    f"Write {listing(lost, most=4)} before {listing(takers, most=3)} in "
                    f"{routing_rules.called(rule)}, or take {verb(number, 'it', 'them')} out."
                ),
                commands=(
                    *(
                        ()
                        if rule.file
                        else (
                            routing_rules.kubectl(mesh, rule, "edit", "virtualservice", rule.name),
                        )
                    ),
                    commands.see_that_it_worked("MD504"),
                ),
            ),
        ),
    )


def _lost(rule: VirtualService, places: Sequence[_Place]) -> list[str]:
    """Whole routes where all their matches are lost, else the matches."""
    said: dict[str, None] = {}
    for place in places:
        of_route = [each for each in places if each.number == place.number]
        whole = len(of_route) == max(1, len(rule.http[place.number - 1].matches))
        said[place.route if whole else str(place)] = None
    return list(said)


def _described(match: HttpMatch) -> str:
    said = [
        f"{name} {each.kind} {each.value}".replace(" exact ", " ")
        for name, each in match.conditions.items()
    ]
    said += [f"port {match.port}"] if match.port is not None else []
    said += ["source labels"] if match.source_labels else []
    said += list(match.unmodelled)
    return ", ".join(said) or "no condition"
