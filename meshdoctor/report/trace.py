"""Where one call goes, hop by hop, on a terminal and as `meshdoctor.trace/v1`."""

from collections.abc import Sequence
from typing import Any, Final

from meshdoctor.report import schemas, wording
from meshdoctor.report.json import written
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal
from meshdoctor.routing.calls import Verdict
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Closed,
    Destination,
    Hop,
    HopKind,
    NotTaken,
    Outcome,
    Reached,
    Unknown,
    Walk,
)
from meshdoctor.routing.trace import Landed, Trace, Way

SCHEMA: Final = "meshdoctor.trace/v1"

_STYLES: Final = {
    Verdict.RIGHT: "bold green",
    Verdict.WRONG: "bold red",
    Verdict.NOWHERE: "bold red",
    Verdict.BY_LUCK: "bold yellow",
    Verdict.UNKNOWN: "bold magenta",
}
_MOST_ENDS: Final = 12
_MOST_NEAR: Final = 12


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every document satisfies."""
    return schemas.load("trace-v1")


# ---------------------------------------------------------------- as JSON


def render_json(trace: Trace) -> str:
    """One JSON document, in ASCII, with a line end."""
    hops: list[dict[str, Any]] = []
    not_taken: list[dict[str, Any]] = []
    ways: list[dict[str, Any]] = []
    for number, way in enumerate(trace.ways):
        for walk in _walks(way):
            hops += [_hop(hop, walk, number) for hop in walk.hops]
            not_taken += [_hop(hop, walk, number) for hop in walk.not_taken]
        ways.append(_way(way))
    document = {
        "schema": SCHEMA,
        "source": trace.source,
        "sidecar": trace.sidecar,
        "url": trace.url,
        "understood": list(trace.understood),
        "expected": trace.expected,
        "hops": hops,
        "reached": trace.reached,
        "instances": list(trace.instances),
        "verdict": trace.verdict.value,
        "status": trace.status,
        "reason": trace.reason,
        "outcome": _outcome(trace.ways[0].walk.outcome) if trace.ways else None,
        "ways": ways,
        "notes": list(trace.notes),
        "not_taken": not_taken,
    }
    return written(document)


def _walks(way: Way) -> Sequence[Walk]:
    return (way.walk, *(landed.arrival.walk for landed in way.landed))


def _hop(hop: Hop | NotTaken, walk: Walk, way: int) -> dict[str, Any]:
    return {
        "kind": hop.kind.value,
        "name": hop.name,
        "why": hop.why,
        "seen_in": {"document": hop.document, "pointer": hop.pointer},
        "proxy": walk.proxy,
        "inbound": walk.call.inbound,
        "way": way,
    }


def _way(way: Way) -> dict[str, Any]:
    return {
        "address": way.walk.call.address,
        "port": way.walk.call.port,
        "alike": list(way.alike),
        "outcome": _outcome(way.walk.outcome),
        "arrivals": [
            {
                "workload": landed.arrival.workload.name,
                "proxy": landed.arrival.walk.proxy,
                "alike": list(landed.alike),
                "outcome": _outcome(landed.arrival.walk.outcome),
            }
            for landed in way.landed
        ],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Reached(destinations, otherwise):
            return {
                "kind": "reached",
                "destinations": [
                    {
                        "cluster": each.cluster,
                        "address": each.address,
                        "port": each.port,
                        "share": round(each.share, 6),
                    }
                    for each in destinations
                ],
                "otherwise": [
                    {"share": round(share, 6), **_outcome(each)} for share, each in otherwise
                ],
            }
        case Answered(status, flag, why, location):
            return {
                "kind": "answered",
                "status": status,
                "flag": flag,
                "why": why,
                "location": location,
            }
        case Closed(flag, why):
            return {"kind": "closed", "flag": flag, "why": why}
        case Bypassed(address, port, why):
            return {"kind": "bypassed", "address": address, "port": port, "why": why}
        case Unknown(why):
            return {"kind": "unknown", "why": why}


# ---------------------------------------------------------------- as text


def render(trace: Trace, terminal: Terminal | None = None) -> str:
    """The trace as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    page.paragraph(page.text((f"{trace.source} calls {trace.url}", "bold")))
    for sentence in trace.understood:
        page.paragraph(page.text(sentence), "  ")
    number = 1
    for way in trace.ways:
        page.gap()
        number = _write_way(page, trace, way, number)
    _write_near(page, trace)
    _write_notes(page, trace)
    page.gap()
    _write_verdict(page, trace)
    return str(page)


def _write_way(page: Page, trace: Trace, way: Way, number: int) -> int:
    to = way.walk.call.destination
    if len(trace.ways) > 1:
        page.paragraph(page.text((f"To {to}, in {way.walk.proxy}:", "bold")))
    else:
        page.paragraph(page.text((f"In {way.walk.proxy}, to {to}:", "bold")))
    if way.alike:
        page.paragraph(page.text(f"It treats {', '.join(way.alike)} alike."), "  ")
    number = _write_hops(page, way.walk, number)
    for landed in way.landed:
        page.gap()
        number = _write_landed(page, landed, number)
    return number


