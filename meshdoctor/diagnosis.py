"""The whole run: load the checks, run them on a snapshot, link causes, report."""

import gc
import importlib.util
import shlex
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec
from msgspec.structs import replace

from meshdoctor import __version__, folding
from meshdoctor.check import Check, Examination, run, run_on_plan
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
from meshdoctor.files import is_file, is_folder, is_there
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
from meshdoctor.plugins import find_plugins
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

if TYPE_CHECKING:
    from meshdoctor.snapshot import Snapshot
    from meshdoctor.topology.plan import Plan

ENTRY_POINTS: Final = "meshdoctor.checks"

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


class ChecksError(Exception):
    """There are no checks to run, or those that were named cannot be loaded."""


class BrokenPlugin(msgspec.Struct, frozen=True):
    """A plug-in that could not be loaded, or a check of it that was refused."""

    name: str
    error: str
    traceback: str = ""


class Checks(msgspec.Struct, frozen=True):
    """The checks there are, sorted by code, and the plug-ins that could not be loaded."""

    checks: tuple[Check, ...]
    broken: tuple[BrokenPlugin, ...] = ()

    def choose(self, select: Sequence[str], ignore: Sequence[str]) -> "Checks":
        """Those whose code begins with, or whose name is, one of `select` and none of `ignore`.

        Raises ChecksError for a word that fits no check.
        """
        for word in (*select, *ignore):
            if not any(_fits(word, each) for each in self.checks):
                raise ChecksError(self._nothing_like(word))
        kept = (
            each
            for each in self.checks
            if (not select or any(_fits(word, each) for word in select))
            and not any(_fits(word, each) for word in ignore)
        )
        return Checks(tuple(kept), self.broken)

    def find(self, word: str) -> Check:
        """The one whose code or name `word` is, in either case. Raises ChecksError."""
        for each in self.checks:
            if word.upper() == each.code or _is_name(word, each):
                return each
        begun = [each.code for each in self.checks if each.code.startswith(word.upper())]
        if word and begun:
            raise ChecksError(f"{word} is the beginning of {', '.join(begun)}: name one of them")
        raise ChecksError(self._nothing_like(word))

    def _nothing_like(self, word: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415

        # Codes that share a digit are not near: 0.75 is one letter more, less, or misplaced.
        codes = [each.code for each in self.checks]
        found = get_close_matches(word.upper(), codes, n=1, cutoff=0.75)
        names = [each.name for each in self.checks]
        holding = [name for name in names if len(word) >= _TELLING and word.lower() in name]
        found += holding or get_close_matches(word.lower(), names, n=1)
        near = " or ".join(found[:3])
        did_you_mean = f" Did you mean {near}?" if near else ""
        return f"no check has the code or name {word!r}.{did_you_mean} See `meshdoctor checks`."


_TELLING: Final = 3
"""Letters that a part of a name has at least to be meant by it."""


def _fits(word: str, check: Check) -> bool:
    return check.code.startswith(word.upper()) or _is_name(word, check)


def _is_name(word: str, check: Check) -> bool:
    return word.lower().replace("_", "-") == check.name


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


# ---------------------------------------------------------------- loading checks


def load_checks(paths: Iterable[Path] = ()) -> Checks:
    """The checks of every installed package with the entry point, and of the files at `paths`.

    A package that does not load costs only its own checks. Raises ChecksError where a path that
    was named does not load, or no check is left at all.
    """
    found: list[tuple[str, Check]] = []
    broken: list[BrokenPlugin] = []
    for point in find_plugins(ENTRY_POINTS):
        try:
            found.extend((point.name, each) for each in _checks_of(point.load()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 # somebody else's import
            from traceback import format_exc  # noqa: PLC0415

            said = f"{type(error).__name__}: {error}"
            broken.append(BrokenPlugin(point.name, said, format_exc()))
    seen: set[Path] = set()
    for path in paths:
        found.extend((str(path), each) for each in _load_path(path, seen))
    by_code: dict[str, tuple[str, Check]] = {}
    for origin, each in found:
        holder = by_code.setdefault(each.code, (origin, each))
        if holder[1] is not each:
            said = f"its {each.name} has the code {each.code}, which {holder[0]} has already"
            broken.append(BrokenPlugin(origin, said))
    if not by_code:
        why = "".join(f" ({plugin.name}: {plugin.error})" for plugin in broken)
        raise ChecksError(
            f"no check is installed{why}: install meshdoctor again, or name a folder of checks "
            "with --checks"
        )
    return Checks(tuple(by_code[code][1] for code in sorted(by_code)), tuple(broken))


@runtime_checkable
class Catalogue(Protocol):
    """Checks that can tell one of them without importing the others."""

    def find(self, word: str) -> Check | None:
        """The check whose code or name that is, in either case."""


def find_check(word: str, paths: Iterable[Path] = ()) -> Check:
    """The check whose code or name `word` is, in either case. Raises ChecksError.

    The built-in ones come first, as in `load_checks`, and of them only the one is imported.
    """
    for point in find_plugins(ENTRY_POINTS):
        if point.is_own:
            catalogue = point.load()
            found = catalogue.find(word) if isinstance(catalogue, Catalogue) else None
            if found is not None:
                return found
    return load_checks(paths).find(word)


def _checks_of(loaded: object) -> Sequence[Check]:
    """An entry point names a sequence of checks, or one."""
    checks = [loaded] if isinstance(loaded, Check) else list(loaded)  # type: ignore[call-overload] # anything may come
    for each in checks:
        if not isinstance(each, Check):
            raise TypeError(f"{each!r} is no check: make it one with @meshdoctor.check.check")
    return checks


def _load_path(path: Path, seen: set[Path]) -> Sequence[Check]:
    """The checks in a file, or in the files of a folder, but for those `seen` already."""
    files = sorted(path.glob("*.py")) if is_folder(path) else [path]
    new = [file for file in files if file.resolve() not in seen]
    seen.update(file.resolve() for file in new)
    checks = [each for file in new for each in vars(_import(file)).values()]
    found = [each for each in checks if isinstance(each, Check)]
    if not found and (new or not files):
        raise ChecksError(f"{path}: no check in it; a check is a function under @check(...)")
    return found


def _import(file: Path) -> ModuleType:
    name = f"meshdoctor_checks_from_path.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not is_there(file):
        raise ChecksError(f"{file}: no such file or folder, or none that you may read")
    if spec is None or spec.loader is None or not is_file(file):
        raise ChecksError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Where annotations are resolved and tracebacks are read, the module must be found by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        where = f"{file}{_line_of(error, module)}"
        raise ChecksError(f"{where}: {type(error).__name__}: {error}") from error
    return module


def _line_of(error: BaseException, module: ModuleType) -> str:
    """The last line of the file that was at work; a SyntaxError says its own."""
    from traceback import walk_tb  # noqa: PLC0415

    lines = [
        line
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename == module.__file__
    ]
    return f", line {lines[-1]}" if lines else ""


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


# ---------------------------------------------------------------- linking causes


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
    said = [
        folding.Said(check.code, finding.severity or check.severity, finding)
        for check, finding in found
    ]
    causes = _causes(found)
    groups = folding.alike(said, causes)
    if len(groups) < len(found):
        group_of = {index: number for number, group in enumerate(groups) for index in group}
        causes = [
            sorted({group_of[cause] for index in group for cause in causes[index]} - {number})
            for number, group in enumerate(groups)
        ]
        found = [
            (found[group[0]][0], folding.folded([found[index][1] for index in group]))
            for group in groups
        ]
    severities = [said[group[0]].severity for group in groups]
    symptoms: dict[int, list[int]] = defaultdict(list)
    for symptom, its_causes in enumerate(causes):
        for cause in its_causes:
            symptoms[cause].append(symptom)
    trees = [_tree(root, symptoms) for root in _roots(causes, symptoms)]

    def worst(tree: Sequence[int]) -> Severity:
        return max((severities[index] for index in tree), key=lambda severity: severity.rank)

    def precedence(tree: Sequence[int]) -> tuple[int, int, str, str]:
        check, finding = found[tree[0]]
        return -worst(tree).rank, -len(tree), check.code, finding.message

    trees.sort(key=precedence)
    order = list(dict.fromkeys(index for tree in trees for index in tree))
    ids = {index: f"F{number}" for number, index in enumerate(order, start=1)}
    findings = tuple(
        _reported(
            ids[index],
            *found[index],
            severities[index],
            [ids[cause] for cause in causes[index]],
            len(groups[index]),
        )
        for index in order
    )
    diagnoses = tuple(
        Diagnosis(
            root=ids[tree[0]],
            findings=tuple(ids[index] for index in tree),
            title=found[tree[0]][1].message,
            severity=worst(tree),
            remedies=tuple(
                map(folding.in_few_commands, _remedies([found[index][1] for index in tree]))
            ),
        )
        for tree in trees
    )
    return findings, diagnoses


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


def _reported(
    id: str,
    check: Check,
    finding: Finding,
    severity: Severity,
    causes: Iterable[str],
    alike: int,
) -> ReportedFinding:
    return ReportedFinding(
        id=id,
        code=check.code,
        check=check.name,
        severity=severity,
        message=finding.message,
        subjects=finding.subjects,
        seen_in=finding.seen_in,
        causes=tuple(causes),
        remedies=tuple(map(folding.in_few_commands, finding.remedies)),
        references=finding.references,
        alike=alike,
    )


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
