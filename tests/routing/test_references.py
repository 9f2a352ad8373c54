"""What listeners and routes refer to, with the places where it is written."""

import json
from typing import Any, Final

import pytest

from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.routing.references import ClusterReferences, route_references
from meshdoctor.testing import resolve
from tests.evidence.damage import CONNECT, ISTIO, recorded, recording, snapshot

LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
HTTP: Final = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
TCP: Final = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
ROUTES: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


def listening(*filters: dict[str, Any], state: str = "active_state") -> dict[str, Any]:
    """A dynamic listener on port 80 whose one chain has these filters."""
    listener = {
        "@type": LISTENER,
        "name": "web",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},  # noqa: S104
        "filter_chains": [{"filters": list(filters)}],
    }
    return {"name": "web", state: {"listener": listener}}


def tcp(**config: Any) -> dict[str, Any]:
    return {"name": "tcp", "typed_config": {"@type": TCP, **config}}


def http(**config: Any) -> dict[str, Any]:
    return {"name": "http", "typed_config": {"@type": HTTP, **config}}


def routes(name: str, *actions: dict[str, Any]) -> dict[str, Any]:
    """A route configuration whose one virtual host has a route for each action."""
    every = [{"match": {"prefix": "/"}, "route": action} for action in actions]
    host = {"name": "all", "domains": ["*"], "routes": every}
    return {"@type": ROUTES, "name": name, "virtual_hosts": [host]}


def proxy(
    *listeners: dict[str, Any], route_configs: tuple[dict[str, Any], ...] = ()
) -> EnvoyProxy:
    dump = {
        "configs": [
            {
                "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
                "dynamic_listeners": list(listeners),
            },
            {
                "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
                "dynamic_route_configs": [{"route_config": each} for each in route_configs],
            },
        ]
    }
    documents = snapshot({"envoy/web/config_dump.json": dump})
    return EnvoyProxies.load(documents).proxies["web"]


@pytest.mark.parametrize("mesh", [*ISTIO, *CONNECT])
def test_every_reference_is_cited_where_it_is_written(mesh: str) -> None:
    """What the pointer leads to names the cluster."""
    for sidecar, each in EnvoyProxies.load(recording(mesh)).proxies.items():
        dump = recorded(mesh, f"envoy/{sidecar}/config_dump.json")
        references = ClusterReferences(each)
        assert references
        for cluster, reference in references.items():
            assert reference.cluster == cluster
            assert json.dumps(cluster) in json.dumps(resolve(dump, reference.pointer))


def test_a_recorded_proxy_leads_to_every_service_of_a_port() -> None:
    """Broken: one TCP cluster on port 9080. Fixed: a route for each service."""
    found = {}
    for mesh in ("broken", "fixed"):
        one, *_ = EnvoyProxies.load(recording(mesh)).proxies.values()
        found[mesh] = [
            each for each in ClusterReferences(one).values() if each.listener == "0.0.0.0:9080"
        ]
    assert [(each.virtual_host, each.status) for each in found["broken"]] == [("", None)]
    assert sorted(each.virtual_host for each in found["fixed"]) == [
        f"{name}.service.consul:9080" for name in ("details", "productpage", "ratings", "reviews")
    ]
    assert {each.status for each in found["fixed"]} == {503}


def test_a_share_of_weight_0_leads_nowhere() -> None:
    """Of splits, in routes and in TCP proxies."""
    split = {"weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b"}]}}
    assert list(ClusterReferences(proxy(listening(tcp(**split))))) == ["a"]
    config = routes("r", split)
    assert list(ClusterReferences(proxy(listening(http(route_config=config))))) == ["a"]


def test_only_what_decides_refers() -> None:
    """Not a listener that still warms up, nor routes that no listener asks for."""
    warming = listening(tcp(cluster="a"), state="warming_state")
    assert (
        list(ClusterReferences(proxy(warming, route_configs=(routes("r", {"cluster": "b"}),))))
        == []
    )


def test_routes_by_name_and_routes_in_the_listener() -> None:
    """Both are cited in the dump; by name the pointer leads to the route itself."""
    named = routes("r", {"cluster": "a"}, {"cluster": "b"})
    by_name = ClusterReferences(
        proxy(listening(http(rds={"route_config_name": "r"})), route_configs=(named,))
    )
    assert by_name["b"].pointer.endswith(
        "/dynamic_route_configs/0/route_config/virtual_hosts/0/routes/1"
    )
    inside = ClusterReferences(proxy(listening(http(route_config=named))))
    assert inside["b"].pointer.endswith("/filter_chains/0/filters/0")
    assert (inside["b"].virtual_host, inside["b"].listener) == ("all", "0.0.0.0:80")


def test_what_a_missing_cluster_gives() -> None:
    """503, or what the route says; a TCP proxy closes the connection."""
    config = routes("r", {"cluster": "a", "cluster_not_found_response_code": "NOT_FOUND"})
    found = ClusterReferences(proxy(listening(http(route_config=config))))
    assert found["a"].status == 404
    assert ClusterReferences(proxy(listening(tcp(cluster="b"))))["b"].status is None


def test_route_configurations_that_listeners_ask_for() -> None:
    """By name alone: routes in a listener are there already."""
    asks = http(rds={"route_config_name": "r"})
    holds = http(route_config=routes("own", {"cluster": "a"}))
    (reference,) = route_references(proxy(listening(asks, holds)))
    assert (reference.route_config, reference.listener) == ("r", "0.0.0.0:80")
    assert reference.pointer.endswith("/dynamic_listeners/0/active_state/listener")
