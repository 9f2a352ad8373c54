"""What a user sees who is not root, and may do little but reach Docker's engine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[2]
_NOBODY: Final = 65534


def as_nobody(document: str, group: int = _NOBODY, docker_host: str | None = None) -> str:
    """A document as such a user's run records it. Skips where it cannot run this Python."""
    script = (
        "import sys; from meshdoctor.collectors import Options, collect; "
        f"snapshot = collect(Options(docker_host={docker_host!r}), lambda message: None); "
        f"sys.stdout.write(snapshot.read({document!r}).decode())"
    )
    folders = [str(REPOSITORY), *(each for each in sys.path if each.endswith("-packages"))]
    # The interpreter of the tests may stand in root's own home.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (sys.executable, f"/usr/bin/{version}"):
        try:
            done = subprocess.run(
                [interpreter, "-c", script],
                capture_output=True,
                text=True,
                check=False,
                user=_NOBODY,
                group=group,
                extra_groups=[],
                env={"PYTHONPATH": os.pathsep.join(folders), "HOME": "/"},
            )
        except OSError:
            continue
        assert done.returncode == 0, done.stderr
        return done.stdout
    pytest.skip("nobody but root may run this Python")
