"""The whole run: checks loaded, causes linked, the verdict, and what stands in the report."""

import gc
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshdoctor.check import CannotLookError, Check, check
from meshdoctor.diagnosis import BrokenPlugin, Checks, ChecksError, examine, link, load_checks
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import CONTAINERS, DockerEngine
from meshdoctor.evidence.interface import Problem
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind
from meshdoctor.report.document import CheckVerdict, Report, SourceState, Verdict
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.topology import Mesh
from tests.evidence.damage import CONNECT, ISTIO, damaged, few, recording

PAGE = """Something is wrong.

## Why it matters

## How it is found

## How to fix it

Mend it.
"""


def a_check(
    code: str, *says: Finding | Fact | BaseException, explains: tuple[str, ...] = ()
) -> Check:
    """A check that says these things of any mesh that Docker or Consul told of."""

    def function(mesh: Mesh) -> Iterator[Finding | Fact]:  # noqa: ARG001 # it must be there
        for each in says:
            if isinstance(each, BaseException):
                raise each
            yield each

    function.__doc__ = PAGE
    function.__name__ = f"check_{code.lower()}"
    return check(code=code, severity=Severity.ERROR, since="0.1", explains=explains)(function)


def about(*names: str, says: str = "", severity: Severity | None = None) -> Finding:
    """A finding about services of these names."""
    found = tuple(Subject(SubjectKind.SERVICE, name) for name in names)
    return Finding(says or f"{', '.join(names)} is broken.", found, severity=severity)


def chain(*links: str) -> dict[str, Check]:
    """Checks by code; `"A>B,C"` is a check of code MDA that explains MDB and MDC."""
    made = {}
    for each in links:
        code, _, explained = each.partition(">")
        explains = tuple(f"MD{other}" for other in explained.split(",") if other)
        made[code] = a_check(f"MD{code}", explains=explains)
    return made


def told(found: Sequence[tuple[Check, Finding]]) -> list[list[str]]:
    """The messages of each diagnosis, the root first."""
    findings, diagnoses = link(found)
    by_id = {finding.id: finding.message for finding in findings}
    return [[by_id[each] for each in diagnosis.findings] for diagnosis in diagnoses]


# ---------------------------------------------------------------- causes


def test_a_chain_is_one_diagnosis() -> None:
    """Its root first, however the findings came; every finding names its cause."""
    checks = chain("001>002", "002>003", "003")
    found = [
        (checks["003"], about("web", says="third")),
        (checks["001"], about("web", says="first")),
        (checks["002"], about("web", "api", says="second")),
    ]
    assert told(found) == [["first", "second", "third"]]
    findings, (diagnosis,) = link(found)
    assert [(each.id, each.causes) for each in findings] == [
        ("F1", ()),
        ("F2", ("F1",)),
        ("F3", ("F2",)),
    ]
    assert (diagnosis.root, diagnosis.title) == ("F1", "first")


def test_a_cause_shares_a_subject_with_its_symptom() -> None:
    """That one check explains another is not enough, and neither is a subject alone."""
    checks = chain("001>002", "002", "003")
    found = [
        (checks["001"], about("web", says="cause")),
        (checks["002"], about("api", says="elsewhere")),
        (checks["003"], about("web", says="unrelated")),
    ]
    assert sorted(told(found)) == [["cause"], ["elsewhere"], ["unrelated"]]
    service = about("web", says="service")
    workload = replace(service, subjects=(Subject(SubjectKind.WORKLOAD, "web"),), message="work")
    assert len(told([(checks["001"], service), (checks["002"], workload)])) == 2


def test_a_finding_without_a_subject_stands_alone() -> None:
    """Nothing links it."""
    checks = chain("001>002", "002")
    found = [(checks["001"], about(says="one")), (checks["002"], about(says="two"))]
    assert sorted(told(found)) == [["one"], ["two"]]


def test_a_diamond_says_each_symptom_once() -> None:
    """Level by level: both ways first, then where they meet, with both as its causes."""
    checks = chain("001>002,003", "002>004", "003>004", "004")
    found = [(checks[code], about("web", says=code)) for code in ("001", "002", "003", "004")]
    assert told(found) == [["001", "002", "003", "004"]]
    findings, _ = link(found)
    assert findings[3].causes == ("F2", "F3")


