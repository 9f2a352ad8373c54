"""The many ways in which one fact is written, and what damage costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshdoctor.evidence.envoy import (
    ClusterRoute,
    ConfigState,
    DirectResponse,
    EnvoyProxies,
    EnvoyProxy,
    HttpConnectionManager,
    Listener,
    NetworkFilter,
    Redirect,
    Route,
    StringMatch,
    TcpProxy,
    UnmodelledAction,
)
from meshdoctor.evidence.interface import MissingEvidenceError, Problem

ADMIN = "type.googleapis.com/envoy.admin.v3."


@dataclass
class Recorded:
    """Documents in memory."""

    held: Mapping[str, bytes] = field(default_factory=dict)
    absent: Sequence[Problem] = ()
    created: str = ""

    def names(self, prefix: str = "") -> Sequence[str]:
        return sorted(name for name in self.held if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        return self.held[name]

    def missing(self, prefix: str = "") -> Sequence[Problem]:
        return tuple(each for each in self.absent if each.document.startswith(prefix))


def load(*configs: Any, **pages: Any) -> EnvoyProxies:
    held = {"envoy/web/config_dump.json": json.dumps({"configs": configs}).encode()}
    for page, body in pages.items():
        held[f"envoy/web/{page}.json"] = json.dumps(body).encode()
    return EnvoyProxies.load(Recorded(held))


def proxy(*configs: Any, **pages: Any) -> EnvoyProxy:
    loaded = load(*configs, **pages)
    assert loaded.problems == ()
    assert loaded.unreachable == {}
    return loaded.proxies["web"]


def listeners(*written: Any) -> dict[str, Any]:
    return {
        "@type": f"{ADMIN}ListenersConfigDump",
        "static_listeners": [{"listener": each} for each in written],
    }


def address(host: str = "0.0.0.0", port: Any = 80) -> dict[str, Any]:  # noqa: S104 # a listener's
    return {"socket_address": {"address": host, "port_value": port}}


def one_listener(**written: Any) -> Listener:
    (entry,) = proxy(listeners({"name": "l", "address": address(), **written})).listeners
    return entry.listener


def one_filter(**written: Any) -> Any:
    (chain,) = one_listener(filter_chains=[{"filters": [written]}]).filter_chains
    (decoded,) = chain.filters
    return decoded


def one_route(**written: Any) -> Route:
    config = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [written]}]}
    section = {
        "@type": f"{ADMIN}RoutesConfigDump",
        "dynamic_route_configs": [{"route_config": config}],
    }
    (entry,) = proxy(section).routes
    (host,) = entry.route_config.virtual_hosts
    (route,) = host.routes
    return route


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize(
    "written",
    [
        {"name": "envoy.tcp_proxy", "config": {"cluster": "c"}},
        {"name": "envoy.filters.network.tcp_proxy", "config": {"cluster": "c"}},
        {
            "name": "whatever",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.filter.network.tcp_proxy.v2.TcpProxy",
                "cluster": "c",
            },
        },
        {
            "name": "whatever",
            "typed_config": {
                "cluster": "c",
                "@type": "type.googleapis.com/"
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            },
        },
        {
            "name": "whatever",
            "typed_config": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "type_url": "type.googleapis.com/"
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "value": {"cluster": "c"},
            },
        },
        {
            "name": "envoy.tcp_proxy",
            "config": {
                "deprecated_v1": True,
                "value": {"stat_prefix": "s", "route_config": {"routes": [{"cluster": "c"}]}},
            },
        },
        {
            "name": "envoy.tcp_proxy",
            "config": {"deprecated_v1": {"routes": [{"cluster": "c"}]}},
        },
    ],
)
def test_a_tcp_proxy_is_one_however_it_is_written(written: dict[str, Any]) -> None:
    """By the type where there is one, else by the name."""
    decoded = one_filter(**written)
    assert isinstance(decoded, TcpProxy)
    assert decoded.cluster == "c"


def test_a_v1_tcp_proxy_that_chooses_by_address_is_not_guessed() -> None:
    """It stays an unknown filter, with its configuration."""
    routes = [{"cluster": "a", "destination_ports": "80"}, {"cluster": "b"}]
    decoded = one_filter(name="envoy.tcp_proxy", config={"deprecated_v1": {"routes": routes}})
    assert isinstance(decoded, NetworkFilter)


@pytest.mark.parametrize("name", ["envoy.http_connection_manager", "http"])
def test_an_http_connection_manager_of_either_age(name: str) -> None:
    """v2's plain struct writes numbers as floats; both give the same."""
    written: dict[str, Any] = {
        "stat_prefix": "s",
        "rds": {"route_config_name": "9080"},
        "http_filters": [{"name": "envoy.router"}],
        "normalize_path": True,
    }
    if name == "http":
        written["@type"] = (
            "type.googleapis.com/"
            "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"
        )
    key = "typed_config" if name == "http" else "config"
    decoded = one_filter(name=name, **{key: written})
    assert isinstance(decoded, HttpConnectionManager)
    assert decoded.rds == "9080"
    assert decoded.normalize_path is True
    assert [each.name for each in decoded.http_filters] == ["envoy.router"]


