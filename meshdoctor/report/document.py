"""The report: what one run of the doctor says, before it is written in any format.

Its fields are those of `meshdoctor.report/v1`; `report/json.py` writes them one to one.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from meshdoctor.findings import Citation, Fact, Remedy, Severity, Subject

SCHEMA: Final = "meshdoctor.report/v1"
NOTHING_WOULD_BREAK: Final = "nothing in these files would break; nothing that runs was looked at"
"""The reason of a verdict that is unknown though no Compose file is at fault."""


class Verdict(enum.StrEnum):
    """HEALTHY is said only of a mesh that was looked at; UNKNOWN is everything else."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class SourceState(enum.StrEnum):
    """EXAMINED whole, PARTIAL where something of it could not be had or read, else MISSING."""

    EXAMINED = "examined"
    PARTIAL = "partial"
    MISSING = "missing"


class Source(msgspec.Struct, frozen=True):
    """One source of evidence, by the name its folder has in a snapshot (docker, consul, ...).

    `reason` says what is missing and why; `hint` how to give it.
    """

    name: str
    state: SourceState
    reason: str = ""
    hint: str = ""


class Unreachable(msgspec.Struct, frozen=True):
    """A sidecar that was found and could not be examined."""

    name: str
    reason: str


class Elsewhere(msgspec.Struct, frozen=True):
    """What a source knows of and was not examined: a datacenter, a peer, a namespace, ..."""

    kind: str
    name: str


class Coverage(msgspec.Struct, frozen=True):
    """What was examined. `sidecars_found` counts the unreachable ones too."""

    services: int
    workloads: int
    sidecars_found: int
    sidecars_examined: int
    unreachable: tuple[Unreachable, ...]
    sources: tuple[Source, ...]
    elsewhere: tuple[Elsewhere, ...] = ()


class ReportedFinding(msgspec.Struct, frozen=True):
    """A finding with its place in the report: its id, its check, its causes (ids).

    `alike` counts the findings that it stands for: more than 1 where many said the same.
    """

    id: str
    code: str
    check: str
    severity: Severity
    message: str
    subjects: tuple[Subject, ...]
    seen_in: tuple[Citation, ...]
    causes: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    references: tuple[str, ...]
    alike: int = 1


class Diagnosis(msgspec.Struct, frozen=True):
    """One root cause and its tree of symptoms.

    `findings` are ids, the root first, then its symptoms level by level; `remedies` are the
    root's first, without repetitions. The severity is the worst of the tree.
    """

    root: str
    findings: tuple[str, ...]
    title: str
    severity: Severity
    remedies: tuple[Remedy, ...]


class CheckVerdict(enum.StrEnum):
    """How one check ended."""

    CLEAN = "clean"
    FOUND = "found"
    SKIPPED = "skipped"
    CRASHED = "crashed"


class Version(msgspec.Struct, frozen=True):
    """A part of the mesh, and of which version it is: a number, or the image it runs."""

    name: str
    version: str


class CheckResult(msgspec.Struct, frozen=True):
    """How one check ended, why if it was skipped, crashed or cut short, what it verified if clean.

    `traceback` is "" unless it crashed. `title` and `page` are what the check says of itself,
    `severity` how bad its findings are by default; "" and None of a plug-in that did not load.
    `foreign`: it was skipped because it is for other kinds of mesh.
    """

    code: str
    name: str
    verdict: CheckVerdict
    milliseconds: float
    reason: str = ""
    hint: str = ""
    traceback: str = ""
    facts: tuple[Fact, ...] = ()
    title: str = ""
    page: str = ""
    severity: Severity | None = None
    foreign: bool = False

    @property
    def is_blind(self) -> bool:
        """It was skipped, and had something to look at."""
        return self.verdict is CheckVerdict.SKIPPED and not self.foreign


class SuppressionResult(msgspec.Struct, frozen=True):
    """What became of one suppression; `matched` counts the findings that it hides.

    `subject` is "" where it is about every finding of `code`; `until` is the last day on which it
    holds, as 2030-01-31, or "".
    """

    code: str
    subject: str
    reason: str
    until: str
    matched: int
    expired: bool


class Report(msgspec.Struct, frozen=True):
    """One run. `created` is RFC 3339 in UTC; `seconds` the time the run took.

    `target` is {"kind": "live", ...}, or {"kind": "snapshot" or "compose", "paths": [...], ...};
    `mesh` names the kinds of mesh recognised, [] for none.
    """

    tool_version: str
    created: str
    seconds: float
    target: Mapping[str, Any]
    mesh: tuple[str, ...]
    verdict: Verdict
    verdict_reason: str
    coverage: Coverage
    diagnoses: tuple[Diagnosis, ...]
    findings: tuple[ReportedFinding, ...]
    checks: tuple[CheckResult, ...]
    suppressed: int = 0
    suppressions: tuple[SuppressionResult, ...] = ()
    versions: tuple[Version, ...] = ()

    @property
    def has_verdict(self) -> bool:
        """False where too little was seen; of files alone, that nothing would break is one."""
        return self.verdict is not Verdict.UNKNOWN or self.verdict_reason == NOTHING_WOULD_BREAK

    @property
    def recorded(self) -> Sequence[str]:
        """The paths of the snapshot that was examined; () where it was none."""
        paths: Sequence[str] = self.target.get("paths", ())
        return paths if self.target.get("kind") == "snapshot" else ()

    def count(self, severity: Severity) -> int:
        """How many findings have that severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def is_unused(self, suppression: SuppressionResult) -> bool:
        """Whether it hides nothing though it holds, and its check looked."""
        return not (suppression.matched or suppression.expired) and any(
            check.code == suppression.code
            and check.verdict in (CheckVerdict.CLEAN, CheckVerdict.FOUND)
            for check in self.checks
        )

    @property
    def is_blank(self) -> bool:
        """Whether no kind of mesh was recognised and no check could look."""
        return not self.mesh and all(
            check.verdict is CheckVerdict.SKIPPED for check in self.checks
        )

    def finding(self, id: str) -> ReportedFinding:
        """The finding of that id. Raises KeyError."""
        for finding in self.findings:
            if finding.id == id:
                return finding
        raise KeyError(id)
