"""What is written in a proxy and not followed is said; what is followed of it is right."""

from typing import Any, Final

import pytest

from meshdoctor.routing import Answered, Call, Closed, Outcome, Reached, Unknown, follow
from tests.routing.configured import Json, http, listener, proxy, tcp
from tests.routing.real_envoy import static_cluster

ROUTE: Final[Json] = {"match": {"prefix": "/"}, "route": {"cluster": "c"}}
TYPE: Final = "type.googleapis.com/envoy.extensions.filters."
SECURED: Final = {"name": "envoy.transport_sockets.tls"}


def called(chain: Json, *clusters: Json, **call: Any) -> Outcome:
    given = {"host": "h", **call}
    return follow(
        proxy(listener(chain), clusters=clusters), Call("127.0.0.1", 80, **given)
    ).outcome


def said(outcome: Outcome) -> str:
    """Why it is not known."""
    assert isinstance(outcome, Unknown), outcome
    return outcome.why


# ---------------------------------------------------------------- the connection manager


@pytest.mark.parametrize(
    ("manager", "path", "why"),
    [
        (
            {"path_with_escaped_slashes_action": "REJECT_REQUEST"},
            "/a%2Fb",
            "the path has escaped slashes, and REJECT_REQUEST is not followed",
        ),
        ({"normalize_path": True}, "/a%2Db", "its escapes are not followed"),
        ({"normalize_path": True}, "/a\\b", "its escapes are not followed"),
        ({"early_header_mutation_extensions": [{"name": "x"}]}, "/", "is not followed"),
    ],
)
def test_what_a_manager_does_to_a_path(manager: Json, path: str, why: str) -> None:
    """Without what it would be applied to, the same manager is followed."""
    assert why in said(called(http(ROUTE, **manager), path=path))
    if path != "/":
        assert isinstance(called(http(ROUTE, **manager), path="/"), Reached)


def test_dots_and_slashes_are_taken_out_before_the_routes() -> None:
    """As a path of a browser would be."""
    route = {"match": {"path": "/a/c"}, "route": {"cluster": "c"}}
    chain = http(route, normalize_path=True, merge_slashes=True)
    assert isinstance(called(chain, path="/a/./b/..//c?x=1"), Reached)
    assert isinstance(called(chain, path="/a/c/.."), Answered)


@pytest.mark.parametrize(("action", "known"), [("REJECT_REQUEST", False), ("DROP_HEADER", False)])
def test_underscores_in_headers(action: str, known: bool) -> None:  # noqa: FBT001 # compared with
    """A header that has one may be refused; one that has none is not concerned."""
    options = {"common_http_protocol_options": {"headers_with_underscores_action": action}}
    chain = http(ROUTE, **options)
    plain = called(chain, headers=(("x-a", "1"),))
    assert isinstance(plain, Reached)
    outcome = called(chain, headers=(("x_a", "1"),))
    assert isinstance(outcome, Reached) == known


def test_an_upgrade_must_be_among_those_that_are_taken() -> None:
    """`Connection: upgrade` alone asks for none."""
    headers = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
    assert "the upgrade to websocket" in said(called(http(ROUTE), headers=headers))
    taken = http(ROUTE, upgrade_configs=[{"upgrade_type": "websocket"}])
    assert isinstance(called(taken, headers=headers), Reached)
    assert isinstance(called(http(ROUTE), headers=headers[1:]), Reached)


def test_tls_that_is_asked_of_calls_from_outside() -> None:
    """Whether one is from outside nobody knows; all is plain enough."""
    outside = http(ROUTE, host={"require_tls": "EXTERNAL_ONLY"})
    assert "asks for TLS of calls from outside" in said(called(outside))
    answer = called(http(ROUTE, host={"require_tls": "ALL"}))
    assert isinstance(answer, Answered)
    assert (answer.status, answer.location) == (301, "https://h/")


def test_routes_by_scope_or_on_demand_are_not_known() -> None:
    """Scopes pick them by a header; VHDS brings hosts when they are asked for."""
    scoped = http(ROUTE)
    config = scoped["filters"][0]["typed_config"]
    del config["route_config"]
    config["scoped_routes"] = {"name": "s"}
    assert "the routes are picked by scopes" in said(called(scoped))
    demanded = http(ROUTE, config={"vhds": {}}, host={"domains": ["other"]})
    assert "more come on demand (VHDS)" in said(called(demanded))


