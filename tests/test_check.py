"""The interface of a check: what is refused, what it is given, and how it can end."""

# ruff: noqa: ARG001 # a parameter is what a check asks for, used or not

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Optional

import pytest

from meshdoctor.check import (
    JOINED,
    SOURCES,
    BrokenEvidenceError,
    CannotLookError,
    Check,
    Examination,
    MalformedCheckError,
    check,
    run,
    run_on_plan,
)
from meshdoctor.evidence.compose import ComposeFiles
from meshdoctor.evidence.consul import SELF, ConsulCatalog
from meshdoctor.evidence.docker import CONTAINERS, DockerEngine
from meshdoctor.evidence.interface import DecodeError, Documents, MissingEvidenceError, Problem
from meshdoctor.findings import (
    Clean,
    Crashed,
    Fact,
    Finding,
    Found,
    Severity,
    Skipped,
    Subject,
    SubjectKind,
)
from meshdoctor.kinds import Kind
from meshdoctor.snapshot import Snapshot
from meshdoctor.snapshot.documents import Document
from meshdoctor.topology import Mesh
from meshdoctor.topology.plan import Plan
from tests.evidence.damage import recording, snapshot

Said = Iterator[Finding | Fact]

PAGE = """Something is wrong.

## Why it matters

It does.

## How it is found

By looking.

## How to fix it

By mending.
"""
FINDING = Finding("It is broken.", (Subject(SubjectKind.SERVICE, "details"),))


def make(function: Callable[..., Any], *, page: str | None = PAGE, **settings: Any) -> Check:
    """A check of a function, with a page where the test is not about pages."""
    function.__doc__ = page
    return check(**({"code": "MD999", "severity": Severity.ERROR, "since": "0.1"} | settings))(
        function
    )


# ---------------------------------------------------------------- what is refused


def looks(docker: DockerEngine) -> Said:
    yield FINDING


def test_a_check_is_what_its_function_says() -> None:
    """Name, page, evidence and module come from the function itself."""

    def tcp_listener_collision(mesh: Mesh, docker: DockerEngine | None = None) -> Said:
        yield FINDING

    made = make(tcp_listener_collision, explains=("MD402",))
    assert (made.code, made.name, made.title) == (
        "MD999",
        "tcp-listener-collision",
        "Something is wrong.",
    )
    assert made.page.startswith("Something is wrong.\n\n## Why it matters")
    assert made.explains == ("MD402",)
    assert made.module == __name__
    assert [(need.parameter, need.evidence, need.optional) for need in made.needs] == [
        ("mesh", Mesh, False),
        ("docker", DockerEngine, True),
    ]
    assert [need.title for need in made.needs] == ["the mesh", "the Docker engine"]


@pytest.mark.parametrize(
    "code", ["", "401", "MD40", "MD4011", "md401", "M401", "MD-401", "MD401 "]
)
def test_a_code_is_letters_and_three_digits(code: str) -> None:
    """So is every code that a check says it explains."""
    with pytest.raises(MalformedCheckError, match="is no code"):
        make(looks, code=code)
    with pytest.raises(MalformedCheckError, match="is no code"):
        make(looks, explains=(code,))


def test_codes_explained_are_a_list() -> None:
    """A forgotten comma makes a word of it, whose letters are no codes."""
    with pytest.raises(MalformedCheckError, match="'M' is no code"):
        make(looks, explains="MD402")


def test_a_check_without_a_page_is_refused() -> None:
    """Nobody could read what its finding means."""
    for page in (None, ""):
        with pytest.raises(MalformedCheckError, match="MD999 has no docstring"):
            make(looks, page=page)


@pytest.mark.parametrize("section", ["Why it matters", "How it is found", "How to fix it"])
def test_a_page_without_a_section_is_refused(section: str) -> None:
    """The message names the section."""
    for page in (PAGE.replace(f"## {section}", "Well"), PAGE.replace(section, section.upper())):
        with pytest.raises(MalformedCheckError, match=f"lacks the section `## {section}`"):
            make(looks, page=page)


def no_annotation(docker) -> Said:  # type: ignore[no-untyped-def] # noqa: ANN001 # that is the fault
    yield FINDING


def no_evidence(name: str) -> Said:
    yield FINDING


