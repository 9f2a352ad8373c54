"""Settings that few meshes have: each is followed as Envoy would, or said not to be."""

from typing import Any, Final

import pytest
from msgspec.structs import replace

from meshdoctor.evidence.envoy import (
    Cluster,
    ClusterEndpoints,
    ConfigState,
    DirectResponse,
    Endpoint,
    EnvoyProxy,
    FreeForm,
    RejectedUpdate,
    Route,
    RouteConfiguration,
    RouteMatch,
)
from meshdoctor.routing import (
    Bypassed,
    Call,
    Closed,
    HopKind,
    Outcome,
    Reached,
    Unknown,
    Walk,
    follow,
)
from meshdoctor.routing.clusters import balance, in_subset
from meshdoctor.routing.configuration import configuration
from meshdoctor.routing.matching import request_headers
from meshdoctor.routing.model import UndecidedError
from meshdoctor.routing.redirect import NotRedirected, redirect
from meshdoctor.routing.references import ClusterReferences, route_references
from meshdoctor.routing.routes import why_not
from meshdoctor.routing.trace import TraceError, trace
from meshdoctor.topology import Mesh
from tests.routing.configured import Json, http, listener, proxy, tcp
from tests.routing.meshes import App, examine, istio
from tests.routing.real_envoy import address, static_cluster
from tests.routing.test_redirect import table
from tests.topology.containers import engine, proxies

NETWORK: Final = "type.googleapis.com/envoy.extensions.filters.network."
CALL: Final = Call("127.0.0.1", 80, host="h")


def to(cluster: str = "c", match: Json | None = None, **route: Any) -> Json:
    return {"match": match or {"prefix": "/"}, "route": {"cluster": cluster, **route}}


def asked(chain: Json, *clusters: Json, **call: Any) -> Walk:
    made = proxy(listener(chain), clusters=clusters)
    return follow(made, replace(CALL, **call), explain=True)


def why(outcome: Outcome) -> str:
    assert isinstance(outcome, Unknown | Closed), outcome
    return outcome.why


# ---------------------------------------------------------------- listeners and their chains


def test_a_match_tree_of_filter_chains_is_not_followed() -> None:
    """Not even where there is only one chain."""
    made = proxy(listener(tcp(), filter_chain_matcher={"on_no_match": {}}))
    outcome = follow(made, CALL).outcome
    assert isinstance(outcome, Unknown)
    assert "picks its filter chain by a match tree" in outcome.why


def test_a_chain_that_ends_nowhere_closes_the_connection() -> None:
    """Its only filter lets the connection pass, and nothing takes it on."""
    peers = {
        "name": "peers",
        "typed_config": {"@type": f"{NETWORK}metadata_exchange.v3.MetadataExchange"},
    }
    outcome = follow(proxy(listener({"filters": [peers]})), CALL).outcome
    assert isinstance(outcome, Closed)
    assert outcome.why == "the filter chain has no filter that would take the call on"


def test_a_filter_that_only_watches_is_passed() -> None:
    """What is behind it takes the call."""
    chain = tcp()
    watching = {"@type": f"{NETWORK}zookeeper_proxy.v3.ZooKeeperProxy"}
    chain["filters"].insert(0, {"name": "zoo", "typed_config": watching})
    assert isinstance(follow(proxy(listener(chain)), CALL).outcome, Reached)


def test_a_listener_of_datagrams_takes_no_connection() -> None:
    """It has the port, in another protocol."""
    datagrams = listener(tcp("d"))
    datagrams["address"]["socket_address"]["protocol"] = "UDP"
    made = proxy(datagrams, {**listener(tcp()), "name": "streams"})
    outcome = follow(made, CALL).outcome
    assert isinstance(outcome, Reached)
    assert outcome.destinations[0].cluster == "c"


def elsewhere(port: int, **more: Any) -> Json:
    return {**listener(tcp(), **more), "address": address("10.0.0.1", port)}


def test_where_a_redirect_leads_to() -> None:
    """The listener that has the port, whatever its address; not one that binds nothing."""
    rules = table("-A OUTPUT -p tcp -j REDIRECT --to-ports 15001")
    there = Call("192.0.2.7", 9080, host="h")
    for made, outcome in (
        (proxy(elsewhere(15001)), Reached),
        (proxy(elsewhere(15001, bind_to_port=False)), Closed),
        (proxy({**elsewhere(15001, bind_to_port=False), "address": address("::", 15001)}), Closed),
        (proxy(elsewhere(9080)), Closed),
    ):
        walk = follow(made, there, nat=rules)
        assert isinstance(walk.outcome, outcome)
        if isinstance(walk.outcome, Closed):
            assert walk.outcome.why == "refused: the proxy has no listener on port 15001"


