"""Proxies written down in a few lines, as a config dump would have them."""

import json
from typing import Any

from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from tests.routing.real_envoy import MANAGER, ROUTER, Documents, address, static_cluster

Json = dict[str, Any]
ADMIN = "type.googleapis.com/envoy.admin.v3."


def proxy(
    *listeners: Json, clusters: tuple[Json, ...] = (), version: str = "1.40.0"
) -> EnvoyProxy:
    """A proxy of these static listeners, with a cluster `c` beside `clusters`."""
    configs = [
        {"@type": f"{ADMIN}BootstrapConfigDump"},
        {
            "@type": f"{ADMIN}ClustersConfigDump",
            "static_clusters": [
                {"cluster": each} for each in (static_cluster("c", 8000), *clusters)
            ],
        },
        {
            "@type": f"{ADMIN}ListenersConfigDump",
            "static_listeners": [{"listener": each} for each in listeners],
        },
    ]
    held = {"envoy/web/config_dump.json": json.dumps({"configs": configs}).encode()}
    if version:
        held["envoy/web/server_info.json"] = json.dumps(
            {"version": f"0a1b2c/{version}/Clean/RELEASE/BoringSSL"}
        ).encode()
    loaded = EnvoyProxies.load(Documents(held))
    assert loaded.problems == ()
    return loaded.proxies["web"]


def listener(*filter_chains: Json, **more: Any) -> Json:
    """A listener on 127.0.0.1:80."""
    return {
        "name": "l",
        "address": address("127.0.0.1", 80),
        "filter_chains": list(filter_chains),
        **more,
    }


def tcp(cluster: str = "c", **match: Any) -> Json:
    """A filter chain with a TCP proxy."""
    proxy_type = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": f"type.googleapis.com/{proxy_type}", "cluster": cluster}
    filters = [{"name": "tcp", "typed_config": config}]
    return {"name": cluster, "filter_chain_match": match, "filters": filters}


def http(*routes: Json, config: Json | None = None, host: Json | None = None, **more: Any) -> Json:
    """A filter chain with an HTTP connection manager of one virtual host."""
    virtual_host = {"name": "v", "domains": ["*"], "routes": list(routes), **(host or {})}
    manager = {
        "@type": MANAGER,
        "route_config": {"name": "r", "virtual_hosts": [virtual_host], **(config or {})},
        "http_filters": [ROUTER],
        **more,
    }
    return {"filters": [{"name": "http", "typed_config": manager}]}
