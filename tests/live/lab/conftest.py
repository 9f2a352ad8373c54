"""The lab as a fixture; where it cannot run, tests are skipped, but never in CI."""

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.live.lab.lab import Lab
from tests.live.mesh import NoMeshError


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """The mesh, up for all tests of this folder."""
    lab = Lab()
    keep = "MESHDOCTOR_LAB_KEEP" in os.environ
    try:
        lab.require()
    except NoMeshError as error:
        _lacking(error)
    try:
        if not (keep and lab.is_up()):
            _up(lab)
        yield lab
    finally:
        # Also what came up in part.
        if not keep:
            lab.down()


def _up(lab: Lab) -> None:
    try:
        lab.up()
    except NoMeshError as error:
        _lacking(error)


def _lacking(error: NoMeshError) -> NoReturn:
    if os.environ.get("CI"):
        raise error
    pytest.skip(f"no lab here: {error}")
