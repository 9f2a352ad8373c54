"""MD603: a request got no answer, or one that says that it failed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.probe import Failure, How, ProbeResults
from meshdoctor.findings import Fact, Finding, Severity
from meshdoctor.routing.calls import Calls
from meshdoctor.routing.probed import Comparison, compare
from meshdoctor.topology import Mesh
from meshdoctor_checks import probes
from meshdoctor_checks.wording import count

_SERVER_FAULT: Final = 500
_FLAGS: Final = {
    "NR": "no route",
    "NC": "no such cluster",
    "UH": "no healthy endpoint",
    "UF": "no connection to the endpoint",
    "UC": "the endpoint closed the connection",
    "UO": "too many requests at once",
    "UPE": "the endpoint speaks another protocol",
    "UR": "the endpoint reset the request",
    "UT": "the endpoint was too slow",
    "RL": "rate limit",
    "RBAC": "not allowed",
}


@check(code="MD603", severity=Severity.ERROR, since="0.1")
def call_failed(
    mesh: Mesh, results: ProbeResults, calls: Calls | None
) -> Iterator[Finding | Fact]:
    """A real request was refused, got no answer in time, or was answered with an error.

    ## Why it matters

    This is no prediction: a call between these two fails now.

    ## How it is found

    `meshdoctor probe` sends one GET for each caller and callee from the caller's own network
    namespace. A request failed where the connection was refused or closed, where no answer came
    in time, where a proxy answered instead of a service, and where the answer's status is 500 or
    above. A proxy's own answer is told by its words and headers, and named by the flag that its
    access log has for it: NR no route, NC no such cluster, UH no healthy endpoint, UF no
    connection, UT too slow. A service's own 404 is an answer: it may have no page at the path.

    ## How to fix it

    Mend the cause that this finding hangs below. Where it has none: see that the application
    runs, then follow the call with `meshdoctor trace CALLER URL`.
    """
    every = compare(mesh, calls, results)
    if not every:
        raise CannotLookError("no request of the probe was sent")
    failed: dict[tuple[str, int, str], list[Comparison]] = defaultdict(list)
    for each in every:
        how = _failure(each)
        # Another service's error says nothing of the one that was asked.
        if how and each.request.answered_by.service in {None, each.request.callee}:
            failed[each.request.callee, each.request.port, how].append(each)
    for (callee, port, how), compared in failed.items():
        asked = [each for each in every if each.request.callee == callee]
        yield _finding(callee, port, how, compared, asked)
    good = sum(not _failure(each) for each in every)
    yield Fact(f"{good} of {count(len(every), 'request')} got an answer that is no error")


def _failure(comparison: Comparison) -> str:
    """How it failed, as a sentence's end; "" where it did not."""
    request = comparison.request
    by = request.answered_by
    if request.answer is None:
        match request.failure:
            case Failure.REFUSED:
                return "were refused"
            case Failure.TIMED_OUT:
                return "got no answer in time"
            case Failure.CLOSED:
                return "were cut off without an answer"
            case Failure.NOT_HTTP:
                return "got an answer that is no HTTP"
            case _:
                return "found no way to connect"
    if by.how is How.PROXY:
        words = f": {_FLAGS[by.flag]} ({by.flag})" if by.flag in _FLAGS else ""
        return f"got {request.answer.status} from a proxy, not from a service{words}"
    if request.answer.status >= _SERVER_FAULT:
        return f"were answered with {request.answer.status}"
    return ""


def _finding(
    callee: str,
    port: int,
    how: str,
    compared: Sequence[Comparison],
    asked: Sequence[Comparison],
) -> Finding:
    return Finding(
        message=f"Requests to {callee} on port {port} {probes.askers(compared, asked)} {how}.",
        subjects=probes.about(compared),
        seen_in=probes.proof(compared),
        remedies=(probes.follow(compared[0]),),
    )