def test_a_rule_whose_target_only_looks_on_decides_nothing() -> None:
    """`LOG` is no chain of the table; the next rule counts."""
    rules = table("-A OUTPUT -p tcp -j LOG", "-A OUTPUT -p tcp -j ACCEPT")
    verdict = redirect(rules, Call("10.0.0.2", 80), frozenset())
    assert isinstance(verdict, NotRedirected)
    assert verdict.rule is not None
    assert verdict.rule.target == "ACCEPT"
    walk = follow(proxy(), Call("10.0.0.2", 80), nat=rules)
    assert isinstance(walk.outcome, Bypassed)


def test_listeners_that_were_not_taken_are_told_with_the_reason() -> None:
    """One that still warms up and one that was refused; those of other ports are no news."""
    made = proxy(listener(tcp()))
    (taken,) = made.listeners
    warming = replace(taken, state=ConfigState.WARMING)
    refused = RejectedUpdate(
        kind="listener", name="new", details="no such filter", pointer="", listener=taken.listener
    )
    other = replace(refused, listener=replace(taken.listener, port=81))
    known = replace(made, listeners=(taken, warming), rejected=(refused, other))
    told = [
        each.why
        for each in follow(known, CALL, explain=True).not_taken
        if each.kind is HopKind.LISTENER
    ]
    assert told == ["it is warming", "the proxy refused it: no such filter"]


# ---------------------------------------------------------------- requests and their routes


def test_a_match_tree_of_routes_is_not_followed() -> None:
    """A virtual host may have one instead of a list."""
    outcome = asked(http(to(), host={"matcher": {}})).outcome
    assert "picks its routes by a match tree" in why(outcome)


def test_what_a_manager_changes_of_answers_alone_is_noted() -> None:
    """The request goes its way; how headers are checked changes nothing of a good one."""
    chain = http(
        to(), local_reply_config={"mappers": [{}]}, typed_header_validation_config={"name": "x"}
    )
    walk = asked(chain)
    assert isinstance(walk.outcome, Reached)
    assert walk.notes == ("the proxy's own answers may be rewritten (local_reply_config)",)


def test_a_route_for_connect_takes_that_method_alone() -> None:
    """Whatever path it has."""
    chain = http(to("d", {"connect_matcher": {}}), to())
    for method, cluster in (("CONNECT", "d"), ("GET", "c")):
        outcome = asked(chain, static_cluster("d", 8001), method=method).outcome
        assert isinstance(outcome, Reached)
        assert outcome.destinations[0].cluster == cluster


def test_a_path_matcher_of_an_extension_is_not_followed() -> None:
    """It is named."""
    outcome = asked(http(to(match={"path_match_policy": {"name": "uri"}}))).outcome
    assert "the path specifier 'path_match_policy' is not followed" in why(outcome)


def test_why_a_route_was_not_taken() -> None:
    """Of several conditions the first that fails; a share says of how many requests."""
    query = [{"name": "x", "string_match": {"exact": "1"}}, {"name": "y"}]
    half = {"default_value": {"numerator": 50, "denominator": "HUNDRED"}}
    none = {"default_value": {"numerator": 0, "denominator": "HUNDRED"}}
    chain = http(
        to(match={"prefix": "/", "query_parameters": query}),
        to(match={"prefix": "/", "grpc": {}}),
        to(match={"prefix": "/", "runtime_fraction": none}),
        to(match={"prefix": "/", "runtime_fraction": half}),
        to(),
    )
    walk = asked(chain, path="/?x=1")
    assert [each.why for each in walk.not_taken if each.kind is HopKind.ROUTE] == [
        "query parameter y does not match",
        "it takes gRPC only",
        "it takes 0 of 100 requests",
    ]
    assert isinstance(walk.outcome, Reached)


def test_mirrors_are_noted() -> None:
    """The answer of a mirror is thrown away: it decides nothing."""
    walk = asked(http(to(request_mirror_policies=[{"cluster": "m"}])))
    assert isinstance(walk.outcome, Reached)
    assert walk.notes == ("mirrored to m",)


