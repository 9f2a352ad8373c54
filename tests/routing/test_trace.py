"""One call as a person names it: who calls, what the URL means, and where it goes."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdoctor.check import Examination
from meshdoctor.routing.calls import Calls, Verdict
from meshdoctor.routing.model import Answered, HopKind
from meshdoctor.routing.trace import Trace, TraceError, find_source, trace
from meshdoctor.snapshot import open_snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import App, Documents, examine, istio, listener, outbound, tcp

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS = ("broken", "fixed", "broken-v2", "fixed-v2", "connect-healthy", "connect-collision")


@cache
def recorded(name: str) -> Examination:
    return Examination(open_snapshot(MESHES / f"{name}.tgz"))


def mesh(name: str = "broken") -> Mesh:
    return recorded(name).get(Mesh)


@pytest.mark.parametrize("name", RECORDINGS)
def test_agrees_with_the_matrix(name: str) -> None:
    """Tracing a row's caller and URL gives the row."""
    for pair in recorded(name).get(Calls).pairs:
        traced = trace(mesh(name), pair.caller, pair.url)
        assert traced.source == pair.caller
        if traced.expected != pair.callee:
            # One address is two upstreams': the URL cannot say which of them is meant.
            assert f"{pair.callee} too" in traced.understood[0]
            assert traced.reached == pair.reached
            continue
        assert (traced.verdict, traced.reached) == (pair.verdict, pair.reached)
        assert (traced.instances, traced.status) == (pair.instances, pair.status)
        assert traced.reason == pair.reason


# ---------------------------------------------------------------- who calls


@pytest.mark.parametrize(
    ("source", "workload"),
    [
        ("consul_reviews-v2_1", "consul_reviews-v2_1"),
        ("consul_reviews-v2-sidecar_1", "consul_reviews-v2_1"),
        ("reviews-v2", "consul_reviews-v2_1"),
        ("REVIEWS-V2", "consul_reviews-v2_1"),
        ("productpage", "consul_productpage-v1_1"),
        ("reviews", "consul_reviews-v1_1"),
    ],
)
def test_a_source_goes_by_many_names(source: str, workload: str) -> None:
    """A workload, its sidecar, a service, or a part that only one has; else it is said."""
    found, said = find_source(mesh(), source)
    assert found.name == workload
    assert bool(said) == (source != workload)


def test_a_service_of_several_workloads_says_which_calls() -> None:
    """The first does, and the others are named."""
    _, said = find_source(mesh(), "reviews")
    assert said == (
        "reviews is a service; the caller is consul_reviews-v1_1 "
        "(not consul_reviews-v2_1, consul_reviews-v3_1)."
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("review", "may mean any of consul_reviews-v1_1, consul_reviews-v2_1, "),
        ("prodctpage", "near are productpage"),
        ("zzz", "there are consul_details-v1_1, consul_productpage-v1_1, "),
        ("", "no workload, sidecar or service is called ''"),
    ],
)
def test_an_unclear_source_names_the_candidates(source: str, message: str) -> None:
    """Nobody has to guess what could have been typed."""
    with pytest.raises(TraceError) as caught:
        find_source(mesh(), source)
    assert message in str(caught.value)


def test_a_sidecar_beside_nothing_can_be_traced() -> None:
    """Its configuration is there, whosever it was."""
    documents = istio((App("web", "10.0.0.1"), App("api", "10.0.0.2")))
    documents["consul/catalog/service/web.json"] = []
    traced = trace(examine(documents).get(Mesh), "web-1", "http://api:9080/")
    assert (traced.source, traced.verdict) == ("web-1", Verdict.RIGHT)


def test_without_a_readable_sidecar_the_verdict_is_unknown() -> None:
    """There are no hops then, and the reason says why."""
    documents = istio((App("web", "10.0.0.1"), App("api", "10.0.0.2")))
    for page in ("config_dump", "clusters"):
        del documents[f"envoy/web-1/{page}.json"]
    traced = trace(examine(documents).get(Mesh), "web", "http://api:9080/")
    assert (traced.verdict, traced.ways, traced.sidecar) == (Verdict.UNKNOWN, (), None)
    assert "has no sidecar" in traced.reason