def test_two_roots_share_a_symptom() -> None:
    """It stands in both diagnoses: mending one alone would not be enough."""
    checks = chain("001>003", "002>003", "003")
    found = [
        (checks["001"], about("web", says="one")),
        (checks["002"], about("web", says="two")),
        (checks["003"], about("web", says="both")),
    ]
    assert told(found) == [["one", "both"], ["two", "both"]]
    findings, _ = link(found)
    assert [each.id for each in findings] == ["F1", "F2", "F3"]
    assert findings[1].causes == ("F1", "F3")


def test_a_circle_has_a_root_too() -> None:
    """Two faults that explain each other are one diagnosis, and nothing hangs."""
    checks = chain("001>002", "002>001")
    found = [(checks["001"], about("web", says="one")), (checks["002"], about("web", says="two"))]
    assert told(found) == [["one", "two"]]
    findings, _ = link(found)
    assert [each.causes for each in findings] == [("F2",), ("F1",)]


def test_a_circle_below_a_root_has_that_root() -> None:
    """It is entered from outside."""
    checks = chain("001>002", "002>003", "003>002")
    found = [(checks[code], about("web", says=code)) for code in ("003", "002", "001")]
    assert told(found) == [["001", "002", "003"]]


def test_a_check_may_explain_itself() -> None:
    """One finding of it is then never its own cause."""
    checks = chain("001>001")
    assert told([(checks["001"], about("web", says="alone"))]) == [["alone"]]


def test_the_worst_diagnosis_comes_first() -> None:
    """By the worst of the tree, then by its size, then by code and message."""
    checks = chain("001", "002>003", "003", "004", "005")
    found = [
        (checks["001"], about("a", says="note", severity=Severity.INFO)),
        (checks["002"], about("b", says="root", severity=Severity.WARNING)),
        (checks["003"], about("b", says="symptom")),
        (checks["005"], about("c", says="later")),
        (checks["004"], about("e", says="z")),
        (checks["004"], about("d", says="a")),
    ]
    assert told(found) == [["root", "symptom"], ["a"], ["z"], ["later"], ["note"]]
    _, diagnoses = link(found)
    assert diagnoses[0].severity is Severity.ERROR
    assert [each.severity for each in diagnoses][-1] is Severity.INFO


def test_remedies_come_from_the_root_first_without_repetitions() -> None:
    """What mends the cause is tried before what mends the symptom."""
    checks = chain("001>002", "002")
    first, second = Remedy("Mend the cause."), Remedy("Mend the symptom.")
    found = [
        (checks["002"], replace(about("web"), remedies=(second, first))),
        (checks["001"], replace(about("web"), remedies=(first,))),
    ]
    _, (diagnosis,) = link(found)
    assert diagnosis.remedies == (first, second)


def test_no_finding_is_no_diagnosis() -> None:
    """Nothing in, nothing out."""
    assert link([]) == ((), ())


@few
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sets(st.sampled_from("abc"), max_size=2)), max_size=9
    ),
    st.lists(st.sets(st.integers(0, 5)), min_size=6, max_size=6),
)
def test_every_finding_is_told_whatever_explains_what(
    findings: list[tuple[int, set[str]]], explains: list[set[int]]
) -> None:
    """None is lost, none repeated in a diagnosis, every cause is one, ids are in order."""
    checks = [
        a_check(f"MD00{code}", explains=tuple(f"MD00{other}" for other in sorted(others)))
        for code, others in enumerate(explains)
    ]
    found = [
        (checks[code], about(*sorted(names), says=f"finding {number}"))
        for number, (code, names) in enumerate(findings)
    ]
    reported, diagnoses = link(found)
    assert sorted(each.message for each in reported) == sorted(each.message for _, each in found)
    assert [each.id for each in reported] == [f"F{n + 1}" for n in range(len(found))]
    ids = {each.id for each in reported}
    assert {each for diagnosis in diagnoses for each in diagnosis.findings} == ids
    for diagnosis in diagnoses:
        assert len(set(diagnosis.findings)) == len(diagnosis.findings)
        assert diagnosis.findings[0] == diagnosis.root
    for each in reported:
        assert set(each.causes) <= ids - {each.id}
    assert len({diagnosis.root for diagnosis in diagnoses}) == len(diagnoses)
    assert link(found) == (reported, diagnoses)


