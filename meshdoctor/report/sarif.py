"""The report as SARIF 2.1.0, which code scanning shows: a rule a check, a result a finding."""

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from meshdoctor.findings import Citation, Severity, SubjectKind
from meshdoctor.report import wording
from meshdoctor.report.document import (
    CheckResult,
    CheckVerdict,
    Report,
    ReportedFinding,
)
from meshdoctor.report.json import remedy, written
from meshdoctor.report.terminal import Terminal, printable
from meshdoctor.report.tree import MOST_STEPS, brief

SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_EVIDENCE: Final = "EVIDENCE"
"""What the paths of evidence are relative to: the snapshot, of which nobody knows the place."""
_SOURCE: Final = "%SRCROOT%"
_FLEETING: Final = frozenset({SubjectKind.SIDECAR, SubjectKind.INSTANCE})
"""Subjects that come and go with containers, while the fault is still the same."""
_LINK: Final = re.compile(r"\[(?=[^\]]*\]\()")
_MOST_RELATED: Final = 20
_MOST_SUBJECTS: Final = 50
_MOST_CAUSES: Final = 10
_MOST_RESULTS: Final = 5_000
"""Code scanning takes 10 MB, and of results it shows so many: the JSON report has all."""
_TERMINAL: Final = Terminal()

Json = dict[str, Any]


