"""Two reports side by side: what was found, what is gone, what changed; causes first."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from meshdoctor.findings import Severity
from meshdoctor.report import schemas
from meshdoctor.report.json import written
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal
from meshdoctor.report.told import NOTHING, Told, ToldFinding, ToldSubject
from meshdoctor.routing.calls import Pair, Verdict

SCHEMA: Final = "meshdoctor.diff/v1"

_ALIKE: Final = 0.5
"""Of all subjects of two findings, so many in common make them one that changed."""
_MOST_NAMES: Final = 6


class Change(msgspec.Struct, frozen=True):
    """One finding, as it was and as it is."""

    before: ToldFinding
    after: ToldFinding

    @property
    def joined(self) -> tuple[ToldSubject, ...]:
        """Subjects that it has come to concern."""
        return tuple(each for each in self.after.subjects if each not in self.before.subjects)

    @property
    def left(self) -> tuple[ToldSubject, ...]:
        """Subjects that it no longer concerns."""
        return tuple(each for each in self.before.subjects if each not in self.after.subjects)

    @property
    def is_worse(self) -> bool:
        """Whether its severity rose."""
        return self.after.severity.rank > self.before.severity.rank


class Lost(msgspec.Struct, frozen=True):
    """A finding that is no longer reported though nothing says it is mended; `reason` says why."""

    finding: ToldFinding
    reason: str


class CallChange(msgspec.Struct, frozen=True):
    """A call that fares otherwise than before; None for a call that was, or is, not there."""

    before: Pair | None
    after: Pair | None

    @property
    def pair(self) -> Pair:
        """Which call it is."""
        pair = self.after or self.before
        assert pair is not None  # noqa: S101 # one of them is there
        return pair


class Difference(msgspec.Struct, frozen=True):
    """What two runs of the doctor say differently. `calls` is None where they cannot be compared.

    Found, gone and lost stand in the order of their diagnoses, each cause before its symptoms.
    """

    before: Told
    after: Told
    found: tuple[ToldFinding, ...]
    gone: tuple[ToldFinding, ...]
    lost: tuple[Lost, ...]
    changed: tuple[Change, ...]
    calls: tuple[CallChange, ...] | None = None

    @property
    def is_none(self) -> bool:
        """Whether both say the same."""
        same = self.before.verdict is self.after.verdict
        return same and not (self.found or self.gone or self.lost or self.changed or self.calls)

    def is_worse(self, fail_on: Severity) -> bool:
        """Whether something at or above `fail_on` is new, or has risen to it."""
        risen = [each.after for each in self.changed if each.is_worse]
        return any(each.severity.rank >= fail_on.rank for each in (*self.found, *risen))


# ---------------------------------------------------------------- comparing


def compare(
    before: Told,
    after: Told,
    calls: tuple[Sequence[Pair], Sequence[Pair]] | None = None,
) -> Difference:
    """What is different. Ids do not count: a finding is known by its check and its subjects."""
    matched = _matched(before.findings, after.findings)
    old = {id(each): new for each, new in matched}
    new_ones = {id(new) for _, new in matched}
    ended = [
        each
        for each in before.causes_first()
        if id(each) not in old and not _is_within(each, after.findings)
    ]
    lost = {id(each): why for each in ended if (why := _why_lost(each, after)) is not None}
    return Difference(
        before=before,
        after=after,
        found=tuple(
            each
            for each in after.causes_first()
            if id(each) not in new_ones and not _is_within(each, before.findings)
        ),
        gone=tuple(each for each in ended if id(each) not in lost),
        lost=tuple(Lost(each, lost[id(each)]) for each in ended if id(each) in lost),
        changed=tuple(
            Change(each, old[id(each)])
            for each in before.causes_first()
            if id(each) in old and _says(each) != _says(old[id(each)])
        ),
        calls=None if calls is None else _changed_calls(*calls),
    )


def _why_lost(finding: ToldFinding, after: Told) -> str | None:
    if after.suppresses(finding.code):
        return "findings of this check are suppressed now"
    return after.why_not_looked(finding.code)


def _is_within(finding: ToldFinding, others: Sequence[ToldFinding]) -> bool:
    """True where another run tells it as one with many that say the same."""
    return any(
        each.alike > 1
        and (each.code, each.severity) == (finding.code, finding.severity)
        and set(finding.subjects) <= set(each.subjects)
        for each in others
    )


def _says(finding: ToldFinding) -> object:
    return finding.severity, finding.message, frozenset(finding.subjects)


def _matched(
    before: Sequence[ToldFinding], after: Sequence[ToldFinding]
) -> list[tuple[ToldFinding, ToldFinding]]:
    """Each finding with the one that it has become: the same, else the most alike."""
    rest: dict[str, list[ToldFinding]] = defaultdict(list)
    for each in after:
        rest[each.code].append(each)
    matched = []
    unmatched: list[ToldFinding] = []
    for each in before:
        same = [new for new in rest[each.code] if _says(new) == _says(each)]
        if same:
            _take(rest[each.code], same[0])
            matched.append((each, same[0]))
        else:
            unmatched.append(each)
    by_code: dict[str, list[ToldFinding]] = defaultdict(list)
    for each in unmatched:
        by_code[each.code].append(each)
    for code, olds in by_code.items():
        alike = [
            (likeness, -i, -k)
            for i, old in enumerate(olds)
            for k, new in enumerate(rest[code])
            if (likeness := _likeness(old, new)) >= _ALIKE
        ]
        taken_old: set[int] = set()
        taken_new: set[int] = set()
        for _, i, k in sorted(alike, reverse=True):
            if -i not in taken_old and -k not in taken_new:
                taken_old.add(-i)
                taken_new.add(-k)
                matched.append((olds[-i], rest[code][-k]))
    return matched


def _take(findings: list[ToldFinding], taken: ToldFinding) -> None:
    # By identity: two findings may well be equal.
    index = next(i for i, each in enumerate(findings) if each is taken)
    del findings[index]


def _likeness(old: ToldFinding, new: ToldFinding) -> float:
    """1 for the same subjects; those that have the leading one in common are one that changed."""
    one, two = frozenset(old.subjects), frozenset(new.subjects)
    if not one and not two:
        return 1.0
    likeness = len(one & two) / len(one | two)
    leads_alike = bool(one and two) and old.subjects[0] == new.subjects[0]
    return max(likeness, _ALIKE) if leads_alike else likeness


def _changed_calls(before: Sequence[Pair], after: Sequence[Pair]) -> tuple[CallChange, ...]:
    old = {(each.caller, each.callee, each.port): each for each in before}
    new = {(each.caller, each.callee, each.port): each for each in after}
    return tuple(
        CallChange(old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if _fares(old.get(key)) != _fares(new.get(key))
    )


def _fares(pair: Pair | None) -> object:
    return None if pair is None else (pair.verdict, pair.reached)


# ---------------------------------------------------------------- JSON


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `meshdoctor.diff/v1`."""
    return schemas.load("diff-v1")


