"""Sentences that reports of several formats have in common."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence import layout
from meshdoctor.findings import Severity
from meshdoctor.kinds.interface import Kind
from meshdoctor.report.document import (
    CheckVerdict,
    Coverage,
    Report,
    Source,
    SourceState,
    SuppressionResult,
    Unreachable,
    Verdict,
)

K = TypeVar("K")
V = TypeVar("V")

MOST_NAMES: Final = 12
_MESHES: Final[Mapping[str, str]] = {kind.value: kind.called for kind in Kind}
_FLAG: Final = r"--[a-z][a-z-]+"
_ASKED_WITH: Final[Mapping[str, str]] = {
    "datacenter": "CONSUL_DATACENTER",
    "partition": "CONSUL_PARTITION",
    "namespace": "CONSUL_NAMESPACE",
}
"""The variables of Consul's own command, by what it is that they choose."""
_BRIEF: Final = 0.1
_MINUTE: Final = 60


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ended(sentence: str) -> str:
    sentence = sentence.rstrip()
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."


def sentence(hint: str) -> str:
    """A hint as a sentence: it is an instruction, while a reason may begin with a name."""
    return ended(hint[0].upper() + hint[1:]) if hint else ""


def names(named: Sequence[str]) -> str:
    """The names, or the first of them and how many more there are."""
    if len(named) <= MOST_NAMES:
        return ", ".join(named)
    return f"{', '.join(named[:MOST_NAMES])} and {len(named) - MOST_NAMES} more"


def looked_at(coverage: Coverage, nothing: str = "nothing") -> str:
    counts = [
        count(number, noun)
        for number, noun in ((coverage.services, "service"), (coverage.workloads, "workload"))
        if number
    ]
    if coverage.sidecars_found:
        found = count(coverage.sidecars_found, "sidecar")
        counts.append(f"{coverage.sidecars_examined} of {found}")
    return ", ".join(counts) or nothing


def examined(report: Report) -> list[str]:
    """What was looked at, and how the checks ended, in a few sentences."""
    kinds = " and ".join(_MESHES.get(kind, kind) for kind in report.mesh)
    paths = [str(path) for path in report.target.get("paths", ())]
    planned = report.target.get("kind") == "compose"
    written = "described" if planned else "recorded"
    recorded = f", as {written} in {', '.join(paths)}" if paths else ""
    tried = [str(path) for path in report.target.get("rules", ())]
    recorded += f", as if the rules in {' and '.join(tried)} were applied" if tried else ""
    looked = looked_at(report.coverage, "no application" if planned else "nothing")
    of = f" of {kinds}" if kinds else ""
    if not kinds and report.coverage.sidecars_found:
        of = " of a kind of mesh that is not known"
    sentences = [f"{looked[0].upper()}{looked[1:]}{of}{recorded}."]
    states = [
        source.name if source.state is SourceState.EXAMINED else f"{source.name} ({source.state})"
        for source in report.coverage.sources
    ]
    if states:
        sentences.append(f"Evidence: {', '.join(states)}.")
    foreign = [each for each in report.checks if each.foreign]
    numbers = {
        "found nothing": _number(report, CheckVerdict.CLEAN),
        "found something": _number(report, CheckVerdict.FOUND),
        "could not look": _number(report, CheckVerdict.SKIPPED) - len(foreign),
        "crashed": _number(report, CheckVerdict.CRASHED),
    }
    counts = [f"{number} {words}" for words, number in numbers.items() if number]
    if counts:
        sentences.append(f"Checks: {', '.join(counts)}.")
    for reason, results in _grouped(foreign, lambda result: result.reason).items():
        codes = ", ".join(result.code for result in results)
        more = f"{len(results)} more {'is' if len(results) == 1 else 'are'}"
        sentences.append(f"{more} {reason}: {codes}.")
    return sentences


def _number(report: Report, verdict: CheckVerdict) -> int:
    return sum(result.verdict is verdict for result in report.checks)


class Unexamined(msgspec.Struct, frozen=True):
    """Something that nobody looked at, why, and how to change that.

    `codes` are the checks that were skipped for it; `hint` is "" or a sentence.
    """

    sentence: str
    hint: str = ""
    codes: tuple[str, ...] = ()


def unexamined(report: Report) -> list[Unexamined]:
    """All that nobody looked at, each reason once; crashed checks are not among it."""
    skipped = _grouped(
        (each for each in report.checks if each.is_blind),
        lambda result: (result.reason, result.hint),
    )
    unreachable = _grouped(report.coverage.unreachable, lambda each: each.reason)
    sources = [
        each
        for each in map(partial(_without, report.coverage.unreachable), report.coverage.sources)
        if each.state is not SourceState.EXAMINED
        and each.reason
        # A check that was skipped for want of this source says the same again.
        and not any(each.reason in reason for reason, _ in skipped)
    ]
    # What is lost of the recording itself explains the rest.
    found = [_source(each) for each in sources if each.name == "snapshot"]
    for reason, sidecars in unreachable.items():
        which = "Sidecar" if len(sidecars) == 1 else f"{len(sidecars)} sidecars:"
        found.append(_unexamined(f"{which} {names([each.name for each in sidecars])}: {reason}"))
    found += [_source(each) for each in sources if each.name != "snapshot"]
    found += _elsewhere(report.coverage)
    found += [
        _unexamined(reason, hint, tuple(result.code for result in results))
        for (reason, hint), results in skipped.items()
    ]
    found += [
        _unexamined(f"{each.code} {each.name}: {each.reason}")
        for each in report.checks
        if each.verdict is CheckVerdict.FOUND and each.reason
    ]
    return found


