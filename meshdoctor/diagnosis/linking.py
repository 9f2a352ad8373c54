"""Findings placed under their causes, and those told as one that say the same."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from meshdoctor import folding
from meshdoctor.check import Check
from meshdoctor.findings import Finding, Remedy, Severity, Subject, SubjectKind
from meshdoctor.report.document import Diagnosis, ReportedFinding


def link(
    found: Sequence[tuple[Check, Finding]],
) -> tuple[tuple[ReportedFinding, ...], tuple[Diagnosis, ...]]:
    """Place every finding under its causes; one diagnosis for each that has none.

    A is a cause of B when A's check explains B's code and the two share a subject, unless both
    name listeners and none in common: two faults of one service on two ports are two. What A's
    check narrows (`explains_by`) needs a shared subject of that kind. Many that say the same, for
    the same causes, are told as one. Findings are numbered as the diagnoses tell them, the worst
    first.
    """
    told = _told(found)
    trees = _trees(told)
    order = list(dict.fromkeys(index for tree in trees for index in tree))
    ids = {index: f"F{number}" for number, index in enumerate(order, start=1)}
    findings = tuple(_reported(told[index], index, ids) for index in order)
    diagnoses = tuple(
        Diagnosis(
            root=ids[tree[0]],
            findings=tuple(ids[index] for index in tree),
            title=told[tree[0]].finding.message,
            severity=_worst(told, tree),
            remedies=tuple(
                map(folding.in_few_commands, _remedies([told[index].finding for index in tree]))
            ),
        )
        for tree in trees
    )
    return findings, diagnoses


class _Told(msgspec.Struct, frozen=True):
    """A finding as it is told: one, or several that say the same. `causes` are indices of such."""

    check: Check
    finding: Finding
    severity: Severity
    causes: Sequence[int]
    alike: int


def _told(found: Sequence[tuple[Check, Finding]]) -> Sequence[_Told]:
    """Linked first, so that what has another cause is not told as the same."""
    causes = _causes(found)
    said = [
        folding.Said(check.code, finding.severity or check.severity, finding)
        for check, finding in found
    ]
    groups = folding.alike(said, causes)
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    return [
        _Told(
            found[group[0]][0],
            folding.folded([found[index][1] for index in group]),
            said[group[0]].severity,
            sorted({group_of[cause] for index in group for cause in causes[index]} - {number}),
            len(group),
        )
        for number, group in enumerate(groups)
    ]


def _trees(told: Sequence[_Told]) -> Sequence[Sequence[int]]:
    """Each root with what follows from it, the worst first."""
    symptoms: dict[int, list[int]] = defaultdict(list)
    for symptom, each in enumerate(told):
        for cause in each.causes:
            symptoms[cause].append(symptom)

    def precedence(tree: Sequence[int]) -> tuple[int, int, str, str]:
        root = told[tree[0]]
        return -_worst(told, tree).rank, -len(tree), root.check.code, root.finding.message

    roots = _roots([each.causes for each in told], symptoms)
    return sorted((_tree(root, symptoms) for root in roots), key=precedence)


def _worst(told: Sequence[_Told], tree: Sequence[int]) -> Severity:
    return max((told[index].severity for index in tree), key=lambda severity: severity.rank)


def _remedies(findings: Sequence[Finding]) -> tuple[Remedy, ...]:
    """Those of the root, then those of its symptoms; what differs in its commands alone is one."""
    root, *symptoms = findings
    remedies = list(dict.fromkeys(root.remedies))
    further: dict[Remedy, list[str]] = {}
    for remedy in dict.fromkeys(remedy for each in symptoms for remedy in each.remedies):
        if remedy not in remedies:
            further.setdefault(replace(remedy, commands=()), []).extend(remedy.commands)
    remedies += [
        replace(remedy, commands=tuple(dict.fromkeys(commands)))
        for remedy, commands in further.items()
    ]
    return tuple(remedies)


def _causes(found: Sequence[tuple[Check, Finding]]) -> list[list[int]]:
    """For each finding, the indices of its causes."""
    explaining: dict[tuple[str, Any], list[int]] = defaultdict(list)
    there = {check.code for check, _ in found}
    for index, (check, finding) in enumerate(found):
        for code in there.intersection(check.explains):
            kind = check.explains_by.get(code)
            for subject in set(finding.subjects):
                if kind in (None, subject.kind):
                    explaining[code, subject].append(index)
    explained = {code for code, _ in explaining}
    listeners = [_listeners(finding) for _, finding in found]
    causes: list[list[int]] = []
    for index, (check, finding) in enumerate(found):
        subjects = finding.subjects if check.code in explained else ()
        neighbours = {
            other for subject in subjects for other in explaining.get((check.code, subject), ())
        }
        causes.append(
            sorted(
                other
                for other in neighbours
                if other != index and not _apart(listeners[other], listeners[index])
            )
        )
    return causes


def _listeners(finding: Finding) -> frozenset[Subject]:
    return frozenset(
        subject for subject in finding.subjects if subject.kind is SubjectKind.LISTENER
    )


def _apart(cause: frozenset[Subject], symptom: frozenset[Subject]) -> bool:
    """True where both name listeners, and none in common."""
    return bool(cause) and bool(symptom) and cause.isdisjoint(symptom)


def _roots(causes: Sequence[Sequence[int]], symptoms: Mapping[int, Sequence[int]]) -> list[int]:
    """Findings without a cause, and one of each circle that explains itself."""
    roots = [index for index, its_causes in enumerate(causes) if not its_causes]
    placed = {index for root in roots for index in _tree(root, symptoms)}
    for index in range(len(causes)):
        if index not in placed:
            roots.append(index)
            placed.update(_tree(index, symptoms))
    return roots


def _tree(root: int, symptoms: Mapping[int, Sequence[int]]) -> list[int]:
    """The root and all that follows from it, level by level, each once."""
    tree = {root: None}
    waiting = deque(tree)
    while waiting:
        for each in symptoms.get(waiting.popleft(), ()):
            if each not in tree:
                tree[each] = None
                waiting.append(each)
    return list(tree)


def _reported(told: _Told, index: int, ids: Mapping[int, str]) -> ReportedFinding:
    check, finding = told.check, told.finding
    return ReportedFinding(
        id=ids[index],
        code=check.code,
        check=check.name,
        severity=told.severity,
        message=finding.message,
        subjects=finding.subjects,
        seen_in=finding.seen_in,
        causes=tuple(ids[cause] for cause in told.causes),
        remedies=tuple(map(folding.in_few_commands, finding.remedies)),
        references=finding.references,
        alike=told.alike,
    )
