"""What the author of a check imports: `check`, and what runs one on evidence."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from meshdoctor.evidence.compose_text import ComposeTexts
from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.evidence.consul import ConsulCatalog, ConsulStatus
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies, tried_in_vain
from meshdoctor.evidence.interface import Documents, Evidence, EvidenceError, MissingEvidenceError
from meshdoctor.evidence.istio import IstioRules
from meshdoctor.evidence.kube import KubeConfig
from meshdoctor.evidence.netfilter import NetfilterRules
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.evidence.probe import ProbeResults
from meshdoctor.evidence.zipkin import Zipkin
from meshdoctor.findings import (
    Clean,
    Crashed,
    Fact,
    Finding,
    Found,
    Outcome,
    Severity,
    Skipped,
    SubjectKind,
)
from meshdoctor.kinds import Kind
from meshdoctor.routing.calls import Calls
from meshdoctor.topology import Mesh

if TYPE_CHECKING:
    from meshdoctor.topology.plan import Plan

T = TypeVar("T")

CheckFunction = Callable[..., Iterator[Finding | Fact]]
PlanFunction = Callable[["Plan"], Iterator[Finding | Fact]]

SOURCES: Final[tuple[type[Evidence], ...]] = (
    DockerEngine,
    ConsulCatalog,
    ConsulStatus,
    ConsulConnect,
    EnvoyProxies,
    NetfilterRules,
    PilotDebug,
    IstioRules,
    KubeConfig,
    Zipkin,
    ProbeResults,
)
"""The evidence that comes from one source each."""

JOINED: Final[tuple[type, ...]] = (Mesh, Calls)
"""What the sources are when joined: one mesh, and where the calls in it land."""

OTHER_KIND: Final = "not of this kind of mesh"
"""How the reason begins of a check that was skipped because it is for other kinds."""

MAX_FINDINGS: Final = 2000
"""More of one check nobody reads, and a stranger's snapshot could make millions."""

_CODE: Final = re.compile(r"[A-Z]{2,8}[0-9]{3}")
_SECTIONS: Final = ("Why it matters", "How it is found", "How to fix it")


class MalformedCheckError(Exception):
    """A check breaks the rules of the interface; raised while its module is imported."""


class CannotLookError(Exception):
    """A check raises it where its evidence is there but does not tell what it must know.

    The outcome is SKIPPED with this reason, unless the check had already found something.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class BrokenEvidenceError(EvidenceError):
    """Reading evidence failed by a fault of meshdoctor's own; its `__cause__` tells where."""


class Need(msgspec.Struct, frozen=True):
    """One parameter of a check: the evidence it wants, and whether it runs without it."""

    parameter: str
    evidence: type
    optional: bool

    @property
    def title(self) -> str:
        """How a sentence names the evidence."""
        title: str = self.evidence.title  # type: ignore[attr-defined] # every evidence has one
        return title


class Check(msgspec.Struct, frozen=True):
    """One check: what it is called, what it needs, what it explains, and the function itself.

    `plan` judges the same of Compose files, before anything runs; None where they cannot tell.
    `kinds` are the kinds of mesh that it is for, () for all. `explains_by` narrows what it
    explains: of such a code only the findings that share a subject of that kind.
    """

    code: str
    name: str
    severity: Severity
    since: str
    explains: tuple[str, ...]
    needs: tuple[Need, ...]
    title: str
    page: str
    function: CheckFunction
    plan: PlanFunction | None = None
    kinds: tuple[Kind, ...] = ()
    explains_by: Mapping[str, SubjectKind] = msgspec.field(default_factory=dict)

    @property
    def module(self) -> str:
        """Where it is written."""
        return self.function.__module__


