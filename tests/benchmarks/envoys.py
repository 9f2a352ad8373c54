"""A real Envoy in a mesh of any size, so that what is decoded is what a real Envoy wrote.

It is told over one stream of ADS, by the lab's control plane.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401 # named by "@type"
from envoy.extensions.filters.http.cors.v3 import cors_pb2  # noqa: F401
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2  # noqa: F401

from tests.benchmarks.meshes import ADS, EXTENSIONS, OWN, OWN_SERVICE, VERSION, configuration
from tests.live.lab.control_plane.discovery import Discovery
from tests.routing.real_envoy import Envoy, address, running


@contextmanager
def control_plane(services: int, host: str = "127.0.0.1", sidecars: int = 1) -> Iterator[int]:
    """The port, at an address of this machine, where so many sidecars get their configuration."""
    told = configuration(services)
    discovery = Discovery(lambda _address: (VERSION, told))
    # Each stream holds a thread for as long as its sidecar runs.
    streams = grpc.server(ThreadPoolExecutor(sidecars + 1))
    streams.add_generic_rpc_handlers((discovery.handler(),))
    port = streams.add_insecure_port(f"{host}:0")
    streams.start()
    try:
        yield port
    finally:
        streams.stop(None).wait()


@contextmanager
def envoy_with(services: int) -> Iterator[Envoy]:
    """A sidecar's Envoy in a mesh of so many services; its listeners do not bind their ports."""
    with control_plane(services) as port, running(bootstrap("127.0.0.1", port)) as envoy:
        yield envoy


def bootstrap(host: str, port: int) -> dict[str, Any]:
    """As pilot-agent writes it, with the control plane at this address."""
    http2 = {
        "@type": f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    behind = {"endpoint": {"address": address(host, port)}}
    control_plane = {
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [behind]}],
        },
    }
    return {
        "node": {
            "id": f"sidecar~{OWN}~{OWN}.service.consul~service.consul",
            "cluster": OWN_SERVICE,
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "cds_config": ADS,
            "lds_config": ADS,
        },
        "static_resources": {"clusters": [control_plane]},
    }


def sidecars_of(dump: bytes, count: int) -> list[bytes]:
    """The dumps of so many sidecars of one mesh: as `dump`, but each at its own address."""
    return [dump.replace(OWN.encode(), f"10.255.0.{own + 1}".encode()) for own in range(count)]