def test_an_unknown_filter_keeps_its_configuration() -> None:
    """A filter that may decide is there to be judged."""
    decoded = one_filter(
        name="rbac",
        typed_config={
            "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
            "rules": {"action": "DENY"},
        },
    )
    assert decoded == NetworkFilter(
        name="rbac",
        type_url="envoy.extensions.filters.network.rbac.v3.RBAC",
        config={"rules": {"action": "DENY"}},
    )
    assert hash(decoded) == hash(decoded)


# ---------------------------------------------------------------- listeners


def test_a_v2_listener() -> None:
    """deprecated_v1.bind_to_port, sni_domains, tls_context and LOCAL have today's names."""
    listener = one_listener(
        deprecated_v1={"bind_to_port": False},
        use_original_dst=True,
        listener_filters=[{"name": "envoy.listener.tls_inspector"}],
        filter_chains=[
            {
                "filter_chain_match": {
                    "sni_domains": ["a.example"],
                    "source_type": "LOCAL",
                    "destination_port": 8443.0,
                    "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": "8"}],
                },
                "tls_context": {"require_client_certificate": True},
                "filters": [],
            }
        ],
    )
    assert not listener.bind_to_port
    assert listener.use_original_dst
    assert listener.listener_filters == ("envoy.filters.listener.tls_inspector",)
    (chain,) = listener.filter_chains
    assert chain.transport_socket == "tls"
    assert chain.match.server_names == ("a.example",)
    assert chain.match.source_type == "SAME_IP_OR_LOOPBACK"
    assert chain.match.destination_port == 8443
    assert chain.match.prefix_ranges[0].length == 8


def test_every_state_of_a_listener_is_an_entry_of_its_own() -> None:
    """Active decides; warming and draining do not; a refused update stands apart."""
    state = {"listener": {"name": "l", "address": address()}, "version_info": "7"}
    section = {
        "@type": f"{ADMIN}ListenersConfigDump",
        "dynamic_listeners": [
            {
                "name": "l",
                "active_state": state,
                "warming_state": state,
                "draining_state": state,
                "error_state": {"details": "no", "failed_configuration": {"address": address()}},
            }
        ],
    }
    told = proxy(section)
    assert [entry.state for entry in told.listeners] == [
        ConfigState.ACTIVE,
        ConfigState.WARMING,
        ConfigState.DRAINING,
    ]
    assert [entry.version for entry in told.listeners] == ["7", "7", "7"]
    assert len(told.deciding_listeners()) == 1
    (rejected,) = told.rejected
    assert (rejected.kind, rejected.name, rejected.details) == ("listener", "l", "no")


def test_addresses_that_are_no_sockets() -> None:
    """A pipe is its path, an internal listener its name, both without a port."""
    assert one_listener(address={"pipe": {"path": "/run/x"}}).key == "/run/x"
    internal = one_listener(address={"envoy_internal_address": {"server_listener_name": "i"}})
    assert internal.port == 0
    assert one_listener(address=address("::", 80)).key == "[::]:80"


