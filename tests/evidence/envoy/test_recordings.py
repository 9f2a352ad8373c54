"""What is known of the recorded meshes, read from their Envoys' pages."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

from meshdoctor.evidence.envoy import (
    ConfigState,
    EnvoyProxies,
    EnvoyProxy,
    NetworkFilter,
    TcpProxy,
)
from meshdoctor.evidence.envoy.dump import Shared, decode_dump
from meshdoctor.evidence.envoy.pages import STATS, decode_stats
from meshdoctor.snapshot import open_snapshot

MESHES = Path(__file__).parents[3] / "fixtures" / "meshes"

ISTIO = ("broken", "fixed", "broken-v2", "fixed-v2")
CONNECT = ("connect-healthy", "connect-collision")


@cache
def load(mesh: str) -> EnvoyProxies:
    return EnvoyProxies.load(open_snapshot(MESHES / f"{mesh}.tgz"))


def listener(proxy: EnvoyProxy, key: str) -> int:
    keys = [entry.listener.key for entry in proxy.deciding_listeners()]
    return keys.index(key)


@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
def test_every_proxy_of_a_recording_is_decoded_without_a_problem(mesh: str) -> None:
    """A real Envoy's pages hold nothing that the decoder stumbles over."""
    loaded = load(mesh)
    assert len(loaded.proxies) == (6 if mesh in ISTIO else 4)
    assert list(loaded.proxies) == sorted(loaded.proxies)
    assert loaded.unreachable == {}
    assert loaded.problems == ()
    for proxy in loaded.proxies.values():
        assert proxy.held == {"listeners", "routes", "clusters", "endpoints"}
        assert proxy.server is not None
        assert proxy.server.version == "1.40.0"
        assert proxy.server.state == "LIVE"
        assert proxy.node is not None
        assert all(entry.state is not ConfigState.WARMING for entry in proxy.listeners)


@pytest.mark.parametrize("mesh", ["broken", "broken-v2"])
def test_one_service_owns_the_shared_port_of_the_broken_mesh(mesh: str) -> None:
    """One tcp_proxy has 0.0.0.0:9080 in every sidecar, and it is the same one in all."""
    owners = set()
    for proxy in load(mesh).proxies.values():
        entry = proxy.deciding_listeners()[listener(proxy, "0.0.0.0:9080")]
        (tcp,) = entry.listener.tcp_proxies
        assert entry.listener.http_managers == ()
        assert not entry.listener.bind_to_port
        owners.add(tcp.cluster)
    assert owners == {"outbound|9080||reviews.service.consul"}


@pytest.mark.parametrize("mesh", ["fixed", "fixed-v2"])
def test_the_fixed_mesh_routes_the_shared_port_by_host(mesh: str) -> None:
    """0.0.0.0:9080 asks for the routes named 9080, which hold every service."""
    for proxy in load(mesh).proxies.values():
        entry = proxy.deciding_listeners()[listener(proxy, "0.0.0.0:9080")]
        (manager,) = entry.listener.http_managers
        assert manager.rds == "9080"
        assert manager.route_config is None
        (routes,) = [each for each in proxy.routes if each.route_config.name == "9080"]
        assert routes.state is ConfigState.ACTIVE
        hosts = {host.name: host for host in routes.route_config.virtual_hosts}
        assert list(hosts) == [
            f"{name}.service.consul:9080"
            for name in ("details", "productpage", "ratings", "reviews")
        ]
        assert hosts["details.service.consul:9080"].domains == (
            "details.service.consul",
            "details.service.consul:9080",
            "details",
            "details:9080",
            "details.service",
            "details.service:9080",
        )


@pytest.mark.parametrize("mesh", ISTIO)
def test_the_virtual_listener_hands_connections_over(mesh: str) -> None:
    """0.0.0.0:15001 uses the original destination; its own chain passes calls through."""
    for proxy in load(mesh).proxies.values():
        entry = proxy.deciding_listeners()[listener(proxy, "0.0.0.0:15001")]
        assert entry.listener.use_original_dst
        assert entry.listener.bind_to_port
        (tcp,) = entry.listener.tcp_proxies
        assert tcp.cluster == "PassthroughCluster"


def test_v2_and_v3_dumps_of_one_moment_tell_the_same() -> None:
    """The model is the same whichever version the proxy spoke."""
    for name, v3 in load("fixed").proxies.items():
        v2 = load("fixed-v2").proxies[name]
        assert (v2.api, v3.api) == ("v2", "v3")
        by_name = {each.cluster.name: each.cluster for each in v2.clusters}
        for each in v3.clusters:
            twin = by_name.pop(each.cluster.name)
            assert (twin.type, twin.eds_service_name) == (
                each.cluster.type,
                each.cluster.eds_service_name,
            )
        assert by_name == {}
        assert {each.listener.key for each in v2.listeners} == {
            each.listener.key for each in v3.listeners
        }


