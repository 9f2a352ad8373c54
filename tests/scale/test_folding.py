"""A fault that many things have is one finding, with a count, some names, and the whole list."""

import shlex
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.check import Check
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.findings import Severity
from meshdoctor.folding import MANY
from meshdoctor.report.document import Report, ReportedFinding
from meshdoctor.snapshot import open_snapshot
from tests.scale.multiplied import multiplied

FIXTURES: Final = Path(__file__).parents[2] / "fixtures"
CHECKS: Final = load_checks()
LONGEST_SENTENCE: Final = 1_000

_CASES: Final = {
    # Two callers of one Consul agent are on one host by what it tells, and collide there as well.
    "MD701": "fires-two-proxies-of-one-host",
    # Of these, the copies' faults differ: in each other sidecars are odd, or another answers.
    "MD402": "fires-endpoint-nobody-owns",
    "MD409": "",
    "MD601": "",
    "MD604": "",
}
"""In the place of a check's first case."""


def case(check: Check) -> Path | None:
    """A recording in which the check fires, None where copies of it differ in what is wrong."""
    family = check.module.split(".")[1]
    folder = FIXTURES / "checks" / family / check.name.replace("-", "_")
    name = _CASES.get(check.code)
    if name is None:
        return min(folder.glob("fires-*"))
    return folder / name if name else None


@cache
def examined(path: Path, copies: int, *only: str) -> Report:
    return examine(multiplied(open_snapshot(path), copies, only), CHECKS, {"kind": "live"})


def of(code: str, report: Report) -> list[ReportedFinding]:
    return [each for each in report.findings if each.code == code]


@pytest.mark.parametrize("check", CHECKS.checks, ids=lambda each: each.code)
def test_a_fault_of_twice_as_many_is_told_in_as_few_findings(check: Check) -> None:
    """Every check of the catalogue, by what it finds in copies of a recording."""
    path = case(check)
    if path is None:
        return
    fewer, more = (of(check.code, examined(path, copies)) for copies in (12, 24))
    assert fewer
    assert len(more) == len(fewer)
    for each in more:
        assert len(each.message) <= LONGEST_SENTENCE
        for remedy in each.remedies:
            assert len(remedy.summary) <= LONGEST_SENTENCE
            assert len(remedy.effect or "") <= LONGEST_SENTENCE


def test_nine_hundred_exposed_admin_ports_are_one_finding() -> None:
    """The sentence names some, and the list of subjects all; a command takes a hundred names."""
    path = FIXTURES / "checks/sidecars/admin_port_exposed/fires-any-address"
    one, many = (multiplied(open_snapshot(path), copies) for copies in (1, 900))
    checks = CHECKS.choose(("MD310",), ())
    (first,) = examine(one, checks, {"kind": "live"}).findings
    (found,) = examine(many, checks, {"kind": "live"}).findings
    assert found.alike == 900  # as many copies
    said, _, _ = found.message.partition(" The same ")
    assert said.replace("details-1-v1", "details-v1") == first.message
    assert "The same is true of 899 more sidecars: " in found.message
    assert found.message.endswith(" and 893 more.")
    assert len({each.name for each in found.subjects if each.kind == "sidecar"}) == found.alike
    assert len(found.seen_in) == found.alike
    (remedy,) = found.remedies
    *steps, last = remedy.commands
    assert last == first.remedies[0].commands[-1]
    assert len(steps) == 9  # of a hundred each
    assert all(len(shlex.split(each)) < 120 for each in steps)
    services = {word for each in steps for word in shlex.split(each) if "-sidecar" in word}
    assert len(services) == found.alike


def test_a_chain_of_causes_stays_a_chain() -> None:
    """What sixty sidecars refuse for the same reason hangs below that one reason."""
    report = examined(FIXTURES / "meshes" / "connect-collision.tgz", 60, "web")
    collisions = of("MD701", report)
    assert [each.alike for each in collisions] == [60, 1]
    (refused,) = of("MD308", report)
    (misrouted,) = of("MD402", report)
    assert set(refused.causes) == set(misrouted.causes) == {each.id for each in collisions}
    assert "from all 60 callers" in misrouted.message


def test_what_a_check_has_put_together_already_stays_as_it_says_it() -> None:
    """Sidecars that stopped alike, and the applications that have none for it."""
    report = examined(FIXTURES / "meshes" / "lab" / "sidecar-killed.tgz", 30)
    (down,) = of("MD302", report)
    (bare,) = of("MD301", report)
    assert bare.causes == (down.id,)
    assert down.id in {each.root for each in report.diagnoses if each.severity is Severity.ERROR}
    assert down.alike == bare.alike == 1
    assert "30 sidecars" in down.message


def test_up_to_a_few_are_told_one_by_one() -> None:
    """Nobody has to look into a list where each can be read."""
    path = FIXTURES / "checks/sidecars/admin_port_exposed/fires-any-address"
    found = of("MD310", examined(path, MANY))
    assert len(found) == MANY
    assert {each.alike for each in found} == {1}