def test_the_order_in_which_checks_ran_does_not_matter() -> None:
    """Where messages differ, every order of findings gives the same document."""
    checks = chain("001>002", "002>003", "003", "004")
    found = [(checks[code], about("web", says=code)) for code in ("001", "002", "003", "004")]
    results = {str(told(each)) for each in itertools.permutations(found)}
    assert len(results) == 1


# ---------------------------------------------------------------- the verdict


def without(*folders: str) -> Snapshot:
    """The fixed mesh without some of its sources."""
    whole = recording("fixed")
    kept = {
        name: whole.read(name)
        for name in whole.names()
        if not name.startswith(tuple(f"{folder}/" for folder in folders))
    }
    return Snapshot(kept)


def judge(snapshot: Snapshot, *checks: Check, broken: tuple[BrokenPlugin, ...] = ()) -> Report:
    return examine(snapshot, Checks(checks, broken), {"kind": "snapshot"})


ERROR = about("web")
WARNING = about("web", severity=Severity.WARNING)
INFO = about("web", severity=Severity.INFO)
CRASH = KeyError("oops")
WELL = Fact("all is well")


@pytest.mark.parametrize(
    ("says", "lacking", "verdict"),
    [
        ((WELL,), (), Verdict.HEALTHY),
        ((), (), Verdict.HEALTHY),
        ((INFO,), (), Verdict.HEALTHY),
        ((WARNING,), (), Verdict.DEGRADED),
        ((WARNING, INFO), (), Verdict.DEGRADED),
        ((ERROR,), (), Verdict.BROKEN),
        ((ERROR, WARNING), (), Verdict.BROKEN),
        ((CRASH,), (), Verdict.UNKNOWN),
        ((WARNING, CRASH), (), Verdict.UNKNOWN),
        ((ERROR, CRASH), (), Verdict.BROKEN),
        ((WELL,), ("docker",), Verdict.HEALTHY),
        ((WELL,), ("pilot", "netfilter", "istio"), Verdict.HEALTHY),
        ((WELL,), ("consul",), Verdict.UNKNOWN),
        ((WELL,), ("envoy",), Verdict.UNKNOWN),
        ((WARNING,), ("envoy",), Verdict.UNKNOWN),
        ((ERROR,), ("consul", "envoy"), Verdict.BROKEN),
        ((WELL,), ("docker", "consul", "envoy"), Verdict.UNKNOWN),
    ],
)
def test_the_verdict(
    says: tuple[Finding | Fact | BaseException, ...], lacking: tuple[str, ...], verdict: Verdict
) -> None:
    """Healthy is said only where the catalogue and a sidecar were read and nothing crashed."""
    report = judge(without(*lacking), a_check("MD001", *says))
    assert report.verdict is verdict
    assert bool(report.verdict_reason) is (verdict is Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        (("consul",), "the Consul catalogue could not be read"),
        (("envoy",), "none of the 6 sidecars could be examined"),
        (("envoy", "docker"), "no sidecar was found"),
    ],
)
def test_an_unknown_verdict_says_what_is_lacking(lacking: tuple[str, ...], reason: str) -> None:
    """In words for a person."""
    assert judge(without(*lacking), a_check("MD001", WELL)).verdict_reason == reason


def test_the_time_of_a_run_is_that_of_all_of_it() -> None:
    """Where it began before it was judged, what was waited for counts."""
    begun = time.monotonic() - 100
    report = examine(recording("fixed"), Checks(()), {"kind": "snapshot"}, begun=begun)
    assert report.seconds >= 100


def test_a_mesh_that_no_check_looked_at_is_unknown() -> None:
    """Neither without any check nor with all of them skipped."""
    assert judge(recording("fixed")).verdict is Verdict.UNKNOWN
    assert judge(recording("fixed")).verdict_reason == "no check was left to run"
    sulking = judge(recording("fixed"), a_check("MD001", CannotLookError("not today")))
    assert (sulking.verdict, sulking.verdict_reason) == (Verdict.UNKNOWN, "no check could look")


def test_a_crash_is_named_in_the_reason() -> None:
    """By its code; a plug-in that did not load by its name."""
    broken = (BrokenPlugin("acme", "ImportError: no module named acme", "Traceback"),)
    report = judge(recording("fixed"), a_check("MD001", CRASH), broken=broken)
    assert report.verdict_reason == "a check crashed (MD001, plug-in acme)"
    crashed, plugin = report.checks
    assert (crashed.verdict, crashed.reason) == (CheckVerdict.CRASHED, "KeyError: 'oops'")
    assert "KeyError" in crashed.traceback
    assert (plugin.code, plugin.name, plugin.verdict, plugin.traceback) == (
        "PLUGIN",
        "acme",
        CheckVerdict.CRASHED,
        "Traceback",
    )


