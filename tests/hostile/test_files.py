"""Files that are named and are none: pipes nobody writes to, devices without end, folders."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.files import read_some
from tests.cli.conftest import Ran, in_process
from tests.hostile.test_snapshots import confined
from tests.plain_user import as_plain_user

DEMO: Final = ("check", "--snapshot", "demo")
NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "snapshot": ("check", "--snapshot"),
    "rules": (*DEMO, "--rules"),
    "compose": ("check", "--compose"),
    "settings": (*DEMO, "--config"),
    "report": ("diff", "demo"),
}
"""The options that take a file, each with the file to come as its last word."""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("option", NAMED)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path, option: str) -> None:
    """It is as an empty file, or none; the sentence names it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ran = confined(*NAMED[option], pipe)
    if option == "settings":
        # As with /dev/null, what is empty sets nothing.
        assert ran.code == 1, ran.stderr
        return
    assert ran.code in {2, 3}, ran.stderr
    assert pipe.name in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
@pytest.mark.parametrize("option", NAMED)
def test_a_device_without_end_is_read_to_a_bound(option: str) -> None:
    """And named as what is too large, or nothing of the kind."""
    ran = confined(*NAMED[option], "/dev/zero")
    assert ran.code in {2, 3}, ran.stderr
    assert "/dev/zero" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("option", NAMED)
def test_what_is_far_too_large_is_said_to_be_so(tmp_path: Path, option: str) -> None:
    """A gibibyte of nothing, under the name that such a file has."""
    file = tmp_path / {"report": "x.json", "snapshot": "x.tgz"}.get(option, "x")
    with file.open("wb") as holey:
        holey.truncate(2**30)
    ran = confined(*NAMED[option], file)
    assert ran.code in {2, 3}, ran.stderr
    assert str(file) in ran.stderr
    assert "Traceback" not in ran.stderr


CLOSED: Final[Mapping[str, tuple[tuple[str, ...], int]]] = {
    **{name: (words, 3 if name in {"snapshot", "report"} else 2) for name, words in NAMED.items()},
    "another report": (("diff", "demo"), 3),
    "matrix": (("matrix", "--snapshot"), 3),
    "written": (("snapshot", "--snapshot", "demo", "-o"), 2),
    "recorded": (("probe", "--record"), 2),
    "checks": (("checks", "--checks"), 2),
}


@pytest.mark.parametrize("option", CLOSED)
def test_a_folder_of_somebody_elses_is_no_fault_of_ours(tmp_path: Path, option: str) -> None:
    """As /root is to who is not root: what is in there cannot even be looked for."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    words, code = CLOSED[option]
    # What is imported only now may lie where nobody else may read.
    in_process(*words, tmp_path / "no such folder" / "x.tgz")
    ran = in_process_of_nobody(*words, closed / "x.tgz", closed=tmp_path)
    assert ran.code == code, ran.stderr
    assert "x.tgz" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def in_process_of_nobody(*words: object, closed: Path) -> Ran:
    """Run by somebody who is not root, in whose way lie the folders that only root may enter."""
    with as_plain_user(closed, *closed.parents[:2]):
        return in_process(*words)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="this system has no /dev/fd")
def test_a_pipe_with_a_writer_is_read() -> None:
    """As a shell's `<(kustomize build)` is, though what is written comes after it was opened."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as end, ThreadPoolExecutor(1) as pool:
        read = pool.submit(read_some, Path(f"/dev/fd/{end.fileno()}"), 100)
        with os.fdopen(writing, "wb", buffering=0) as written:
            for part in (b"kind: ", b"List\n"):
                written.write(part)
        assert read.result() == b"kind: List\n"
