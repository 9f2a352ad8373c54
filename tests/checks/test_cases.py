"""Every check against its cases: fixtures/checks/<family>/<check>/<case>."""

from pathlib import Path
from typing import Final

import pytest

from meshdoctor.testing import assert_case
from meshdoctor_checks import CHECKS

FIXTURES: Final = Path(__file__).parents[2] / "fixtures" / "checks"
CASES: Final = sorted(FIXTURES.glob("*/*/*/"))
BY_NAME: Final = {check.name: check for check in CHECKS}


@pytest.mark.parametrize(
    "folder", [pytest.param(case, id=case.relative_to(FIXTURES).as_posix()) for case in CASES]
)
def test_case(folder: Path, request: pytest.FixtureRequest) -> None:
    """The check says of this snapshot what its expected.txt holds, and nothing unsound."""
    check = BY_NAME[folder.parent.name.replace("_", "-")]
    assert_case(check, folder, refresh=bool(request.config.getoption("--refresh-goldens")))
