"""Twice the mesh is at most some two times the work, counted in steps and not by a clock."""

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final, TypeVar

import pytest

from meshdoctor.check import Check, Examination, run
from meshdoctor.findings import Crashed
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot import open_snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import App, examine, istio
from tests.scale.multiplied import multiplied
from tests.scale.test_folding import CHECKS, case

T = TypeVar("T")

COPIES: Final = 24
MOST: Final = 2.5

_PAIRS: Final = frozenset({"MD407", "MD507"})
"""They compare services or rules with the routes of each sidecar, which differ in every copy;
where sidecars share routes, as in a real mesh, each is compared once."""


def counted(action: Callable[[], T]) -> tuple[int, T]:
    """The lines of Python that run, and the functions that are called; and what came of it."""
    number = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001 # Python's
        nonlocal number
        number += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        found = action()
    finally:
        sys.settrace(before)
    return number, found


def steps(check: Check, examination: Examination) -> int:
    """What the check itself takes, where the evidence is there."""
    for need in check.needs:
        examination.find(need.evidence)
    examination.find(Mesh)
    number, outcome = counted(lambda: run(check, examination))
    assert not isinstance(outcome, Crashed)
    return number


def is_of_pairs(check: Check) -> bool:
    """Calls from one copy to another end nowhere, and are told of one by one."""
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


# ---------------------------------------------------------------- calls


def apps(services: int, sidecars: int, protocol: str | None = "http") -> list[App]:
    names = [f"svc{number % services:03}" for number in range(sidecars)]
    return [
        App(name, f"10.0.{n // 200}.{n % 200 + 1}", protocol=protocol)
        for n, name in enumerate(names)
    ]


def sound(services: int, sidecars: int) -> Examination:
    """A mesh where every call is right: no two sidecars are told the same, but nearly."""
    return examine(istio(apps(services, sidecars)))


def collided(services: int, sidecars: int) -> Examination:
    """A mesh whose calls all reach one service, which has the TCP listener of their port."""
    return examine(istio(apps(services, sidecars, protocol=None), {9080: "svc000"}))


@pytest.mark.parametrize(
    ("small", "large"), [((24, 24), (48, 48)), ((24, 48), (24, 96)), ((12, 48), (24, 48))], ids=str
)
def test_calls_are_not_followed_pair_by_pair(
    small: tuple[int, int], large: tuple[int, int]
) -> None:
    """Twice the services and twice the sidecars are four times the pairs, and twice the work."""
    fewer, more = (
        counted(partial(Calls.of, sound(*size).get(Mesh)))[0] for size in (small, large)
    )
    assert more <= MOST * fewer


@pytest.mark.parametrize(
    "check",
    [each for each in CHECKS.checks if each.code in {"MD402", "MD409"}],
    ids=lambda each: each.code,
)
def test_right_calls_are_counted_together(check: Check) -> None:
    """Nothing is made of each pair, or looked at in it."""
    fewer, more = (steps(check, sound(size, size)) for size in (24, 48))
    assert more <= MOST * fewer


def test_wrong_calls_are_told_without_going_through_each_of_their_ways() -> None:
    """Twice the sidecars are twice the callers, and twice the ways that each call may take."""
    (check,) = (each for each in CHECKS.checks if each.code == "MD402")
    fewer, more = (steps(check, collided(24, size)) for size in (96, 192))
    assert more <= MOST * fewer