def test_the_refused_upstream_of_the_collision_is_said_once() -> None:
    """Envoy tells of a listener it never took twice; the dump holds one rejected update."""
    proxy = load("connect-collision").proxies["web-sidecar-proxy"]
    (rejected,) = proxy.rejected
    assert rejected.kind == "listener"
    assert rejected.name == "api:127.0.0.1:9191"
    assert "has duplicate address '127.0.0.1:9191'" in rejected.details
    assert rejected.pointer == "/configs/3/dynamic_listeners/2/error_state"
    assert rejected.listener is not None
    assert rejected.listener.key == "127.0.0.1:9191"
    assert [entry.listener.name for entry in proxy.deciding_listeners()] == [
        "public_listener:127.0.0.1:21000",
        "pay:127.0.0.1:9191",
    ]


def test_a_connect_proxy_tells_its_bootstrap_and_its_filters() -> None:
    """Node, admin address, the rbac filter of the public listener, and its TLS."""
    proxy = load("connect-healthy").proxies["web-sidecar-proxy"]
    assert proxy.node is not None
    assert (proxy.node.id, proxy.node.cluster) == ("web-sidecar-proxy", "web")
    assert proxy.node.metadata == {"envoy_version": "1.20.2", "namespace": "default"}
    assert (proxy.admin_address, proxy.admin_port) == ("127.0.0.1", 19000)
    public = proxy.deciding_listeners()[listener(proxy, "127.0.0.1:21000")].listener
    (chain,) = public.filter_chains
    assert chain.transport_socket == "tls"
    first, second = chain.filters
    assert isinstance(first, NetworkFilter)
    assert first.name == "envoy.filters.network.rbac"
    assert isinstance(second, TcpProxy)
    assert public.traffic_direction == "INBOUND"


def test_a_threshold_that_is_set_to_nothing_is_zero() -> None:
    """`healthy_panic_threshold: {}` turns panic off; no threshold at all means 50 percent."""
    proxy = load("connect-healthy").proxies["web-sidecar-proxy"]
    thresholds = {each.cluster.name.split(".")[0]: each.cluster for each in proxy.clusters}
    assert thresholds["api"].panic_threshold == 0.0
    assert thresholds["local_app"].panic_threshold is None


def test_endpoints_are_those_the_proxy_balances_over() -> None:
    """They come from /clusters, and the citation leads there."""
    proxy = load("fixed").proxies["consul_productpage-v1-sidecar_1"]
    held = proxy.endpoints["outbound|9080||reviews.service.consul"]
    assert {each.port for each in held.endpoints} == {9080}
    assert len(held.endpoints) == 3
    assert all(each.health == "HEALTHY" and each.is_available for each in held.endpoints)
    assert held.document == "envoy/consul_productpage-v1-sidecar_1/clusters.json"
    assert held.pointer.startswith("/cluster_statuses/")
    assert proxy.endpoints["BlackHoleCluster"].endpoints == ()
    assert "outbound|1||nobody" not in proxy.endpoints


def test_proxies_of_one_mesh_share_what_is_the_same() -> None:
    """Six sidecars hold one copy of the routes they have in common."""
    proxies = load("fixed").proxies.values()
    shared = {
        id(entry.route_config)
        for proxy in proxies
        for entry in proxy.routes
        if entry.route_config.name == "9080"
    }
    assert len(shared) == 1


def test_statistics_are_those_that_checks_read() -> None:
    """Not the hundred that Envoy keeps of every cluster."""
    proxy = load("connect-collision").proxies["web-sidecar-proxy"]
    assert proxy.stats["listener_manager.lds.update_rejected"] == 3
    assert proxy.stats["control_plane.connected_state"] == 1
    assert proxy.stats["server.live"] == 1
    assert not any(name.startswith("cluster.") for name in proxy.stats)


@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
def test_what_is_asked_for_of_the_statistics_is_all_that_is_read(mesh: str) -> None:
    """The recordings have all of them: those that Envoy would leave out tell checks nothing."""
    snapshot = open_snapshot(MESHES / f"{mesh}.tgz")
    pages = [name for name in snapshot.names("envoy/") if name.endswith("/stats.json")]
    assert pages
    for page in pages:
        raw = snapshot.read(page)
        written = json.loads(raw)["stats"]
        kept = [each for each in written if re.search(STATS, each.get("name", ""))]
        assert len(kept) < len(written) / 3
        asked_for = json.dumps({"stats": kept}).encode()
        assert decode_stats(page, asked_for) == decode_stats(page, raw)


@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
def test_a_dump_decoded_at_once_says_what_its_parts_say(mesh: str) -> None:
    """With a section that nobody knows, each part is decoded by itself."""
    snapshot = open_snapshot(MESHES / f"{mesh}.tgz")
    pages = [name for name in snapshot.names("envoy/") if name.endswith("/config_dump.json")]
    assert pages
    for page in pages:
        raw = snapshot.read(page)
        written = json.loads(raw)
        written["configs"].append({"@type": "type.googleapis.com/envoy.admin.v9.NewConfigDump"})
        in_parts = decode_dump(page, json.dumps(written).encode(), Shared())
        assert decode_dump(page, raw, Shared()) == in_parts
        assert in_parts.clusters
