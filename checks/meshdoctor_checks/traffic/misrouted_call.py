"""MD402: calls to a service end at another one, or nowhere."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
    subjects,
)
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing

_GOOD = frozenset({Verdict.RIGHT, Verdict.BY_LUCK})
_BAD = frozenset({Verdict.WRONG, Verdict.NOWHERE})
_MOST_PROOFS = 12


@check(code="MD402", severity=Severity.ERROR, since="0.1")
def misrouted_call(calls: Calls) -> Iterator[Finding | Fact]:
    """A call to a service ends at another service, or nowhere.

    ## Why it matters

    This is what users of the mesh see: the answer of another service, a page that is not found,
    or an error from the proxy.

    ## How it is found

    Every caller's call to every service is followed through the caller's own Envoy as Envoy would
    decide it (redirect, listener, filter chain, virtual host, route, cluster, endpoint), and the
    service that owns the endpoint in Consul is compared with the one that was called. One finding
    for each service that is called, its callers listed. Calls that cannot be followed to their
    end are counted, and not judged.

    ## How to fix it

    Mend the cause that this finding hangs below. Where it has none, follow one call hop by hop
    with `meshdoctor trace CALLER URL`.
    """
    known = [each for each in calls.pairs if each.verdict is not Verdict.UNKNOWN]
    unknown = len(calls.pairs) - len(known)
    if not known:
        reasons = {each.reason: None for each in calls.pairs}
        why = f": {proofs.shorten('; '.join(reasons))}" if reasons else ""
        raise CannotLookError(f"no call could be followed{why}")
    groups: dict[tuple[str, int], list[Pair]] = defaultdict(list)
    for each in known:
        groups[each.callee, each.port].append(each)
    for (callee, port), pairs in groups.items():
        bad = [each for each in pairs if each.verdict in _BAD]
        if bad:
            yield _finding(callee, port, bad, len(pairs))
    yield Fact(_reached(known))
    if unknown:
        yield Fact(f"{count(unknown, 'more call')} could not be followed to the end")


def _reached(known: Sequence[Pair]) -> str:
    """`24 of 24 calls reach the service they name, 6 of them by luck`."""
    good = [each for each in known if each.verdict in _GOOD]
    lucky = sum(each.verdict is Verdict.BY_LUCK for each in good)
    said = f"{len(good)} of {count(len(known), 'call')} reach the service they name"
    return f"{said}, {lucky} of them by luck" if lucky else said


def _finding(callee: str, port: int, bad: Sequence[Pair], callers: int) -> Finding:
    names = [each.caller for each in bad]
    who = listing(names)
    if len(bad) == callers:
        who = f"all {count(callers, 'caller')}" if callers > 1 else who
    elif len(bad) > 1:
        who = f"{len(bad)} of {count(callers, 'caller')}"
    return Finding(
        message=f"Calls to {callee} on port {port} {_where(bad)}, from {who}.",
        subjects=(
            Subject(SubjectKind.SERVICE, callee),
            *subjects(SubjectKind.WORKLOAD, names),
            *dict.fromkeys(subject for each in bad for subject in _passed(each)),
        ),
        seen_in=tuple(proof for each in bad[:_MOST_PROOFS] for proof in _proof(each)),
        remedies=(
            Remedy(
                summary="Follow one of these calls hop by hop.",
                commands=(commands.quoted("meshdoctor", "trace", bad[0].caller, bad[0].url),),
                effect="Shows where each decision is written; changes nothing.",
            ),
        ),
    )


def _where(bad: Sequence[Pair]) -> str:
    """`reach reviews instead`, `get 503 from the proxy (...)`, or both, counted."""
    ends: dict[str, int] = defaultdict(int)
    for each in bad:
        ends[_end(each)] += 1
    if len(ends) == 1:
        return next(iter(ends))
    return listing([f"{said} ({number})" for said, number in ends.items()], most=3)


def _end(pair: Pair) -> str:
    why = proofs.shorten(pair.why or pair.reason)
    if pair.verdict is Verdict.WRONG:
        if pair.reached is None:
            return f"end where {why}"
        return f"reach {pair.reached} instead"
    if pair.status is not None:
        return f"get {pair.status} from the proxy itself ({why})"
    return f"end nowhere ({why})"


def _passed(pair: Pair) -> Iterator[Subject]:
    """The listeners and clusters that the call passed: what links it to its causes."""
    for walk in pair.followed:
        for hop in walk.hops:
            if hop.kind is HopKind.LISTENER:
                yield Subject(SubjectKind.LISTENER, hop.name.partition(" ")[0])
            elif hop.kind is HopKind.CLUSTER:
                yield Subject(SubjectKind.CLUSTER, hop.name)


def _proof(pair: Pair) -> Iterator[Citation]:
    """The last decision that is written somewhere."""
    for walk in pair.walks[:1]:
        for hop in walk.hops[::-1]:
            if hop.kind is not HopKind.ENDPOINT and hop.document:
                yield Citation(
                    hop.document, hop.pointer, proofs.shorten(f"{hop.kind} {hop.name}: {hop.why}")
                )
                return
