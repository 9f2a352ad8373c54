"""The report as JUnit's XML, which CI systems show: a case a check."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from xml.etree import ElementTree as ET

from meshdoctor.findings import Severity
from meshdoctor.report import wording
from meshdoctor.report.document import (
    CheckResult,
    CheckVerdict,
    Report,
    ReportedFinding,
)
from meshdoctor.report.terminal import Terminal, printable
from meshdoctor.report.tree import MOST_STEPS, MOST_TOLD, brief

_SUITE: Final = "meshdoctor"
_TERMINAL: Final = Terminal()
_MOST_CITATIONS: Final = 5
_MOST_CAUSES: Final = 10


def render(report: Report, fail_on: Severity = Severity.ERROR) -> str:
    """One test suite; a check fails by a finding of `fail_on` or worse.

    Lesser findings are in the case's output. A check that could not look is skipped, a crashed
    one an error; so is the verdict, a case of its own, where too little was examined.
    """
    cases = [_case(report, result, fail_on) for result in report.checks]
    cases.append(_verdict(report))
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    attributes = {name: str(number) for name, number in counts.items()}
    time = f"{report.seconds:.3f}"
    root = ET.Element("testsuites", {"name": _SUITE, **attributes, "time": time})
    # The readers of this format want the time without a zone.
    created = report.created.removesuffix("Z").partition("+")[0]
    suite = ET.SubElement(
        root, "testsuite", {"name": _SUITE, **attributes, "time": time, "timestamp": created}
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report):
        ET.SubElement(properties, "property", {"name": _line(name), "value": _line(value)})
    suite.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    yield "meshdoctor", report.tool_version
    yield "verdict", report.verdict.value
    for each in report.versions:
        yield each.name, each.version


def _case(report: Report, result: CheckResult, fail_on: Severity) -> ET.Element:
    name = f"{result.code} {result.name}"
    case = _element(name, f"{_SUITE}.{result.code[:3]}", result.milliseconds / 1000)
    found = [finding for finding in report.findings if finding.code == result.code]
    failing = [each for each in found if each.severity.rank >= fail_on.rank]
    lesser = [each for each in found if each.severity.rank < fail_on.rank]
    match result.verdict:
        case CheckVerdict.SKIPPED:
            hint = f" {wording.sentence(result.hint)}" if result.hint else ""
            message = _line(f"{wording.ended(result.reason)}{hint}")
            ET.SubElement(case, "skipped", {"message": message})
        case CheckVerdict.CRASHED:
            error = ET.SubElement(case, "error", {"message": _line(result.reason)})
            error.set("type", "crashed")
            error.text = _text([*_told(report, found), "", *result.traceback.splitlines()])
        case CheckVerdict.FOUND | CheckVerdict.CLEAN:
            if failing:
                message = failing[0].message
                if len(failing) > 1:
                    message += f" (and {len(failing) - 1} more)"
                failure = ET.SubElement(case, "failure", {"message": _line(message)})
                failure.set("type", max(failing, key=lambda each: each.severity.rank).severity)
                failure.text = _text(_told(report, failing))
            said = [*_told(report, lesser), *(each.message for each in result.facts)]
            if said:
                ET.SubElement(case, "system-out").text = _text(said)
    return case


def _verdict(report: Report) -> ET.Element:
    """What no single check says: whether enough was seen to say anything."""
    case = _element("verdict", _SUITE, 0.0)
    if not report.has_verdict:
        reason = report.verdict_reason or "too little could be examined"
        ET.SubElement(case, "error", {"message": _line(reason), "type": "unknown"})
    said = [f"{wording.verdict_word(report)}: {wording.summary(report)}"]
    said += [f"{each.sentence} {each.hint}".rstrip() for each in wording.unexamined(report)]
    ET.SubElement(case, "system-out").text = _text(said)
    return case


def _element(name: str, classname: str, seconds: float) -> ET.Element:
    return ET.Element(
        "testcase",
        {"name": _line(name), "classname": _line(classname), "time": f"{seconds:.3f}"},
    )


def _told(report: Report, findings: Sequence[ReportedFinding]) -> Iterator[str]:
    """What was found, its causes, where it is seen and how it is mended, line by line."""
    known = {each.id: each for each in report.findings}
    for number, finding in enumerate(findings[:MOST_TOLD]):
        if number:
            yield ""
        yield f"{finding.severity} {finding.code} ({finding.id}): {finding.message}"
        for cause in (known[each] for each in finding.causes[:_MOST_CAUSES]):
            yield f"  because of {cause.code} ({cause.id}): {cause.message}"
        for each in finding.seen_in[:_MOST_CITATIONS]:
            excerpt = "" if each.excerpt is None else f": {each.excerpt}"
            yield f"  seen in {f'{each.document} {each.pointer}'.rstrip()}{excerpt}"
        if (more := len(finding.seen_in) - _MOST_CITATIONS) > 0:
            yield f"  and in {wording.count(more, 'more place')}"
        for remedy in map(brief, finding.remedies[:MOST_STEPS]):
            yield f"  to do: {remedy.summary}"
            for line in (remedy.patch or "").splitlines():
                yield f"    {line}"
            for command in remedy.commands:
                yield from (f"    {line}" for line in command.splitlines())
    if (left := len(findings) - MOST_TOLD) > 0:
        yield f"and {wording.count(left, 'more finding')}: the JSON report has each"


def _line(text: str) -> str:
    """One line without any character that XML forbids or a reader would obey."""
    return printable(text, _TERMINAL)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(map(_line, lines))
