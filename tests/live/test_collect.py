"""Collecting from real containers: what is read, by which way, and what a fault costs."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshdoctor.collectors import Options, collect, docker, envoy, tools, ways
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import CollectError, Deadline
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.snapshot import Snapshot, open_snapshot, write_snapshot
from tests.live.mesh import PROXY, LiveMesh
from tests.live.nobody import as_nobody

AS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="entering a namespace needs root"
)


def gather(**options: Any) -> Snapshot:
    return collect(Options(**options), lambda _message: None)


def gather_until_reached(sidecar: str, way: str) -> Snapshot:
    """Gather again while its Envoy is still starting."""
    until = time.monotonic() + 30
    record: Mapping[str, Any] = {}
    while time.monotonic() < until:
        snapshot = gather()
        if f"envoy/{sidecar}/access.json" in snapshot.names():
            record = access(snapshot, sidecar)
            if record["way"] == way:
                return snapshot
        time.sleep(0.1)
    pytest.fail(f"{sidecar} was not reached by {way}: {record}")


def access(snapshot: Snapshot, sidecar: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(snapshot.read(f"envoy/{sidecar}/access.json"))
    return found


def reasons(snapshot: Snapshot) -> Mapping[str, str]:
    return {each.document: each.message for each in snapshot.absent}


def container(snapshot: Snapshot, name: str) -> Container:
    found = DockerEngine.load(snapshot).container(name)
    assert found is not None
    return found


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = docker.connect(Options(), Deadline(60, 10))
    yield engine
    engine.close()


@AS_ROOT
def test_a_mesh_is_recorded_as_a_recording_holds_it(mesh: LiveMesh, tmp_path: Path) -> None:
    """Every document of every source, and what decodes from it is the same from a file."""
    snapshot = gather()
    for app in mesh.apps:
        sidecar = mesh.name(f"{app}-sidecar")
        for page in ("config_dump", "clusters", "listeners", "server_info", "stats", "certs"):
            assert json.loads(snapshot.read(f"envoy/{sidecar}/{page}.json"))
        assert access(snapshot, sidecar)["way"] == "namespace"
        assert b"-j REDIRECT --to-ports 15001" in snapshot.read(f"netfilter/{sidecar}.nat.txt")
        assert f"docker/logs/{mesh.name(f'{app}-init')}.log" in snapshot.names()
    assert b'"details"' in snapshot.read("consul/catalog/services.json")
    assert snapshot.read("consul/catalog/service/details.json")
    assert b"details" in snapshot.read("pilot/registryz.json")
    assert b"# TYPE" in snapshot.read("pilot/metrics.txt")
    assert json.loads(snapshot.read("docker/networks.json"))
    assert json.loads(snapshot.read("docker/images.json"))
    assert json.loads(snapshot.read("docker/version.json"))["ApiVersion"]
    file = tmp_path / "live.tgz"
    write_snapshot(snapshot, file, tool="meshdoctor", version="0")
    again = open_snapshot(file)
    assert EnvoyProxies.load(again).proxies == EnvoyProxies.load(snapshot).proxies
    assert DockerEngine.load(again).containers == DockerEngine.load(snapshot).containers


@AS_ROOT
def test_reading_disturbs_no_proxy(mesh: LiveMesh) -> None:
    """No request of ours passes through a listener, nor goes round in the redirect."""
    every = "127.0.0.1:15000/stats?format=json"

    def accepted() -> Mapping[str, int]:
        told = json.loads(mesh.execute("ratings-v1-sidecar", "curl", "-s", every))
        return {
            each["name"]: each["value"]
            for each in told["stats"]
            if "name" in each
            and each["name"].startswith("listener.")
            and not each["name"].startswith("listener.admin.")
            and each["name"].endswith("downstream_cx_total")
        }

    before = accepted()
    assert before
    gather()
    assert accepted() == before


@pytest.mark.parametrize("tool", ["curl", "wget", "bash"])
def test_each_tool_in_an_image_reads_the_same(mesh: LiveMesh, engine: Engine, tool: str) -> None:
    """Byte for byte what the container's own localhost answers."""
    (chosen,) = (each for each in tools.TOOLS if each.program == tool)
    sidecar = mesh.containers["details-v1-sidecar"]
    output = engine.execute(sidecar, chosen.command(15000, "/config_dump?include_eds", 5))
    assert json.loads(chosen.body(output))["configs"]
    batch = tools.Batch(envoy.paths())
    answers = batch.answers(engine.execute(sidecar, batch.command([15000], 5, 30, tool)).out)
    if tool == "wget" and list(answers.values()) == [None]:
        # The shell of this image is a busybox, which takes its own: Debian's crashes by -T.
        return
    assert [place.path for place in answers] == list(envoy.paths())
    for answer in answers.values():
        assert answer is not None
        assert json.loads(chosen.body(answer))


@AS_ROOT
def test_every_way_leads_to_the_same_pages(mesh: LiveMesh, engine: Engine) -> None:
    """By namespace, by exec, all by one exec, and by a helper container: one dump."""
    deadline = Deadline(60, 10)
    sidecar = container(gather(), mesh.name("details-v1-sidecar"))
    found = [
        ways.ByNamespace(sidecar, [15000], deadline).read(envoy.read_pages),
        ways.ByExec(engine, sidecar.id, [19000, 15000], deadline).read(envoy.read_pages),
        ways.ByExec(engine, sidecar.id, [19000, 15000], deadline).read(
            envoy.read_pages, envoy.paths()
        ),
        ways.ByHelper(engine, PROXY, sidecar.id, [15000], deadline).read(
            envoy.read_pages, envoy.paths()
        ),
    ]
    assert [pages.absent for pages in found] == [{}, {}, {}, {}]
    assert len({listeners(pages) for pages in found}) == 1
    labelled = {"label": ["meshdoctor=helper"]}
    helpers = mesh.engine.containers(all=True, filters=labelled)
    beside = [each["HostConfig"]["NetworkMode"] for each in helpers]
    assert f"container:{sidecar.id}" not in beside


