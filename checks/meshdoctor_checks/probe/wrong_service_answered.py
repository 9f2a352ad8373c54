"""MD601: a request was answered by another service than the one it was for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.probe import ProbeResults
from meshdoctor.findings import Fact, Finding, Severity
from meshdoctor.routing.calls import Calls, Verdict
from meshdoctor.routing.probed import Comparison, compare
from meshdoctor.topology import Mesh
from meshdoctor_checks import probes
from meshdoctor_checks.wording import count, listing


@check(code="MD601", severity=Severity.ERROR, since="0.1")
def wrong_service_answered(
    mesh: Mesh, results: ProbeResults, calls: Calls | None
) -> Iterator[Finding | Fact]:
    """A real request was answered by another service than the one it was for.

    ## Why it matters

    This is no prediction: it is what the applications of this mesh meet now. They get pages that
    are not there, or answers that look right and are somebody else's.

    ## How it is found

    `meshdoctor probe` sends one GET for each caller and callee from the caller's own network
    namespace. Who answered is told by what is trusted most: the endpoint to which the caller's
    Envoy counted the request; the address, where no proxy is in between; a header that names the
    service; a body that equals what only one service answers on its own localhost. One finding
    for each service that was asked, beside what the configuration predicts.

    ## How to fix it

    Mend the cause that this finding hangs below. Where it has none, follow one call hop by hop
    with `meshdoctor trace CALLER URL`.
    """
    every = compare(mesh, calls, results)
    if not every:
        raise CannotLookError("no request of the probe was sent")
    told = [each for each in every if each.request.answered_by.service is not None]
    if not told:
        raise CannotLookError(
            "no probe could tell which service answered",
            "compare the answers with what each service says of itself: "
            "`meshdoctor probe --fingerprint`",
        )
    by_callee: dict[tuple[str, int], list[Comparison]] = defaultdict(list)
    for each in told:
        by_callee[each.request.callee, each.request.port].append(each)
    for (callee, port), compared in by_callee.items():
        wrong = [each for each in compared if not _is_right(each)]
        if wrong:
            yield _finding(callee, port, wrong, compared)
    right = sum(map(_is_right, told))
    yield Fact(f"{right} of {count(len(told), 'request')} were answered by the service asked")


def _is_right(compared: Comparison) -> bool:
    """The service asked answered, or one that a rule for it sends its calls on to."""
    service, pair = compared.request.answered_by.service, compared.pair
    if pair is not None and pair.verdict is Verdict.RIGHT:
        return service in compared.predicted.services | {compared.request.callee}
    return service == compared.request.callee


def _finding(
    callee: str, port: int, wrong: Sequence[Comparison], compared: Sequence[Comparison]
) -> Finding:
    by = listing(sorted({str(each.request.answered_by.service) for each in wrong}))
    predicted = sorted({str(each.predicted) for each in wrong if each.predicted.known})
    beside = (
        f"the configuration predicts {listing(predicted)}"
        if predicted
        else "nothing was predicted"
    )
    return Finding(
        message=(
            f"Requests to {callee} on port {port} {probes.askers(wrong, compared)} were answered "
            f"by {by} ({beside})."
        ),
        subjects=probes.about(wrong),
        seen_in=probes.proof(wrong),
        remedies=(probes.follow(wrong[0]),),
    )
