"""Followed calls: whether one came to an end, and what it passes, which links it to its causes."""

from collections.abc import Iterator

from meshdoctor.findings import Subject, SubjectKind
from meshdoctor.routing.calls import Judgement, Pair, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor_checks.listeners import listener


def is_known(judgement: Judgement) -> bool:
    """True where the call could be followed to its end."""
    return judgement.verdict is not Verdict.UNKNOWN


def passed(pair: Pair | None) -> Iterator[Subject]:
    """The listeners and clusters of every way that was followed; none of a call that was not."""
    if pair is None:
        return
    for walk in pair.followed:
        for hop in walk.hops:
            if hop.kind is HopKind.LISTENER:
                # Behind the address stands the listener's own name, where it has another.
                yield listener(hop.name.partition(" ")[0], pair.sidecar or walk.proxy)
            elif hop.kind is HopKind.CLUSTER:
                yield Subject(SubjectKind.CLUSTER, hop.name)
