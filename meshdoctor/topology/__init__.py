"""The sources joined into one mesh: services, instances, workloads, sidecars, components."""

from meshdoctor.topology.mesh import (
    Component,
    Mesh,
    Service,
    Sidecar,
    SidecarState,
    Workload,
)
from meshdoctor.topology.registrator import Registration, Registrator
from meshdoctor.topology.roles import Role

__all__ = [
    "Component",
    "Mesh",
    "Registration",
    "Registrator",
    "Role",
    "Service",
    "Sidecar",
    "SidecarState",
    "Workload",
]
