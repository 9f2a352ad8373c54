"""Real meshes of Consul's own kind; where none can run, tests are skipped, but never in CI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.connect.mesh import ConnectMesh, NoMeshError, temporary_folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@contextmanager
def running(*, acl: bool = False, servers: int = 1) -> Iterator[ConnectMesh]:
    """A healthy mesh; nothing of it is left afterwards."""
    with temporary_folder() as folder:
        try:
            mesh = ConnectMesh(folder / "mesh", acl=acl, servers=servers)
        except NoMeshError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no mesh here: {error}")
        with mesh:
            yield mesh


@pytest.fixture(scope="module")
def mesh() -> Iterator[ConnectMesh]:
    """One for tests that only look."""
    with running() as mesh:
        yield mesh
