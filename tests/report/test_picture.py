"""What there is to draw of a mesh, whatever its kind."""

from meshdoctor.check import Examination
from meshdoctor.findings import Severity
from meshdoctor.report.drawing import Mark, draw
from meshdoctor.report.picture import Condition, Picture
from meshdoctor.routing.calls import Calls, Verdict
from meshdoctor.snapshot import open_snapshot
from meshdoctor.topology import Mesh
from tests.cli.conftest import MESHES
from tests.report.made_up import made_up


def recorded(name: str) -> Picture:
    examination = Examination(open_snapshot(MESHES / f"{name}.tgz"))
    return Picture.of(examination.get(Mesh), examination.get(Calls).pairs)


def test_a_mesh_of_the_story() -> None:
    """Control plane, workloads with their sidecars, and what each service declares."""
    picture = recorded("broken")
    assert [each.called for each in picture.parts] == ["Consul", "Pilot", "Registrator"]
    assert {each.beside.condition for each in picture.callers} == {Condition.WELL}
    assert [(e.offered[0].service, e.offered[0].protocol) for e in picture.callees] == [
        (name, "") for name in ("details", "productpage", "ratings", "reviews")
    ]
    assert picture.counts == {Verdict.WRONG: 15, Verdict.BY_LUCK: 6, Verdict.RIGHT: 3}


def test_in_consuls_own_mesh_services_have_the_ports_they_are_called_on() -> None:
    """And no protocol, for nobody reads one of the catalogue there."""
    picture = recorded("connect-collision")
    offered = [each.offered[0] for each in picture.callees]
    assert [(each.service, each.port) for each in offered] == [
        ("api", 9191),
        ("db", 9193),
        ("db", 9194),
        ("pay", 9191),
        ("web", 8180),
    ]
    assert {each.protocol for each in offered} == {None}


def test_a_broken_line_has_another_where_the_call_ends() -> None:
    """One for each caller, however many services it does not reach."""
    lines = [each.mood for each in draw(recorded("broken"), {}).lines]
    assert lines.count("broken") == 15
    assert lines.count("astray") == 6
    assert all(each.cross is None for each in draw(recorded("fixed"), {}).lines)


def test_what_findings_are_about_is_marked() -> None:
    """By the worst of them, with the first of their codes."""
    mark = Mark.joined(None, Severity.WARNING, "MD101")
    for code in ("MD102", "MD103", "MD101"):
        mark = Mark.joined(mark, Severity.ERROR, code)
    assert (mark.severity, mark.said) == (Severity.ERROR, "MD101 MD102 +1")
    boxes = draw(recorded("fixed"), {("component", "consul_pilot_1"): mark}).boxes
    marked = {each.whole for each in boxes if each.mark}
    assert marked == {"Pilot, consul_pilot_1"}


def test_a_healthy_mesh_of_any_size_is_one_group() -> None:
    """All its callers fare alike, and all its services are reached alike."""
    _, picture = made_up(40, 40, broken=False)
    assert [len(each.names) for each in picture.callers] == [40]
    assert [len(each.offered) for each in picture.callees] == [40]


def test_nothing_is_drawn_of_a_mesh_that_is_not_known() -> None:
    """An empty picture, and no fault."""
    assert Picture.of(None) == Picture()