def _write_landed(page: Page, landed: Landed, number: int) -> int:
    walk = landed.arrival.walk
    where = f"At the far side, in {walk.proxy} of {landed.arrival.workload.name}:"
    page.paragraph(page.text((where, "bold")))
    if landed.alike:
        others = f"{', '.join(landed.alike)} {'takes' if len(landed.alike) == 1 else 'take'}"
        page.paragraph(page.text(f"{others} it in alike."), "  ")
    return _write_hops(page, walk, number)


def _write_hops(page: Page, walk: Walk, number: int) -> int:
    ends = [hop for hop in walk.hops if hop.kind is HopKind.ENDPOINT]
    for hop in walk.hops:
        if hop.kind is HopKind.ENDPOINT and len(ends) > 1:
            # The endpoints of a cluster are one decision: which of them is met, nobody knows.
            if hop is ends[0] or hop.pointer != ends[ends.index(hop) - 1].pointer:
                alike = [each for each in ends if each.pointer == hop.pointer]
                name = ", ".join(each.name for each in alike)
                _write_hop(page, hop, number, name)
                number += 1
            continue
        _write_hop(page, hop, number, hop.name)
        number += 1
    said = _said(walk.outcome)
    if said:
        page.paragraph(page.text((said, "bold")), "  ")
    return number


def _write_hop(page: Page, hop: Hop, number: int, name: str) -> None:
    label = f"{number:>3}. "
    indent = " " * len(label)
    page.paragraph(page.text((hop.kind.value, "bold cyan"), f" {name}"), label, indent)
    page.paragraph(page.text(hop.why), indent)
    where = f"{hop.document} {hop.pointer}".rstrip()
    page.paragraph(page.text((f"seen in {where}", "dim")), indent, f"{indent}  ")


def _said(outcome: Outcome) -> str:
    """How the walk ends, where its hops do not tell."""
    match outcome:
        case Reached(destinations, otherwise):
            parts = [f"{share:.0%}: {_said(each)}" for share, each in otherwise]
            if len({each.cluster for each in destinations}) > 1:
                parts = [*_shares(destinations), *parts]
            return " ".join(parts)
        case Answered(status, flag, why):
            with_flag = f", response flag {flag}" if flag else ""
            status_said = "" if status is None else f" with status {status}{with_flag}"
            return f"The proxy answers itself{status_said}: {why}."
        case Closed(flag, why):
            with_flag = f" (response flag {flag})" if flag else ""
            return f"The connection is closed{with_flag}: {why}."
        case Bypassed(address, port, why):
            return f"It goes straight to {address}:{port}, past the proxy: {why}."
        case Unknown(why):
            return f"From here on it cannot be told: {why}."


def _shares(destinations: Sequence[Destination]) -> list[str]:
    shares: dict[str, float] = {}
    for each in destinations:
        shares[each.cluster] = shares.get(each.cluster, 0.0) + each.share
    return [f"{share:.0%} of the calls go to {cluster}." for cluster, share in shares.items()]


def _write_near(page: Page, trace: Trace) -> None:
    """What nearly decided instead, and why it did not."""
    near = list(
        dict.fromkeys((walk.proxy, each) for walk in trace.walks for each in walk.not_taken)
    )
    if not near:
        return
    page.heading("Not taken")
    for proxy, each in near[:_MOST_NEAR]:
        where = f", in {proxy}" if proxy != trace.sidecar else ""
        page.paragraph(
            page.text(
                (each.kind.value, "cyan"), f" {each.name}{where}: {wording.ended(each.why)}"
            ),
            "  - ",
            "    ",
        )
    if len(near) > _MOST_NEAR:
        more = len(near) - _MOST_NEAR
        page.paragraph(page.text(f"and {more} more: see `--format json`"), "  - ", "    ")


def _write_notes(page: Page, trace: Trace) -> None:
    if trace.notes:
        page.heading("What may change it, and is not followed")
        for note in trace.notes:
            page.paragraph(page.text(wording.ended(note)), "  - ", "    ")


def _write_verdict(page: Page, trace: Trace) -> None:
    expected = trace.expected or "nobody in the catalogue"
    reached = trace.reached or ("not known" if trace.verdict is Verdict.UNKNOWN else "no service")
    instances = list(trace.instances)
    if trace.reached is not None and instances:
        more = len(instances) - _MOST_ENDS
        named = ", ".join(instances[:_MOST_ENDS]) + (f" and {more} more" if more > 0 else "")
        reached += f" ({named})"
    page.paragraph(page.text("Expected: ", (expected, "bold")), "", "  ")
    page.paragraph(page.text("Reached: ", (reached, "bold")), "", "  ")
    reason = (
        f" {wording.ended(trace.reason)}" if trace.reason else " it reaches the service it names."
    )
    verdict = f"{trace.verdict.value.upper()}:"
    page.paragraph(page.text((verdict, _STYLES[trace.verdict]), reason))