# ---------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"prefix": "/"}, ("prefix", "/")),
        ({"path": ""}, ("path", "")),
        ({"safe_regex": {"google_re2": {}, "regex": "/a.*"}}, ("regex", "/a.*")),
        ({"regex": "/a.*"}, ("regex", "/a.*")),
        ({"connect_matcher": {}}, ("connect", "")),
        ({"path_separated_prefix": "/a"}, ("path_separated_prefix", "/a")),
        ({"path_match_policy": {"name": "uri"}}, ("path_match_policy", "")),
        ({}, ("", "")),
    ],
)
def test_path_specifiers(match: dict[str, Any], expected: tuple[str, str]) -> None:
    """Whichever was set counts, an empty one too."""
    decoded = one_route(match=match).match
    assert (decoded.path_kind, decoded.path) == expected


@pytest.mark.parametrize(
    ("written", "match", "present"),
    [
        ({"exact_match": "v"}, StringMatch(kind="exact", value="v"), None),
        ({"exact_match": ""}, StringMatch(kind="exact", value=""), None),
        ({"regex_match": "v+"}, StringMatch(kind="regex", value="v+"), None),
        ({"safe_regex_match": {"regex": "v+"}}, StringMatch(kind="regex", value="v+"), None),
        (
            {"string_match": {"suffix": "v", "ignore_case": True}},
            StringMatch(kind="suffix", value="v", ignore_case=True),
            None,
        ),
        ({"string_match": {"custom": {"name": "x"}}}, StringMatch(kind="custom"), None),
        ({"present_match": False}, None, False),
        ({}, None, True),
    ],
)
def test_header_matchers(
    written: dict[str, Any],
    match: StringMatch | None,
    present: bool | None,  # noqa: FBT001 # it is what is compared with
) -> None:
    """v2's and v3's are the same fact; none at all asks for presence."""
    (header,) = one_route(
        match={"prefix": "/", "headers": [{"name": "h", **written}]}
    ).match.headers
    assert (header.match, header.present) == (match, present)


def test_a_range_may_be_written_as_strings() -> None:
    """Protobuf's JSON writes 64-bit numbers so."""
    written = {"name": "h", "range_match": {"start": "-5", "end": "10"}}
    (header,) = one_route(match={"prefix": "/", "headers": [written]}).match.headers
    assert header.range == (-5, 10)


@pytest.mark.parametrize(
    ("written", "fraction"),
    [
        ({"default_value": {"numerator": 5, "denominator": "MILLION"}}, (5, 1_000_000)),
        ({"default_value": {"numerator": 5, "denominator": 1}}, (5, 10_000)),
        ({"runtime_key": "k"}, (0, 100)),
    ],
)
def test_runtime_fractions(written: dict[str, Any], fraction: tuple[int, int]) -> None:
    """A value that is not given is zero of a hundred."""
    route = one_route(match={"prefix": "/", "runtime_fraction": written})
    assert route.match.runtime_fraction == fraction


def test_actions() -> None:
    """What is not followed is said by its name."""
    split = {"clusters": [{"name": "a", "weight": 1}, {"name": "b"}], "total_weight": "10"}
    action = one_route(
        route={"weighted_clusters": split, "cluster_not_found_response_code": 1}
    ).action
    assert isinstance(action, ClusterRoute)
    assert [(each.name, each.weight) for each in action.weighted_clusters] == [("a", 1), ("b", 0)]
    assert (action.total_weight, action.not_found_status) == (10, 404)
    assert one_route(redirect={"response_code": "FOUND"}).action == Redirect(code=302)
    assert one_route(redirect={"response_code": 3}).action == Redirect(code=307)
    assert one_route(direct_response={"status": 418}).action == DirectResponse(status=418)
    assert one_route(filter_action={}).action == UnmodelledAction(name="filter_action")
    plugin = one_route(route={"cluster_specifier_plugin": "p"}).action
    assert isinstance(plugin, ClusterRoute)
    assert plugin.unmodelled == ("cluster_specifier_plugin",)


# ---------------------------------------------------------------- clusters, endpoints


def clusters(*written: Any) -> dict[str, Any]:
    return {
        "@type": f"{ADMIN}ClustersConfigDump",
        "dynamic_active_clusters": [{"cluster": each} for each in written],
    }


