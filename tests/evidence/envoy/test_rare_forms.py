"""Settings that few control planes write: each is a fact, or said not to be followed."""

import json
from typing import Any

import pytest

from meshdoctor.evidence.envoy import (
    ClusterRoute,
    EnvoyProxies,
    HttpConnectionManager,
    Listener,
    NetworkFilter,
    QueryMatch,
    Redirect,
    StringMatch,
    TcpProxy,
    UnmodelledAction,
)
from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from tests.evidence.envoy.test_forms import (
    ADMIN,
    Recorded,
    address,
    clusters,
    load,
    one_filter,
    one_listener,
    one_route,
    proxy,
)

EXTENSIONS = "type.googleapis.com/envoy.extensions."
HTTP_MANAGER = f"{EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager"


def to(**written: Any) -> ClusterRoute:
    """The action of a route to cluster `c`."""
    action = one_route(match={"prefix": "/"}, route={"cluster": "c", **written}).action
    assert isinstance(action, ClusterRoute)
    return action


def manager(**written: Any) -> HttpConnectionManager:
    decoded = one_filter(name="http", typed_config={"@type": HTTP_MANAGER, **written})
    assert isinstance(decoded, HttpConnectionManager)
    return decoded


# ---------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("written", "rewritten"),
    [
        ({"prefix_rewrite": "/b"}, "/b"),
        ({"path_rewrite": "/b"}, "/b"),
        ({"path_rewrite_policy": {"name": "uri"}}, "(path_rewrite_policy)"),
        (
            {"regex_rewrite": {"pattern": {"regex": "^/a(.*)"}, "substitution": "\\1"}},
            "^/a(.*) -> \\1",
        ),
    ],
)
def test_what_becomes_of_a_path(written: dict[str, Any], rewritten: str) -> None:
    """The new one as it is written, else how it is made."""
    assert to(**written).prefix_rewrite == rewritten


@pytest.mark.parametrize(
    ("written", "rewritten"),
    [
        ({"host_rewrite": "b"}, "b"),
        ({"host_rewrite_literal": "b"}, "b"),
        ({"host_rewrite_header": "x-host"}, "(header x-host)"),
        ({"auto_host_rewrite_header": "x-host"}, "(header x-host)"),
        ({"auto_host_rewrite": True}, "(the endpoint's host name)"),
        ({"host_rewrite_path_regex": {"pattern": {"regex": "a"}}}, "(host_rewrite_path_regex)"),
        ({"auto_host_rewrite": False}, ""),
    ],
)
def test_what_becomes_of_a_host(written: dict[str, Any], rewritten: str) -> None:
    """v2's and v3's fields are the same; what only a request tells stands in parentheses."""
    assert to(**written).host_rewrite == rewritten


def test_mirrors_of_either_age() -> None:
    """One, as v2 had it, comes last; one by header has no cluster to name."""
    action = to(
        request_mirror_policy={"cluster": "old"},
        request_mirror_policies=[{"cluster": "new"}, {"cluster_header": "x-to"}],
    )
    assert action.mirrors == ("new", "(header x-to)", "old")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ({"inline_cluster_specifier_plugin": {}}, "inline_cluster_specifier_plugin"),
        (
            {"weighted_clusters": {"clusters": [], "runtime_key_prefix": "k"}},
            "weighted_clusters.runtime_key_prefix",
        ),
        (
            {"weighted_clusters": {"clusters": [], "header_name": "x-random"}},
            "weighted_clusters.header_name",
        ),
    ],
)
def test_other_ways_to_choose_a_cluster(written: dict[str, Any], name: str) -> None:
    """They are not followed, and named."""
    assert to(**written).unmodelled == (name,)


def test_routes_that_forward_nothing() -> None:
    """Those of a filter, those of gRPC's proxyless clients, and those without any action."""
    assert one_route(non_forwarding_action={}).action == UnmodelledAction(
        name="non_forwarding_action"
    )
    assert one_route(match={"prefix": "/"}).action == UnmodelledAction(name="")


def test_a_redirect_by_a_pattern() -> None:
    """It says what becomes of the path."""
    rewrite = {"pattern": {"regex": "a"}, "substitution": "b"}
    assert one_route(redirect={"regex_rewrite": rewrite}).action == Redirect(
        code=301, prefix_rewrite="a -> b"
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"string_match": {"exact": "1"}}, QueryMatch("x", StringMatch("exact", "1"))),
        (
            {"string_match": {"safe_regex": {"regex": "1+"}}},
            QueryMatch("x", StringMatch("regex", "1+")),
        ),
        ({"string_match": {"regex": "1+"}}, QueryMatch("x", StringMatch("regex", "1+"))),
        ({"value": "1"}, QueryMatch("x", StringMatch("exact", "1"))),
        ({"value": "1+", "regex": True}, QueryMatch("x", StringMatch("regex", "1+"))),
        ({"present_match": False}, QueryMatch("x", present=False)),
        ({}, QueryMatch("x", present=True)),
    ],
)
def test_query_matchers(written: dict[str, Any], expected: QueryMatch) -> None:
    """v2's and v3's are the same fact; none at all asks for presence."""
    match = {"prefix": "/", "query_parameters": [{"name": "x", **written}]}
    assert one_route(match=match).match.query == (expected,)