def test_what_a_check_found_before_it_crashed_is_reported() -> None:
    """The crash stops neither it nor the others."""
    report = judge(recording("fixed"), a_check("MD001", ERROR, CRASH), a_check("MD002", WARNING))
    assert sorted(each.code for each in report.findings) == ["MD001", "MD002"]
    assert [each.verdict for each in report.checks] == [CheckVerdict.CRASHED, CheckVerdict.FOUND]


# ---------------------------------------------------------------- what was looked at


def test_coverage_names_what_could_not_be_reached() -> None:
    """A sidecar that stopped is said to be down, any other has its reason."""
    whole = recording("fixed")
    documents = {
        name: whole.read(name)
        for name in whole.names()
        if not name.startswith(("envoy/consul_details", "envoy/consul_ratings"))
    }
    documents[CONTAINERS] = documents[CONTAINERS].replace(
        b"consul_ratings-v1-sidecar_1", b"consul_ratings-v1-sidecar_2"
    )
    absent = (Problem("envoy/consul_details-v1-sidecar_1/config_dump.json", "timed out"),)
    coverage = judge(Snapshot(documents, absent=absent), a_check("MD001")).coverage
    assert (coverage.sidecars_found, coverage.sidecars_examined) == (6, 4)
    assert {each.name: each.reason for each in coverage.unreachable} == {
        "consul_details-v1-sidecar_1": "timed out",
        "consul_ratings-v1-sidecar_2": "no config_dump.json was recorded",
    }
    envoy = next(each for each in coverage.sources if each.name == "envoy")
    assert envoy.state is SourceState.PARTIAL
    assert "timed out" in envoy.reason


def test_sources_are_examined_partial_or_missing() -> None:
    """With the reason and, where something is missing, how to give it."""
    snapshot = without("consul", "pilot", "istio", "netfilter")
    damaged = dict(snapshot.documents) | {"docker/images.json": b"{"}
    sources = {each.name: each for each in judge(Snapshot(damaged)).coverage.sources}
    assert sources["envoy"].state is SourceState.EXAMINED
    assert sources["docker"].state is SourceState.PARTIAL
    assert "docker/images.json" in sources["docker"].reason
    assert sources["consul"].state is SourceState.MISSING
    assert "CONSUL_HTTP_ADDR" in sources["consul"].hint


def test_what_was_passed_over_in_the_snapshot_is_a_source_too() -> None:
    """A link in an archive is said, not swallowed."""
    noted = replace(recording("fixed"), notes=(Problem("docker/x", "passed over: a link"),))
    source = judge(noted).coverage.sources[-1]
    assert (source.name, source.state) == ("snapshot", SourceState.PARTIAL)
    assert "docker/x: passed over" in source.reason


def test_coverage_names_what_consul_knows_besides() -> None:
    """Other datacenters and peers, which this run did not look at; the verdict is of the rest."""
    others = {
        "consul/catalog/datacenters.json": b'["dc1", "dc2"]',
        "consul/peerings.json": b'[{"Name": "cluster-02"}]',
    }
    healthy = recording("connect-healthy")
    documents = {name: healthy.read(name) for name in healthy.names()} | others
    report = judge(Snapshot(documents), a_check("MD001", WELL))
    named = [(each.kind, each.name) for each in report.coverage.elsewhere]
    assert named == [("datacenter", "dc2"), ("peer", "cluster-02")]
    assert report.verdict is Verdict.HEALTHY


def test_a_host_that_told_nothing_leaves_the_mesh_unknown() -> None:
    """What runs on it nobody saw; without any engine, Consul and the Envoys tell enough."""
    said = "host tcp://192.0.2.1:2375 could not be read: no Docker engine answers"
    seen = recording("fixed")
    both = replace(seen, absent=(*seen.absent, Problem("docker/", said)))
    report = judge(both, a_check("MD001", WELL))
    assert (report.verdict, report.verdict_reason) == (Verdict.UNKNOWN, said)