def test_clusters_of_either_age() -> None:
    """v2's hosts, enumerations by number, extension types, aggregate members."""
    told = proxy(
        clusters(
            {"name": "old", "type": 1, "hosts": [address("a.example", 80)]},
            {"name": "eds", "cluster_type": {"name": "envoy.cluster.eds"}},
            {
                "name": "both",
                "cluster_type": {
                    "name": "envoy.clusters.aggregate",
                    "typed_config": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                        "clusters": ["old", "eds"],
                    },
                },
            },
        )
    )
    old, eds, both = (entry.cluster for entry in told.clusters)
    assert (old.type, old.endpoints[0].address) == ("STRICT_DNS", "a.example")
    assert eds.type == "EDS"
    assert both.aggregate == ("old", "eds")
    assert set(told.endpoints) == {"old"}
    assert "endpoints" not in told.held


def test_health_is_what_the_proxy_holds_of_a_host() -> None:
    """Any failed check makes a host unhealthy, whatever the control plane thinks of it."""
    hosts = [
        {"address": address("10.0.0.1"), "health_status": {"eds_health_status": "HEALTHY"}},
        {
            "address": address("10.0.0.2"),
            "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": True},
        },
        {"address": address("10.0.0.3"), "health_status": {"eds_health_status": "DRAINING"}},
        {"address": address("10.0.0.4"), "health_status": {"failed_active_degraded_check": True}},
        {"address": address("10.0.0.5"), "weight": 3, "priority": 1},
    ]
    told = proxy(clusters={"cluster_statuses": [{"name": "c", "host_statuses": hosts}]})
    endpoints = told.endpoints["c"].endpoints
    assert [each.health for each in endpoints] == [
        "HEALTHY",
        "UNHEALTHY",
        "DRAINING",
        "DEGRADED",
        "UNKNOWN",
    ]
    assert [each.is_available for each in endpoints] == [True, False, False, True, True]
    assert endpoints[1].failed == ("failed_outlier_check",)
    assert (endpoints[4].weight, endpoints[4].priority) == (3, 1)


def test_the_endpoint_section_serves_where_no_clusters_page_was_recorded() -> None:
    """And the citation leads into it."""
    assignment = {
        "cluster_name": "c",
        "endpoints": [
            {
                "priority": 1,
                "lb_endpoints": [
                    {"endpoint": {"address": address("10.0.0.1")}, "health_status": "UNHEALTHY"}
                ],
            }
        ],
    }
    section = {
        "@type": f"{ADMIN}EndpointsConfigDump",
        "static_endpoint_configs": [{"endpoint_config": {"cluster_name": "s"}}],
        "dynamic_endpoint_configs": [
            {"endpoint_config": {"cluster_name": "b"}},
            {"endpoint_config": assignment},
        ],
    }
    told = proxy(section)
    held = told.endpoints["c"]
    assert held.document == "envoy/web/config_dump.json"
    assert held.pointer == "/configs/0/dynamic_endpoint_configs/1/endpoint_config"
    assert told.endpoints["s"].pointer == "/configs/0/static_endpoint_configs/0/endpoint_config"
    assert (held.endpoints[0].health, held.endpoints[0].priority) == ("UNHEALTHY", 1)
    assert "endpoints" in told.held


# ---------------------------------------------------------------- spellings and parts


def test_camel_case_documents_say_the_same() -> None:
    """As the control plane's debug page writes them; pointers follow the document's spelling."""
    told = proxy(
        {
            "@type": "type.googleapis.com/envoy.admin.v2alpha.BootstrapConfigDump",
            "bootstrap": {"node": {"id": "n", "metadata": {"ISTIO_VERSION": "1", "some_key": 2}}},
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v2alpha.ListenersConfigDump",
            "versionInfo": "5",
            "dynamicActiveListeners": [
                {
                    "listener": {
                        "name": "l",
                        "address": {"socketAddress": {"address": "::", "portValue": 80}},
                        "deprecatedV1": {"bindToPort": False},
                        "filterChains": [
                            {
                                "filters": [
                                    {
                                        "name": "envoy.tcp_proxy",
                                        "config": {"stat_prefix": "s", "cluster": "c"},
                                    }
                                ]
                            }
                        ],
                    }
                }
            ],
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v2alpha.RoutesConfigDump",
            "dynamicRouteConfigs": [
                {
                    "routeConfig": {
                        "virtualHosts": [
                            {
                                "domains": ["*"],
                                "routes": [
                                    {
                                        "match": {"prefix": "/"},
                                        "route": {
                                            "cluster": "c",
                                            "metadataMatch": {
                                                "filterMetadata": {"envoy.lb": {"myKey": "v"}}
                                            },
                                        },
                                        "typedPerFilterConfig": {"myFilter": {"someField": 1}},
                                    }
                                ],
                            }
                        ]
                    }
                }
            ],
        },
    )
    assert told.api == "v2"
    assert told.node is not None
    assert told.node.metadata == {"ISTIO_VERSION": "1", "some_key": 2}
    (entry,) = told.listeners
    assert entry.pointer == "/configs/1/dynamicActiveListeners/0/listener"
    assert not entry.listener.bind_to_port
    assert entry.listener.tcp_proxies[0].cluster == "c"
    assert told.version_info == {"listeners": "5"}
    (config,) = told.routes
    assert config.pointer == "/configs/2/dynamicRouteConfigs/0/routeConfig"
    (route,) = config.route_config.virtual_hosts[0].routes
    assert isinstance(route.action, ClusterRoute)
    assert route.action.metadata_match == {"filter_metadata": {"envoy.lb": {"myKey": "v"}}}
    assert route.overrides == {"myFilter": {"some_field": 1}}


