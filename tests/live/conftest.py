"""The live mesh as a fixture; where none can run, tests are skipped, but never in CI."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from meshdoctor.snapshot import open_snapshot
from tests.live.mesh import LiveMesh, NoMeshError, stand_ins

RECORDING = Path(__file__).parents[2] / "fixtures" / "meshes" / "broken.tgz"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@contextmanager
def running(mesh: LiveMesh) -> Iterator[LiveMesh]:
    """The mesh while it runs. Nothing of it is left afterwards."""
    try:
        mesh.start()
    except NoMeshError as error:
        mesh.stop()
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no live mesh here: {error}")
    except BaseException:
        mesh.stop()
        raise
    try:
        yield mesh
    finally:
        mesh.stop()


@pytest.fixture(scope="session")
def images() -> Iterator[Mapping[str, str]]:
    """What the containers are made of, under the names of the recording."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(stand_ins(open_snapshot(RECORDING)))
        except NoMeshError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no live mesh here: {error}")
        yield made


@pytest.fixture(scope="session")
def mesh(images: Mapping[str, str]) -> Iterator[LiveMesh]:
    """The broken mesh of the recording, with names as Compose v1 makes them."""
    project = f"mdtest{uuid.uuid4().hex[:6]}"
    with running(LiveMesh(open_snapshot(RECORDING), images, project)) as mesh:
        yield mesh


@pytest.fixture
def small_mesh(images: Mapping[str, str]) -> Iterator[LiveMesh]:
    """A fresh mesh of two applications, named as Compose v2 names, for tests that break it."""
    mesh = LiveMesh(
        open_snapshot(RECORDING),
        images,
        f"mdtest{uuid.uuid4().hex[:6]}",
        separator="-",
        apps=("details-v1", "ratings-v1"),
    )
    with running(mesh) as mesh:
        yield mesh
