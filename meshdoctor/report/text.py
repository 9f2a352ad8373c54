"""The report on a terminal: the causes first, then what to do, then what was looked at."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from meshdoctor.findings import Citation, Remedy, Severity, SubjectKind
from meshdoctor.kinds.interface import Kind
from meshdoctor.report.document import (
    CheckResult,
    CheckVerdict,
    Coverage,
    Diagnosis,
    Report,
    ReportedFinding,
    Source,
    SourceState,
    SuppressionResult,
    Verdict,
)
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal

K = TypeVar("K")
V = TypeVar("V")

_SIGNS: Final = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "i"}
_STYLES: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.INFO: "bold cyan",
}
_VERDICT_STYLES: Final = {
    Verdict.HEALTHY: "bold green",
    Verdict.DEGRADED: "bold yellow",
    Verdict.BROKEN: "bold red",
    Verdict.UNKNOWN: "bold magenta",
}
_MESHES: Final[Mapping[str, str]] = {kind.value: kind.called for kind in Kind}

_MANY_ALIKE: Final = 8
"""Findings of one check, side by side, that are still read one by one. Of more than these, ..."""
_SHOWN_ALIKE: Final = 5
"""... so many are printed and the others are named."""
_FLAG: Final = re.compile(r"--[a-z][a-z-]+")
_MOST_NAMES: Final = 12
_MOST_CITATIONS: Final = 3
_LONGEST_EXCERPT: Final = 120
_BRIEF: Final = 0.1
_MINUTE: Final = 60


@dataclass(frozen=True, slots=True)
class _Tree:
    """A finding and what it leads to. `remedies` are the whole diagnosis's, at its root."""

    finding: ReportedFinding
    symptoms: "tuple[_Branch, ...]" = ()
    remedies: tuple[Remedy, ...] = ()


@dataclass(frozen=True, slots=True)
class _Again:
    """A finding that is printed in full elsewhere above."""

    finding: ReportedFinding


@dataclass(frozen=True, slots=True)
class _Alike:
    """Findings like those printed before them: they are named only, so that a page stays one."""

    trees: tuple[_Tree, ...]


_Branch = _Tree | _Again | _Alike