def two_kinds(either: DockerEngine | ConsulCatalog) -> Said:
    yield FINDING


def raw_documents(documents: Documents) -> Said:
    yield FINDING


@pytest.mark.parametrize("function", [no_annotation, no_evidence, two_kinds, raw_documents])
def test_a_parameter_that_is_no_evidence_is_refused(function: Callable[..., Said]) -> None:
    """The message names the parameter and every evidence there is."""
    with pytest.raises(MalformedCheckError, match="is no evidence: annotate it with") as caught:
        make(function)
    known: tuple[type, ...] = (*SOURCES, Mesh)
    for evidence in known:
        assert evidence.__name__ in str(caught.value)


def test_a_check_that_asks_for_nothing_is_refused() -> None:
    """It could not judge anything."""

    def guesses() -> Said:
        yield FINDING

    with pytest.raises(MalformedCheckError, match="asks for no evidence"):
        make(guesses)


def test_a_parameter_that_has_no_name_to_call_it_by_is_refused() -> None:
    """Evidence is given by name."""

    def positional(docker: DockerEngine, /) -> Said:
        yield FINDING

    def many(*docker: DockerEngine) -> Said:
        yield FINDING

    for function in (positional, many):
        with pytest.raises(MalformedCheckError, match="`docker` cannot be given by name"):
            make(function)


def test_an_annotation_that_is_not_there_at_run_time_is_refused() -> None:
    """As where its import stands under TYPE_CHECKING."""

    def forgets(docker: "NotImported") -> Said:  # type: ignore[name-defined] # noqa: F821 # that is the fault
        yield FINDING

    with pytest.raises(MalformedCheckError, match="NotImported"):
        make(forgets)


def test_optional_evidence_has_several_spellings() -> None:
    """`X | None` and `Optional[X]`, also as text, as modules have it that postpone annotations."""

    def old(docker: Optional[DockerEngine]) -> Said:  # noqa: UP045 # third parties may write it
        yield FINDING

    def new(docker: None | DockerEngine) -> Said:  # noqa: RUF036 # the order does not matter
        yield FINDING

    def text(docker: "DockerEngine | None") -> Said:
        yield FINDING

    def half(docker: Optional["DockerEngine"]) -> Said:
        yield FINDING

    for function in (old, new, text, half):
        (need,) = make(function).needs
        assert (need.evidence, need.optional) == (DockerEngine, True)


# ---------------------------------------------------------------- how it ends


NOTHING = Examination(snapshot({}))
FIXED = Examination(recording("fixed"))


def test_clean_keeps_the_facts() -> None:
    """What a healthy mesh was seen to do is worth saying."""

    def quiet(docker: DockerEngine) -> Said:
        yield Fact(f"{len(docker.containers)} containers")

    assert run(make(quiet), FIXED) == Clean((Fact("21 containers"),))


def test_found_keeps_the_findings_in_order() -> None:
    """A check says the most telling first."""
    other = Finding("More.", ())

    def fires(docker: DockerEngine) -> Said:
        yield FINDING
        yield Fact("something else is well")
        yield other

    assert run(make(fires), FIXED) == Found((FINDING, other))


def test_missing_evidence_skips_with_reason_and_hint() -> None:
    """By construction: the check is not even called."""

    def never(docker: DockerEngine, mesh: Mesh) -> Said:
        raise AssertionError

    outcome = run(make(never), NOTHING)
    assert isinstance(outcome, Skipped)
    assert outcome.reason.startswith("the Docker engine: ")
    assert outcome.hint == DockerEngine.hint


def test_evidence_that_does_not_decode_skips_with_its_place() -> None:
    """Damage is no fault of the check's."""
    outcome = run(make(looks), Examination(snapshot({CONTAINERS: "<html>"})))
    assert isinstance(outcome, Skipped)
    assert outcome.reason.startswith(f"the Docker engine: {CONTAINERS}: not JSON")
    assert outcome.hint == ""


def test_optional_evidence_that_is_missing_is_none() -> None:
    """The check also runs without it."""
    seen: list[object] = []

    def curious(docker: DockerEngine | None, catalog: ConsulCatalog) -> Said:
        seen.extend((docker, catalog))
        yield from ()

    only_consul = snapshot({"consul/catalog/services.json": {"consul": []}})
    assert run(make(curious), Examination(only_consul)) == Clean()
    assert seen[0] is None
    assert isinstance(seen[1], ConsulCatalog)


