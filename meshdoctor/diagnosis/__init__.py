"""The whole run: `loading` the checks, running them, `linking` what they find, the verdict."""

import gc
import shlex
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from meshdoctor import __version__
from meshdoctor.check import Check, Examination, run, run_on_plan
from meshdoctor.diagnosis.linking import link
from meshdoctor.diagnosis.loading import (
    BrokenPlugin,
    Checks,
    ChecksError,
    find_check,
    load_checks,
)
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.evidence.interface import Evidence, EvidenceError, MissingEvidenceError
from meshdoctor.evidence.istio import IstioRules
from meshdoctor.evidence.kube import KubeConfig
from meshdoctor.evidence.netfilter import NetfilterRules
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.evidence.probe import ProbeResults
from meshdoctor.evidence.times import in_writing
from meshdoctor.evidence.zipkin import Zipkin
from meshdoctor.findings import (
    Clean,
    Crashed,
    Finding,
    Found,
    Outcome,
    Remedy,
    Severity,
    Skipped,
    Subject,
    SubjectKind,
)
from meshdoctor.kinds import Kind
from meshdoctor.report.document import (
    NOTHING_WOULD_BREAK,
    CheckResult,
    CheckVerdict,
    Coverage,
    Diagnosis,
    Elsewhere,
    Report,
    ReportedFinding,
    Source,
    SourceState,
    SuppressionResult,
    Unreachable,
    Verdict,
    Version,
)
from meshdoctor.topology import Mesh, Role, SidecarState

__all__ = [
    "BrokenPlugin",
    "Checks",
    "ChecksError",
    "Policy",
    "Suppression",
    "examine",
    "examine_plan",
    "find_check",
    "link",
    "load_checks",
    "suppress",
]

if TYPE_CHECKING:
    from meshdoctor.snapshot import Snapshot
    from meshdoctor.topology.plan import Plan

_PLUGIN: Final = "PLUGIN"
"""In the place of a check's code, for a plug-in whose checks nobody knows."""

_FOLDERS: Final[Mapping[type[Evidence], str]] = {
    DockerEngine: "docker",
    ConsulCatalog: "consul",
    EnvoyProxies: "envoy",
    NetfilterRules: "netfilter",
    PilotDebug: "pilot",
    IstioRules: "istio",
    KubeConfig: "kube",
    Zipkin: "zipkin",
    ProbeResults: "probe",
}
"""The sources that a report lists; ConsulStatus is another look at what ConsulCatalog reads."""

_WHERE_ASKED: Final[frozenset[type[Evidence]]] = frozenset({KubeConfig, Zipkin, ProbeResults})
"""Those that not every mesh has: nobody misses one that nobody asked for."""


class Suppression(msgspec.Struct, frozen=True):
    """Findings that the mesh's owner knows of and leaves, for a reason.

    `subject` is a glob on a subject's name or on `kind/name`, "" for every finding of `code`;
    `until` is the last day on which it holds.
    """

    code: str
    reason: str
    subject: str = ""
    until: date | None = None

    def expired(self, today: date) -> bool:
        """Whether its last day is past."""
        return self.until is not None and today > self.until

    def covers(self, subject: Subject) -> bool:
        """Whether the glob is that subject's; a name with brackets in it is its own too."""
        names = (subject.name, str(subject))
        return self.subject in names or any(fnmatchcase(name, self.subject) for name in names)


class Policy(msgspec.Struct, frozen=True):
    """What the mesh's owner says about findings; `severities` are by the code of a check."""

    suppressions: tuple[Suppression, ...] = ()
    severities: Mapping[str, Severity] = msgspec.field(default_factory=dict)


# ---------------------------------------------------------------- running them


def examine(
    snapshot: "Snapshot",
    checks: Checks,
    target: Mapping[str, Any],
    policy: Policy | None = None,
    *,
    examination: Examination | None = None,
    begun: float | None = None,
) -> Report:
    """Run the checks on a snapshot and say what is broken, and why.

    `target` is the report's: {"kind": "live"} or {"kind": "snapshot", "paths": [...]}.
    `examination` is the snapshot's, for who wants more of it than the report. `begun` is when the
    run did, by the monotonic clock: to gather or to read evidence takes time too.
    """
    examination = examination or Examination(snapshot)
    with _rarely_collecting:
        judged = _judge(
            checks, lambda check: _tried_again(run(check, examination), target), policy, begun
        )
        coverage = _coverage(snapshot, examination)
        mesh = examination.find(Mesh)
        return judged.report(
            target,
            () if mesh is None else mesh.kinds,
            coverage,
            _verdict(judged, coverage, examination.find(ConsulCatalog), _unread_hosts(snapshot)),
            _versions(examination),
        )