# ---------------------------------------------------------------- listeners


@pytest.mark.parametrize(
    ("socket", "expected"),
    [
        (
            {
                "name": "mine",
                "typed_config": {
                    "@type": f"{EXTENSIONS}transport_sockets.tls.v3.DownstreamTlsContext"
                },
            },
            "tls",
        ),
        (
            {
                "name": "mine",
                "typed_config": {
                    "@type": f"{EXTENSIONS}transport_sockets.raw_buffer.v3.RawBuffer"
                },
            },
            "",
        ),
        (
            {
                "name": "mine",
                "typed_config": {"@type": f"{EXTENSIONS}transport_sockets.alts.v3.Alts"},
            },
            "mine",
        ),
        ({"name": "envoy.transport_sockets.raw_buffer"}, ""),
        ({"name": "envoy.transport_sockets.alts"}, "envoy.transport_sockets.alts"),
    ],
)
def test_transport_sockets(socket: dict[str, Any], expected: str) -> None:
    """By the type where there is one, else by the name, which is anybody's choice."""
    listener = one_listener(filter_chains=[{"transport_socket": socket}])
    assert listener.filter_chains[0].transport_socket == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {
                "name": "mine",
                "typed_config": {
                    "@type": f"{EXTENSIONS}filters.listener.tls_inspector.v3.TlsInspector"
                },
            },
            "envoy.filters.listener.tls_inspector",
        ),
        (
            {
                "name": "envoy.filters.listener.original_dst",
                "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"},
            },
            "envoy.filters.listener.original_dst",
        ),
        ({"name": "mine"}, "mine"),
    ],
)
def test_listener_filters(written: dict[str, Any], expected: str) -> None:
    """By a type that tells it, else by the name, as written where nothing is known of it."""
    assert one_listener(listener_filters=[written]).listener_filters == (expected,)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ({"early_header_mutation_extensions": [{}]}, ("early_header_mutation_extensions",)),
        ({"local_reply_config": {"mappers": [{}]}}, ("local_reply_config",)),
        ({"local_reply_config": {}}, ()),
        ({"path_normalization_options": {}}, ("path_normalization_options",)),
        ({"typed_header_validation_config": {}}, ("typed_header_validation_config",)),
        (
            {"common_http_protocol_options": {"headers_with_underscores_action": 2}},
            ("headers_with_underscores_action",),
        ),
        ({"common_http_protocol_options": {"idle_timeout": "5s"}}, ()),
    ],
)
def test_what_of_a_connection_manager_is_not_followed(
    written: dict[str, Any], names: tuple[str, ...]
) -> None:
    """Named where it is set to something; what has its default changes nothing."""
    assert manager(**written).unmodelled == names


def test_filters_that_are_told_apart_from_the_listener() -> None:
    """Over ECDS: neither the name nor the type of a filter tells what it is."""
    discovered = {"name": "envoy.filters.network.tcp_proxy", "config_discovery": {}}
    assert one_filter(**discovered) == NetworkFilter(name="envoy.filters.network.tcp_proxy")
    (only,) = manager(http_filters=[{"name": "lua", "config_discovery": {}}]).http_filters
    assert only.type_url == "config_discovery"


def test_a_v1_connection_manager_is_not_followed() -> None:
    """Its routes were written in another language; it stays an unknown filter."""
    decoded = one_filter(
        name="envoy.http_connection_manager",
        config={"deprecated_v1": True, "value": {"route_config": {}}},
    )
    assert isinstance(decoded, NetworkFilter)


def test_a_v1_tcp_proxy_without_routes_is_the_cluster_that_it_names() -> None:
    """An empty list decides nothing."""
    decoded = one_filter(
        name="envoy.tcp_proxy", config={"cluster": "c", "deprecated_v1": {"routes": []}}
    )
    assert isinstance(decoded, TcpProxy)
    assert decoded.cluster == "c"


def test_a_listener_without_any_address() -> None:
    """It has no place where a call could meet it."""
    assert one_listener(address={}) == Listener(name="l", address="", port=0)


# ---------------------------------------------------------------- clusters


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (
            {"original_dst_lb_config": {"use_http_header": True}},
            ("original_dst_lb_config.use_http_header",),
        ),
        (
            {"original_dst_lb_config": {"metadata_key": {}}},
            ("original_dst_lb_config.metadata_key",),
        ),
        (
            {"original_dst_lb_config": {"upstream_port_override": 8080}},
            ("original_dst_lb_config.upstream_port_override",),
        ),
        ({"original_dst_lb_config": {}}, ()),
        (
            {"load_assignment": {"policy": {"drop_overloads": [{}]}}},
            ("load_assignment.policy.drop_overloads",),
        ),
        ({"load_assignment": {"policy": {"overprovisioning_factor": 140}}}, ()),
    ],
)
def test_what_of_a_cluster_is_not_followed(
    written: dict[str, Any], names: tuple[str, ...]
) -> None:
    """Named, for where its calls go is not known."""
    (entry,) = proxy(clusters({"name": "c", **written})).clusters
    assert entry.cluster.unmodelled == names