def test_a_check_that_cannot_look_is_skipped() -> None:
    """Facts that it had said are no verdict."""

    def unsure(docker: DockerEngine) -> Said:
        yield Fact("so far so good")
        raise CannotLookError("no Registrator is seen", "start it")

    assert run(make(unsure), FIXED) == Skipped("no Registrator is seen", "start it")


def test_what_was_found_before_it_could_not_look_stands() -> None:
    """A finding is not taken back."""

    def half(docker: DockerEngine) -> Said:
        yield FINDING
        raise CannotLookError("the rest is not there")

    assert run(make(half), FIXED) == Found((FINDING,))


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(1), RecursionError(), MemoryError()])
def test_a_crash_keeps_what_was_found_and_says_where(error: BaseException) -> None:
    """Whatever a check raises, it is its own outcome."""

    def breaks(docker: DockerEngine) -> Said:
        yield FINDING
        raise error

    outcome = run(make(breaks), FIXED)
    assert isinstance(outcome, Crashed)
    assert outcome.error.startswith(type(error).__name__)
    assert outcome.findings == (FINDING,)
    assert "in breaks" in outcome.traceback
    assert "test_check.py" in outcome.traceback


def test_a_person_who_interrupts_is_obeyed() -> None:
    """Ctrl-C is not a fault of the check that happens to run."""

    def slow(docker: DockerEngine) -> Said:
        yield FINDING
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make(slow), FIXED)


def test_something_else_than_findings_is_a_crash() -> None:
    """Also nothing at all."""

    def chatty(docker: DockerEngine) -> Said:
        yield "all is well"  # type: ignore[misc] # that is the fault

    def forgetful(docker: DockerEngine) -> Said:  # type: ignore[return] # likewise
        list(docker.containers)

    for function, said in ((chatty, "'all is well'"), (forgetful, "NoneType")):
        outcome = run(make(function), FIXED)
        assert isinstance(outcome, Crashed)
        assert outcome.error.startswith("TypeError")
        assert said in outcome.error


# ---------------------------------------------------------------- evidence


class Counting:
    """Documents that count how often each is read."""

    def __init__(self, held: Snapshot) -> None:
        self.held = held
        self.reads: dict[str, int] = {}
        self.created = ""

    def names(self, prefix: str = "") -> Any:
        return self.held.names(prefix)

    def read(self, name: str) -> bytes:
        self.reads[name] = self.reads.get(name, 0) + 1
        return self.held.read(name)

    def missing(self, prefix: str = "") -> Any:
        return self.held.missing(prefix)


def test_evidence_is_decoded_once() -> None:
    """However many checks ask for it, and the mesh that is joined of it."""
    documents = Counting(recording("fixed"))
    examination = Examination(documents)

    def asks(docker: DockerEngine, catalog: ConsulCatalog, mesh: Mesh) -> Said:
        assert docker is examination.get(DockerEngine)
        yield from ()

    for _ in range(3):
        assert run(make(asks), examination) == Clean()
    assert documents.reads[CONTAINERS] == 1
    # What an agent says of itself holds facts of two kinds of evidence; each reads it once.
    assert documents.reads.pop(SELF) == 2
    assert set(documents.reads.values()) == {1}


def test_evidence_that_nobody_asks_for_is_not_read() -> None:
    """A small question costs little."""
    documents = Counting(recording("fixed"))
    run(make(looks), Examination(documents))
    assert {name.partition("/")[0] for name in documents.reads} == {"docker"}


def test_missing_evidence_is_missing_each_time() -> None:
    """Asking again gives the same answer, and `find` gives None."""
    for _ in range(2):
        with pytest.raises(MissingEvidenceError):
            NOTHING.get(DockerEngine)
        assert NOTHING.find(DockerEngine) is None
    with pytest.raises(DecodeError):
        Examination(snapshot({CONTAINERS: "[1"})).get(DockerEngine)


class Hostile:
    """Documents that cannot be read in a way that nobody foresaw."""

    created = ""

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in (CONTAINERS,) if name.startswith(prefix)]

    def read(self, name: str) -> bytes:
        if name == CONTAINERS:
            raise OSError(5, "Input/output error")
        raise MissingEvidenceError(f"{name} was not recorded")

    def missing(self, prefix: str = "") -> list[Problem]:  # noqa: ARG002 # nothing is
        return []


