"""What every test may use: golden files, and the option that writes them anew."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[Path, str], None]
Announce = Callable[[str], None]


# No test, and no program that a test starts, reads settings that lie about on this machine.
os.environ["MESHDOCTOR_CONFIG"] = os.devnull
# What a shell starts in its background ignores Ctrl-C, and so would every program tested here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-goldens",
        action="store_true",
        help="write what the tests see into the golden files, to be read in the diff",
    )


_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def announce(request: pytest.FixtureRequest) -> Announce:
    """`announce(sentence)`: a figure that the run says at its end, whether tests pass or not."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return figures.append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)


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
