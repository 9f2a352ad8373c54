"""Who was to share whose network namespace, where Docker alone no longer tells."""

import re
from collections.abc import Sequence
from typing import Final

from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.topology import Mesh, SidecarState, Workload
from meshdoctor.topology.roles import installs_redirect

_NUMBER: Final = r"[-_][0-9]+$"


def intended_workload(sidecar: Container, docker: DockerEngine, mesh: Mesh) -> Workload | None:
    """The workload a sidecar was to serve: the one it points to, else a bare one of its name."""
    target = docker.container(sidecar.network_container)
    if target is not None:
        return mesh.workload_of(target)
    named = [
        each
        for each in mesh.workloads
        if each.container is not None
        and not any(beside.state is not SidecarState.DOWN for beside in each.sidecars)
        and _is_named_after(sidecar, each.container)
    ]
    return max(named, key=lambda each: len(each.name), default=None)


def _is_named_after(sidecar: Container, application: Container) -> bool:
    """Compose files name the sidecar of `details-v1` `details-v1-sidecar`."""
    if sidecar.compose_project != application.compose_project:
        return False
    if sidecar.compose_service:
        wanted, name = application.compose_service, sidecar.compose_service
    else:
        # Compose's names end with a number, others perhaps too.
        wanted, name = (re.sub(_NUMBER, "", each.name) for each in (application, sidecar))
    return bool(wanted) and name.startswith((f"{wanted}-", f"{wanted}_"))


def inits_of_same_namespace(sidecar: Container, docker: DockerEngine) -> Sequence[Container]:
    """The init containers that point to the very container that a sidecar points to."""
    return [
        each
        for each in docker.containers
        if each.network_container == sidecar.network_container and installs_redirect(each)
    ]
