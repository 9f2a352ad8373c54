"""What many snapshots say, each judged by itself: a line for each, and the causes they share."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from meshdoctor import __version__
from meshdoctor.evidence.times import in_writing
from meshdoctor.findings import Severity
from meshdoctor.report import schemas, wording
from meshdoctor.report.document import Report, Verdict
from meshdoctor.report.json import written
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal
from meshdoctor.report.text import VERDICT_STYLES

SCHEMA: Final = "meshdoctor.fleet/v1"

_UNJUDGED: Final = "unjudged"
_WORST_FIRST: Final = (Verdict.BROKEN, None, Verdict.UNKNOWN, Verdict.DEGRADED, Verdict.HEALTHY)
_SIGNS: Final = {Verdict.BROKEN: "✗", Verdict.DEGRADED: "!", Verdict.HEALTHY: "✓"}


class Cause(msgspec.Struct, frozen=True):
    """The root of one diagnosis; the severity is the worst of its tree."""

    code: str
    check: str
    severity: Severity
    title: str


class Judgement(msgspec.Struct, frozen=True):
    """What one snapshot says, in a few words.

    `verdict` is None where it could not be judged, and `reason` says why; `findings` counts them
    by severity. `parts` is how many snapshots, each of a host, were merged into it.
    """

    snapshot: str
    verdict: Verdict | None
    reason: str = ""
    findings: dict[str, int] = msgspec.field(default_factory=dict)
    causes: tuple[Cause, ...] = ()
    seconds: float = 0.0
    parts: int = 1

    @classmethod
    def of(cls, snapshot: str, report: Report, parts: int = 1) -> "Judgement":
        """A report in a few words."""
        roots = ((each, report.finding(each.root)) for each in report.diagnoses)
        return cls(
            snapshot=snapshot,
            verdict=report.verdict,
            reason=report.verdict_reason,
            findings={each.value: report.count(each) for each in reversed(Severity)},
            causes=tuple(
                Cause(root.code, root.check, diagnosis.severity, diagnosis.title)
                for diagnosis, root in roots
            ),
            seconds=report.seconds,
            parts=parts,
        )


class SharedCause(msgspec.Struct, frozen=True):
    """A cause by its check, the snapshots that have it, and how the first of them tells it."""

    code: str
    check: str
    severity: Severity
    snapshots: tuple[str, ...]
    title: str


class Fleet(msgspec.Struct, frozen=True):
    """The judgements of one run, the worst first."""

    judgements: tuple[Judgement, ...]
    seconds: float

    @classmethod
    def of(cls, judgements: Iterable[Judgement], seconds: float) -> "Fleet":
        """In one order, whichever was judged first."""
        ordered = sorted(
            judgements, key=lambda each: (_WORST_FIRST.index(each.verdict), each.snapshot)
        )
        return cls(tuple(ordered), seconds)

    def count(self, verdict: Verdict | None) -> int:
        """How many have that verdict; None: could not be judged."""
        return sum(each.verdict is verdict for each in self.judgements)

    def causes(self) -> list[SharedCause]:
        """Which causes there are, the worst and the commonest first."""
        having: dict[tuple[str, str], list[tuple[str, Cause]]] = defaultdict(list)
        for each in self.judgements:
            for cause in each.causes:
                having[cause.code, cause.check].append((each.snapshot, cause))
        shared = [
            SharedCause(
                code,
                check,
                max((cause.severity for _, cause in found), key=lambda each: each.rank),
                tuple(dict.fromkeys(snapshot for snapshot, _ in found)),
                found[0][1].title,
            )
            for (code, check), found in having.items()
        ]
        return sorted(
            shared, key=lambda each: (-each.severity.rank, -len(each.snapshots), each.code)
        )


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that `render_json` satisfies."""
    return schemas.load("fleet-v1")