# ---------------------------------------------------------------- what is called


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://ratings:9080/", "ratings:9080"),
        ("http://RATINGS:9080", "RATINGS:9080"),
        ("http://ratings.service.consul:9080/x", "ratings.service.consul:9080"),
        ("http://ratings.service.consul.:9080/x", "ratings.service.consul:9080"),
        ("http://ratings.service.dc1.consul:9080/", "ratings.service.dc1.consul:9080"),
        ("http://user:secret@ratings:9080/", "ratings:9080"),
        ("http://172.28.0.7:9080/", "172.28.0.7:9080"),
        ("http://7cd48d9a2d52:consul_ratings-v1_1:9080/", "172.28.0.7:9080"),
        ("http://7cd48d9a2d52:consul_ratings-v1_1:9080:9080/", "172.28.0.7:9080"),
        ("http://consul_ratings-v1_1:9080/", "consul_ratings-v1_1:9080"),
        ("http://consul_ratings-v1_1/", "consul_ratings-v1_1"),
        ("https://ratings:9080/", "ratings:9080"),
        ("HTTP://ratings:9080?a=b#c", "ratings:9080"),
        ("tcp://ratings:9080", None),
    ],
)
def test_a_url_names_its_service_in_many_ways(url: str, host: str | None) -> None:
    """All mean the one instance of ratings; the Host header is as clients write it."""
    traced = trace(mesh(), "consul_productpage-v1_1", url)
    assert traced.expected == "ratings"
    (way,) = traced.ways
    assert way.walk.call.destination == "172.28.0.7:9080"
    assert way.walk.call.host == host or "consul_ratings" in url
    assert way.walk.call.tls == url.startswith("https")


def test_a_tag_picks_the_instances_that_have_it() -> None:
    """As Consul's DNS does: v3.reviews.service.consul."""
    document = "version|v3.reviews.service.consul"
    traced = trace(mesh(), "consul_productpage-v1_1", f"http://{document}:9080/")
    assert [way.walk.call.address for way in traced.ways] == ["172.28.0.9"]
    assert not traced.ways[0].alike


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ratings:9080", "write http, https or tcp"),
        ("ftp://ratings", "write http, https or tcp"),
        ("http://", "names no host"),
        ("http:///x", "names no host"),
        ("http://ratings:port/", "'port' is no port"),
        ("http://ratings:0/", "'0' is no port"),
        ("http://ratings:99999/", "'99999' is no port"),
        ("http://ratings:٣/", "is no port"),
        ("http://[::1/", "stands in brackets"),
        ("http://rat ings/", "has characters that no URL has"),
        ("tcp://ratings", "name the port, as in tcp://ratings:9080"),
        ("http://ratngs:9080/", "near are ratings"),
        ("http://example.com/", "-H 'Host: example.com'"),
        ("http://v9.ratings.service.consul:9080/", "no instance with the tag v9"),
    ],
)
def test_a_url_that_cannot_be_followed_says_what_to_write(url: str, message: str) -> None:
    """Never a traceback, always what would do."""
    with pytest.raises(TraceError) as caught:
        trace(mesh(), "consul_productpage-v1_1", url)
    assert message in str(caught.value)


def test_a_port_that_no_instance_has_is_followed_and_said() -> None:
    """The call goes where it goes; the URL that was meant is offered."""
    traced = trace(mesh(), "consul_productpage-v1_1", "http://ratings/")
    assert "did you mean http://ratings:9080/" in " ".join(traced.understood)
    assert (traced.verdict, traced.reached) == (Verdict.NOWHERE, None)


def test_an_address_that_nobody_registered_is_right_if_it_is_kept() -> None:
    """There is no service that could be missed: the call goes to the address itself."""
    traced = trace(mesh(), "consul_productpage-v1_1", "http://10.9.8.7:1234/")
    assert traced.expected is None
    assert (traced.verdict, traced.reached) == (Verdict.RIGHT, None)
    assert "the very address that was called" in traced.reason


def test_an_address_that_a_listener_takes_is_wrong() -> None:
    """The wildcard listener takes calls to whatever address, also outside of the mesh."""
    traced = trace(mesh(), "consul_productpage-v1_1", "http://10.9.8.7:9080/")
    assert (traced.expected, traced.verdict, traced.reached) == (None, Verdict.WRONG, "reviews")


def test_an_upstream_is_called_at_its_local_address() -> None:
    """In Consul's own mesh an application names a local port, or says the service's name."""
    for url in ("http://api/", "http://127.0.0.1:9191/", "http://localhost:9191/"):
        traced = trace(mesh("connect-collision"), "web", url)
        assert (traced.expected, traced.reached) == ("api", "pay"), url
        assert traced.verdict is Verdict.WRONG


def test_passing_by_an_upstream_is_said() -> None:
    """An explicit other port goes where Consul's DNS leads, not through the sidecar."""
    traced = trace(mesh("connect-healthy"), "web", "http://api:8181/")
    assert "passes by the upstream" in " ".join(traced.understood)
    assert (traced.verdict, traced.reached) == (Verdict.RIGHT, "api")


# ---------------------------------------------------------------- where it goes


def kinds(traced: Trace) -> list[str]:
    return [hop.kind.value for way in traced.ways for hop in way.walk.hops]


def test_the_hops_of_a_call_that_was_misled() -> None:
    """The listener is TCP, so there is no virtual host and no route."""
    traced = trace(mesh(), "consul_details-v1_1", "http://ratings:9080/")
    assert kinds(traced) == [
        "redirect",
        "listener",
        "filter chain",
        "cluster",
        "endpoint",
        "endpoint",
        "endpoint",
    ]
    assert traced.reason == (
        "reaches reviews instead of ratings: listener 0.0.0.0:9080 is TCP and sends every "
        "connection to outbound|9080||reviews.service.consul"
    )


