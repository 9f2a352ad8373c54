"""MD409: sidecars of one mesh send the same call to different places."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb

Destination = tuple[str, int]
"""The service that is called, and its port."""

Ends = Mapping[str, Sequence[Pair]]
"""The calls to one destination, by where they end."""


@check(code="MD409", severity=Severity.WARNING, since="0.1")
def sidecars_disagree(mesh: Mesh, calls: Calls) -> Iterator[Finding | Fact]:
    """Sidecars of the same mesh have different answers for the same destination.

    ## Why it matters

    What works from one application fails from another. Sidecars get the same configuration from
    one control plane; where they differ, some of them hold an old one.

    ## How it is found

    The same call is followed through each caller's sidecar, and does not end at the same service.
    Calls of a service to itself are left out: they do not take the common listener. One finding
    for the sidecars that differ in the same way from most others.

    ## How to fix it

    Find out which sidecars are behind, and restart those.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("each caller of this mesh has upstreams of its own")
    destinations = _destinations(calls)
    if not any(len(ends) for ends in destinations.values()):
        raise CannotLookError("no call between different services could be followed")
    odd: dict[tuple[str, ...], dict[Destination, Ends]] = defaultdict(dict)
    for destination, ends in destinations.items():
        if len(ends) > 1:
            odd[_minority(ends)][destination] = ends
    for sidecars, split in sorted(odd.items()):
        yield _finding(mesh, sidecars, split)
    if not odd:
        yield Fact(f"all sidecars agree on {count(len(destinations), 'destination')}")


def _destinations(calls: Calls) -> Mapping[Destination, Ends]:
    found: dict[Destination, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in calls.pairs:
        if pair.verdict is not Verdict.UNKNOWN and not pair.is_own:
            found[pair.callee, pair.port][_end(pair)].append(pair)
    return found


def _end(pair: Pair) -> str:
    if pair.reached is not None:
        return f"reach {pair.reached}"
    if pair.verdict is Verdict.WRONG:
        return "reach an address that no service has"
    return f"get {pair.status} from the proxy" if pair.status is not None else "end nowhere"


def _minority(ends: Ends) -> tuple[str, ...]:
    """The sidecars that are not of one mind with most of the others."""
    most = max(ends, key=lambda end: len(ends[end]))
    return tuple(
        sorted({each.sidecar for end in ends if end != most for each in ends[end] if each.sidecar})
    )


def _finding(mesh: Mesh, sidecars: Sequence[str], split: Mapping[Destination, Ends]) -> Finding:
    callees = list(dict.fromkeys(callee for callee, _ in split))
    number = len(sidecars)
    containers = [
        each.container
        for each in mesh.sidecars
        if each.name in sidecars and each.container is not None
    ]
    return Finding(
        message=(
            f"{listing(sidecars)} {verb(number, 'sends', 'send')} calls elsewhere than other "
            f"sidecars do: {_said(sidecars, split)}."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, sidecars),
            *subjects(SubjectKind.SERVICE, callees),
        ),
        seen_in=tuple(
            proof for ends in split.values() for pairs in ends.values() for proof in _proof(pairs)
        ),
        remedies=(
            Remedy(
                summary=(
                    f"See whether {verb(number, 'it is', 'they are')} behind the others, and "
                    f"restart {verb(number, 'it', 'them')}: a sidecar that starts asks the "
                    "control plane for everything again."
                ),
                commands=(
                    commands.quoted("meshdoctor", "matrix"),
                    *(commands.restart(each) for each in containers),
                    commands.see_that_it_worked("MD409", "MD402"),
                ),
                effect="Each restart breaks the open connections of its application.",
            ),
        ),
    )


def _said(sidecars: Sequence[str], split: Mapping[Destination, Ends]) -> str:
    """`those to details reach ratings, those of the others details`."""
    odd = set(sidecars)
    said = []
    for (callee, port), ends in split.items():
        here = [end for end, pairs in ends.items() if any(e.sidecar in odd for e in pairs)]
        there = [end for end in ends if end not in here]
        said.append(
            f"those to {callee}:{port} {' or '.join(here)}, where the others' {' or '.join(there)}"
        )
    return listing(said, most=4)


def _proof(pairs: Sequence[Pair]) -> Iterator[Citation]:
    """The cluster that a call is sent to, else the listener; of one of those who agree."""
    for walk in pairs[0].walks[:1]:
        hop = walk.hop(HopKind.CLUSTER) or walk.hop(HopKind.LISTENER)
        if hop is not None:
            yield Citation(hop.document, hop.pointer, proofs.shorten(f"{hop.kind} {hop.name}"))
