"""The JSON report, `meshdoctor.report/v1`, and its JSON Schema."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from meshdoctor.findings import Citation, Remedy, Severity
from meshdoctor.report import schemas
from meshdoctor.report.document import (
    SCHEMA,
    CheckResult,
    CheckVerdict,
    Coverage,
    Diagnosis,
    Report,
    ReportedFinding,
    SuppressionResult,
)

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every report satisfies."""
    return schemas.load("report-v1")


def render(report: Report) -> str:
    """The report as one JSON document, in ASCII, with a line end.

    The same mesh gives the same document, but for `created`, `seconds` and `milliseconds`.
    """
    document = {
        "schema": SCHEMA,
        "tool": {"name": "meshdoctor", "version": report.tool_version},
        "created": report.created,
        "seconds": round(report.seconds, 3),
        "target": dict(report.target),
        "mesh": list(report.mesh),
        "versions": [{"name": each.name, "version": each.version} for each in report.versions],
        "verdict": report.verdict.value,
        "verdict_reason": report.verdict_reason,
        "coverage": _coverage(report.coverage),
        "summary": {
            **{severity.value: report.count(severity) for severity in reversed(Severity)},
            "suppressed": report.suppressed,
        },
        "diagnoses": [_diagnosis(each) for each in report.diagnoses],
        "findings": [_finding(each) for each in report.findings],
        "checks": [_check(each) for each in report.checks],
    }
    if report.suppressions:
        document["suppressions"] = [_suppression(each) for each in report.suppressions]
    return written(document)


def _coverage(coverage: Coverage) -> dict[str, Any]:
    others = [{"kind": each.kind, "name": each.name} for each in coverage.elsewhere]
    elsewhere = {"elsewhere": others} if others else {}
    return {
        "services": coverage.services,
        "workloads": coverage.workloads,
        "sidecars": {
            "found": coverage.sidecars_found,
            "examined": coverage.sidecars_examined,
            "unreachable": [
                {"name": each.name, "reason": each.reason} for each in coverage.unreachable
            ],
        },
        "sources": [
            {
                "name": each.name,
                "state": each.state.value,
                "reason": each.reason,
                "hint": each.hint,
            }
            for each in coverage.sources
        ],
        **elsewhere,
    }


def _diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "root": diagnosis.root,
        "findings": list(diagnosis.findings),
        "title": diagnosis.title,
        "severity": diagnosis.severity.value,
        "remedies": [remedy(each) for each in diagnosis.remedies],
    }


def _finding(finding: ReportedFinding) -> dict[str, Any]:
    alike = {"alike": finding.alike} if finding.alike > 1 else {}
    return {
        "id": finding.id,
        "code": finding.code,
        "check": finding.check,
        "severity": finding.severity.value,
        "message": finding.message,
        "subjects": [{"kind": each.kind.value, "name": each.name} for each in finding.subjects],
        "seen_in": [_citation(each) for each in finding.seen_in],
        "causes": list(finding.causes),
        "remedies": [remedy(each) for each in finding.remedies],
        "references": list(finding.references),
        **alike,
    }


def _citation(citation: Citation) -> dict[str, Any]:
    own = {"file": citation.file, "line": citation.line} if citation.file else {}
    return {
        "document": citation.document,
        "pointer": citation.pointer,
        "excerpt": citation.excerpt,
        **own,
    }


def remedy(written: Remedy) -> dict[str, Any]:
    """A remedy as one member of a document."""
    return {
        "summary": written.summary,
        "commands": list(written.commands),
        "patch": written.patch or "",
        "effect": written.effect or "",
        "destructive": written.destructive,
    }


def _check(result: CheckResult) -> dict[str, Any]:
    crash = {"traceback": result.traceback} if result.verdict is CheckVerdict.CRASHED else {}
    return {
        "code": result.code,
        "name": result.name,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "hint": result.hint,
        "milliseconds": round(result.milliseconds, 3),
        "facts": [each.message for each in result.facts],
        **crash,
    }


def _suppression(result: SuppressionResult) -> dict[str, Any]:
    return {
        "code": result.code,
        "subject": result.subject,
        "reason": result.reason,
        "until": result.until,
        "matched": result.matched,
        "expired": result.expired,
    }


def written(document: Any, indent: int | None = 2) -> str:
    """A document as all formats of JSON have it, with a line end; without `indent` in one line.

    In ASCII, for names come from strangers, and it may be read on a terminal.
    """
    return json.dumps(encodable(document), indent=indent, ensure_ascii=True) + "\n"


def encodable(value: Any) -> Any:
    """`value` without lone surrogates, which JSON's grammar allows and its readers refuse."""
    match value:
        case str():
            return _LONE_SURROGATE.sub("\ufffd", value)
        case Mapping():
            return {encodable(key): encodable(each) for key, each in value.items()}
        case list() | tuple():
            return [encodable(each) for each in value]
        case _:
            return value