def check(
    *,
    code: str,
    severity: Severity,
    since: str,
    explains: tuple[str, ...] = (),
    plan: PlanFunction | None = None,
    kinds: tuple[Kind, ...] = (),
    explains_by: Mapping[str, SubjectKind] | None = None,
) -> Callable[[CheckFunction], Check]:
    """Make a check of a function that yields findings.

    Its name gives the check's name, its annotations the evidence it gets, its docstring the page
    that users read: a first line that states the fault, then `## Why it matters`,
    `## How it is found` and `## How to fix it`. `plan` judges Compose files instead of a mesh: it
    says what would happen, and nothing of what was seen. `kinds` are the kinds of mesh that it is
    for: in one that is known to be of others, it is skipped. Codes of `explains` that are also in
    `explains_by` are explained only where the two findings share a subject of that kind. Raises
    MalformedCheckError.
    """
    narrowed = explains_by or {}
    if not set(narrowed) <= set(explains):
        raise MalformedCheckError(f"{code} narrows what it does not explain")
    for each in (code, *explains):
        if not _CODE.fullmatch(each):
            raise MalformedCheckError(
                f"{each!r} is no code: letters, then three digits, as in MD401"
            )

    def make(function: CheckFunction) -> Check:
        title, page = _documentation(code, function)
        return Check(
            code=code,
            name=function.__name__.replace("_", "-"),
            severity=severity,
            since=since,
            explains=explains,
            needs=_needs(code, function),
            title=title,
            page=page,
            function=function,
            plan=plan,
            kinds=kinds,
            explains_by=narrowed,
        )

    return make


def _documentation(code: str, function: CheckFunction) -> tuple[str, str]:
    page = inspect.getdoc(function)
    if not page:
        raise MalformedCheckError(f"{code} has no docstring, so nobody could read about it")
    title = page.partition("\n")[0].strip()
    absent = [section for section in _SECTIONS if f"\n## {section}\n" not in page]
    if absent:
        raise MalformedCheckError(f"{code}'s docstring lacks the section `## {absent[0]}`")
    return title, page


def _needs(code: str, function: CheckFunction) -> tuple[Need, ...]:
    needs = []
    resolved: dict[str, Any] | None = None
    for parameter, found in inspect.signature(function).parameters.items():
        if found.kind not in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY):
            raise MalformedCheckError(f"{code}'s parameter `{parameter}` cannot be given by name")
        wanted = found.annotation
        if not isinstance(wanted, type | types.UnionType):
            # As text perhaps, where its module postpones annotations.
            resolved = _resolved(code, function) if resolved is None else resolved
            wanted = resolved.get(parameter)
        is_union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
        options = typing.get_args(wanted) if is_union else (wanted,)
        evidence = [option for option in options if option is not types.NoneType]
        if len(evidence) != 1 or evidence[0] not in (*SOURCES, *JOINED):
            known = ", ".join(each.__name__ for each in (*SOURCES, *JOINED))
            raise MalformedCheckError(
                f"{code}'s parameter `{parameter}` is no evidence: annotate it with one of {known}"
            )
        needs.append(Need(parameter, evidence[0], optional=len(options) > 1))
    if not needs:
        raise MalformedCheckError(f"{code} asks for no evidence, so it could not judge anything")
    return tuple(needs)


def _resolved(code: str, function: CheckFunction) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise MalformedCheckError(
            f"{code}'s annotations cannot be read: {error}; its evidence must be imported when "
            "the check runs, not for type checkers alone"
        ) from error