def test_a_request_without_a_host_is_a_bad_one() -> None:
    """And a chain for HTTP takes nothing else."""
    answer = called(http(ROUTE), host="")
    assert isinstance(answer, Answered)
    assert answer.status == 400
    closed = called(http(ROUTE), host=None)
    assert isinstance(closed, Closed)
    assert "expects HTTP" in closed.why


# ---------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ({"match": {"prefix": "/", "filter_state": [{"key": "x"}]}}, "filter_state"),
        ({"match": {"prefix": "/"}, "filter_action": {}}, "not one that is followed"),
        (
            {"route": {"cluster_specifier_plugin": "p"}},
            "picks its cluster by cluster_specifier_plugin",
        ),
        (
            {"route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 0}]}}},
            "add up to nothing",
        ),
        (
            {
                "route": {
                    "weighted_clusters": {
                        "clusters": [{"name": "c", "weight": 1}],
                        "total_weight": 100,
                    }
                }
            },
            "add up to 1, not to 100",
        ),
    ],
)
def test_routes_that_are_not_followed(route: Json, why: str) -> None:
    """Each is named by what it does."""
    written = {"match": {"prefix": "/"}, **route}
    if len(written) == 1:
        written["route"] = {"cluster": "c"}
    assert why in said(called(http(written)))


def test_a_header_names_the_cluster() -> None:
    """Of a route, and of a part of a split."""
    route = {"match": {"prefix": "/"}, "route": {"cluster_header": "x-to"}}
    assert isinstance(called(http(route), headers=(("x-to", "c"),)), Reached)
    answer = called(http(route), headers=(("x-to", "none"),))
    assert isinstance(answer, Answered)
    assert answer.flag == "NC"
    parts = [{"cluster_header": "x-to", "weight": 1}, {"name": "c", "weight": 1}]
    split = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": parts}}}
    reached = called(http(split), headers=(("x-to", "c"),))
    assert isinstance(reached, Reached)
    assert sum(each.share for each in reached.destinations) == 1


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        ({"https_redirect": True}, "https://h/a?q=1"),
        ({"https_redirect": True, "port_redirect": 8443}, "https://h:8443/a?q=1"),
        ({"host_redirect": "x.example", "strip_query": True}, "http://x.example/a"),
        ({"path_redirect": "/b"}, "http://h:80/b?q=1"),
        ({"path_redirect": "/b?r=2"}, "http://h:80/b?r=2"),
        ({"prefix_rewrite": "/c"}, "http://h:80(rewritten: /c)"),
    ],
)
def test_where_a_redirect_leads(redirect: Json, location: str) -> None:
    """The old scheme's own port does not outlive it."""
    answer = called(
        http({"match": {"prefix": "/"}, "redirect": redirect}), host="h:80", path="/a?q=1"
    )
    assert isinstance(answer, Answered)
    assert answer.location == location


def test_a_query_parameter_decides() -> None:
    """And a route that takes only some requests leaves the others to the next."""
    query = {"query_parameters": [{"name": "v", "string_match": {"exact": "2"}}]}
    wanted = {"match": {"prefix": "/", **query}, "route": {"cluster": "c"}}
    assert isinstance(called(http(wanted), path="/?v=2"), Reached)
    assert isinstance(called(http(wanted), path="/?v=1"), Answered)
    some = {
        "match": {
            "prefix": "/",
            "runtime_fraction": {"default_value": {"numerator": 25, "denominator": "HUNDRED"}},
        },
        "route": {"cluster": "c"},
    }
    reached = called(http(some, {"match": {"prefix": "/"}, "direct_response": {"status": 418}}))
    assert isinstance(reached, Reached)
    assert [each.share for each in reached.destinations] == [0.25]
    assert [share for share, _ in reached.otherwise] == [0.75]


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("abort", "why"),
    [
        ({"http_status": 503, "percentage": {"numerator": 100}}, "aborts every request"),
        ({"http_status": 503, "percent": 100}, "aborts every request"),
        ({"http_status": 503, "percentage": {"numerator": -1}}, "is not to be read"),
        ({"http_status": 503, "percentage": {"numerator": 1, "denominator": "X"}}, "to be read"),
        ({"http_status": 7, "percentage": {"numerator": 100}}, "in a way that is not followed"),
        ({"grpc_status": 7, "percentage": {"numerator": 100}}, "in a way that is not followed"),
    ],
)
def test_requests_that_are_aborted(abort: Json, why: str) -> None:
    """All of them, or it is not known; some of them is a note."""
    outcome = called(_with_fault({"abort": abort}))
    assert isinstance(outcome, Answered | Unknown)
    assert why in outcome.why


