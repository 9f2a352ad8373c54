"""A report's findings as trees: each root cause, and below it what it leads to."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from typing import Final

import msgspec
from msgspec.structs import replace

from meshdoctor.findings import Remedy, Severity
from meshdoctor.report.document import Diagnosis, Report, ReportedFinding

MANY_ALIKE: Final = 8
"""Findings of one check, side by side, that are still read one by one. Of more than these, ..."""
SHOWN_ALIKE: Final = 5
"""... so many are printed and the others are named."""

MOST_TOLD: Final = 120
"""Findings that a page tells with all their causes. Of more, the further ones are counted."""
MOST_STEPS: Final = 12
"""Remedies of one cause that a page shows."""
MOST_COMMANDS: Final = 12
MOST_LINES: Final = 60
"""Lines of a patch."""
_MOST_CHARACTERS: Final = 4_000
"""Of the commands of one remedy, and of its patch: more is for a program to read."""


class Tree(msgspec.Struct, frozen=True):
    """A finding and what it leads to. `remedies` are the whole diagnosis's, at its root."""

    finding: ReportedFinding
    symptoms: "tuple[Branch, ...]" = ()
    remedies: tuple[Remedy, ...] = ()


class Again(msgspec.Struct, frozen=True):
    """A finding that is printed in full elsewhere above."""

    finding: ReportedFinding


class Alike(msgspec.Struct, frozen=True):
    """Findings like those printed before them: they are named only, so that a page stays one."""

    trees: tuple[Tree, ...]


Branch = Tree | Again | Alike


def faults_and_notes(report: Report) -> tuple[list[Tree], list[Tree]]:
    """The trees that tell of a fault, and those that only tell something."""
    trees = trees_of(report)
    return (
        [tree for tree in trees if worst(tree) is not Severity.INFO],
        [tree for tree in trees if worst(tree) is Severity.INFO],
    )


def trees_of(report: Report) -> list[Tree]:
    """One tree a diagnosis, the worst first, and one for each finding that is in none."""
    findings = {finding.id: finding for finding in report.findings}
    said: set[str] = set()
    diagnoses = sorted(report.diagnoses, key=lambda each: -each.severity.rank)
    trees = [_tree(diagnosis, findings, said) for diagnosis in diagnoses]
    trees.extend(
        Tree(finding, remedies=finding.remedies)
        for finding in report.findings
        if finding.id not in said
    )
    return trees


def _tree(diagnosis: Diagnosis, findings: Mapping[str, ReportedFinding], said: set[str]) -> Tree:
    """The diagnosis as a tree, without the findings in `said` but for their mention."""
    symptoms = _direct_symptoms(diagnosis, findings)

    def grow(id: str) -> Branch:
        if id in said:
            return Again(findings[id])
        said.add(id)
        return Tree(findings[id], fold([grow(symptom) for symptom in symptoms[id]]))

    said.add(diagnosis.root)
    grown = [grow(symptom) for symptom in symptoms[diagnosis.root]]
    # Findings that only cause each other hang below no other: a cycle must not hide them.
    grown += [grow(member) for member in diagnosis.findings if member not in said]
    return Tree(findings[diagnosis.root], fold(grown), diagnosis.remedies)


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


def fold(branches: Sequence[Branch]) -> tuple[Branch, ...]:
    """`branches`, with the many leaves of one check put together."""
    leaves: dict[tuple[str, Severity], list[Tree]] = {}
    for branch in branches:
        if isinstance(branch, Tree) and not branch.symptoms:
            key = (branch.finding.code, branch.finding.severity)
            leaves.setdefault(key, []).append(branch)
    folded: list[Branch] = []
    for branch in branches:
        if isinstance(branch, Tree) and not branch.symptoms:
            alike = leaves[branch.finding.code, branch.finding.severity]
            if len(alike) > MANY_ALIKE:
                if branch is alike[SHOWN_ALIKE]:
                    folded.append(Alike(tuple(alike[SHOWN_ALIKE:])))
                if not any(branch is shown for shown in alike[:SHOWN_ALIKE]):
                    continue
        folded.append(branch)
    return tuple(folded)


def cut(branches: Sequence[Branch], most: int = MOST_TOLD) -> tuple[tuple[Branch, ...], int]:
    """The branches with the first `most` findings, and how many findings are left out."""
    left = most

    def keep(branch: Branch) -> Branch | None:
        nonlocal left
        if left <= 0:
            return None
        left -= 1
        if not isinstance(branch, Tree):
            return branch
        kept = (keep(symptom) for symptom in branch.symptoms)
        return replace(branch, symptoms=tuple(each for each in kept if each is not None))

    kept = tuple(each for branch in branches if (each := keep(branch)) is not None)
    return kept, sum(map(_size, branches)) - sum(map(_size, kept))


def _size(branch: Branch) -> int:
    match branch:
        case Tree(_, symptoms):
            return 1 + sum(map(_size, symptoms))
        case Alike(trees):
            return len(trees)
        case Again():
            return 0


def worst(branch: Branch) -> Severity:
    match branch:
        case Again(finding):
            return finding.severity
        case Alike(trees):
            severities = [worst(tree) for tree in trees]
        case Tree(finding, symptoms):
            severities = [finding.severity, *(worst(symptom) for symptom in symptoms)]
    return max(severities, key=lambda each: each.rank)


def leading_subject(finding: ReportedFinding) -> str:
    subject = finding.subjects[0]
    return f"{subject.kind} {subject.name}"


def where_it_was_seen(remedy: Remedy, recorded: Sequence[str]) -> Remedy:
    """A call is followed through the evidence that was examined, though no mesh be near."""
    if not recorded:
        return remedy
    at = "".join(f" --snapshot {shlex.quote(each)}" for each in recorded)
    return replace(
        remedy,
        commands=tuple(
            f"{command}{at}" if command.startswith("meshdoctor trace ") else command
            for command in remedy.commands
        ),
    )


def brief(remedy: Remedy) -> Remedy:
    """The remedy as a page can show it: a comment counts the commands and lines left out."""
    commands = remedy.commands
    if not _fits(commands, MOST_COMMANDS):
        # The last one is how to see that it worked.
        last = commands[-1:] if _fits(commands[-1:], 1) else ()
        rest = commands[: len(commands) - len(last)]
        shown = _first(rest, MOST_COMMANDS - 1 - len(last))
        commands = (*shown, _comment(rest[len(shown) :], "command"), *last)
    lines = (remedy.patch or "").split("\n")
    if not _fits(lines, MOST_LINES):
        kept = _first(lines, MOST_LINES)
        lines = [*kept, _comment(lines[len(kept) :], "line")]
    patch = None if remedy.patch is None else "\n".join(lines)
    return replace(remedy, commands=commands, patch=patch)


def _fits(lines: Sequence[str], most: int) -> bool:
    return len(lines) <= most and sum(map(len, lines)) <= _MOST_CHARACTERS


def _first(lines: Sequence[str], most: int) -> tuple[str, ...]:
    """As many of the first as fit."""
    ends = accumulate(map(len, lines))
    return tuple(
        line
        for line, end in islice(zip(lines, ends, strict=True), most)
        if end <= _MOST_CHARACTERS
    )


def _comment(left_out: Sequence[str], noun: str) -> str:
    number = len(left_out)
    more = f"1 more {noun} stands" if number == 1 else f"{number} more {noun}s stand"
    size = f"{sum(map(len, left_out)):,} characters"
    return f"# {more} here, of {size}: `meshdoctor check --format json` has all"