def test_one_exec_brings_the_pages_of_a_sidecar(mesh: LiveMesh, engine: Engine) -> None:
    """What the image has and which port is Envoy's are found by it too."""
    sidecar = mesh.containers["ratings-v1-sidecar"]
    ours = {"container": sidecar, "event": "exec_create"}
    way = ways.ByExec(engine, sidecar, [19000, 15000], Deadline(60, 10))
    begun = time.time()
    assert way.read(envoy.read_pages, envoy.paths()).absent == {}
    events = mesh.engine.events(since=begun, until=time.time(), filters=ours, decode=True)
    assert len(list(events)) == 1


def listeners(pages: envoy.Pages) -> str:
    """The part of the dump whose order does not change from one request to the next."""
    parts = json.loads(pages.found["config_dump.json"])["configs"]
    return next(
        json.dumps(each) for each in parts if each["@type"].endswith("ListenersConfigDump")
    )


def test_without_root_exec_is_used(mesh: LiveMesh) -> None:
    """A member of the group `docker` reads the same mesh; the record says how."""
    name = mesh.name("details-v1-sidecar")
    if os.geteuid() != 0:
        record = access(gather(), name)
    else:
        group = Path("/var/run/docker.sock").stat().st_gid
        record = json.loads(as_nobody(f"envoy/{name}/access.json", group))
    assert record["way"] == "exec"
    tried = {each["way"]: each["reason"] for each in record["tried"]}
    assert "run meshdoctor with sudo" in tried["namespace"]


def test_an_open_admin_port_is_read_by_its_address(mesh: LiveMesh) -> None:
    """Where nothing in the namespace can redirect, the address is the cheapest way."""
    with_address = f"{mesh.project}_plain_1"
    bootstrap = {
        "node": {"id": "plain", "cluster": "plain"},
        "admin": {"address": {"socket_address": {"address": "0.0.0.0", "port_value": 19000}}},  # noqa: S104 # the fault
    }
    mesh.run_plain(
        with_address,
        ["envoy", "--config-yaml", json.dumps(bootstrap), "--concurrency", "1"],
    )
    try:
        snapshot = gather_until_reached(with_address, "address")
    finally:
        mesh.remove(with_address)
    assert access(snapshot, with_address) == {"way": "address", "tried": []}
    assert json.loads(snapshot.read(f"envoy/{with_address}/config_dump.json"))["configs"]


def test_an_envoy_on_the_hosts_own_network_is_read(mesh: LiveMesh) -> None:
    """Its localhost is this machine's."""
    name = f"{mesh.project}_host_1"
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}}
    bootstrap = json.dumps({"admin": admin})
    mesh.run_plain(name, ["envoy", "--config-yaml", bootstrap, "--concurrency", "1"], "host")
    try:
        snapshot = gather_until_reached(name, "address")
    finally:
        mesh.remove(name)
    assert access(snapshot, name) == {"way": "address", "tried": []}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@AS_ROOT
def test_a_hung_proxy_costs_only_itself(small_mesh: LiveMesh) -> None:
    """It is asked once, by one way; the others are read."""
    small_mesh.engine.kill(small_mesh.containers["details-v1-sidecar"], signal="SIGSTOP")
    try:
        snapshot = gather(request_timeout=1)
    finally:
        small_mesh.engine.kill(small_mesh.containers["details-v1-sidecar"], signal="SIGCONT")
    hung = f"envoy/{small_mesh.name('details-v1-sidecar')}"
    assert f"{hung}/config_dump.json" not in snapshot.names()
    reason = reasons(snapshot)[f"{hung}/config_dump.json"]
    assert "sent nothing for 1 seconds" in reason
    assert "exec" not in reason
    assert f"envoy/{small_mesh.name('ratings-v1-sidecar')}/config_dump.json" in snapshot.names()


def test_a_stopped_sidecar_is_named_with_its_state(small_mesh: LiveMesh) -> None:
    """And its log is recorded, which those of running ones are not."""
    small_mesh.engine.stop(small_mesh.containers["details-v1-sidecar"], timeout=1)
    snapshot = gather()
    name = small_mesh.name("details-v1-sidecar")
    reason = reasons(snapshot)[f"envoy/{name}/config_dump.json"]
    assert reason == "its container does not run (exited)"
    assert f"docker/logs/{name}.log" in snapshot.names()
    assert f"netfilter/{name}.nat.txt" not in snapshot.names()


def test_a_container_that_vanishes_costs_only_itself(small_mesh: LiveMesh, engine: Engine) -> None:
    """Between the list and the inspection, as during `docker-compose down`."""
    victim = small_mesh.containers["details-v1-init"]
    assert victim in engine.ids()
    small_mesh.remove("details-v1-init")
    assert engine.inspect(victim) is None
    with pytest.raises(CollectError, match="No such container"):
        engine.logs(victim, 10)
    name = small_mesh.name("details-v1-init")
    assert name not in {each.name for each in DockerEngine.load(gather()).containers}


@AS_ROOT
def test_compose_v2_names_are_names(small_mesh: LiveMesh) -> None:
    """Nothing is told by a container's own name."""
    snapshot = gather()
    assert small_mesh.name("ratings-v1-sidecar").count("_") == 0
    assert f"envoy/{small_mesh.name('ratings-v1-sidecar')}/config_dump.json" in snapshot.names()