def _with_fault(fault: Json) -> Json:
    config = {"@type": f"{TYPE}http.fault.v3.HTTPFault", **fault}
    router = {"name": "envoy.filters.http.router"}
    return http(ROUTE, http_filters=[{"name": "fault", "typed_config": config}, router])


def test_some_requests_that_are_aborted_reach_nothing_sometimes() -> None:
    """The call reaches what it reaches; none where the share is none."""
    abort = {"http_status": 503, "percentage": {"numerator": 5}}
    trace = follow(proxy(listener(_with_fault({"abort": abort}))), Call("127.0.0.1", 80, host="h"))
    assert isinstance(trace.outcome, Reached)
    assert "HTTP filter fault aborts 5% of the requests" in trace.notes
    none = {"http_status": 503, "percentage": {"numerator": 0}}
    assert isinstance(called(_with_fault({"abort": none})), Reached)
    some = {"abort": {**abort}, "headers": [{"name": "x", "present_match": True}]}
    assert "by conditions" in said(called(_with_fault(some)))


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("network.echo.v3.Echo", Answered),
        ("network.direct_response.v3.Config", Answered),
        ("network.connection_limit.v3.ConnectionLimit", Reached),
        ("network.local_ratelimit.v3.LocalRateLimit", Reached),
        ("network.sni_cluster.v3.SniCluster", Reached),
    ],
)
def test_network_filters_before_the_proxy(type_: str, expected: type) -> None:
    """Those that answer end the call, those that limit are noted, others are passed."""
    chain = tcp()
    chain["filters"].insert(0, {"name": "x", "typed_config": {"@type": f"{TYPE}{type_}"}})
    assert isinstance(called(chain, host=None), expected)


def test_the_server_name_names_the_cluster() -> None:
    """Where a filter says so, and the call has one."""
    chain = tcp("none")
    config = {"@type": f"{TYPE}network.sni_cluster.v3.SniCluster"}
    chain["filters"].insert(0, {"name": "x", "typed_config": config})
    assert isinstance(called(chain, host=None, tls=True, server_name="c"), Reached)
    assert isinstance(called(chain, host=None), Closed)


# ---------------------------------------------------------------- chains and clusters


def test_tls_that_only_one_side_speaks() -> None:
    """A chain that expects it takes no plain call, and one for plain HTTP none that is secured."""
    secured = {**http(ROUTE), "transport_socket": SECURED}
    plain = called(secured)
    assert isinstance(plain, Closed)
    assert "expects TLS" in plain.why
    assert isinstance(called(secured, tls=True), Reached)
    turned = called(http(ROUTE), tls=True)
    assert isinstance(turned, Closed)
    assert "expects plain HTTP" in turned.why
    other = {**http(ROUTE), "transport_socket": {"name": "envoy.transport_sockets.alts"}}
    assert "alts is not followed" in said(called(other))


def test_a_tunnel_is_noted() -> None:
    """The proxy at its other end says where it goes."""
    chain = tcp()
    chain["filters"][0]["typed_config"]["tunneling_config"] = {"hostname": "x:80"}
    trace = follow(proxy(listener(chain)), Call("127.0.0.1", 80))
    assert isinstance(trace.outcome, Reached)
    assert "carried in an HTTP CONNECT to the cluster" in trace.notes


def test_clusters_that_are_not_followed() -> None:
    """Of a kind whose endpoints nobody knows, or made of clusters that are made of others."""
    other = {"name": "o", "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy"}}
    assert "o" in said(called(tcp("o"), other, host=None))
    config = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig"

    def aggregate(name: str, *members: str) -> Json:
        typed = {"@type": config, "clusters": list(members)}
        kind = {"name": "envoy.clusters.aggregate", "typed_config": typed}
        return {"name": name, "lb_policy": "CLUSTER_PROVIDED", "cluster_type": kind}

    inner = aggregate("inner", "c")
    assert "aggregates aggregates" in said(
        called(tcp("outer"), inner, aggregate("outer", "inner"), host=None)
    )
    reached = called(tcp("both"), aggregate("both", "c", "gone"), host=None)
    assert isinstance(reached, Reached)
    assert {each.endpoint.port for each in reached.destinations} == {8000}
    assert isinstance(called(tcp("d"), static_cluster("d", 8001), host=None), Reached)
