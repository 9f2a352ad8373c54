"""States of the lab's mesh, recorded as its tests leave them: the verdict is the table's.

Each was recorded by tests/live/lab, with what requests met at that moment beside it.
"""

import json
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.snapshot import open_snapshot
from tests.live.lab.faults import FAULTS
from tests.live.lab.judging import disagreements, explains, judged, predicted, roots, text
from tests.live.lab.lab import Call

STATES: Final = Path(__file__).parents[2] / "fixtures" / "meshes" / "lab"
BY_NAME: Final = {each.name: each for each in FAULTS}


@pytest.mark.parametrize("archive", sorted(STATES.glob("*.tgz")), ids=lambda path: path.stem)
def test_a_recorded_state_has_its_cause(archive: Path) -> None:
    """The cause in the table is the diagnosis, and nothing else is found."""
    report = judged(open_snapshot(archive))
    assert explains(report, BY_NAME[archive.stem]), f"{roots(report)}\n{text(report)}"


@pytest.mark.parametrize("archive", sorted(STATES.glob("*.tgz")), ids=lambda path: path.stem)
def test_a_recorded_state_is_what_requests_met(archive: Path) -> None:
    """From every application to every service."""
    met = json.loads(archive.with_suffix(".calls.json").read_text(encoding="utf-8"))
    calls = [Call(**each) for each in met]
    assert len(calls) == 24
    assert disagreements(calls, predicted(open_snapshot(archive))) == []
