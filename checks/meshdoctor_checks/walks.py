"""Followed calls: whether one came to an end, and what it passes, which links it to its causes."""

from collections.abc import Iterable, Iterator

from meshdoctor.findings import Subject, SubjectKind
from meshdoctor.routing.calls import Judgement, Pair, Verdict
from meshdoctor.routing.model import Closed, HopKind
from meshdoctor_checks.listeners import listener


def is_known(judgement: Judgement) -> bool:
    """True where the call could be followed to its end."""
    return judgement.verdict is not Verdict.UNKNOWN


def passed(pairs: Iterable[Pair | None]) -> tuple[Subject, ...]:
    """The listeners and clusters of every way that was followed, each once; of no other call."""
    found: dict[Subject, None] = {}
    # What callers have in common is held once; by its identity, so it is held until the end.
    seen: dict[int, Pair] = {}
    for pair in pairs:
        if pair is None or id(pair.followed) in seen:
            continue
        passing = dict.fromkeys(_passed(pair))
        found |= passing
        # A listener within a proxy is another one in each.
        if not any(each.within for each in passing):
            seen[id(pair.followed)] = pair
    return tuple(found)


def _passed(pair: Pair) -> Iterator[Subject]:
    for walk in pair.followed:
        last = walk.hops[-1] if walk.hops else None
        if last is not None and last.kind is HopKind.REDIRECT and isinstance(walk.outcome, Closed):
            # `to port 15001`, and nobody listens there: it is that listener which lacks.
            yield Subject(SubjectKind.LISTENER, f"0.0.0.0:{last.name.rpartition(' ')[2]}")
        for hop in walk.hops:
            if hop.kind is HopKind.LISTENER:
                # Behind the address stands the listener's own name, where it has another.
                yield listener(hop.name.partition(" ")[0], pair.sidecar or walk.proxy)
            elif hop.kind is HopKind.CLUSTER:
                yield Subject(SubjectKind.CLUSTER, hop.name)