def test_a_fault_of_ours_in_one_source_crashes_only_what_needs_it() -> None:
    """Also what could do without: it would judge on less than there is."""

    def optional(docker: DockerEngine | None) -> Said:
        yield from ()

    def other(catalog: ConsulCatalog) -> Said:
        yield from ()

    examination = Examination(Hostile())
    for function in (looks, optional):
        outcome = run(make(function), examination)
        assert isinstance(outcome, Crashed)
        assert "Input/output error" in outcome.error
        assert "in read" in outcome.traceback
    assert isinstance(run(make(other), examination), Skipped)
    assert examination.find(DockerEngine) is None
    with pytest.raises(BrokenEvidenceError, match="OSError"):
        examination.get(DockerEngine)


# ---------------------------------------------------------------- Compose files


def a_plan() -> Plan:
    files = [("compose.yaml", "services: {web: {image: web}}")]
    return Plan.of(ComposeFiles.of(files, folder="shop", environment={}))


def test_compose_files_do_not_tell_what_a_check_has_no_plan_for() -> None:
    """It is skipped, not passed."""

    def quiet(mesh: Mesh) -> Said:
        yield Fact("all well")

    outcome = run_on_plan(make(quiet), a_plan())
    assert isinstance(outcome, Skipped)
    assert "only a running mesh shows" in outcome.reason


def test_a_check_judges_a_plan_by_its_other_function() -> None:
    """The one of the mesh is not called; what it raises is its outcome."""

    def mesh_alone(mesh: Mesh) -> Said:
        yield Fact("a mesh")

    def planned(plan: Plan) -> Said:
        yield Fact(f"{len(plan.workloads)} workload")

    def breaks(plan: Plan) -> Said:
        yield Fact(plan.files.files[1])

    mesh_alone.__doc__ = PAGE
    made = check(code="XX001", severity=Severity.ERROR, since="0.1", plan=planned)(mesh_alone)
    assert run_on_plan(made, a_plan()) == Clean((Fact("1 workload"),))
    made = check(code="XX001", severity=Severity.ERROR, since="0.1", plan=breaks)(mesh_alone)
    assert isinstance(run_on_plan(made, a_plan()), Crashed)


# ---------------------------------------------------------------- kinds of mesh


@pytest.mark.parametrize(
    ("kind", "is_for_it"), [(Kind.CONSUL_CONNECT, True), (Kind.ISTIO_CONSUL, False)]
)
def test_a_check_for_other_kinds_of_mesh_is_skipped(kind: Kind, is_for_it: bool) -> None:  # noqa: FBT001 # a case
    """It says so, and asks for nothing: nobody could give what this mesh does not have."""

    def quiet(mesh: Mesh) -> Said:
        yield Fact("all well")

    examination = Examination(recording("connect-healthy"))
    outcome = run(make(quiet, kinds=(kind,)), examination)
    if is_for_it:
        assert outcome == Clean((Fact("all well"),))
    else:
        assert outcome == Skipped(
            "not of this kind of mesh, only of Istio on Consul", foreign=True
        )


def test_in_a_mesh_of_no_known_kind_every_check_looks() -> None:
    """Whether it can judge is for the check to say."""

    def quiet(mesh: Mesh) -> Said:
        yield Fact("all well")

    documents = snapshot({"consul/catalog/services.json": {"consul": []}})
    for kind in Kind:
        assert isinstance(run(make(quiet, kinds=(kind,)), Examination(documents)), Clean)


def test_an_examination_is_let_go_at_once() -> None:
    """Neither what was missing nor what is damaged holds the evidence in a circle."""
    gc.collect()
    gc.disable()
    try:
        documents: dict[str, Document] = {CONTAINERS: b"no JSON", "envoy/x/stats.json": b""}
        examination = Examination(Snapshot(documents))
        found = [wanted for wanted in (*SOURCES, *JOINED) if examination.find(wanted) is not None]
        assert DockerEngine not in found
        assert Mesh in found
        gone = weakref.ref(examination)
        del examination
        assert gone() is None
    finally:
        gc.enable()