def _tried_again(outcome: Outcome, target: Mapping[str, Any]) -> Outcome:
    """Where rules are only tried out, so is what was mended in them: with the same evidence."""
    if not (target.get("rules") and isinstance(outcome, Found | Crashed)):
        return outcome
    recorded = target["paths"] if target["kind"] == "snapshot" else ()
    words = [word for path in recorded for word in ("--snapshot", str(path))]
    words += [word for path in target["rules"] for word in ("--rules", str(path))]
    again = f"{shlex.join(('meshdoctor', 'check', *words))} --select "

    def tried(remedy: Remedy) -> Remedy:
        commands = (each.replace("meshdoctor check --select ", again) for each in remedy.commands)
        return replace(remedy, commands=tuple(commands))

    findings = tuple(
        replace(each, remedies=tuple(map(tried, each.remedies)))
        if any(subject.kind is SubjectKind.RULE for subject in each.subjects)
        else each
        for each in outcome.findings
    )
    return replace(outcome, findings=findings)


class _RarelyCollecting:
    """While it is entered, by however many threads, Python looks for circular garbage rarely.

    Evidence is millions of objects that live until the report is made. To look through them again
    and again for circles, of which there are none, takes a third of the time.
    """

    _THRESHOLDS: Final = (1_000_000, 10, 10)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._before = gc.get_threshold()

    def __enter__(self) -> None:
        with self._lock:
            if not self._entered:
                self._before = gc.get_threshold()
                gc.set_threshold(*self._THRESHOLDS)
            self._entered += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                gc.set_threshold(*self._before)


_rarely_collecting: Final = _RarelyCollecting()


def _unread_hosts(snapshot: "Snapshot") -> Sequence[str]:
    """What is said of Docker hosts that were named and told nothing, beside those that did."""
    if not snapshot.names("docker/"):
        return ()
    return [each.message for each in snapshot.missing("docker/") if each.document == "docker/"]


def examine_plan(
    plan: "Plan",
    checks: Checks,
    target: Mapping[str, Any],
    policy: Policy | None = None,
    *,
    begun: float | None = None,
) -> Report:
    """Judge Compose files alone, before anything runs: what would break, and why.

    `target` is the report's: {"kind": "compose", "paths": [...]}. It is never HEALTHY, for
    nothing was seen running.
    """
    judged = _judge(checks, lambda check: run_on_plan(check, plan), policy, begun)
    said = "; ".join(f"{note.document}: {note.message}" for note in plan.notes)
    of_istio = plan.is_for_pilot and (plan.sidecars or plan.component(Role.PILOT) is not None)
    coverage = Coverage(
        services=len(plan.services),
        workloads=len(plan.workloads),
        # Those that are planned are nothing to examine yet.
        sidecars_found=0,
        sidecars_examined=0,
        unreachable=(),
        sources=(Source("compose", SourceState.PARTIAL if said else SourceState.EXAMINED, said),),
    )
    best = (Verdict.UNKNOWN, NOTHING_WOULD_BREAK)
    verdict = _worst(judged.findings, _unjudged(judged.results), best)
    return judged.report(target, (Kind.ISTIO_CONSUL,) if of_istio else (), coverage, verdict)


class _Judged(msgspec.Struct, frozen=True):
    """What the checks said, and what of it is left where the mesh's owner has had a say."""

    begun: float
    created: datetime
    results: tuple[CheckResult, ...]
    findings: tuple[ReportedFinding, ...]
    diagnoses: tuple[Diagnosis, ...]
    suppressed: int
    suppressions: tuple[SuppressionResult, ...]

    def report(
        self,
        target: Mapping[str, Any],
        kinds: Iterable[Kind],
        coverage: Coverage,
        verdict: tuple[Verdict, str],
        versions: Iterable[Version] = (),
    ) -> Report:
        return Report(
            tool_version=__version__,
            created=in_writing(self.created),
            seconds=time.monotonic() - self.begun,
            target=target,
            mesh=tuple(kind.value for kind in kinds),
            verdict=verdict[0],
            verdict_reason=verdict[1],
            coverage=coverage,
            diagnoses=self.diagnoses,
            findings=self.findings,
            checks=self.results,
            suppressed=self.suppressed,
            suppressions=self.suppressions,
            versions=tuple(versions),
        )


