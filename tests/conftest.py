"""What every test may use: golden files, and the option that writes them anew."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[Path, str], None]


# No test, and no program that a test starts, reads settings that lie about on this machine.
os.environ["MESHDOCTOR_CONFIG"] = os.devnull


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-goldens",
        action="store_true",
        help="write what the tests see into the golden files, to be read in the diff",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(path, text)`: the file at `path` holds `text`, or does after --refresh-goldens."""
    refresh = bool(request.config.getoption("--refresh-goldens"))

    def compare(path: Path, text: str) -> None:
        if refresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.exists(), f"no {path.name} yet: run pytest --refresh-goldens and read it"
        with path.open(encoding="utf-8", newline="") as file:
            assert text == file.read()

    return compare
