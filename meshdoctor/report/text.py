"""The report on a terminal: the causes first, then what to do, then what was looked at."""

from collections.abc import Sequence
from typing import Final

from meshdoctor.findings import Citation, Remedy, Severity, SubjectKind
from meshdoctor.report import wording
from meshdoctor.report.document import (
    CheckResult,
    CheckVerdict,
    Report,
    ReportedFinding,
    Verdict,
)
from meshdoctor.report.page import STYLES, Page
from meshdoctor.report.terminal import Terminal
from meshdoctor.report.tree import (
    MOST_STEPS,
    Again,
    Alike,
    Branch,
    Tree,
    brief,
    cut,
    faults_and_notes,
    fold,
    leading_subject,
    where_it_was_seen,
)

VERDICT_STYLES: Final = {
    Verdict.HEALTHY: "bold green",
    Verdict.DEGRADED: "bold yellow",
    Verdict.BROKEN: "bold red",
    Verdict.UNKNOWN: "bold magenta",
}
_MOST_CITATIONS: Final = 3
_LONGEST_EXCERPT: Final = 160


def render(report: Report, terminal: Terminal | None = None) -> str:
    """The report as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    faults, notes = faults_and_notes(report)
    shown, left = cut(fold(faults))
    for branch in shown:
        page.gap()
        _write_branch(page, branch, "", "")
    _write_left_out(page, left)
    page.gap()
    shown_notes, left = cut(fold(notes))
    for branch in shown_notes:
        _write_branch(page, branch, "", "")
    _write_left_out(page, left)
    told = [tree for branch in shown for tree in _trees(branch)]
    _write_remedies(page, told, report.recorded)
    if report.findings:
        code = (faults or notes)[0].finding.code
        page.gap()
        page.paragraph(page.text((f"More about a finding: meshdoctor explain {code}", "dim")))
    if report.verdict is not Verdict.BROKEN:
        _write_facts(page, report)
    _write_examined(page, report)
    _write_not_examined(page, report)
    page.gap()
    page.paragraph(
        page.text(
            (f"{wording.verdict_word(report)}:", VERDICT_STYLES[report.verdict]),
            f" {wording.summary(report)}",
        )
    )
    return str(page)


# What is wrong


def _write_branch(page: Page, branch: Branch, first: str, rest: str) -> None:
    """A branch whose sign stands after `first`, and what belongs to it below, after `rest`."""
    match branch:
        case Again(finding):
            about = f" {leading_subject(finding)}:" if finding.subjects else ""
            page.paragraph(
                page.text(_mark(page, finding), f" {about} see above."), first, f"{rest}  "
            )
        case Alike(trees):
            page.paragraph(
                page.text(
                    _mark(page, trees[0].finding),
                    f"  {len(trees)} more like it{_about([tree.finding for tree in trees])}."
                    " The JSON report has each.",
                ),
                first,
                f"{rest}  ",
            )
        case Tree(finding, symptoms):
            stem = f"{rest}{page.glyph('│')} " if symptoms else f"{rest}  "
            is_cause = not first and finding.severity is not Severity.INFO
            message = (finding.message, "bold" if is_cause else "")
            page.paragraph(page.text(_mark(page, finding), "  ", message), first, stem)
            if finding.severity is not Severity.INFO:
                _write_sidecars(page, finding, stem)
                _write_citations(page, finding.seen_in, stem, _MOST_CITATIONS if not first else 1)
                if not first:
                    for reference in finding.references:
                        page.verbatim(f"see {reference}", stem, "dim")
            for symptom in symptoms:
                last = symptom is symptoms[-1]
                _write_branch(
                    page,
                    symptom,
                    f"{rest}{page.glyph('└─' if last else '├─')} ",
                    rest + ("   " if last else f"{page.glyph('│')}  "),
                )


def _trees(branch: Branch) -> Sequence[Tree]:
    match branch:
        case Tree():
            return (branch,)
        case Alike(trees):
            return trees
        case Again():
            return ()


def _write_left_out(page: Page, number: int) -> None:
    if number:
        page.gap()
        said = wording.count(number, "more finding")
        page.paragraph(page.text(f"{said} of this mesh: the JSON report has each."))


def _mark(page: Page, finding: ReportedFinding) -> tuple[str, str]:
    return page.mark(finding.severity, finding.code)


def _about(findings: Sequence[ReportedFinding]) -> str:
    leading = [finding.subjects[0] for finding in findings if finding.subjects]
    kinds = {subject.kind for subject in leading}
    if len(kinds) != 1:
        return ""
    return f", about the {kinds.pop()}s {wording.names([subject.name for subject in leading])}"


def _write_sidecars(page: Page, finding: ReportedFinding, stem: str) -> None:
    """The sidecars that the sentence only counts."""
    names = [
        subject.name
        for subject in finding.subjects
        if subject.kind is SubjectKind.SIDECAR and subject.name not in finding.message
    ]
    if names:
        page.paragraph(page.text((f"sidecars: {wording.names(names)}", "dim")), stem, f"{stem}  ")


def _write_citations(page: Page, citations: Sequence[Citation], stem: str, most: int) -> None:
    # To say "and 1 more" takes the line in which that one could stand.
    shown = citations if len(citations) <= max(most, 2) else citations[: max(1, most - 1)]
    for citation in shown:
        where = f"{citation.document} {citation.pointer}".rstrip()
        excerpt = "" if citation.excerpt is None else f": {_shortened(page, citation.excerpt)}"
        page.paragraph(page.text((f"seen in {where}{excerpt}", "dim")), stem, f"{stem}  ")
    if len(citations) > len(shown):
        more = wording.count(len(citations) - len(shown), "more place")
        page.paragraph(page.text((f"and in {more}", "dim")), stem)


def _shortened(page: Page, excerpt: str) -> str:
    excerpt = " ".join(excerpt.split())
    if len(excerpt) <= _LONGEST_EXCERPT:
        return excerpt
    return excerpt[:_LONGEST_EXCERPT].rstrip() + page.glyph("…")


# What to do


def _write_remedies(page: Page, faults: Sequence[Tree], recorded: Sequence[str]) -> None:
    """The remedies of every cause, numbered through, each printed once.

    `recorded` are the paths of a snapshot; none of a live mesh.
    """
    mended = [tree for tree in faults if tree.remedies]
    if not mended:
        return
    page.heading("What to do")
    codes = [tree.finding.code for tree in mended]
    numbers: dict[Remedy, int] = {}
    for branch in fold(mended):
        match branch:
            case Tree(finding, _, remedies):
                if len(mended) > 1:
                    name = f"{finding.code} {finding.check}"
                    if codes.count(finding.code) > 1 and finding.subjects:
                        name += f", {leading_subject(finding)}"
                    page.gap()
                    page.paragraph(page.text((f"For {name}:", "bold")))
                here = [where_it_was_seen(remedy, recorded) for remedy in remedies]
                own = [where_it_was_seen(remedy, recorded) for remedy in finding.remedies]
                _write_steps(page, own, here, numbers)
            case Alike(trees):
                left = [
                    tree
                    for tree in trees
                    if not {where_it_was_seen(each, recorded) for each in tree.remedies}
                    <= numbers.keys()
                ]
                if left:
                    page.gap()
                    page.paragraph(
                        page.text(
                            f"The other {len(left)} of {left[0].finding.code} have remedies of"
                            " their own: see `meshdoctor check --format json`."
                        )
                    )


def _write_steps(
    page: Page,
    own: Sequence[Remedy],
    remedies: Sequence[Remedy],
    numbers: dict[Remedy, int],
) -> None:
    """The remedies of one diagnosis, of which `own` are its root's.

    `numbers` are those of the remedies printed so far.
    """
    at_the_root = [remedy for remedy in remedies if remedy in own]
    further = [remedy for remedy in remedies if remedy not in own]
    shown = (*at_the_root, *further)[:MOST_STEPS]
    for remedy in shown:
        if at_the_root and further and remedy is further[0]:
            page.gap()
            page.paragraph(page.text(("Should that not be enough:", "bold")))
        page.gap()
        if remedy in numbers:
            page.paragraph(page.text(f"As step {numbers[remedy]}: {remedy.summary}"))
            continue
        numbers[remedy] = len(numbers) + 1
        _write_remedy(page, brief(remedy), numbers[remedy])
    if left := len(remedies) - len(shown):
        page.gap()
        said = wording.count(left, "more step")
        page.paragraph(page.text(f"{said}: see `meshdoctor check --format json`."))


def _write_remedy(page: Page, remedy: Remedy, number: int) -> None:
    label = f"{number}. "
    indent = " " * len(label)
    page.paragraph(page.text((remedy.summary, "bold")), label, indent)
    if remedy.destructive:
        page.paragraph(
            page.text(
                ("Careful, this loses something: ", STYLES[Severity.ERROR]),
                remedy.effect or "it cannot be undone.",
            ),
            indent,
        )
    elif remedy.effect:
        page.paragraph(page.text(remedy.effect), indent)
    if remedy.patch:
        page.gap()
        lines = remedy.patch.rstrip("\n").split("\n")
        is_diff = any(line.startswith("+") for line in lines)
        for line in lines:
            style = {"+": "green", "-": "red"}.get(line[:1], "") if is_diff else "green"
            page.verbatim(line.expandtabs(), f"{indent}  ", style)
    if remedy.commands:
        page.gap()
    for command in remedy.commands:
        lines = command.rstrip("\n").split("\n")
        for line in lines:
            page.verbatim(line, f"{indent}  ", "cyan")
        if any(page.alters(line) for line in lines):
            page.paragraph(
                page.text(
                    "Do not paste this one: it has characters that cannot be shown. The JSON"
                    " report has it as it is."
                ),
                indent,
            )


# What was looked at


def _write_facts(page: Page, report: Report) -> None:
    page.gap()
    sign = page.glyph("✓")
    for result in report.checks:
        for fact in result.facts:
            page.paragraph(
                page.text((sign, "bold green"), f" {fact.message}"), "", " " * (len(sign) + 1)
            )


def _write_examined(page: Page, report: Report) -> None:
    page.heading("Examined")
    for sentence in wording.examined(report):
        page.paragraph(page.text(sentence), "  ")
    for each in report.suppressions:
        page.paragraph(page.text(wording.suppression(report, each)), "  ", "    ")


def _write_not_examined(page: Page, report: Report) -> None:
    """Everything that nobody looked at, each reason once."""
    crashed = [each for each in report.checks if each.verdict is CheckVerdict.CRASHED]
    unexamined = wording.unexamined(report)
    if not (crashed or unexamined):
        return
    page.heading("Not examined")
    for each in unexamined:
        how = f" {each.hint}" if each.hint else ""
        page.paragraph(page.text(each.sentence, how), "  - ", "    ")
        if each.codes:
            codes = ", ".join(each.codes)
            page.paragraph(page.text((f"skipped for it: {codes}", "dim")), "    ")
    for result in crashed:
        _write_crash(page, result)


def _write_crash(page: Page, result: CheckResult) -> None:
    page.paragraph(
        page.text(
            (f"crashed {result.code}", STYLES[Severity.ERROR]),
            f" {result.name}: {wording.ended(result.reason)} The fault is in the check, not in"
            " your mesh; `meshdoctor check --format json` has the traceback to report.",
        ),
        "  - ",
        "    ",
    )