def _judge(
    checks: Checks,
    judge: Callable[[Check], Outcome],
    policy: Policy | None,
    begun: float | None,
) -> _Judged:
    begun = time.monotonic() if begun is None else begun
    results, found = _run(checks, judge)
    now = datetime.now(UTC)
    policy = policy or Policy()
    # What is suppressed goes before causes are linked: what it led to is told all the same.
    left, suppressions = suppress(found, policy.suppressions, now.date())
    findings, diagnoses = link(_with_severities(left, policy.severities))
    return _Judged(
        begun=begun,
        created=now,
        results=tuple(results),
        findings=findings,
        diagnoses=diagnoses,
        suppressed=len(found) - len(left),
        suppressions=suppressions,
    )


def _run(
    checks: Checks, judge: Callable[[Check], Outcome]
) -> tuple[list[CheckResult], list[tuple[Check, Finding]]]:
    """Run the checks one by one; plug-ins that did not load are among the results."""
    results: list[CheckResult] = []
    found: list[tuple[Check, Finding]] = []
    for check in checks.checks:
        begun = time.perf_counter()
        outcome = judge(check)
        results.append(_result(check, outcome, (time.perf_counter() - begun) * 1000))
        if isinstance(outcome, Found | Crashed):
            found.extend((check, finding) for finding in outcome.findings)
    results.extend(
        CheckResult(
            code=_PLUGIN,
            name=plugin.name,
            verdict=CheckVerdict.CRASHED,
            milliseconds=0.0,
            reason=plugin.error,
            traceback=plugin.traceback,
        )
        for plugin in checks.broken
    )
    return results, found


def _result(check: Check, outcome: Outcome, milliseconds: float) -> CheckResult:
    def result(verdict: CheckVerdict, **details: Any) -> CheckResult:
        return CheckResult(
            check.code,
            check.name,
            verdict,
            milliseconds,
            title=check.title,
            page=check.page,
            severity=check.severity,
            **details,
        )

    match outcome:
        case Clean(facts):
            return result(CheckVerdict.CLEAN, facts=facts)
        case Found(_, reason):
            return result(CheckVerdict.FOUND, reason=reason)
        case Skipped(reason, hint, foreign):
            return result(CheckVerdict.SKIPPED, reason=reason, hint=hint, foreign=foreign)
        case Crashed(error, trace):
            return result(CheckVerdict.CRASHED, reason=error, traceback=trace)


# ---------------------------------------------------------------- what the owner says of it


def suppress(
    found: Sequence[tuple[Check, Finding]], suppressions: Sequence[Suppression], today: date
) -> tuple[list[tuple[Check, Finding]], tuple[SuppressionResult, ...]]:
    """What is left of the findings, and how many each suppression hides.

    A glob hides a finding only if, of each kind of subject that it meets there, all are covered,
    by it or by others for the same code: a fault that spreads to one thing more is told.
    """
    matched = [0] * len(suppressions)
    by_code: dict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(suppressions):
        if not each.expired(today):
            by_code[each.code].append(index)
    left = []
    for check, finding in found:
        hiding = _hiding(finding, {index: suppressions[index] for index in by_code[check.code]})
        for index in hiding:
            matched[index] += 1
        if not hiding:
            left.append((check, finding))
    results = (
        SuppressionResult(
            code=each.code,
            subject=each.subject,
            reason=each.reason,
            until="" if each.until is None else each.until.isoformat(),
            matched=number,
            expired=each.expired(today),
        )
        for each, number in zip(suppressions, matched, strict=True)
    )
    return left, tuple(results)


def _hiding(finding: Finding, suppressions: Mapping[int, Suppression]) -> list[int]:
    """Those of its check's suppressions that hide the finding."""
    covered = {
        index: {subject for subject in finding.subjects if each.covers(subject)}
        for index, each in suppressions.items()
        if each.subject
    }
    bare = {subject.kind for subject in set(finding.subjects).difference(*covered.values())}
    whole = [index for index, each in suppressions.items() if not each.subject]
    return whole + [
        index
        for index, subjects in covered.items()
        if subjects and not any(subject.kind in bare for subject in subjects)
    ]


def _with_severities(
    found: Iterable[tuple[Check, Finding]], severities: Mapping[str, Severity]
) -> list[tuple[Check, Finding]]:
    return [
        (check, replace(finding, severity=severities.get(check.code, finding.severity)))
        for check, finding in found
    ]


# ---------------------------------------------------------------- what was looked at


