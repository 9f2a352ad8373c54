"""What every built-in check keeps to, so that one can be found by the name of the other."""

import importlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.check import Check, Examination, run
from meshdoctor.findings import Crashed, Found
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.testing import resolve
from meshdoctor_checks import CHECKS

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "checks" / "meshdoctor_checks"
FIXTURES: Final = ROOT / "fixtures" / "checks"

FAMILIES: Final = {
    "control_plane": "1",
    "registry": "2",
    "sidecars": "3",
    "traffic": "4",
    "rules": "5",
    "probe": "6",
    "consul_mesh": "7",
}
"""The folder of a family, and the hundred of its codes."""

RESERVED: Final = frozenset(
    f"MD{number}"
    for first, last in (
        (101, 108),
        (201, 212),
        (301, 311),
        (401, 410),
        (501, 508),
        (601, 604),
        (701, 709),
    )
    for number in range(first, last + 1)
)
"""The codes of the catalogue; a check may explain one that is not written yet."""

MODULES: Final = sorted(
    path
    for path in PACKAGE.glob("*/*.py")
    # What checks say of Compose files is no family: it belongs to the checks of the others.
    if path.stem != "__init__" and path.parent.name in FAMILIES
)
CASES: Final = sorted(FIXTURES.glob("*/*/*/"))

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
each_case = pytest.mark.parametrize(
    "case", CASES, ids=[case.relative_to(FIXTURES).as_posix() for case in CASES]
)


def file_of(check: Check) -> Path:
    return PACKAGE / Path(*check.module.split(".")[1:]).with_suffix(".py")


def cases_of(check: Check) -> Path:
    file = file_of(check)
    return FIXTURES / file.parent.name / file.stem


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_holds_one_check_of_its_name(module: Path) -> None:
    """One file, one check, one name; and it is in the list."""
    imported = importlib.import_module(f"meshdoctor_checks.{module.parent.name}.{module.stem}")
    own = [
        each
        for each in vars(imported).values()
        if isinstance(each, Check) and each.module == imported.__name__
    ]
    assert [each.name for each in own] == [module.stem.replace("_", "-")]
    assert own[0] in CHECKS
    assert CHECKS.find(own[0].code) is CHECKS.find(own[0].name.upper()) is own[0]


def test_the_list_is_sorted_and_holds_no_code_twice() -> None:
    """By code, which is the order of reports and of documentation."""
    codes = [check.code for check in CHECKS]
    assert codes == sorted(set(codes))
    assert {file_of(check) for check in CHECKS} == set(MODULES)


@each_check
def test_a_code_belongs_to_its_family(check: Check) -> None:
    """The hundred of a code tells the folder."""
    assert check.code in RESERVED
    assert check.code[2] == FAMILIES[file_of(check).parent.name]


@each_check
def test_a_module_says_its_code(check: Check) -> None:
    """The first line of the file is found when one looks for the code."""
    first = file_of(check).read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith(f'"""{check.code}: ')


@each_check
def test_a_check_has_quiet_and_firing_cases(check: Check) -> None:
    """What it must not say is proved as well as what it must say."""
    kinds = {case.name.partition("-")[0] for case in cases_of(check).glob("*/")}
    assert {"quiet", "fires"} <= kinds


@each_check
def test_a_page_has_its_sections(check: Check) -> None:
    """A title that is a sentence, and three sections with something in them."""
    assert check.title.endswith(".")
    pieces = check.page.split("\n## ")[1:]
    assert [piece.partition("\n")[0] for piece in pieces] == [
        "Why it matters",
        "How it is found",
        "How to fix it",
    ]
    assert all(piece.partition("\n")[2].strip() for piece in pieces)


@each_check
def test_a_check_explains_known_codes(check: Check) -> None:
    """Only codes of the catalogue, each once, and not its own."""
    assert set(check.explains) <= RESERVED - {check.code}
    assert len(set(check.explains)) == len(check.explains)


def test_no_check_explains_itself_by_way_of_others() -> None:
    """A circle of causes would have no root."""
    explains = {check.code: check.explains for check in CHECKS}

    def reached(code: str) -> Iterator[str]:
        waiting, seen = list(explains.get(code, ())), set()
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                yield each
                waiting.extend(explains.get(each, ()))

    assert [code for code in explains if code in reached(code)] == []


@each_case
def test_a_case_belongs_to_a_check(case: Path) -> None:
    """No folder is left over from a check that was renamed; names say what to expect."""
    module = PACKAGE / case.parent.relative_to(FIXTURES).with_suffix(".py")
    assert module in MODULES
    assert case.name.startswith(("quiet-", "fires-"))
    about = case / "ABOUT"
    if about.exists():
        assert len(about.read_text(encoding="utf-8").splitlines()) == 1


def test_pointers_are_resolved_as_the_standard_says() -> None:
    """RFC 6901: `~1` is a slash and `~0` a tilde; what is not there is an error."""
    document = {"a/b": [{"~": 1}]}
    assert resolve(document, "/a~1b/0/~0") == 1
    assert resolve(document, "") == document
    for wrong in ("/a~1b/1", "/c", "a", "/a~1b/x", "/a~1b/0/~0/more"):
        with pytest.raises(LookupError):
            resolve(document, wrong)


# ---------------------------------------------------------------- hostile names

HOSTILE: Final = "x; rm -rf / $(id) `id` 'q' \"d\" | tee > y & #"
FIRING: Final = [case for case in CASES if case.name.startswith("fires-")]


def _hostile(case: Path) -> Snapshot:
    """The case, with that for every name of an application, in what the sources answered."""
    inside = json.dumps(HOSTILE)[1:-1].encode()
    recorded = open_snapshot(case)
    documents = {name: recorded.read(name) for name in recorded.names()}
    for word in (b"ratings", b"details", b"reviews", b"consul_registrator", b"consul_pilot"):
        documents = {name: body.replace(word, inside) for name, body in documents.items()}
    return Snapshot(documents)


@pytest.mark.parametrize(
    "case", FIRING, ids=[case.relative_to(FIXTURES).as_posix() for case in FIRING]
)
def test_names_are_quoted_in_commands(case: Path) -> None:
    """Whatever a container calls itself, a command to paste does what it says and no more."""
    name = case.parent.name.replace("_", "-")
    (check,) = [each for each in CHECKS if each.name == name]
    outcome = run(check, Examination(_hostile(case)))
    assert not isinstance(outcome, Crashed), outcome.traceback
    findings = outcome.findings if isinstance(outcome, Found) else ()
    for finding in findings:
        for remedy in finding.remedies:
            for command in remedy.commands:
                assert shlex.join(shlex.split(command)) == command
