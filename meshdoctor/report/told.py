"""A report as it was told: read back from its JSON, so that two of any age can be compared."""

from typing import Final

import msgspec

from meshdoctor.evidence.interface import DecodeError, decode_bytes
from meshdoctor.findings import Severity
from meshdoctor.report import json as report_json
from meshdoctor.report.document import SCHEMA, CheckVerdict, Report, Verdict


class ToldSubject(msgspec.Struct, frozen=True):
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ToldFinding(msgspec.Struct, frozen=True):
    """A finding; `causes` are ids of the same report, which mean nothing in another.

    `alike` counts the findings that it stands for.
    """

    id: str
    code: str
    check: str
    severity: Severity
    message: str
    subjects: tuple[ToldSubject, ...] = ()
    causes: tuple[str, ...] = ()
    alike: int = 1


class ToldDiagnosis(msgspec.Struct, frozen=True):
    root: str
    findings: tuple[str, ...] = ()


class ToldCheck(msgspec.Struct, frozen=True):
    code: str
    verdict: CheckVerdict
    reason: str = ""


class ToldSuppression(msgspec.Struct, frozen=True):
    code: str
    matched: int = 0


class Told(msgspec.Struct, frozen=True):
    """What of a report, `meshdoctor.report/v1`, is compared with another."""

    schema: str
    verdict: Verdict
    created: str = ""
    diagnoses: tuple[ToldDiagnosis, ...] = ()
    findings: tuple[ToldFinding, ...] = ()
    checks: tuple[ToldCheck, ...] = ()
    suppressions: tuple[ToldSuppression, ...] = ()

    def causes_first(self) -> list[ToldFinding]:
        """The findings by diagnosis, each root before its symptoms."""
        by_id = {finding.id: finding for finding in self.findings}
        ids = [id_ for diagnosis in self.diagnoses for id_ in diagnosis.findings]
        return [by_id[id_] for id_ in dict.fromkeys((*ids, *by_id)) if id_ in by_id]

    def why_not_looked(self, code: str) -> str | None:
        """Why the check of that code says nothing here; None where it looked."""
        for check in self.checks:
            if check.code == code:
                looked = check.verdict in (CheckVerdict.CLEAN, CheckVerdict.FOUND)
                return None if looked else f"{check.verdict}: {check.reason}"
        return "this check was not run"

    def suppresses(self, code: str) -> bool:
        """Whether findings of that code were left out because the mesh's owner knows them."""
        return any(each.code == code and each.matched for each in self.suppressions)


NOTHING: Final = Told(SCHEMA, Verdict.UNKNOWN)
"""What is said before anybody looked."""


def told(report: Report) -> Told:
    """The report as its JSON tells it."""
    return read_report("report", report_json.render(report).encode())


def read_report(name: str, raw: bytes) -> Told:
    """The report in a file. Raises DecodeError for anything else."""
    schema = decode_bytes(name, raw, dict[str, msgspec.Raw]).get("schema")
    if schema is None or bytes(schema) != f'"{SCHEMA}"'.encode():
        said = "no schema" if schema is None else bytes(schema).decode("utf-8", "replace")[:80]
        raise DecodeError(
            name,
            f"not a report, for it says {said} and not {SCHEMA}: write one with "
            "`meshdoctor check --output json=report.json`",
        )
    return decode_bytes(name, raw, Told)
