"""Synthetic meshes of any size: what each Envoy is told, and what Consul would say.

Made by hand, for their size alone. What an Envoy is told was taken, field by field, from
`fixtures/meshes/fixed-v2.tgz`, the dumps that Pilot 1.1 gave for each sidecar, and put into
today's v3 words: EDS clusters with circuit breakers, routes with retry policy, timeouts and
decorator, listeners with their filters, tracing and access log. (There is no `mixer` on its
routes: Pilot writes that only in meshes that have Mixer.) `snapshot` makes whole meshes of
smaller dumps.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from meshdoctor.snapshot import Snapshot
from tests.live.lab.control_plane.configuration import Configuration
from tests.routing.meshes import App, catalogue, sidecar
from tests.routing.real_envoy import MANAGER, ROUTER, address

VERSION: Final = "2026-11-22T20:00:09Z/2"
"""Of a push, as Pilot names them."""
PORT: Final = 9080
_INSTANCES: Final = 2
EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"
ADS: Final = {"ads": {}, "resource_api_version": "V3"}
OWN: Final = "10.255.0.1"
OWN_SERVICE: Final = "service-0000"
_ACCESS_LOG: Final = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    '%RESPONSE_CODE% %RESPONSE_FLAGS% "%DYNAMIC_METADATA(istio.mixer:status)%" '
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" '
    '"%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME%\n"
)


def _cluster(number: int) -> dict[str, Any]:
    name = f"outbound|{PORT}||{_host(number)}"
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": ADS,
            "service_name": name,
        },
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_retries": 1024}]},
    }


def _host(number: int) -> str:
    return f"service-{number:04}.service.consul"


def _load_assignment(number: int) -> dict[str, Any]:
    addresses = [
        address(f"10.{number // 250}.{number % 250}.{instance + 1}", PORT)
        for instance in range(_INSTANCES)
    ]
    return {
        "cluster_name": f"outbound|{PORT}||{_host(number)}",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": each}} for each in addresses]}],
    }


def _own_clusters() -> list[dict[str, Any]]:
    """What every sidecar has beside the clusters of the services."""
    inbound = f"inbound|{PORT}|http|{OWN_SERVICE}.service.consul"
    behind = {"endpoint": {"address": address("127.0.0.1", PORT)}}
    return [
        {
            "name": inbound,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": inbound,
                "endpoints": [{"lb_endpoints": [behind]}],
            },
            "circuit_breakers": {"thresholds": [{}]},
        },
        {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "1s"},
        {
            "name": "PassthroughCluster",
            "type": "ORIGINAL_DST",
            "connect_timeout": "1s",
            "lb_policy": "CLUSTER_PROVIDED",
        },
    ]


def _virtual_host(number: int) -> dict[str, Any]:
    short = f"service-{number:04}"
    names = (f"{short}.service.consul", short, f"{short}.service")
    retried = (
        "connect-failure,refused-stream,unavailable,cancelled,resource-exhausted,"
        "retriable-status-codes"
    )
    never_twice = {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {
            "@type": f"{EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        },
    }
    return {
        "name": f"{names[0]}:{PORT}",
        "domains": [spelt for name in names for spelt in (name, f"{name}:{PORT}")],
        "routes": [
            {
                "match": {"prefix": "/"},
                "route": {
                    "cluster": f"outbound|{PORT}||{names[0]}",
                    "timeout": "0s",
                    "retry_policy": {
                        "retry_on": retried,
                        "num_retries": 2,
                        "retry_host_predicate": [never_twice],
                        "host_selection_retry_max_attempts": "3",
                        "retriable_status_codes": [503],
                    },
                    "max_grpc_timeout": "0s",
                },
                "decorator": {"operation": f"{names[0]}:{PORT}/*"},
            }
        ],
    }


def _listeners() -> list[dict[str, Any]]:
    """The sidecar's own, that of the services' port, and what takes all connections."""
    inbound = f"inbound|{PORT}|http|{OWN_SERVICE}.service.consul"
    action = {"cluster": inbound, "timeout": "0s", "max_grpc_timeout": "0s"}
    route = {
        "match": {"prefix": "/"},
        "route": action,
        "decorator": {"operation": f"{OWN_SERVICE}.service.consul:{PORT}/*"},
    }
    host = {"name": f"inbound|http|{PORT}", "domains": ["*"], "routes": [route]}
    routes = {"name": inbound, "virtual_hosts": [host], "validate_clusters": False}
    rds = {"config_source": ADS, "route_config_name": str(PORT)}
    passthrough = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "PassthroughCluster",
            "cluster": "PassthroughCluster",
        },
    }
    anywhere = "0.0.0.0"  # noqa: S104 # what Pilot binds listeners to
    shown = {
        "server_name": "istio-envoy",
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
    }
    return [
        _listener(OWN, PORT, _manager(f"{OWN}_{PORT}", route_config=routes, **shown)),
        _listener(anywhere, PORT, _manager(f"{anywhere}_{PORT}", rds=rds)),
        # Bound to its port it would meet a real one, or another Envoy's of the benchmarks.
        {**_listener(anywhere, 15001, passthrough), "name": "virtual", "use_original_dst": True},
    ]


def _listener(host: str, port: int, network_filter: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{host}_{port}",
        "address": address(host, port),
        "filter_chains": [{"filters": [network_filter]}],
        "bind_to_port": False,
    }


def _manager(stat_prefix: str, **more: Any) -> dict[str, Any]:
    filters = [
        {
            "name": f"envoy.filters.http.{name}",
            "typed_config": {"@type": f"{EXTENSIONS}.filters.http.{name}.v3.{message}"},
        }
        for name, message in (("cors", "Cors"), ("fault", "HTTPFault"))
    ]
    log = {
        "@type": f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/stdout",
        "log_format": {"text_format_source": {"inline_string": _ACCESS_LOG}},
    }
    percent = {"value": 100}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": MANAGER,
            "stat_prefix": stat_prefix,
            **more,
            "http_filters": [*filters, ROUTER],
            "tracing": {
                "client_sampling": percent,
                "random_sampling": percent,
                "overall_sampling": percent,
            },
            "stream_idle_timeout": "0s",
            "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}],
            "use_remote_address": False,
            "generate_request_id": True,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        },
    }


def configuration(services: int) -> Configuration:
    """What a sidecar's Envoy is told over ADS."""
    routes = {
        "name": str(PORT),
        "virtual_hosts": [_virtual_host(number) for number in range(services)],
        "validate_clusters": False,
    }
    return Configuration(
        listeners=_listeners(),
        clusters=[*_own_clusters(), *(_cluster(number) for number in range(services))],
        routes=[routes],
        endpoints=[_load_assignment(number) for number in range(services)],
    )


