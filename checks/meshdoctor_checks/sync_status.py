"""What Pilot sent to whom: whose entry of syncz is whose, and when a push was."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxy
from meshdoctor.evidence.pilot import SyncStatus
from meshdoctor.topology import Mesh, Sidecar

_NODE_PARTS: Final = 4
_VERSION: Final = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z/(\d+)"
"""Pilot 1.1 numbers its pushes: `2026-11-22T20:00:09Z/2`."""
_PATIENCE: Final = timedelta(seconds=10)
"""So long a push may be under way without anything being wrong."""

Push = tuple[datetime, int]


def by_proxy(mesh: Mesh, sync: Sequence[SyncStatus]) -> Mapping[str, Sidecar]:
    """The sidecars by the names that Pilot has for them, where they can be told."""
    named: dict[str, Sidecar] = {}
    workloads = {each.name: each for each in mesh.workloads}
    for sidecar in mesh.sidecars:
        if sidecar.proxy is not None and sidecar.proxy.node is not None:
            parts = sidecar.proxy.node.id.split("~")
            if len(parts) == _NODE_PARTS:
                named[parts[2]] = sidecar
                continue
        workload = workloads.get(sidecar.workload or "")
        if workload is not None and workload.container is not None:
            for address in workload.container.addresses.values():
                named.setdefault(f"{address}.service.consul", sidecar)
    return {each.proxy: named[each.proxy] for each in sync if each.proxy in named}


def push_of(version: str) -> Push | None:
    """When a push was and its number, where a version is one of Pilot's."""
    match = re.fullmatch(_VERSION, version)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1]).replace(tzinfo=UTC), int(match[2])
    except ValueError:
        return None


def push_under_way(proxies: Mapping[str, EnvoyProxy], docker: DockerEngine | None) -> bool:
    """Whether a push was so young, when the evidence was gathered, that nothing can be told."""
    versions = {
        version
        for proxy in proxies.values()
        for version in (*proxy.accepted.values(), *proxy.version_info.values())
    }
    pushes = [push for each in versions if (push := push_of(each)) is not None]
    asked = docker.asked if docker is not None else None
    return bool(pushes) and asked is not None and asked - max(pushes)[0] < _PATIENCE