def _elsewhere(coverage: Coverage) -> Iterator[Unexamined]:
    """One sentence on all of Consul that this run did not cover."""
    kinds = _grouped(coverage.elsewhere, lambda each: each.kind)
    parts = [
        f"the {kind if len(each) == 1 else f'{kind}s'} {names([one.name for one in each])}"
        for kind, each in kinds.items()
    ]
    if parts:
        said = f"Consul also knows {'; '.join(parts)}: nothing there was looked at"
        asked = [variable for kind, variable in _ASKED_WITH.items() if kind in kinds]
        hint = f"{' or '.join(asked)} asks this Consul for another" if asked else ""
        yield Unexamined(ended(said), ended(hint) if hint else "")


def _without(unreachable: Sequence[Unreachable], source: Source) -> Source:
    """The source, but for what is said of each sidecar by its name."""
    if source.name != "envoy":
        return source
    said = source.reason
    for each in unreachable:
        said = said.replace(f"{layout.envoy(each.name, 'config_dump.json')}: {each.reason}", "", 1)
    return replace(source, reason="; ".join(filter(None, said.split("; "))))


def _source(source: Source) -> Unexamined:
    parts = source.reason.split("; ")
    if len(parts) > MOST_NAMES:
        more = f"and {len(parts) - MOST_NAMES} more, which the JSON report has"
        parts = [*parts[:MOST_NAMES], more]
    return _unexamined(f"{source.name}: {'; '.join(parts)}", source.hint)


def _unexamined(reason: str, hint: str = "", codes: tuple[str, ...] = ()) -> Unexamined:
    # A reason that names one of the hint's flags has said how already.
    if not set(re.findall(_FLAG, hint)).isdisjoint(re.findall(_FLAG, reason)):
        hint = ""
    return Unexamined(ended(reason), sentence(hint), codes)


def _grouped(items: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def suppression(report: Report, result: SuppressionResult) -> str:
    about = f"{result.code} {result.subject}".rstrip()
    reason = ended(result.reason)
    if result.expired:
        return f"No longer suppressed, for {result.until} is past: {about}: {reason}"
    until = f", until {result.until}" if result.until else ""
    if result.matched:
        return f"Suppressed: {count(result.matched, 'finding')} of {about}{until}: {reason}"
    why = "the entry is unused" if report.is_unused(result) else "its check did not look"
    return f"Suppressed: no finding of {about}{until} ({why}): {reason}"


def verdict_word(report: Report) -> str:
    """Of files that nobody has started yet, nothing is broken: it would be."""
    said = report.verdict.value.upper()
    planned = report.target.get("kind") == "compose" and report.verdict is not Verdict.UNKNOWN
    return f"WOULD BE {said}" if planned else said


def summary(report: Report) -> str:
    """The last line, after the verdict's word."""
    files = report.target.get("paths", ()) if report.target.get("kind") == "compose" else ()
    what = looked_at(report.coverage, count(len(files), "Compose file") if files else "nothing")
    looked = f"Checked {what} in {duration(report.seconds)}."
    counted = [
        count(number, severity.value) if severity is not Severity.INFO else f"{number} info"
        for severity in reversed(Severity)
        if (number := report.count(severity))
    ]
    if report.suppressed:
        counted.append(f"{report.suppressed} suppressed")
    details = f" ({', '.join(counted)})" if counted else ""
    causes = sum(each.severity is not Severity.INFO for each in report.diagnoses)
    findings = f"{count(causes, 'cause')}, {count(len(report.findings), 'finding')}{details}."
    match report.verdict:
        case Verdict.UNKNOWN:
            reason = ended(report.verdict_reason or "too little could be examined")
            return f"{reason} {f'{findings} ' if counted else ''}{looked}"
        case Verdict.HEALTHY:
            clean = _number(report, CheckVerdict.CLEAN)
            blind = sum(each.is_blind for each in report.checks)
            said = [f"{count(clean, 'check')} found nothing", *counted]
            if blind:
                said.append(f"{blind} could not look")
            return f"{', '.join(said)}. {looked}"
        case Verdict.DEGRADED | Verdict.BROKEN:
            return f"{findings} {looked}"


def duration(seconds: float) -> str:
    if seconds < _BRIEF:
        return f"less than {_BRIEF} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