def _coverage(snapshot: "Snapshot", examination: Examination) -> Coverage:
    mesh, catalog = examination.find(Mesh), examination.find(ConsulCatalog)
    sidecars = mesh.sidecars if mesh is not None else ()
    sources = [
        _source(snapshot, examination, source)
        for source in _FOLDERS
        if not (source in _WHERE_ASKED or examination.is_foreign(source))
        or snapshot.names(f"{_FOLDERS[source]}/")
        or (not examination.is_foreign(source) and snapshot.missing(f"{_FOLDERS[source]}/"))
    ]
    if snapshot.notes:
        said = "; ".join(f"{note.document}: {note.message}" for note in snapshot.notes)
        sources.append(Source("snapshot", SourceState.PARTIAL, said))
    return Coverage(
        services=len(mesh.applications) if mesh is not None else 0,
        workloads=len(mesh.workloads) if mesh is not None else 0,
        sidecars_found=len(sidecars),
        sidecars_examined=sum(each.state is SidecarState.EXAMINED for each in sidecars),
        unreachable=tuple(
            Unreachable(
                each.name,
                "it does not run" if each.state is SidecarState.DOWN else each.reason,
            )
            for each in sidecars
            if each.state is not SidecarState.EXAMINED
        ),
        sources=tuple(sources),
        elsewhere=()
        if catalog is None
        else tuple(Elsewhere(each.kind.value, each.name) for each in catalog.elsewhere),
    )


def _versions(examination: Examination) -> Iterator[Version]:
    """What the mesh is made of: numbers where a program told its own, else the image it runs."""
    docker, catalog = examination.find(DockerEngine), examination.find(ConsulCatalog)
    proxies, mesh = examination.find(EnvoyProxies), examination.find(Mesh)
    if docker is not None and docker.version:
        yield Version("Docker", docker.version)
    if catalog is not None and catalog.version:
        yield Version("Consul", catalog.version)
    told = [each.server for each in (proxies.proxies.values() if proxies is not None else ())]
    if numbers := {each.version for each in told if each is not None and each.version}:
        yield Version("Envoy", ", ".join(sorted(numbers)))
    for component in mesh.components if mesh is not None else ():
        name = component.role.called
        yield Version(f"{name[0].upper()}{name[1:]}'s image", component.container.image)


def _source(snapshot: "Snapshot", examination: Examination, wanted: type[Evidence]) -> Source:
    name = _FOLDERS[wanted]
    evidence = examination.look(wanted)
    if isinstance(evidence, EvidenceError):
        hint = evidence.hint if isinstance(evidence, MissingEvidenceError) else ""
        return Source(name, SourceState.MISSING, str(evidence), hint)
    problems = (*evidence.problems, *snapshot.missing(f"{name}/"))
    if not problems:
        return Source(name, SourceState.EXAMINED)
    said = "; ".join(dict.fromkeys(f"{each.document}: {each.message}" for each in problems))
    return Source(name, SourceState.PARTIAL, said)


def _verdict(
    judged: _Judged,
    coverage: Coverage,
    catalog: ConsulCatalog | None,
    unread_hosts: Sequence[str],
) -> tuple[Verdict, str]:
    """HEALTHY is only said where all hosts, the catalogue and a sidecar were read.

    And where no check crashed.
    """
    read = {source.name for source in coverage.sources if source.state != SourceState.MISSING}
    lacking = []
    if "consul" not in read:
        lacking.append("the Consul catalogue could not be read")
    elif catalog is not None and catalog.unread:
        lacking.append(
            f"the instances of {', '.join(sorted(catalog.unread))} in Consul are not known"
        )
    elif catalog is not None and catalog.filtered:
        lacking.append("Consul's ACLs hide a part of its catalogue")
    if not coverage.sidecars_examined:
        found = coverage.sidecars_found
        lacking.append(
            f"none of the {found} sidecars could be examined" if found else "no sidecar was found"
        )
    lacking.extend(unread_hosts)
    lacking.extend(_unjudged(judged.results))
    return _worst(judged.findings, lacking, (Verdict.HEALTHY, ""))


def _worst(
    findings: Sequence[ReportedFinding], lacking: Sequence[str], best: tuple[Verdict, str]
) -> tuple[Verdict, str]:
    """The verdict and its reason: `best` where nothing is wrong and nothing is lacking."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return Verdict.BROKEN, ""
    if lacking:
        return Verdict.UNKNOWN, " and ".join(lacking)
    return (Verdict.DEGRADED, "") if Severity.WARNING in severities else best


def _unjudged(results: Sequence[CheckResult]) -> list[str]:
    """Why nobody can rely on what was not found."""
    lacking = []
    crashed = [result for result in results if result.verdict is CheckVerdict.CRASHED]
    if not results:
        lacking.append("no check was left to run")
    elif not any(result.verdict is not CheckVerdict.SKIPPED for result in results):
        lacking.append("no check could look")
    if crashed:
        names = [f"plug-in {e.name}" if e.code == _PLUGIN else e.code for e in crashed]
        lacking.append(f"a check crashed ({', '.join(names)})")
    return lacking
