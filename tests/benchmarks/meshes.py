"""Synthetic meshes of any size: what each Envoy would be told, and what Consul would say.

Made by hand, for their size alone: no finding is meant to come of them. `resources` are given to
a real Envoy, so that what is decoded is what a real Envoy wrote; `snapshot` makes whole meshes
of such dumps.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from meshdoctor.snapshot import Snapshot
from tests.routing.meshes import App, catalogue, sidecar
from tests.routing.real_envoy import MANAGER, ROUTER, Envoy, address, running

PORT: Final = 9080
_INSTANCES: Final = 2
_TYPES: Final = "type.googleapis.com/envoy.config"


def _cluster(number: int) -> dict[str, Any]:
    host = f"service-{number:04}.service.consul"
    name = f"outbound|{PORT}||{host}"
    endpoints = [
        {
            "endpoint": {
                "address": address(f"10.{number // 250}.{number % 250}.{instance + 1}", PORT)
            },
            "metadata": {"filter_metadata": {"istio": {"uid": f"consul://{number}.{instance}"}}},
        }
        for instance in range(_INSTANCES)
    ]
    unlimited = 4294967295
    threshold = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), unlimited
    )
    return {
        "@type": f"{_TYPES}.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [threshold]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _virtual_host(number: int) -> dict[str, Any]:
    short = f"service-{number:04}"
    names = (f"{short}.service.consul", short, f"{short}.service")
    return {
        "name": f"{names[0]}:{PORT}",
        "domains": [spelt for name in names for spelt in (name, f"{name}:{PORT}")],
        "routes": [
            {
                "match": {"prefix": "/"},
                "route": {"cluster": f"outbound|{PORT}||{names[0]}", "timeout": "0s"},
                "decorator": {"operation": f"{names[0]}:{PORT}/*"},
            }
        ],
    }


def resources(services: int) -> Mapping[str, dict[str, Any]]:
    """What an Envoy in a mesh of so many services is told, by the name of a file for it."""
    rds = {
        "route_config_name": str(PORT),
        "config_source": {"path_config_source": {"path": "@/rds.json"}},
    }
    manager = {
        "@type": MANAGER,
        "stat_prefix": f"0.0.0.0_{PORT}",
        "rds": rds,
        "http_filters": [ROUTER],
    }
    listener = {
        "@type": f"{_TYPES}.listener.v3.Listener",
        "name": f"0.0.0.0_{PORT}",
        "address": address("0.0.0.0", PORT),  # noqa: S104 # what Pilot binds listeners to
        "bind_to_port": False,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    routes = {
        "@type": f"{_TYPES}.route.v3.RouteConfiguration",
        "name": str(PORT),
        "virtual_hosts": [_virtual_host(number) for number in range(services)],
    }
    return {
        "cds.json": _update(_cluster(number) for number in range(services)),
        "lds.json": _update([listener]),
        "rds.json": _update([routes]),
    }


BOOTSTRAP: Final[Mapping[str, Any]] = {
    "dynamic_resources": {
        "cds_config": {"path_config_source": {"path": "@/cds.json"}},
        "lds_config": {"path_config_source": {"path": "@/lds.json"}},
    }
}
"""Where those files are read from; "@" stands for their folder."""


@contextmanager
def envoy_with(services: int) -> Iterator[Envoy]:
    """A real Envoy that holds the configuration of a mesh of so many services."""
    with running(dict(BOOTSTRAP), dict(resources(services))) as envoy:
        yield envoy


def _update(resources: Any) -> dict[str, Any]:
    return {"version_info": "1", "resources": list(resources)}


def apps(services: int, sidecars: int) -> Sequence[App]:
    """So many services, with so many sidecars spread over them, at least one each."""
    return [
        App(
            f"service-{number % services:04}",
            f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}",
        )
        for number in range(max(services, sidecars))
    ]


def snapshot(services: int, sidecars: int) -> Snapshot:
    """A healthy mesh of so many services and sidecars, in memory."""
    return Snapshot(dict(_documents(services, sidecars)))


def write_mesh(services: int, sidecars: int, file: Path) -> None:
    """The same mesh as a snapshot's .tgz; no two of its dumps are in memory at once."""
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        for name, body in _documents(services, sidecars):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))


def _documents(services: int, sidecars: int) -> Iterator[tuple[str, bytes]]:
    everybody = apps(services, sidecars)
    documents = catalogue(everybody)
    yield from ((name, json.dumps(body).encode()) for name, body in documents.items())
    for app in everybody[:sidecars]:
        for name, body in sidecar(app, everybody).items():
            yield name, json.dumps(body).encode()
