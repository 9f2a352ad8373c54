"""Who was to share whose network namespace, where Docker alone no longer tells."""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, SidecarState, Workload
from meshdoctor.topology.roles import installs_redirect

_NUMBER: Final = r"[-_][0-9]+$"


def intended_workload(sidecar: Container, docker: DockerEngine, mesh: Mesh) -> Workload | None:
    """The workload a sidecar was to serve: the one it points to, else a bare one of its name."""
    target = docker.container(sidecar.network_container)
    if target is not None:
        _, workload = _workloads(Identity(mesh)).get(target.id, (0, None))
        return workload
    # Compose files name the sidecar of `details-v1` `details-v1-sidecar`.
    service = sidecar.compose_service
    name = service or _unnumbered(sidecar)
    bare = _bare(Identity(mesh))
    named = [
        bare[key]
        for end, each in enumerate(name)
        if each in "-_" and (key := (sidecar.compose_project, bool(service), name[:end])) in bare
    ]
    return min(named, key=_longest_first)[1] if named else None


def workloads_of(mesh: Mesh, containers: Iterable[Container]) -> Sequence[Workload]:
    """The workloads that these containers are, in the order of the mesh."""
    known = _workloads(Identity(mesh))
    found = dict(known[each.id] for each in containers if each.id in known)
    return [found[place] for place in sorted(found)]


def workload_named(mesh: Mesh, name: str | None) -> Workload | None:
    """The workload of that name, None for none."""
    return None if name is None else _by_name(Identity(mesh)).get(name)


def _unnumbered(container: Container) -> str:
    """Compose's names end with a number, others perhaps too."""
    return re.sub(_NUMBER, "", container.name)


def _longest_first(numbered: tuple[int, Workload]) -> tuple[int, int]:
    place, workload = numbered
    return -len(workload.name), place


def inits_of_same_namespace(sidecar: Container, docker: DockerEngine) -> Sequence[Container]:
    """The init containers that point to the very container that a sidecar points to."""
    return _inits(Identity(docker)).get(sidecar.network_container, ())


# A thousand sidecars are asked for one by one: each is a look-up, and no search.
@functools.lru_cache(maxsize=2)
def _workloads(mesh: Identity[Mesh]) -> Mapping[str, tuple[int, Workload]]:
    """With their places, by the ids of their containers."""
    found: dict[str, tuple[int, Workload]] = {}
    for place, each in enumerate(mesh.fact.workloads):
        if each.container is not None:
            found.setdefault(each.container.id, (place, each))
    return found


@functools.lru_cache(maxsize=2)
def _by_name(mesh: Identity[Mesh]) -> Mapping[str, Workload]:
    return {each.name: each for each in reversed(mesh.fact.workloads)}


@functools.lru_cache(maxsize=2)
def _bare(mesh: Identity[Mesh]) -> Mapping[tuple[str, bool, str], tuple[int, Workload]]:
    """Workloads without a running sidecar, with their places.

    By their Compose project, and by their service there (True) or their name (False); of several
    the one of the longest name.
    """
    found: dict[tuple[str, bool, str], list[tuple[int, Workload]]] = defaultdict(list)
    for place, each in enumerate(mesh.fact.workloads):
        container = each.container
        if container is None or any(
            beside.state is not SidecarState.DOWN for beside in each.sidecars
        ):
            continue
        project = container.compose_project
        found[project, True, container.compose_service].append((place, each))
        found[project, False, _unnumbered(container)].append((place, each))
    return {key: min(them, key=_longest_first) for key, them in found.items() if key[2]}


@functools.lru_cache(maxsize=2)
def _inits(docker: Identity[DockerEngine]) -> Mapping[str, Sequence[Container]]:
    found: dict[str, list[Container]] = defaultdict(list)
    for each in docker.fact.containers:
        if installs_redirect(each):
            found[each.network_container].append(each)
    return found