def test_a_custom_cluster_that_is_no_aggregate_has_no_members() -> None:
    """And keeps the name of its type."""
    config = {"@type": f"{EXTENSIONS}clusters.redis.v3.RedisClusterConfig", "clusters": ["a"]}
    written = {
        "name": "c",
        "cluster_type": {"name": "envoy.clusters.redis", "typed_config": config},
    }
    (entry,) = proxy(clusters(written)).clusters
    assert (entry.cluster.type, entry.cluster.aggregate) == ("envoy.clusters.redis", ())


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (
            {"filter_metadata": {"envoy.lb": {"version": "v1"}, "istio": {"workload": "w"}}},
            {"filter_metadata": {"envoy.lb": {"version": "v1"}}},
        ),
        ({"filter_metadata": {"istio": {"workload": "w"}}}, {"filter_metadata": {}}),
        ({}, {"filter_metadata": {}}),
        (None, None),
    ],
)
def test_of_an_endpoints_metadata_only_what_subsets_are_made_by(
    metadata: Any, expected: Any
) -> None:
    """The rest decides nothing."""
    endpoint = {"endpoint": {"address": address("10.0.0.1")}, "metadata": metadata}
    written = {"name": "c", "load_assignment": {"endpoints": [{"lb_endpoints": [endpoint]}]}}
    (entry,) = proxy(clusters(written)).clusters
    assert entry.cluster.endpoints[0].metadata == expected


# ---------------------------------------------------------------- whole proxies


def test_why_no_sidecar_told_anything() -> None:
    """What holds for all of them in its own words, else the first of them and how many more."""
    with pytest.raises(MissingEvidenceError, match=r"^Docker is not there"):
        EnvoyProxies.load(Recorded(absent=[Problem("envoy/", "Docker is not there")]))
    absent = [Problem(f"envoy/{name}/config_dump.json", "refused") for name in "ab"]
    with pytest.raises(
        MissingEvidenceError,
        match=r"no sidecar could be read: envoy/a/config_dump.json: refused \(and 1 more\)",
    ):
        EnvoyProxies.load(Recorded(absent=absent))


def test_a_dump_without_its_types_first() -> None:
    """JSON's fields have no order: a section is what its type says wherever that stands."""
    listener = {"name": "l", "address": address()}
    section = {
        "static_listeners": [{"listener": listener}],
        "@type": f"{ADMIN}ListenersConfigDump",
    }
    assert [each.listener.name for each in proxy(section).listeners] == ["l"]


def test_sections_that_nobody_asked_for_cost_nothing() -> None:
    """As Envoy's own bootstrap extensions write them."""
    loaded = load({"@type": "type.googleapis.com/mine.v1.Dump", "x": [1]}, clusters({"name": "c"}))
    assert loaded.problems == ()
    assert json.dumps([each.cluster.name for each in loaded.proxies["web"].clusters]) == '["c"]'


def test_updates_that_a_proxy_refused() -> None:
    """Of any kind; what was refused may be left out, and is shown once though told twice."""
    error = {"details": "no"}
    named = {"failed_configuration": {"name": "n"}, **error}
    told = proxy(
        {
            "@type": f"{ADMIN}ClustersConfigDump",
            "dynamic_active_clusters": [{"error_state": named}, {"error_state": named}],
        },
        {
            "@type": f"{ADMIN}ListenersConfigDump",
            "dynamic_listeners": [{"name": "l", "error_state": error}],
        },
    )
    assert [(each.kind, each.name, each.details) for each in told.rejected] == [
        ("cluster", "n", "no"),
        ("listener", "l", "no"),
    ]
    assert [each.listener for each in told.rejected] == [None, None]


def test_the_endpoints_that_the_proxy_balances_over_count_alone() -> None:
    """Where its page of clusters was recorded, the section of endpoints is not read."""
    element = {
        "@type": f"{ADMIN}EndpointsConfigDump.DynamicEndpointConfig",
        "endpoint_config": {"cluster_name": "e"},
    }
    told = proxy(element, clusters={"cluster_statuses": [{"name": "c"}]})
    assert set(told.endpoints) == {"c"}


def test_a_dump_that_is_damaged_all_over_tells_nothing() -> None:
    """The sidecar counts as one that could not be read, with an example."""
    section = {
        "@type": f"{ADMIN}ClustersConfigDump",
        "dynamic_active_clusters": [{"cluster": {"name": [number]}} for number in range(1002)],
    }
    loaded = load(section)
    assert loaded.proxies == {}
    assert "damaged all over, as here" in loaded.unreachable["web"]


def test_a_table_of_endpoints_is_equal_to_what_holds_the_same() -> None:
    """And to nothing that is no mapping."""
    statuses = {"cluster_statuses": [{"name": "c"}]}
    one, other = (proxy(clusters=statuses).endpoints for _ in range(2))
    assert one == other
    assert one == dict(one)
    something_else: object = 7
    assert one != something_else
