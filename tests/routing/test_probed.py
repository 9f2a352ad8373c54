"""Prediction beside reality: what counts as the same, and what the recordings' own probes say."""

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from meshdoctor.check import Examination
from meshdoctor.evidence.probe import (
    Answer,
    AnsweredBy,
    Failure,
    How,
    Moved,
    Probed,
    ProbeResults,
    Request,
)
from meshdoctor.routing import Answered, Bypassed, Closed, Outcome, Unknown
from meshdoctor.routing.calls import Calls, Common, Judgement, Verdict
from meshdoctor.routing.probed import Agreement, Comparison, compare
from meshdoctor.routing.registry import Registry
from meshdoctor.snapshot import open_snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import App, examine, istio, outbound

MESHES: Final = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS: Final = sorted(path.name.partition(".")[0] for path in MESHES.glob("*.probe.txt"))
DETAILS: Final = "consul_details-v1_1"
OK: Final = Answer(200)


def joined(mesh: str) -> tuple[Mesh, Calls]:
    examination = Examination(open_snapshot(MESHES / f"{mesh}.tgz"))
    return examination.get(Mesh), examination.get(Calls)


@pytest.fixture(scope="module")
def fixed() -> tuple[Mesh, Calls]:
    return joined("fixed")


def request(callee: str = "ratings", **met: object) -> Request:
    asked = Request(callee=callee, port=9080, url=f"http://{callee}:9080/", name=callee)
    return msgspec.structs.replace(asked, **met)


def compared(mesh: tuple[Mesh, Calls], asked: Request, caller: str = DETAILS) -> Comparison:
    probed = Probed(caller, "namespace", asked, "probe/x.json", "/requests/0")
    (comparison,) = compare(*mesh, ProbeResults((probed,)))
    return comparison