def render_json(difference: Difference, indent: int | None = 2) -> str:
    """The difference as one JSON document, in ASCII, with a line end; without `indent` a line."""
    document = {
        "schema": SCHEMA,
        "before": _run(difference.before),
        "after": _run(difference.after),
        "summary": {
            "found": len(difference.found),
            "gone": len(difference.gone),
            "changed": len(difference.changed),
            "lost": len(difference.lost),
        },
        "found": [_finding(each) for each in difference.found],
        "gone": [_finding(each) for each in difference.gone],
        "changed": [
            {
                "before": _finding(each.before),
                "after": _finding(each.after),
                "joined": [_subject(subject) for subject in each.joined],
                "left": [_subject(subject) for subject in each.left],
            }
            for each in difference.changed
        ],
        "lost": [_finding(each.finding) | {"reason": each.reason} for each in difference.lost],
        "calls": None
        if difference.calls is None
        else [
            {
                "caller": each.pair.caller,
                "callee": each.pair.callee,
                "port": each.pair.port,
                "before": _call(each.before),
                "after": _call(each.after),
            }
            for each in difference.calls
        ],
    }
    return written(document, indent)


def _run(report: Told) -> dict[str, Any]:
    return {"created": report.created, "verdict": report.verdict.value}


def _finding(finding: ToldFinding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "check": finding.check,
        "severity": finding.severity.value,
        "message": finding.message,
        "subjects": [_subject(each) for each in finding.subjects],
    }


def _subject(subject: ToldSubject) -> dict[str, Any]:
    return {"kind": subject.kind, "name": subject.name}