# ---------------------------------------------------------------- clusters


def test_levels_share_what_rounding_leaves_over() -> None:
    """20 and 10 of 100 are 66 and 33: the first level gets the one that is left."""
    levels = ("h" + 6 * "u", "h" + 13 * "u")
    endpoints = [
        Endpoint(
            address=f"10.0.{level}.{number}",
            port=1,
            health="HEALTHY" if letter == "h" else "UNHEALTHY",
            priority=level,
        )
        for level, word in enumerate(levels)
        for number, letter in enumerate(word)
    ]
    calm = Cluster(name="c", panic_threshold=0.0)
    shares = {each.address: share for each, share in balance(calm, endpoints).endpoints}
    assert shares == pytest.approx({"10.0.0.0": 0.67, "10.0.1.0": 0.33})


V1: Final = FreeForm({"filter_metadata": {"envoy.lb": {"version": "v1"}}})
V2: Final = FreeForm({"filter_metadata": {"envoy.lb": {"version": "v2"}}})


def test_a_subset_that_nobody_is_in_falls_back() -> None:
    """To none, to all, or in a way that is not followed."""
    there = [Endpoint(address="10.0.0.1", metadata=V1)]
    cluster = Cluster(name="c", subset_selectors=(("version",),))
    assert in_subset(cluster, there, V2) == ()
    assert in_subset(replace(cluster, subset_fallback="ANY_ENDPOINT"), there, V2) == there
    with pytest.raises(UndecidedError, match="falls back to DEFAULT_SUBSET of its subsets"):
        in_subset(replace(cluster, subset_fallback="DEFAULT_SUBSET"), there, V2)


def test_a_share_of_a_split_adds_to_what_the_route_asks_of_endpoints() -> None:
    """Both together pick the subset."""

    def at(port: int, **labels: str) -> Json:
        metadata = {"filter_metadata": {"envoy.lb": labels}}
        return {"endpoint": {"address": address("127.0.0.1", port)}, "metadata": metadata}

    ends = [at(8001, stage="a", version="v1"), at(8002, stage="a", version="v2")]
    subsets = {
        **static_cluster("s", 8001),
        "load_assignment": {"cluster_name": "s", "endpoints": [{"lb_endpoints": ends}]},
        "lb_subset_config": {"subset_selectors": [{"keys": ["stage", "version"]}]},
    }
    share = {
        "name": "s",
        "weight": 1,
        "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v2"}}},
    }
    route = {
        "weighted_clusters": {"clusters": [share]},
        "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "a"}}},
    }
    outcome = asked(http({"match": {"prefix": "/"}, "route": route}), subsets).outcome
    assert isinstance(outcome, Reached)
    assert [each.port for each in outcome.destinations] == [8002]


def test_a_cluster_whose_choice_is_not_followed() -> None:
    """A header may name any endpoint."""
    written = {
        "name": "o",
        "type": "ORIGINAL_DST",
        "original_dst_lb_config": {"use_http_header": True},
    }
    outcome = asked(tcp("o"), written).outcome
    assert "picks its endpoints by original_dst_lb_config.use_http_header" in why(outcome)


def with_endpoints(made: EnvoyProxy, **held: ClusterEndpoints) -> EnvoyProxy:
    return replace(made, endpoints=held)


def test_endpoints_go_by_the_name_that_eds_has_for_them() -> None:
    """A cluster may ask under another name than its own."""
    written = {"name": "e", "type": "EDS", "eds_cluster_config": {"service_name": "there"}}
    made = proxy(listener(tcp("e")), clusters=(written,))
    there = ClusterEndpoints(
        cluster="there", endpoints=(Endpoint(address="10.0.0.9", port=1),), document="", pointer=""
    )
    outcome = follow(with_endpoints(made, there=there), CALL).outcome
    assert isinstance(outcome, Reached)
    assert [each.address for each in outcome.destinations] == ["10.0.0.9"]
    config = configuration(with_endpoints(made, there=there))
    assert config.endpoints_held(config.clusters["e"]) == there.endpoints
    assert config.endpoints_held(config.clusters["c"]) is None