def test_the_hops_of_a_call_that_is_right() -> None:
    """All decisions of an HTTP call, then those of the callee's own sidecar."""
    traced = trace(mesh("fixed"), "consul_details-v1_1", "http://ratings:9080/")
    assert kinds(traced) == [kind.value for kind in HopKind]
    (landed,) = traced.ways[0].landed
    assert landed.arrival.workload.name == "consul_ratings-v1_1"
    assert landed.arrival.walk.proxy == "consul_ratings-v1-sidecar_1"
    assert landed.arrival.walk.call.inbound
    assert landed.arrival.walk.hops[-1].name == "127.0.0.1:9080"


def test_far_sides_that_do_alike_are_told_once() -> None:
    """Three instances of reviews take the call in the same way."""
    traced = trace(mesh("fixed"), "consul_details-v1_1", "http://reviews:9080/")
    (way,) = traced.ways
    assert way.alike == ("172.28.0.7:9080", "172.28.0.9:9080") or len(way.alike) == 2
    (landed,) = way.landed
    assert len(landed.alike) == 2


def test_an_address_that_is_treated_differently_is_a_way_of_its_own() -> None:
    """One's own address has a listener of its own; the others share one."""
    traced = trace(mesh("broken"), "consul_reviews-v2_1", "http://reviews:9080/")
    assert [len(way.alike) for way in traced.ways] == [1, 0]
    assert traced.verdict is Verdict.BY_LUCK


def test_what_nearly_matched_is_kept() -> None:
    """A refused listener of the same address is told, with the proxy's own reason."""
    traced = trace(mesh("connect-collision"), "web", "http://api/")
    told = [each for walk in traced.walks for each in walk.not_taken]
    assert any("duplicate address '127.0.0.1:9191'" in each.why for each in told)


def test_headers_and_method_decide_routes() -> None:
    """A route may match by header; without it the next one is taken, and the reason is kept."""
    documents = istio((App("web", "10.0.0.1"), App("api", "10.0.0.2"), App("pay", "10.0.0.3")))
    add_route(
        documents,
        "api",
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}],
            },
            "route": {"cluster": outbound("pay", 9080), "retry_policy": {"retry_on": "5xx"}},
        },
    )
    examined = examine(documents).get(Mesh)
    plain = trace(examined, "web", "http://api:9080/")
    assert (plain.verdict, plain.notes) == (Verdict.RIGHT, ())
    told = [each for walk in plain.walks for each in walk.not_taken if each.kind is HopKind.ROUTE]
    assert len(told) == 1
    assert "end-user" in told[0].why
    jason = trace(examined, "web", "http://api:9080/", headers=(("End-User", "jason"),))
    assert (jason.verdict, jason.reached) == (Verdict.WRONG, "pay")
    assert any("retr" in note for note in jason.notes)


def add_route(documents: Documents, service: str, route: dict[str, Any]) -> None:
    for section in documents["envoy/web-1/config_dump.json"]["configs"]:
        for each in section.get("dynamic_route_configs", ()):
            for host in each["route_config"]["virtual_hosts"]:
                if host["name"].startswith(f"{service}."):
                    host["routes"].insert(0, route)


def test_a_host_header_may_be_given_by_hand() -> None:
    """The address is the URL's, the virtual host the header's."""
    traced = trace(
        mesh("fixed"),
        "consul_details-v1_1",
        "http://172.28.0.5:9080/",
        headers=(("Host", "nobody.example"),),
    )
    outcome = traced.ways[0].walk.outcome
    assert isinstance(outcome, Answered)
    assert (traced.verdict, traced.status, outcome.flag) == (Verdict.NOWHERE, 404, "NR")


def test_each_way_has_its_own_far_side() -> None:
    """An address that a listener of its own leads astray ends elsewhere."""
    apps = (App("web", "10.0.0.1"), App("api", "10.0.0.2"), App("api", "10.0.0.3"))
    documents = istio((*apps, App("pay", "10.0.0.4")))
    for section in documents["envoy/web-1/config_dump.json"]["configs"]:
        if "dynamic_listeners" in section:
            astray = listener("10.0.0.3", 9080, tcp(outbound("pay", 9080)))
            section["dynamic_listeners"].append(astray)
    traced = trace(examine(documents).get(Mesh), "web", "http://api:9080/")
    assert (traced.verdict, traced.reached) == (Verdict.WRONG, "pay")
    landed = [way.landed[0].arrival.workload.name for way in traced.ways]
    assert landed == ["api-2", "pay-4"]


text = st.text(max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    source=st.sampled_from(["consul_details-v1_1", "reviews", "web"]) | text,
    url=text | text.map("http://{}".format) | text.map("https://ratings:9080/{}".format),
)
def test_whatever_is_typed_is_followed_or_refused(source: str, url: str) -> None:
    """No input gives anything but a trace or a message."""
    with suppress(TraceError):
        assert trace(mesh(), source, url).url == url