def _call(pair: Pair | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    return {"verdict": pair.verdict.value, "reached": pair.reached, "reason": pair.reason}


# ---------------------------------------------------------------- on a terminal

_BAD: Final = (Verdict.WRONG, Verdict.NOWHERE)


def render(difference: Difference, terminal: Terminal | None = None) -> str:
    """The difference as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    _write_findings(page, "Found", difference.found, difference.after)
    for change in difference.changed:
        if change is difference.changed[0]:
            page.heading("Changed")
        _write_change(page, change)
    _write_findings(page, "Gone", difference.gone, difference.before, mended=True)
    for lost in difference.lost:
        if lost is difference.lost[0]:
            page.heading("No longer looked for")
        text = page.text(_mark(page, lost.finding), f"  {lost.finding.message}")
        page.paragraph(text, "", "  ")
        page.paragraph(page.text((lost.reason, "dim")), "  ")
    if difference.calls:
        _write_calls(page, difference.calls)
    page.gap()
    page.paragraph(page.text((summary(difference), "bold")))
    return str(page)


def title(text: str, terminal: Terminal | None = None) -> str:
    """A line that stands above a difference."""
    page = Page(terminal or Terminal())
    page.heading(text)
    return str(page)


def summary(difference: Difference) -> str:
    """What is different, in one sentence."""
    before, after = difference.before.verdict, difference.after.verdict
    verdict = f"still {after}" if before is after else f"{before} before, {after} after"
    if difference.before is NOTHING:
        verdict = str(after)
    if difference.is_none:
        return f"No difference: {verdict}."
    counts = (
        (len(difference.found), "found"),
        (len(difference.changed), "changed"),
        (len(difference.gone), "gone"),
        (len(difference.lost), "no longer looked for"),
    )
    said = [f"{number} {what}" for number, what in counts if number]
    if difference.calls:
        wrong = sum(_now_in(each, _BAD) for each in difference.calls)
        right = sum(_now_in(each, (Verdict.RIGHT,)) for each in difference.calls)
        fare = [
            f"{number} now {how}" for number, how in ((wrong, "wrong"), (right, "right")) if number
        ]
        said.append(f"calls: {', '.join(fare) or f'{len(difference.calls)} fare otherwise'}")
    if not said:
        said = ["no finding differs"]
    return f"{verdict[0].upper()}{verdict[1:]}: {', '.join(said)}."


def _now_in(change: CallChange, verdicts: Iterable[Verdict]) -> bool:
    now = change.after is not None and change.after.verdict in verdicts
    return now and not (change.before is not None and change.before.verdict in verdicts)


def _mark(page: Page, finding: ToldFinding, *, mended: bool = False) -> tuple[str, str]:
    if mended:
        return f"{page.glyph('✓')} {finding.code}", "green"
    return page.mark(finding.severity, finding.code)


def _write_findings(
    page: Page,
    title: str,
    findings: Sequence[ToldFinding],
    report: Told,
    *,
    mended: bool = False,
) -> None:
    """The findings, each below its cause where that is among them, else the cause is named."""
    if not findings:
        return
    page.heading(title)
    listed = {each.id for each in findings}
    known = {each.id: each for each in report.findings}
    depths: dict[str, int] = {}
    below: dict[str | None, list[ToldFinding]] = defaultdict(list)
    for finding in findings:
        # Only causes that stand above it: some findings cause each other.
        above = [each for each in finding.causes if each in depths]
        parent = max(above, key=depths.__getitem__, default=None)
        depths[finding.id] = 0 if parent is None else depths[parent] + 1
        below[parent].append(finding)

    def write(finding: ToldFinding, before: str, rest: str) -> None:
        text = page.text(_mark(page, finding, mended=mended), f"  {finding.message}")
        children = below[finding.id]
        page.paragraph(text, before, f"{rest}{page.glyph('│') if children else ' '} ")
        outside = [known[each].code for each in finding.causes if each in known.keys() - listed]
        if outside and not depths[finding.id]:
            page.paragraph(
                page.text((f"caused by {', '.join(dict.fromkeys(outside))}", "dim")), "  "
            )
        for number, child in enumerate(children, start=1):
            last = number == len(children)
            branch, passing = ("└─", "  ") if last else ("├─", page.glyph("│") + " ")
            write(child, f"{rest}{page.glyph(branch)} ", f"{rest}{passing} ")

    for root in below[None]:
        write(root, "", "")


def _write_change(page: Page, change: Change) -> None:
    before, after = change.before, change.after
    page.paragraph(page.text(_mark(page, after), f"  {after.message}"), "", "  ")
    if before.severity is not after.severity:
        page.paragraph(page.text((f"was: {before.severity}", "dim")), "  ")
    for said, subjects in (("now too", change.joined), ("no longer", change.left)):
        if subjects:
            page.paragraph(page.text((f"{said}: {_names(map(str, subjects))}", "dim")), "  ")
    if before.message != after.message and not (change.joined or change.left):
        page.paragraph(page.text((f"was: {before.message}", "dim")), "  ", "    ")


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:_MOST_NAMES])
    more = len(listed) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _write_calls(page: Page, calls: Sequence[CallChange]) -> None:
    """Calls that fare alike, before and after, are one line."""
    page.heading("Calls")
    alike: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for each in calls:
        to = f"{each.pair.callee}:{each.pair.port}"
        alike[to, _said(each.before), _said(each.after)].append(each.pair.caller)
    order = sorted(alike.items(), key=lambda item: (not _is_bad(item[0][2]), item[0]))
    for (to, before, after), callers in order:
        bad = _is_bad(after)
        style = "bold red" if bad else "green" if after == Verdict.RIGHT else ""
        text = page.text(
            (page.glyph("✗" if bad else "✓" if after == Verdict.RIGHT else "i"), style),
            f" {to} from {_names(callers)}: was {before}, is ",
            (after, style),
        )
        page.paragraph(text, "", "  ")


def _is_bad(said: str) -> bool:
    return said.startswith(tuple(_BAD))


def _said(pair: Pair | None) -> str:
    if pair is None:
        return "not there"
    if pair.verdict is Verdict.WRONG and pair.reached:
        return f"{pair.verdict} ({pair.reached} answers)"
    return str(pair.verdict)
