"""MD402: calls to a service end at another one, or nowhere."""

from collections import Counter, defaultdict
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
from meshdoctor.routing.calls import Calls, Destination, Judgement, Pair, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.walks import is_known, passed
from meshdoctor_checks.wording import count, listing

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
    service that owns the endpoint in Consul is compared with the one that was called, or with
    those that a rule for it sends its calls on to. One finding for each service that is called,
    its callers listed. What is followed is GET /: where the routes redirect it, or are all for
    other requests, the calls are counted, and not judged. Neither are calls that cannot be
    followed to their end.

    ## How to fix it

    Mend the cause that this finding hangs below. Where it has none, follow one call hop by hop
    with `meshdoctor trace CALLER URL`.
    """
    judged = calls.judged()
    fates: Counter[Judgement] = Counter()
    for each in judged.values():
        fates.update(each)
    known = Counter({each: number for each, number in fates.items() if is_known(each)})
    unknown = fates.total() - known.total()
    if not known:
        if not fates:
            raise CannotLookError("no caller is known to call any service")
        reasons = dict.fromkeys(each.reason for each in calls.pairs)
        raise CannotLookError(f"no call could be followed: {proofs.shorten('; '.join(reasons))}")
    bad = [destination for destination, each in judged.items() if any(map(_is_bad, each))]

    def first(destination: Destination) -> tuple[str, Destination]:
        return next(calls.to(destination, is_known)).caller, destination

    for destination in sorted(bad, key=first):
        callers = sum(n for each, n in judged[destination].items() if is_known(each))
        yield _finding(*destination, tuple(calls.to(destination, _is_bad)), callers)
    yield Fact(_reached(known))
    partly = sum(number for each, number in known.items() if _is_partly_allowed(each))
    if partly:
        yield Fact(f"{count(partly, 'call')} allowed for some requests only, and not for GET /")
    routed = sum(number for each, number in known.items() if each.by_request)
    if routed:
        yield Fact(f"{count(routed, 'call')} whose routes send on other requests than GET /")
    if unknown:
        yield Fact(f"{count(unknown, 'more call')} could not be followed to the end")


def _is_bad(judgement: Judgement) -> bool:
    meant = judgement.by_request or _is_partly_allowed(judgement)
    return judgement.verdict in _BAD and not meant


def _is_partly_allowed(judgement: Judgement) -> bool:
    """Somebody decided which requests the caller may make: that GET / is none of them is meant."""
    return judgement.denied is not None and not judgement.denied.every_request


def _reached(known: Counter[Judgement]) -> str:
    """`24 of 24 calls reach the service they name, 6 of them by luck`."""
    verdicts: Counter[Verdict] = Counter()
    for each, number in known.items():
        verdicts[each.verdict] += number
    lucky = verdicts[Verdict.BY_LUCK]
    good = verdicts[Verdict.RIGHT] + lucky
    said = f"{good} of {count(known.total(), 'call')} reach the service they name"
    return f"{said}, {lucky} of them by luck" if lucky else said


def _finding(callee: str, port: int, bad: Sequence[Pair], callers: int) -> Finding:
    names = [each.caller for each in bad]
    return Finding(
        message=(
            f"{'Some calls' if all(map(_partly, bad)) else 'Calls'} to {callee} on port {port} "
            f"{_ends(bad)}, from {_who(names, callers)}"
            f"{_why(bad)}."
        ),
        subjects=(
            Subject(SubjectKind.SERVICE, callee),
            *subjects(
                SubjectKind.WORKLOAD,
                dict.fromkeys((*names, *(each for pair in bad for each in pair.ended_at))),
            ),
            *subjects(
                SubjectKind.INSTANCE, dict.fromkeys(id_ for each in bad for id_ in each.absent)
            ),
            *passed(bad),
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


def _partly(pair: Pair) -> bool:
    """True where only some of the instances that a call is balanced over are not there."""
    return bool(pair.absent and pair.instances)


def _who(names: Sequence[str], callers: int) -> str:
    """`web`, `both callers`, `all 6 callers`, `5 of 6 callers`."""
    if len(names) == 1:
        return names[0]
    if len(names) < callers:
        return f"{len(names)} of {callers} callers"
    return "both callers" if callers == len("ab") else f"all {callers} callers"


def _ends(bad: Sequence[Pair]) -> str:
    """`reach reviews instead`, `get 503 from the proxy itself`, or several, counted."""
    ends: dict[str, int] = defaultdict(int)
    for each in bad:
        ends[_end(each)] += 1
    if len(ends) == 1:
        return next(iter(ends))
    return listing([f"{end} ({number})" for end, number in ends.items()], most=3)


def _why(bad: Sequence[Pair]) -> str:
    """Why the proxy answers itself, or nobody does, where all these calls have that in common."""
    reasons = {each.why or each.reason for each in bad if each.reached is None}
    alike = len(reasons) == 1 and all(each.reached is None for each in bad)
    return f": {proofs.shorten(reasons.pop())}" if alike else ""


def _end(pair: Pair) -> str:
    if pair.reached is not None:
        return f"reach {pair.reached} instead"
    if pair.verdict is Verdict.WRONG:
        return "reach an address that no service has"
    return "end nowhere" if pair.status is None else f"get {pair.status} from the proxy itself"


def _proof(pair: Pair) -> Iterator[Citation]:
    """The last decision that is written somewhere."""
    for walk in pair.walks[:1]:
        for hop in walk.hops[::-1]:
            if hop.kind is not HopKind.ENDPOINT and hop.document:
                yield Citation(
                    hop.document, hop.pointer, proofs.shorten(f"{hop.kind} {hop.name}: {hop.why}")
                )
                return
