"""What `docker inspect` tells, and what of it survives damage."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.docker import (
    CONTAINERS,
    IMAGES,
    NETWORKS,
    VERSION,
    DockerEngine,
    PublishedPort,
)
from meshdoctor.evidence.interface import DecodeError, MissingEvidenceError, Problem
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import ISTIO, damaged, few, mangled, recorded, recording, snapshot

ONE = json.dumps(recorded("broken", CONTAINERS)[12:15])
ALL_PAGES = {name: recorded("broken", name) for name in (IMAGES, NETWORKS, VERSION)}


def load(containers: Any, **others: Any) -> DockerEngine:
    return DockerEngine.load(snapshot({CONTAINERS: containers, **others}))


@pytest.mark.parametrize("mesh", ISTIO)
def test_a_recording_is_decoded_whole(mesh: str) -> None:
    """Every container, image and log is there, and nothing is said to be damaged."""
    engine = DockerEngine.load(recording(mesh))
    assert engine.problems == ()
    assert engine.version
    names = [container.name for container in engine.containers]
    assert names == sorted(names)
    assert len(names) == len(recorded(mesh, CONTAINERS))
    assert {container.image_id for container in engine.containers} <= set(engine.images)
    assert "consul_pilot_1" in engine.logs


def test_a_running_application_in_every_field_that_checks_read() -> None:
    """The facts are those of `docker inspect`, and the pointer leads back to it."""
    engine = DockerEngine.load(recording("broken"))
    container = engine.container("consul_productpage-v1_1")
    assert container is not None
    inspected = recorded("broken", CONTAINERS)[int(container.pointer.removeprefix("/"))]
    assert inspected["Name"] == "/consul_productpage-v1_1"
    assert container.running
    assert container.image_name == "examples-bookinfo-productpage-v1"
    assert container.exposed == ((9080, "tcp"),)
    (published,) = container.published
    assert (published.port, published.host_address, published.host_port) == (
        9080,
        "127.0.0.1",
        9081,
    )
    assert list(container.addresses) == ["consul_istiomesh"]
    assert container.bridge_address == ""
    assert container.environment["SERVICE_PROTOCOL"] == "http"
    assert container.compose_project == "consul"
    assert container.compose_service == "productpage-v1"
    assert container.pid > 0
    assert engine.container(container.id[:12]) is container
    assert engine.container(container.id[:11]) is None
    assert engine.container("") is None


def test_a_sidecar_names_the_container_whose_namespace_it_shares() -> None:
    """`NetworkMode: container:<id>` is the whole link; other modes name no container."""
    engine = DockerEngine.load(recording("broken"))
    sidecar = engine.container("consul_details-v1-sidecar_1")
    application = engine.container("consul_details-v1_1")
    assert sidecar is not None
    assert application is not None
    assert sidecar.network_container == application.id
    assert application.network_container == ""


def test_the_names_that_docker_resolves() -> None:
    """Aliases by network, links by what they are called, hosts that were added by hand."""
    pilot = DockerEngine.load(recording("broken")).container("consul_pilot_1")
    assert pilot is not None
    assert {"istio-pilot", "pilot"} <= set(pilot.aliases["consul_istiomesh"])
    (web,) = load(
        [
            {
                "Id": "1",
                "Name": "/web",
                "HostConfig": {
                    "Links": ["/consul_1:/web/registry"],
                    "ExtraHosts": ["db:10.0.0.7", "six:fd00::1", "new=10.0.0.8", "odd"],
                },
                "NetworkSettings": {
                    "Networks": {
                        "stopped": {"IPAddress": "", "Aliases": ["w"]},
                        "linked": {"Links": ["other_1:other", "plain"]},
                        "odd": None,
                    }
                },
            }
        ]
    ).containers
    assert web.aliases == {"linked": (), "odd": (), "stopped": ("w",)}
    assert web.links == {"registry": "consul_1", "other": "other_1", "plain": "plain"}
    assert web.extra_hosts == {"db": "10.0.0.7", "six": "fd00::1", "new": "10.0.0.8", "odd": ""}


def test_what_was_asked_for_is_known_while_nothing_is_published() -> None:
    """A container that could not have its port has no port, but wanted one."""
    bindings = {"8600/udp": [{"HostIp": "", "HostPort": "53"}]}
    (consul,) = load(
        [{"Id": "1", "Name": "/consul", "HostConfig": {"PortBindings": bindings}}]
    ).containers
    assert consul.published == ()
    assert consul.bindings == (PublishedPort(8600, "udp", "", 53),)


def test_networks_and_the_hosts_own_addresses_on_them() -> None:
    """The gateway is where containers reach the host; none is known where none was recorded."""
    mesh = DockerEngine.load(recording("fixed")).networks["consul_istiomesh"]
    assert (mesh.driver, mesh.gateways, mesh.subnets) == (
        "bridge",
        ("172.28.0.1",),
        ("172.28.0.0/16",),
    )
    pools = [{"Subnet": "fd00::/64", "Gateway": "fd00::1/64"}, {"Subnet": "10.1.0.0/24"}]
    networks = [{"Name": "six", "IPAM": {"Config": pools}}, {"Name": "none", "IPAM": {}}]
    found = load(ONE, **{NETWORKS: networks}).networks
    assert (found["six"].gateways, found["six"].subnets) == (
        ("fd00::1",),
        ("fd00::/64", "10.1.0.0/24"),
    )
    assert found["none"].gateways == ()
    assert load(ONE).networks == {}


def test_when_docker_was_asked() -> None:
    """By the snapshot's own word; a word that is no time is none."""
    body = recording("fixed").read(CONTAINERS)

    def asked(created: str) -> str:
        return str(DockerEngine.load(Snapshot({CONTAINERS: body}, created=created)).asked)

    assert asked("2026-11-22T20:00:40Z") == "2026-11-22 20:00:40+00:00"
    assert asked("2026-11-22T20:00:40") == "2026-11-22 20:00:40+00:00"
    assert asked("") == asked("yesterday") == "None"


