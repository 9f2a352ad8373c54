"""A report's findings as trees: each root cause, and below it what it leads to."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from meshdoctor.findings import Remedy, Severity
from meshdoctor.report.document import Diagnosis, Report, ReportedFinding

MANY_ALIKE: Final = 8
"""Findings of one check, side by side, that are still read one by one. Of more than these, ..."""
SHOWN_ALIKE: Final = 5
"""... so many are printed and the others are named."""


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
