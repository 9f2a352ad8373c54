"""How long a command takes before it does anything, against Python alone."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import Row, compare, of_programs

_SMALL: Final = Path(__file__).parents[2] / "fixtures" / "meshes" / "fixed.tgz"


def rows() -> Iterator[Row]:
    """`--version`, and commands that need no network; compiled modules are kept, as installed.

    They run in an empty folder: here, this project's pyproject.toml would be read for settings.
    """
    with tempfile.TemporaryDirectory() as kept:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": kept}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def python(*arguments: str) -> Callable[[], object]:
            command = [sys.executable, *arguments]
            return lambda: subprocess.run(
                command, capture_output=True, check=False, env=environment, cwd=kept
            )

        for what, arguments, target in (
            ("meshdoctor --version", ["--version"], 6.0),
            ("meshdoctor explain MD401", ["explain", "MD401"], 9.0),
            ("meshdoctor check --snapshot fixed.tgz", ["check", "--snapshot", str(_SMALL)], 9.0),
        ):
            found = compare(
                python("-c", "pass"), python("-m", "meshdoctor", *arguments), of_programs
            )
            yield Row("start-up", what, "python -c pass", found.ratio, target, found.spread)