class Examination:
    """The evidence of one snapshot, decoded once, when somebody first asks for it."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self._known: dict[type, object] = {}

    def get(self, wanted: type[T]) -> T:
        """The evidence of that type. Raises EvidenceError."""
        known = self.look(wanted)
        if isinstance(known, EvidenceError):
            # Raised again and again, it would gather the traces of all who asked.
            raise known.with_traceback(None)
        return known

    def find(self, wanted: type[T]) -> T | None:
        """Like `get`, but None where there is no such evidence."""
        known = self.look(wanted)
        return None if isinstance(known, EvidenceError) else known

    def look(self, wanted: type[T]) -> T | EvidenceError:
        """The evidence of that type, or why there is none."""
        if wanted not in self._known:
            try:
                self._known[wanted] = self._load(wanted)
            except EvidenceError as error:
                self._known[wanted] = _without_traces(error)
            except Exception as error:  # noqa: BLE001 # one source never stops the others
                broken = BrokenEvidenceError(
                    f"meshdoctor failed to read it: {type(error).__name__}: {error}"
                )
                broken.__cause__ = error
                self._known[wanted] = broken
        return typing.cast("T | EvidenceError", self._known[wanted])

    def is_foreign(self, wanted: type) -> bool:
        """True of Istio's evidence in a mesh that is Consul's own alone: nobody can give it."""
        if wanted not in {PilotDebug, IstioRules}:
            return False
        mesh = self.find(Mesh)
        return mesh is not None and mesh.kinds == (Kind.CONSUL_CONNECT,)

    def _load(self, wanted: type) -> object:
        if wanted is Mesh:
            return Mesh.join(
                docker=self.find(DockerEngine),
                catalog=self.find(ConsulCatalog),
                proxies=self.find(EnvoyProxies),
                netfilter=self.find(NetfilterRules),
                pilot=self.find(PilotDebug),
                compose=self.find(ComposeTexts),
                connect=self.find(ConsulConnect),
                rules=self.find(IstioRules),
                unreachable=tried_in_vain(self.documents),
            )
        if wanted is Calls:
            return Calls.of(self.get(Mesh))
        sources: tuple[type[Evidence], ...] = (*SOURCES, ComposeTexts)
        return sources[sources.index(wanted)].load(self.documents)


def _without_traces(error: EvidenceError) -> EvidenceError:
    """The error, and what led to it, without the frames in which they were raised.

    Those lead back to who holds the error: all evidence would be held until Python looks for such
    circles.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def run(check: Check, examination: Examination) -> Outcome:
    """Run one check. Nothing it does stops another: what it raises is its outcome."""
    if _is_for_others(check, examination):
        wanted = " and ".join(kind.called for kind in check.kinds)
        return Skipped(f"{OTHER_KIND}, only of {wanted}", foreign=True)

    def begin() -> Iterator[Finding | Fact]:
        return check.function(**{need.parameter: _give(need, examination) for need in check.needs})

    return _outcome(begin)


def _is_for_others(check: Check, examination: Examination) -> bool:
    """True where the mesh is known to be of none of the kinds that the check is for."""
    mesh = examination.find(Mesh) if check.kinds else None
    return mesh is not None and bool(mesh.kinds) and not set(mesh.kinds) & set(check.kinds)


def run_on_plan(check: Check, plan: "Plan") -> Outcome:
    """Run one check on Compose files, as `run` does on a mesh."""
    judge = check.plan
    if judge is None:
        return Skipped("Compose files alone do not tell what only a running mesh shows")
    return _outcome(lambda: judge(plan))


def _outcome(begin: Callable[[], Iterator[Finding | Fact]]) -> Outcome:
    findings: list[Finding] = []
    facts: list[Fact] = []
    try:
        for said in begin():
            _sort(said, findings, facts)
            if len(findings) == MAX_FINDINGS:
                return Found(
                    tuple(findings),
                    f"stopped after {MAX_FINDINGS} findings: mend some of them and check again",
                )
    except CannotLookError as error:
        if not findings:
            return Skipped(error.reason, error.hint)
    except (Exception, SystemExit) as error:  # noqa: BLE001 # a check never stops another
        from traceback import format_exc  # noqa: PLC0415

        error_said = f"{type(error).__name__}: {error}"
        return Crashed(error_said, format_exc(), tuple(findings))
    return Found(tuple(findings)) if findings else Clean(tuple(facts))


def _give(need: Need, examination: Examination) -> object:
    """The evidence that a parameter asks for. Raises CannotLookError where it must have it."""
    found: object = examination.look(need.evidence)
    if isinstance(found, BrokenEvidenceError):
        raise found.with_traceback(None)
    if not isinstance(found, EvidenceError):
        return found
    if need.optional:
        return None
    is_missing = isinstance(found, MissingEvidenceError)
    if is_missing and examination.is_foreign(need.evidence):
        raise CannotLookError(
            "Consul's own service mesh has neither a Pilot nor rules of Istio's"
        ) from found
    hint = found.hint if isinstance(found, MissingEvidenceError) else ""
    raise CannotLookError(f"{need.title}: {found}", hint) from found


def _sort(said: object, findings: list[Finding], facts: list[Fact]) -> None:
    match said:
        case Finding():
            findings.append(said)
        case Fact():
            facts.append(said)
        case _:
            raise TypeError(f"a check yields findings and facts, not {said!r}")