@pytest.mark.parametrize(
    ("image", "name", "repository", "tag"),
    [
        ("consul", "consul", "consul", "latest"),
        ("consul:1.3.0", "consul", "consul", "1.3.0"),
        ("docker.io/istio/pilot:1.1.0", "pilot", "docker.io/istio/pilot", "1.1.0"),
        ("localhost:5000/a/web", "web", "localhost:5000/a/web", "latest"),
        ("localhost:5000/a/web:v2", "web", "localhost:5000/a/web", "v2"),
        ("a/web@sha256:" + "0" * 64, "web", "a/web", ""),
        ("a/web:v2@sha256:" + "0" * 64, "web", "a/web", "v2"),
        ("", "", "", "latest"),
    ],
)
def test_parts_of_an_image_name(image: str, name: str, repository: str, tag: str) -> None:
    """A port of a registry is no tag, and a digest is none either."""
    (container,) = load([{"Id": "1", "Name": "/web", "Config": {"Image": image}}]).containers
    assert (container.image_name, container.image_repository, container.image_tag) == (
        name,
        repository,
        tag,
    )


def test_a_damaged_container_costs_only_itself() -> None:
    """Its place is named, and pointers of the others still lead to them."""
    inspected = recorded("broken", CONTAINERS)
    inspected[3] = {"Id": 7}
    inspected[5] = None
    engine = load(inspected)
    assert len(engine.containers) == len(inspected) - 2
    assert [problem.document for problem in engine.problems] == [
        f"{CONTAINERS}#/3",
        f"{CONTAINERS}#/5",
    ]
    for container in engine.containers:
        assert inspected[int(container.pointer[1:])]["Id"] == container.id


def test_a_damaged_image_costs_only_itself() -> None:
    """The other images are there, and the containers too."""
    images = recorded("broken", IMAGES)
    images[0] = ["not", "an", "image"]
    engine = load([], **{IMAGES: images})
    assert len(engine.images) == len(images) - 1
    assert [problem.document for problem in engine.problems] == [f"{IMAGES}#/0"]


def test_damaged_pages_beside_the_containers_cost_only_themselves() -> None:
    """No images and no version, said as problems; the containers stand."""
    engine = load(recorded("broken", CONTAINERS), **{IMAGES: "{", VERSION: "[]"})
    assert engine.images == {}
    assert engine.version == ""
    assert [problem.document for problem in engine.problems] == [IMAGES, VERSION]
    assert engine.containers