def apps(services: int, sidecars: int, protocol: str | None = "http") -> Sequence[App]:
    """So many services, with so many sidecars spread over them, at least one each."""
    return [
        App(
            f"service-{number % services:04}",
            f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}",
            protocol=protocol,
        )
        for number in range(max(services, sidecars))
    ]


def snapshot(services: int, sidecars: int, *, is_broken: bool = False) -> Snapshot:
    """A mesh of so many services and sidecars, in memory: healthy, or broken as in the story.

    Then no service has a protocol, and one of them has the listener of all.
    """
    return Snapshot(dict(_documents(services, sidecars, is_broken=is_broken)))


def write_mesh(services: int, sidecars: int, file: Path, *, is_broken: bool = False) -> None:
    """The same mesh as a snapshot's .tgz; no two of its dumps are in memory at once."""
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        for name, body in _documents(services, sidecars, is_broken=is_broken):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))


def _documents(services: int, sidecars: int, *, is_broken: bool) -> Iterator[tuple[str, bytes]]:
    everybody = apps(services, sidecars, None if is_broken else "http")
    owners = {PORT: everybody[-1].service} if is_broken else {}
    documents = catalogue(everybody)
    yield from ((name, json.dumps(body).encode()) for name, body in documents.items())
    for app in everybody[:sidecars]:
        for name, body in sidecar(app, everybody, owners).items():
            yield name, json.dumps(body).encode()
