"""The lab's control plane gives what recordings show that Pilot gave for the same catalogue."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor.snapshot import Snapshot, open_snapshot
from tests.live.lab.control_plane import catalogue, debug
from tests.live.lab.control_plane.configuration import Configuration, Mesh, build

MESHES: Final = Path(__file__).parents[3] / "fixtures" / "meshes"
Resource = dict[str, Any]


def services(snapshot: Snapshot) -> tuple[catalogue.Service, ...]:
    names = json.loads(snapshot.read("consul/catalog/services.json"))
    return tuple(
        catalogue.service(name, json.loads(snapshot.read(f"consul/catalog/service/{name}.json")))
        for name in sorted(names)
    )


def dumped(snapshot: Snapshot, sidecar: str) -> Mapping[str, Any]:
    """The parts of a dump by their type."""
    dump = json.loads(snapshot.read(f"envoy/{sidecar}/config_dump.json"))
    return {each["@type"].rpartition(".")[2]: each for each in dump["configs"]}


def plain(resource: Resource) -> Resource:
    """Without its type, and without where Envoy takes the rest from: files, when recorded."""
    text = json.dumps(
        {key: value for key, value in resource.items() if key != "@type"}, sort_keys=True
    )
    return dict(json.loads(text, object_hook=_without_source))


def _without_source(found: Resource) -> Resource:
    return {
        key: value for key, value in found.items() if key not in ("config_source", "eds_config")
    }


def by_name(resources: Sequence[Resource]) -> dict[str, Resource]:
    return {each["name"]: plain(each) for each in resources}


def order_of(snapshot: Snapshot, parts: Mapping[str, Any]) -> tuple[str, ...]:
    """Who came first in Pilot's map in that push: whose cluster the TCP listener has."""
    text = json.dumps(parts["ListenersConfigDump"])
    return tuple(
        sorted(
            json.loads(snapshot.read("consul/catalog/services.json")),
            key=lambda name: f'"cluster": "outbound|9080||{name}.service.consul"' not in text,
        )
    )


def sidecars(snapshot: Snapshot) -> Sequence[str]:
    return sorted({name.split("/")[1] for name in snapshot.names("envoy/")})


@pytest.fixture(params=["broken", "fixed"])
def recording(request: pytest.FixtureRequest) -> Snapshot:
    """The mesh before and after Registrator writes the protocols."""
    return open_snapshot(MESHES / f"{request.param}.tgz")


def told(snapshot: Snapshot, sidecar: str) -> tuple[Configuration, Mapping[str, Any]]:
    """What the lab would tell that sidecar, and what it had of Pilot."""
    parts = dumped(snapshot, sidecar)
    containers = json.loads(snapshot.read("docker/containers.json"))
    application = sidecar.replace("-sidecar_", "_")
    (address,) = (
        network["IPAddress"]
        for each in containers
        if each["Name"] == f"/{application}"
        for network in each["NetworkSettings"]["Networks"].values()
    )
    mesh = Mesh(services(snapshot), order=order_of(snapshot, parts))
    return build(mesh, address), parts


def test_listeners(recording: Snapshot) -> None:
    """Each one of every sidecar, whole."""
    for sidecar in sidecars(recording):
        made, parts = told(recording, sidecar)
        had = [
            each["active_state"]["listener"]
            for each in parts["ListenersConfigDump"]["dynamic_listeners"]
        ]
        assert by_name(made.listeners) == by_name(had), sidecar


def test_clusters(recording: Snapshot) -> None:
    """Likewise."""
    for sidecar in sidecars(recording):
        made, parts = told(recording, sidecar)
        had = [each["cluster"] for each in parts["ClustersConfigDump"]["dynamic_active_clusters"]]
        assert by_name(made.clusters) == by_name(had), sidecar


def test_routes(recording: Snapshot) -> None:
    """Those that listeners ask for: none where the port is TCP."""
    for sidecar in sidecars(recording):
        made, parts = told(recording, sidecar)
        had = [
            each["route_config"]
            for each in parts.get("RoutesConfigDump", {}).get("dynamic_route_configs", ())
        ]
        assert by_name(made.routes) == by_name(had), sidecar


def test_what_it_says_of_the_registry(recording: Snapshot) -> None:
    """The pages registryz and endpointz: the same services, ports, protocols and addresses."""
    known = services(recording)

    def registry(page: Any) -> Any:
        return {
            each["hostname"]: [(port["port"], port["protocol"]) for port in each["ports"]]
            for each in page
            if each.get("hostname")
        }

    def endpoints(page: Any) -> Any:
        return {
            each["svc"]: sorted(
                (one["endpoint"]["Address"], one["endpoint"]["Port"])
                for one in each["ep"]
                if one.get("endpoint")
            )
            for each in page
            if each.get("svc")
        }

    made, had = debug.registryz(known), recording.read("pilot/registryz.json")
    assert registry(json.loads(made)) == registry(json.loads(had))
    made, had = debug.endpointz(known), recording.read("pilot/endpointz.json")
    assert endpoints(json.loads(made)) == endpoints(json.loads(had))
