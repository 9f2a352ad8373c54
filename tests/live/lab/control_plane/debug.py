"""The debug pages and metrics, in the shapes of Pilot 1.1."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tests.live.lab.control_plane.catalogue import Service
from tests.live.lab.control_plane.configuration import Conflict, Mesh, Rule

_NEVER: Final = "0001-01-01T00:00:00Z"
_CONFLICTS: Final = (
    "inbound_listener",
    "outbound_listener_http_over_current_tcp",
    "outbound_listener_tcp_over_current_http",
    "outbound_listener_tcp_over_current_tcp",
)


def _service(each: Service) -> dict[str, Any]:
    return {
        "hostname": each.host,
        "address": "0.0.0.0",  # noqa: S104 # what Pilot writes
        "Mutex": {},
        "ports": [
            {"name": protocol.lower(), "port": port, "protocol": protocol}
            for port, protocol in each.ports.items()
        ],
        "MeshExternal": False,
        "Resolution": 0,
        "creationTime": _NEVER,
        "Attributes": {
            "Name": each.host,
            "Namespace": "default",
            "UID": "",
            "ExportTo": None,
        },
    }


def registryz(services: Iterable[Service]) -> str:
    """Pilot 1.1 ends its list with an empty object."""
    return json.dumps([*(_service(each) for each in services), {}], indent=2)


def endpointz(services: Iterable[Service]) -> str:
    """Each port of a service by itself, under the port's name."""
    page = []
    for each in services:
        for port, protocol in each.ports.items():
            its = {"name": protocol.lower(), "port": port, "protocol": protocol}
            endpoints: list[dict[str, Any]] = [
                {
                    "endpoint": {
                        "Family": 0,
                        "Address": instance.address,
                        "Port": instance.port,
                        "ServicePort": its,
                        "UID": "",
                        "Network": "",
                        "Locality": instance.datacenter,
                        "LbWeight": 0,
                    },
                    "service": _service(each),
                }
                for instance in each.instances
                if instance.port == port
            ]
            page.append({"svc": f"{each.host}:{protocol.lower()}", "ep": [*endpoints, {}]})
    return json.dumps([*page, {}], indent=2)


def configz(mesh: Mesh) -> str:
    """The rules in force."""
    kinds: tuple[tuple[str, Sequence[Rule]], ...] = (
        ("virtual-service", mesh.virtual_services),
        ("destination-rule", mesh.destination_rules),
    )
    return json.dumps([*(_rule(kind, each) for kind, rules in kinds for each in rules), {}])


def _rule(kind: str, rule: Rule) -> dict[str, Any]:
    held = rule["metadata"]
    return {
        "type": kind,
        "group": "networking.istio.io",
        "version": "v1alpha3",
        "name": held["name"],
        "namespace": held.get("namespace", "default"),
        "creationTimestamp": held.get("creationTimestamp"),
        "Spec": rule["spec"],
    }


def push_status(started: str, conflicts: Iterable[Conflict]) -> str:
    """Of each listener it keeps the last victim alone."""
    status: dict[str, dict[str, Any]] = {}
    for each in conflicts:
        message = f"Listener={each.listener} Accepted={each.accepted} Rejected={each.rejected} "
        status.setdefault(f"pilot_conflict_{each.kind}", {})[each.listener] = {"message": message}
    return json.dumps({"ProxyStatus": status, "Start": started, "End": _NEVER}, indent=4)


def metrics(mesh: Mesh, conflicts: Iterable[Conflict], connected: int, rejects: int) -> str:
    """Prometheus' text."""
    found = Counter(each.kind for each in conflicts)
    values: Mapping[str, int] = {
        **{f"pilot_conflict_{kind}": found[kind] for kind in _CONFLICTS},
        "pilot_services": len(mesh.services),
        "pilot_total_xds_rejects": rejects,
        "pilot_virt_services": len(mesh.virtual_services),
        "pilot_xds": connected,
    }
    return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in values.items())
