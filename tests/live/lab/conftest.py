"""The lab as a fixture; where it cannot run, tests are skipped, but never in CI."""

import os
from collections.abc import Iterator

import pytest

from tests.live.lab.lab import Lab
from tests.live.mesh import NoMeshError


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """The mesh, up for all tests of this folder."""
    lab = Lab()
    try:
        lab.require()
        if not ("MESHDOCTOR_LAB_KEEP" in os.environ and lab.is_up()):
            lab.up()
    except NoMeshError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no lab here: {error}")
    try:
        yield lab
    finally:
        if "MESHDOCTOR_LAB_KEEP" not in os.environ:
            lab.down()