def test_null_is_an_empty_list() -> None:
    """Go writes null where a slice or a map was never filled."""
    assert load("null").containers == ()
    (container,) = load(
        [
            {
                "Id": "1",
                "Name": "/web",
                "Args": None,
                "Config": {"Env": None, "Labels": None, "ExposedPorts": None},
                "HostConfig": {"CapAdd": None, "Dns": None, "Binds": None},
                "NetworkSettings": {"Networks": {"a": None}, "Ports": {"80/tcp": None}},
            }
        ]
    ).containers
    assert (container.environment, container.labels, container.command) == ({}, {}, ())
    assert container.addresses == {}
    assert container.exposed == ((80, "tcp"),)


@pytest.mark.parametrize("port", ["99999/tcp", "9" * 5000 + "/tcp", "-1/tcp", "٣/tcp", "/", "x"])
def test_what_is_no_port_is_left_out(port: str) -> None:
    """A port is 1 to 65535 in ASCII digits; anything else is nobody's port."""
    (container,) = load(
        [
            {
                "Id": "1",
                "Name": "/web",
                "Config": {"ExposedPorts": {port: {}}},
                "NetworkSettings": {"Ports": {port: [{"HostPort": "80"}], "81": [{}]}},
            }
        ]
    ).containers
    assert container.exposed == ((81, "tcp"),)
    assert container.published == ()


def test_without_containers_docker_is_missing_with_the_reason() -> None:
    """What the collector said of Docker is what the user reads, with what to do."""
    told = Snapshot({}, absent=(Problem("docker/", "connection refused"),))
    with pytest.raises(MissingEvidenceError, match="connection refused") as caught:
        DockerEngine.load(told)
    assert "--docker-host" in caught.value.hint


def test_a_list_that_is_no_list_is_named_with_its_place() -> None:
    """The error names the document."""
    with pytest.raises(DecodeError, match=r"docker/containers\.json: not of the expected form"):
        load({"message": "page not found"})
    with pytest.raises(DecodeError, match=r"docker/containers\.json: not JSON \(4 bytes\)"):
        load("[{]}")


def test_logs_are_text_whatever_their_bytes() -> None:
    """A log is by its container's name, also one that a file system could not hold."""
    engine = load([], **{"docker/logs/a%2Fb.log": b"\xff gone\n"})
    assert engine.logs == {"a/b": "\ufffd gone\n"}


def walk(engine: DockerEngine) -> None:
    """What is decoded can be read and printed."""
    repr(engine)
    for container in engine.containers:
        for name in dir(container):
            getattr(container, name)
        assert all(0 < port < 65536 for port, _ in container.exposed)


@few
@given(damaged(ONE))
def test_changed_containers(body: bytes) -> None:
    """Whatever a container looks like, there are facts or a word about what is wrong."""
    try:
        walk(load(body))
    except DecodeError:
        return


@few
@given(mangled(ONE))
def test_changed_bytes(body: bytes) -> None:
    """Whatever the bytes are, there are facts or a word about what is wrong."""
    try:
        walk(load(body))
    except DecodeError:
        return


@few
@given(st.sampled_from(sorted(ALL_PAGES)), st.data())
def test_changed_pages_never_cost_the_containers(page: str, data: st.DataObject) -> None:
    """Images, networks and version are extras."""
    body = data.draw(damaged(json.dumps(ALL_PAGES[page])) | mangled(json.dumps(ALL_PAGES[page])))
    engine = load(ONE, **{page: body})
    walk(engine)
    assert len(engine.containers) == 3


def test_a_container_goes_by_its_id_the_beginning_of_it_or_its_name() -> None:
    """Twelve letters as Docker shows them; of what nobody has there is none."""
    id_ = "0123456789abcdef" * 4
    engine = load([{"Id": id_, "Name": "/web"}])
    for known in (id_, id_[:12], "web"):
        container = engine.container(known)
        assert container is not None
        assert container.id == id_
    for unknown in (id_[:11], "fedcba987654", "api"):
        assert engine.container(unknown) is None
