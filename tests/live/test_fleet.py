"""More than one machine, with real engines: two hosts in one run, and the recipe for Swarm."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from meshdoctor.collectors import NamedEngine, Options, collect
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.snapshot import open_snapshot
from tests.live.engines import own_engine, this_machine
from tests.live.mesh import STAND_IN, NoMeshError, engine_here, stand_in_image

RECIPE = Path(__file__).parents[2] / "docs" / "fleet" / "swarm.sh"
REPOSITORY = Path(__file__).parents[2]
CONSUL_ELSEWHERE = {"CONSUL_HTTP_ADDR": "127.0.0.1:1"}
REGISTRATOR = "gliderlabs/registrator"


@pytest.fixture(scope="module")
def second() -> Iterator[tuple[str, docker.APIClient]]:
    """Another engine on this machine, with one container that is part of a mesh."""
    try:
        with own_engine() as (url, client):
            client.import_image_from_data(stand_in_image(), repository=REGISTRATOR, tag="latest")
            yield url, client
    except NoMeshError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no second engine here: {error}")


@pytest.fixture
def here() -> Iterator[docker.APIClient]:
    """The engine of this machine, which does not run everywhere that Docker is installed."""
    try:
        with engine_here() as client:
            yield client
    except NoMeshError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no first engine here: {error}")


def started(client: docker.APIClient, image: str, name: str) -> str:
    """A container that stays, without a network; its id."""
    settings = client.create_host_config(network_mode="none")
    command = ["sleep", "600"]
    created = client.create_container(image, command=command, name=name, host_config=settings)
    client.start(created["Id"])
    return str(created["Id"])


def test_two_engines_are_read_in_one_run(
    here: docker.APIClient, second: tuple[str, docker.APIClient]
) -> None:
    """A container of one name on each is told apart by its host; both have one host's name."""
    url, other = second
    name = f"mdtest-{uuid.uuid4().hex[:8]}"
    image = f"{STAND_IN.partition(':')[0]}:{name}"
    repository, _, tag = image.partition(":")
    here.import_image_from_data(stand_in_image(), repository=repository, tag=tag)
    made = []
    try:
        made.append((here, started(here, image, name)))
        made.append((other, started(other, f"{REGISTRATOR}:latest", name)))
        default = "unix:///var/run/docker.sock"
        snapshot = collect(
            Options(
                engines=(NamedEngine(host=default), NamedEngine(host=url)),
                environment={**os.environ, **CONSUL_ELSEWHERE},
            ),
            lambda _message: None,
        )
    finally:
        for client, id_ in made:
            client.remove_container(id_, force=True)
        here.remove_image(image, force=True)
    found = {
        each.id: (each.name, each.image_name)
        for each in DockerEngine.load(snapshot).containers
        if each.name_on_host == name
    }
    assert found == {
        made[0][1]: (f"{name}@var/run/docker.sock", repository.rpartition("/")[2]),
        made[1][1]: (f"{name}@{url.removeprefix('unix:///')}", "registrator"),
    }
    assert not [each for each in snapshot.absent if each.document == "docker/"]


@pytest.fixture
def swarm(second: tuple[str, docker.APIClient]) -> Iterator[tuple[str, docker.APIClient]]:
    """A Swarm of that engine alone, on loopback."""
    url, client = second
    client.import_image_from_data(this_machine(), repository="meshdoctor", tag="latest")
    client.init_swarm(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:0")
    yield url, client
    client.leave_swarm(force=True)


def test_swarms_global_job_leaves_a_snapshot(
    swarm: tuple[str, docker.APIClient], tmp_path: Path
) -> None:
    """The recipe as it is: a real job on every node; what runs in it is this machine's Python."""
    url, client = swarm
    container = started(client, f"{REGISTRATOR}:latest", "registrator")
    mounted = {Path("/usr"), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    mounts = [
        word
        for each in sorted(mounted)
        for word in ("--mount", f"type=bind,source={each},target={each},readonly")
    ]
    ran = subprocess.run(
        [
            *("sh", str(RECIPE), *mounts),
            *("--env", f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"),
            *("--env", "HOME=/tmp", "--env", "CONSUL_HTTP_ADDR=127.0.0.1:1"),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "DOCKER_HOST": url,
            "MESHDOCTOR_SOCKET": url.removeprefix("unix://"),
            "MESHDOCTOR_FOLDER": str(tmp_path),
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    (node,) = client.nodes()
    assert f"{node['Description']['Hostname']}: Complete" in ran.stdout, ran.stdout + ran.stderr
    (taken,) = tmp_path.glob("*.tgz")
    assert taken.name == f"{node['Description']['Hostname']}-{node['ID']}.tgz"
    listed = json.loads(open_snapshot(taken).read("docker/containers.json"))
    assert container in {each["Id"] for each in listed}
    services: list[object] = client.services()  # type: ignore[no-untyped-call]
    assert services == []