@pytest.mark.parametrize(
    ("dynamic", "expected"),
    [
        (
            {
                "lds_config": {"ads": {}},
                "ads_config": {"grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
            },
            ("xds-grpc",),
        ),
        (
            {
                "cds_config": {
                    "api_config_source": {
                        "grpc_services": [{"google_grpc": {"target_uri": "pilot:15010"}}]
                    }
                }
            },
            ("pilot:15010",),
        ),
        (
            {"adsConfig": {"grpcServices": [{"envoyGrpc": {"clusterName": "xds-grpc"}}]}},
            ("xds-grpc",),
        ),
        ({"lds_config": {"path_config_source": {"path": "/etc/envoy/lds.json"}}}, ()),
        ({"lds_config": None, "ads_config": {"grpc_services": None}}, ()),
    ],
)
def test_where_a_proxy_asks_for_its_configuration(
    dynamic: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """The clusters of its bootstrap, none where it reads files."""
    bootstrap = {"dynamic_resources": dynamic}
    if "adsConfig" in dynamic:
        bootstrap = {"dynamicResources": dynamic}
    section = {"@type": f"{ADMIN}BootstrapConfigDump", "bootstrap": bootstrap}
    assert proxy(section).control_plane == expected


def test_damage_to_it_costs_nothing_else() -> None:
    """The node and the admin address stand in the same section."""
    bootstrap = {"node": {"id": "web"}, "dynamic_resources": {"ads_config": 7}}
    loaded = load({"@type": f"{ADMIN}BootstrapConfigDump", "bootstrap": bootstrap})
    node = loaded.proxies["web"].node
    assert node is not None
    assert node.id == "web"
    assert "dynamic_resources" in loaded.problems[0].message


def test_parts_of_a_dump_stand_in_configs_themselves() -> None:
    """As /config_dump?resource=... answers, several of them put together."""
    told = proxy(
        {
            "@type": f"{ADMIN}ListenersConfigDump.DynamicListener",
            "name": "l",
            "active_state": {"listener": {"name": "l", "address": address()}},
        },
        {
            "@type": f"{ADMIN}RoutesConfigDump.DynamicRouteConfig",
            "version_info": "3",
            "route_config": {"name": "r"},
        },
        {"@type": f"{ADMIN}ClustersConfigDump.StaticCluster", "cluster": {"name": "c"}},
        {
            "@type": f"{ADMIN}EndpointsConfigDump.DynamicEndpointConfig",
            "endpoint_config": {"cluster_name": "e"},
        },
    )
    assert told.held == {"listeners", "routes", "clusters", "endpoints"}
    assert told.api == "v3"
    assert told.listeners[0].pointer == "/configs/0/active_state/listener"
    assert told.routes[0].version == "3"
    assert told.clusters[0].state is ConfigState.STATIC
    assert told.endpoints["e"].pointer == "/configs/3/endpoint_config"


def test_nulls_mean_not_set() -> None:
    """Some writers spell out every field they do not set."""
    told = proxy(
        listeners(
            {
                "name": "l",
                "address": address(),
                "filter_chains": None,
                "use_original_dst": None,
                "default_filter_chain": None,
                "additional_addresses": [None],
            }
        )
    )
    assert told.listeners[0].listener == Listener(name="l", address="0.0.0.0", port=80)  # noqa: S104 # its address


# ---------------------------------------------------------------- damage


def test_a_damaged_listener_costs_only_itself() -> None:
    """The problem names document and place; nothing is concluded from what is lacking."""
    loaded = load(
        listeners({"name": "good", "address": address()}, {"name": 5}, {"name": "fine"}),
        clusters({"name": "c"}),
    )
    told = loaded.proxies["web"]
    assert [entry.listener.name for entry in told.listeners] == ["good", "fine"]
    assert told.listeners[1].pointer == "/configs/0/static_listeners/2/listener"
    assert told.held == {"clusters"}
    (problem,) = loaded.problems
    assert problem.document == "envoy/web/config_dump.json"
    assert problem.message.startswith("/configs/0/static_listeners/1/listener: ")
    assert "$.name" in problem.message


def test_a_damaged_element_or_section_costs_only_itself() -> None:
    """Whatever the level at which it is damaged."""
    broken = {"@type": f"{ADMIN}ListenersConfigDump", "static_listeners": [5, {"listener": {}}]}
    loaded = load(
        broken,
        {"@type": f"{ADMIN}RoutesConfigDump", "static_route_configs": 7},
        "no section at all",
        clusters({"name": "c"}),
    )
    told = loaded.proxies["web"]
    assert len(told.listeners) == 1
    assert [entry.cluster.name for entry in told.clusters] == ["c"]
    assert [each.message.split(":")[0] for each in loaded.problems] == [
        "/configs/0/static_listeners/0",
        "/configs/1",
        "/configs/2",
    ]
    assert told.held == frozenset()


@pytest.mark.parametrize(
    "body",
    [b"", b'{"configs": [', b"\x1f\x8b\x08\x00binary", b"[]", b"{}", b'{"configs": 3}', b"5"],
)
def test_a_dump_that_is_none_makes_the_sidecar_unreachable(body: bytes) -> None:
    """With a sentence that names the document."""
    loaded = EnvoyProxies.load(Recorded({"envoy/web/config_dump.json": body}))
    assert loaded.proxies == {}
    assert loaded.unreachable["web"].startswith("envoy/web/config_dump.json: no config dump")


def test_other_pages_that_are_damaged_cost_only_themselves() -> None:
    """The dump still counts."""
    loaded = load(
        listeners({"name": "l"}), clusters=[], server_info={"version": 3}, stats={"stats": {}}
    )
    told = loaded.proxies["web"]
    assert told.server is None
    assert told.stats == {}
    assert told.endpoints == {}
    assert [each.document for each in loaded.problems] == [
        "envoy/web/clusters.json",
        "envoy/web/server_info.json",
        "envoy/web/stats.json",
    ]


def test_who_could_not_be_reached_is_named_with_the_reason() -> None:
    """From the manifest, or because only other pages are there."""
    held = {"envoy/a/config_dump.json": b'{"configs": []}', "envoy/b/stats.json": b"{}"}
    absent = [
        Problem("envoy/c/config_dump.json", "connection refused"),
        Problem("envoy/a/clusters.json", "timed out"),
    ]
    loaded = EnvoyProxies.load(Recorded(held, absent))
    assert list(loaded.proxies) == ["a"]
    assert loaded.unreachable == {
        "b": "no config_dump.json was recorded",
        "c": "connection refused",
    }


def test_nothing_recorded_at_all_is_missing_evidence() -> None:
    """With what the collector said, if it said something."""
    with pytest.raises(MissingEvidenceError, match="no sidecar's admin interface was recorded"):
        EnvoyProxies.load(Recorded())
    with pytest.raises(MissingEvidenceError, match="connection refused"):
        EnvoyProxies.load(
            Recorded(absent=[Problem("envoy/c/config_dump.json", "connection refused")])
        )


def test_sidecars_have_the_names_that_their_segments_encode() -> None:
    """A name that a file system cannot hold is percent-encoded in the snapshot."""
    loaded = EnvoyProxies.load(Recorded({"envoy/a%2Fb/config_dump.json": b'{"configs": []}'}))
    assert list(loaded.proxies) == ["a/b"]
    assert loaded.proxies["a/b"].document == "envoy/a%2Fb/config_dump.json"
