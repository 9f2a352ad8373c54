"""MD409: sidecars of one mesh send the same call to different places."""

from collections import defaultdict
from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing


@check(code="MD409", severity=Severity.WARNING, since="0.1")
def sidecars_disagree(mesh: Mesh, calls: Calls) -> Iterator[Finding | Fact]:
    """Sidecars of the same mesh have different answers for the same destination.

    ## Why it matters

    What works from one application fails from another. Sidecars get the same configuration from
    one control plane; where they differ, some of them hold an old one.

    ## How it is found

    The same call is followed through each caller's sidecar, and does not end at the same service.
    Calls of a service to itself are left out: they do not take the common listener.

    ## How to fix it

    Find out which sidecars are behind, and restart those.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("each caller of this mesh has upstreams of its own")
    own = {workload.name: set(workload.services) for workload in mesh.workloads}
    groups: dict[tuple[str, int], dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in calls.pairs:
        if pair.verdict is Verdict.UNKNOWN or pair.callee in own.get(pair.caller, ()):
            continue
        end = pair.reached or (f"status {pair.status}" if pair.status else "nowhere")
        groups[pair.callee, pair.port][end].append(pair)
    if not groups:
        raise CannotLookError("no call between different services could be followed")
    found = False
    for (callee, port), ends in groups.items():
        if len(ends) == 1:
            continue
        found = True
        split = listing(
            [f"{end} from {listing([e.caller for e in pairs])}" for end, pairs in ends.items()]
        )
        pairs = [pair for each in ends.values() for pair in each]
        yield Finding(
            message=f"The sidecars disagree on where calls to {callee}, port {port}, go: {split}.",
            subjects=(
                *subjects(SubjectKind.SERVICE, (callee,)),
                *subjects(SubjectKind.SIDECAR, (e.sidecar for e in pairs if e.sidecar)),
            ),
            seen_in=tuple(proof for each in ends.values() for proof in _proof(each[0])),
            remedies=(
                Remedy(
                    summary="See which sidecars are behind, and restart those.",
                    commands=(
                        commands.quoted("meshdoctor", "matrix", "--callee", callee),
                        commands.see_that_it_worked("MD409"),
                    ),
                ),
            ),
        )
    if not found:
        yield Fact(f"all sidecars agree on {count(len(groups), 'destination')}")


def _proof(pair: Pair) -> Iterator[Citation]:
    for walk in pair.walks[:1]:
        hop = walk.hop(HopKind.CLUSTER) or walk.hop(HopKind.LISTENER)
        if hop is not None:
            yield Citation(hop.document, hop.pointer, proofs.shorten(f"{hop.kind} {hop.name}"))