def render(fleet: Fleet, terminal: Terminal | None = None) -> str:
    """The judgements as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    for each in fleet.judgements:
        _write_judgement(page, each)
    told = [each for each in fleet.causes() if each.severity is not Severity.INFO]
    if told:
        page.heading("Causes")
    for cause in told:
        _write_cause(page, cause, len(fleet.judgements))
    worst = fleet.judgements[0] if fleet.judgements else None
    if worst is not None and worst.causes:
        command = shlex.join(("meshdoctor", "check", "--snapshot", worst.snapshot))
        if not page.alters(command):
            page.gap()
            page.paragraph(page.text(("More of one:", "dim")))
            page.verbatim(command, "  ", "cyan")
    page.gap()
    page.paragraph(page.text(_summary(fleet)))
    return str(page)


def _write_judgement(page: Page, each: Judgement) -> None:
    # What could not be judged is as unknown as what has no verdict.
    verdict = Verdict.UNKNOWN if each.verdict is None else each.verdict
    style, sign = VERDICT_STYLES[verdict], page.glyph(_SIGNS.get(verdict, "?"))
    word = _UNJUDGED if each.verdict is None else verdict.value
    said = [wording.count(number, name) for name, number in each.findings.items() if number]
    codes = Counter(cause.code for cause in each.causes if cause.severity is not Severity.INFO)
    found = f"{', '.join(said)} ({', '.join(codes)})" if codes else ""
    why = "; ".join(filter(None, (found, each.reason)))
    merged = f", {each.parts} snapshots as one mesh" if each.parts > 1 else ""
    page.paragraph(
        page.text((f"{sign} {word}", style), f"  {each.snapshot}{merged}{why and ': '}{why}"),
        "",
        "    ",
    )


def _write_cause(page: Page, cause: SharedCause, of: int) -> None:
    page.paragraph(
        page.text(
            (f"{len(cause.snapshots)} of {of}", "bold"),
            f"  {cause.severity} {cause.code} {cause.check}, as in {cause.snapshots[0]}: "
            f"{cause.title}",
        ),
        "  ",
        "    ",
    )


def _summary(fleet: Fleet) -> str:
    counted = [
        f"{number} {each.value}"
        for each in (Verdict.BROKEN, Verdict.DEGRADED, Verdict.UNKNOWN, Verdict.HEALTHY)
        if (number := fleet.count(each))
    ]
    if number := fleet.count(None):
        counted.append(f"{number} could not be judged")
    said = f": {', '.join(counted)}" if counted else ""
    number = len(fleet.judgements)
    return f"{wording.count(number, 'snapshot')}{said}. {wording.duration(fleet.seconds)}."


def render_json(fleet: Fleet) -> str:
    """The judgements as one JSON document, `meshdoctor.fleet/v1`, in ASCII, with a line end."""
    document = {
        "schema": SCHEMA,
        "tool": {"name": "meshdoctor", "version": __version__},
        "created": in_writing(datetime.now(UTC)),
        "seconds": round(fleet.seconds, 3),
        "summary": {
            "snapshots": len(fleet.judgements),
            **{each.value: fleet.count(each) for each in Verdict},
            _UNJUDGED: fleet.count(None),
        },
        "causes": [{**_cause(each), "snapshots": list(each.snapshots)} for each in fleet.causes()],
        "snapshots": [_judgement(each) for each in fleet.judgements],
    }
    return written(document)


def _cause(cause: Cause | SharedCause) -> dict[str, Any]:
    return {
        "code": cause.code,
        "check": cause.check,
        "severity": cause.severity.value,
        "title": cause.title,
    }


def _judgement(each: Judgement) -> dict[str, Any]:
    counts: Sequence[str] = [severity.value for severity in reversed(Severity)]
    return {
        "snapshot": each.snapshot,
        "verdict": None if each.verdict is None else each.verdict.value,
        "reason": each.reason,
        "parts": each.parts,
        "summary": {name: each.findings.get(name, 0) for name in counts},
        "causes": [_cause(cause) for cause in each.causes],
        "seconds": round(each.seconds, 3),
    }
