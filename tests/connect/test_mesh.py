"""A real mesh of Consul's own kind, as meshdoctor sees it when nothing is wrong."""

from meshdoctor.collectors import collect
from meshdoctor.diagnosis import Checks, examine
from meshdoctor_checks import CHECKS
from tests.connect.mesh import ConnectMesh


def test_a_healthy_mesh_is_healthy(mesh: ConnectMesh) -> None:
    """No finding but the one on this Envoy, which is newer than this Consul supports."""
    options = mesh.options()
    report = examine(
        collect(options, lambda _message: None), Checks(tuple(CHECKS)), {"kind": "live"}
    )
    assert {each.code for each in report.findings} <= {"MD708"}
    assert report.coverage.sidecars_examined == len(mesh.services)
