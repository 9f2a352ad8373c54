"""Twice the mesh is at most some two times the work, counted in steps and not by a clock."""

import sys
from types import FrameType
from typing import Any, Final

import pytest

from meshdoctor.check import Check, Examination, run
from meshdoctor.findings import Crashed
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot import open_snapshot
from meshdoctor.topology import Mesh
from tests.scale.multiplied import multiplied
from tests.scale.test_folding import CHECKS, case

COPIES: Final = 24
MOST: Final = 2.5

_PAIRS: Final = frozenset({"MD307", "MD407", "MD507"})
"""They compare services or rules with the routes of each sidecar, which differ in every copy;
where sidecars share routes, as in a real mesh, each is compared once."""


def steps(check: Check, examination: Examination) -> int:
    """The lines of Python that run, and the functions that are called."""
    number = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001 # Python's
        nonlocal number
        number += 1
        return count

    for need in check.needs:
        examination.find(need.evidence)
    examination.find(Mesh)
    before = sys.gettrace()
    sys.settrace(count)
    try:
        outcome = run(check, examination)
    finally:
        sys.settrace(before)
    assert not isinstance(outcome, Crashed)
    return number


def is_of_pairs(check: Check) -> bool:
    """Calls from each caller to each callee are a verdict each."""
    return check.code in _PAIRS or any(need.evidence is Calls for need in check.needs)


@pytest.mark.parametrize(
    "check", [each for each in CHECKS.checks if not is_of_pairs(each)], ids=lambda each: each.code
)
def test_no_check_is_quadratic(check: Check) -> None:
    """In copies of a recording in which it fires, so that its findings and remedies count too."""
    path = case(check)
    assert path is not None
    mesh = open_snapshot(path)
    fewer, more = (
        steps(check, Examination(multiplied(mesh, copies))) for copies in (COPIES, 2 * COPIES)
    )
    assert more <= MOST * fewer