def test_nothing_at_all_is_a_report_too() -> None:
    """No source, no sidecar, no verdict, and no crash."""
    report = judge(Snapshot({}), a_check("MD001", WELL))
    assert report.verdict is Verdict.UNKNOWN
    assert {each.state for each in report.coverage.sources} == {SourceState.MISSING}
    assert report.mesh == ()
    assert [each.verdict for each in report.checks] == [CheckVerdict.SKIPPED]


@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
def test_the_same_mesh_gives_the_same_document(mesh: str) -> None:
    """But for the times: with the built-in checks, twice, from evidence decoded anew."""
    checks = load_checks()

    def timeless(report: Report) -> Report:
        return replace(
            report,
            created="",
            seconds=0.0,
            checks=tuple(replace(each, milliseconds=0.0) for each in report.checks),
        )

    target = {"kind": "snapshot"}
    one, two = (examine(recording(mesh), checks, target) for _ in range(2))
    assert timeless(one) == timeless(two)
    assert not any(each.verdict is CheckVerdict.CRASHED for each in one.checks)


def test_no_built_in_check_crashes_without_a_source() -> None:
    """Every subset of the main sources gives findings, facts or a reason why not."""
    checks = load_checks()
    main = ("docker", "consul", "envoy", "netfilter", "pilot")
    for number in range(len(main) + 1):
        for lacking in itertools.combinations(main, number):
            report = examine(without(*lacking), checks, {"kind": "snapshot"})
            crashed = [each.traceback for each in report.checks if each.traceback]
            assert not crashed, f"without {lacking}: {crashed[0]}"


ALL = load_checks()


@few
@given(st.sampled_from(["fixed", "connect-collision", "broken-v2"]), st.data())
def test_no_built_in_check_crashes_on_damaged_evidence(mesh: str, data: st.DataObject) -> None:
    """Whatever one document looks like, every check finds, is clean, or says why not."""
    whole = recording(mesh)
    # The large dumps have tests of their own, beside their decoder.
    names = [each for each in whole.names() if each.endswith(".json") and "_dump" not in each]
    name = data.draw(st.sampled_from(names))
    body = data.draw(damaged(whole.read(name).decode()))
    report = examine(Snapshot({**whole.documents, name: body}), ALL, {"kind": "snapshot"})
    crashed = [each.traceback for each in report.checks if each.traceback]
    assert not crashed, f"{name}: {crashed[0]}"


def test_a_file_that_cannot_be_read_costs_only_its_source(tmp_path: Path) -> None:
    """It went away, or may not be read: said as missing, not as a fault of ours."""
    whole = recording("fixed")
    for name in whole.names():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole.read(name))
    snapshot = open_snapshot(tmp_path)
    (tmp_path / CONTAINERS).unlink()
    report = examine(snapshot, ALL, {"kind": "snapshot"})
    docker = next(each for each in report.coverage.sources if each.name == "docker")
    assert docker.state is SourceState.MISSING
    assert "No such file" in docker.reason
    assert not any(each.traceback for each in report.checks)


# ---------------------------------------------------------------- selection

SOME = Checks(tuple(a_check(code) for code in ("MD201", "MD202", "MD401")))


@pytest.mark.parametrize(
    ("select", "ignore", "chosen"),
    [
        ([], [], ["MD201", "MD202", "MD401"]),
        (["MD2"], [], ["MD201", "MD202"]),
        (["md401"], [], ["MD401"]),
        (["check-md202"], [], ["MD202"]),
        (["Check_MD202"], [], ["MD202"]),
        (["MD202", "MD4"], [], ["MD202", "MD401"]),
        ([], ["MD4"], ["MD201", "MD202"]),
        (["MD2"], ["MD202"], ["MD201"]),
        (["MD202"], ["MD202"], []),
    ],
)
def test_checks_are_chosen_by_code_beginning_or_name(
    select: list[str], ignore: list[str], chosen: list[str]
) -> None:
    """In either case; what is ignored is ignored however it was selected."""
    assert [each.code for each in SOME.choose(select, ignore).checks] == chosen


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("MD410", "MD401"),
        ("MD20l", "MD20"),
        ("check-md40", "check-md401"),
        ("zzzzzz", None),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest(word: str, near: str | None) -> None:
    """A slip of the finger must not run no check at all and pass."""
    message = f"no check has the code or name '{word}'"
    for select, ignore in (([word], []), ([], [word]), (["MD2", word], [])):
        with pytest.raises(ChecksError, match=message) as caught:
            SOME.choose(select, ignore)
        assert ("Did you mean" in str(caught.value)) is (near is not None)
        assert (near or "") in str(caught.value)
    with pytest.raises(ChecksError, match=message):
        SOME.find(word)


