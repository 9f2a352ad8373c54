"""A short run of each fuzzer, and every case that once broke one."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import Announce
from tests.fuzz.targets import TARGETS

REPOSITORY: Final = Path(__file__).parents[2]

# Enough to notice a decoder that came loose; `make fuzz` is for what hides deeper.
RUNS: Final = {
    "decoders": 4000,
    "redaction": 2000,
    "archive": 2000,
    "files": 300,
    "check": 100,
    "names": 40,
}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, target in TARGETS.items() for path in target.found()],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_what_was_found_stays_mended(name: str, path: Path) -> None:
    """Each case once gave a traceback, or took far too long."""
    TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path, announce: Announce) -> None:
    """The same cases in every run, as far as coverage leads the same way."""
    if importlib.util.find_spec("atheris") is None:
        # It is built for some Pythons and machines only.
        pytest.skip("atheris is not installed: pip install -e .[dev]")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, f"-runs={RUNS[name]}", "-seed=7"],
        cwd=REPOSITORY,
        env={**os.environ, "MESHDOCTOR_FUZZ": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    done = re.search(r"number_of_executed_units: (\d+)", ran.stdout)
    assert done is not None
    announce(f"fuzzing: {done[1]} cases of {name}, nothing found")
    assert int(done[1]) >= RUNS[name]
