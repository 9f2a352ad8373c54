"""The verdict on a mesh that runs is the verdict on its recording."""

from collections.abc import Sequence

import pytest

from meshdoctor.collectors import Options, collect
from meshdoctor.diagnosis import Checks, examine
from meshdoctor.report.document import Report
from meshdoctor.snapshot import Snapshot
from meshdoctor_checks import CHECKS
from tests.live.mesh import LiveMesh


def judged(snapshot: Snapshot) -> Report:
    return examine(snapshot, Checks(tuple(CHECKS)), {"kind": "live"})


def codes(report: Report) -> Sequence[Sequence[str]]:
    """Of each diagnosis, the root first."""
    by_id = {finding.id: finding.code for finding in report.findings}
    return [[by_id[each] for each in diagnosis.findings] for diagnosis in report.diagnoses]


@pytest.fixture
def report(mesh: LiveMesh) -> Report:
    options = Options(consul=mesh.address("consul", 8500), pilot=mesh.address("pilot", 15007))
    return judged(mesh.only(collect(options, lambda _message: None)))


def test_the_root_is_the_registrator(report: Report, mesh: LiveMesh) -> None:
    """One diagnosis from the image down to the calls, with the names of this very mesh."""
    first = report.diagnoses[0]
    root = next(each for each in report.findings if each.id == first.root)
    assert root.code == "MD202"
    assert mesh.name("registrator") in root.message
    assert "MD401" in codes(report)[0]


def test_live_and_recorded_tell_the_same(report: Report, mesh: LiveMesh) -> None:
    """Same codes, in the same places of the same trees."""
    assert codes(report) == codes(judged(mesh.recording))


def test_all_of_it_was_examined(report: Report, mesh: LiveMesh) -> None:
    """Every application and every sidecar."""
    assert report.coverage.workloads == len(mesh.apps)
    assert report.coverage.sidecars_examined == len(mesh.apps)
    assert not report.coverage.unreachable