def test_one_check_is_found_by_its_code_or_name() -> None:
    """In either case; a beginning is not enough."""
    for word in ("MD401", "md401", "check-md401", "CHECK-MD401", "check_md401"):
        assert SOME.find(word).code == "MD401"
    with pytest.raises(ChecksError):
        SOME.find("MD4")


def test_plug_ins_that_did_not_load_stay_broken_whatever_is_selected() -> None:
    """Their checks might have been among those asked for."""
    broken = (BrokenPlugin("acme", "ImportError"),)
    assert Checks(SOME.checks, broken).choose(["MD401"], []).broken == broken


# ---------------------------------------------------------------- loading

SOURCE = '''
from collections.abc import Iterator

from meshdoctor.check import check
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Fact, Finding, Severity


@check(code="{code}", severity=Severity.ERROR, since="1")
def {name}(docker: DockerEngine) -> Iterator[Finding | Fact]:
    """Something is wrong.

    ## Why it matters

    ## How it is found

    ## How to fix it

    Mend it.
    """
    yield Fact("it was looked at")
'''


def source(code: str = "ACME001", name: str = "acme") -> str:
    return SOURCE.format(code=code, name=name)


class Site:
    """A folder of installed packages, on sys.path for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, code: str, *, points: str = "CHECKS") -> None:
        """A package of one module, with its entry point."""
        (self.folder / f"{name}.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[meshdoctor.checks]\n{name} = {name}:{points}\n", encoding="utf-8"
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def test_the_built_in_checks_come_by_the_door_of_all() -> None:
    """Sorted by code, none broken."""
    loaded = load_checks()
    codes = [each.code for each in loaded.checks]
    assert codes == sorted(set(codes))
    assert {"MD201", "MD202", "MD401"} <= set(codes)
    assert loaded.broken == ()


def test_an_installed_package_adds_its_checks(site: Site) -> None:
    """A sequence of checks, or one."""
    site.install(
        "acme_many",
        source("ACME001", "one") + source("ACME002", "two") + "\nCHECKS = (one, two)\n",
    )
    site.install("acme_one", source("ACME003", "three"), points="three")
    loaded = load_checks()
    assert loaded.broken == ()
    assert {"ACME001", "ACME002", "ACME003"} <= {each.code for each in loaded.checks}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("CHECKS = [", "SyntaxError"),
        ("", "AttributeError"),
        ("CHECKS = [print]", "TypeError: <built-in function print> is no check"),
        ("CHECKS = 7", "TypeError"),
        (source("acme1"), "MalformedCheckError: 'acme1' is no code"),
    ],
)
def test_a_package_that_does_not_load_costs_only_its_own_checks(
    site: Site, code: str, error: str
) -> None:
    """It is reported, with its traceback."""
    site.install("acme_broken", code)
    loaded = load_checks()
    (broken,) = loaded.broken
    assert broken.name == "acme_broken"
    assert error in broken.error
    assert "Traceback" in broken.traceback
    assert "MD401" in {each.code for each in loaded.checks}


def test_no_package_takes_the_code_of_a_built_in_check(site: Site) -> None:
    """Whatever it is called; its other checks run."""
    site.install(
        "aaa", source("MD401", "mine") + source("AAA001", "other") + "\nCHECKS = [mine, other]\n"
    )
    loaded = load_checks()
    assert loaded_name(loaded, "MD401") == "tcp-listener-collision"
    assert loaded_name(loaded, "AAA001") == "other"
    (broken,) = loaded.broken
    assert broken.name == "aaa"
    assert "its mine has the code MD401, which builtin has already" in broken.error


def loaded_name(loaded: Checks, code: str) -> str:
    return next(each.name for each in loaded.checks if each.code == code)


def test_a_loose_file_and_a_folder_of_files(tmp_path: Path) -> None:
    """Files of a folder without a check, as its own helpers, do no harm."""
    (tmp_path / "one.py").write_text(source("ACME001", "one"), encoding="utf-8")
    (tmp_path / "two.py").write_text(source("ACME002", "two"), encoding="utf-8")
    (tmp_path / "wording.py").write_text("WORD = 1\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not Python", encoding="utf-8")
    folder = {each.code for each in load_checks([tmp_path]).checks}
    assert {"ACME001", "ACME002"} <= folder
    file = {each.code for each in load_checks([tmp_path / "one.py"]).checks}
    assert "ACME001" in file
    assert "ACME002" not in file


def test_one_file_named_twice_is_loaded_once(tmp_path: Path) -> None:
    """By itself and by its folder; no code is doubled by that."""
    file = tmp_path / "one.py"
    file.write_text(source("ACME001", "one"), encoding="utf-8")
    loaded = load_checks([tmp_path, file, tmp_path / "." / "one.py"])
    assert loaded.broken == ()
    assert loaded_name(loaded, "ACME001") == "one"


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    """In different folders."""
    for folder, code in (("a", "ACME001"), ("b", "ACME002")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(source(code, "mine"), encoding="utf-8")
    codes = {each.code for each in load_checks([tmp_path / "a", tmp_path / "b"]).checks}
    assert {"ACME001", "ACME002"} <= codes


def test_a_code_doubled_by_a_file_is_reported(tmp_path: Path) -> None:
    """The first one runs."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(source("ACME001", name), encoding="utf-8")
    loaded = load_checks([tmp_path / "one.py", tmp_path / "two.py"])
    assert loaded_name(loaded, "ACME001") == "one"
    assert [each.name for each in loaded.broken] == [str(tmp_path / "two.py")]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("missing.py", None, "missing.py: no such file or folder"),
        ("notes.txt", "x = 1", "notes.txt: not a Python file"),
        ("empty.py", "", "empty.py: no check in it"),
        ("typo.py", "def f(:", "typo.py: SyntaxError"),
        ("exits.py", "raise SystemExit(3)", "exits.py, line 1: SystemExit: 3"),
        ("code.py", source("acme"), "code.py, line 9: MalformedCheckError: 'acme' is no code"),
    ],
)
def test_a_path_that_was_named_must_load(
    tmp_path: Path, name: str, content: str | None, error: str
) -> None:
    """The error names the file and what is wrong with it."""
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ChecksError) as caught:
        load_checks([tmp_path / name])
    assert error in str(caught.value)