def render(report: Report, terminal: Terminal | None = None) -> str:
    """The report as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    trees = _trees(report)
    faults = [tree for tree in trees if _worst(tree) is not Severity.INFO]
    notes = [tree for tree in trees if _worst(tree) is Severity.INFO]
    for branch in _fold(faults):
        page.gap()
        _write_branch(page, branch, "", "")
    page.gap()
    for branch in _fold(notes):
        _write_branch(page, branch, "", "")
    recorded = report.target.get("paths", ()) if report.target.get("kind") == "snapshot" else ()
    _write_remedies(page, faults, recorded)
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
            (f"{_verdict_word(report)}:", _VERDICT_STYLES[report.verdict]),
            f" {_summary(report)}",
        )
    )
    return str(page)


# The trees


def _trees(report: Report) -> list[_Tree]:
    """One tree a diagnosis, the worst first, and one for each finding that is in none."""
    findings = {finding.id: finding for finding in report.findings}
    said: set[str] = set()
    diagnoses = sorted(report.diagnoses, key=lambda each: -each.severity.rank)
    trees = [_tree(diagnosis, findings, said) for diagnosis in diagnoses]
    trees.extend(
        _Tree(finding, remedies=finding.remedies)
        for finding in report.findings
        if finding.id not in said
    )
    return trees


def _tree(diagnosis: Diagnosis, findings: Mapping[str, ReportedFinding], said: set[str]) -> _Tree:
    """The diagnosis as a tree, without the findings in `said` but for their mention."""
    symptoms = _direct_symptoms(diagnosis, findings)

    def grow(id: str) -> _Branch:
        if id in said:
            return _Again(findings[id])
        said.add(id)
        return _Tree(findings[id], _fold([grow(symptom) for symptom in symptoms[id]]))

    said.add(diagnosis.root)
    grown = [grow(symptom) for symptom in symptoms[diagnosis.root]]
    # Findings that only cause each other hang below no other: a cycle must not hide them.
    grown += [grow(member) for member in diagnosis.findings if member not in said]
    return _Tree(findings[diagnosis.root], _fold(grown), diagnosis.remedies)


def _direct_symptoms(
    diagnosis: Diagnosis, findings: Mapping[str, ReportedFinding]
) -> dict[str, list[str]]:
    """What each finding leads to, without what it leads to only by way of another."""
    symptoms: dict[str, list[str]] = {member: [] for member in diagnosis.findings}
    for member in diagnosis.findings:
        for cause in findings[member].causes:
            if cause in symptoms and cause != member:
                symptoms[cause].append(member)
    direct = {}
    for member, below in symptoms.items():
        indirect: set[str] = set()
        for each in below:
            _collect_below(each, symptoms, indirect)
        direct[member] = [each for each in below if each not in indirect]
    return direct


def _collect_below(id: str, symptoms: Mapping[str, Sequence[str]], into: set[str]) -> None:
    waiting = list(symptoms[id])
    while waiting:
        symptom = waiting.pop()
        if symptom not in into:
            into.add(symptom)
            waiting.extend(symptoms[symptom])


def _fold(branches: Sequence[_Branch]) -> tuple[_Branch, ...]:
    """`branches`, with the many leaves of one check put together."""
    leaves: dict[tuple[str, Severity], list[_Tree]] = {}
    for branch in branches:
        if isinstance(branch, _Tree) and not branch.symptoms:
            key = (branch.finding.code, branch.finding.severity)
            leaves.setdefault(key, []).append(branch)
    folded: list[_Branch] = []
    for branch in branches:
        if isinstance(branch, _Tree) and not branch.symptoms:
            alike = leaves[branch.finding.code, branch.finding.severity]
            if len(alike) > _MANY_ALIKE:
                if branch is alike[_SHOWN_ALIKE]:
                    folded.append(_Alike(tuple(alike[_SHOWN_ALIKE:])))
                if not any(branch is shown for shown in alike[:_SHOWN_ALIKE]):
                    continue
        folded.append(branch)
    return tuple(folded)


def _worst(branch: _Branch) -> Severity:
    match branch:
        case _Again(finding):
            return finding.severity
        case _Alike(trees):
            severities = [_worst(tree) for tree in trees]
        case _Tree(finding, symptoms):
            severities = [finding.severity, *(_worst(symptom) for symptom in symptoms)]
    return max(severities, key=lambda each: each.rank)


# What is wrong


def _write_branch(page: Page, branch: _Branch, first: str, rest: str) -> None:
    """A branch whose sign stands after `first`, and what belongs to it below, after `rest`."""
    match branch:
        case _Again(finding):
            about = f" {_subject(finding)}:" if finding.subjects else ""
            page.paragraph(
                page.text(_mark(page, finding), f" {about} see above."), first, f"{rest}  "
            )
        case _Alike(trees):
            page.paragraph(
                page.text(
                    _mark(page, trees[0].finding),
                    f"  {len(trees)} more like it{_about([tree.finding for tree in trees])}."
                    " The JSON report has each.",
                ),
                first,
                f"{rest}  ",
            )
        case _Tree(finding, symptoms):
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


def _mark(page: Page, finding: ReportedFinding) -> tuple[str, str]:
    style = _STYLES[finding.severity]
    sign = page.glyph(_SIGNS[finding.severity])
    return f"{sign} {finding.severity} {finding.code}", style


def _subject(finding: ReportedFinding) -> str:
    subject = finding.subjects[0]
    return f"{subject.kind} {subject.name}"


def _about(findings: Sequence[ReportedFinding]) -> str:
    leading = [finding.subjects[0] for finding in findings if finding.subjects]
    kinds = {subject.kind for subject in leading}
    if len(kinds) != 1:
        return ""
    return f", about the {kinds.pop()}s {_names([subject.name for subject in leading])}"


def _write_sidecars(page: Page, finding: ReportedFinding, stem: str) -> None:
    """The sidecars that the sentence only counts."""
    names = [
        subject.name
        for subject in finding.subjects
        if subject.kind is SubjectKind.SIDECAR and subject.name not in finding.message
    ]
    if names:
        page.paragraph(page.text((f"sidecars: {_names(names)}", "dim")), stem, f"{stem}  ")


def _write_citations(page: Page, citations: Sequence[Citation], stem: str, most: int) -> None:
    # To say "and 1 more" takes the line in which that one could stand.
    shown = citations if len(citations) <= max(most, 2) else citations[: max(1, most - 1)]
    for citation in shown:
        where = f"{citation.document} {citation.pointer}".rstrip()
        excerpt = "" if citation.excerpt is None else f": {_shortened(page, citation.excerpt)}"
        page.paragraph(page.text((f"seen in {where}{excerpt}", "dim")), stem, f"{stem}  ")
    if len(citations) > len(shown):
        more = _count(len(citations) - len(shown), "more place")
        page.paragraph(page.text((f"and in {more}", "dim")), stem)


def _shortened(page: Page, excerpt: str) -> str:
    excerpt = " ".join(excerpt.split())
    if len(excerpt) <= _LONGEST_EXCERPT:
        return excerpt
    return excerpt[:_LONGEST_EXCERPT].rstrip() + page.glyph("…")


# What to do


def _write_remedies(page: Page, faults: Sequence[_Tree], recorded: Sequence[str]) -> None:
    """The remedies of every cause, numbered through, each printed once.

    `recorded` are the paths of a snapshot; none of a live mesh.
    """
    mended = [tree for tree in faults if tree.remedies]
    if not mended:
        return
    page.heading("What to do")
    codes = [tree.finding.code for tree in mended]
    numbers: dict[Remedy, int] = {}
    for branch in _fold(mended):
        match branch:
            case _Tree(finding, _, remedies):
                if len(mended) > 1:
                    name = f"{finding.code} {finding.check}"
                    if codes.count(finding.code) > 1 and finding.subjects:
                        name += f", {_subject(finding)}"
                    page.gap()
                    page.paragraph(page.text((f"For {name}:", "bold")))
                here = [_where_it_was_seen(remedy, recorded) for remedy in remedies]
                own = [_where_it_was_seen(remedy, recorded) for remedy in finding.remedies]
                _write_steps(page, own, here, numbers)
            case _Alike(trees):
                left = [
                    tree
                    for tree in trees
                    if not {_where_it_was_seen(each, recorded) for each in tree.remedies}
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
    for remedy in (*at_the_root, *further):
        if at_the_root and further and remedy is further[0]:
            page.gap()
            page.paragraph(page.text(("Should that not be enough:", "bold")))
        page.gap()
        if remedy in numbers:
            page.paragraph(page.text(f"As step {numbers[remedy]}: {remedy.summary}"))
            continue
        numbers[remedy] = len(numbers) + 1
        _write_remedy(page, remedy, numbers[remedy])


def _where_it_was_seen(remedy: Remedy, recorded: Sequence[str]) -> Remedy:
    """A call is followed through the evidence that was examined, though no mesh be near."""
    if not recorded:
        return remedy
    at = f" --snapshot {shlex.quote(recorded[0])}"
    return replace(
        remedy,
        commands=tuple(
            f"{command}{at}" if command.startswith("meshdoctor trace ") else command
            for command in remedy.commands
        ),
    )


def _write_remedy(page: Page, remedy: Remedy, number: int) -> None:
    label = f"{number}. "
    indent = " " * len(label)
    page.paragraph(page.text((remedy.summary, "bold")), label, indent)
    if remedy.destructive:
        page.paragraph(
            page.text(
                ("Careful, this loses something: ", _STYLES[Severity.ERROR]),
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
    coverage = report.coverage
    page.heading("Examined")
    names = [_MESHES.get(kind, kind) for kind in report.mesh]
    kinds = f" of {' and '.join(names)}" if names else ""
    paths = [str(path) for path in report.target.get("paths", ())]
    written = "described" if report.target.get("kind") == "compose" else "recorded"
    recorded = f", as {written} in {', '.join(paths)}" if paths else ""
    tried = [str(path) for path in report.target.get("rules", ())]
    recorded += f", as if the rules in {' and '.join(tried)} were applied" if tried else ""
    looked_at = _looked_at(report.coverage)
    looked_at = looked_at[0].upper() + looked_at[1:]
    page.paragraph(page.text(f"{looked_at}{kinds}{recorded}."), "  ")
    states = [
        source.name if source.state is SourceState.EXAMINED else f"{source.name} ({source.state})"
        for source in coverage.sources
    ]
    if states:
        page.paragraph(page.text(f"Evidence: {', '.join(states)}."), "  ")
    ended = {
        "found nothing": CheckVerdict.CLEAN,
        "found something": CheckVerdict.FOUND,
        "could not look": CheckVerdict.SKIPPED,
        "crashed": CheckVerdict.CRASHED,
    }
    counts = [
        f"{number} {words}"
        for words, verdict in ended.items()
        if (number := sum(result.verdict is verdict for result in report.checks))
    ]
    if counts:
        page.paragraph(page.text(f"Checks: {', '.join(counts)}."), "  ")
    for each in report.suppressions:
        page.paragraph(page.text(_suppression(report, each)), "  ", "    ")


def _suppression(report: Report, result: SuppressionResult) -> str:
    about = f"{result.code} {result.subject}".rstrip()
    reason = _ended(result.reason)
    if result.expired:
        return f"No longer suppressed, for {result.until} is past: {about}: {reason}"
    until = f", until {result.until}" if result.until else ""
    if result.matched:
        return f"Suppressed: {_count(result.matched, 'finding')} of {about}{until}: {reason}"
    why = "the entry is unused" if report.is_unused(result) else "its check did not look"
    return f"Suppressed: no finding of {about}{until} ({why}): {reason}"


def _looked_at(coverage: Coverage) -> str:
    counts = [
        _count(number, noun)
        for number, noun in ((coverage.services, "service"), (coverage.workloads, "workload"))
        if number
    ]
    if coverage.sidecars_found:
        found = _count(coverage.sidecars_found, "sidecar")
        counts.append(f"{coverage.sidecars_examined} of {found}")
    return ", ".join(counts) or "nothing"


def _write_not_examined(page: Page, report: Report) -> None:
    """Everything that nobody looked at, each reason once."""
    crashed = [each for each in report.checks if each.verdict is CheckVerdict.CRASHED]
    skipped = _grouped(
        (each for each in report.checks if each.verdict is CheckVerdict.SKIPPED),
        lambda result: (result.reason, result.hint),
    )
    unreachable = _grouped(report.coverage.unreachable, lambda each: each.reason)
    sources = [
        each
        for each in report.coverage.sources
        if each.state is not SourceState.EXAMINED
        and each.reason
        # A check that was skipped for want of this source says the same again.
        and not any(each.reason in reason for reason, _ in skipped)
    ]
    if not (crashed or skipped or unreachable or sources):
        return
    page.heading("Not examined")
    # What is lost of the recording itself explains the rest.
    for source in sources:
        if source.name == "snapshot":
            _write_source(page, source)
    for reason, sidecars in unreachable.items():
        which = "Sidecar" if len(sidecars) == 1 else f"{len(sidecars)} sidecars:"
        _write_item(page, f"{which} {_names([each.name for each in sidecars])}: {reason}")
    for source in sources:
        if source.name != "snapshot":
            _write_source(page, source)
    for (reason, hint), results in skipped.items():
        _write_item(page, reason, hint)
        codes = ", ".join(result.code for result in results)
        page.paragraph(page.text((f"skipped for it: {codes}", "dim")), "    ")
    for result in crashed:
        _write_crash(page, result)


def _write_source(page: Page, source: Source) -> None:
    parts = source.reason.split("; ")
    if len(parts) > _MOST_NAMES:
        more = f"and {len(parts) - _MOST_NAMES} more, which the JSON report has"
        parts = [*parts[:_MOST_NAMES], more]
    _write_item(page, f"{source.name}: {'; '.join(parts)}", source.hint)


def _write_item(page: Page, sentence: str, hint: str = "") -> None:
    # A reason that names one of the hint's flags has said how already.
    if not set(_FLAG.findall(hint)).isdisjoint(_FLAG.findall(sentence)):
        hint = ""
    # A hint is an instruction; a reason may begin with somebody's name.
    how = f" {_ended(hint[0].upper() + hint[1:])}" if hint else ""
    page.paragraph(page.text(_ended(sentence), how), "  - ", "    ")


def _write_crash(page: Page, result: CheckResult) -> None:
    page.paragraph(
        page.text(
            (f"crashed {result.code}", _STYLES[Severity.ERROR]),
            f" {result.name}: {_ended(result.reason)} The fault is in the check, not in your mesh;"
            " `meshdoctor check --format json` has the traceback to report.",
        ),
        "  - ",
        "    ",
    )


def _verdict_word(report: Report) -> str:
    """Of files that nobody has started yet, nothing is broken: it would be."""
    said = report.verdict.value.upper()
    planned = report.target.get("kind") == "compose" and report.verdict is not Verdict.UNKNOWN
    return f"WOULD BE {said}" if planned else said


def _summary(report: Report) -> str:
    """The last line, after the verdict's word."""
    looked = f"Checked {_looked_at(report.coverage)} in {_duration(report.seconds)}."
    counted = [
        _count(number, severity.value) if severity is not Severity.INFO else f"{number} info"
        for severity in reversed(Severity)
        if (number := report.count(severity))
    ]
    if report.suppressed:
        counted.append(f"{report.suppressed} suppressed")
    details = f" ({', '.join(counted)})" if counted else ""
    causes = sum(each.severity is not Severity.INFO for each in report.diagnoses)
    findings = f"{_count(causes, 'cause')}, {_count(len(report.findings), 'finding')}{details}."
    match report.verdict:
        case Verdict.UNKNOWN:
            reason = _ended(report.verdict_reason or "too little could be examined")
            return f"{reason} {f'{findings} ' if counted else ''}{looked}"
        case Verdict.HEALTHY:
            clean = sum(each.verdict is CheckVerdict.CLEAN for each in report.checks)
            blind = sum(each.verdict is CheckVerdict.SKIPPED for each in report.checks)
            ended = [f"{_count(clean, 'check')} found nothing", *counted]
            if blind:
                ended.append(f"{blind} could not look")
            return f"{', '.join(ended)}. {looked}"
        case Verdict.DEGRADED | Verdict.BROKEN:
            return f"{findings} {looked}"


def _duration(seconds: float) -> str:
    if seconds < _BRIEF:
        return f"less than {_BRIEF} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"


# Words


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ended(sentence: str) -> str:
    sentence = sentence.rstrip()
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."


def _names(names: Sequence[str]) -> str:
    """The names, or the first of them and how many more there are."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"


def _grouped(items: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