@pytest.mark.parametrize("mesh", RECORDINGS)
def test_recorded_probes_met_what_is_predicted(mesh: str) -> None:
    """In each recorded mesh, for each request that was really sent there."""
    found = joined(mesh)
    pairs = {(pair.caller, pair.callee): pair for pair in found[1].pairs}
    lines = (MESHES / f"{mesh}.probe.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        client, callee, status, answered = line.split()
        # The Compose project is left out there.
        caller = client if (client, callee) in pairs else f"consul_{client}"
        pair = pairs[caller, callee]
        asked = Request(
            callee=callee,
            port=pair.port,
            url=pair.url,
            answer=Answer(int(status)),
            answered_by=AnsweredBy(answered, How.STATISTICS),
        )
        comparison = compared(found, asked, caller)
        assert comparison.agreement is Agreement.SAME, line
        assert str(comparison.observed) == answered


def test_an_answer_of_another_service_differs(fixed: tuple[Mesh, Calls]) -> None:
    """Both are known, and they are not the same."""
    by = AnsweredBy("reviews", How.HEADER)
    comparison = compared(fixed, request(answer=OK, answered_by=by))
    assert comparison.agreement is Agreement.DIFFERENT
    assert (str(comparison.predicted), str(comparison.observed)) == ("ratings", "reviews")


def test_who_answered_may_stay_unknown(fixed: tuple[Mesh, Calls]) -> None:
    """Then nothing is compared."""
    assert compared(fixed, request(answer=OK)).agreement is Agreement.UNKNOWN
    known = request(answer=OK, answered_by=AnsweredBy("ratings", How.BODY))
    assert compared(fixed, known, "nobody").agreement is Agreement.UNKNOWN
    (without,) = compare(
        fixed[0], None, ProbeResults((Probed(DETAILS, "exec", known, "probe/x.json", ""),))
    )
    assert without.agreement is Agreement.UNKNOWN


@pytest.mark.parametrize(
    ("met", "agreement"),
    [
        # The proxy had no route, no cluster, no endpoint: it was predicted to have one.
        ({"answer": Answer(404), "answered_by": AnsweredBy(None, How.PROXY, "NR")}, "different"),
        ({"failure": Failure.REFUSED}, "different"),
        # It failed on its way, and nobody can tell whether that was the right one.
        ({"failure": Failure.TIMED_OUT}, "unknown"),
        ({"answer": Answer(503), "answered_by": AnsweredBy(None, How.PROXY, "UF")}, "unknown"),
        ({"failure": Failure.NOT_HTTP}, "unknown"),
    ],
)
def test_a_failure_where_a_service_was_predicted(
    fixed: tuple[Mesh, Calls], met: dict[str, Any], agreement: str
) -> None:
    """The configuration cannot know that an application is dead: that alone is no difference."""
    assert compared(fixed, request(**met)).agreement == agreement


def test_a_failure_on_the_predicted_way_is_as_predicted(fixed: tuple[Mesh, Calls]) -> None:
    """Where the proxy's counters tell to whom it had sent the call."""
    addresses = {
        name: fixed[0].services[name].instances[0].address for name in ("ratings", "reviews")
    }
    for name, agreement in (("ratings", Agreement.SAME), ("reviews", Agreement.DIFFERENT)):
        moved = (Moved("cluster", addresses[name], 9080, 1),)
        failed = request(failure=Failure.CLOSED, moved=moved)
        assert compared(fixed, failed).agreement is agreement


def test_a_path_with_a_route_of_its_own_is_followed_anew(fixed: tuple[Mesh, Calls]) -> None:
    """The pair was judged on `/`; without such a route its judgement stands for any path."""
    by = AnsweredBy("ratings", How.STATISTICS)
    asked = request(path="/ratings/1", answer=OK, answered_by=by)
    assert compared(fixed, asked).agreement is Agreement.SAME


def test_the_address_that_was_given_decides() -> None:
    """A call to one's own address goes another way than one to another instance's."""
    broken = joined("broken")
    own = broken[0].services["details"].instances[0].address
    by = AnsweredBy("details", How.STATISTICS)
    asked = request("details", answer=OK, answered_by=by, connected=f"{own}:9080")
    comparison = compared(broken, asked)
    assert comparison.agreement is Agreement.SAME
    assert comparison.pair is not None
    elsewhere = replace(comparison.probed, caller="consul_ratings-v1_1")
    (other,) = compare(*broken, ProbeResults((elsewhere,)))
    assert other.agreement is Agreement.DIFFERENT


def test_a_proxys_address_stands_for_its_service() -> None:
    """In Consul's own mesh endpoints are other sidecars."""
    mesh, _ = joined("connect-healthy")
    proxy = next(each for each in mesh.proxies if each.proxy is not None)
    assert proxy.proxy is not None
    registry = Registry(mesh)
    assert registry.service_at(proxy.address, proxy.port) == proxy.proxy.destination
    assert registry.service_at("192.0.2.1", 1) is None


RATINGS: Final = "ratings"


def followed_to(
    mesh: tuple[Mesh, Calls],
    verdict: Verdict,
    outcome: Outcome | None = None,
    *,
    has_sidecar: bool = True,
    **said: Any,
) -> tuple[Mesh, Calls]:
    """The mesh with one pair that was judged so, whose walk ends in `outcome`."""
    pair = next(each for each in mesh[1].pairs if (each.caller, each.callee) == (DETAILS, RATINGS))
    walk = pair.walks[0] if outcome is None else replace(pair.walks[0], outcome=outcome)
    (row,) = [each for each in mesh[1].rows if each.caller.name == DETAILS]
    (target,) = [each for each in row.common.targets if each.service == RATINGS]
    sidecar = row.sidecar if has_sidecar else None
    made = Judgement(
        walks=(walk,),
        verdict=verdict,
        reached=None,
        instances=(),
        status=None,
        reason="",
        why="",
    )
    common = Common((target,), (replace(made, **said),))
    return mesh[0], Calls((replace(row, sidecar=sidecar, common=common, but={}),))


ANSWERED_404: Final = {"answer": Answer(404), "answered_by": AnsweredBy(None, How.PROXY, "NR")}


@pytest.mark.parametrize(
    ("outcome", "met", "predicted", "agreement"),
    [
        (Answered(404, "NR", ""), ANSWERED_404, "nowhere (404)", Agreement.SAME),
        (Answered(503, "UH", ""), ANSWERED_404, "nowhere (503)", Agreement.DIFFERENT),
        (Closed("", ""), {"failure": Failure.CLOSED}, "nowhere", Agreement.SAME),
        (Closed("", ""), ANSWERED_404, "nowhere", Agreement.SAME),
        (Bypassed("192.0.2.1", 1, ""), {"failure": Failure.REFUSED}, "nowhere", Agreement.SAME),
    ],
)
def test_a_call_that_is_predicted_to_end_nowhere(
    fixed: tuple[Mesh, Calls],
    outcome: Outcome,
    met: dict[str, Any],
    predicted: str,
    agreement: Agreement,
) -> None:
    """By the proxy's own answer, where it gives one."""
    comparison = compared(followed_to(fixed, Verdict.NOWHERE, outcome), request(**met))
    assert str(comparison.predicted) == predicted
    assert comparison.agreement is agreement


def test_a_call_past_the_proxy_ends_at_whose_address_it_is(fixed: tuple[Mesh, Calls]) -> None:
    """As far as somebody is registered there."""
    at = fixed[0].services[RATINGS].instances[0].address
    mesh = followed_to(fixed, Verdict.RIGHT, Bypassed(at, 9080, ""), reached=RATINGS)
    by = AnsweredBy(RATINGS, How.HEADER)
    assert compared(mesh, request(answer=OK, answered_by=by)).agreement is Agreement.SAME


def test_what_could_not_be_followed_predicts_nothing(fixed: tuple[Mesh, Calls]) -> None:
    """An unknown verdict is compared with nothing; an unknown walk leaves the pair's verdict."""
    asked = request(answer=OK, answered_by=AnsweredBy(RATINGS, How.HEADER))
    unknown = compared(followed_to(fixed, Verdict.UNKNOWN), asked)
    assert (unknown.agreement, str(unknown.predicted)) == (Agreement.UNKNOWN, "unknown")
    judged = followed_to(fixed, Verdict.RIGHT, Unknown("a filter may decide"))
    assert compared(judged, asked).agreement is Agreement.SAME


def test_without_its_sidecar_a_call_stands_as_it_was_followed(fixed: tuple[Mesh, Calls]) -> None:
    """Whatever the path: there is nothing to follow it through."""
    mesh = followed_to(fixed, Verdict.RIGHT, has_sidecar=False)
    asked = request(path="/x", answer=OK, answered_by=AnsweredBy(RATINGS, How.HEADER))
    assert compared(mesh, asked).agreement is Agreement.SAME


@pytest.mark.parametrize(("path", "service"), [("/", "api"), ("/pay/1", "pay")])
def test_another_path_may_have_another_end(path: str, service: str) -> None:
    """The pair was judged on `/`; the request is held against the route that it met."""
    apps = [App(name, f"10.0.0.{number}") for number, name in enumerate(("web", "api", "pay"), 1)]
    documents = istio(apps)
    for section in documents["envoy/web-1/config_dump.json"]["configs"]:
        for config in section.get("dynamic_route_configs", ()):
            for host in config["route_config"]["virtual_hosts"]:
                if host["name"].startswith("api."):
                    to = {"cluster": outbound("pay", 9080)}
                    host["routes"].insert(0, {"match": {"prefix": "/pay"}, "route": to})
    examination = examine(documents)
    mesh = (examination.get(Mesh), examination.get(Calls))
    pair = next(each for each in mesh[1].pairs if (each.caller, each.callee) == ("web-1", "api"))
    asked = Request(
        callee="api",
        port=pair.port,
        url=pair.url,
        path=path,
        answer=OK,
        answered_by=AnsweredBy(service, How.HEADER),
    )
    comparison = compared(mesh, asked, "web-1")
    assert str(comparison.predicted) == service
    assert comparison.agreement is Agreement.SAME