def test_an_empty_folder_holds_no_check(tmp_path: Path) -> None:
    """That is a mistake, not an empty list."""
    with pytest.raises(ChecksError, match="no check in it"):
        load_checks([tmp_path])


def test_no_check_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor without checks would find every mesh healthy."""
    monkeypatch.setattr("meshdoctor.diagnosis.loading.ENTRY_POINTS", "meshdoctor.nothing")
    with pytest.raises(ChecksError, match="no check is installed: install meshdoctor again"):
        load_checks()


def test_the_types_that_evidence_may_have_are_real() -> None:
    """What the checks of this module ask for is what a third party would."""
    assert {need.evidence for each in load_checks().checks for need in each.needs} >= {
        Mesh,
        DockerEngine,
        ConsulCatalog,
    }


def test_one_local_address_is_another_listener_in_each_sidecar() -> None:
    """Two proxies with an upstream on 127.0.0.1:9191 have that fault each for itself."""

    def listener(sidecar: str) -> Subject:
        return Subject(SubjectKind.LISTENER, "127.0.0.1:9191", within=sidecar)

    checks = chain("001>002", "002")
    found = [
        (checks["001"], Finding("web", (listener("web"),))),
        (checks["002"], Finding("calls of web", (listener("web"),))),
        (checks["002"], Finding("calls of shop", (listener("shop"),))),
    ]
    assert told(found) == [["web", "calls of web"], ["calls of shop"]]


def test_the_garbage_collector_is_as_it_was() -> None:
    """It is slowed down while a report is made; of several at once, until the last."""
    before = gc.get_threshold()
    during: list[tuple[int, ...]] = []

    def look(check_too: Checks | None) -> Check:
        def function(mesh: Mesh) -> Iterator[Finding | Fact]:  # noqa: ARG001 # it must be there
            if check_too is not None:
                examine(snapshot, check_too, {"kind": "live"})
            during.append(gc.get_threshold())
            yield Fact("looked")

        function.__doc__ = PAGE
        return check(code="XX101", severity=Severity.ERROR, since="0.1")(function)

    snapshot = Snapshot({CONTAINERS: b"[]"})
    inner = Checks((look(None),))
    examine(snapshot, Checks((look(inner),)), {"kind": "live"})
    assert len(set(during)) == 1
    assert min(during) > before
    assert gc.get_threshold() == before
