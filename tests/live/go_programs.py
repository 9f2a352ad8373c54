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
KUBE_APISERVER: Final = "k8s.io/kubernetes/cmd/kube-apiserver"
ETCD: Final = "go.etcd.io/etcd/server/v3"


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


def kube_apiserver() -> Path:
    """The API server that tests/live/programs/kubernetes names. Raises NoProgramError.

    Only one that is built already: that takes some ten minutes of two cores.
    """
    return _built("kube-apiserver", KUBE_APISERVER, "kubernetes", build=False)


def etcd() -> Path:
    """The etcd of the same module, in which that API server stores. Raises NoProgramError."""
    return _built("etcd", ETCD, "kubernetes", build=False)


def nomad_job() -> Path:
    """Nomad's reader of jobs, which prints one as JSON. Raises NoProgramError."""
    return _built("nomad-job", ".", "nomad")


def _built(name: str, package: str, of: str = "", *, build: bool = True) -> Path:
    """A program of a module in MODULES, `of` where it has another name."""
    module = MODULES / (of or name)
    recipe = b"".join((module / part).read_bytes() for part in ("go.mod", "go.sum"))
    folder = cache() / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    program = folder / name
    if program.exists():
        return program
    if not build:
        raise NoProgramError(
            f"{name} is not built yet: `python tests/live/go_programs.py` builds it"
        )
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
    for program in (
        consul(),
        nomad_job(),
        _built("etcd", ETCD, "kubernetes"),
        _built("kube-apiserver", KUBE_APISERVER, "kubernetes"),
    ):
        print(program)  # noqa: T201 # it is what the command is for