def test_a_page_without_a_cluster_leaves_what_the_cluster_says_itself() -> None:
    """A static one names its endpoints in the dump."""
    made = with_endpoints(proxy(listener(tcp())))
    outcome = follow(made, CALL).outcome
    assert isinstance(outcome, Reached)
    assert [each.port for each in outcome.destinations] == [8000]


# ---------------------------------------------------------------- references


def test_what_refers_to_clusters() -> None:
    """The first route of several, and the default chain; a redirect refers to none."""
    routes = http(
        to("a"), {"match": {"prefix": "/"}, "redirect": {}}, to("a", match={"path": "/"})
    )
    made = proxy(listener(routes, default_filter_chain=tcp("rest")))
    found = ClusterReferences(made)
    assert list(found) == ["a", "rest"]
    assert len(found) == 2
    assert found["rest"].pointer.endswith("/default_filter_chain/filters/0")
    assert list(route_references(made)) == []


# ---------------------------------------------------------------- what a person asks


def mesh(*apps: App) -> Mesh:
    return examine(istio(apps)).get(Mesh)


@pytest.mark.parametrize(
    ("url", "method", "message"),
    [
        ("http://api:9080/", "GE T", "'GE T' is no HTTP method, as GET is"),
        ("http://[::1:9080/", "GET", "an IPv6 address stands in brackets"),
        ("http://[::1]9080/", "GET", "an IPv6 address stands in brackets"),
        ("http:///x", "GET", "names no host"),
        ("http://api:0/", "GET", "'0' is no port"),
        ("http://a b/", "GET", "has characters that no URL has"),
    ],
)
def test_a_call_that_nobody_can_make(url: str, method: str, message: str) -> None:
    """It is said before anything is followed."""
    with pytest.raises(TraceError) as caught:
        trace(mesh(App("web", "10.0.0.1"), App("api", "10.0.0.2")), "web", url, method=method)
    assert message in str(caught.value)


def test_a_url_may_have_an_address_of_ipv6() -> None:
    """In brackets, with a port behind them or none."""
    found = mesh(App("web", "10.0.0.1"), App("api", "10.0.0.2"))
    assert trace(found, "web", "http://[2001:db8::1]:9080/").url == "http://[2001:db8::1]:9080/"
    assert trace(found, "web", "http://[2001:db8::1]/").url == "http://[2001:db8::1]/"


def test_who_calls_among_many() -> None:
    """Some are named, and how many more there are."""
    apps = [App(f"app{number}", f"10.0.0.{number}") for number in range(1, 40)]
    with pytest.raises(TraceError, match=r"there are .* and \d+ more$"):
        trace(mesh(*apps), "zzzzzz", "http://api/")


def test_without_any_workload_nobody_can_call() -> None:
    """The evidence holds neither containers nor a catalogue with services."""
    nobody = Mesh.join(
        docker=engine(), catalog=None, proxies=None, netfilter=None, pilot=None, unreachable={}
    )
    with pytest.raises(TraceError, match="no workload is known"):
        trace(nobody, "web", "http://api/")


def test_a_route_that_takes_the_request_lost_it_to_an_earlier_one() -> None:
    """There is nothing else that it could have against it."""
    route = Route(match=RouteMatch(path_kind="prefix", path="/"), action=DirectResponse(200))
    headers = request_headers(authority="h", path="/", method="GET", scheme="http", headers=())
    why = why_not(RouteConfiguration(name="r"), route, headers)
    assert why == "an earlier route takes the request"


def test_a_table_of_endpoints_goes_by_the_name_that_eds_has_for_them() -> None:
    """As the page of clusters and the section of endpoints are held."""
    package = "type.googleapis.com/envoy.admin.v3."
    cluster = {"name": "e", "type": "EDS", "eds_cluster_config": {"service_name": "there"}}
    ends = [{"endpoint": {"address": address("10.0.0.9", 1)}}]
    assignment = {"cluster_name": "there", "endpoints": [{"lb_endpoints": ends}]}
    dump = {
        "configs": [
            {
                "@type": f"{package}ClustersConfigDump",
                "dynamic_active_clusters": [{"cluster": cluster}],
            },
            {
                "@type": f"{package}EndpointsConfigDump",
                "dynamic_endpoint_configs": [{"endpoint_config": assignment}],
            },
        ]
    }
    config = configuration(proxies(web=dump).proxies["web"])
    held = config.endpoints_held(config.clusters["e"])
    assert held is not None
    assert [each.address for each in held] == ["10.0.0.9"]
