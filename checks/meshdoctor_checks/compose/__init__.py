"""What checks say of Compose files before anything runs, by the family of the check.

A function here judges what its namesake judges of a mesh. Its sentences say what would happen,
and nothing of what is running.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from meshdoctor.check import PlanFunction
from meshdoctor.findings import Fact, Finding

if TYPE_CHECKING:
    from meshdoctor.topology.plan import Plan


def plan_of(family: str, name: str) -> PlanFunction:
    """The judgement of that name; its module is only imported where Compose files are judged."""

    def judge(plan: "Plan") -> Iterator[Finding | Fact]:
        judgement: PlanFunction = getattr(import_module(f"{__name__}.{family}"), name)
        return judgement(plan)

    return judge
