"""Ctrl-C on a real terminal, at each moment of a run: what was made is whole or not there."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.conftest import environment
from tests.collectors.conftest import Serve, hang, serve

__all__ = ["serve"]

if sys.platform == "win32":  # pragma: no cover # it has no terminals of this kind
    pytest.skip("this system has no pseudo-terminals", allow_module_level=True)

import fcntl
import pty
import struct
import termios

CTRL_C: Final = b"\x03"
SECONDS: Final = 120
"""Far more than a run takes here, and far less than for ever."""
NOTHING: Final = {
    "DOCKER_HOST": "unix:///nonexistent/docker.sock",
    "CONSUL_HTTP_ADDR": "127.0.0.1:1",
}

# The program as a terminal's own. At the moment that is named, by what Python tells an audit
# hook, it says so and waits: a person may press Ctrl-C at any moment, a test at a known one.
PROGRAM: Final = """
import fcntl, sys, termios, time

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
event, _, what = sys.argv.pop(1).partition(" ")
sys.argv[0] = "meshdoctor"


def hook(name, arguments):
    if name == event and what in repr(arguments):
        sys.stderr.write("[now]")
        sys.stderr.flush()
        time.sleep(600)


from meshdoctor.__main__ import main
sys.addaudithook(hook)
main()
"""


@dataclass
class Session:
    """A program on a terminal of its own."""

    keyboard: int
    screen: int
    process: subprocess.Popen[bytes]
    shown: bytearray = field(default_factory=bytearray)
    told: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        """Until the last of its terminal's ends is closed."""
        while True:
            try:
                part = os.read(self.keyboard, 65536)
            except OSError:
                part = b""
            with self.told:
                self.shown += part
                self.told.notify_all()
            if not part:
                return

    def wait_for(self, text: bytes) -> None:
        """Until the terminal shows it."""
        until = time.monotonic() + SECONDS
        with self.told:
            while text not in self.shown:
                going_on = self.process.poll() is None and time.monotonic() < until
                assert going_on, bytes(self.shown)
                self.told.wait(1)

    def press(self, key: bytes) -> int:
        """What the program's exit code was, once the key was pressed."""
        os.write(self.keyboard, key)
        return self.process.wait(SECONDS)


@contextmanager
def terminal(moment: str, *arguments: object, **variables: str) -> Iterator[Session]:
    """The program on a terminal of 80 columns."""
    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, moment, *map(str, arguments)],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
        env=environment(TERM="xterm-256color", **{**NOTHING, **variables}),
    ) as process:
        session = Session(keyboard, screen, process)
        reader = threading.Thread(target=session.read)
        reader.start()
        try:
            yield session
        finally:
            process.kill()
            process.wait()
            os.close(screen)
            reader.join()
            os.close(keyboard)


def settings(session: Session) -> list[Any]:
    """What the terminal does with keys: echo, lines, signals."""
    return termios.tcgetattr(session.screen)


def is_as_it_was(shown: bytes) -> bool:
    """Whether the cursor is seen, the colours are the terminal's, and the screen is its main."""
    cursor = re.findall(rb"\x1b\[\?25([hl])", shown)
    colours = re.findall(rb"\x1b\[([0-9;]*)m", shown)
    screens = re.findall(rb"\x1b\[\?1049([hl])", shown)
    return cursor[-1:] != [b"l"] and colours[-1:] in ([], [b"0"], [b""]) and screens[-1:] != [b"h"]


WAITING: Final = '''
import time
from collections.abc import Iterator

from meshdoctor.check import check
from meshdoctor.findings import Finding, Severity
from meshdoctor.topology import Mesh


@check(code="ACME001", severity=Severity.WARNING, since="1")
def waiting(mesh: Mesh) -> Iterator[Finding]:
    """It waits to be interrupted.

    ## Why it matters

    People change their minds.

    ## How it is found

    By waiting.

    ## How to fix it

    Press Ctrl-C.
    """
    print("[now]", flush=True)
    time.sleep(600)
    yield from ()


CHECKS = (waiting,)
'''


def files(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


NEVER: Final = "none none"
MOMENTS: Final[Mapping[str, tuple[str, Callable[[Path], tuple[object, ...]], set[str]]]] = {
    "starting": ("import meshdoctor.cli", lambda _: ("demo",), set()),
    "reading": ("open broken.tgz", lambda _: ("demo",), set()),
    "before judging": ("import meshdoctor.diagnosis", lambda _: ("demo",), set()),
    "judging": (
        NEVER,
        lambda folder: ("check", "--snapshot", "demo", "--checks", folder / "waiting.py"),
        set(),
    ),
    "rendering": ("import meshdoctor.report.text", lambda _: ("demo", "--color"), set()),
    "writing the second report": (
        "os.rename second",
        lambda folder: (
            *("demo", "--output", f"json={folder / 'first'}"),
            *("--output", f"html={folder / 'second'}"),
        ),
        {"first"},
    ),
    "writing a snapshot": (
        "os.rename mesh.tgz",
        lambda folder: ("snapshot", "--snapshot", "demo", "-o", folder / "mesh.tgz"),
        set(),
    ),
    "explaining": ("import meshdoctor.report.explain", lambda _: ("explain", "MD401"), set()),
    "drawing a matrix": (
        "import meshdoctor.report.matrix",
        lambda _: ("matrix", "--snapshot", "demo"),
        set(),
    ),
}
"""When Python tells of it, what is run, and what of it may be left."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_the_terminal_as_it_was_and_nothing_half_done(
    tmp_path: Path, moment: str
) -> None:
    """Exit code 130 and one word, whatever it was at; a report that was written before stays."""
    event, arguments, left = MOMENTS[moment]
    (tmp_path / "waiting.py").write_text(WAITING, encoding="utf-8")
    there = files(tmp_path)
    with terminal(event, *arguments(tmp_path)) as session:
        before = settings(session)
        session.wait_for(b"[now]")
        assert session.press(CTRL_C) == 130, bytes(session.shown)
        assert settings(session) == before
    ended(session)
    assert files(tmp_path) - there - {"__pycache__"} == left
    for each in left:
        assert (tmp_path / each).read_text(encoding="utf-8").rstrip().endswith("}")


def ended(session: Session) -> None:
    """One word, and the terminal as it was."""
    shown = bytes(session.shown)
    assert b"meshdoctor: interrupted" in shown
    assert b"Traceback" not in shown
    assert is_as_it_was(shown), shown


@pytest.mark.parametrize("sub", ["check", "snapshot", "watch", "matrix"])
def test_ctrl_c_while_the_mesh_is_asked(serve: Serve, tmp_path: Path, sub: str) -> None:
    """The moving line is on the terminal then, and the cursor is hidden."""
    asked = threading.Event()

    def hold(connection: Any) -> None:
        asked.set()
        hang(connection)

    more = ("-o", tmp_path / "mesh.tgz") if sub == "snapshot" else ()
    patient = ("--consul", serve(hold), "--request-timeout", "600")
    with terminal(NEVER, sub, *more, *patient) as session:
        before = settings(session)
        assert asked.wait(SECONDS)
        session.wait_for(b"\x1b[?25l")
        assert session.press(CTRL_C) == 130, bytes(session.shown)
        assert settings(session) == before
    ended(session)
    assert not files(tmp_path)


def test_ctrl_c_while_watching() -> None:
    """Between two looks, when all that is awaited is a change."""
    with terminal(NEVER, "watch", "--request-timeout", "1") as session:
        before = settings(session)
        session.wait_for(b"No mesh is there yet")
        assert session.press(CTRL_C) == 130, bytes(session.shown)
        assert settings(session) == before
    ended(session)
