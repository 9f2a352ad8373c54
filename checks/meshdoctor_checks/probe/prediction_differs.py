"""MD604: a real request met something else than the configuration says."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.probe import ProbeResults
from meshdoctor.findings import Citation, Fact, Finding, Severity
from meshdoctor.routing.calls import Calls
from meshdoctor.routing.probed import Agreement, Comparison, compare
from meshdoctor.topology import Mesh
from meshdoctor_checks import probes, proofs
from meshdoctor_checks.wording import count


@check(code="MD604", severity=Severity.WARNING, since="0.1")
def prediction_differs(
    mesh: Mesh, calls: Calls, results: ProbeResults
) -> Iterator[Finding | Fact]:
    """Reality and the followed configuration disagree about where a call ends.

    ## Why it matters

    What meshdoctor says of calls (`matrix`, `trace`, MD402) is worked out from the proxies'
    configuration. Where a real request meets something else, either the mesh changed between the
    two looks, or something that meshdoctor does not see has a hand in it, or meshdoctor is wrong.

    ## How it is found

    Each request of `meshdoctor probe` is held against the same call followed through the caller's
    Envoy. They agree where the service that answered is one that the call may end at, or where a
    proxy answered itself and that was predicted. Where it is not known who answered, or where a
    call cannot be followed, nothing is compared.

    ## How to fix it

    Probe again: a change of the catalogue between the two looks is the usual reason. If it
    stays, follow the call with `meshdoctor trace CALLER URL`, and report it with a snapshot
    (`meshdoctor probe --record FILE.tgz`).
    """
    every = compare(mesh, calls, results)
    known = [each for each in every if each.agreement is not Agreement.UNKNOWN]
    if not known:
        raise CannotLookError("of no request both prediction and end are known")
    differing: dict[tuple[str, int, str, str], list[Comparison]] = defaultdict(list)
    for each in known:
        if each.agreement is Agreement.DIFFERENT:
            key = (
                each.request.callee,
                each.request.port,
                str(each.predicted),
                str(each.observed),
            )
            differing[key].append(each)
    for (callee, port, predicted, observed), compared in differing.items():
        asked = [each for each in known if each.request.callee == callee]
        yield Finding(
            message=(
                f"Requests to {callee} on port {port} {probes.askers(compared, asked)} ended "
                f"otherwise than the configuration predicts: {observed} instead of {predicted}."
            ),
            subjects=probes.about(compared),
            seen_in=(*probes.proof(compared), *_predictions(compared[0])),
            remedies=(probes.follow(compared[0]),),
        )
    same = sum(each.agreement is Agreement.SAME for each in known)
    yield Fact(f"{same} of {count(len(known), 'request')} met what the configuration predicts")


def _predictions(comparison: Comparison) -> Iterator[Citation]:
    """The last decision of the followed call that is written somewhere."""
    pair = comparison.pair
    for walk in pair.walks[:1] if pair is not None else ():
        for hop in walk.hops[::-1]:
            if hop.document:
                said = proofs.shorten(f"{hop.kind} {hop.name}: {hop.why}")
                yield Citation(hop.document, hop.pointer, said)
                return
