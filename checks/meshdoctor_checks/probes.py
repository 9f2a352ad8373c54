"""What findings of probes have in common: their subjects, their proofs, who asked."""

from collections.abc import Sequence
from typing import Final

from meshdoctor.evidence.probe import How
from meshdoctor.findings import Citation, Remedy, Subject, SubjectKind, subjects
from meshdoctor.routing.probed import Comparison
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.walks import passed
from meshdoctor_checks.wording import count, listing

_MOST_PROOFS: Final = 12


def about(compared: Sequence[Comparison]) -> tuple[Subject, ...]:
    """The callee, its callers, and the listeners and clusters that their calls pass."""
    callees = dict.fromkeys(each.request.callee for each in compared)
    callers = dict.fromkeys(each.probed.caller for each in compared)
    return (
        *subjects(SubjectKind.SERVICE, callees),
        *subjects(SubjectKind.WORKLOAD, callers),
        *passed(each.pair for each in compared),
    )


def proof(compared: Sequence[Comparison]) -> tuple[Citation, ...]:
    """What the requests met, where it is recorded."""
    return tuple(
        Citation(each.probed.document, each.probed.pointer, proofs.shorten(met(each)))
        for each in compared[:_MOST_PROOFS]
    )


def met(comparison: Comparison) -> str:
    """`GET http://reviews:9080/: 200, answered by ratings (proxy statistics)`."""
    request = comparison.request
    asked = f"GET {request.url.rstrip('/')}{request.path}"
    if request.answer is None:
        return f"{asked}: {request.error or request.failure}"
    by = request.answered_by
    if by.how is How.PROXY:
        flag = f", {by.flag}" if by.flag else ""
        return f"{asked}: {request.answer.status} from the proxy itself{flag}"
    if by.service is None:
        return f"{asked}: {request.answer.status}, by whom is not known"
    return f"{asked}: {request.answer.status}, answered by {by.service} ({by.how})"


def askers(some: Sequence[Comparison], every: Sequence[Comparison]) -> str:
    """`from web`, `from all 6 callers`, `from 2 of 6 callers`."""
    names = list(dict.fromkeys(each.probed.caller for each in some))
    number = len({each.probed.caller for each in every})
    if len(names) == number > 1:
        return f"from all {count(number, 'caller')}"
    if len(names) > 1:
        return f"from {len(names)} of {count(number, 'caller')}"
    return f"from {listing(names)}"


def follow(comparison: Comparison) -> Remedy:
    """The same call, followed through the configuration."""
    request = comparison.request
    url = f"{request.url.rstrip('/')}{request.path}"
    return Remedy(
        summary="See where the configuration sends one of these calls, hop by hop.",
        commands=(commands.quoted("meshdoctor", "trace", comparison.probed.caller, url),),
        effect="Shows where each decision is written; changes nothing.",
    )
