"""The command line as tests run it: in this process, or as a user would."""

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.cli import main

REPOSITORY: Final = Path(__file__).parents[2]
MESHES: Final = REPOSITORY / "fixtures" / "meshes"


@dataclass(frozen=True)
class Ran:
    """How a run of the command line ended."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run it in this process, which is fast."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return in_process


def in_process(*arguments: object) -> Ran:
    """Run it in this process, with this process's variables."""
    # Streams with an encoding, as those of a process have.
    out, err = io.BytesIO(), io.BytesIO()
    stdout = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    stderr = io.TextIOWrapper(err, encoding="utf-8", write_through=True)
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as exited,
    ):
        main([str(each) for each in arguments])
    code = exited.value.code
    assert isinstance(code, int)
    return Ran(code, out.getvalue().decode(), err.getvalue().decode())


def unexpired(page: bytes) -> bytes:
    """A recorded page for what looks now: Consul's certificates are good for three days."""
    return re.sub(rb'("expiration_time": *")\d{4}', rb"\g<1>2999", page)


def environment(**changes: str) -> Mapping[str, str]:
    """What a program needs of the environment, without a mesh in it."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    own = {"LC_ALL": "C.UTF-8", "MESHDOCTOR_CONFIG": os.devnull, "PYTHONPATH": ":".join(sys.path)}
    # Where coverage is measured, this is how programs learn of it.
    measured = {name: each for name, each in os.environ.items() if name.startswith("COVERAGE_")}
    return {"PATH": path} | measured | own | changes


def command(*arguments: object) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "meshdoctor", *map(str, arguments)]


def process(*arguments: object, **changes: str) -> Ran:
    """Run it as a process of its own."""
    ran = subprocess.run(
        command(*arguments),
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(**changes),
        timeout=60,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)
