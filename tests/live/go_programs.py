"""Real programs for the live tests, built by name and version from the Go module registry.

The sources of truth are the modules in tests/live/programs/: go.mod names the program and its
version, go.sum the hash of everything it is built from. What is built is kept outside the
repository, in $MESHDOCTOR_PROGRAMS or ~/.cache/meshdoctor-programs, and reused while neither file
changes.

`python tests/live/go_programs.py` builds all of them and prints where they are.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).parent / "programs"
CONSUL: Final = "github.com/hashicorp/consul"


class NoProgramError(Exception):
    """The program can be neither found nor built here; the message says what it lacks."""


def cache() -> Path:
    """Where built programs are kept."""
    named = os.environ.get("MESHDOCTOR_PROGRAMS")
    return Path(named) if named else Path.home() / ".cache" / "meshdoctor-programs"


def consul() -> Path:
    """The Consul that tests/live/programs/consul names. Raises NoProgramError.

    The first build takes minutes: some 300 modules are downloaded and compiled.
    """
    return _built("consul", CONSUL)


def _built(name: str, package: str) -> Path:
    module = MODULES / name
    recipe = b"".join((module / part).read_bytes() for part in ("go.mod", "go.sum"))
    folder = cache() / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    program = folder / name
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise NoProgramError(f"there is no Go on this machine to build {name} with")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(go, module, package, program)
    return program


def _build(go: str, module: Path, package: str, program: Path) -> None:
    """Build beside the program's place and move it there whole."""
    unfinished = program.with_suffix(".building")
    done = subprocess.run(
        [go, "build", "-mod=readonly", "-trimpath", "-o", unfinished, package],
        cwd=module,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoProgramError(f"{program.name} could not be built: {done.stderr[-2000:].strip()}")
    unfinished.rename(program)


if __name__ == "__main__":
    print(consul())  # noqa: T201 # it is what the command is for