def render(report: Report) -> str:
    """The report as one SARIF log of one run, in ASCII, with a line end."""
    # A plug-in that did not load has no checks to tell of.
    checks = [each for each in report.checks if each.severity is not None]
    rules = {result.code: index for index, result in enumerate(checks)}
    run: Json = {
        "tool": {
            "driver": {
                "name": "meshdoctor",
                "semanticVersion": report.tool_version,
                "version": report.tool_version,
                "rules": [_rule(each) for each in checks],
            }
        },
        "automationDetails": {"id": f"meshdoctor/{report.target.get('kind', 'live')}/"},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {
            _SOURCE: {"description": {"text": "Where meshdoctor was started."}},
            _EVIDENCE: {
                "description": {"text": "The evidence, as `meshdoctor snapshot` records it."}
            },
        },
        "invocations": [_invocation(report, rules)],
        "results": _results(report, rules),
        "properties": {
            "verdict": report.verdict.value,
            "reason": report.verdict_reason,
            "mesh": list(report.mesh),
            "versions": {each.name: each.version for each in report.versions},
            "suppressed": report.suppressed,
        },
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return written(log)


def _rule(result: CheckResult) -> Json:
    title = result.title or result.name
    page = result.page or title
    return {
        "id": result.code,
        "name": _shown(result.name),
        "shortDescription": _message(title),
        "fullDescription": _message(title),
        # The text of the help is a page in Markdown of the check's author, and no message.
        "help": {"text": _page(page), "markdown": _page(page)},
        "defaultConfiguration": {"level": _LEVELS[result.severity or Severity.WARNING]},
        "properties": {"tags": ["service-mesh", "consul", "envoy"]},
    }


def _invocation(report: Report, rules: Mapping[str, int]) -> Json:
    told = [
        _notification(result, rules)
        for result in report.checks
        if result.verdict in (CheckVerdict.SKIPPED, CheckVerdict.CRASHED)
    ]
    if not report.has_verdict:
        reason = report.verdict_reason or "too little could be examined"
        told.append({"level": "error", "message": _message(f"No verdict: {reason}")})
    if (left := len(report.findings) - _MOST_RESULTS) > 0:
        said = f"{wording.count(left, 'more finding')}: the JSON report has each."
        told.append({"level": "note", "message": _message(said)})
    return {
        "executionSuccessful": report.has_verdict,
        "endTimeUtc": report.created,
        "toolExecutionNotifications": told,
    }


def _notification(result: CheckResult, rules: Mapping[str, int]) -> Json:
    crashed = result.verdict is CheckVerdict.CRASHED
    ended = "crashed" if crashed else "could not look"
    hint = f" {wording.sentence(result.hint)}" if result.hint else ""
    said = f"{result.code} {result.name} {ended}: {wording.ended(result.reason)}{hint}"
    notification: Json = {
        "level": "error" if crashed else "note",
        "message": _message(said),
    }
    if result.code in rules:
        notification["associatedRule"] = {"id": result.code, "index": rules[result.code]}
    return notification


def _results(report: Report, rules: Mapping[str, int]) -> list[Json]:
    known = {each.id: each for each in report.findings}
    alike: Counter[str] = Counter()
    results = []
    for finding in report.findings[:_MOST_RESULTS]:
        about = _about(finding)
        alike[about] += 1
        causing = [known[each] for each in finding.causes[:_MOST_CAUSES]]
        results.append(_result(report, finding, causing, rules, f"{about} {alike[about]}"))
    return results


def _result(
    report: Report,
    finding: ReportedFinding,
    causing: Iterable[ReportedFinding],
    rules: Mapping[str, int],
    about: str,
) -> Json:
    causes = (f"Because of {each.code}: {each.message}" for each in causing)
    locations = [_location(report, each) for each in finding.seen_in]
    subjects = [
        {"name": _shown(each.name), "fullyQualifiedName": _shown(str(each)), "kind": each.kind}
        for each in finding.subjects[:_MOST_SUBJECTS]
    ]
    first = locations[0] if locations else {}
    first["logicalLocations"] = [*first.get("logicalLocations", ()), *subjects]
    result: Json = {
        "ruleId": finding.code,
        "level": _LEVELS[finding.severity],
        "kind": "fail",
        "message": _message(finding.message, *causes),
        "locations": [first],
        "partialFingerprints": {"meshdoctor/v1": hashlib.sha256(about.encode()).hexdigest()},
        "properties": {
            "id": finding.id,
            "causes": list(finding.causes[:_MOST_SUBJECTS]),
            "subjects": len(finding.subjects),
            "places": len(finding.seen_in),
            "remedies": [remedy(brief(each)) for each in finding.remedies[:MOST_STEPS]],
            "references": list(finding.references),
        },
    }
    if finding.code in rules:
        result["ruleIndex"] = rules[finding.code]
    if locations[1:]:
        related = locations[1 : _MOST_RELATED + 1]
        result["relatedLocations"] = [{"id": n, **each} for n, each in enumerate(related, 1)]
    return result


def _about(finding: ReportedFinding) -> str:
    """What stays the same of a fault from run to run, whoever of the many shows it."""
    lasting = sorted({str(each) for each in finding.subjects if each.kind not in _FLEETING})
    names = lasting or sorted({str(each) for each in finding.subjects})
    return json.dumps([finding.code, *names])


def _location(report: Report, citation: Citation) -> Json:
    """The user's own file and line where it is known, else the document of the evidence."""
    if citation.file:
        artifact = _own_file(report, citation.file)
        region: Json = {"startLine": max(citation.line, 1)}
    else:
        artifact = {"uri": _uri(citation.document), "uriBaseId": _EVIDENCE}
        # Code scanning refuses a result without a line; the pointer tells the place exactly.
        region = {"startLine": 1}
    if citation.excerpt is not None:
        region["snippet"] = {"text": _shown(citation.excerpt)}
    where = f"{citation.document}#{citation.pointer}"
    return {
        "physicalLocation": {"artifactLocation": artifact, "region": region},
        "logicalLocations": [{"fullyQualifiedName": _shown(where)}],
    }


def _own_file(report: Report, file: str) -> Json:
    paths = report.target.get("paths", ())
    if report.target.get("kind") == "compose" and paths:
        # Compose files are named from the folder of the first of them.
        file = posixpath.join(posixpath.dirname(str(paths[0])), file)
    file = posixpath.normpath(file)
    if file.startswith("/"):
        return {"uri": f"file://{_uri(file)}"}
    return {"uri": _uri(file), "uriBaseId": _SOURCE}


def _uri(path: str) -> str:
    return quote(path, safe="/", errors="replace")


def _message(*lines: str) -> Json:
    """Plain text: braces would be placeholders, and brackets before parentheses a link."""
    shown = "\n".join(map(_shown, lines))
    doubled = shown.replace("{", "{{").replace("}", "}}")
    return {"text": _LINK.sub(r"\\[", doubled)}


def _page(text: str) -> str:
    return "\n".join(map(_shown, text.split("\n")))


def _shown(text: str) -> str:
    return printable(text, _TERMINAL)
