"""MD409: sidecars of one mesh send the same call to different places."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.calls import Calls, Destination, Judgement, Pair, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.walks import is_known
from meshdoctor_checks.wording import count, listing, verb

Ends = Mapping[str, Sequence[Pair]]
"""The calls to one destination, by where they end."""


@check(code="MD409", severity=Severity.WARNING, since="0.1", kinds=(Kind.ISTIO_CONSUL,))
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
    known = {
        destination: found
        for destination, judged in calls.judged(own=False).items()
        if (found := {_end(each) for each in judged if is_known(each)})
    }
    if not known:
        raise CannotLookError("no call between different services could be followed")
    split = _split(calls, [each for each, found in known.items() if len(found) > 1])
    odds = _odds(split)
    odd: dict[tuple[str, ...], dict[Destination, Ends]] = defaultdict(dict)
    for destination, ends in split.items():
        odd[_odd(ends, odds)][destination] = ends
    for sidecars, theirs in sorted(odd.items()):
        yield _finding(mesh, sidecars, theirs)
    if not odd:
        yield Fact(f"all sidecars agree on {count(len(known), 'destination')}")


def _split(calls: Calls, destinations: Sequence[Destination]) -> Mapping[Destination, Ends]:
    """The calls to them, in the order in which callers call them."""
    found: dict[Destination, dict[str, list[Pair]]] = {}
    for destination in destinations:
        ends = found[destination] = defaultdict(list)
        for pair in calls.to(destination, is_known):
            if not pair.is_own:
                ends[_end(pair)].append(pair)

    def first(destination: Destination) -> tuple[str, Destination]:
        return min(pairs[0].caller for pairs in found[destination].values()), destination

    return {destination: found[destination] for destination in sorted(found, key=first)}


def _end(call: Judgement | Pair) -> str:
    if call.reached is not None:
        return f"reach {call.reached}"
    if call.verdict is Verdict.WRONG:
        return "reach an address that no service has"
    return f"get {call.status} from the proxy" if call.status is not None else "end nowhere"


def _sidecars(pairs: Sequence[Pair]) -> set[str]:
    return {each.sidecar for each in pairs if each.sidecar is not None}


def _odds(split: Mapping[Destination, Ends]) -> Mapping[str, int]:
    """How often each sidecar differs from another one, over all destinations."""
    odds: dict[str, int] = defaultdict(int)
    for ends in split.values():
        everyone = sum(map(len, ends.values()))
        for pairs in ends.values():
            for sidecar in _sidecars(pairs):
                odds[sidecar] += everyone - len(pairs)
    return odds


def _odd(ends: Ends, odds: Mapping[str, int]) -> tuple[str, ...]:
    """The sidecars that are not of one mind with most others; all, where none are the most.

    Where as many say one thing as another, those are odd that differ elsewhere too.
    """

    def weight(end: str) -> tuple[int, int]:
        return len(ends[end]), -max((odds[each] for each in _sidecars(ends[end])), default=0)

    first, second, *_ = sorted(ends, key=weight, reverse=True)
    most = first if weight(first) > weight(second) else None
    return tuple(sorted({each for end in ends if end != most for each in _sidecars(ends[end])}))


def _finding(mesh: Mesh, sidecars: Sequence[str], split: Mapping[Destination, Ends]) -> Finding:
    number = len(sidecars)
    containers = [
        each.container
        for each in mesh.sidecars
        if each.name in sidecars and each.container is not None
    ]
    return Finding(
        message=f"{_said(sidecars, split)}.",
        # Not the services: what is wrong with one of them in other sidecars is no cause of this.
        subjects=subjects(SubjectKind.SIDECAR, sidecars),
        seen_in=tuple(
            proof for ends in split.values() for pairs in ends.values() for proof in _proof(pairs)
        ),
        remedies=(
            Remedy(
                summary=(
                    f"See whether {verb(number, 'it is', 'one of them is')} behind, and restart "
                    "it: a sidecar that starts asks the control plane for everything again."
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
    """`x sends calls elsewhere than others do: those to details reach ratings, not details`."""
    odd = set(sidecars)
    if any(_sidecars(pairs) > odd or not _sidecars(pairs) & odd for pairs in _groups(split)):
        return (
            f"{listing(sidecars)} {verb(len(sidecars), 'sends', 'send')} calls elsewhere than "
            f"other sidecars do: {listing(_differences(odd, split), most=4)}"
        )
    said = [
        f"those to {callee}:{port} {' or '.join(ends)}" for (callee, port), ends in split.items()
    ]
    return f"{listing(sidecars)} send the same calls to different places: {listing(said, most=4)}"


def _groups(split: Mapping[Destination, Ends]) -> Iterator[Sequence[Pair]]:
    for ends in split.values():
        yield from ends.values()


def _differences(odd: set[str], split: Mapping[Destination, Ends]) -> list[str]:
    said = []
    for (callee, port), ends in split.items():
        here = [end for end, pairs in ends.items() if _sidecars(pairs) & odd]
        there = [end for end in ends if end not in here]
        said.append(
            f"those to {callee}:{port} {' or '.join(here)}, where the others' {' or '.join(there)}"
        )
    return said


def _proof(pairs: Sequence[Pair]) -> Iterator[Citation]:
    """The cluster that a call is sent to, else the listener; of one of those who agree."""
    for walk in pairs[0].walks[:1]:
        hop = walk.hop(HopKind.CLUSTER) or walk.hop(HopKind.LISTENER)
        if hop is not None:
            yield Citation(hop.document, hop.pointer, proofs.shorten(f"{hop.kind} {hop.name}"))
