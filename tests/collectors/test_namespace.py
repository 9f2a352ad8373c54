"""Entering network namespaces: only of processes that are here and are the container's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshdoctor.collectors import namespace
from meshdoctor.collectors.interface import HungError, NotAnsweringError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")

NOBODYS_ID = "0" * 64


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of our own, and no container's."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_a_process_that_is_not_here_is_elsewhere() -> None:
    """An engine in a virtual machine tells process ids of its own."""
    with pytest.raises(NotAnsweringError, match="the engine runs elsewhere"):
        namespace.check_reachable(2**22 + 1, NOBODYS_ID, "")


def test_another_process_of_that_number_is_not_entered(sleeper: int) -> None:
    """Its cgroup does not name the container, and it started at another time."""
    long_ago = "2020-01-01T00:00:00.123456789Z"
    with pytest.raises(NotAnsweringError, match="is not the container's"):
        namespace.check_reachable(sleeper, NOBODYS_ID, long_ago)


@pytest.mark.parametrize("moment", ["", "now", "0001-01-01T00:00:00Z", "9999"])
def test_a_time_that_is_none_proves_nothing(sleeper: int, moment: str) -> None:
    """Docker gives year 1 for what never started."""
    with pytest.raises(NotAnsweringError):
        namespace.check_reachable(sleeper, NOBODYS_ID, moment)


def test_a_process_of_the_same_moment_is_taken_for_it(sleeper: int) -> None:
    """Where cgroups do not name containers, the start tells."""
    started = datetime.now(UTC) - timedelta(milliseconds=10)
    moment = started.isoformat(timespec="microseconds").replace("+00:00", "789Z")
    namespace.check_reachable(sleeper, NOBODYS_ID, moment)


def test_a_container_that_does_not_run_has_no_process() -> None:
    """Docker gives 0."""
    with pytest.raises(NotAnsweringError, match="no process id"):
        namespace.check_reachable(0, NOBODYS_ID, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
def test_only_the_thread_that_enters_is_inside() -> None:
    """Everything else stays where it was, also after a failure inside."""
    before = Path("/proc/self/ns/net").readlink()
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as process:
        theirs = Path(f"/proc/{process.pid}/ns/net")
        while theirs.readlink() == before:
            assert process.poll() is None
        inside = namespace.within(
            process.pid, lambda: Path("/proc/thread-self/ns/net").readlink(), 10
        )
        with pytest.raises(ZeroDivisionError):
            namespace.within(process.pid, lambda: 1 // 0, 10)
        assert inside == theirs.readlink()
        assert Path("/proc/thread-self/ns/net").readlink() == before
        process.kill()


@pytest.mark.usefixtures("without_root")
def test_without_root_it_says_what_to_do(sleeper: int) -> None:
    """Exec is tried next."""
    with pytest.raises(NotAnsweringError, match="run meshdoctor with sudo"):
        namespace.within(sleeper, lambda: None, 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
def test_what_hangs_inside_is_left_to_itself() -> None:
    """The thread that waits does not."""
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(HungError):
            namespace.within(process.pid, process.wait, 0.1)
        process.kill()
